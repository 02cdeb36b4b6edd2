"""One prediction pass, whatever kind of model answers it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.engines.predictions import ask, read_outputs, read_truth
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError

FRAME = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})


class Answers:
    """A model that gives a ready answer under one method name and counts how often it is asked."""

    def __init__(self, method: str, values: Any, classes: Any = None) -> None:
        self.calls = 0
        if classes is not None:
            self.classes_ = np.array(classes)

        def answer(rows: Any) -> Any:
            self.calls += 1
            return np.array(values)

        setattr(self, method, answer)


def read(model: Any, target: list[Any], task: Any = "binary") -> Any:
    raw = ask(model, FRAME, task)
    truth = read_truth(pd.Series(target, name="late"), task, raw.classes)
    return truth, read_outputs(raw, truth)


@pytest.mark.parametrize(
    ("model", "target", "scores", "labels", "has_probabilities"),
    [
        pytest.param(
            Answers("predict_proba", [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.6, 0.4]], [0, 1]),
            [0, 1, 1, 0],
            [0.1, 0.5, 0.8, 0.4],
            [0, 1, 1, 0],
            True,
            id="probabilities; exactly 0.5 is positive",
        ),
        pytest.param(
            Answers("predict_proba", [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.6, 0.4]], ["yes", "no"]),
            ["yes", "no", "no", "yes"],
            [0.9, 0.5, 0.2, 0.6],
            [1, 1, 0, 1],
            True,
            id="columns follow the model's own order of classes",
        ),
        pytest.param(
            Answers("predict_proba", [[1.0], [1.0], [1.0], [1.0]], [0]),
            [0, 1, 0, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            True,
            id="trained on one class",
        ),
        pytest.param(
            Answers("decision_function", [-2.0, 0.0, 3.0, 0.1], [0, 1]),
            [0, 1, 1, 0],
            [-2.0, 0.0, 3.0, 0.1],
            [0, 0, 1, 1],
            False,
            id="decision values; 0 is negative",
        ),
        pytest.param(
            Answers("predict", [0.1, 0.5, 0.8, 0.4]),
            [0, 1, 1, 0],
            [0.1, 0.5, 0.8, 0.4],
            [0, 1, 1, 0],
            True,
            id="predict that gives probabilities, as a booster does",
        ),
        pytest.param(
            Answers("predict", [False, True, True, False]),
            [0, 1, 1, 0],
            [0, 1, 1, 0],
            [0, 1, 1, 0],
            False,
            id="predict that gives labels: True is 1",
        ),
    ],
)
def test_a_binary_answer(model: Any, target: Any, scores: Any, labels: Any, has_probabilities: bool) -> None:
    _, outputs = read(model, target)

    assert outputs.scores == pytest.approx(np.array(scores, dtype=float))
    assert outputs.labels.tolist() == labels
    assert (outputs.probabilities is not None) is has_probabilities
    assert model.calls == 1


def test_a_multiclass_answer_follows_the_classes_of_both() -> None:
    model = Answers("predict_proba", [[0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.9, 0.1]], ["c", "a"])

    truth, outputs = read(model, ["c", "a", "b", "a"], "multiclass")

    assert truth.classes == ("a", "b", "c")
    assert outputs.probabilities.tolist() == [[0.3, 0, 0.7], [0.8, 0, 0.2], [0.6, 0, 0.4], [0.1, 0, 0.9]]
    assert outputs.own.tolist() == ["c", "a", "a", "c"]


def test_multiclass_labels_alone_are_enough_for_label_metrics() -> None:
    _, outputs = read(Answers("predict", ["a", "b", "b", "a"], ["a", "b", "c"]), ["a", "b", "c", "a"], "multiclass")

    assert outputs.labels.tolist() == [0, 1, 1, 0]
    assert outputs.probabilities is None


def test_a_regression_answer_may_be_one_column() -> None:
    _, outputs = read(Answers("predict", [[1.0], [2.0], [3.0], [4.0]]), [1, 2, 3, 5], "regression")

    assert outputs.own.tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_rows_without_a_usable_prediction_are_counted(value: float) -> None:
    _, outputs = read(
        Answers("predict_proba", [[0.9, 0.1], [0.5, value], [0.2, 0.8], [0.6, 0.4]], [0, 1]), [0, 1, 1, 0]
    )

    assert outputs.unusable_rows == 1


@pytest.mark.parametrize(
    ("model", "target", "task", "message"),
    [
        pytest.param(Answers("predict", [1.0, 2.0]), [0, 1, 1, 0], "binary", r"shape \(2,\) for 4 rows", id="too few"),
        pytest.param(
            Answers("predict", [3.0, -1.0, 0.5, 0.2]), [0, 1, 1, 0], "binary", "nor probabilities", id="neither"
        ),
        pytest.param(
            Answers("predict", ["y", "n", "y", "y"]),
            [0, 1, 1, 0],
            "binary",
            "not the target's labels",
            id="other words",
        ),
        pytest.param(
            Answers("predict_proba", np.full((4, 3), 0.3), [0, 1, 2]),
            [0, 1, 1, 0],
            "binary",
            "knows the labels",
            id="a multiclass model in a binary task",
        ),
        pytest.param(
            Answers("predict", np.full((4, 2), 0.5)),
            ["a", "b", "c", "a"],
            "multiclass",
            "3 classes",
            id="columns missing",
        ),
        pytest.param(Answers("predict", np.ones((4, 2))), [1, 2, 3, 4], "regression", "one number per row", id="two"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(model: Any, target: Any, task: Any, message: str) -> None:
    with pytest.raises(ModelRefusedError, match=message):
        read(model, target, task)


@pytest.mark.parametrize(
    ("target", "task", "message"),
    [
        pytest.param([0, 1, 2, 1], "binary", "3 labels", id="three labels in a binary task"),
        pytest.param(["a", "a", "a", "a"], "binary", "holds only 'a'", id="one label nobody names"),
        pytest.param(["a", "b", "c", "d"], "regression", "no numbers", id="words in a regression"),
    ],
)
def test_a_target_that_does_not_fit_the_task(target: Any, task: Any, message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        read_truth(pd.Series(target, name="late"), task, None)


@pytest.mark.parametrize("label", [0, 1, False, True], ids=repr)
def test_one_label_of_zero_and_one_is_known(label: Any) -> None:
    truth = read_truth(pd.Series([label, label]), "binary", None)

    assert truth.codes.tolist() == [int(label), int(label)]
