from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec, training_dag
from airflow_mlops.compat import AssetAny, CronDataIntervalTimetable
from airflow_mlops.errors import InvalidSpecError
from tests.support.airflow_versions import starting_assets, starting_condition

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
        "check_serving": {"train"},
        "gate": {"evaluate", "check_serving"},
        "register": {"gate"},
        "promote": {"register"},
    }


def test_what_is_not_asked_for_is_no_task_and_approval_is_one() -> None:
    gate = spec().gate.model_dump()
    asked = training_dag(spec(serving={"check": False}, gate={**gate, "approval": {"when": "first_model"}}))

    upstream = {task.task_id: set(task.upstream_task_ids) for task in asked.tasks}
    assert "check_serving" not in upstream
    assert upstream["gate"] == {"evaluate"}
    assert upstream["approve"] == {"register"}
    assert upstream["promote"] == {"register", "approve"}


def test_one_line_moves_every_step_to_another_interpreter_and_one_more_a_single_step() -> None:
    other = {"name": "external_python", "python": "/opt/steps/bin/python"}
    dag = training_dag(spec(runtime=other, step_runtimes={"promote": "inline"}))

    where = {task.task_id: task.runtime for task in dag.tasks}
    assert where.pop("promote") == "inline"
    assert all(runtime == other for runtime in where.values())


def test_promotion_has_a_connection_of_its_own() -> None:
    dag = training_dag(spec(promotion={"mlflow_conn_id": "mlflow_promotion"}, mlflow_conn_id="mlflow_training"))

    connections = {task.task_id: task.mlflow_conn_id for task in dag.tasks}
    assert {task for task, used in connections.items() if used == "mlflow_promotion"} == {"register", "promote"}
    assert connections["train"] == connections["gate"] == "mlflow_training"


def test_two_owners_in_one_profile_share_no_name() -> None:
    def names(**changes: Any) -> set[str]:
        model = spec(**changes)
        dag = training_dag(model)
        used = {dag.dag_id, model.experiment_name, model.registered_model, model.connection_id}
        assert {task.experiment for task in dag.tasks} == {model.experiment_name}
        return used | {outlet.name for task in dag.tasks for outlet in task.outlets}

    ann, ben = names(profile="dev", owner="ann"), names(profile="dev", owner="ben")
    staging, production = names(profile="staging", owner="ann"), names()
    assert len(ann) == 5
    assert not ann & ben
    assert not ann & staging
    assert not ann & production


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

    assert isinstance(starting_condition(dag), AssetAny)
    assert set(starting_assets(dag)) == {"flights_drift", "flights_labels"}


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
        pytest.param(
            {"runtime": "external_pyton"},
            r"'flights': runtime: .*Did you mean 'external_python'",
            id="a runtime's typo",
        ),
        pytest.param(
            {"step_runtimes": {"train": {"name": "external_python"}}},
            r"step_runtimes\.train: .*'external_python' does not accept its settings.*python",
            id="a runtime without its setting",
        ),
    ],
)
def test_a_mistake_shows_while_the_file_is_parsed(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        training_dag(spec(**changes))
