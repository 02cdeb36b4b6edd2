"""One side of the parse benchmark, in a process of its own: ``SIDE FOLDER [keep]``.

SIDE is ``ours``, ``hand``, ``dag-factory`` or ``plain``: import what it needs, then make all DAGs of the folder. CPU
and memory count from where ``airflow.sdk`` is imported, as it is in the DAG processor. With ``keep`` the DAGs are then
serialised as Airflow stores them, timed again, and what was stored is written to ``FOLDER/SIDE.json`` to be compared.
The last line printed is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import airflow.sdk  # noqa: F401  # what every DAG file has

Make = Callable[[], dict[str, Any]]


def ours(folder: Path) -> Make:
    """Load the model files."""
    from airflow_mlops import load_models

    return lambda: load_models(folder / "models")


def hand(folder: Path) -> Make:
    """Call the functions that were written by hand."""
    sys.path.insert(0, str(folder))
    from hand_models import MODELS  # type: ignore[import-not-found]  # written by parse_fleet

    from benchmarks.parse_hand import all_dags

    return lambda: all_dags(MODELS)


def dag_factory(folder: Path) -> Make:
    """Load dag-factory's files in the way that it documents."""
    from dagfactory import load_yaml_dags  # type: ignore[import-not-found]  # in a folder of its own

    def make() -> dict[str, Any]:
        found: dict[str, Any] = {}
        where = str(folder / "dag_factory")
        load_yaml_dags(found, dags_folder=where, defaults_config_path=where)
        return found

    return make


def plain(folder: Path) -> Make:  # noqa: ARG001  # as the others
    """Make one DAG of plain operators: what importing Airflow leaves for the first DAG to load."""
    from airflow.sdk import DAG, BaseOperator

    def make() -> dict[str, Any]:
        with DAG("plain", schedule=None) as dag:
            before = BaseOperator(task_id="first")
            for number in range(10):
                after = BaseOperator(task_id=f"task_{number}")
                before >> after
                before = after
        return {"plain": dag}

    return make


SIDES: dict[str, Callable[[Path], Make]] = {"ours": ours, "hand": hand, "dag-factory": dag_factory, "plain": plain}


def stored(dags: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Return the CPU seconds that serialising takes, and what is stored of each DAG."""
    from airflow.serialization.serialized_objects import DagSerialization

    DagSerialization.to_dict(next(iter(dags.values())))
    begin = process_time()
    texts = {name: json.dumps(DagSerialization.to_dict(dag)) for name, dag in dags.items()}
    return process_time() - begin, texts


def peak() -> float:
    """Return the largest resident memory so far, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def main(side: str, folder: str, keep: str = "") -> dict[str, Any]:
    """Run one side."""
    memory, start, begin = peak(), perf_counter(), process_time()
    make = SIDES[side](Path(folder))
    ready = process_time()
    dags = make()
    said: dict[str, Any] = {
        "cpu": process_time() - ready,
        "import_cpu": ready - begin,
        "wall": perf_counter() - start,
        "memory": peak() - memory,
        "dags": len(dags),
        "tasks": sum(len(dag.task_dict) for dag in dags.values()),
    }
    if keep:
        said["serialise"], texts = stored(dags)
        said["size"] = sum(map(len, texts.values()))
        Path(folder, f"{side}.json").write_text(json.dumps(texts))
    return said


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
