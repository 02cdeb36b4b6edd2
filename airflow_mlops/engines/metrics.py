"""The built-in metrics: their value by scikit-learn, and their bootstrap replicates by sums or by one sort.

The value a person reads is scikit-learn's own. Calling it again for every bootstrap draw would take minutes, so each
metric also has a *sampler*: the part that does not change between draws (terms per row, the sort by score) is done
once, and a draw is then a weighted sum. Tests hold both equal, weight by weight.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from airflow_mlops.core.metrics import MetricName, Task, metric_names
from airflow_mlops.engines import samplers
from airflow_mlops.engines.own_metrics import own_sampler, own_value
from airflow_mlops.engines.predictions import Array, Outputs, Truth, UndefinedMetric
from airflow_mlops.engines.samplers import Sampler


@dataclass(frozen=True)
class Metric:
    """One metric: its value on some rows, and a sampler for the same rows.

    :param value: (truth, outputs) to a number.
    :param sampler: (truth, outputs) to a function of counts.
    """

    name: str
    higher_is_better: bool
    value: Callable[[Truth, Outputs], float]
    sampler: Callable[[Truth, Outputs], Sampler]


def load_metrics(
    task: Task,
    names: Sequence[str],
    lower_is_better: Sequence[str] = (),
    functions: Mapping[str, Callable[[Array, Array], float]] | None = None,
) -> list[Metric]:
    """Return the metrics that a specification lists.

    :param functions: the team's own, by the ``module:function`` they are listed as; every one listed must be there.
    :raises UnknownNameError: a name is not built in for this task.
    """
    return [_metric(task, name, functions or {}) for name in metric_names(task, names, lower_is_better)]


def _metric(task: Task, name: MetricName, functions: Mapping[str, Callable[[Array, Array], float]]) -> Metric:
    if name.path is None:
        value, sampler = _TABLE[task][name.name]
        return Metric(name.name, name.higher_is_better, value, sampler)
    own = functions[name.path]
    return Metric(name.name, name.higher_is_better, partial(own_value, own), partial(own_sampler, own))


# --- sums over rows -------------------------------------------------------------------------------------------------


def _summed(terms: Callable[[Truth, Outputs], Array], finish: samplers.Finish) -> Callable[[Truth, Outputs], Sampler]:
    return lambda truth, outputs: samplers.sums(terms(truth, outputs), finish)


def _labels(truth: Truth, outputs: Outputs) -> tuple[Array, Array]:
    if truth.codes is None or outputs.labels is None:
        raise UndefinedMetric("the model gives no labels")
    return truth.codes, outputs.labels


def _probabilities(truth: Truth, outputs: Outputs) -> tuple[Array, Array]:
    if truth.codes is None or outputs.probabilities is None:
        raise UndefinedMetric("the model gives no probabilities (it has no predict_proba)")
    return truth.codes, outputs.probabilities


def _scores(truth: Truth, outputs: Outputs) -> tuple[Array, Array]:
    if truth.codes is None or outputs.scores is None:
        raise UndefinedMetric("the model gives no scores")
    return truth.codes, outputs.scores


def _both_classes(truth: Truth) -> None:
    present = np.unique(truth.codes)
    if len(present) < 2:
        only = truth.classes[int(present[0])] if len(present) else "none"
        raise UndefinedMetric(f"the rows hold one class only ({only!r})", by_labels=True)


def _some_positive(truth: Truth) -> None:
    if not np.any(truth.codes == 1):
        raise UndefinedMetric(f"no row is of the positive class ({truth.classes[1]!r})", by_labels=True)


def _correct(truth: Truth, outputs: Outputs) -> Array:
    codes, labels = _labels(truth, outputs)
    return (codes == labels)[:, None]


def _accuracy(truth: Truth, outputs: Outputs) -> float:
    return float(_correct(truth, outputs).mean())


def _cells(truth: Truth, outputs: Outputs) -> Array:
    """Return per row the four cells of a binary confusion: true and false positives, true and false negatives."""
    codes, labels = _labels(truth, outputs)
    yes, said = codes == 1, labels == 1
    return np.stack([yes & said, ~yes & said, ~yes & ~said, yes & ~said], axis=1)


def _by_label(name: str, *checks: Callable[[Truth], None], **options: Any) -> Callable[[Truth, Outputs], float]:
    """Return scikit-learn's ``NAME(y_true, y_pred)`` on labels, after the checks that it has a value at all."""

    def value(truth: Truth, outputs: Outputs) -> float:
        import sklearn.metrics

        codes, labels = _labels(truth, outputs)
        for check in checks:
            check(truth)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what scikit-learn warns of becomes NaN below, and a note
            number = float(getattr(sklearn.metrics, name)(codes, labels, **options))
        if not np.isfinite(number):
            raise UndefinedMetric("no row is, or is predicted to be, of the positive class")
        return number

    return value


def _ranked_value(name: str, *checks: Callable[[Truth], None]) -> Callable[[Truth, Outputs], float]:
    def value(truth: Truth, outputs: Outputs) -> float:
        import sklearn.metrics

        codes, scores = _scores(truth, outputs)
        for check in checks:
            check(truth)
        return float(getattr(sklearn.metrics, name)(codes, scores))

    return value


def _row_losses(truth: Truth, outputs: Outputs) -> Array:
    """Return the negative log-likelihood per row; probabilities are kept 2.2e-16 away from 0 and 1."""
    codes, probabilities = _probabilities(truth, outputs)
    own = (
        np.where(codes == 1, probabilities, 1 - probabilities)
        if probabilities.ndim == 1
        else probabilities[np.arange(len(codes)), codes]
    )
    eps = np.finfo(float).eps
    return -np.log(np.clip(own, eps, 1 - eps))[:, None]


def _log_loss(truth: Truth, outputs: Outputs) -> float:
    from sklearn.metrics import log_loss

    codes, probabilities = _probabilities(truth, outputs)
    return float(log_loss(codes, probabilities, labels=list(range(len(truth.classes)))))


def _row_brier(truth: Truth, outputs: Outputs) -> Array:
    codes, probabilities = _probabilities(truth, outputs)
    return ((probabilities - codes) ** 2)[:, None]


def _brier(truth: Truth, outputs: Outputs) -> float:
    return float(_row_brier(truth, outputs).mean())


# --- one sort by score ----------------------------------------------------------------------------------------------


def _auc_sampler(truth: Truth, outputs: Outputs) -> Sampler:
    codes, scores = _scores(truth, outputs)
    return samplers.auc_sampler(codes == 1, scores)


def _average_precision_sampler(truth: Truth, outputs: Outputs) -> Sampler:
    codes, scores = _scores(truth, outputs)
    return samplers.average_precision_sampler(codes == 1, scores)


def _classes_auc(truth: Truth, outputs: Outputs) -> float:
    """Return the mean AUC of each class against the rest, over the classes that occur in all rows.

    So on all rows it always has a value, and a slice without one of these classes has none.
    """
    from sklearn.metrics import roc_auc_score

    codes, probabilities = _probabilities(truth, outputs)
    absent = [truth.classes[k] for k in truth.occurring if not (codes == k).any()]
    if absent:
        raise UndefinedMetric(f"no row is of class {', '.join(map(repr, absent[:5]))}", by_labels=True)
    return float(np.mean([roc_auc_score(codes == k, probabilities[:, k]) for k in truth.occurring]))


def _classes_auc_sampler(truth: Truth, outputs: Outputs) -> Sampler:
    codes, probabilities = _probabilities(truth, outputs)
    each = [samplers.auc_sampler(codes == k, probabilities[:, k]) for k in truth.occurring]
    return lambda counts: np.mean([one(counts) for one in each], axis=0)


# --- several classes ------------------------------------------------------------------------------------------------


def _class_cells(truth: Truth, outputs: Outputs) -> Array:
    """Return per row and class: hit, really of the class, said to be of the class; shape ``(n, 3 * classes)``."""
    codes, labels = _labels(truth, outputs)
    numbers = np.arange(len(truth.classes))
    real, said = codes[:, None] == numbers, labels[:, None] == numbers
    return np.concatenate([real & said, real, said], axis=1)


# --- numbers --------------------------------------------------------------------------------------------------------


def _errors(truth: Truth, outputs: Outputs) -> Array:
    return outputs.own - truth.values


def _own_scale(name: str, *checks: Callable[[Truth], None]) -> Callable[[Truth, Outputs], float]:
    def value(truth: Truth, outputs: Outputs) -> float:
        import sklearn.metrics

        for check in checks:
            check(truth)
        return float(getattr(sklearn.metrics, name)(truth.values, outputs.own))

    return value


def _rmse(truth: Truth, outputs: Outputs) -> float:
    return float(np.sqrt(_own_scale("mean_squared_error")(truth, outputs)))


def _varies(truth: Truth) -> None:
    if len(truth) < 2 or np.ptp(truth.values) == 0:
        raise UndefinedMetric("the target is the same number on every row", by_labels=True)


def _no_zero(truth: Truth) -> None:
    zeros = int((truth.values == 0).sum())
    if zeros:
        raise UndefinedMetric(f"the target is 0 on {zeros} rows, and a percentage of 0 has no value", by_labels=True)


def _r2_terms(truth: Truth, outputs: Outputs) -> Array:
    # Centred first: the variance of a draw is then a difference of small numbers.
    centred = truth.values - truth.values.mean()
    return np.stack([_errors(truth, outputs) ** 2, centred, centred**2], axis=1)


def _row_mape(truth: Truth, outputs: Outputs) -> Array:
    return (np.abs(_errors(truth, outputs)) / np.abs(truth.values))[:, None]


def _median_sampler(truth: Truth, outputs: Outputs) -> Sampler:
    return samplers.median_sampler(np.abs(_errors(truth, outputs)))


Entry = tuple[Callable[[Truth, Outputs], float], Callable[[Truth, Outputs], Sampler]]
_POSITIVE = {"zero_division": np.nan}
_MACRO: dict[str, Any] = {"average": "macro", "zero_division": 0}
_TABLE: dict[Task, dict[str, Entry]] = {
    "binary": {
        "roc_auc": (_ranked_value("roc_auc_score", _both_classes), _auc_sampler),
        "average_precision": (_ranked_value("average_precision_score", _some_positive), _average_precision_sampler),
        "log_loss": (_log_loss, _summed(_row_losses, samplers.mean)),
        "brier": (_brier, _summed(_row_brier, samplers.mean)),
        "accuracy": (_accuracy, _summed(_correct, samplers.mean)),
        "balanced_accuracy": (
            _by_label("balanced_accuracy_score", _both_classes),
            _summed(_cells, samplers.balanced),
        ),
        "f1": (_by_label("f1_score", **_POSITIVE), _summed(_cells, samplers.f1)),
        "precision": (_by_label("precision_score", **_POSITIVE), _summed(_cells, samplers.precision)),
        "recall": (_by_label("recall_score", _some_positive, **_POSITIVE), _summed(_cells, samplers.recall)),
        "matthews_corrcoef": (
            _by_label("matthews_corrcoef", _both_classes),
            _summed(_cells, samplers.matthews),
        ),
    },
    "multiclass": {
        "accuracy": (_accuracy, _summed(_correct, samplers.mean)),
        "balanced_accuracy": (
            _by_label("balanced_accuracy_score", _both_classes),
            _summed(_class_cells, samplers.balanced_classes),
        ),
        "log_loss": (_log_loss, _summed(_row_losses, samplers.mean)),
        "f1_macro": (
            _by_label("f1_score", **_MACRO),
            _summed(_class_cells, samplers.macro(lambda hit, real, said: samplers.ratio(2 * hit, real + said))),
        ),
        "precision_macro": (
            _by_label("precision_score", **_MACRO),
            _summed(_class_cells, samplers.macro(lambda hit, _, said: samplers.ratio(hit, said))),
        ),
        "recall_macro": (
            _by_label("recall_score", **_MACRO),
            _summed(_class_cells, samplers.macro(lambda hit, real, _: samplers.ratio(hit, real))),
        ),
        "roc_auc_ovr": (_classes_auc, _classes_auc_sampler),
    },
    "regression": {
        "rmse": (_rmse, _summed(lambda t, o: _errors(t, o)[:, None] ** 2, samplers.root_mean)),
        "mse": (_own_scale("mean_squared_error"), _summed(lambda t, o: _errors(t, o)[:, None] ** 2, samplers.mean)),
        "mae": (_own_scale("mean_absolute_error"), _summed(lambda t, o: np.abs(_errors(t, o))[:, None], samplers.mean)),
        "median_absolute_error": (_own_scale("median_absolute_error"), _median_sampler),
        "mape": (_own_scale("mean_absolute_percentage_error", _no_zero), _summed(_row_mape, samplers.mean)),
        "r2": (_own_scale("r2_score", _varies), _summed(_r2_terms, samplers.r2)),
    },
}
