"""Marks on an MLflow run that say what has been done with its record, so that a task tried again does not repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Tags of this beginning are marks.
PREFIX = "airflow_mlops.done."


def read_marks(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Return the marks of a run, by name without the prefix."""
    tags = client.get_run(run_id).data.tags
    return {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}


def set_mark(client: MlflowClient, run_id: str, name: str, value: str) -> None:
    """Set one mark.

    :param name: letters, digits, ``_``, ``-`` and ``.``; together with the prefix at most 250 characters.
    :param value: what a person reads, at most 4,000 characters.
    """
    client.set_tag(run_id, PREFIX + name, value)
