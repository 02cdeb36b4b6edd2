"""Training runs that answer a request for a retrain: which one does, and whether it has come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.engines import runs
from airflow_mlops.engines.versions import VERDICT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: The parent run's tag with the ids of the requests that it answers, separated by blanks.
ANSWERS = "airflow_mlops.requests"
#: Gate verdicts after which nothing follows.
_STOPS = ("hold", "needs_attention")


def answering_run(client: MlflowClient, experiment_id: str, request: str, run_id: str | None = None) -> Run | None:
    """Return the parent MLflow run of the training that took a request up, or None.

    :param run_id: where that is known; otherwise the first parent run in the experiment that names the request.
    """
    if run_id is not None and (known := existing_run(client, run_id)) is not None:
        return known
    found = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`{ANSWERS}` LIKE '%{request}%'",
        order_by=["attributes.start_time ASC"],
        max_results=100,
    )
    return next((run for run in found if runs.DUPLICATE_OF not in run.data.tags), None)


def existing_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run by its id, or None where there is none or it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def has_ended(client: MlflowClient, parent: Run) -> bool:
    """Say whether a training run has come to its end, however.

    No step knows that it is the last, so MLflow's status of the parent tells nothing between two steps: the steps
    themselves do. One that runs goes on; a failed one, a held gate and a finished promotion are ends. A run without
    steps of ours goes by its status.
    """
    children = client.search_runs(
        [parent.info.experiment_id],
        filter_string=f"tags.`{runs.PARENT}` = '{parent.info.run_id}'",
        max_results=1000,
    )
    current = [child for child in children if not {runs.SUPERSEDED_BY, runs.DUPLICATE_OF} & set(child.data.tags)]
    if not any(runs.STEP in child.data.tags for child in current):
        return parent.info.status not in ("RUNNING", "SCHEDULED")
    if any(child.info.status == "RUNNING" for child in current):
        return False
    failed = any(child.info.status in ("FAILED", "KILLED") or runs.FAILING in child.data.tags for child in current)
    promoted = any(child.data.tags.get(runs.STEP) == "promote" for child in current)
    return failed or promoted or parent.data.tags.get(VERDICT) in _STOPS
