"""What an older Airflow does otherwise, in whole DAGs: the wait for a person, events of Datasets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import (
    ApproveModelOperator,
    ModelSpec,
    PromoteModelOperator,
    load_spec,
    monitoring_dag,
    scoring_dag,
    training_dag,
)  # fmt: skip
from airflow_mlops.cli import main
from airflow_mlops.compat import AIRFLOW_3, AIRFLOW_VERSION, DAG, AssetAlias, get_current_context, task
from airflow_mlops.engines import approvals
from airflow_mlops.operators.asset_events import emit
from airflow_mlops.operators.windows import all_windows
from tests.support.airflow_versions import AIRFLOW_ASKS, bag_of, events_of, pushed_in
from tests.support.candidates import make_bench, month

START = datetime(2013, 1, 1)


@pytest.mark.skipif(AIRFLOW_ASKS, reason="Airflow asks itself from 3.1 on: tests/e2e/test_approval.py")
def test_before_3_1_the_task_gives_its_place_back_until_somebody_answers_on_the_command_line(
    run_dag: Callable[..., Any], mlflow_connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, real = "asked_before_3_1", approvals.ask
    connection, make = make_bench(mlflow_connection, tmp_path)
    version = make(name).register("register-waits", verdict="needs_approval")
    connection.__exit__(None, None, None)
    answers: list[threading.Thread] = []

    def ask(*args: Any, **kwargs: Any) -> datetime:
        """Ask as ever; once the question is there, a person answers it."""
        until = real(*args, **kwargs)
        if not answers:
            words = ["promote", name, "1", "--approve", "--reason", "seen", "--author", "ann"]
            answers.append(threading.Thread(target=main, args=([*words, "--tracking-uri", mlflow_connection],)))
            answers[0].start()
        return until

    monkeypatch.setattr(approvals, "ask", ask)
    with DAG(dag_id="waits_for_a_person", schedule=None, start_date=START) as dag:
        approve = ApproveModelOperator(task_id="approve", version=version.to_xcom(), retries=0)
        PromoteModelOperator(task_id="promote", version=version.to_xcom(), approval=approve.output)

    ran = run_dag(dag)
    answers[0].join()

    assert ran.state == "success", ran.tasks
    assert (ran.record("approve")["outcome"], ran.record("approve")["author"]) == ("approved", "ann")
    assert ran.record("promote")["to_version"] == 1


def producer() -> DAG:
    with DAG(dag_id="publishes", schedule=None, start_date=START) as dag:

        @task(outlets=[AssetAlias("rows_of_a_month")])
        def publish() -> None:
            extra = {"window": month(3).model_dump(mode="json"), "reason": "rows came", "counts": [1, 2], "entry": 7}
            emit(get_current_context(), AssetAlias("rows_of_a_month"), extra)

        publish()
    return dag


def test_what_an_event_says_reads_the_same_on_every_airflow(run_dag: Callable[..., Any]) -> None:
    before = len(events_of("publishes"))

    assert run_dag(producer()).state == "success"

    said = {"window": month(3).model_dump(mode="json"), "reason": "rows came", "counts": [1, 2], "entry": 7}
    assert events_of("publishes")[before:] == [("rows_of_a_month", said)]


@pytest.mark.skipif(AIRFLOW_3, reason="on Airflow 3 a scheduler starts the run: tests/e2e/test_monitoring.py")
def test_a_run_that_a_dataset_started_takes_its_window_from_the_event(run_dag: Callable[..., Any]) -> None:
    from airflow.models.dataset import DatasetEvent
    from airflow.utils import timezone
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run_dag(producer())
    with DAG(dag_id="follows", schedule=None, start_date=START) as dag:

        @task
        def look() -> list[str]:
            windows, reason = all_windows(get_current_context())
            return [*map(str, windows), reason]

        look()
    bag_of(dag)
    now = timezone.utcnow()
    with create_session() as session:
        run = dag.create_dagrun(
            run_type="dataset_triggered", run_id="dataset_triggered__1", execution_date=now, data_interval=(now, now),
            state="running", session=session,
        )  # fmt: skip
        run.consumed_dataset_events.extend(
            session.scalars(select(DatasetEvent).where(DatasetEvent.source_dag_id == "publishes"))
        )
        session.commit()
        found = run.get_task_instance("look", session=session)
        found.task = dag.get_task("look")
        found.run(ignore_all_deps=True, ignore_ti_state=True, session=session)

    (window, reason) = {key: value for _, key, _, value in pushed_in("follows", run.run_id)}["return_value"]
    assert (window, reason) == (str(month(3)), "Asset event of rows_of_a_month: rows came")


@pytest.mark.skipif(
    AIRFLOW_VERSION.release >= (3, 3), reason="there a scheduler runs the same three: tests/e2e/test_monitoring.py"
)
def test_the_loop_of_one_model_trains_scores_and_watches(flights_folder: Path, run_dag: Callable[..., Any]) -> None:
    flights = load_spec(flights_folder / "flights.yaml")
    for make in (training_dag, scoring_dag, monitoring_dag):
        bag_of(make(flights))  # with every part that a specification can have: none of them is refused
    changes = {"name": "flights_loop", "labels": None, "monitoring": {"drift": {"action": "retrain"}, "min_rows": 5000}}
    spec = ModelSpec.model_validate({**flights.model_dump(), "folder": flights.folder, **changes})
    april = {"window_start": "2013-04-01", "window_end": "2013-05-01"}

    trained = run_dag(training_dag(spec), window_start="2013-03-01", window_end="2013-04-01")
    scored = run_dag(scoring_dag(spec), **april)
    watched = run_dag(monitoring_dag(spec), **april)

    assert (trained.state, scored.state, watched.state) == ("success", "success", "success"), watched.tasks
    assert trained.record("promote")["outcome"] == "promoted"
    (batch,) = scored.mapped("batch.score")
    assert (batch["window"]["start"], batch["model"]["version"]) == ("2013-04-01T00:00:00Z", 1)
    assert watched.record("act_on_drift")["action"] in ("none", "retrain")
    published = {name: extra["window"]["start"] for name, extra in events_of("score_flights_loop")}
    assert published == {"flights_loop_predictions": "2013-04-01T00:00:00Z"}
    assert [name for name, _ in events_of("train_flights_loop")] == ["flights_loop_champion"]
