"""The step runs in another Python interpreter of the same machine, which needs no Airflow."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from airflow_mlops.core.records import Record
from airflow_mlops.errors import OutageError
from airflow_mlops.runtimes.child import Child
from airflow_mlops.runtimes.interpreter import check_interpreter, install_requirements
from airflow_mlops.steps.access_file import connection_ids, write_access
from airflow_mlops.steps.base import STEPS, Access, StepRequest
from airflow_mlops.steps.outcome import read_outcome

log = logging.getLogger(__name__)

#: Airflow's own settings and connections, MWAA's, and what would make one interpreter look like another.
_DROPPED = re.compile(
    r"^(_*AIRFLOW_.*|MWAA__.*|PYTHONPATH|PYTHONHOME|PYTHONSTARTUP|PYTHONEXECUTABLE|__PYVENV_LAUNCHER__|VIRTUAL_ENV"
    r"|MLFLOW_TRACKING_(USERNAME|PASSWORD|TOKEN))$"
)
_SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|SECRET|SECRETS|TOKEN|APIKEY|API_KEY|ACCESS_KEY|ACCESS_KEY_ID|PRIVATE_KEY)(_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_MEANING = {
    signal.SIGKILL: "This usually means that the machine or its container ran out of memory: give the task more, or "
    "train on fewer rows",
    signal.SIGSEGV: "A native library crashed; the log above shows where. Its version may not fit the others",
    signal.SIGTERM: "Somebody asked it to stop",
}


class ExternalPythonRuntime:
    """Run steps in the interpreter at ``python``.

    The log of the step arrives line by line. Secrets travel in an open file without a name. When this process stops
    the step, fails or is killed, the step's process and the processes it started end too; those that left its process
    group on purpose (``setsid``) do not.

    :param python: absolute path of the interpreter, such as ``/opt/steps/bin/python``. It is looked at when a step
        runs: the machine that parses a DAG file need not have it.
    :param env: variables added to the step's environment, such as ``{"OMP_NUM_THREADS": "4"}``. It stands in the
        specification and on Airflow's pages, so a name or value that looks like a secret is refused.
    :param grace_seconds: how long a step that is stopped may take to tidy up before it is killed, 0 to 600. Airflow 3
        kills a task 5 seconds after it asked it to end, when it is cleared or marked, and the step with it, so more
        than 4 is honoured only where the task's own time-out stops the step.
    :raises ValueError: a setting is not allowed; the message says what is.
    """

    def __init__(
        self, *, python: str, env: Mapping[str, str | int | float] | None = None, grace_seconds: float = 4.0
    ) -> None:
        if not isinstance(python, str) or not os.path.isabs(python) or "\0" in python:  # noqa: PTH117  # checks text
            raise ValueError(
                f"`python` is {python!r}; it must be the absolute path of an interpreter, such as /opt/steps/bin/python"
            )
        if (
            isinstance(grace_seconds, bool)
            or not isinstance(grace_seconds, int | float)
            or not 0 <= grace_seconds <= 600
        ):
            raise ValueError(f"`grace_seconds` is {grace_seconds!r}; it must be a number from 0 to 600")
        self.python = python
        self.env = _checked_env(env)
        self.grace_seconds = float(grace_seconds)
        self._child: Child | None = None
        self._stopped = False

    def run(self, request: StepRequest, access: Access) -> Record:
        """Run the step there, or adopt what its key and inputs already made, and return the record.

        :raises VerdictError: the step's own reasons, under their own names; or the interpreter is not there, or lacks
            what the step needs (:class:`~airflow_mlops.errors.MissingEngineError`, with the command).
        :raises OutageError: something outside did not answer, or a signal ended the process; a retry goes on.
        :raises RuntimeError: the step failed in a way that nobody foresaw, or was stopped.
        """
        step = STEPS.load(request.step)
        with (
            tempfile.TemporaryDirectory(prefix="airflow-mlops-step-", ignore_cleanup_errors=True) as name,
            # It never has a name, so that nothing is left on disk even if both processes are killed.
            tempfile.TemporaryFile("w+", dir=name, encoding="utf-8") as secrets,
        ):
            folder = Path(name)
            env = self._environment(folder)
            version = check_interpreter(self.python, env)
            _write_private(folder / "request.json", request.model_dump_json())
            write_access(secrets, access, connection_ids(request.payload))
            log.info("The step %r runs in %s (Python %s).", request.step, self.python, version)
            child = self._follow(request.step, folder, secrets, env)
            record = folder / "record.json"
            if record.exists():
                if child.returncode != 0:
                    # A library that crashes while the interpreter shuts down takes nothing back.
                    log.warning("The step %r finished, then its process ended with %s.", request.step, child.returncode)
                made: Record = step.record_type.from_xcom(json.loads(record.read_text(encoding="utf-8")))
                return made
            if self._stopped:
                # What the step says of its own processes that were ended with it is no verdict.
                raise RuntimeError(f"The step {request.step!r} was stopped, and its processes have ended.")
            error = read_outcome(
                folder / "outcome.json",
                step=request.step,
                python=self.python,
                mend=install_requirements(self.python),
            )
            raise error or self._without_a_word(request.step, child)

    def stop(self) -> None:
        """End the step with every process it started: ask, wait ``grace_seconds``, kill. No step runs here later."""
        self._stopped = True
        if self._child is not None:
            self._child.stop(self.grace_seconds)

    def _follow(self, step: str, folder: Path, secrets: IO[str], env: Mapping[str, str]) -> Child:
        """Start the step's process and hand on its log until it has ended, for whatever reason."""
        secrets.flush()
        secrets.seek(0)
        command = [self.python, "-u", "-P", "-X", "faulthandler", "-m", "airflow_mlops.steps", step]
        command += [str(folder / "request.json"), "--record", str(folder / "record.json")]
        command += ["--outcome", str(folder / "outcome.json"), "--access-fd", str(secrets.fileno())]
        child = self._child = Child()
        try:
            if not self._stopped:
                child.start(command, env=env, inherited=(secrets.fileno(),), folder=folder)
            if self._stopped:  # by a signal that came while it was being started
                child.stop(self.grace_seconds)
            child.follow()
        finally:
            child.close(self.grace_seconds)
            self._child = None
        return child

    def _environment(self, folder: Path) -> dict[str, str]:
        """Return the step's environment: ours without Airflow, other Pythons and logins; scratch files in ``folder``.

        What the clouds' libraries find their credentials by stays: it belongs to the machine, not to a connection.
        """
        scratch = folder / "tmp"
        scratch.mkdir()
        kept = {name: value for name, value in os.environ.items() if not _DROPPED.match(name)}
        return {**kept, "TMPDIR": str(scratch), **self.env}

    def _without_a_word(self, step: str, child: Child) -> Exception:
        """Return the error for a process that left neither a record nor a reason."""
        code = child.returncode or 0
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown to this system"
            meaning = _MEANING.get(signal.Signals(-code), "") if -code in set(signal.Signals) else ""
            return OutageError(
                f"The step {step!r} in {self.python} was ended by signal {-code} ({name}). "
                f"{f'{meaning}. ' if meaning else ''}Running the task again continues the same MLflow run."
            )
        last = f" The last line it printed: {child.last_printed[:500]}" if child.last_printed else ""
        return RuntimeError(
            f"The step {step!r} in {self.python} ended with exit code {code} and left neither a record nor a reason: "
            f"something called os._exit() or sys.exit(), or the interpreter could not start.{last}"
        )


def _checked_env(env: Mapping[str, Any] | None) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise ValueError(f"`env` is {type(env).__name__}; it must map variable names to values")
    checked: dict[str, str] = {}
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"`env` has the name {name!r}; a variable's name is a text without =")
        if isinstance(value, bool) or not isinstance(value, str | int | float) or "\0" in str(value):
            raise ValueError(f"`env.{name}` must be a text or a number; put quotes around true, false and the like")
        text = str(value)
        # A path to a file with a secret is none.
        is_path = name.upper().endswith(("_FILE", "_PATH", "_DIR"))
        if (_SECRET_NAME.search(name) and not is_path) or _SECRET_VALUE.search(text):
            raise ValueError(
                f"`env.{name}` looks like a secret, and the specification is shown on Airflow's pages. Put logins into "
                f"Airflow connections, or set the variable for the worker itself: the step inherits it"
            )
        checked[name] = text
    return checked


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor has no path
        file.write(text)
