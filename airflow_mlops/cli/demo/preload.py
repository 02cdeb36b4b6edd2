"""What the demo's scheduler imports once, so that none of its tasks need to.

The demo's executor forks every task from the scheduler. On two cores the imports of a task take several seconds, longer
than most of its steps; a forked task finds done what the scheduler has done. Where tasks are not forked (macOS starts
them anew) nothing is gained and nothing lost.
"""

from __future__ import annotations

import json
from pathlib import Path

#: What the steps of the demo's models use.
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
_FIRST_LINE = '"""Written for the demo: the scheduler imports once what the tasks that it forks need."""'
#: Whole in itself: another version of the package may be installed when Airflow reads it.
_SETTINGS = f"""\
{_FIRST_LINE}

import sys
from importlib import import_module

__all__ = []

if "scheduler" in sys.argv:
    for _name in {json.dumps(MODULES, indent=4)}:
        try:
            import_module(_name)
        except Exception as exc:  # without it the scheduler does its work; the task that needs it says what is wrong
            print(f"{{_name}} was not imported beforehand: {{exc!r}}", file=sys.stderr)
"""


def write_settings(airflow_home: Path, *, on: bool) -> None:
    """Write, or remove, the file by which a scheduler learns of it, where Airflow looks for its local settings.

    A file there that somebody else wrote stays as it is.
    """
    file = airflow_home / "config" / "airflow_local_settings.py"
    if file.exists() and not file.read_text().startswith(_FIRST_LINE):
        return
    if on:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_SETTINGS)
    else:
        file.unlink(missing_ok=True)
