"""Decide what a run is about: its windows and its reason; and open its parent MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, field_validator

from airflow_mlops.core.records import RunPlan, Window
from airflow_mlops.core.windows import Length, require_apart, training_window
from airflow_mlops.spec.model import TrainWindowSpec
from airflow_mlops.steps.base import Access, Step, Work, window_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: The parent run's tag with the address of the run's page in Airflow.
AIRFLOW_URL = "airflow_mlops.airflow_url"


class PlanPayload(BaseModel):
    """The anchor window, how the training window follows from it, and why the run exists.

    ``train_length``, when given, replaces the specification's length for this run and is named in the notes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Window
    train: TrainWindowSpec
    train_length: Length | None = None
    reason: str
    summary: str = ""

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
        return payload.model_dump(mode="json", exclude={"reason", "summary"})

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
        tags = {
            **window_tags(payload.window),
            "airflow_mlops.train_start": train.start.isoformat(),
            "airflow_mlops.train_end": train.end.isoformat(),
            "airflow_mlops.reason": payload.reason,
            "mlflow.note.content": "\n\n".join(
                filter(
                    None,
                    (
                        payload.summary,
                        f"Trained on {train}, evaluated on {payload.window}. Started because: {payload.reason}.",
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
        )
