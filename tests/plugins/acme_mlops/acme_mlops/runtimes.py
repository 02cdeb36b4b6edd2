"""A runtime that leaves the processor to others: ``runtime: {name: niced, increment: 15}``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import IO

from airflow_mlops.core.records import Record
from airflow_mlops.errors import OutageError
from airflow_mlops.runtimes.child import Child
from airflow_mlops.steps.access_file import connection_ids, write_access
from airflow_mlops.steps.base import STEPS, Access, StepRequest
from airflow_mlops.steps.outcome import read_outcome


class NicedRuntime:
    """Run a step with this interpreter, in a process of lower priority.

    :param increment: how nice to be: 1 to 19, 19 being the nicest.
    :param grace_seconds: how long a step that is stopped may take to tidy up.
    """

    def __init__(self, *, increment: int = 10, grace_seconds: float = 4.0) -> None:
        if type(increment) is not int or not 1 <= increment <= 19:
            raise ValueError(f"increment must be a whole number from 1 to 19, not {increment!r}")
        self.increment = increment
        self.grace_seconds = grace_seconds
        self._child: Child | None = None
        self._stopped = False

    def run(self, request: StepRequest, access: Access) -> Record:
        """Run the step in a child process and return its record; what it raises there is raised here."""
        step = STEPS.load(request.step)
        # Secrets travel in an open file without a name: never in a command, a request or the environment.
        with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+", encoding="utf-8") as secrets:
            folder = Path(name)
            (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
            write_access(secrets, access, connection_ids(request.payload))
            secrets.flush()
            secrets.seek(0)
            code = self._follow(request.step, folder, secrets)
            if (folder / "record.json").exists():
                record: Record = step.record_type.from_xcom(json.loads((folder / "record.json").read_text()))
                return record
            error = read_outcome(
                folder / "outcome.json",
                step=request.step,
                python=sys.executable,
                mend=f"{sys.executable} -m pip install 'airflow-mlops[steps]'",
            )
            if error is not None:
                raise error
            if self._stopped:
                raise RuntimeError(f"The step {request.step!r} was stopped.")
            raise OutageError(
                f"The step {request.step!r} ended with code {code} and left no record. Running the task again "
                f"continues the same MLflow run."
            )

    def stop(self) -> None:
        """End the step and everything it started. No step runs here later."""
        self._stopped = True
        if self._child is not None:
            self._child.stop(self.grace_seconds)

    def _follow(self, step: str, folder: Path, secrets: IO[str]) -> int | None:
        """Start the step, hand on its log until it has ended, and return its exit code."""
        command = ["nice", "-n", str(self.increment), sys.executable, "-m", "airflow_mlops.steps", step]
        command += [str(folder / "request.json"), "--record", str(folder / "record.json")]
        command += ["--outcome", str(folder / "outcome.json"), "--access-fd", str(secrets.fileno())]
        child = self._child = Child()
        try:
            if not self._stopped:
                child.start(command, env=os.environ, inherited=(secrets.fileno(),), folder=folder)
            if self._stopped:  # by a signal that came while it was being started
                child.stop(self.grace_seconds)
            child.follow()
        finally:
            child.close(self.grace_seconds)
            self._child = None
        return child.returncode
