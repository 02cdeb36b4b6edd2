"""Around the team's function: which columns it gets, and what it may give back."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from airflow_mlops.core.training import TrainingResult
from airflow_mlops.engines.training import (
    call_function,
    checked_result,
    feature_columns,
    flat_parameters,
    metric_values,
    seeded,
    split_rows,
)
from airflow_mlops.errors import DataReadError, InvalidSpecError, ModelRefusedError, OutageError, VerdictError

COLUMNS = ["id", "when", "distance", "carrier", "late", "weight"]


class TestFeatureColumns:
    @pytest.mark.parametrize(
        ("weights", "features", "excluded", "chosen"),
        [
            pytest.param("weight", None, {"id", "when"}, ["distance", "carrier"], id="all but the special ones"),
            pytest.param(None, None, {"id", "when"}, ["distance", "carrier", "weight"], id="no weights: a feature"),
            pytest.param(None, ("carrier", "distance"), {"id"}, ["carrier", "distance"], id="listed, in their order"),
            pytest.param(None, ("id",), {"id"}, ["id"], id="an excluded column that is listed"),
        ],
    )
    def test_chosen(
        self, weights: str | None, features: tuple[str, ...] | None, excluded: set[str], chosen: list[str]
    ) -> None:
        found = feature_columns(COLUMNS, target="late", weights=weights, features=features, excluded=excluded)
        assert found == chosen

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            pytest.param({"target": "latee"}, "'latee' as target.*Did you mean 'late'", id="target"),
            pytest.param({"weights": "wieght"}, "'wieght' as weights.*'weight'", id="weights"),
            pytest.param({"features": ("carier",)}, "'carier' as features.*'carrier'", id="feature"),
            pytest.param({"excluded": {"idd"}}, "'idd' as id, personal.*'id'", id="personal"),
            pytest.param({"excluded": set(COLUMNS) - {"late"}}, "No column is left", id="nothing left"),
        ],
    )
    def test_refused(self, changed: dict[str, Any], said: str) -> None:
        given: dict[str, Any] = {"target": "late", "weights": None, "features": None, "excluded": set()}
        with pytest.raises(InvalidSpecError, match=said):
            feature_columns(COLUMNS, **{**given, **changed})


class TestSplitRows:
    def split(self, target: list[Any], task: Any = "binary", weights: list[Any] | None = None) -> Any:
        frame = pd.DataFrame({"x": range(len(target)), "y": target})
        if weights is not None:
            frame["w"] = weights
        return split_rows(frame, features=["x"], target="y", weights="w" if weights is not None else None, task=task)

    @pytest.mark.parametrize(
        ("target", "task", "weights", "said"),
        [
            pytest.param([], "binary", None, "no rows", id="no rows"),
            pytest.param([0, 1, None], "binary", None, "missing in 1 of 3 rows", id="a target is missing"),
            pytest.param([1, 1], "binary", None, "1 distinct value in 2 rows", id="one class"),
            pytest.param([0, 1, 2], "binary", None, "3 distinct values.*exactly two", id="three classes for binary"),
            pytest.param(["a", "a"], "multiclass", None, "at least two", id="one class for multiclass"),
            pytest.param(["a", "b"], "regression", None, "regression needs numbers", id="text for regression"),
            pytest.param([True, False], "regression", None, "regression needs numbers", id="booleans for regression"),
            pytest.param([1.0, np.inf], "regression", None, "infinite in 1 of 2", id="an infinite target"),
            pytest.param([0, 1], "binary", [1, None], "missing, infinite or negative in 1 of 2", id="no weight"),
            pytest.param([0, 1], "binary", [1, -1], "negative in 1 of 2", id="a negative weight"),
            pytest.param([0, 1], "binary", [0, 0], "all zero", id="weights of nothing"),
            pytest.param([0, 1], "binary", ["a", "b"], "must be numbers", id="text as weights"),
        ],
    )
    def test_refused(self, target: list[Any], task: str, weights: list[Any] | None, said: str) -> None:
        with pytest.raises(DataReadError, match=said):
            self.split(target, task, weights)

    @pytest.mark.parametrize(
        ("target", "task"),
        [
            pytest.param([0, 1], "binary", id="binary"),
            pytest.param(["no", "yes"], "binary", id="binary, text"),
            pytest.param(["a", "b", "c"], "multiclass", id="multiclass"),
            pytest.param([1.5, 2.5], "regression", id="regression"),
        ],
    )
    def test_accepted(self, target: list[Any], task: str) -> None:
        rows = self.split(target, task, weights=[1.0] * len(target))
        assert list(rows.data) == ["x"]
        assert list(rows.target) == target
        assert list(rows.weights) == [1.0] * len(target)


class TestResult:
    def test_a_bare_model_is_a_result(self) -> None:
        model = object()
        assert checked_result(model, "train:train") == TrainingResult(model)

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            pytest.param(None, "returned no model", id="nothing"),
            pytest.param(TrainingResult(None), "returned no model", id="a result of nothing"),
            pytest.param((1, 2), "returned a tuple", id="a tuple"),
            pytest.param({"model": 1}, "returned a dict", id="a dict"),
            pytest.param(int, "returned the class int", id="a class and not an instance"),
            pytest.param(TrainingResult(1, {"auc": "high"}), "'high' .str. as metric 'auc'", id="text as metric"),
            pytest.param(TrainingResult(1, {"a=b": 1.0}), "metric 'a=b'", id="a metric's name"),
            pytest.param(TrainingResult(1, artifacts={"a": Path("/no/such")}), "no file at", id="a missing file"),
            pytest.param(TrainingResult(1, artifacts={"../a": Path("/")}), "artifact '../a'", id="a way out"),
        ],
    )
    def test_refused(self, made: Any, said: str) -> None:
        with pytest.raises(ModelRefusedError, match=said):
            checked_result(made, "train:train")


def test_metrics_that_are_not_finite_are_named() -> None:
    finite, left_out = metric_values({"a": np.float32(0.5), "b": float("nan"), "c": float("inf"), "d": True})

    assert finite == {"a": 0.5, "d": 1.0}
    assert left_out == {"b": "not a finite number: nan", "c": "not a finite number: inf"}


def test_parameters_are_flat_text() -> None:
    given = {"depth": 3, "tree": {"leaf": {"rows": 5}, "empty": {}}, "a:b": [1, 2]}

    assert flat_parameters(given) == {"depth": "3", "tree.leaf.rows": "5", "tree.empty": "{}", "a_b": "[1, 2]"}


def test_seeds_are_set_and_put_back() -> None:
    random.seed(1)
    np.random.seed(1)
    with seeded(7):
        inside = (random.random(), np.random.random())
    after = (random.random(), np.random.random())

    assert inside == (random.Random(7).random(), np.random.RandomState(7).random())
    assert after == (random.Random(1).random(), np.random.RandomState(1).random())


def failing(exc: BaseException) -> Any:
    def train(data: Any, target: Any, *, weights: Any, parameters: Any, seed: Any) -> Any:
        raise exc

    return train


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        pytest.param(requests.ConnectionError("feature store"), OutageError, id="no answer"),
        pytest.param(sqlite3.OperationalError("database is locked"), OutageError, id="a locked database"),
        pytest.param(MemoryError(), OutageError, id="no memory"),
        pytest.param(
            RestException({"error_code": "INTERNAL_ERROR", "message": "500"}), OutageError, id="MLflow's server"
        ),
        pytest.param(MlflowException("no such flavor"), VerdictError, id="MLflow's own refusal"),
        pytest.param(FileNotFoundError("vocabulary.txt"), VerdictError, id="a missing file"),
        pytest.param(ValueError("NaN"), VerdictError, id="a mistake"),
        pytest.param(SystemExit(1), VerdictError, id="an exit"),
    ],
)
def test_an_outage_in_the_function_is_told_from_a_mistake(
    raised: BaseException, error: type[Exception], tmp_path: Path
) -> None:
    rows = split_rows(pd.DataFrame({"x": [1, 2], "y": [0, 1]}), features=["x"], target="y", weights=None, task="binary")

    with pytest.raises((OutageError, VerdictError), match="train:train raised") as caught:
        call_function(failing(raised), "train:train", rows, parameters={}, seed=1, root=tmp_path)

    assert type(caught.value) is error
    assert caught.value.__cause__ is raised
