"""The names of the built-in metrics: what each needs, and which way is better. No numbers are computed here.

Kept apart from :mod:`airflow_mlops.engines.metrics`, which computes them, so that a specification can be checked while
a DAG file is parsed, without numpy or scikit-learn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from airflow_mlops.errors import InvalidSpecError, UnknownNameError

Task = Literal["binary", "multiclass", "regression"]

#: Metric to whether higher is better, per task. Each is scikit-learn's function of that name (docs: gate.md).
BUILT_IN: dict[Task, dict[str, bool]] = {
    "binary": {
        "roc_auc": True,
        "average_precision": True,
        "log_loss": False,
        "brier": False,
        "accuracy": True,
        "balanced_accuracy": True,
        "f1": True,
        "precision": True,
        "recall": True,
        "matthews_corrcoef": True,
    },
    "multiclass": {
        "accuracy": True,
        "balanced_accuracy": True,
        "log_loss": False,
        "f1_macro": True,
        "precision_macro": True,
        "recall_macro": True,
        "roc_auc_ovr": True,
    },
    "regression": {
        "rmse": False,
        "mse": False,
        "mae": False,
        "median_absolute_error": False,
        "mape": False,
        "r2": True,
    },
}


@dataclass(frozen=True, kw_only=True)
class MetricName:
    """A metric by name, and which way is better. ``path`` is set for a callable of the team's own."""

    name: str
    higher_is_better: bool
    path: str | None = None


def metric_names(task: Task, metrics: Sequence[str], lower_is_better: Collection[str] = ()) -> list[MetricName]:
    """Resolve what a specification lists under ``evaluation.metrics``, without importing anything.

    :param metrics: built-in names of ``task``, or ``module:function``.
    :param lower_is_better: those of the team's own callables where less is better; the built-in ones know already.
    :raises UnknownNameError: a name is neither built in for this task nor ``module:function``.
    :raises InvalidSpecError: a metric is listed twice, or ``lower_is_better`` contradicts a built-in metric.
    """
    known = BUILT_IN[task]
    found = []
    for name in metrics:
        if ":" in name:
            found.append(MetricName(name=name, higher_is_better=name not in lower_is_better, path=name))
        elif name in known:
            if name in lower_is_better and known[name]:
                raise InvalidSpecError(
                    f"evaluation.lower_is_better names {name!r}, a built-in metric where higher is better. That list "
                    f"is for your own module:function metrics; remove {name!r} from it."
                )
            found.append(MetricName(name=name, higher_is_better=known[name]))
        else:
            others = [task_ for task_, names in BUILT_IN.items() if name in names]
            error = UnknownNameError.of(f"{task} metric", name, known)
            hint = f" {name!r} is for {' and '.join(others)} tasks." if others else ""
            raise UnknownNameError(f"evaluation.metrics: {error}{hint} Or give your own as 'module:function'.")
    if len(set(metrics)) != len(metrics):
        twice = sorted({name for name in metrics if list(metrics).count(name) > 1})
        raise InvalidSpecError(f"evaluation.metrics lists {', '.join(map(repr, twice))} more than once; list it once.")
    return found
