from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec, training_dag
from airflow_mlops.compat import CronDataIntervalTimetable
from airflow_mlops.errors import InvalidSpecError

TEMPLATES = Path(__file__).parents[3] / "airflow_mlops" / "templates"


def spec(**changes: Any) -> ModelSpec:
    flights = load_spec(TEMPLATES / "flights.yaml")
    return ModelSpec.model_validate({**flights.model_dump(), "folder": flights.folder, **changes})


def test_the_loop_in_order() -> None:
    dag = training_dag(spec())

    upstream = {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}
    assert upstream == {
        "plan": set(),
        "training_data.snapshot": {"plan"},
        "training_data.validate": {"training_data.snapshot"},
        "evaluation_data.snapshot": {"plan"},
        "evaluation_data.validate": {"evaluation_data.snapshot"},
        "train": {"training_data.validate", "evaluation_data.validate"},
        "evaluate": {"train", "evaluation_data.validate"},
        "gate": {"evaluate"},
        "register": {"gate"},
        "promote": {"register"},
    }


def test_the_specification_reaches_the_tasks() -> None:
    schedule = {"retries": 5, "retry_delay_seconds": 7, "task_timeout_minutes": 3, "pool": "ml"}
    dag = training_dag(spec(schedule=schedule, mlflow_conn_id="tracking", experiment="shared", owner="someone"))

    for task in dag.tasks:
        assert (task.retries, task.pool, task.owner) == (5, "ml", "someone")
        assert task.retry_delay.total_seconds() == 7
        assert task.execution_timeout.total_seconds() == 180
        assert (task.mlflow_conn_id, task.experiment, task.runtime) == ("tracking", "shared", "inline")
    assert dag.max_active_runs == 1
    assert {"airflow_mlops", "demo", "flights"} <= set(dag.tags)
    assert "slices_no_worse" in dag.doc_md


def test_a_schedule_has_intervals_with_a_length() -> None:
    dag = training_dag(spec(schedule={"cron": "0 0 1 * *", "start_date": "2013-01-01"}))

    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert not dag.catchup


def test_assets_start_a_run_one_by_one() -> None:
    dag = training_dag(spec(schedule={"on_assets": ["flights_drift", "flights_labels"]}))

    condition = dag.timetable.asset_condition
    assert type(condition).__name__ == "AssetAny"
    assert {asset.name for asset in condition.objects} == {"flights_drift", "flights_labels"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"contract": {"path": "gone.yaml"}}, r"'flights': contract\.path .*gone\.yaml", id="no contract"),
        pytest.param(
            {"gate": {"rules": [{"rule": "at_lest", "metric": "roc_auc", "value": 1}]}},
            r"gate\.rules\[0\].*Did you mean 'at_least'",
            id="a rule's typo",
        ),
        pytest.param(
            {"gate": {"rules": [{"rule": "at_least", "metric": "roc_auc", "valu": 1}]}},
            r"gate\.rules\[0\].*no setting 'valu'.*'value'",
            id="a setting's typo",
        ),
    ],
)
def test_a_mistake_shows_while_the_file_is_parsed(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        training_dag(spec(**changes))
