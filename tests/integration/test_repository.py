"""What ``init --repository`` writes passes its own checks: the commands of its CI workflow, read out of that file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.cli import main


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new repository, in a folder whose name no tool likes, where a Git host has been before."""
    folder = tmp_path_factory.mktemp("teams") / "Müller's models 2"
    (folder / ".git").mkdir(parents=True)
    (folder / "README.md").write_text("ours\n")
    assert main(["init", "--repository", str(folder)]) == 0
    return folder


def steps_of(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The environment and the commands of the workflow's one job, without the steps that fetch and install."""
    (job,) = yaml.safe_load((folder / ".github/workflows/ci.yaml").read_text())["jobs"].values()
    env = {name: value.replace("${{ github.workspace }}", str(folder)) for name, value in job["env"].items()}
    return env, [step["run"] for step in job["steps"] if "run" in step and step["name"] != "Install"]


def run(folder: Path, env: dict[str, str], command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLFLOW_TRACKING"))}
    kept["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**kept, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.mark.timeout(900)
def test_a_new_repository_passes_every_step_of_its_ci(repository: Path) -> None:
    env, commands = steps_of(repository)

    said = {}
    for command in commands:
        done = run(repository, env, command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
        said[command.split()[0]] = done.stdout

    assert [command.split()[0] for command in commands] == ["airflow-mlops", "python", "python"]
    # The run really promoted a model, in the MLflow that the workflow names.
    done = run(
        repository, {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, "airflow-mlops history dev.ci.parcels --json"
    )
    history = json.loads(done.stdout[done.stdout.index("{") :])
    assert history["champion"] == 1
    assert (repository / "README.md").read_text() == "ours\n"


def broken_lint(folder: Path) -> str:
    path = folder / "models" / "parcels.yaml"
    path.write_text(path.read_text().replace("metric: roc_auc, value: 0.5", "metric: roc_acu, value: 0.5"))
    return "airflow-mlops lint"


def broken_function(folder: Path) -> str:
    path = folder / "src" / "parcels_training.py"
    path.write_text(path.read_text().replace("return pipeline.fit(", "pipeline.fit("))
    return "python -m pytest"


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        pytest.param(broken_lint, ["models/parcels.yaml:", "roc_acu"], id="a misspelt metric"),
        pytest.param(broken_function, ["test_parcels_training.py", "FAILED"], id="a function that returns nothing"),
    ],
)
def test_its_ci_notices_what_is_broken(breaks: Any, says: list[str], repository: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns(".airflow", "mlruns", "mlflow.db"))
    step = breaks(folder)
    env, commands = steps_of(folder)
    (command,) = [one for one in commands if one.startswith(step)]
    if "pytest" in command:
        command += " -q -x tests/test_parcels_training.py"

    done = run(folder, env, command)

    assert done.returncode == 1, done.stdout[-3000:]
    for text in says:
        assert text in done.stdout
