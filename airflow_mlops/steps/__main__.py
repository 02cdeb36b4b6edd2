"""``python -m airflow_mlops.steps NAME REQUEST.json``: the one entry point of every runtime outside the task.

Reads a step request, runs the step, writes the record as JSON to ``--record`` (or standard output). Settings and
secrets come from ``--access``, a file that only its owner can read, or else from MLflow's own environment variables;
never from the request. Exit code 0: the record is there; 2: a verdict or wrong input; 75: an outage, try again.

SIGTERM ends the step tidily: its MLflow run is marked as failed. A runtime that follows the step passes open file
descriptors, for the access file and for log records.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path

from airflow_mlops.errors import InvalidSpecError, MLOpsError, OutageError, VerdictError
from airflow_mlops.steps.access_file import read_access
from airflow_mlops.steps.base import StepRequest, perform
from airflow_mlops.steps.lifeline import Stopped, end_by_sigterm, stop_on_sigterm
from airflow_mlops.steps.log_lines import log_to
from airflow_mlops.steps.outcome import write_outcome, write_whole

EX_UNFORESEEN = 1
EX_VERDICT = 2
EX_TEMPFAIL = 75

log = logging.getLogger("airflow_mlops.steps")


def main(argv: list[str] | None = None) -> int:
    """Run one step; return the exit code."""
    args = _arguments(argv)
    if args.log_fd is not None:
        log_to(args.log_fd)
    else:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        request = StepRequest.model_validate_json(args.request.read_text())
        if request.step != args.name:
            raise InvalidSpecError(f"The request is for the step {request.step!r}, not {args.name!r}.")
        access = read_access(args.access if args.access_fd is None else args.access_fd)
        # What the team's code prints must not end up in the record.
        with redirect_stdout(sys.stderr):
            record = json.dumps(perform(request, access).to_xcom())
    except Exception as exc:
        if args.outcome is None:
            return _told(exc)
        if not isinstance(exc, MLOpsError) or exc.__cause__ is not None:
            # The caller gets the words; where they come from is told here, once.
            log.error("The step %r failed.", args.name, exc_info=exc)
        write_outcome(args.outcome, exc)
        return _exit_code(exc)
    if args.record:
        write_whole(args.record, record)
    else:
        print(record)
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m airflow_mlops.steps", description="Run one step.")
    parser.add_argument("name", help="the step, which must be the request's own")
    parser.add_argument("request", type=Path, help="the step request, a JSON file")
    parser.add_argument("--record", type=Path, help="where to write the record; default: standard output")
    parser.add_argument("--access", type=Path, help="settings and secrets, a JSON file with mode 0600")
    runtime = parser.add_argument_group("for a runtime that follows the step; the numbers are open file descriptors")
    runtime.add_argument("--access-fd", type=int, metavar="FD", help="the access file")
    runtime.add_argument("--outcome", type=Path, help="where to write what went wrong, as JSON")
    runtime.add_argument("--log-fd", type=int, metavar="FD", help="where to write log records, one JSON object a line")
    return parser.parse_args(argv)


def _told(exc: Exception) -> int:
    """Print an error that a person can mend and return its exit code; what nobody foresaw is raised again."""
    if not isinstance(exc, FileNotFoundError | PermissionError | ValueError | OutageError | VerdictError):
        raise exc
    print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
    return EX_TEMPFAIL if isinstance(exc, OutageError) else EX_VERDICT


def _exit_code(exc: Exception) -> int:
    if isinstance(exc, OutageError):
        return EX_TEMPFAIL
    return EX_VERDICT if isinstance(exc, VerdictError) else EX_UNFORESEEN


if __name__ == "__main__":
    stop_on_sigterm()
    try:
        code = main()
    except Stopped:
        end_by_sigterm()
    sys.exit(code)
