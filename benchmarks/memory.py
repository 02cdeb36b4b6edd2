"""``python -m benchmarks.memory``: the most memory that a task of each operator needs, on the demo's flights.

A real Airflow and a real MLflow server run the demo's training, scoring and monitoring DAGs, one task at a time, each
in a new interpreter (:mod:`benchmarks.memory_executor`). The table goes between the markers of
``docs/reference/memory.md``. Linux only. Takes some minutes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.lake import LabelFeed, Lake, prepare_lake
from airflow_mlops.cli.demo.months import MONITOR, SCORE
from airflow_mlops.cli.demo.services import Services
from airflow_mlops.cli.demo.story import TRAIN, write_dags
from benchmarks.memory_page import FLOOR_DAG, LOG, PAGE, ROOT, as_table, by_operator, write_page

#: What no DAG of the demo has.
MORE_DAGS = '''
"""The operators that the demo's three DAGs do not use, and a task that does nothing."""

from airflow_mlops import ApproveModelOperator, DataArrivalSensor, ModelAliasSensor, RollbackModelOperator
from airflow_mlops.compat import DAG, Param, task

with DAG("floor"):

    @task
    def nothing():
        return None

    nothing()

with DAG("more", params={"version": Param({}, type="object")}, render_template_as_native_obj=True):
    approve = ApproveModelOperator(task_id="approve", version="{{ params.version }}")
    alias = ModelAliasSensor(task_id="alias", registered_model="flights")
    arrival = DataArrivalSensor(
        task_id="arrival",
        data={"uri": "LAKE", "event_time": "event_time"},
        window={"start": "2013-08-01", "end": "2013-09-01"},
        settle_minutes=0,
    )
    rollback = RollbackModelOperator(task_id="rollback", registered_model="flights", reason="to see what it needs")
    approve >> alias >> arrival >> rollback
'''


def main() -> int:
    """Measure, print, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    table = as_table(found)
    print(table)
    write_page(PAGE, table)
    print(f"Written to {PAGE.relative_to(ROOT)}.")
    return 0


def measure(home: Path) -> dict[str, tuple[float, float]]:
    """Return MiB by operator: all processes of a task together, and the largest of them. The largest task counts."""
    lake = prepare_lake(home / "lake" / "flights")
    write_dags(home / "dags")
    (home / "dags" / "more_dags.py").write_text(MORE_DAGS.replace("LAKE", lake.uri))
    log = home / "memory.jsonl"
    log.touch()
    env = {
        "AIRFLOW__CORE__EXECUTOR": "benchmarks.memory_executor.FreshInterpreterExecutor",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        LOG: str(log),
    }
    services = Services(
        home, home / "dags", env=env, preloads=False, say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    with services, AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
        operators = play(api, lake)
        # A task's line comes after its state: its process ends a moment later.
        until = time.monotonic() + 60
        while '"rollback"' not in log.read_text() and time.monotonic() < until:
            time.sleep(0.5)
    return by_operator((json.loads(line) for line in log.read_text().splitlines()), operators)


def play(api: AirflowAPI, lake: Lake) -> dict[tuple[str, str], str]:
    """Run everything; return the operator of every task, by DAG and task."""
    for dag_id in (FLOOR_DAG, "more", "rollback_flights", TRAIN, SCORE, MONITOR):
        api.wait_for_dag(dag_id)
        api.unpause(dag_id)
    operators: dict[tuple[str, str], str] = {}

    def run(dag_id: str, conf: Mapping[str, Any], run_id: str | None = None) -> str:
        run_id = run_id or api.trigger(dag_id, conf)
        state = api.wait_for_run(dag_id, run_id, seconds=1200)["state"]
        print(f"{dag_id}: {state}", file=sys.stderr, flush=True)
        for one in api.tasks(dag_id, run_id):
            operators[dag_id, str(one["task_id"])] = str(one["operator_name"])
            if one["state"] == "failed":
                raise RuntimeError(
                    f"{dag_id}.{one['task_id']} failed:\n{api.log(dag_id, run_id, one['task_id'])[-4000:]}"
                )
        return run_id

    run(FLOOR_DAG, {})
    # The second candidate is compared with the first, which is what an evaluation usually has to hold.
    first = run(TRAIN, {"window_start": "2013-07-01", "window_end": "2013-08-01"})
    run(TRAIN, {"window_start": "2013-08-01", "window_end": "2013-09-01"})
    LabelFeed(lake=lake, folder=lake.folder.parent / "labels").deliver("2013-09")
    run(SCORE, {"window_start": "2013-09-01", "window_end": "2013-10-01"})
    while not (watching := api.runs(MONITOR)):
        time.sleep(1)  # the batch's Asset event starts it
    run(MONITOR, {}, str(watching[0]["dag_run_id"]))
    run("more", {"version": api.xcom(TRAIN, first, "register")})
    return operators


if __name__ == "__main__":
    sys.exit(main())
