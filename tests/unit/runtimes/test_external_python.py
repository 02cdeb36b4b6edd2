"""Settings, the interpreter's check and the child's environment, without a server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import airflow_mlops
from airflow_mlops.errors import InvalidSpecError, MissingEngineError
from airflow_mlops.runtimes import interpreter, make_runtime
from airflow_mlops.runtimes.external_python import ExternalPythonRuntime
from airflow_mlops.runtimes.interpreter import REQUIREMENTS, check_interpreter


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({}, "python", id="no interpreter"),
        pytest.param({"python": "python3"}, "absolute path", id="a name to be looked for"),
        pytest.param({"python": ""}, "absolute path", id="empty"),
        pytest.param({"python": None}, "absolute path", id="null in YAML"),
        pytest.param({"python": "/x", "pyhton": "/x"}, "pyhton", id="a setting misspelt"),
        pytest.param({"python": "/x", "grace_seconds": -1}, "0 to 600", id="negative grace"),
        pytest.param({"python": "/x", "grace_seconds": float("nan")}, "0 to 600", id="grace that is no number"),
        pytest.param({"python": "/x", "grace_seconds": True}, "0 to 600", id="grace of yes"),
        pytest.param({"python": "/x", "env": ["A=1"]}, "must map", id="a list of variables"),
        pytest.param({"python": "/x", "env": {"A": True}}, "put quotes around true", id="a boolean value"),
        pytest.param({"python": "/x", "env": {"A": None}}, "`env.A` must be", id="no value"),
        pytest.param({"python": "/x", "env": {"": "1"}}, "the name ''", id="no name"),
        pytest.param({"python": "/x", "env": {"A=B": "1"}}, "the name 'A=B'", id="a name with ="),
        pytest.param({"python": "/x", "env": {"AWS_SECRET_ACCESS_KEY": "hush"}}, "looks like a secret", id="a key"),
        pytest.param({"python": "/x", "env": {"DB": "pg://me:hush@db/x"}}, "looks like a secret", id="in an address"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpecError, match="'external_python' does not accept its settings") as caught:
        make_runtime("external_python", settings)

    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "AWS_WEB_IDENTITY_TOKEN_FILE", "OMP_NUM_THREADS", "KEYS"])
def test_what_only_sounds_like_a_secret_is_allowed(name: str) -> None:
    assert ExternalPythonRuntime(python="/x", env={name: 4}).env == {name: "4"}


def test_the_step_gets_the_clouds_variables_and_none_of_airflows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = (
        "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_MLFLOW", "_AIRFLOW__AS_LIBRARY", "MWAA__DB__CREDENTIALS",
        "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    )  # fmt: skip
    for name in (*dropped, "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "set")

    env = ExternalPythonRuntime(python="/x", env={"OMP_NUM_THREADS": 3})._environment(tmp_path)

    assert not set(dropped) & set(env)
    assert (env["AWS_PROFILE"], env["GOOGLE_APPLICATION_CREDENTIALS"], env["OMP_NUM_THREADS"]) == ("set", "set", "3")
    assert Path(env["TMPDIR"]).parent == tmp_path


def fake(folder: Path, body: str) -> str:
    """Write an interpreter that answers as it is told."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def answer(version: str, **found: str) -> str:
    """Return a shell line that answers the probe."""
    return f"echo '{json.dumps({'python': version, 'found': found})}'"


OURS = {"airflow-mlops": airflow_mlops.__version__}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(answer("3.9.1"), r"is Python 3\.9\.1; steps need .*python3\.12 -m venv", id="too old"),
        pytest.param(answer("3.14.0"), r"is Python 3\.14\.0; steps need", id="too new"),
        pytest.param(answer("3.12.4"), r"no airflow-mlops; .*--no-deps airflow-mlops==.*-r .*\.txt", id="no package"),
        pytest.param(
            answer("3.12.4", **{"airflow-mlops": "0.0.1"}), r"has airflow-mlops 0\.0\.1 and this side has", id="older"
        ),
        pytest.param(answer("3.12.4", **OURS), r"but not MLflow.*-m pip install --no-deps -r", id="no MLflow"),
        pytest.param("echo hello", "did not answer like a Python", id="something else"),
        pytest.param("echo '[]'", "did not answer like a Python", id="JSON of another kind"),
        pytest.param("echo broken >&2; exit 1", "ended with 1 and said 'broken'", id="broken"),
        pytest.param("", "did not answer like a Python", id="silent"),
    ],
)
def test_an_interpreter_that_will_not_do_is_named_with_the_mend(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(MissingEngineError, match=said):
        check_interpreter(fake(tmp_path, body), os.environ)


def test_slim_mlflow_is_enough(tmp_path: Path) -> None:
    python = fake(tmp_path, answer("3.12.4", **OURS, **{"mlflow-skinny": "3.17.2"}))

    assert check_interpreter(python, os.environ) == "3.12.4"


def test_this_interpreter_will_do() -> None:
    assert check_interpreter(sys.executable, os.environ).startswith("3.")


@pytest.mark.parametrize("kind", ["missing", "a folder", "not executable", "a broken script", "a lost link"])
def test_a_path_that_is_no_interpreter(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bin"
    if kind == "a folder":
        path.mkdir()
    elif kind == "not executable":
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
        if os.access(path, os.X_OK):
            path.chmod(0o600)
    elif kind == "a broken script":
        path.write_text("#!/there/is/no/such/interpreter\n")
        path.chmod(0o755)
    elif kind == "a lost link":
        path.symlink_to(tmp_path / "gone")

    with pytest.raises(MissingEngineError, match=r"`python`|environment was made from") as caught:
        check_interpreter(str(path), os.environ)

    assert str(path) in str(caught.value)


def test_an_interpreter_that_hangs_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.errors import OutageError

    monkeypatch.setattr(interpreter, "PROBE_SECONDS", 0.2)
    with pytest.raises(OutageError, match="did not say its version"):
        check_interpreter(fake(tmp_path, "exec sleep 30"), os.environ)


def test_the_requirements_are_there_with_hashes_and_without_airflow() -> None:
    lines = REQUIREMENTS.read_text().splitlines()
    names = {line.partition("==")[0] for line in lines if "==" in line and not line.startswith((" ", "#"))}

    assert {"mlflow", "pandas", "great-expectations", "evidently", "pydantic"} <= names
    assert not [name for name in names if "airflow" in name]
    assert sum("--hash=sha256:" in line for line in lines) > len(names)
    assert not [line for line in lines if "://" in line or line.startswith("--")]


def test_the_requirements_are_versions_of_the_lock() -> None:
    lock = Path(__file__).parents[3] / "requirements" / "dev.lock"

    def pins(path: Path) -> set[str]:
        return {line.split()[0] for line in path.read_text().splitlines() if "==" in line and line[0].isalnum()}

    assert pins(REQUIREMENTS) <= pins(lock), "run: make lock"


def test_the_time_to_tidy_up_fits_into_what_airflow_grants() -> None:
    assert ExternalPythonRuntime(python="/x").grace_seconds < 5
