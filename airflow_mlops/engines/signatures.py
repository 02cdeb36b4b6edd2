"""A model's signature, and an input example that shows no row of the data.

MLflow's own inference falls back to a schema of one nameless ``Any`` column when a single column puzzles it, with a
warning at most, which is as good as no signature. Here every column gets a type or the model is refused by column name.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from airflow_mlops.errors import ModelRefusedError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow.types import Schema

log = logging.getLogger(__name__)

EXAMPLE_ROWS = 3
#: A text value is shown in an input example only if at least this many rows have it.
COMMON_ROWS = 10
PLACEHOLDER = "example"


def input_schema(frame: pd.DataFrame) -> Schema:
    """Return the schema of the feature columns.

    A column is optional if a value of it is missing, else required. Whole numbers are ``long`` (``integer`` up to 32
    bits) and not ``double``: MLflow refuses 64-bit integers where a schema says ``double``, so ``double`` would refuse
    the very rows the model was trained on. Rows where such a value is missing must therefore not reach MLflow's own
    scoring; train on rows that have some missing, or store the column as floating point, if they occur.

    :raises ModelRefusedError: a column has no type in MLflow's schemas; the message names column and type.
    """
    from mlflow.types import ColSpec, Schema

    specs, problems = [], []
    for name in frame.columns:
        if not isinstance(name, str):
            problems.append(f"{name!r} (a column name must be text, this one is a {type(name).__name__})")
            continue
        try:
            kind = _type_of(frame[name])
        except ValueError as exc:
            problems.append(f"{name!r} ({exc})")
            continue
        missing = bool(frame[name].isna().any())
        if missing and kind in ("long", "integer", "boolean"):
            log.warning(
                "Column %r holds %ss of which some are missing. The model gets them as they are, but MLflow's own "
                "scoring refuses rows where one is missing; store it as floating point to score such rows there.",
                name,
                kind,
            )
        specs.append(ColSpec(kind, name, required=not missing))
    if problems:
        raise ModelRefusedError(
            f"The model has no signature: MLflow has no type for {', '.join(problems)}. Leave these columns out of "
            f"train.features, or store them as numbers, booleans, text or timestamps."
        )
    return Schema(specs)


def output_schema(predictions: Any) -> Schema:
    """Return the schema of what the model predicts: an array, a column, or a frame.

    :raises ModelRefusedError: it is none of these, or has no type in MLflow's schemas.
    """
    import numpy as np
    import pandas as pd
    from mlflow.types import ColSpec, Schema, TensorSpec

    if isinstance(predictions, pd.DataFrame):
        return input_schema(predictions)
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind in "fiub" and predictions.ndim:
        return Schema([TensorSpec(predictions.dtype, (-1, *predictions.shape[1:]))])
    if isinstance(predictions, pd.Series | np.ndarray | list) and np.ndim(predictions) == 1:
        try:
            return Schema([ColSpec(_type_of(pd.Series(predictions)))])
        except ValueError as exc:
            raise ModelRefusedError(f"The model has no signature: its predictions are {exc}.") from exc
    raise ModelRefusedError(
        f"The model has no signature: it predicts a {type(predictions).__name__}; it must predict an array, a series "
        f"or a data frame with one row per input row."
    )


def _type_of(values: pd.Series) -> str:
    """Return MLflow's name of the column's type.

    :raises ValueError: there is none; the text says what the column is.
    """
    from pandas.api import types

    dtype = values.dtype
    if types.is_bool_dtype(dtype) and not isinstance(dtype, types.CategoricalDtype):
        return "boolean"
    if types.is_integer_dtype(dtype):
        if types.is_unsigned_integer_dtype(dtype) and dtype.itemsize == 8:
            raise ValueError("its type uint64 does not fit MLflow's 64-bit signed integer")
        wide = dtype.itemsize == 8 or (dtype.itemsize == 4 and types.is_unsigned_integer_dtype(dtype))
        return "long" if wide else "integer"
    if types.is_float_dtype(dtype):
        return "float" if dtype.itemsize < 8 else "double"
    if types.is_datetime64_any_dtype(dtype):
        return "datetime"
    if isinstance(dtype, types.CategoricalDtype):
        return _type_of(values.cat.categories.to_series())
    if types.is_object_dtype(dtype):
        kind = types.infer_dtype(values, skipna=True)
        named = {"string": "string", "boolean": "boolean", "bytes": "binary", "date": "datetime", "empty": ""}.get(kind)
        if named:
            return named
        if named == "":
            raise ValueError("it holds no value at all, so its type is unknown")
        raise ValueError(f"its type is object holding {kind}")
    if types.is_string_dtype(dtype):
        return "string"
    raise ValueError(f"its type is {dtype}")


def input_example(frame: pd.DataFrame, hidden: Collection[str] = ()) -> pd.DataFrame:
    """Return three made-up rows of the frame's columns and types, for readers and for trying the model out.

    No row of the data is shown: numbers and timestamps are the quartiles of their own column, text and categories its
    most frequent values as long as 10 rows share them, and columns in ``hidden`` (ids, personal data) get neutral
    values. So the combination of values in an example row need not occur.

    :param hidden: columns none of whose values may show.
    """
    import pandas as pd

    columns = {name: _example_of(frame[name], name in hidden) for name in frame.columns}
    return pd.DataFrame(columns, columns=frame.columns)


def _example_of(values: pd.Series, hidden: bool) -> pd.Series:
    import numpy as np
    import pandas as pd
    from pandas.api import types

    dtype = values.dtype
    present = values.iloc[:0] if hidden else values.dropna()
    if types.is_bool_dtype(dtype) and not isinstance(dtype, types.CategoricalDtype):
        return pd.Series([False, True, False], dtype=dtype)
    if types.is_numeric_dtype(dtype):
        quartiles = [0.0] * EXAMPLE_ROWS if present.empty else np.quantile(present.to_numpy(float), [0.25, 0.5, 0.75])
        numbers = pd.Series(quartiles, dtype="float64")
        return (numbers.round() if types.is_integer_dtype(dtype) else numbers).astype(dtype)
    if types.is_datetime64_any_dtype(dtype):
        if present.empty:
            zone = getattr(dtype, "tz", None)
            return pd.Series([pd.Timestamp("2000-01-01", tz=zone)] * EXAMPLE_ROWS).astype(dtype)
        return pd.Series([present.quantile(share) for share in (0.25, 0.5, 0.75)]).astype(dtype)
    counts = present.value_counts()
    common = list(counts.index[counts >= COMMON_ROWS][:EXAMPLE_ROWS])
    if isinstance(dtype, types.CategoricalDtype):
        fallback: Any = None  # a value outside the categories would not fit the type
    else:
        fallback = _neutral(present)
    shown = (common or [fallback]) * EXAMPLE_ROWS
    return pd.Series(shown[:EXAMPLE_ROWS], dtype=dtype)


def _neutral(present: pd.Series) -> Any:
    import datetime

    first = present.iloc[0] if len(present) else PLACEHOLDER
    if isinstance(first, bool):
        return False
    if isinstance(first, bytes):
        return PLACEHOLDER.encode()
    return datetime.date(2000, 1, 1) if isinstance(first, datetime.date) else PLACEHOLDER


def predicted(model: Any, frame: pd.DataFrame, *, classifier: bool) -> np.ndarray | pd.DataFrame | pd.Series:
    """Return what the model predicts: class probabilities of a classifier that has them, else ``predict``."""
    predict = getattr(model, "predict_proba", None) if classifier else None
    return (predict or model.predict)(frame)
