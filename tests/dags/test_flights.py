"""The flights template, whole, on the real flights."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops import Access, TrackingServer, Window, load_spec, run_training, training_dag
from airflow_mlops.cli.demo.story import TEMPLATES
from airflow_mlops.factories.parts import champion_asset_name

ROOT = Path(__file__).parents[2]


def test_the_dags_folder_is_the_template() -> None:
    _, different, missing = filecmp.cmpfiles(ROOT / "airflow_mlops/templates", ROOT / "dags", TEMPLATES, shallow=False)

    assert different == missing == []


def test_the_loop_runs_to_a_first_champion_and_without_a_scheduler_to_the_same_model(
    flights_folder: Path, run_dag: Callable[..., Any], mlflow_connection: str
) -> None:
    spec = load_spec(flights_folder / "flights.yaml").model_copy(update={"name": "flights_dag_test"})
    dag = training_dag(spec)

    ran = run_dag(dag, window_start="2013-03-01", window_end="2013-04-01")

    assert ran.state == "success", ran.tasks
    assert set(ran.tasks.values()) == {"success"}
    plan = ran.record("plan")
    assert plan["train_window"] == {"start": "2012-09-01T00:00:00Z", "end": "2013-03-01T00:00:00Z"}
    assert ran.record("gate")["verdict"] == "first_model"
    assert ran.record("promote")["outcome"] == "promoted"
    assert ran.record("register")["version"] == 1
    assert 0.65 < ran.record("evaluate")["metrics"]["roc_auc"] < 0.75
    # The links a person clicks.
    assert plan["parent_run_id"] in ran.record("plan", "mlflow_run_link")
    assert ran.record("training_data.validate", "report_link")
    assert champion_asset_name(spec) == "flights_dag_test_champion"

    # Without a scheduler the same inputs make the same model: it is reused, and made anew it is equal.
    for force in (False, True):
        outcome = run_training(
            spec,
            window=Window(start="2013-03-01", end="2013-04-01"),
            access=Access(server=TrackingServer(tracking_uri=mlflow_connection)),
            promote=False,
            force=force,
        )
        assert outcome.model is not None
        assert (outcome.model.model_id == ran.record("train")["model_id"]) is not force
        assert outcome.model.digest == ran.record("train")["digest"]


def test_a_run_by_hand_without_a_window_fails_with_the_mend(flights_folder: Path, run_dag: Callable[..., Any]) -> None:
    spec = load_spec(flights_folder / "flights.yaml").model_copy(update={"name": "flights_no_window"})

    ran = run_dag(training_dag(spec))

    assert ran.state == "failed"
    assert ran.tasks["plan"] == "failed"
    assert ran.tasks["train"] == "upstream_failed"
