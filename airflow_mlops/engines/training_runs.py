"""Training runs that answer a request for a retrain: which one does, and whether it has come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    return next(iter(_naming(client, experiment_id, request)), None)


def later_run(client: MlflowClient, experiment_id: str, request: str, *but: str) -> Run | None:
    """Return the newest parent run that names the request: what a failed run took up, another one may train.

    :param but: ids of the runs that are not meant.
    """
    others = [run for run in _naming(client, experiment_id, request) if run.info.run_id not in but]
    return others[-1] if others else None


def _naming(client: MlflowClient, experiment_id: str, request: str) -> list[Run]:
    found = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`{ANSWERS}` LIKE '%{request}%'",
        order_by=["attributes.start_time ASC"],
        max_results=100,
    )
    return [run for run in found if runs.DUPLICATE_OF not in run.data.tags]


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
    """Say whether a training run has come to its end, however."""
    return bool(end_of(client, parent))


def end_of(client: MlflowClient, parent: Run) -> Literal["", "failed", "finished"]:
    """Say how a training run ended; empty while it goes on.

    No step knows that it is the last, so MLflow's status of the parent tells nothing between two steps: the steps
    themselves do. One that runs goes on; a failed one, a held gate and a finished promotion are ends. A failure is no
    end for ever: Airflow, or a person, may try the task again. A run without steps of ours goes by its status.
    """
    children = client.search_runs(
        [parent.info.experiment_id],
        filter_string=f"tags.`{runs.PARENT}` = '{parent.info.run_id}'",
        max_results=1000,
    )
    # A step that another one performed is a part of that one, and may be left behind running when that one is killed.
    out = {runs.SUPERSEDED_BY, runs.DUPLICATE_OF, runs.PART_OF}
    current = [child for child in children if not out & set(child.data.tags)]
    if not any(runs.STEP in child.data.tags for child in current):
        return "" if parent.info.status in ("RUNNING", "SCHEDULED") else "finished"
    if any(child.info.status == "RUNNING" for child in current):
        return ""
    failed = any(child.info.status in ("FAILED", "KILLED") or runs.FAILING in child.data.tags for child in current)
    promoted = any(child.data.tags.get(runs.STEP) == "promote" for child in current)
    if promoted or parent.data.tags.get(VERDICT) in _STOPS:
        return "finished"
    return "failed" if failed else ""
