"""What a specification's relative paths mean: they start from its own folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow_mlops.spec.model import ModelSpec


def contract_file(spec: ModelSpec) -> str:
    """Return the contract file's absolute path."""
    return str(_from(spec.folder, spec.contract.path))


def code_folder(spec: ModelSpec) -> Path:
    """Return the absolute folder that the team's functions are imported from."""
    return _from(spec.folder, spec.train.code_path)


def data_settings(spec: ModelSpec) -> dict[str, Any]:
    """Return the data's settings as plain JSON, with local relative URIs made absolute.

    A URI with a scheme, and one that starts with a template, stays as written.
    """
    settings = spec.data.model_dump(mode="json")
    for key in ("uri", "copy_to"):
        value = settings[key]
        if value and "://" not in value and not value.startswith("{{"):
            settings[key] = str(_from(spec.folder, value))
    return settings


def _from(folder: Path, path: str) -> Path:
    # Links are not followed: a versioned DAG folder is often a link that moves.
    return Path(os.path.abspath(folder / path))  # noqa: PTH100  # Path.resolve() would follow them
