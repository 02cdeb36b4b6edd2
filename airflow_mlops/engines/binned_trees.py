"""scikit-learn's histogram gradient boosting asked about bin numbers instead of values: equal answers, sooner.

The trees were grown on bins of at most 255 a feature, and every threshold of theirs is the edge of one. So ``value <=
edge`` and ``bin <= number`` are one comparison (``numpy.searchsorted`` from the left gives the bin that scikit-learn's
own binning gives), and a row of bytes stays in the processor's cache where one of doubles does not: measured on 20
columns and 100 trees, a third less time for the trees.

scikit-learn predicts from bins only while it fits, so this relies on names that are its own (``_bin_mapper``,
``_in_fit``). Where a release lacks them, :func:`binned` finds nothing; where it means something else by them, the
comparison with the plain model, without which no unwrapped model is used, tells.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from airflow_mlops.core.metrics import Task
from airflow_mlops.engines.predictions import Array, Raw, ask


class BinnedTrees:
    """A boosted model that takes bin numbers.

    :param trees: a shallow copy of the estimator, told that its input is binned.
    :param edges: ascending upper edges of each feature's bins.
    :param missing: the number of the bin of missing values.
    """

    def __init__(self, trees: Any, edges: list[Array], missing: int) -> None:
        self._trees = trees
        self._edges = edges
        self._missing = missing

    def bins(self, feature: int, values: Array) -> Array:
        """Return the bin of every value of one feature, as bytes."""
        found: Array = np.searchsorted(self._edges[feature], values).astype(np.uint8)
        found[np.isnan(values)] = self._missing
        return found

    def ask(self, matrix: Array, task: Task) -> Raw:
        """Return what the model answers; ``matrix`` holds bins, shape ``(n, features)``."""
        return ask(self._trees, matrix, task)


def binned(estimator: Any) -> BinnedTrees | None:
    """Return the estimator for bins, or None where it is of another kind, or has categorical features."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    if type(estimator) not in (HistGradientBoostingClassifier, HistGradientBoostingRegressor):
        return None
    mapper = getattr(estimator, "_bin_mapper", None)
    edges, missing = getattr(mapper, "bin_thresholds_", None), getattr(mapper, "missing_values_bin_idx_", None)
    if edges is None or missing is None or np.any(getattr(mapper, "is_categorical_", True)):
        return None
    trees = copy.copy(estimator)
    trees._in_fit = True
    return BinnedTrees(trees, [np.asarray(one, dtype=float) for one in edges], int(missing))
