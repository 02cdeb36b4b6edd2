"""How a step in a process of its own learns about servers, logins and stores: one file, written and read here.

It holds secrets, so it is the owner's alone. A runtime of ours gives it no name at all: the child inherits the open
file, and nothing is left on disk however either process ends.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from airflow_mlops.engines.login import Login
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps.base import Access


def connection_ids(payload: Any) -> Iterator[str]:
    """Yield every value of a ``conn_id`` key, however deep, in a step's payload: the stores that the step may use."""
    if isinstance(payload, Mapping):
        for key, value in payload.items():
            if key == "conn_id" and isinstance(value, str) and value:
                yield value
            else:
                yield from connection_ids(value)
    elif isinstance(payload, list | tuple):
        for value in payload:
            yield from connection_ids(value)


def write_access(file: IO[str], access: Access, conn_ids: Iterable[str]) -> None:
    """Write ``access`` as JSON, with what it answers for each of ``conn_ids``; :func:`read_access` reads it.

    ``{"server": {...}, "login": {...} or null, "storage": {CONN_ID: {...}}}``

    :raises VerdictError: a connection does not exist or is of the wrong type.
    :raises OutageError: what hands out a store's credentials does not answer.
    """
    found = {conn_id: access.storage(conn_id) for conn_id in sorted(set(conn_ids))}
    json.dump(
        {
            "server": access.server.to_dict(),
            "login": asdict(access.login) if access.login else None,
            "storage": {conn_id: asdict(storage) for conn_id, storage in found.items() if storage is not None},
        },
        file,
    )


def read_access(source: Path | int | None) -> Access:
    """Return how to reach MLflow and the stores.

    :param source: what :func:`write_access` wrote, as a path or as an open file descriptor, which is closed; None:
        MLflow's own environment variables.
    :raises InvalidSpecError: others than the owner can read the file, it is not such a file, or no tracking URI is
        known.
    """
    if source is None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise InvalidSpecError(
                "No MLflow server is known. Set MLFLOW_TRACKING_URI, such as http://localhost:5000, or pass --access."
            )
        return Access(server=TrackingServer(tracking_uri=uri), login=login_from_environment())
    shown = f"file descriptor {source}" if isinstance(source, int) else str(source)
    with open(source, encoding="utf-8") as file:  # noqa: PTH123  # a descriptor has no path
        if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InvalidSpecError(f"{shown} holds secrets but others can read it. Run: chmod 600 {shown}")
        text = file.read()
    try:
        written: dict[str, Any] = json.loads(text)
        server = TrackingServer.from_dict(written["server"])
        login = Login(**written["login"]) if written.get("login") else None
        storage = {name: StorageAccess(**settings) for name, settings in written.get("storage", {}).items()}
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as exc:
        # The text may be a secret that somebody put there in another form, so it is not quoted, nor is the cause.
        raise InvalidSpecError(
            f"{shown} does not say how to reach MLflow ({type(exc).__name__}). It must be a JSON object: "
            '{"server": {"tracking_uri": ...}, "login": {"username": ..., "password": ...} or null, '
            '"storage": {CONN_ID: {"kind": "s3", ...}}}'
        ) from None
    return Access(server=server, login=login, storage=lambda conn_id: storage.get(conn_id) if conn_id else None)


def login_from_environment() -> Login | None:
    """Return the login in MLflow's own environment variables, or None."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return Login(token=token)
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    return Login(username=user, password=password) if user and password else None
