"""What a specification's relative paths mean: they start from its own folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.model import ModelSpec


def contract_file(spec: ModelSpec) -> str:
    """Return the contract file's absolute path."""
    return str(_from(spec.folder, spec.contract.path))


def code_folder(spec: ModelSpec) -> Path:
    """Return the absolute folder that the team's functions are imported from."""
    return _from(spec.folder, spec.train.code_path)


def data_settings(spec: ModelSpec, data: DataSpec | None = None) -> dict[str, Any]:
    """Return the settings of a data source as plain JSON, with local relative URIs made absolute.

    A URI with a scheme, and one that starts with a template, stays as written.

    :param data: None: the model's own data.
    """
    settings = (data or spec.data).model_dump(mode="json")
    for key in ("uri", "copy_to"):
        if settings[key]:
            settings[key] = _absolute(spec, settings[key])
    return settings


def scoring_settings(spec: ModelSpec) -> dict[str, Any]:
    """Return what ``spec.scoring`` says as plain JSON, without its data source and schedule.

    :raises InvalidSpecError: the specification has no ``scoring``.
    """
    if spec.scoring is None:
        raise InvalidSpecError(
            f"Model {spec.name!r} has no `scoring`. Say at least where predictions go: scoring.output_uri."
        )
    settings = spec.scoring.model_dump(mode="json", exclude={"data", "schedule"})
    settings["output_uri"] = _absolute(spec, settings["output_uri"])
    return settings


def label_settings(spec: ModelSpec) -> dict[str, Any]:
    """Return what ``spec.labels`` says as plain JSON, with label column and entity filled in from the model's own.

    :raises InvalidSpecError: the specification has no ``labels``.
    """
    if spec.labels is None:
        raise InvalidSpecError(f"Model {spec.name!r} has no `labels`. Say where they arrive: labels.data.")
    return {
        **spec.labels.model_dump(mode="json"),
        "data": data_settings(spec, spec.labels.data),
        "label": spec.labels.label or spec.train.target,
        "entity": list(spec.labels.entity or scored_data(spec).id_columns),
    }


def scored_data(spec: ModelSpec) -> DataSpec:
    """Return where the rows to score are: the model's own data unless ``scoring`` names others."""
    return (spec.scoring.data if spec.scoring is not None else None) or spec.data


def _absolute(spec: ModelSpec, value: str) -> str:
    return value if "://" in value or value.startswith("{{") else str(_from(spec.folder, value))


def _from(folder: Path, path: str) -> Path:
    # Links are not followed: a versioned DAG folder is often a link that moves.
    return Path(os.path.abspath(folder / path))  # noqa: PTH100  # Path.resolve() would follow them
