from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec, monitoring_dag, training_dag
from airflow_mlops.errors import InvalidSpecError
from tests.support.airflow_versions import starting_assets

TEMPLATES = Path(__file__).parents[3] / "airflow_mlops" / "templates"


CLOCK = {"cron": "@daily", "start_date": "2024-01-01"}


def spec(name: str = "flights", **changes: Any) -> ModelSpec:
    model = load_spec(TEMPLATES / f"{name}.yaml")
    return ModelSpec.model_validate({**model.model_dump(), "folder": model.folder, **changes})


def upstream(dag: Any) -> dict[str, set[str]]:
    return {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}


def test_drift_is_acted_on_before_labels_are_there() -> None:
    assert upstream(monitoring_dag(spec())) == {
        "plan": set(),
        "inputs.snapshot": {"plan"},
        "inputs.detect_drift": {"plan", "inputs.snapshot"},
        "act_on_drift": {"plan", "inputs.detect_drift"},
        "outcomes.label_coverage": {"plan"},
        "outcomes.evaluate_predictions": {"plan", "outcomes.label_coverage"},
        "act_on_performance": {"plan", "outcomes.evaluate_predictions"},
        "outcomes.labels_complete": {"plan", "outcomes.evaluate_predictions"},
        "outcomes.evaluate_final": {"plan", "outcomes.labels_complete"},
        "act_on_final": {"outcomes.evaluate_predictions", "outcomes.evaluate_final"},
    }


def test_without_labels_drift_alone_is_watched() -> None:
    dag = monitoring_dag(spec(labels=None, monitoring={}))

    assert set(upstream(dag)) == {"plan", "inputs.snapshot", "inputs.detect_drift", "act_on_drift"}


def test_a_published_batch_starts_it_unless_it_has_a_schedule() -> None:
    by_event = monitoring_dag(spec())
    by_clock = monitoring_dag(spec(monitoring={"schedule": {"cron": "@daily", "start_date": "2024-01-01"}}))

    assert starting_assets(by_event) == ["flights_predictions"]
    assert by_event.max_active_runs > 1, "a run that waits for labels must not hold up the next window's drift"
    assert "Cron" in type(by_clock.timetable).__name__
    patient = monitoring_dag(spec(monitoring={"schedule": {"retries": 5}}))
    assert starting_assets(patient) == ["flights_predictions"], "no word of when"


@pytest.mark.parametrize(
    ("monitoring", "labels", "expected"),
    [
        pytest.param({}, "30 days", 32, id="a run a day waits for a month"),
        pytest.param({}, "3 days", 16, id="or for a few days"),
        pytest.param({"schedule": CLOCK}, "30 days", 32, id="by the clock as well"),
        pytest.param({"schedule": {**CLOCK, "max_active_runs": 2}}, "30 days", 2, id="unless it is said"),
        pytest.param({"schedule": CLOCK}, None, 1, id="nothing to wait for"),
    ],
)
def test_runs_that_wait_for_labels_hold_up_no_other(monitoring: Any, labels: str | None, expected: int) -> None:
    model = spec()
    assert model.labels is not None
    waited = None if labels is None else {**model.labels.model_dump(), "deadline": labels}

    assert monitoring_dag(spec(monitoring=monitoring, labels=waited)).max_active_runs == expected


def test_the_policy_acts_on_what_is_known_of_a_run_whatever_became_of_the_rest() -> None:
    dag = monitoring_dag(spec())

    for name in ("act_on_drift", "act_on_performance", "act_on_final"):
        assert dag.get_task(name).trigger_rule == "all_done"


def test_what_monitoring_emits_is_what_training_waits_for() -> None:
    for name in ("flights", "flights_on_drift"):
        model = spec(name)
        emitted = {alias.name for alias in monitoring_dag(model).get_task("act_on_drift").outlets}
        waited = set(starting_assets(training_dag(model)))
        assert waited <= emitted


def test_two_owners_in_one_profile_share_no_asset() -> None:
    def names(owner: str) -> set[str]:
        model = spec(profile="dev", owner=owner)
        dag = monitoring_dag(model)
        waited = set(starting_assets(training_dag(model)))
        assert waited <= {alias.name for alias in dag.get_task("act_on_drift").outlets}
        return {dag.dag_id, *(alias.name for alias in dag.get_task("act_on_drift").outlets)}

    assert not names("ann") & names("bob")


def test_labels_target_and_weights_are_never_compared_as_features() -> None:
    task = monitoring_dag(spec()).get_task("inputs.detect_drift")

    arguments = getattr(task, "partial_kwargs", None) or vars(task)
    assert "late" in arguments["exclude"]
    assert "late" not in (arguments["columns"] or [])


def test_a_drift_method_that_nobody_knows_is_refused_while_parsing() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        monitoring_dag(spec(drift={"numeric": {"method": "pssi"}}))

    assert "'flights'" in str(caught.value)
    assert "drift.numeric" in str(caught.value)
    assert "psi" in str(caught.value)
