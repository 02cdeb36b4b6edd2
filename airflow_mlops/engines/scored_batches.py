"""A published batch of predictions as its MLflow run tells it, and how long its labels are waited for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mlops.core.monitoring_records import MonitoredWindow, ScoringReport
from airflow_mlops.engines import runs
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.monitoring import LabelSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient


def not_scored(monitored: MonitoredWindow) -> str:
    """Say why nothing can be measured of a window that no batch of predictions was published for."""
    return (
        f"The window {monitored.window} was never scored, so there are no predictions for labels to be about. Score it "
        f"(the scoring DAG with this window), or let monitoring look at windows that are scored."
    )


def scored_batch(client: MlflowClient, run_id: str) -> ScoringReport:
    """Return the report of the scoring step's run.

    ``published_at`` is filled in from the run's end where the report has none.

    :raises InvalidSpecError: there is no such run, or it has published no batch.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as exc:
        if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise InvalidSpecError(
            f"There is no MLflow run {run_id!r}, which was to have scored the window: it was deleted, or belongs to "
            f"another server. Score the window again."
        ) from exc
    stored = runs.read_record(client, run)
    if stored is None:
        raise InvalidSpecError(
            f"The MLflow run {run_id} has published no batch of predictions (its status is {run.info.status}). Clear "
            f"the scoring task, and this one after it."
        )
    report = ScoringReport.from_xcom(stored)
    ended = run.info.end_time or run.info.start_time
    return report.model_copy(
        update={
            "run_id": report.run_id or run_id,
            "published_at": report.published_at or datetime.fromtimestamp(ended / 1000, UTC).isoformat(),
        }
    )


def deadline_of(report: ScoringReport, labels: LabelSpec) -> datetime:
    """Return the moment from which figures are final, whatever the coverage."""
    return labels.deadline.after(moment(report.published_at, "published_at of the scoring report"))


def moment(value: str | None, where: str) -> datetime:
    """Read an ISO time; a naive one is UTC, none is now.

    :raises InvalidSpecError: it is no time.
    """
    if not value or value == "None":
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(value)
    except ValueError as exc:
        raise InvalidSpecError(f"{where} is {value!r}; it must be an ISO time such as 2013-04-30T12:00:00Z.") from exc
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
