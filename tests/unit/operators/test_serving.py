"""What the serving operator asks for, says, and does with a model that cannot be served."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops import CheckServingOperator, GateModelOperator, TrackingServer
from airflow_mlops.compat import AirflowFailException
from airflow_mlops.core.records import ServingReport, VersionDifference
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.runtimes.inline import InlineRuntime


class Pushed(dict[str, Any]):
    """Stands in for the task instance: what the operator pushes."""

    dag_id, run_id, task_id, map_index, log_url = "d", "r", "t", -1, "http://airflow/log"

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value


def report(**other: Any) -> ServingReport:
    fields: dict[str, Any] = {
        "ok": True, "sentence": "It loads.", "model_uri": "models:/m-1", "digest": "d", "env": "installed",
        "size_bytes": 1, "run_id": "r", "report_uri": "runs:/r/serving.html",
    }  # fmt: skip
    return ServingReport(**{**fields, **other})


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute the operator with a step that finds ``record``; returns what was pushed and the request."""

    def execute(operator: Any, record: ServingReport) -> tuple[Pushed, Any]:
        asked: list[Any] = []

        def step(self: InlineRuntime, request: Any, access: Any) -> Any:
            asked.append(request)
            return record

        monkeypatch.setattr(InlineRuntime, "run", step)
        monkeypatch.setattr(MLflowHook, "server", lambda self: TrackingServer(tracking_uri="http://mlflow:5000"))
        monkeypatch.setattr(MLflowHook, "login", lambda self: None)
        # Airflow's own logger writes past pytest.
        monkeypatch.setattr(type(operator), "log", logging.getLogger("the task's log"))
        execute.ti = Pushed()  # type: ignore[attr-defined]  # for tests that expect an exception
        operator.execute({"ti": execute.ti, "dag_run": SimpleNamespace(run_type="manual")})  # type: ignore[attr-defined]
        return execute.ti, asked[0]  # type: ignore[attr-defined]

    return execute


def test_a_good_model_passes_with_a_report_and_every_difference_is_told(
    execute: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = report(
        differences=(
            VersionDifference(name="scikit-learn", recorded="1.5.0", installed="1.9.1"),
            VersionDifference(name="skops", recorded=None, installed=None),
        ),
        difference_count=7,
    )

    with caplog.at_level(logging.INFO):
        pushed, request = execute(CheckServingOperator(task_id="t", model={"a": 1}, serving={"repeats": 2}), found)

    assert (request.step, request.payload) == ("serving", {"model": {"a": 1}, "serving": {"repeats": 2}})
    assert "serving.html" in pushed["report_link"]
    assert "scikit-learn: trained with 1.5.0, here 1.9.1." in caplog.text
    assert "skops: trained with any version, here none." in caplog.text
    assert "5 more differ" in caplog.text


def test_a_model_that_cannot_be_served_fails_for_good_and_its_record_is_there(execute: Any) -> None:
    broken = report(ok=False, sentence="This model cannot be served: no.", problem="No. Mend it so.")

    with pytest.raises(AirflowFailException, match="Mend it so"):
        execute(CheckServingOperator(task_id="t", model={}), broken)

    assert execute.ti["return_value"] == broken.to_xcom()


def test_model_settings_and_report_are_templates() -> None:
    assert {"model", "serving", "runtime", "force"} <= set(CheckServingOperator.template_fields)
    assert "serving" in GateModelOperator.template_fields
    assert GateModelOperator(task_id="g", report={}, gate={}).payload({})["serving"] is None
