"""What the performance operator asks for, says, and does with a window that nobody scored."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.compat import AirflowFailException, AirflowSkipException
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.performance import EvaluatePredictionsOperator

MODEL = {"name": "flights", "version": 3, "model_uri": "models:/flights/3", "artifact_uri": "a"}
MONITORED = {"window": {"start": "2013-03-01", "end": "2013-04-01"}, "model": MODEL, "scoring_run_id": "r"}


def operator(**other: Any) -> EvaluatePredictionsOperator:
    given = {"monitored": MONITORED, "labels": {"a": 1}, "evaluation": {"b": 2}, **other}
    return EvaluatePredictionsOperator(task_id="t", **given)


def test_the_payload_has_what_was_given_and_the_moment() -> None:
    payload = operator(entity="id", seed=7, code_path="/code").payload({})

    asked = datetime.fromisoformat(payload.pop("as_of"))
    assert timedelta(0) <= datetime.now(UTC) - asked < timedelta(minutes=1)
    assert payload == {
        "monitored": MONITORED,
        "labels": {"a": 1},
        "evaluation": {"b": 2},
        "label": None,
        "entity": ["id"],
        "seed": 7,
        "code_path": "/code",
    }
    told = operator(as_of="2013-05-01", label_column="late", entity=["a", "b"]).payload({})
    assert (told["as_of"], told["label"], told["entity"]) == ("2013-05-01", "late", ["a", "b"])


def test_a_window_that_was_never_scored_is_skipped_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLflowHook, "server", lambda self: pytest.fail("nobody is to be asked"))

    with pytest.raises(AirflowSkipException, match="was never scored"):
        operator(monitored={**MONITORED, "scoring_run_id": ""}).execute({})


def test_a_window_that_cannot_be_read_is_refused_with_its_places(
    mlflow_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", mlflow_server.uri.replace("http://", "mlflow://http%3A%2F%2F"))
    monkeypatch.setattr(MLflowHook, "log", logging.getLogger("the task's log"))
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, xcom_push=lambda **_: None)

    with pytest.raises(AirflowFailException, match=r"monitored\.window: Field required"):
        operator(monitored={"model": MODEL}).execute({"ti": ti, "dag_run": SimpleNamespace(run_type="manual")})


def test_everything_can_be_a_template() -> None:
    own = {"monitored", "labels", "label_column", "entity", "evaluation", "seed", "code_path", "as_of"}

    assert own | {"experiment", "runtime", "force"} <= set(EvaluatePredictionsOperator.template_fields)
