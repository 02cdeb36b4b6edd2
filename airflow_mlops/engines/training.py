"""From a dataset's rows to a trained model: which columns are what, the call of the team's function, its result."""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.training import TrainingResult
from airflow_mlops.engines.code import check_signature, place_of
from airflow_mlops.engines.outages import looks_like_outage
from airflow_mlops.errors import (
    DataReadError,
    InvalidSpecError,
    MLOpsError,
    ModelRefusedError,
    OutageError,
    VerdictError,
)

if TYPE_CHECKING:
    import pandas as pd

EXPECTED = "def train(data, target, *, weights, parameters, seed): ..."
#: What MLflow allows in the name of a metric or parameter.
_NAME = re.compile(r"^[\w\-. /:]{1,250}$")


@dataclass(frozen=True)
class TrainingRows:
    """What the function is given: the feature columns as stored, and a target and perhaps a weight for each row."""

    data: pd.DataFrame
    target: pd.Series
    weights: pd.Series | None


def feature_columns(
    columns: Sequence[str],
    *,
    target: str,
    weights: str | None,
    features: Sequence[str] | None,
    excluded: Collection[str],
) -> list[str]:
    """Return the columns the model gets, in the order of the specification, else of the data.

    :param columns: the columns of the data.
    :param features: None: every column but target, weights and ``excluded``.
    :param excluded: the columns that are ids, personal, or the event time.
    :raises InvalidSpecError: a named column is not in the data (the nearest is given), or no feature is left.
    """
    wanted = {"target": [target], "weights": [weights] if weights else [], "features": list(features or ())}
    wanted["id, personal or event-time columns"] = sorted(excluded)
    for role, names in wanted.items():
        missing = [name for name in names if name not in columns]
        if missing:
            close = get_close_matches(missing[0], columns, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidSpecError(
                f"The specification names {', '.join(map(repr, missing))} as {role}, and the data has no such column."
                f"{hint} Columns: {', '.join(map(str, columns))}."
            )
    chosen = list(features) if features else [name for name in columns if name not in {target, weights, *excluded}]
    if not chosen:
        raise InvalidSpecError(
            "No column is left to train on: all are target, weights, ids, personal or the event time. "
            "List the columns the model should get under train.features."
        )
    return chosen


def split_rows(
    frame: pd.DataFrame,
    *,
    features: Sequence[str],
    target: str,
    weights: str | None,
    task: Literal["binary", "multiclass", "regression"],
) -> TrainingRows:
    """Return what the function is given, after checking target and weights.

    :raises DataReadError: there are no rows, a target or weight is missing, or their values do not fit the task.
    """
    if frame.empty:
        raise DataReadError("The training window holds no rows. Check the window and what the contract left of it.")
    rows = TrainingRows(frame[list(features)], frame[target], frame[weights] if weights else None)
    _check_target(rows.target, task)
    if rows.weights is not None:
        _check_weights(rows.weights)
    return rows


def _check_target(values: pd.Series, task: str) -> None:
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    missing = int(values.isna().sum())
    if missing:
        raise DataReadError(
            f"The target {values.name!r} is missing in {missing} of {len(values)} rows. Add an "
            f"expect_column_values_to_not_be_null expectation for it with on_failure: quarantine, or mend the data."
        )
    if task == "regression":
        if not is_numeric_dtype(values) or is_bool_dtype(values):
            raise DataReadError(f"The target {values.name!r} is {values.dtype}; regression needs numbers.")
        infinite = int((~np.isfinite(values.to_numpy(float))).sum())
        if infinite:
            raise DataReadError(f"The target {values.name!r} is infinite in {infinite} of {len(values)} rows.")
        return
    classes = values.nunique()
    if classes < 2 or (task == "binary" and classes > 2):
        wanted = "exactly two" if task == "binary" else "at least two"
        raise DataReadError(
            f"The target {values.name!r} has {classes} distinct value{'s' * (classes != 1)} in {len(values)} rows; "
            f"evaluation.task: {task} needs {wanted}."
        )


def _check_weights(values: pd.Series) -> None:
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    if not is_numeric_dtype(values):
        raise DataReadError(f"The weights {values.name!r} are {values.dtype}; they must be numbers.")
    numbers = values.to_numpy(float, na_value=math.nan)
    bad = int((~np.isfinite(numbers) | (numbers < 0)).sum())
    if bad or not numbers.sum():
        what = f"are missing, infinite or negative in {bad} of {len(values)} rows" if bad else "are all zero"
        raise DataReadError(f"The weights {values.name!r} {what}; a weight is a finite number of at least 0.")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's ``random`` and numpy's global generator, and put both back afterwards."""
    import numpy as np

    before, before_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)


def call_function(
    function: Callable[..., Any],
    name: str,
    rows: TrainingRows,
    *,
    parameters: Mapping[str, Any],
    seed: int,
    root: Path,
) -> TrainingResult:
    """Call the team's training function and return what it made.

    :param name: how the specification calls it, ``module:function``.
    :param root: the folder of the team's code, to name the line that failed.
    :raises InvalidSpecError: it takes other arguments.
    :raises VerdictError: it raised; the message begins with file and line of the team's code, and the original error
        is the cause. What :func:`~airflow_mlops.engines.outages.looks_like_outage` knows (a broken connection, a
        time-out, a server's 5xx) or a lack of memory is an :class:`OutageError` instead.
    :raises ModelRefusedError: it returned no model, or metrics or artifacts that cannot be stored.
    """
    given = {"weights": rows.weights, "parameters": copy.deepcopy(dict(parameters)), "seed": seed}
    check_signature(function, name, EXPECTED, rows.data, rows.target, **given)
    try:
        with seeded(seed):
            made = function(rows.data, rows.target, **given)
    except MLOpsError:
        raise
    except (Exception, SystemExit) as exc:
        kind = OutageError if isinstance(exc, MemoryError) or looks_like_outage(exc) else VerdictError
        said = f"{place_of(exc, root)}: {name} raised {type(exc).__name__}: {exc}"
        raise kind(f"{said.rstrip('.')}. {_advice(exc, kind is OutageError)}") from exc
    return checked_result(made, name)


def _what(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _advice(exc: BaseException, outage: bool) -> str:
    if isinstance(exc, MemoryError):
        return "Give the worker more memory, or the function fewer rows."
    if outage:
        return "Something it reached for did not answer; the task is tried again."
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return f"Install what provides {exc.name!r} where this step runs, or correct the import."
    return "Mend that line, or the rows or train.parameters it was given; the task's log has the whole traceback."


def checked_result(made: Any, name: str) -> TrainingResult:
    """Return what the function made as a :class:`TrainingResult`.

    :raises ModelRefusedError: there is no model in it, or a metric or an artifact cannot be stored.
    """
    result = made if isinstance(made, TrainingResult) else TrainingResult(made)
    if result.model is None:
        raise ModelRefusedError(
            f"{name} returned no model. It must return the fitted model, or a TrainingResult that holds it: "
            f"scikit-learn's fit() returns the model, so `return model.fit(data, target)` will do."
        )
    if isinstance(result.model, tuple | list | dict | type):
        raise ModelRefusedError(
            f"{name} returned {_what(result.model)} and not a fitted model: return what fit() gives. For metrics "
            f"or files beside the model return airflow_mlops.TrainingResult(model, metrics={{...}}, artifacts={{...}})."
        )
    for metric, value in result.metrics.items():
        if not isinstance(metric, str) or not _NAME.match(metric):
            raise ModelRefusedError(
                f"{name} returned the metric {metric!r}; a name is 1 to 250 letters, digits, spaces or _ - . / :"
            )
        try:
            float(value)
        except (TypeError, ValueError):
            raise ModelRefusedError(
                f"{name} returned {value!r} ({type(value).__name__}) as metric {metric!r}; it must be a number."
            ) from None
    for label, path in result.artifacts.items():
        if not isinstance(label, str) or not re.fullmatch(r"[\w\-. ]{1,100}", label) or label.strip(". ") == "":
            raise ModelRefusedError(f"{name} returned the artifact {label!r}; a name is letters, digits, spaces, _ - .")
        if not Path(path).exists():
            raise ModelRefusedError(f"{name} returned the artifact {label!r}, and there is no file at {path}.")
    return result


def metric_values(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the finite metrics, and why each of the others is left out."""
    numbers = {name: float(value) for name, value in metrics.items()}
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return finite, {name: f"not a finite number: {value}" for name, value in numbers.items() if name not in finite}


def flat_parameters(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return parameters as MLflow takes them: text values, nested mappings as dotted names."""
    flat: dict[str, str] = {}
    for name, value in parameters.items():
        full = re.sub(r"[^\w\-. /]", "_", f"{prefix}{name}")[:250]
        if isinstance(value, Mapping) and value:
            flat |= flat_parameters(value, f"{full}.")
        else:
            flat[full] = str(value)
    return flat
