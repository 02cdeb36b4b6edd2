"""The examples in dags/, whole, on the real flights: by hand with operators, and the steps that teams go through."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import Access, TrackingServer, Window, load_spec, run_training
from airflow_mlops.cli import main
from airflow_mlops.compat import CronDataIntervalTimetable
from tests.support.airflow_versions import starting_assets

ROOT = Path(__file__).parents[2]
MARCH = {"window_start": "2013-03-01", "window_end": "2013-04-01"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, lake: Any) -> Path:
    """The dags folder as it is, beside the lake."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "dags", folder / "dags")
    (folder / "lake").symlink_to(lake.folder.parent)
    return folder / "dags"


@pytest.fixture
def dag(examples: Path, airflow_database: None) -> Callable[[str], Any]:
    """Return a file's training DAG, or its only one, loaded as Airflow loads it."""
    from airflow_mlops.compat import DagBag

    def load(name: str) -> Any:
        bag = DagBag(dag_folder=str(examples / name))
        assert not bag.import_errors, bag.import_errors
        # Airflow keeps a file's DAGs in no order.
        return bag.dags[f"train_{name.removesuffix('_dag.py')}"] if len(bag.dags) > 1 else bag.dags.popitem()[1]

    return load


def test_every_file_in_the_folder_ships_with_the_package() -> None:
    names = [path.name for path in (ROOT / "dags").iterdir() if path.is_file()]
    _, different, missing = filecmp.cmpfiles(ROOT / "airflow_mlops/templates", ROOT / "dags", names, shallow=False)

    assert different == missing == []


def test_by_hand_over_windows_and_parameters(dag: Callable[[str], Any], run_dag: Callable[..., Any]) -> None:
    ran = run_dag(dag("flights_by_hand_dag.py"), **MARCH)

    assert ran.state == "success", ran.tasks
    assert [one["window"]["start"] for one in ran.mapped("snapshot_month")] == [
        "2013-01-01T00:00:00Z",
        "2013-02-01T00:00:00Z",
    ]
    candidates = ran.mapped("train")
    assert len({one["model_id"] for one in candidates}) == len(candidates) == 2
    reports = ran.mapped("evaluate")
    best = max(reports, key=lambda report: report["metrics"]["roc_auc"])
    assert ran.record("gate")["model"]["model_id"] == best["model"]["model_id"]
    assert ran.record("check_serving")["digest"] == best["model"]["digest"]
    assert ran.record("promote")["outcome"] == "promoted"
    # What a person sees: each mapped task's own link, and what it was given, rendered.
    assert len({ran.mapped("train", "mlflow_run_link")[n] for n in (0, 1)}) == 2


def test_what_a_person_started_waits_for_a_person_and_is_then_champion_for_every_later_look(
    examples: Path,
    dag: Callable[[str], Any],
    run_dag: Callable[..., Any],
    mlflow_connection: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = dag("flights_manual_dag.py")
    assert made.get_task("approve").downstream_task_ids == {"promote"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_connection)
    # Airflow's own question needs a scheduler (tests/e2e/test_approval.py); the command line answers everywhere.
    spec = str(examples / "flights_manual.yaml")
    assert main(["run", spec, "--window", "2013-03-01", "2013-04-01"]) == 0
    assert "airflow-mlops promote flights_manual 1 --approve" in capsys.readouterr().out
    assert main(["promote", "flights_manual", "1", "--approve", "--reason", "seen", "--author", "ann"]) == 0

    ran = run_dag(made, **MARCH)

    assert ran.state == "success", ran.tasks
    assert ran.record("train", "reused_from").startswith("run/flights_manual/")
    assert ran.record("gate")["verdict"] == "promote"
    assert ran.record("approve")["outcome"] == "not_needed"
    promoted = ran.record("promote")
    assert (promoted["outcome"], promoted["to_version"], ran.record("register")["version"]) == ("promoted", 1, 1)


def test_a_scheduled_month_is_judged_by_the_gate_once_a_person_approved_the_first(
    examples: Path,
    dag: Callable[[str], Any],
    run_dag: Callable[..., Any],
    mlflow_connection: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = run_training(
        load_spec(examples / "flights_scheduled.yaml"),
        window=Window(start="2013-03-01", end="2013-04-01"),
        access=Access(server=TrackingServer(tracking_uri=mlflow_connection)),
    )
    assert first.decision is not None
    assert first.decision.verdict == "needs_approval"
    assert first.promotion is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_connection)
    assert main(["promote", "flights_scheduled", "--approve", "--reason", "looked at it"]) == 0

    made = dag("flights_scheduled_dag.py")
    assert isinstance(made.timetable, CronDataIntervalTimetable)
    ran = run_dag(made, window_start="2013-07-01", window_end="2013-08-01")

    assert ran.state == "success", ran.tasks
    assert ran.record("gate")["champion"]["version"] == 1
    assert ran.record("gate")["verdict"] == "promote"
    assert ran.record("approve")["outcome"] == "not_needed"
    assert ran.record("promote")["to_version"] == 2


def test_what_drift_started_is_promoted_without_asking(dag: Callable[[str], Any], run_dag: Callable[..., Any]) -> None:
    made = dag("flights_on_drift_dag.py")
    assert starting_assets(made) == ["flights_on_drift_retrain"]

    ran = run_dag(made, **MARCH, reason="drift in 5 columns")

    assert ran.state == "success", ran.tasks
    assert "approve" not in ran.tasks
    promoted = ran.record("promote")
    assert (promoted["outcome"], promoted["reason"]) == ("promoted", "drift in 5 columns")


def test_the_same_month_again_reuses_model_and_evaluation_until_forced(
    dag: Callable[[str], Any], run_dag: Callable[..., Any]
) -> None:
    made = dag("flights_on_drift_dag.py")
    april = {"window_start": "2013-04-01", "window_end": "2013-05-01"}
    first = run_dag(made, **april)
    trained = first.record("train")

    again = run_dag(made, **april)

    assert again.record("train", "reused_from") == f"{made.dag_id}/{first.run_id}/train/-1"
    assert again.record("train")["model_id"] == trained["model_id"]
    assert again.record("evaluate", "reused_from") or again.record("evaluate")["ledger_entry"] > 0

    forced = run_dag(made, **april, force=True)
    assert forced.record("train", "reused_from") is None
    assert forced.record("train")["model_id"] != trained["model_id"]
    assert forced.record("train")["digest"] == trained["digest"]
