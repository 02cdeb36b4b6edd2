"""A whole DAG whose steps run in an environment without Airflow, from a scheduler without the libraries they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.runtimes import steps_python
from tests.support.small_model import write_small_model

ROOT = Path(__file__).parents[2]


def test_one_line_runs_every_step_where_the_libraries_are(
    tmp_path: Path, airflow_database: None, mlflow_connection: str
) -> None:
    line = f"runtime: {{name: external_python, python: {steps_python()}}}\n"
    spec = write_small_model(tmp_path, "elsewhere", line)

    ran = result(spec)

    assert set(ran["tasks"].values()) == {"success"}, ran["output"][-4000:]
    assert ran["promotion"]["outcome"] == "promoted"
    assert ran["loaded"] == []
    # What the team's function prints in the other interpreter reaches the task's log.
    assert "a team's own print" in ran["output"]


def test_without_the_line_the_missing_library_is_named(
    tmp_path: Path, airflow_database: None, mlflow_connection: str
) -> None:
    ran = result(write_small_model(tmp_path, "here"))

    assert "success" not in {ran["tasks"]["training_data.snapshot"], ran["tasks"]["promote"]}
    assert "pip install 'airflow-mlops[" in ran["output"]


def result(spec: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.dag_without_libraries", str(spec), "2024-02-01", "2024-03-01"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, output[-4000:]
    return {**json.loads(line.removeprefix("RESULT ")), "output": output}
