"""Decide what a scoring run is about: its windows, and the version that the alias stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.monitoring_records import ScoringPlan, ServedModel
from airflow_mlops.core.record import Record, Window
from airflow_mlops.engines import runs
from airflow_mlops.engines.promotions import DEFAULT_ALIAS
from airflow_mlops.engines.served import served_champion, served_other
from airflow_mlops.errors import InvalidSpecError, RecordTooLargeError
from airflow_mlops.steps.base import Access, Step, Work, window_tags
from airflow_mlops.steps.plan import AIRFLOW_URL

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Characters of the reason that a plan carries on; the parent run has all of it.
MAX_REASON = 500


class PlanScoringPayload(BaseModel):
    """The windows to score, and who scores them.

    :param other: an alias, or ``previous_champion``: the version that takes part beside; None: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: tuple[Window, ...] = Field(min_length=1)
    registered_model: str = Field(min_length=1)
    alias: str = DEFAULT_ALIAS
    other: str | None = None
    reason: str
    summary: str = ""


class PlanScoringStep(Step[PlanScoringPayload, ScoringPlan]):
    """Resolve the alias once and describe the parent MLflow run.

    Every task of the run goes by this record, so a promotion meanwhile changes nothing for the run's later windows,
    their retries, or a later task that is cleared. Clearing the plan itself resolves anew.
    """

    name = "plan_scoring"
    payload_type = PlanScoringPayload
    record_type = ScoringPlan

    _model: ServedModel
    _other: ServedModel | None
    _note: str

    def inputs(self, payload: PlanScoringPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover the windows and what the aliases stand for now; :meth:`run` takes the same versions."""
        self._model = served_champion(client, payload.registered_model, payload.alias)
        self._other, self._note = served_other(client, self._model, payload.other) if payload.other else (None, "")
        return {
            **payload.model_dump(mode="json", exclude={"reason", "summary"}),
            "model": identity(self._model),
            "beside": None if self._other is None else identity(self._other),
        }

    def run(self, payload: PlanScoringPayload, work: Work) -> ScoringPlan:
        """Write windows, version and reason on the parent run, where a person looks first."""
        windows = in_order(payload.windows)
        notes = (self._note,) if self._note else ()
        beside = "" if self._other is None else f", version {self._other.version} beside it"
        describe_parent(
            work,
            windows,
            reason=payload.reason,
            summary=payload.summary,
            what=f"Scored by version {self._model.version} of {self._model.name} ({self._model.alias}){beside}",
            notes=notes,
            tags={
                runs.REGISTERED_MODEL: self._model.name,
                runs.MODEL_VERSION: str(self._model.version),
            },
        )
        plan = ScoringPlan(
            windows=windows,
            model=self._model,
            other=self._other,
            reason=payload.reason[:MAX_REASON],
            experiment_id=work.experiment_id,
            parent_run_id=work.parent_run_id,
            notes=notes,
        )
        if not fits(plan):
            plan = plan.model_copy(
                update={"model": without_features(plan.model), "other": plan.other and without_features(plan.other)}
            )
        require_size(plan, windows)
        return plan


def identity(model: ServedModel) -> list[Any]:
    """Return what makes a resolved version another one: the ledger's entry, the number and the files."""
    return [model.entry, model.version, model.digest]


def in_order(windows: Sequence[Window]) -> tuple[Window, ...]:
    """Return the distinct windows, oldest first."""
    return tuple(sorted(set(windows), key=lambda window: (window.start, window.end)))


def without_features(model: ServedModel) -> ServedModel:
    """Return a version without the list of its features, which its signature has as well."""
    return model.model_copy(update={"features": None})


def fits(plan: Record) -> bool:
    """Say whether a plan can be handed on to the other tasks as it is."""
    try:
        plan.to_xcom()
    except RecordTooLargeError:
        return False
    return True


def require_size(plan: Record, windows: Sequence[Window]) -> None:
    """Refuse a run over more windows than its plan can carry to the other tasks.

    :raises InvalidSpecError: the message says how many there are, and how to go on.
    """
    try:
        plan.to_xcom()
    except RecordTooLargeError as exc:
        raise InvalidSpecError(
            f"This run is about {len(windows)} windows, {windows[0]} to {windows[-1]}, and its plan would be larger "
            f"than a task may hand on. Start a run for each window, with its window_start and window_end as "
            f"parameters, or emit the events in smaller groups. ({exc})"
        ) from exc


def describe_parent(
    work: Work,
    windows: Sequence[Window],
    *,
    reason: str,
    summary: str,
    what: str,
    notes: Sequence[str],
    tags: Mapping[str, str],
) -> None:
    """Write what a run over windows is about on its parent MLflow run; its window tags span all of them."""
    from mlflow.entities import RunTag

    whole = Window(start=windows[0].start, end=max(window.end for window in windows))
    listed = ", ".join(map(str, windows[:12])) + (f" and {len(windows) - 12} more" if len(windows) > 12 else "")
    url = work.request.run.tags.get(AIRFLOW_URL)
    text = filter(
        None,
        (
            summary,
            f"{what}: {listed}. Started because: {reason}.",
            *notes,
            f"[The Airflow run]({url})" if url else "",
        ),
    )
    values = {
        **window_tags(whole),
        "airflow_mlops.window_count": str(len(windows)),
        "airflow_mlops.reason": reason,
        **tags,
        "mlflow.note.content": "\n\n".join(text),
    }
    work.client.log_batch(work.parent_run_id, tags=[RunTag(key, runs.cut(value)) for key, value in values.items()])
