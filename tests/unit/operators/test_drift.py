"""What the drift operator asks for, and how it tells a person what it found."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops import TrackingServer
from airflow_mlops.compat import AirflowFailException
from airflow_mlops.core.monitoring_records import (
    ColumnDrift,
    DriftReport,
    MonitoredWindow,
    MonitoringPlan,
    SchemaFinding,
    ServedModel,
)
from airflow_mlops.core.records import DatasetVersion
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.drift import DetectDriftOperator
from airflow_mlops.runtimes.inline import InlineRuntime
from tests.support.candidates import month


class Pushed(dict[str, Any]):
    """Stands in for the task instance: what the operator pushes."""

    dag_id, run_id, task_id, map_index, log_url = "d", "r", "t", -1, "http://airflow/log"

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value


def dataset(number: int) -> dict[str, Any]:
    found = DatasetVersion(
        digest="d", uri="/lake", format="parquet", window=month(number), row_count=1, file_count=1, byte_count=1,
        column_count=1, manifest_uri="runs:/r/manifest.json",
    )  # fmt: skip
    return found.to_xcom()


def served(version: int) -> ServedModel:
    return ServedModel(name="flights", version=version, model_uri="models:/m", artifact_uri="a")


PLAN = MonitoringPlan(
    windows=(
        MonitoredWindow(window=month(6), model=served(1), scoring_run_id="june"),
        MonitoredWindow(window=month(7), model=served(2), scoring_run_id="july"),
    ),
    reason="why",
    experiment_id="1",
    parent_run_id="p",
).to_xcom()


def report(**other: Any) -> DriftReport:
    fields: dict[str, Any] = {
        "verdict": "drift", "sentence": "1 of 2 columns drifted.", "window": month(7), "reference": "a profile",
        "row_count": 1000, "compared_count": 2, "drifted_count": 1, "share": 0.5, "run_id": "r",
        "report_uri": "runs:/r/drift.html",
        "columns": (
            ColumnDrift(column="temp", kind="numeric", method="psi", value=1.25, threshold=0.25, drifted=True),
            ColumnDrift(column="hour", kind="numeric", method="psi", value=0.01, threshold=0.25),
        ),
    }  # fmt: skip
    return DriftReport(**{**fields, **other})


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute the operator with a step that finds ``record``; returns what was pushed and the request's payload."""

    def execute(operator: Any, record: DriftReport) -> tuple[Pushed, Any]:
        asked: list[Any] = []

        def step(self: InlineRuntime, request: Any, access: Any) -> Any:
            asked.append(request)
            return record

        monkeypatch.setattr(InlineRuntime, "run", step)
        monkeypatch.setattr(MLflowHook, "server", lambda self: TrackingServer(tracking_uri="http://mlflow:5000"))
        monkeypatch.setattr(MLflowHook, "login", lambda self: None)
        monkeypatch.setattr(type(operator), "log", logging.getLogger("the task's log"))
        pushed = Pushed()
        execute.pushed = pushed  # type: ignore[attr-defined]  # for tests that expect an exception
        operator.execute({"ti": pushed, "dag_run": SimpleNamespace(run_type="manual")})
        return pushed, asked[0].payload

    return execute


def test_the_window_is_found_in_the_plan(execute: Any) -> None:
    _, payload = execute(DetectDriftOperator(task_id="t", dataset=dataset(7), plan=PLAN), report())

    assert payload["model"]["version"] == 2
    assert payload["scoring_run_id"] == "july"


def test_what_was_monitored_comes_before_the_plan_and_a_model_stands_alone(execute: Any) -> None:
    june = MonitoredWindow(window=month(6), model=served(1), scoring_run_id="june").model_dump(mode="json")
    _, first = execute(DetectDriftOperator(task_id="t", dataset=dataset(7), plan=PLAN, monitored=june), report())
    model = served(5).model_dump(mode="json")
    _, second = execute(
        DetectDriftOperator(
            task_id="t", dataset=dataset(7), model=model, scoring_run_id="s", columns=["a"], exclude=("b",)
        ),
        report(),
    )

    assert (first["model"]["version"], first["scoring_run_id"]) == (1, "june")
    assert (second["model"], second["scoring_run_id"]) == (model, "s")
    assert (second["columns"], second["exclude"], second["data"]) == (["a"], ["b"], {"uri": "/lake"})


def test_a_window_that_the_plan_lacks_and_a_misspelt_word_are_told(execute: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"no window \[2013-08-01.*It has \[2013-06-01"):
        execute(DetectDriftOperator(task_id="t", dataset=dataset(8), plan=PLAN), report())
    with pytest.raises(AirflowFailException, match="on_broken is 'stop'"):
        execute(DetectDriftOperator(task_id="t", dataset=dataset(7), plan=PLAN, on_broken="stop"), report())


def test_drift_is_told_by_column_and_is_no_failure(execute: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = report(
        drifted_count=3,
        prediction=ColumnDrift(column="prediction", kind="numeric", method="psi", sentence="It is gone."),
    )

    with caplog.at_level(logging.INFO):
        pushed, _ = execute(DetectDriftOperator(task_id="t", dataset=dataset(7), plan=PLAN), found)

    assert pushed["return_value"]["verdict"] == "drift"
    assert pushed["reasons"] == ["1 of 2 columns drifted.", "temp by psi: 1.25, threshold 0.25."]
    assert pushed["report_link"].endswith("/artifacts/drift.html")
    assert pushed["mlflow_run_link"]
    assert "Verdict: drift. 1 of 2 columns drifted." in caplog.text
    assert "Drifted: temp by psi: 1.25, threshold 0.25." in caplog.text
    assert "2 more drifted; the report has them all." in caplog.text
    assert "Predictions: prediction: It is gone." in caplog.text
    assert "hour" not in caplog.text


def test_a_broken_schema_fails_only_where_that_was_asked_for(execute: Any) -> None:
    found = report(
        verdict="schema_broken",
        sentence="The column 'hour' is not in the window.",
        findings=(SchemaFinding(kind="missing_column", column="hour", sentence="The column 'hour' is gone."),),
    )
    pushed, _ = execute(DetectDriftOperator(task_id="t", dataset=dataset(7), plan=PLAN), found)

    assert "The column 'hour' is gone." in pushed["reasons"]
    with pytest.raises(AirflowFailException, match="schema_broken: The column 'hour' is not in the window"):
        execute(DetectDriftOperator(task_id="t", dataset=dataset(7), plan=PLAN, on_broken="fail"), found)
    assert execute.pushed["return_value"]["verdict"] == "schema_broken"
