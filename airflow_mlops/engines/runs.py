"""MLflow runs that are found again: one parent run per DAG run, one child run per task key and input digest.

MLflow has no unique keys. So key and digest go in as tags of the create call; after creating, the same search is made
again, the earliest run wins, a loser marks itself ``duplicate_of`` and everybody reads the winner.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.keys import key_id
from airflow_mlops.engines.outages import looks_like_outage
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

KEY = "airflow_mlops.key"
KEY_ID = "airflow_mlops.key_id"
INPUT_DIGEST = "airflow_mlops.input_digest"
STEP = "airflow_mlops.step"
SUPERSEDED_BY = "airflow_mlops.superseded_by"
DUPLICATE_OF = "airflow_mlops.duplicate_of"
REUSED_FROM = "airflow_mlops.reused_from"
FORCED = "airflow_mlops.forced"
ERROR = "airflow_mlops.error"
FAILING = "airflow_mlops.failing"
REGISTERED_MODEL = "airflow_mlops.registered_model"
#: ``NAME/NUMBER`` on a run that registered it, else the number alone.
MODEL_VERSION = "airflow_mlops.model_version"
WINDOW_START = "airflow_mlops.window_start"
WINDOW_END = "airflow_mlops.window_end"
#: On a step that another task's step performs: that task's key.
PART_OF = "airflow_mlops.part_of"
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
RECORD_FILE = "record.json"
#: MLflow's own limit for a run tag is 8,000 characters on the SQL stores; longer values are cut with a mark.
MAX_TAG = 4_000


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment called ``name``, creating it when it is new; two creators at once are fine.

    :raises InvalidSpecError: the experiment was deleted in MLflow and holds the name.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(2):
        found = client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise InvalidSpecError(
                    f"The MLflow experiment {name!r} is deleted but keeps its name. Restore it with "
                    f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or set another "
                    f"`experiment` in the specification."
                )
            return str(found.experiment_id)
        try:
            # Without the tag MLflow's pages open an experiment in their view for language models.
            return str(client.create_experiment(name, tags={"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException as exc:
            if attempt or exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise AssertionError("unreachable: the second attempt returns or raises")


def find_runs(client: MlflowClient, experiment: str, key: str) -> list[Run]:
    """Return every run of ``key`` that is not deleted and no duplicate: current before superseded, earliest first."""
    runs = client.search_runs(
        [experiment],
        filter_string=f"tags.`{KEY_ID}` = '{key_id(key)}'",
        order_by=["attributes.start_time ASC"],
        max_results=500,
    )
    return sorted(
        (run for run in runs if DUPLICATE_OF not in run.data.tags),
        key=lambda run: (SUPERSEDED_BY in run.data.tags, run.info.start_time, run.info.run_id),
    )


def find_finished(client: MlflowClient, experiment: str, step: str, input_digest: str, most: int = 10) -> list[Run]:
    """Return the finished runs of a step that worked on these inputs, whatever their key: the last finished first.

    The last, because a rebuild that somebody forced is what they want from then on. Runs that only reused a result are
    left out: the run that made it is found by itself.
    """
    found = client.search_runs(
        [experiment],
        filter_string=f"tags.`{STEP}` = '{step}' AND tags.`{INPUT_DIGEST}` = '{input_digest}' "
        f"AND attributes.status = 'FINISHED'",
        order_by=["attributes.end_time DESC"],
        max_results=500,
    )
    made = [run for run in found if DUPLICATE_OF not in run.data.tags and REUSED_FROM not in run.data.tags]
    return made[:most]


def mark_reused(client: MlflowClient, run: Run, origin: str) -> None:
    """Show on a run that its record is another task's result.

    :param origin: the key of the task that made it.
    """
    client.set_tag(run.info.run_id, REUSED_FROM, cut(origin))
    client.set_tag(run.info.run_id, "mlflow.note.content", f"Reused: made by the task `{cut(origin)}`.")


def get_or_create_run(
    client: MlflowClient,
    experiment: str,
    *,
    key: str,
    input_digest: str = "",
    name: str,
    tags: Mapping[str, str],
    force: bool = False,
) -> tuple[Run, bool]:
    """Return the run of this key and input digest and whether it was there before.

    :param input_digest: empty for a parent run, which is one per key whatever goes in.
    :param force: make a new run even though a finished one exists; one that an earlier forced attempt left unfinished
        is continued, so that a retry repeats no act.
    """
    existing = [run for run in find_runs(client, experiment, key) if _digest(run) == input_digest]
    if force:
        existing = [run for run in existing if FORCED in run.data.tags and run.info.status != "FINISHED"][-1:]
    if existing:
        return existing[0], True
    created = client.create_run(
        experiment,
        run_name=name,
        tags={
            **{tag: cut(value) for tag, value in tags.items()},
            KEY: cut(key),
            KEY_ID: key_id(key),
            INPUT_DIGEST: input_digest,
            **({FORCED: "true"} if force else {}),
        },
    )
    if force:
        return created, False
    rivals = [run for run in find_runs(client, experiment, key) if _digest(run) == input_digest]
    winner = rivals[0] if rivals else created
    if winner.info.run_id != created.info.run_id:
        mark_duplicate(client, created, winner)
        return winner, True
    return created, False


def mark_duplicate(client: MlflowClient, run: Run, winner: Run) -> None:
    """Take ``run`` out of every later search: ``winner`` was there first."""
    client.set_tag(run.info.run_id, DUPLICATE_OF, winner.info.run_id)
    client.set_terminated(run.info.run_id, "KILLED")
    log.info("Another process made MLflow run %s for the same work first; using it.", winner.info.run_id)


def resume(client: MlflowClient, run: Run) -> None:
    """Let an unfinished run of an earlier attempt show that it goes on."""
    client.update_run(run.info.run_id, status="RUNNING")
    if ERROR in run.data.tags:
        client.delete_tag(run.info.run_id, ERROR)


def any_failed(client: MlflowClient, experiment: str, parent_run_id: str) -> bool:
    """Say whether a step of the parent failed, or ended in a failing verdict, and nothing has superseded it since.

    A step that another one performed counts through that one, which may well end without it.
    """
    children = client.search_runs([experiment], filter_string=f"tags.`{PARENT}` = '{parent_run_id}'", max_results=1000)
    return any(
        (child.info.status == "FAILED" or FAILING in child.data.tags)
        and SUPERSEDED_BY not in child.data.tags
        and DUPLICATE_OF not in child.data.tags
        and PART_OF not in child.data.tags
        for child in children
    )


def supersede_others(client: MlflowClient, found: list[Run], current: Run, *, newer_too: bool) -> None:
    """Mark the other runs of a key as superseded by ``current``.

    :param found: what :func:`find_runs` gives for the key.
    :param newer_too: True where ``current`` is adopted because its inputs are wanted again; False where it has just
        finished: then a run that was created later worked on newer inputs, and ``current`` is the latecomer.
    """
    latest = current.info.run_id
    for run in found:
        run_id = run.info.run_id
        if run_id == latest:
            if newer_too and SUPERSEDED_BY in run.data.tags:
                client.delete_tag(run_id, SUPERSEDED_BY)
            continue
        wanted = newer_too or run.info.start_time <= current.info.start_time
        if wanted and run.data.tags.get(SUPERSEDED_BY) != latest:
            client.set_tag(run_id, SUPERSEDED_BY, latest)


def read_record(client: MlflowClient, run: Run) -> dict[str, Any] | None:
    """Return the record a finished step run holds; None where the step did not get that far or the record is lost."""
    if run.info.status != "FINISHED":
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run.info.run_id, RECORD_FILE, folder)
            record = json.loads(Path(path).read_text())
        except Exception as exc:  # the stores raise errors of many kinds for a file that is gone
            if looks_like_outage(exc):
                raise
            log.warning("The record of MLflow run %s cannot be read (%s); the step runs again.", run.info.run_id, exc)
            return None
    return record if isinstance(record, dict) else None


def cut(value: str) -> str:
    """Return a tag's value within MLflow's limit, with an ellipsis where it was cut."""
    text = str(value)
    return text if len(text) <= MAX_TAG else f"{text[: MAX_TAG - 1]}…"


def _digest(run: Run) -> str:
    return str(run.data.tags.get(INPUT_DIGEST, ""))
