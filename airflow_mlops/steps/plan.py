"""Decide what a run is about: its windows and its reason; and open its parent MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, field_validator

from airflow_mlops.core.records import RunPlan, Window
from airflow_mlops.core.windows import Length, require_apart, training_window
from airflow_mlops.engines.request_log import take_up
from airflow_mlops.engines.runs import cut
from airflow_mlops.engines.training_runs import ANSWERS, existing_run, later_run
from airflow_mlops.spec.model import TrainWindowSpec
from airflow_mlops.steps.base import Access, Step, Work, window_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: The parent run's tag with the address of the run's page in Airflow.
AIRFLOW_URL = "airflow_mlops.airflow_url"


class PlanPayload(BaseModel):
    """The anchor window, how the training window follows from it, and why the run exists.

    ``train_length``, when given, replaces the specification's length for this run and is named in the notes.

    :param requests: ids of the retrains that the run's Asset events ask for.
    :param only_requests: every event asked for one, so that the run has no other purpose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Window
    train: TrainWindowSpec
    train_length: Length | None = None
    reason: str
    summary: str = ""
    requests: tuple[str, ...] = ()
    only_requests: bool = False

    @field_validator("train_length", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return None if value in (None, "") else Length.parse(value)


class PlanStep(Step[PlanPayload, RunPlan]):
    """Derive the windows and describe the parent MLflow run."""

    name = "plan"
    payload_type = PlanPayload
    record_type = RunPlan

    def inputs(self, payload: PlanPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover the windows alone: the same run asked for with another reason is still the same run."""
        return payload.model_dump(mode="json", exclude={"reason", "summary", "requests", "only_requests"})

    def recheck(self, record: RunPlan, payload: PlanPayload, client: MlflowClient, access: Access) -> bool:
        """Look again where the run had nothing to do: the one that answered may have failed since."""
        return not record.repeat

    def run(self, payload: PlanPayload, work: Work) -> RunPlan:
        """Write windows and reason on the parent run, where a person looks first."""
        length = payload.train_length or payload.train.length
        train = training_window(payload.window, length=length, gap=payload.train.gap)
        require_apart(train, payload.window)
        notes = []
        if payload.train_length is not None and payload.train_length != payload.train.length:
            notes.append(
                f"This run trains on {payload.train_length} instead of the specification's {payload.train.length}."
            )
        answered, repeat = _answers(payload, work)
        about = f"Trained on {train}, evaluated on {payload.window}. Started because: {payload.reason}."
        tags = {
            **window_tags(payload.window),
            **({ANSWERS: cut(" ".join(answered))} if answered else {}),
            "airflow_mlops.train_start": train.start.isoformat(),
            "airflow_mlops.train_end": train.end.isoformat(),
            "airflow_mlops.reason": payload.reason,
            "mlflow.note.content": "\n\n".join(
                filter(
                    None,
                    (
                        payload.summary,
                        repeat or about,
                        *notes,
                        f"[The Airflow run]({url})" if (url := work.request.run.tags.get(AIRFLOW_URL)) else "",
                    ),
                )
            ),
        }
        for name, value in tags.items():
            work.client.set_tag(work.parent_run_id, name, value)
        return RunPlan(
            window=payload.window,
            train_window=train,
            evaluate_window=payload.window,
            reason=payload.reason,
            experiment_id=work.experiment_id,
            parent_run_id=work.parent_run_id,
            notes=tuple(notes),
            requests=answered,
            repeat=repeat,
        )


def _answers(payload: PlanPayload, work: Work) -> tuple[tuple[str, ...], str]:
    """Take the requests up that the run's events carry; return those that are this run's, and why it has none.

    One request is answered by one run, however often its event was emitted. A run that failed answers nothing.
    """
    mine: list[str] = []
    others: dict[str, str] = {}
    for request in payload.requests:
        taken = take_up(work.client, work.experiment_id, request, work.parent_run_id)
        if taken != work.parent_run_id and not _stands(work.client, taken):
            # What that run failed at, a later one may have done since.
            later = later_run(work.client, work.experiment_id, request, taken, work.parent_run_id)
            taken = work.parent_run_id if later is None else later.info.run_id
        if taken == work.parent_run_id or not _stands(work.client, taken):
            mine.append(request)
        else:
            others[request] = taken
    if mine or not others or not payload.only_requests:
        return tuple(mine), ""
    return (), (
        f"Nothing to do: this run was started by {'a repeated event' if len(others) == 1 else 'repeated events'}, and "
        f"the retrain that was asked for is MLflow run {', '.join(sorted(set(others.values())))} already "
        f"(request {', '.join(sorted(others))}). To train all the same, trigger the DAG by hand."
    )


def _stands(client: MlflowClient, run_id: str) -> bool:
    """Say whether the run that took a request up is still there and has not failed."""
    run = existing_run(client, run_id)
    return run is not None and run.info.status in ("RUNNING", "FINISHED", "SCHEDULED")
