"""The built wheel, in an environment of its own: what a user gets from an index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from airflow_mlops.cli.demo.story import TEMPLATES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from a copy of what git would hold."""
    import shutil

    source = tmp_path_factory.mktemp("source")
    for name in ("airflow_mlops", "pyproject.toml", "setup.cfg", "README.md", "LICENSE", "CHANGELOG.md"):
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the wheel is installed into; put before this checkout on the path, it is what gets imported."""
    folder = tmp_path_factory.mktemp("site")
    wheel = next(dist.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def airflow(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow", *words],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_twine_accepts_wheel_and_sdist(dist: Path) -> None:
    files = sorted(map(str, dist.iterdir()))

    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, timeout=120
    )

    assert len(files) == 2
    assert done.returncode == 0, done.stdout


def test_the_wheel_holds_package_and_templates_and_nothing_else(dist: Path) -> None:
    names = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()

    assert {name.split("/")[0] for name in names} == {"airflow_mlops", "airflow_mlops-0.1.0.dist-info"}
    assert {f"airflow_mlops/templates/{name}" for name in TEMPLATES} <= set(names)
    assert {"airflow_mlops/py.typed", "airflow_mlops/step_requirements.txt"} <= set(names)


def test_airflow_shows_the_provider_without_a_warning(installed: Path) -> None:
    done = airflow(installed, "providers", "get", "airflow-mlops", "--full", "--output", "json")

    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout[done.stdout.index("[") :])
    assert shown[0]["package-name"] == "airflow-mlops"
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_airflow_shows_the_hook_without_a_warning(installed: Path) -> None:
    done = airflow(installed, "providers", "hooks", "--output", "json")

    assert done.returncode == 0, done.stderr
    hooks = {hook["connection_type"]: hook for hook in json.loads(done.stdout[done.stdout.index("[") :])}
    assert hooks["mlflow"]["class"] == "airflow_mlops.hooks.mlflow.MLflowHook"
    assert "mlops" not in done.stderr.lower()
