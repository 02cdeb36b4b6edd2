"""Where rows are: the part of a specification that every data source reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, field_validator

from airflow_mlops.core.data_sources import data_sources
from airflow_mlops.spec.strict import CREDENTIALS, Column, Strict, secret_in


class DataSpec(Strict):
    """Where the rows are and which column says when they happened."""

    uri: str = Field(
        min_length=1,
        description="A file, a folder or a glob: a local path, s3:// or gs://. For other sources, what they say.",
    )
    format: str = Field(
        default="parquet", min_length=1, description="parquet, csv, or the name of another installed data source."
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Settings of the data source, such as a table's name; never a secret."
    )
    conn_id: str | None = Field(default=None, description="Airflow connection with the store's credentials.")
    event_time: Column | None = Field(
        default=None, description="Timestamp column that windows cut. A model's specification needs one."
    )
    id_columns: tuple[Column, ...] = Field(default=(), description="Columns that name an entity: never profiled.")
    personal_columns: tuple[Column, ...] = Field(default=(), description="Columns about a person: never profiled.")
    snapshot: Literal["reference", "copy"] = Field(
        default="reference",
        description="reference: an overwritten file is noticed; copy: it can also be rebuilt.",
    )
    copy_to: str | None = Field(default=None, description="Folder for copies and accepted rows; default: artifacts.")

    @field_validator("uri", "copy_to")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        if value and CREDENTIALS.search(value):
            raise ValueError("the URI holds credentials; put them into an Airflow connection and name it in conn_id")
        return value

    @field_validator("format")
    @classmethod
    def _known_source(cls, value: str) -> str:
        data_sources.check(value)
        return value

    @field_validator("options")
    @classmethod
    def _no_secret_option(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if key := secret_in(value):
            raise ValueError(
                f"options.{key} holds credentials; put them into an Airflow connection and name it in conn_id"
            )
        return value
