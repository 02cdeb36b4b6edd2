"""How the flights team trains: raw columns in, one fitted pipeline out.

All feature work lives inside the pipeline, so an old model can score new rows as they are stored. Only scikit-learn's
own classes are used: the saved model loads where this file does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

DEFAULTS: dict[str, Any] = {"max_iter": 100, "learning_rate": 0.1, "min_samples_leaf": 100}


def train(
    data: pd.DataFrame,
    target: pd.Series,
    *,
    weights: pd.Series | None,
    parameters: Mapping[str, Any],
    seed: int,
) -> Pipeline:
    """Fit a gradient boosting classifier on flights.

    :param data: the feature columns as stored, one row a flight. Text columns are categories, all others numbers;
        missing values are allowed in both, and so are categories at scoring time that training never saw.
    :param target: 1 for a late flight, 0 otherwise; same rows as ``data``.
    :param weights: one weight per row, or None for equal weights.
    :param parameters: ``max_iter``, ``learning_rate`` and ``min_samples_leaf``; what is left out is ``DEFAULTS``.
    :param seed: not used by the fit as it stands (nothing is sampled), passed on in case that changes.
    :return: a fitted pipeline with ``predict_proba`` over frames that have the columns of ``data``, in any order.
    :raises ValueError: an unknown parameter, or a target with one class only.
    """
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    unknown = sorted(set(parameters) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"train.parameters has {unknown}, which this function does not know: use {sorted(DEFAULTS)}.")
    if target.nunique() < 2:
        raise ValueError(f"All {len(target)} rows have the same target; a classifier needs late and punctual flights.")

    numbers = [name for name in data.columns if is_numeric_dtype(data[name]) or is_bool_dtype(data[name])]
    categories = [name for name in data.columns if name not in numbers]
    # Before pandas 3 a missing text is None, which the encoder would take for a category of its own.
    data = data.assign(**{name: data[name].where(data[name].notna(), np.nan) for name in categories})
    # A category that training never saw is treated as a missing one: the trees have a branch for missing values.
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, dtype=np.float64
    )
    classifier = HistGradientBoostingClassifier(
        # The encoder's columns come first.
        categorical_features=list(range(len(categories))) or None,
        # The default holds out a random tenth to decide when to stop: the model would hang on the seed.
        early_stopping=False,
        random_state=seed,
        **{**DEFAULTS, **parameters},
    )
    pipeline = Pipeline(
        [
            ("columns", ColumnTransformer([("categories", encoder, categories), ("numbers", "passthrough", numbers)])),
            ("classifier", classifier),
        ]
    )
    return pipeline.fit(data, target, classifier__sample_weight=weights)
