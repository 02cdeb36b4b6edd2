"""What parsing a fleet costs, beside the same DAGs by hand and beside dag-factory: CPU seconds, in fresh processes.

The fleet is written by :mod:`benchmarks.parse_fleet`: 1,000 model files, each of three DAGs (training, scoring,
monitoring) with 25 tasks together. The sides run in turns, and the best of a few runs counts on either side, because
other work on the machine only ever adds. A side's imports are measured apart, with the first DAG. Before a time counts,
what Airflow stores of the DAGs is compared.

By hand: one function a DAG, called with ready dicts (:mod:`benchmarks.parse_hand`). What is stored of both sides is
equal but for the run parameters, which Airflow copies into every task by hand and our factories into none. ``cached``
reads the specifications' cache on disk; ``cold`` starts without one and writes it. Airflow's limit for one DAG file is
of the clock's seconds; the process computes and hardly waits, so on a free core its CPU seconds are the same.

dag-factory makes the training DAGs alone, a file each: it can map no group of tasks, which the other two do. Its DAGs
have the same tasks, edges and templated fields. It runs on the same Airflow, from a folder of its own, with telemetry
and its logs off.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.entries import entry
from benchmarks.parse_fleet import write_dag_factory, write_hand, write_models
from benchmarks.parse_page import write_page

ROOT = Path(__file__).parent.parent
DAG_FACTORY = ROOT / ".venv-dag-factory"
FLEET, STORED, PEER, ROUNDS = 1_000, 60, 50, 2
#: Seconds after which Airflow gives up on a DAG file: ``[core] dagbag_import_timeout``.
AIRFLOW_LIMIT = 30.0


def measure() -> list[dict[str, Any]]:
    """Return the entries, and write them on the documentation's page; print what could not be run.

    :raises RuntimeError: a side failed, or the sides' DAGs differ.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [
            *_stored(folder / "stored"),
            *_fleet(folder / "fleet"),
            *_first(folder / "one"),
            *_peer(folder / "peer"),
        ]
    write_page(found)
    return found


def _stored(folder: Path) -> list[dict[str, Any]]:
    """Compare what is stored of both sides; return the entries on its size and time."""
    write_models(folder, STORED, watched=True)
    write_hand(folder)
    best = _in_turns(folder, {"ours": "ours", "hand": "hand"}, rounds=ROUNDS, keep=True)
    ours, hand = (_tasks_without_params(folder / f"{side}.json") for side in ("ours", "hand"))
    different = [dag_id for dag_id in {**ours, **hand} if ours.get(dag_id) != hand.get(dag_id)]
    if different:
        raise RuntimeError(f"{len(different)} DAGs differ from those by hand, {different[0]} first")
    print(f"{len(ours)} DAGs are stored the same as those by hand", flush=True)
    one, other = best["ours"], best["hand"]
    return [
        entry("parse-serialised-size", one["size"] / len(ours), other["size"] / len(hand), 1.1, "bytes per DAG"),
        entry(
            "parse-serialised-time",
            1000 * one["serialise"] / len(ours),
            1000 * other["serialise"] / len(hand),
            1.1,
            "CPU milliseconds per DAG",
        ),
    ]


def _tasks_without_params(file: Path) -> dict[str, Any]:
    """Return what is stored, without the place of the code, and without the run's parameters on every task."""
    found: dict[str, Any] = {dag_id: json.loads(text) for dag_id, text in json.loads(file.read_text()).items()}
    for stored in found.values():
        stored["dag"].pop("fileloc")
        for task in stored["dag"]["tasks"]:
            task["__var"].pop("params", None)
    return found


def _fleet(folder: Path) -> list[dict[str, Any]]:
    write_models(folder, FLEET, watched=True)
    write_hand(folder)
    best = _in_turns(folder, {"cold": "ours", "cached": "ours", "hand": "hand"}, rounds=ROUNDS)
    per_dag = {name: 1000 * run["cpu"] / run["dags"] for name, run in best.items()}
    return [
        entry("parse-cached", per_dag["cached"], per_dag["hand"], 1.2, "CPU milliseconds per DAG"),
        entry("parse-cold", per_dag["cold"], per_dag["hand"], 2.0, "CPU milliseconds per DAG"),
        entry("parse-thousand", best["cold"]["cpu"] + best["cold"]["import_cpu"], AIRFLOW_LIMIT, 0.5, "CPU seconds"),
    ]


def _first(folder: Path) -> list[dict[str, Any]]:
    """Measure a process's first model, imports included, over ``import airflow.sdk`` and a DAG of plain operators."""
    write_models(folder, 1, watched=True)
    best = _in_turns(folder, {"cold": "ours", "plain": "plain"}, rounds=5)
    cpu, memory = (
        sum(best["cold"][key] for key in keys) - sum(best["plain"][key] for key in keys)
        for keys in (("cpu", "import_cpu"), ("memory",))
    )
    return [
        entry("parse-first-cpu", cpu, 0.2, 1.0, "CPU seconds"),
        entry("parse-first-memory", memory, 15, 1.0, "MB"),
    ]


def _peer(folder: Path) -> list[dict[str, Any]]:
    if not DAG_FACTORY.exists():
        made = ".venv/bin/uv pip install --target .venv-dag-factory --no-deps -r benchmarks/dag_factory.txt"
        print(f"FAILED: dag-factory was not run; it needs a folder of its own: {made}", flush=True)
        return []
    write_models(folder, PEER, watched=False)
    write_dag_factory(folder)
    best = _in_turns(folder, {"cached": "ours", "dag-factory": "dag-factory"}, rounds=ROUNDS, keep=True)
    ours, peer = (_outline(folder / f"{side}.json") for side in ("ours", "dag-factory"))
    different = [dag_id for dag_id in {**ours, **peer} if ours.get(dag_id) != peer.get(dag_id)]
    if different:
        raise RuntimeError(f"{len(different)} DAGs differ from those of dag-factory, {different[0]} first")
    print(f"{len(peer)} DAGs of dag-factory have the same tasks, edges and templated fields", flush=True)
    per_dag = {name: 1000 * run["cpu"] / run["dags"] for name, run in best.items()}
    return [entry("parse-dag-factory", per_dag["cached"], per_dag["dag-factory"], 0.5, "CPU milliseconds per DAG")]


def _outline(file: Path) -> dict[str, Any]:
    """Return each DAG's tasks with their operator, what depends on them, and their templated fields."""
    found = {}
    for dag_id, text in json.loads(file.read_text()).items():
        tasks = [task["__var"] for task in json.loads(text)["dag"]["tasks"]]
        found[dag_id] = {
            task["task_id"]: (
                task["task_type"],
                sorted(task.get("downstream_task_ids", [])),
                {field: task.get(field) for field in task["template_fields"]},
            )
            for task in tasks
        }
    return found


def _in_turns(folder: Path, runs: dict[str, str], *, rounds: int, keep: bool = False) -> dict[str, dict[str, Any]]:
    """Return the best of every number that a run printed.

    :param runs: name to side. One called ``cold`` begins without a cache; the next one finds what it wrote.
    """
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        if "cold" not in runs:
            for side in set(runs.values()):  # compiles bytecode, fills the cache
                _run(side, folder, cache, keep=False)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, side in runs.items():
                if name == "cold":
                    shutil.rmtree(cache, ignore_errors=True)
                found[name].append(_run(side, folder, cache, keep=keep))
    for name, all_runs in found.items():
        cpu = [round(run["cpu"] + run["import_cpu"], 2) for run in all_runs]
        wall = [round(run["wall"], 2) for run in all_runs]
        made = f"{all_runs[0]['dags']} DAGs with {all_runs[0]['tasks']} tasks"
        print(f"{folder.name}, {name}: {made}, CPU with imports {cpu}, by the clock {wall}", flush=True)
    return {name: {key: min(run[key] for run in all_runs) for key in all_runs[0]} for name, all_runs in found.items()}


def _run(side: str, folder: Path, cache: Path, *, keep: bool) -> dict[str, Any]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
    env = kept | {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW_MLOPS_CACHE": str(cache),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
    }
    if side == "dag-factory":
        env["PYTHONPATH"] = str(DAG_FACTORY)
    command = [sys.executable, "-m", "benchmarks.parse_sides", side, str(folder), *(["keep"] if keep else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise RuntimeError(f"{side} ended with {done.returncode}: {words[-1] if words else 'no word'}")
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said
