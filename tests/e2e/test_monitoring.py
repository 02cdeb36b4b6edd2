"""The circle on a real scheduler: batches start monitoring, drift starts one retrain, and everything that must not.

One model goes through its life in order, so each test builds on the one before it in this file.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.services import Services
from tests.support.airflow_settings import on_postgres
from tests.support.postgres import Postgres

SPEC = """
name: {name}
data: {{uri: ../rows, event_time: at, id_columns: [id]}}
contract: {{path: contract.yaml}}
train:
  function: watched_training:train
  serialization: cloudpickle
  target: y
  features: [x, z]
  parameters: {{hold: "{hold}"}}
  window: {{length: 1 month}}
evaluation: {{task: binary, metrics: [roc_auc], bootstrap_draws: 200}}
serving: {{check: false}}
gate: {{rules: [{{rule: at_least, metric: roc_auc, value: 0.5}}]}}
schedule: {{on_retrain: true, retries: 0}}
scoring:
  output_uri: ../predictions/{name}
  check_contract: false
  schedule: {{{schedule}retries: 0}}
drift: {{min_rows: 100, report: false, prediction: null}}
monitoring:
  drift: {{action: retrain}}
  min_rows: 100
  cool_down: 21 days
{monitoring}
"""

WEEKLY = "cron: '0 0 * * 5', start_date: '2024-03-01', "

TRAINING = '''
"""Trains, but waits as long as a file is there."""

import time
from pathlib import Path


def train(data, target, *, weights, parameters, seed):
    from sklearn.linear_model import LogisticRegression

    while Path(parameters["hold"]).exists():
        time.sleep(0.2)
    return LogisticRegression().fit(data, target)
'''

DAGS = """
from pathlib import Path
from airflow_mlops import load_spec, monitoring_dag, scoring_dag, training_dag

for name in ("watched", "backfilled"):
    spec = load_spec(Path(__file__).parent / f"{name}.yaml")
    for make in (training_dag, scoring_dag, monitoring_dag):
        make(spec)  # an Airflow dag
"""

#: Weeks of 2024; x moves from the second on.
WEEKS = {
    "first": ("2024-03-01", "2024-03-08"),
    "second": ("2024-03-08", "2024-03-15"),
    "third": ("2024-03-15", "2024-03-22"),
    "during": ("2024-03-22", "2024-03-29"),
    "cooling": ("2024-03-29", "2024-04-05"),
    "later": ("2024-04-19", "2024-04-26"),
}
MOVED = "2024-03-08"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np
    import pandas as pd

    home = tmp_path_factory.mktemp("watched")
    generator = np.random.default_rng(0)
    at = pd.date_range("2024-01-01", "2024-05-01", periods=12_000, inclusive="left", tz="UTC")
    x = generator.normal(size=len(at)) + np.where(at >= pd.Timestamp(MOVED, tz="UTC"), 4.0, 0.0)
    y = (x - x.mean() + generator.normal(size=len(at)) > 0).astype(int)
    frame = pd.DataFrame({"id": np.arange(len(at)), "at": at, "x": x, "z": generator.normal(size=len(at)), "y": y})
    (home / "rows").mkdir()
    frame.to_parquet(home / "rows" / "rows.parquet")
    dags = home / "dags"
    dags.mkdir()
    hold = home / "hold"
    (dags / "watched.yaml").write_text(SPEC.format(name="watched", hold=hold, schedule="", monitoring=""))
    (dags / "backfilled.yaml").write_text(
        SPEC.format(name="backfilled", hold=hold, schedule=WEEKLY, monitoring=f"  schedule: {{{WEEKLY}retries: 0}}\n")
    )
    (dags / "contract.yaml").write_text(
        json.dumps({"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "y"}}]})
    )
    (dags / "watched_training.py").write_text(TRAINING)
    (dags / "watched_dags.py").write_text(DAGS)
    return home


@pytest.fixture(scope="module")
def services(home: Path, postgres: Postgres) -> Iterator[Services]:
    with Services(home, home / "dags", env=on_postgres(postgres, "airflow_monitoring")) as running:
        yield running


@pytest.fixture(scope="module")
def api(services: Services) -> Iterator[AirflowAPI]:
    with AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
        for name in ("watched", "backfilled"):
            for dag in ("train", "score", "monitor"):
                api.wait_for_dag(f"{dag}_{name}")
        api.unpause("train_watched")
        api.unpause("score_watched")
        yield api


def window(week: str) -> dict[str, str]:
    start, end = WEEKS[week]
    return {"window_start": start, "window_end": end}


def until(look: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def score(api: AirflowAPI, week: str) -> None:
    run_id = api.trigger("score_watched", window(week))
    assert api.wait_for_run("score_watched", run_id)["state"] == "success", api.task_states("score_watched", run_id)


def decision(api: AirflowAPI, week: str, dag: str = "monitor_watched") -> dict[str, Any]:
    """Wait for the monitoring run that watched the week, and return what its policy decided."""

    def decided() -> dict[str, Any] | None:
        for run in reversed(api.runs(dag)):
            planned = api.xcom(dag, run["dag_run_id"], "plan", key="windows") or []
            if run["state"] in ("success", "failed") and any(
                one["start"].startswith(WEEKS[week][0]) for one in planned
            ):
                assert run["state"] == "success", api.task_states(dag, run["dag_run_id"])
                return dict(api.xcom(dag, run["dag_run_id"], "act_on_drift"))
        return None

    return dict(until(decided))


def requests(api: AirflowAPI) -> list[str]:
    return [event["extra"]["request"] for event in api.asset_events("monitor_watched")]


def retrains(api: AirflowAPI) -> list[dict[str, Any]]:
    return [run for run in api.runs("train_watched") if run["run_type"] == "asset_triggered"]


def backfilled(api: AirflowAPI, dag_id: str) -> list[str]:
    return [str(run["dag_run_id"]) for run in api.runs(dag_id) if run["run_type"] == "backfill"]


@pytest.mark.timeout(600)
def test_collapsed_events_watch_every_window_and_ask_for_one_retrain_with_the_newest(
    api: AirflowAPI, services: Services, home: Path
) -> None:
    run_id = api.trigger("train_watched", {"window_start": "2024-02-01", "window_end": "2024-03-01"})
    assert api.wait_for_run("train_watched", run_id)["state"] == "success", api.task_states("train_watched", run_id)
    # Airflow keeps no event for a paused DAG, so nobody watches these yet.
    for week in ("first", "second", "third"):
        score(api, week)
    (home / "hold").touch()
    api.unpause("monitor_watched")
    # The same events once more, in any order, while the scheduler cannot make a run: it then makes one for all.
    scored = [event["extra"] for event in api.asset_events("score_watched")]
    assert len(scored) == 3
    os.kill(services.pids["scheduler"], signal.SIGSTOP)
    try:
        for extra in (scored[1], scored[2], scored[0], scored[2]):
            api.emit_event("watched_predictions", extra)
    finally:
        os.kill(services.pids["scheduler"], signal.SIGCONT)

    made = decision(api, "third")

    assert len(api.runs("monitor_watched")) == 1
    run = api.runs("monitor_watched")[0]["dag_run_id"]
    verdicts = [
        api.xcom("monitor_watched", run, "inputs.detect_drift", map_index=place)["verdict"] for place in range(3)
    ]
    assert verdicts == ["none", "drift", "drift"]
    assert made["action"] == "retrain"
    assert requests(api) == [made["request"]]
    started = until(lambda: retrains(api))
    assert len(started) == 1
    plan = until(lambda: api.xcom("train_watched", started[0]["dag_run_id"], "plan"))
    assert plan["window"]["start"].startswith(WEEKS["third"][0])
    assert "x" in plan["reason"]


@pytest.mark.timeout(600)
def test_a_breach_during_a_running_retrain_asks_for_none(api: AirflowAPI, home: Path) -> None:
    score(api, "during")

    made = decision(api, "during")

    assert (made["action"], made["suppressed"]) == ("none", "retrain_under_way")
    assert len(requests(api)) == 1
    (home / "hold").unlink()
    run_id = retrains(api)[0]["dag_run_id"]
    assert api.wait_for_run("train_watched", run_id)["state"] == "success"
    assert api.xcom("train_watched", run_id, "promote")["to_version"] == 2


@pytest.mark.timeout(600)
def test_a_breach_inside_the_cool_down_asks_for_none_and_one_after_it_for_one(api: AirflowAPI) -> None:
    score(api, "cooling")
    cooling = decision(api, "cooling")
    score(api, "later")
    later = decision(api, "later")

    assert (cooling["action"], cooling["suppressed"]) == ("none", "cool_down")
    assert (later["action"], later["suppressed"]) == ("retrain", "")
    assert len(requests(api)) == 2
    started = until(lambda: retrains(api)[1:])
    assert api.wait_for_run("train_watched", started[0]["dag_run_id"])["state"] == "success"


@pytest.mark.timeout(600)
def test_a_cleared_decision_trains_nobody_twice(api: AirflowAPI) -> None:
    first = api.runs("monitor_watched")[0]["dag_run_id"]
    before = api.xcom("monitor_watched", first, "act_on_drift")
    api.clear("monitor_watched", first, ["act_on_drift"])
    api.wait_for_run("monitor_watched", first)

    assert api.xcom("monitor_watched", first, "act_on_drift")["request"] == before["request"]
    time.sleep(10)  # a repeated event would start its run within seconds
    for run in retrains(api):
        api.wait_for_run("train_watched", run["dag_run_id"])
    trained = [run for run in retrains(api) if api.xcom("train_watched", run["dag_run_id"], "train")]
    assert len(trained) == 2


@pytest.mark.timeout(600)
def test_a_backfill_scores_and_watches_in_silence(api: AirflowAPI) -> None:
    api.unpause("train_backfilled")
    run_id = api.trigger("train_backfilled", {"window_start": "2024-02-01", "window_end": "2024-03-01"})
    assert api.wait_for_run("train_backfilled", run_id)["state"] == "success"
    for dag in ("score_backfilled", "monitor_backfilled"):
        api.unpause(dag)
        # Week by week from the first to the third; the last interval is the one that starts on the given day.
        api.backfill(dag, WEEKS["first"][0], WEEKS["third"][0])
        runs = until(
            lambda dag=dag: [run for run in api.runs(dag) if run["run_type"] == "backfill"][2:] and api.runs(dag)
        )
        for run in runs:
            if run["run_type"] == "backfill":
                assert api.wait_for_run(dag, run["dag_run_id"])["state"] == "success"

    watched = [run["dag_run_id"] for run in api.runs("monitor_backfilled") if run["run_type"] == "backfill"]
    decisions = [api.xcom("monitor_backfilled", run, "act_on_drift") for run in watched]
    assert [one["suppressed"] for one in decisions].count("backfill") == 2
    assert {one["action"] for one in decisions} == {"none"}
    # A schedule's newest interval runs as soon as a DAG is unpaused; that one may speak.
    for dag in ("score_backfilled", "monitor_backfilled"):
        assert not {event["source_run_id"] for event in api.asset_events(dag)} & set(backfilled(api, dag))
