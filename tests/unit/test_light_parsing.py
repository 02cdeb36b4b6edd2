"""What a DAG file imports stays light: Airflow parses it again and again, in a process that needs no model."""

from __future__ import annotations

import subprocess
import sys
from pkgutil import iter_modules

import pytest

from airflow_mlops import steps
from tests.support.airflow_versions import LOAD_AIRFLOW

HEAVY = (
    "mlflow", "great_expectations", "evidently", "sklearn", "pandas", "numpy", "scipy", "pyarrow", "duckdb", "fsspec",
    "boto3", "botocore", "google.cloud", "lightgbm",
)  # fmt: skip
#: Airflow itself loads these in places; what counts is what the package adds.
SHELLS = (
    "factories.fleet",
    "factories.monitoring",
    "factories.scoring",
    "factories.training",
    "hooks.mlflow",
    "links",
    "notifications",
    "operators.approval",
    "operators.data",
    "operators.model",
    "operators.plan",
    "operators.registry",
    "operators.serving",
    "sensors.model",
    "spec.load",
    "triggers.data",
    "triggers.labels",
    "triggers.model",
)


def added_by(statement: str, base: str = LOAD_AIRFLOW) -> set[str]:
    code = f"{base}; import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def heavy(modules: set[str]) -> list[str]:
    return sorted(m for m in modules if any(m == h or m.startswith(f"{h}.") for h in HEAVY))


@pytest.mark.parametrize("module", SHELLS)
def test_a_dag_side_module_loads_no_heavy_library(module: str) -> None:
    assert heavy(added_by(f"import airflow_mlops.{module}")) == []


def test_parsing_the_flights_dags_loads_no_heavy_library() -> None:
    modules = added_by(
        "import runpy; runpy.run_path('dags/flights_dag.py'); runpy.run_path('dags/flights_rollback_dag.py')"
    )

    assert "airflow_mlops.factories.training" in modules
    assert "airflow_mlops.operators.approval" not in modules, "no person is asked in these DAGs"
    assert heavy(modules) == []


@pytest.mark.parametrize("module", sorted(module.name for module in iter_modules(steps.__path__)))
def test_a_step_is_known_where_its_libraries_are_not(module: str) -> None:
    # With a runtime of its own, the step runs elsewhere; the worker that sends it there loads its module all the same.
    assert heavy(added_by(f"import {steps.__name__}.{module}", base="pass")) == []


@pytest.mark.parametrize(
    "layer", ["core.gate", "core.ledger", "spec.load", "steps.base", "steps.pipeline", "engines.runs"]
)
def test_below_the_hooks_nothing_loads_airflow(layer: str) -> None:
    code = f"import sys; import airflow_mlops.{layer}; print(*[m for m in sys.modules if m.split('.')[0] == 'airflow'])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout.split() == []


def test_the_check_itself_notices_a_heavy_library() -> None:
    assert "pandas" in heavy(added_by("import pandas"))
