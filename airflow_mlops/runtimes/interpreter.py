"""Another Python interpreter: whether a step can run in it, and the commands that make it so."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

import airflow_mlops
from airflow_mlops.errors import MissingEngineError, OutageError

#: What a step needs beside the package itself, with hashes; generated from the lock and shipped in the wheel.
REQUIREMENTS = Path(airflow_mlops.__file__).with_name("step_requirements.txt")
PROBE_SECONDS = 60
#: Versions without importing anything. Old interpreters must be able to read it, so that they can be named.
_PROBE = """
import json, sys
found = {}
try:
    from importlib import metadata
    for name in ("airflow-mlops", "mlflow", "mlflow-skinny"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
except ImportError:
    pass
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "found": found}))
"""


def pip_install(python: str, what: str) -> str:
    """Return the command that installs ``what`` where ``python`` runs."""
    return f"{python} -m pip install {what}"


def install_requirements(python: str) -> str:
    """Return the command that installs everything a step needs beside the package.

    The file is complete, and ``--no-deps`` keeps pip from asking for hashes of what an extra names once more.
    """
    return pip_install(python, f"--no-deps -r {REQUIREMENTS}")


def install_package(python: str) -> str:
    """Return the command that installs this version of the package without Airflow."""
    return pip_install(python, f"--no-deps airflow-mlops=={airflow_mlops.__version__}")


def check_interpreter(python: str, env: Mapping[str, str]) -> str:
    """Check that a step can run in ``python``; return its version.

    :param env: the environment the step will have.
    :raises MissingEngineError: it is not there, cannot be executed, is of an unsupported version, or has not this
        version of the package, or no MLflow; the message gives the commands.
    :raises OutageError: it did not answer in a minute: a disk or a machine is too slow.
    """
    _check_file(python)
    answer = _ask(python, env)
    version, found = str(answer["python"]), answer["found"]
    wanted = metadata.metadata("airflow-mlops")["Requires-Python"]
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        raise MissingEngineError(
            f"{python} is Python {version}; steps need {wanted}. Make an environment with a supported Python, "
            f"python3.12 -m venv DIR, and name DIR/bin/python in the runtime's `python`."
        )
    ours, theirs = airflow_mlops.__version__, found.get("airflow-mlops")
    if theirs is None:
        raise MissingEngineError(
            f"{python} has no airflow-mlops; this side has {ours}. Run: {install_package(python)} and then: "
            f"{install_requirements(python)}"
        )
    if theirs != ours:
        raise MissingEngineError(
            f"{python} has airflow-mlops {theirs} and this side has {ours}; both must be the same, because a step's "
            f"request and record change between versions. Run: {install_package(python)} and then: "
            f"{install_requirements(python)}"
        )
    if "mlflow" not in found and "mlflow-skinny" not in found:
        raise MissingEngineError(
            f"{python} has airflow-mlops {theirs} but not MLflow, which every step needs. "
            f"Run: {install_requirements(python)}"
        )
    return version


def _check_file(python: str) -> None:
    make = (
        f"Make the environment on every worker: python3 -m venv DIR, then {install_package('DIR/bin/python')} and "
        f"{install_requirements('DIR/bin/python')}. Or mend the runtime's `python`."
    )
    path = Path(python)
    try:
        if not path.exists():
            raise MissingEngineError(f"There is no Python interpreter at {python} on this worker. {make}")
        if not path.is_file():
            raise MissingEngineError(f"{python} is a folder; the runtime's `python` is the interpreter in it. {make}")
        if not os.access(path, os.X_OK):
            raise MissingEngineError(
                f"{python} may not be executed by the user of this worker. Run: chmod a+rx {python}, also on the "
                f"folders above it; or mend the runtime's `python`."
            )
    except OSError as exc:
        raise MissingEngineError(f"{python} cannot be looked at on this worker: {exc}. {make}") from exc


def _ask(python: str, env: Mapping[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(  # noqa: S603  # the interpreter that the specification names
            [python, "-c", _PROBE],
            env=dict(env),
            cwd="/",  # `-c` puts the working folder on the import path, and nobody's modules are there
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise OutageError(
            f"{python} did not say its version within {PROBE_SECONDS} seconds. Check the disk it is on and the load of "
            f"this worker; the task may be retried."
        ) from exc
    except OSError as exc:
        raise MissingEngineError(
            f"{python} cannot be started: {exc}. It must be a Python interpreter for this machine; check that the "
            f"one its environment was made from is still there."
        ) from exc
    try:
        answer = json.loads(done.stdout.decode().strip().splitlines()[-1])
        if isinstance(answer["found"], dict) and answer["python"]:
            return dict(answer)
    except (ValueError, IndexError, KeyError, TypeError):
        pass
    said = (done.stderr or done.stdout).decode(errors="replace").strip()[-500:]
    raise MissingEngineError(
        f"{python} did not answer like a Python interpreter: it ended with {done.returncode} and said {said!r}. Try it "
        f"on this worker: {python} -c 'import sys; print(sys.version)'"
    )
