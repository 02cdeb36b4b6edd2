"""What the demo's scheduler imports once, so that none of its tasks need to.

The demo's executor forks every task from the scheduler. On two cores the imports of a task take several seconds, longer
than most of its steps; a forked task finds done what the scheduler has done. Where tasks are not forked (macOS starts
them anew) nothing is gained and nothing lost.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

#: What the steps of the demo's models use. One that is not installed is left out: the task that needs it says so.
MODULES = (
    "numpy",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "duckdb",
    "scipy.stats",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.impute",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "skops.io",
    "matplotlib.pyplot",
    "mlflow.sklearn",
    "mlflow.pyfunc",
    "great_expectations",
    "airflow_mlops.factories.training",
    "airflow_mlops.factories.scoring",
    "airflow_mlops.factories.monitoring",
)
_SETTINGS = '''\
"""Airflow reads this file at each start."""

from airflow_mlops.cli.demo import preload

preload.in_scheduler()
'''


def write_settings(airflow_home: Path, *, on: bool) -> None:
    """Write, or remove, the file by which a scheduler learns of it, where Airflow looks for its local settings."""
    file = airflow_home / "config" / "airflow_local_settings.py"
    if on:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_SETTINGS)
    else:
        file.unlink(missing_ok=True)


def in_scheduler() -> None:
    """Import :data:`MODULES` in a scheduler; do nothing in any other of Airflow's processes."""
    if "scheduler" not in sys.argv:
        return
    for name in MODULES:
        with suppress(ImportError):
            import_module(name)
