"""Run one model's training DAG in a process that has no library of machine learning: ``SPEC WINDOW_START WINDOW_END``.

Prints the tasks' states and the promotion's record as JSON. A library counts as absent when importing it fails.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
from typing import Any

#: What a scheduler's environment need not hold. ``mlflow`` itself stays: mlflow-skinny is a core dependency.
ABSENT = (
    "duckdb", "evidently", "great_expectations", "lightgbm", "mlflow.pyfunc", "mlflow.sklearn", "numpy", "pandas",
    "pyarrow", "scipy", "sklearn", "skops",
)  # fmt: skip


class Absent(importlib.abc.MetaPathFinder):
    """Answers for the absent libraries as an environment without them would."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in ABSENT):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def main(spec: str, start: str, end: str) -> None:
    """Run the DAG and print what came of it."""
    sys.meta_path.insert(0, Absent())
    from airflow_mlops import load_spec, training_dag
    from tests.support.airflow_versions import pushed_in, run_to_its_end

    dag = training_dag(load_spec(spec))
    ran = run_to_its_end(dag, {"window_start": start, "window_end": end})
    found = {(task, key): value for task, key, _, value in pushed_in(dag.dag_id, ran.run_id)}
    promotion = found.get(("promote", "return_value"))
    tasks = {ti.task_id: str(ti.state) for ti in ran.get_task_instances()}
    loaded = sorted({name for name in ABSENT if name in sys.modules})
    print("RESULT " + json.dumps({"tasks": tasks, "promotion": promotion, "loaded": loaded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
