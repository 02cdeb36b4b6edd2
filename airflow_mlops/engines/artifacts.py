"""Looking whether what a finished step stored among its run's artifacts is still there, before it is adopted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient


def stored_sizes(client: MlflowClient, uri: str) -> Mapping[str, int | None]:
    """Return the bytes of each file in the artifact folder ``runs:/RUN/PATH`` by name; empty: nothing is there.

    A size is None where the artifact store does not tell it. Folders in it are left out.
    """
    from mlflow.exceptions import MlflowException

    run_id, _, folder = uri.removeprefix("runs:/").partition("/")
    try:
        found = client.list_artifacts(run_id, folder or None)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {item.path.rpartition("/")[2]: item.file_size for item in found if not item.is_dir}


def stored_json(client: MlflowClient, uri: str) -> Any | None:
    """Return the JSON artifact ``runs:/RUN/PATH``, or None where it is gone or no JSON any more."""
    parent, _, name = uri.rpartition("/")
    if name not in stored_sizes(client, parent):
        return None
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return json.loads(Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8"))
        except ValueError:
            return None
