"""What the plan operators read from their run, and what they hand on."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops import PlanMonitoringOperator, PlanRunOperator, PlanScoringOperator, TrackingServer
from airflow_mlops.compat import AirflowFailException, AirflowSkipException
from airflow_mlops.core.monitoring_records import MonitoredWindow, MonitoringPlan, ScoringPlan, ServedModel
from airflow_mlops.core.record import Window
from airflow_mlops.core.records import RunPlan
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.runtimes.inline import InlineRuntime

MARCH = Window(start="2013-03-01", end="2013-04-01")
APRIL = Window(start="2013-04-01", end="2013-05-01")
MODEL = ServedModel(name="flights", alias="champion", version=2, entry=2, model_uri="models:/m", artifact_uri="a")
ID, OTHER = "0" * 32, "1" * 32


class Pushed(dict[str, Any]):
    """Stands in for the task instance: what the operator pushes."""

    dag_id, run_id, task_id, map_index, log_url = "d", "r", "t", -1, "http://airflow/log"

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value


def event(window: Window, **extra: Any) -> Any:
    extra["window"] = window.model_dump(mode="json")
    return SimpleNamespace(asset=SimpleNamespace(name="a"), extra=extra, source_dag_run=None, partition_key=None)


def context(*events: Any) -> dict[str, Any]:
    run = SimpleNamespace(
        run_type="asset_triggered" if events else "manual", data_interval_start=None, data_interval_end=None
    )
    return {"ti": Pushed(), "dag_run": run, "triggering_asset_events": {"a": list(events)} if events else {}}


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute an operator whose step gives ``record``; returns what was returned, pushed and asked."""

    def execute(operator: Any, record: Any, given: Any) -> tuple[Any, Pushed, Any]:
        asked: list[Any] = []

        def step(self: InlineRuntime, request: Any, access: Any) -> Any:
            asked.append(request)
            return record

        monkeypatch.setattr(InlineRuntime, "run", step)
        monkeypatch.setattr(MLflowHook, "server", lambda self: TrackingServer(tracking_uri="http://mlflow:5000"))
        monkeypatch.setattr(MLflowHook, "login", lambda self: None)
        monkeypatch.setattr(type(operator), "log", logging.getLogger("the task's log"))
        return operator.execute(given), given["ti"], asked[0]

    return execute


def scoring() -> ScoringPlan:
    return ScoringPlan(
        windows=(MARCH, APRIL), model=MODEL, reason="r", experiment_id="1", parent_run_id="p", notes=("alone",)
    )


def monitoring() -> MonitoringPlan:
    windows = tuple(MonitoredWindow(window=w, model=MODEL, scoring_run_id="s") for w in (MARCH, APRIL))
    return MonitoringPlan(windows=windows, reason="r", experiment_id="1", parent_run_id="p")


def training(**other: Any) -> RunPlan:
    return RunPlan(
        window=APRIL,
        train_window=MARCH,
        evaluate_window=APRIL,
        reason="r",
        experiment_id="1",
        parent_run_id="p",
        **other,
    )


def test_scoring_is_about_every_window_and_returns_what_tasks_are_mapped_over(
    execute: Any, caplog: pytest.LogCaptureFixture
) -> None:
    operator = PlanScoringOperator(task_id="t", registered_model="flights", other="previous_champion", experiment="e")

    with caplog.at_level(logging.INFO):
        returned, pushed, request = execute(operator, scoring(), context(event(APRIL), event(MARCH), event(APRIL)))

    assert request.payload == {
        "windows": [MARCH.model_dump(mode="json"), APRIL.model_dump(mode="json")],
        "registered_model": "flights",
        "alias": "champion",
        "other": "previous_champion",
        "reason": "Asset event of a (2 windows of 3 events)",
        "summary": "",
    }
    assert returned == pushed["windows"] == request.payload["windows"]
    assert ScoringPlan.from_xcom(pushed["plan"]) == scoring()
    assert "/versions/2" in pushed["model_version_link"]
    assert "version 2 of flights (champion) scores: [2013-03-01, 2013-04-01), [2013-04-01, 2013-05-01)." in caplog.text
    assert "alone" in caplog.text


def test_monitoring_returns_windows_and_who_scored_them(execute: Any) -> None:
    operator = PlanMonitoringOperator(
        task_id="t", registered_model="flights", window_start="2013-03-01", window_end="2013-04-01", reason="why"
    )

    returned, pushed, request = execute(operator, monitoring(), context(event(APRIL)))

    assert request.payload["windows"] == [MARCH.model_dump(mode="json")], "parameters win"
    assert (request.payload["scoring_experiment"], request.payload["reason"]) == ("d", "why")
    assert [one["window"] for one in returned] == pushed["windows"]
    assert [MonitoredWindow.model_validate(one["monitored"]) for one in returned] == list(monitoring().windows)
    assert pushed["monitored"] == [one["monitored"] for one in returned]
    assert MonitoringPlan.from_xcom(pushed["plan"]) == monitoring()


def test_the_scoring_experiment_is_the_tasks_own_unless_named(execute: Any) -> None:
    for named, expected in ((None, "e"), ("s", "s")):
        operator = PlanMonitoringOperator(task_id="t", registered_model="m", experiment="e", scoring_experiment=named)
        _, _, request = execute(operator, monitoring(), context(event(MARCH)))
        assert request.payload["scoring_experiment"] == expected


@pytest.mark.parametrize("kind", [PlanScoringOperator, PlanMonitoringOperator])
def test_a_run_without_window_fails_for_good_with_the_mend(execute: Any, kind: Any) -> None:
    with pytest.raises(AirflowFailException, match="window_start and window_end"):
        execute(kind(task_id="t", registered_model="m"), scoring(), context())


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([], {}, id="by hand"),
        pytest.param([event(MARCH)], {}, id="an event that asks for nothing"),
        pytest.param([event(MARCH, request=ID)], {"requests": [ID], "only_requests": True}, id="a retrain"),
        pytest.param(
            [event(MARCH, request=ID), event(APRIL, request=OTHER), event(MARCH, request=ID)],
            {"requests": [ID, OTHER], "only_requests": True},
            id="of all events, each once",
        ),
        pytest.param(
            [event(MARCH, request=ID), event(APRIL)],
            {"requests": [ID], "only_requests": False},
            id="another purpose too",
        ),
        pytest.param([event(MARCH, request="please' OR 1=1")], {}, id="what others call a request"),
    ],
)
def test_training_collects_the_requests_of_all_events(execute: Any, events: list[Any], expected: Any) -> None:
    given = context(*events)
    operator = PlanRunOperator(task_id="t", train={"length": "1 month"})
    if not events:
        operator.window_start, operator.window_end = "2013-03-01", "2013-04-01"

    _, _, request = execute(operator, training(requests=(ID,)), given)

    found = {key: value for key, value in request.payload.items() if key in ("requests", "only_requests")}
    assert found == expected


def test_a_run_started_by_hand_with_a_window_ignores_events(execute: Any) -> None:
    operator = PlanRunOperator(
        task_id="t", train={"length": "1 month"}, window_start="2013-03-01", window_end="2013-04-01"
    )

    _, _, request = execute(operator, training(), context(event(APRIL, request=ID)))

    assert "requests" not in request.payload


def test_a_repeated_event_ends_the_run_as_skipped_and_says_which_run_does_it(execute: Any) -> None:
    given = context(event(MARCH, request=ID))
    repeated = training(repeat="Nothing to do: it is MLflow run x already.")

    with pytest.raises(AirflowSkipException, match="MLflow run x already"):
        execute(PlanRunOperator(task_id="t", train={"length": "1 month"}), repeated, given)

    assert given["ti"]["return_value"]["repeat"] == repeated.repeat


def test_what_tasks_are_mapped_over_names_no_hundreds_of_features_for_every_window(execute: Any) -> None:
    wide = MODEL.model_copy(update={"features": tuple(f"column_{number}" for number in range(400))})
    day = timedelta(days=1)
    windows = tuple(
        MonitoredWindow(window=Window(start=MARCH.start + n * day, end=MARCH.start + (n + 1) * day), model=wide)
        for n in range(20)
    )
    plan = MonitoringPlan(windows=windows, reason="r", experiment_id="1", parent_run_id="p")

    returned, pushed, _ = execute(
        PlanMonitoringOperator(task_id="t", registered_model="flights"), plan, context(event(MARCH))
    )

    assert len(json.dumps(returned)) < 16_000
    assert returned[0]["monitored"]["model"]["profile_uri"] == wide.profile_uri
    assert pushed["plan"]["models"][0]["features"] == list(wide.features or ())


def test_a_quarter_of_daily_windows_fits_into_a_monitoring_plan_and_comes_back_whole() -> None:
    day = timedelta(days=1)
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    models = [MODEL, MODEL.model_copy(update={"version": 9, "features": tuple(f"column_{n}" for n in range(40))})]
    windows = tuple(
        MonitoredWindow(
            window=Window(start=begin + n * day, end=begin + (n + 1) * day),
            model=models[n % 2],
            scoring_run_id="0123456789abcdef0123456789abcdef",
        )
        for n in range(90)
    )
    plan = MonitoringPlan(windows=windows, reason="r", experiment_id="1", parent_run_id="p")

    carried = plan.to_xcom()

    assert len(carried["models"]) == 2
    assert MonitoringPlan.from_xcom(carried) == plan
