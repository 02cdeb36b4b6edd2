"""When a DAG runs, and how Airflow should treat its tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from airflow_mlops.core.windows import MOST_HOURS
from airflow_mlops.spec.strict import Strict


class ScheduleSpec(Strict):
    """When a DAG runs, and how Airflow should treat its tasks."""

    cron: str | None = Field(default=None, description="Cron expression; its data interval is the anchor window.")
    timezone: str = Field(default="UTC", description="Zone of the cron expression and of start_date.")
    start_date: str | None = Field(default=None, description="ISO date of the first interval; needed with cron.")
    on_assets: tuple[str, ...] = Field(default=(), description="Names of Assets whose events start a run.")
    on_retrain: bool = Field(
        default=False, description="Whether the model's own monitoring starts a run when it asks for a retrain."
    )
    manual_window: Literal["param", "last_complete_interval"] = Field(
        default="param", description="What a manual run without window parameters takes; param: an error asks for it."
    )
    catchup: bool = Field(default=False, description="Run the intervals since start_date that were missed.")
    max_active_runs: int = Field(default=1, gt=0, description="Runs of the DAG at a time.")
    retries: int = Field(default=2, ge=0, description="Of a task, after outages; verdicts are not retried.")
    retry_delay_seconds: int = Field(default=60, ge=0, le=MOST_HOURS * 3_600, description="Wait before a retry.")
    task_timeout_minutes: int = Field(
        default=120, gt=0, le=MOST_HOURS * 60, description="A task that takes longer is ended."
    )
    pool: str | None = Field(default=None, description="Airflow pool of the tasks.")

    @field_validator("start_date")
    @classmethod
    def _iso_date(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.fromisoformat(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"{value!r} is no time zone; write one such as UTC or Europe/Brussels") from exc
        return value

    @model_validator(mode="after")
    def _cron_or_assets(self) -> Self:
        if self.cron and (self.on_assets or self.on_retrain):
            raise ValueError(
                "give either cron or on_assets and on_retrain: a run has one anchor window, from one of them"
            )
        if self.cron and not self.start_date:
            raise ValueError("cron needs start_date, the ISO date from which intervals count, such as 2013-01-01")
        if self.manual_window == "last_complete_interval" and not self.cron:
            raise ValueError("manual_window: last_complete_interval needs cron, which defines the intervals")
        return self
