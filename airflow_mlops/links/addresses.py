"""From a record to the MLflow pages that show it."""

from __future__ import annotations

from airflow_mlops.core.monitoring_records import (
    DriftReport,
    MonitoringPlan,
    PerformanceReport,
    PolicyDecision,
    ScoringPlan,
    ScoringReport,
)
from airflow_mlops.core.records import (
    DatasetVersion,
    EvaluationReport,
    GateDecision,
    ModelVersionRef,
    Promotion,
    Record,
    RunPlan,
    ServingReport,
    TrainedModel,
    ValidationReport,
)
from airflow_mlops.engines.tracking import TrackingServer, artifact_page, run_page, version_page


def addresses_of(record: Record, server: TrackingServer) -> dict[str, str]:
    """Return ``run``, ``version``, ``report`` and ``evidently`` addresses, each only where the record has one."""
    found: dict[str, str] = {}
    if isinstance(record, RunPlan | ScoringPlan | MonitoringPlan):
        run_id = record.parent_run_id
    else:
        run_id = getattr(record, "run_id", "")
    if isinstance(record, DatasetVersion):
        run_id = record.manifest_uri.removeprefix("runs:/").partition("/")[0]
    if run_id:
        found["run"] = run_page(server, run_id)
    if isinstance(record, ModelVersionRef):
        found["version"] = version_page(server, record.name, record.version)
    if isinstance(record, Promotion) and record.champion_version is not None:
        found["version"] = version_page(server, record.name, record.champion_version)
    if isinstance(record, ScoringPlan | ScoringReport | DriftReport | PerformanceReport) and record.model is not None:
        found["version"] = version_page(server, record.model.name, record.model.version)
    pages = {"report": _report_of(record), "evidently": getattr(record, "evidently_uri", None)}
    for link, uri in pages.items():
        # An artifact in another store than MLflow's has no page there.
        if uri and uri.startswith("runs:/"):
            owner, _, name = uri.removeprefix("runs:/").partition("/")
            found[link] = artifact_page(server, owner, name)
    return found


def _report_of(record: Record) -> str | None:
    if isinstance(record, ValidationReport | ServingReport):
        return record.report_uri
    if isinstance(record, GateDecision):
        return record.decision_uri
    if isinstance(record, EvaluationReport):
        return f"runs:/{record.run_id}/evaluation.html"
    if isinstance(record, ModelVersionRef):
        return record.card_uri
    if isinstance(record, TrainedModel):
        return record.profile_uri
    if isinstance(record, DriftReport):
        return record.report_uri or record.findings_uri
    if isinstance(record, PerformanceReport):
        return record.report_uri or record.evidence_uri
    if isinstance(record, PolicyDecision):
        return record.pictures_uri
    return None
