"""The built-in metrics are scikit-learn's, and their bootstrap gives what scikit-learn gives on the resampled rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

from airflow_mlops.core.metrics import BUILT_IN, metric_names
from airflow_mlops.engines.metrics import Metric, load_metrics
from airflow_mlops.engines.predictions import Outputs, Truth, UndefinedMetric
from airflow_mlops.engines.samplers import auc_sampler
from airflow_mlops.errors import InvalidSpecError, UnknownNameError

ROWS = 301


def binary(ties: bool = False, seed: int = 0) -> tuple[Truth, Outputs]:
    rng = np.random.default_rng(seed)
    codes = (rng.random(ROWS) < 0.3).astype(int)
    p = 1 / (1 + np.exp(-(codes + rng.normal(size=ROWS))))
    p = np.round(p, 1) if ties else p
    return Truth("binary", codes, codes, (0, 1)), Outputs(p, scores=p, probabilities=p, labels=(p >= 0.5).astype(int))


def multiclass(seed: int = 0) -> tuple[Truth, Outputs]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, ROWS)
    table = rng.random((ROWS, 4)) + np.eye(4)[codes] * 0.5
    table /= table.sum(axis=1, keepdims=True)
    classes = ("a", "b", "c", "d")
    values = np.array(classes, dtype=object)[codes]
    labels = table.argmax(axis=1)
    return Truth("multiclass", values, codes, classes, (0, 1, 2, 3)), Outputs(
        np.array(classes, dtype=object)[labels], probabilities=table, labels=labels
    )


def regression(seed: int = 0) -> tuple[Truth, Outputs]:
    rng = np.random.default_rng(seed)
    values = rng.normal(1000, 3, ROWS)
    return Truth("regression", values), Outputs(values + rng.normal(size=ROWS))


BINARY: dict[str, Callable[[Truth, Outputs], float]] = {
    "roc_auc": lambda t, o: sk.roc_auc_score(t.codes, o.scores),
    "average_precision": lambda t, o: sk.average_precision_score(t.codes, o.scores),
    "log_loss": lambda t, o: sk.log_loss(t.codes, o.probabilities, labels=[0, 1]),
    "brier": lambda t, o: sk.brier_score_loss(t.codes, o.probabilities),
    "accuracy": lambda t, o: sk.accuracy_score(t.codes, o.labels),
    "balanced_accuracy": lambda t, o: sk.balanced_accuracy_score(t.codes, o.labels),
    "f1": lambda t, o: sk.f1_score(t.codes, o.labels),
    "precision": lambda t, o: sk.precision_score(t.codes, o.labels),
    "recall": lambda t, o: sk.recall_score(t.codes, o.labels),
    "matthews_corrcoef": lambda t, o: sk.matthews_corrcoef(t.codes, o.labels),
}
MULTICLASS: dict[str, Callable[[Truth, Outputs], float]] = {
    "accuracy": lambda t, o: sk.accuracy_score(t.codes, o.labels),
    "balanced_accuracy": lambda t, o: sk.balanced_accuracy_score(t.codes, o.labels),
    "log_loss": lambda t, o: sk.log_loss(t.codes, o.probabilities, labels=range(4)),
    "f1_macro": lambda t, o: sk.f1_score(t.codes, o.labels, average="macro"),
    "precision_macro": lambda t, o: sk.precision_score(t.codes, o.labels, average="macro", zero_division=0),
    "recall_macro": lambda t, o: sk.recall_score(t.codes, o.labels, average="macro", zero_division=0),
    "roc_auc_ovr": lambda t, o: sk.roc_auc_score(t.codes, o.probabilities, multi_class="ovr"),
}
REGRESSION: dict[str, Callable[[Truth, Outputs], float]] = {
    "rmse": lambda t, o: sk.root_mean_squared_error(t.values, o.own),
    "mse": lambda t, o: sk.mean_squared_error(t.values, o.own),
    "mae": lambda t, o: sk.mean_absolute_error(t.values, o.own),
    "median_absolute_error": lambda t, o: sk.median_absolute_error(t.values, o.own),
    "mape": lambda t, o: sk.mean_absolute_percentage_error(t.values, o.own),
    "r2": lambda t, o: sk.r2_score(t.values, o.own),
}
CASES = [
    *(pytest.param("binary", name, binary(), wanted, id=f"binary {name}") for name, wanted in BINARY.items()),
    *(
        pytest.param("binary", name, binary(ties=True), BINARY[name], id=f"binary {name} with ties")
        for name in ("roc_auc", "average_precision")
    ),
    *(
        pytest.param("multiclass", name, multiclass(), wanted, id=f"multiclass {name}")
        for name, wanted in MULTICLASS.items()
    ),
    *(
        pytest.param("regression", name, regression(), wanted, id=f"regression {name}")
        for name, wanted in REGRESSION.items()
    ),
]


def one(task: Any, name: str) -> Metric:
    return load_metrics(task, [name])[0]


@pytest.mark.parametrize(("task", "name", "data", "wanted"), CASES)
def test_the_value_and_every_draw_are_scikit_learns(task: str, name: str, data: Any, wanted: Any) -> None:
    truth, outputs = data
    rng = np.random.default_rng(1)
    counts = rng.multinomial(ROWS, np.full(ROWS, 1 / ROWS), size=7).astype(float)

    metric = one(task, name)
    drawn = metric.sampler(truth, outputs)(counts)

    assert metric.value(truth, outputs) == pytest.approx(wanted(truth, outputs), abs=1e-12)
    for count, value in zip(counts, drawn, strict=True):
        rows = np.repeat(np.arange(ROWS), count.astype(int))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert value == pytest.approx(wanted(truth.take(rows), outputs.take(rows)), rel=1e-9)


def test_every_built_in_name_is_tested_and_computed() -> None:
    assert {task: set(names) for task, names in BUILT_IN.items()} == {
        "binary": set(BINARY),
        "multiclass": set(MULTICLASS),
        "regression": set(REGRESSION),
    }


def test_auc_takes_any_weights() -> None:
    truth, outputs = binary(ties=True)
    weights = np.random.default_rng(3).random((1, ROWS))

    value = auc_sampler(truth.codes == 1, outputs.scores)(weights)[0]

    assert value == pytest.approx(sk.roc_auc_score(truth.codes, outputs.scores, sample_weight=weights[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "codes", "p", "by_labels"),
    [
        pytest.param("roc_auc", [0, 0, 0], [0.1, 0.2, 0.9], True, id="AUC of one class"),
        pytest.param("average_precision", [0, 0, 0], [0.1, 0.2, 0.9], True, id="no positive to find"),
        pytest.param("balanced_accuracy", [1, 1, 1], [0.1, 0.2, 0.9], True, id="balanced over one class"),
        pytest.param("matthews_corrcoef", [1, 1, 1], [0.1, 0.2, 0.9], True, id="correlation with a constant"),
        pytest.param("recall", [0, 0, 0], [0.1, 0.2, 0.9], True, id="recall of nothing"),
        pytest.param("precision", [1, 0, 1], [0.1, 0.2, 0.3], False, id="the model predicts no positive"),
        pytest.param("f1", [0, 0, 0], [0.1, 0.2, 0.3], False, id="no positive anywhere"),
    ],
)
def test_where_a_binary_metric_has_no_value(name: str, codes: list[int], p: list[float], by_labels: bool) -> None:
    truth = Truth("binary", np.array(codes), np.array(codes), (0, 1))
    scores = np.array(p)
    outputs = Outputs(scores, scores=scores, probabilities=scores, labels=(scores >= 0.5).astype(int))

    with pytest.raises(UndefinedMetric) as error:
        one("binary", name).value(truth, outputs)

    assert error.value.by_labels is by_labels
    assert np.isnan(one("binary", name).sampler(truth, outputs)(np.ones((1, 3)))).all()


@pytest.mark.parametrize(
    ("name", "value"), [("log_loss", 0.510826), ("brier", 0.176667), ("accuracy", 0.666667)], ids=str
)
def test_what_one_class_does_not_undefine(name: str, value: float) -> None:
    codes, scores = np.array([1, 1, 1]), np.array([0.9, 0.6, 0.4])
    outputs = Outputs(scores, scores=scores, probabilities=scores, labels=(scores >= 0.5).astype(int))

    assert one("binary", name).value(Truth("binary", codes, codes, (0, 1)), outputs) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [pytest.param("r2", [3.0, 3.0, 3.0], id="a constant target"), pytest.param("mape", [3.0, 0.0, 1.0], id="a zero")],
)
def test_where_a_regression_metric_has_no_value(name: str, values: list[float]) -> None:
    with pytest.raises(UndefinedMetric, match="the target is"):
        one("regression", name).value(Truth("regression", np.array(values)), Outputs(np.ones(3)))


def test_a_class_without_rows_leaves_ovr_auc_undefined() -> None:
    truth, outputs = multiclass()
    rows = np.flatnonzero(truth.codes != 2)

    with pytest.raises(UndefinedMetric, match="no row is of class 'c'"):
        one("multiclass", "roc_auc_ovr").value(truth.take(rows), outputs.take(rows))


def test_a_class_that_only_a_model_knows_does_not_matter_to_ovr_auc() -> None:
    truth, outputs = multiclass()
    wider = Truth("multiclass", truth.values, truth.codes, (*truth.classes, "old"), truth.occurring)
    table = np.column_stack([outputs.probabilities, np.zeros(ROWS)])
    metric = one("multiclass", "roc_auc_ovr")

    assert metric.value(wider, Outputs(outputs.own, probabilities=table)) == metric.value(truth, outputs)


@pytest.mark.parametrize(
    ("task", "metrics", "lower", "message"),
    [
        pytest.param("binary", ["roc_acu"], (), "Did you mean 'roc_auc'", id="a slip names the nearest"),
        pytest.param("binary", ["rmse"], (), "'rmse' is for regression tasks", id="of another task"),
        pytest.param("multiclass", ["f1"], (), "'f1' is for binary tasks", id="binary form of a multiclass one"),
        pytest.param("binary", ["f1", "f1"], (), "'f1' more than once", id="listed twice"),
        pytest.param("binary", ["roc_auc"], ["roc_auc"], "higher is better", id="a direction that contradicts"),
    ],
)
def test_wrong_metric_names(task: Any, metrics: list[str], lower: Any, message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        metric_names(task, metrics, lower)


def test_a_wrong_name_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match="module:function"):
        metric_names("binary", ["auc"])


def cost(y_true: Any, y_pred: Any) -> float:
    return float(((y_pred >= 0.3) != y_true).mean())


def broken(y_true: Any, y_pred: Any) -> float:
    raise RuntimeError("no such thing")


def nothing(y_true: Any, y_pred: Any) -> float:
    return float("nan")


def own(function: Any, lower: bool = False) -> Metric:
    path = f"team:{function.__name__}"
    return load_metrics("binary", [path], [path] if lower else [], {path: function})[0]


def test_a_callable_gets_0_and_1_and_the_positive_probability() -> None:
    truth, outputs = binary()
    metric = own(cost, lower=True)

    drawn = metric.sampler(truth, outputs)(np.ones((2, ROWS)))

    expected = float(((outputs.own >= 0.3) != truth.codes).mean())
    assert metric.higher_is_better is False
    assert metric.value(truth, outputs) == pytest.approx(expected)
    assert drawn == pytest.approx([expected, expected])


def test_a_callable_of_several_classes_gets_labels_as_they_stand_in_the_data() -> None:
    truth, outputs = multiclass()
    seen: list[Any] = []
    load_metrics("multiclass", ["t:m"], [], {"t:m": lambda y, p: seen.extend([y, p]) or 1.0})[0].value(truth, outputs)

    assert set(seen[0]) == set(seen[1]) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param(broken, "raised RuntimeError: no such thing", id="an error"),
        pytest.param(nothing, "returned nan", id="NaN"),
    ],
)
def test_a_callable_that_fails_has_no_value(function: Any, reason: str) -> None:
    truth, outputs = binary()

    with pytest.raises(UndefinedMetric, match=reason):
        own(function).value(truth, outputs)
    assert np.isnan(own(function).sampler(truth, outputs)(np.ones((2, ROWS)))).all()
