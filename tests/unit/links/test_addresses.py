"""The buttons of scoring and monitoring tasks lead to the pages that their records name."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import (
    DriftReport,
    MonitoringPlan,
    PerformanceReport,
    PolicyDecision,
    ScoringPlan,
    ScoringReport,
    ServedModel,
)
from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.links.addresses import addresses_of

SERVER = TrackingServer(tracking_uri="http://mlflow:5000")
MODEL = ServedModel(name="dev.ann.flights", version=3, model_uri="m", artifact_uri="a")
VERSION = "http://mlflow:5000/#/models/dev.ann.flights/versions/3"
SCORING: dict[str, Any] = {
    "sentence": "s", "window": None, "model": MODEL, "dataset_digest": "d", "task": "binary", "output_uri": "s3://o/p",
    "output_digest": "d", "byte_count": 1, "row_count": 1, "scored_count": 1, "key": "k", "input_digest": "i",
}  # fmt: skip
DRIFT: dict[str, Any] = {"verdict": "none", "sentence": "s", "window": None, "reference": "r", "row_count": 1}
REALISED: dict[str, Any] = {
    "state": "final", "sentence": "s", "window": None, "model": MODEL, "row_count": 1, "labelled_count": 1,
    "coverage": 1.0,
}  # fmt: skip
POLICY: dict[str, Any] = {"action": "none", "sentence": "s", "window": None}


@pytest.mark.parametrize(
    ("record", "run", "version", "report"),
    [
        pytest.param(
            ScoringPlan(windows=(), model=MODEL, reason="r", experiment_id="1", parent_run_id="p"), "p", True, None,
            id="a scoring plan",
        ),
        pytest.param(
            MonitoringPlan(windows=(), reason="r", experiment_id="1", parent_run_id="p"), "p", False, None,
            id="a monitoring plan",
        ),
        pytest.param(ScoringReport(**SCORING, run_id="s"), "s", True, None, id="a scored batch"),
        pytest.param(
            DriftReport(**DRIFT, model=MODEL, run_id="d", report_uri="runs:/d/drift.html", findings_uri="runs:/d/f"),
            "d", True, "drift.html", id="drift with a page",
        ),
        pytest.param(
            DriftReport(**DRIFT, run_id="d", findings_uri="runs:/d/findings.json"), "d", False, "findings.json",
            id="drift from another window, without a page",
        ),
        pytest.param(DriftReport(**DRIFT), None, False, None, id="drift that names nothing"),
        pytest.param(
            PerformanceReport(**REALISED, run_id="e", report_uri="runs:/e/performance.html"), "e", True,
            "performance.html", id="performance",
        ),
        pytest.param(
            PerformanceReport(**REALISED, run_id="e", evidence_uri="runs:/e/evidence.json"), "e", True,
            "evidence.json", id="performance without a page",
        ),
        pytest.param(
            PolicyDecision(**POLICY, run_id="m", pictures_uri="runs:/m/pictures"), "m", False, "pictures",
            id="a policy",
        ),
        pytest.param(
            DriftReport(**DRIFT, run_id="d", report_uri="s3://bucket/drift.html"), "d", False, None,
            id="a page that is not in MLflow",
        ),
    ],
)  # fmt: skip
def test_a_record_leads_to_its_pages(record: Any, run: str | None, version: bool, report: str | None) -> None:
    expected = {}
    if run:
        expected["run"] = f"http://mlflow:5000/#/runs/{run}"
    if version:
        expected["version"] = VERSION
    if report:
        expected["report"] = f"http://mlflow:5000/#/experiments/0/runs/{run}/artifacts/{report}"

    assert addresses_of(record, SERVER) == expected
