"""``python -m airflow_mlops.steps NAME REQUEST.json``: the one entry point of every runtime outside the task.

Reads a step request, runs the step, writes the record as JSON to ``--record`` (or standard output). Settings and
secrets come from ``--access``, a file that only its owner can read, or else from MLflow's own environment variables;
never from the request. Exit code 0: the record is there; 2: a verdict or wrong input; 75: an outage, try again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import stat
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from airflow_mlops.engines.login import Login
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.errors import InvalidSpecError, OutageError, VerdictError
from airflow_mlops.steps.base import Access, StepRequest, perform

EX_VERDICT = 2
EX_TEMPFAIL = 75


def main(argv: list[str] | None = None) -> int:
    """Run one step; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m airflow_mlops.steps", description="Run one step.")
    parser.add_argument("name", help="the step, which must be the request's own")
    parser.add_argument("request", type=Path, help="the step request, a JSON file")
    parser.add_argument("--record", type=Path, help="where to write the record; default: standard output")
    parser.add_argument("--access", type=Path, help="settings and secrets, a JSON file with mode 0600")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        request = StepRequest.model_validate_json(args.request.read_text())
        if request.step != args.name:
            raise InvalidSpecError(f"The request is for the step {request.step!r}, not {args.name!r}.")
        # What the team's code prints must not end up in the record.
        with redirect_stdout(sys.stderr):
            record = json.dumps(perform(request, read_access(args.access)).to_xcom())
    except OutageError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return EX_TEMPFAIL
    except (FileNotFoundError, PermissionError, ValueError, VerdictError) as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return EX_VERDICT
    if args.record:
        args.record.write_text(record)
    else:
        print(record)
    return 0


def read_access(path: Path | None) -> Access:
    """Return how to reach MLflow and the stores.

    :param path: JSON ``{"server": {...}, "login": {...} or null, "storage": {CONN_ID: {...}}}``; None: MLflow's own
        environment variables.
    :raises InvalidSpecError: others than the owner can read the file, or no tracking URI is known.
    """
    if path is None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise InvalidSpecError(
                "No MLflow server is known. Set MLFLOW_TRACKING_URI, such as http://localhost:5000, or pass --access."
            )
        return Access(server=TrackingServer(tracking_uri=uri), login=login_from_environment())
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidSpecError(f"{path} holds secrets but others can read it. Run: chmod 600 {path}")
    written: dict[str, Any] = json.loads(path.read_text())
    storage = {name: StorageAccess(**settings) for name, settings in written.get("storage", {}).items()}
    return Access(
        server=TrackingServer.from_dict(written["server"]),
        login=Login(**written["login"]) if written.get("login") else None,
        storage=lambda conn_id: storage.get(conn_id) if conn_id else None,
    )


def login_from_environment() -> Login | None:
    """Return the login in MLflow's own environment variables, or None."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return Login(token=token)
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    return Login(username=user, password=password) if user and password else None


if __name__ == "__main__":
    sys.exit(main())
