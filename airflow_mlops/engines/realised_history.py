"""Earlier results about the same batch, and which of several made at once counts.

A result is *published* by tags on its MLflow run, set in one call after its artifacts are there. MLflow has no unique
keys: so whoever publishes looks again, and of several with the same labels the run that began first counts; the others
hand on its result. Where two with different labels took one number, the one that sees it takes the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from airflow_mlops.core.realised import Realised
from airflow_mlops.engines import runs
from airflow_mlops.engines.artifacts import stored_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SCORING_RUN = "airflow_mlops.scoring_run"
STATE = "airflow_mlops.performance_state"
REVISION = "airflow_mlops.performance_revision"
LABELS = "airflow_mlops.labels_digest"
MEASURED = "airflow_mlops.measured_digest"
RESULT_FILE = "performance.json"


@dataclass(frozen=True)
class Published:
    """One published result.

    :param began: when its run was created, in milliseconds; with ``run_id`` the order in which results count.
    :param labels: digest of the labels; ``measured``: of what was measured and how.
    """

    run_id: str
    began: int
    state: Literal["waiting", "provisional", "final"]
    revision: int
    labels: str
    measured: str
    key: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """Return what the first of several has least of."""
        return self.began, self.run_id

    def same_as(self, other: Published) -> bool:
        """Say whether both come from the same labels, measured in the same way and to the same effect."""
        return (self.state, self.labels, self.measured) == (other.state, other.labels, other.measured)


def published(client: MlflowClient, experiment: str, scoring_run: str) -> list[Published]:
    """Return what was published about a batch, in order of revision; results that were only handed on are left out."""
    found = client.search_runs(
        [experiment],
        filter_string=f"tags.`{runs.STEP}` = 'performance' AND tags.`{SCORING_RUN}` = '{scoring_run}'",
        order_by=["attributes.start_time ASC"],
        max_results=1000,
    )
    read = (_read(run) for run in found)
    return sorted(
        (one for one in read if one is not None), key=lambda one: (one.state == "final", one.revision, one.order)
    )


def latest_final(history: Iterable[Published]) -> Published | None:
    """Return the last revision; of several that took one number for the same labels, the one that began first."""
    finals = [one for one in history if one.state == "final"]
    return max(finals, key=lambda one: (one.revision, -one.began), default=None)


def twin_of(wanted: Published, history: Iterable[Published]) -> Published | None:
    """Return the result to hand on instead of ``wanted``: the same labels, and nothing final since.

    Labels that are again what they were some revisions ago have no twin: the figures in between were other ones.
    """
    history = list(history)
    last = latest_final(history)
    if wanted.state == "final":
        if last is None or not last.same_as(wanted):
            return None
        same = [one for one in history if one.same_as(last) and one.revision == last.revision]
    else:
        same = [one for one in history if one.same_as(wanted)]
    return min(same, key=lambda one: one.order, default=None)


def tags_of(one: Published) -> dict[str, str]:
    """Return the tags that publish a result."""
    return {STATE: one.state, REVISION: str(one.revision), LABELS: one.labels, MEASURED: one.measured}


def read_result(client: MlflowClient, run_id: str) -> Realised | None:
    """Return what a run published, or None where the artifact is gone or of another version."""
    stored = stored_json(client, f"runs:/{run_id}/{RESULT_FILE}")
    if not isinstance(stored, Mapping):
        return None
    try:
        return Realised.model_validate(stored)
    except ValidationError:
        return None


def supersede(client: MlflowClient, history: Iterable[Published], run_id: str) -> None:
    """Show on earlier results that there is a newer one."""
    for one in history:
        if one.run_id != run_id:
            client.set_tag(one.run_id, runs.SUPERSEDED_BY, run_id)


def _read(run: Run) -> Published | None:
    tags: Mapping[str, Any] = run.data.tags
    if runs.DUPLICATE_OF in tags or runs.REUSED_FROM in tags or not str(tags.get(REVISION, "")).isdigit():
        return None
    if (state := tags.get(STATE)) not in ("provisional", "final"):
        return None
    return Published(
        run_id=run.info.run_id,
        began=run.info.start_time,
        state=state,
        revision=int(tags[REVISION]),
        labels=tags.get(LABELS, ""),
        measured=tags.get(MEASURED, ""),
        key=tags.get(runs.KEY, ""),
    )
