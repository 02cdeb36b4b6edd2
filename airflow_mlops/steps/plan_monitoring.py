"""Decide what a monitoring run is about: its windows, and the version that scored each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.monitoring_records import MonitoredWindow, MonitoringPlan, ScoringReport, ServedModel
from airflow_mlops.core.record import Window
from airflow_mlops.engines import runs
from airflow_mlops.engines.promotions import DEFAULT_ALIAS
from airflow_mlops.engines.served import served_champion, served_version
from airflow_mlops.engines.versions import check_name
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps.base import Access, Step, Work, window_tags
from airflow_mlops.steps.plan_scoring import (
    MAX_REASON,
    describe_parent,
    fits,
    identity,
    in_order,
    require_size,
    without_features,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

#: Windows that the notes name.
MAX_NOTES = 5


class PlanMonitoringPayload(BaseModel):
    """The windows to watch, and whose predictions.

    :param scoring_experiment: name of the MLflow experiment that holds the scoring runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: tuple[Window, ...] = Field(min_length=1)
    registered_model: str = Field(min_length=1)
    alias: str = DEFAULT_ALIAS
    scoring_experiment: str = Field(min_length=1)
    reason: str
    summary: str = ""


class PlanMonitoringStep(Step[PlanMonitoringPayload, MonitoringPlan]):
    """Find, for each window, the scoring run whose predictions stand, and with it the version that made them.

    A window that nobody scored is watched on behalf of the champion.
    """

    name = "plan_monitoring"
    payload_type = PlanMonitoringPayload
    record_type = MonitoringPlan

    _windows: tuple[Window, ...]
    _scored: dict[Window, Run | None]
    _champion: ServedModel | None

    def inputs(self, payload: PlanMonitoringPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover the windows, which scoring run stands for each, and the champion where one has none.

        :raises LedgerError: a window was scored by nobody, and nobody can say who is champion.
        """
        self._windows = in_order(payload.windows)
        experiment = client.get_experiment_by_name(payload.scoring_experiment)
        name = check_name(payload.registered_model)
        self._scored = {
            window: None if experiment is None else _scoring_run(client, experiment.experiment_id, name, window)
            for window in self._windows
        }
        alone = None in self._scored.values()
        self._champion = served_champion(client, name, payload.alias) if alone else None
        return {
            **payload.model_dump(mode="json", exclude={"reason", "summary"}),
            "scored": [[str(window), run and run.info.run_id] for window, run in self._scored.items()],
            "champion": None if self._champion is None else identity(self._champion),
        }

    def run(self, payload: PlanMonitoringPayload, work: Work) -> MonitoringPlan:
        """Write windows and reason on the parent run, where a person looks first.

        :raises InvalidSpecError: more windows than a plan can carry, or a scoring run whose version is gone.
        """
        found, notes = [], []
        for window, run in self._scored.items():
            if run is not None:
                model = _scorer(run, payload.registered_model, work)
                found.append(MonitoredWindow(window=window, model=model, scoring_run_id=run.info.run_id))
            elif self._champion is not None:
                found.append(MonitoredWindow(window=window, model=self._champion))
                notes.append(f"Nobody scored {window}: it is watched on behalf of {self._champion}.")
        if len(notes) > MAX_NOTES:
            notes = [*notes[:MAX_NOTES], f"{len(notes) - MAX_NOTES} more windows were scored by nobody."]
        versions = sorted({one.model.version for one in found})
        describe_parent(
            work,
            self._windows,
            reason=payload.reason,
            summary=payload.summary,
            what=f"Watching version {' and '.join(map(str, versions))} of {payload.registered_model}",
            notes=notes,
            tags={runs.REGISTERED_MODEL: payload.registered_model},
        )
        plan = MonitoringPlan(
            windows=tuple(found),
            reason=payload.reason[:MAX_REASON],
            experiment_id=work.experiment_id,
            parent_run_id=work.parent_run_id,
            notes=tuple(notes),
        )
        if not fits(plan):
            lean = [one.model_copy(update={"model": without_features(one.model)}) for one in found]
            plan = plan.model_copy(update={"windows": tuple(lean)})
        require_size(plan, self._windows)
        return plan


def _scoring_run(client: MlflowClient, experiment_id: str, name: str, window: Window) -> Run | None:
    """Return the run that published the window's predictions last, or None."""
    wanted = {runs.STEP: "score", runs.REGISTERED_MODEL: name, **window_tags(window)}
    found = client.search_runs(
        [experiment_id],
        filter_string=" AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        + " AND attributes.status = 'FINISHED'",
        order_by=["attributes.end_time DESC"],
        max_results=100,
    )
    left_out = {runs.SUPERSEDED_BY, runs.DUPLICATE_OF, runs.FAILING}
    return next((run for run in found if not left_out & set(run.data.tags)), None)


def _scorer(run: Run, name: str, work: Work) -> ServedModel:
    """Return the version that scored, as the run's record has it, else by the number on the run."""
    stored = runs.read_record(work.client, run)
    if stored is not None:
        try:
            return ScoringReport.from_xcom(stored).model
        except InvalidSpecError as exc:
            log.warning("The record of scoring run %s cannot be read: %s", run.info.run_id, exc)
    # Written as NAME/NUMBER by some steps, as the number by others.
    number = run.data.tags.get(runs.MODEL_VERSION, "").rpartition("/")[2]
    model = served_version(work.client, name, int(number)) if number.isdigit() else None
    if model is None:
        raise InvalidSpecError(
            f"Scoring run {run.info.run_id} says neither in its record nor in its tags which version of {name!r} it "
            f"scored with, or that version was deleted. Score the window again, or delete that run."
        )
    return model
