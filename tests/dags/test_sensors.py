"""Sensors in whole DAGs, in each place a sensor can wait; what they wait for comes while they wait."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.compat import AIRFLOW_3, DAG, task
from airflow_mlops.sensors.data import DataArrivalSensor
from airflow_mlops.sensors.model import ModelAliasSensor
from airflow_mlops.triggers.base import Look, Question
from airflow_mlops.triggers.data import DataArrivalQuestion
from airflow_mlops.triggers.model import ModelAliasQuestion
from tests.support.airflow_versions import what_runs_triggers
from tests.support.data_steps import day, write_parquet
from tests.support.served import serve

SECONDS = 1 / 60
START = datetime(2013, 1, 1)


def after_a_look(patch: pytest.MonkeyPatch, question: type[Question], act: Callable[[], Any]) -> list[threading.Timer]:
    """Have ``act`` done in another thread a little after such a question was asked for the first time, in vain."""
    real, begun = question.look, []

    def look(self: Any) -> Look:
        looked = real(self)
        if not begun:
            begun.append(threading.Timer(0.3, act))
            begun[0].start()
        return looked

    patch.setattr(question, "look", look)
    return begun


def arrive(folder: Path) -> None:
    """Write January as a slow writer does: half of it, a pause, all of it; February is there before."""
    whole = write_parquet(folder.parent / "away" / "jan.parquet", {"at": [day(1), day(31)]}).read_bytes()
    folder.mkdir(exist_ok=True)
    (folder / "jan.parquet").write_bytes(whole[: len(whole) // 2])
    time.sleep(0.8)
    (folder / "jan.parquet").write_bytes(whole)


@pytest.fixture
def triggers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the triggers that ``dag.test()`` ran, each as it runs."""
    ran: list[str] = []
    place, name = what_runs_triggers()
    real = getattr(place, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        ran.append(type(kwargs["trigger"] if "trigger" in kwargs else args[0]).__name__)
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, counted)
    return ran


def rescheduled(dag_id: str, run_id: str) -> set[str]:
    """Return the tasks of a run that gave their place on the worker back and came again."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if AIRFLOW_3:
        mine = select(TaskInstance.task_id).join(TaskReschedule, TaskReschedule.ti_id == TaskInstance.id)
        mine = mine.where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    else:
        mine = select(TaskReschedule.task_id).where(TaskReschedule.dag_id == dag_id, TaskReschedule.run_id == run_id)
    with create_session() as session:
        return set(session.scalars(mine))


@pytest.mark.parametrize("place", ["poke", "reschedule", "deferred"])
def test_data_and_champion_come_while_a_dag_waits_for_them(
    place: str,
    run_dag: Callable[..., Any],
    mlflow_connection: str,
    triggers: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if place == "deferred":
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    name = f"awaited.{uuid.uuid4().hex[:8]}"
    waiting: dict[str, Any] = {"mode": "poke" if place == "deferred" else place, "poke_interval": 0.3, "timeout": 120}
    came = [
        after_a_look(monkeypatch, DataArrivalQuestion, lambda: arrive(tmp_path / "lake")),
        after_a_look(monkeypatch, ModelAliasQuestion, lambda: serve(mlflow_connection, name)),
    ]
    with DAG(dag_id=f"waits_{place}", schedule=None, start_date=START, params={"start": "2013-01-01"}) as dag:

        @task
        def told(data: Any, champion: Any) -> list[Any]:
            return [data["file_count"], data["window"]["start"], champion["version"], champion["entry"]]

        arrived = DataArrivalSensor(
            task_id="data",
            data={"uri": str(tmp_path / "lake"), "event_time": "at"},
            window={"start": "{{ params.start }}", "end": "2013-02-01"},
            settle_minutes=1.5 * SECONDS,
            **waiting,
        )
        standing = ModelAliasSensor(task_id="champion", registered_model=name, **waiting)
        arrived >> standing
        told(arrived.output, standing.output)
    assert arrived.deferrable is (place == "deferred")

    ran = run_dag(dag)

    assert [timer.join() for begun in came for timer in begun] == [None, None]
    assert ran.state == "success", ran.tasks
    assert ran.record("told") == [1, "2013-01-01T00:00:00Z", 1, 1]
    assert ran.record("data")["byte_count"] == (tmp_path / "lake" / "jan.parquet").stat().st_size
    assert triggers == (["DataArrivalTrigger", "ModelAliasTrigger"] if place == "deferred" else [])
    assert rescheduled(dag.dag_id, ran.run_id) == ({"data", "champion"} if place == "reschedule" else set())


@pytest.mark.parametrize("deferrable", [False, True])
def test_each_window_of_a_mapped_sensor_is_waited_for_by_itself(
    deferrable: bool, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    write_parquet(tmp_path / "a.parquet", {"at": [day(1), day(2)]})
    write_parquet(tmp_path / "b.parquet", {"at": [day(1, 2)]})
    with DAG(dag_id=f"waits_mapped_{deferrable}", schedule=None, start_date=START) as dag:
        DataArrivalSensor.partial(
            task_id="data",
            data={"uri": str(tmp_path), "event_time": "at"},
            settle_minutes=0.5 * SECONDS,
            poke_interval=0.1,
            timeout=1,
            deferrable=deferrable,
        ).expand(
            window=[
                {"start": "2013-01-01", "end": "2013-02-01"},
                {"start": "2013-02-01", "end": "2013-03-01"},
                {"start": "2013-03-01", "end": "2013-04-01"},
            ]
        )

    ran = run_dag(dag)

    assert ran.state == "failed", "nothing of March ever comes"
    assert [found["window"]["start"][:7] for found in ran.mapped("data")] == ["2013-01", "2013-02"]


def test_a_soft_wait_that_is_refused_skips_what_follows(run_dag: Callable[..., Any], tmp_path: Path) -> None:
    with DAG(dag_id="waits_softly", schedule=None, start_date=START) as dag:
        for deferrable in (False, True):
            refused = DataArrivalSensor(
                task_id=f"refused_{deferrable}",
                data={"uri": str(tmp_path), "conn_id": "no_such_store"},
                deferrable=deferrable,
                soft_fail=True,
            )

            @task(task_id=f"after_{deferrable}")
            def after(data: Any) -> None:
                raise AssertionError(data)

            after(refused.output)

    ran = run_dag(dag)

    assert set(ran.tasks.values()) == {"skipped"}
