"""How batches are scored: where rows come from, where predictions go, and which versions answer."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from airflow_mlops.core.windows import MOST_HOURS, Length, WrittenLength
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.schedule import ScheduleSpec
from airflow_mlops.spec.strict import CREDENTIALS, Column, Name, Strict

#: What ``scoring.shadow`` may say instead of an alias.
PREVIOUS_CHAMPION = "previous_champion"


class SplitSpec(Strict):
    """Let another version answer a share of the entities, always the same ones."""

    alias: Name = Field(default="challenger", description="Alias of the version that answers the share.")
    share: float = Field(gt=0, lt=1, description="Share of the entities, by a stable hash of their id.")
    by: tuple[Column, ...] = Field(default=(), description="Columns that name the entity; default: data.id_columns.")
    salt: str = Field(default="", max_length=100, description="Another salt draws another share of the entities.")


class WaitSpec(Strict):
    """Wait until a window's data has arrived and stopped changing."""

    settle_minutes: float = Field(
        default=5.0, ge=0, le=MOST_HOURS * 60, description="Unchanged for this long counts as complete."
    )
    timeout_hours: float = Field(
        default=24.0, gt=0, le=MOST_HOURS, description="After this long without it the run fails."
    )
    poll_seconds: float = Field(default=60.0, gt=0, le=MOST_HOURS * 3_600, description="Time between two looks.")
    every: WrittenLength | None = Field(
        default=None, description="Each piece of the window of this length must have a file, such as 1 day."
    )

    @field_validator("every")
    @classmethod
    def _some_time(cls, value: Length | None) -> Length | None:
        if value is not None and value.count == 0:
            raise ValueError("a piece of the window needs a length above zero; write '1 day', for example")
        return value


class ScoringSpec(Strict):
    """One batch of predictions per window."""

    output_uri: str = Field(
        min_length=1, description="Folder of the predictions: a local path, s3:// or gs://; one folder a window in it."
    )
    output_conn_id: str | None = Field(default=None, description="Airflow connection with that store's credentials.")
    data: DataSpec | None = Field(default=None, description="Rows to score; default: the model's own data.")
    keep: tuple[Column, ...] = Field(
        default=(), description="Columns copied beside the prediction; ids and event time always are."
    )
    check_contract: bool = Field(default=True, description="Whether batches must meet the contract, target left out.")
    chunk_rows: int = Field(default=100_000, ge=1, le=5_000_000, description="Rows in memory at a time.")
    max_quarantined_share: float = Field(
        default=0.1, ge=0, le=1, description="More rows that cannot be scored than this share fail the task."
    )
    shadow: str | None = Field(
        default=None,
        description="Alias of a second version that scores the same rows beside the champion, or previous_champion.",
    )
    split: SplitSpec | None = Field(default=None, description="A/B comparison by entity.")
    wait: WaitSpec | None = Field(default=None, description="Wait for a window's data; default: it is there.")
    schedule: ScheduleSpec = ScheduleSpec()

    @field_validator("output_uri")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if CREDENTIALS.search(value):
            raise ValueError("the URI holds credentials; put them into an Airflow connection: output_conn_id")
        return value

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        if self.shadow and self.split:
            raise ValueError("give either shadow (both versions score every row) or split (each scores its share)")
        return self
