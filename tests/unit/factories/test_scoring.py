from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec, scoring_dag
from airflow_mlops.compat import CronDataIntervalTimetable
from airflow_mlops.errors import InvalidSpecError

TEMPLATES = Path(__file__).parents[3] / "airflow_mlops" / "templates"


def spec(**changes: Any) -> ModelSpec:
    flights = load_spec(TEMPLATES / "flights.yaml")
    return ModelSpec.model_validate({**flights.model_dump(), "folder": flights.folder, **changes})


def upstream(dag: Any) -> dict[str, set[str]]:
    return {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}


def test_every_window_goes_through_by_itself() -> None:
    dag = scoring_dag(spec())

    assert upstream(dag) == {
        "plan": set(),
        "batch.snapshot": {"plan"},
        "batch.validate": {"batch.snapshot"},
        "batch.score": {"plan", "batch.validate"},
    }
    assert dag.task_group.get_child_by_label("batch").is_mapped if hasattr(dag.task_group, "is_mapped") else True
    assert dag.dag_id == "score_flights"


def test_waiting_is_a_task_and_an_unchecked_contract_is_none() -> None:
    scoring = {"output_uri": "out", "wait": {"settle_minutes": 2}, "check_contract": False}
    dag = scoring_dag(spec(scoring=scoring, contract={"path": "is-not-there.yaml"}))

    found = upstream(dag)
    assert found["batch.snapshot"] >= {"batch.wait_for_data"}
    assert "batch.validate" not in found
    assert found["batch.score"] >= {"plan", "batch.snapshot"}


def test_a_schedule_gives_data_intervals_and_batches_emit_one_asset() -> None:
    scoring = {"output_uri": "out", "schedule": {"cron": "@monthly", "start_date": "2024-01-01"}}
    dag = scoring_dag(spec(scoring=scoring))

    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert [alias.name for alias in dag.get_task("batch.score").outlets] == ["flights_predictions"]


def test_the_second_version_is_the_specifications() -> None:
    shadow = scoring_dag(spec(scoring={"output_uri": "out", "shadow": "previous_champion"}))
    split = scoring_dag(spec(scoring={"output_uri": "out", "split": {"share": 0.1, "alias": "rival"}}))
    none = scoring_dag(spec(scoring={"output_uri": "out"}))

    assert [dag.get_task("plan").other for dag in (shadow, split, none)] == ["previous_champion", "rival", None]


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"scoring": None}, "scoring.output_uri"),
        ({"contract": {"path": "gone.yaml"}}, "scoring.check_contract"),
        ({"runtime": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_run_is_refused_while_parsing(changes: dict[str, Any], mend: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        scoring_dag(spec(**changes))

    assert mend in str(caught.value)
    assert "'flights'" in str(caught.value)
