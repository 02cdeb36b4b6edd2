"""How a command reaches MLflow: a tracking URI, or an Airflow connection."""

from __future__ import annotations

import argparse
import getpass
import os
from typing import TYPE_CHECKING, Any

from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps.access_file import login_from_environment
from airflow_mlops.steps.base import Access

if TYPE_CHECKING:
    from airflow_mlops.engines.storage import StorageAccess
    from airflow_mlops.hooks.mlflow import MLflowHook


def add_access_options(parser: argparse.ArgumentParser) -> None:
    """Add the two ways to name the MLflow server."""
    group = parser.add_argument_group("MLflow")
    group.add_argument(
        "--tracking-uri", help="MLflow server, such as http://localhost:5000; default: MLFLOW_TRACKING_URI"
    )
    group.add_argument("--mlflow-conn-id", help="take server and login from this Airflow connection instead")


def resolve_access(args: argparse.Namespace) -> Access:
    """Return server, login and stores for a command.

    The login of a tracking URI is MLflow's own: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    MLFLOW_TRACKING_TOKEN. Stores' connections are Airflow's.

    :raises InvalidSpecError: neither is given.
    """

    def storage(conn_id: str | None) -> StorageAccess | None:
        if conn_id is None:
            return None
        # Airflow takes seconds to load and takes logging over; a command that needs no connection goes without it.
        from airflow_mlops.hooks.storage import storage_access

        return storage_access(conn_id)

    if args.mlflow_conn_id:
        hook = _hook(args.mlflow_conn_id)
        return Access(server=hook.server(), login=hook.login(), storage=storage)
    uri = args.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise InvalidSpecError(
            "No MLflow server is known. Pass --tracking-uri http://HOST:PORT or --mlflow-conn-id ID, or set "
            "MLFLOW_TRACKING_URI."
        )
    return Access(server=TrackingServer(tracking_uri=uri), login=login_from_environment(), storage=storage)


def current_user() -> str:
    """Return who runs the command, for the ledger."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid {os.getuid()}"


def _hook(conn_id: str) -> MLflowHook:
    from airflow.models.connection import Connection as StoredConnection

    from airflow_mlops.hooks.mlflow import MLflowHook

    class ShellHook(MLflowHook):
        """Outside a task Airflow 3's hooks read environment and secrets backends only; this one also the database."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            """Return the connection from wherever Airflow keeps it."""
            return StoredConnection.get_connection_from_secrets(conn_id)

    return ShellHook(conn_id)
