"""What the policy's operator hands to its step, says, and emits."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops import ApplyPolicyOperator, TrackingServer
from airflow_mlops.compat import AirflowFailException, AirflowSkipException, AssetAlias
from airflow_mlops.core.monitoring_records import PolicyDecision
from airflow_mlops.core.record import Window
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.runtimes.inline import InlineRuntime
from tests.support.airflow_versions import OutletEvents, told

JULY = Window(start="2013-07-01", end="2013-08-01")
AUGUST = Window(start="2013-08-01", end="2013-09-01")


class Pushed(dict[str, Any]):
    """Stands in for the task instance: what the operator pushes."""

    dag_id, run_id, task_id, map_index, log_url = "d", "r", "t", -1, "http://airflow/log"

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value


class Emitted(list[Any]):
    """Stands in for an outlet's events."""

    def add(self, asset: Any, extra: Any) -> None:
        self.append(told(asset, extra))


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute the operator with a step that decides ``record``; returns what was pushed, emitted and asked."""

    def execute(operator: Any, record: PolicyDecision, run_type: str = "manual") -> tuple[Pushed, dict[str, Any], Any]:
        asked: list[Any] = []

        def step(self: InlineRuntime, request: Any, access: Any) -> Any:
            asked.append(request)
            return record

        monkeypatch.setattr(InlineRuntime, "run", step)
        monkeypatch.setattr(MLflowHook, "server", lambda self: TrackingServer(tracking_uri="http://mlflow:5000"))
        monkeypatch.setattr(MLflowHook, "login", lambda self: None)
        monkeypatch.setattr(type(operator), "log", logging.getLogger("the task's log"))
        events = OutletEvents(Emitted)
        context = {"ti": Pushed(), "dag_run": SimpleNamespace(run_type=run_type), "outlet_events": events}
        operator.execute(context)
        return context["ti"], {name: list(found) for name, found in events.items()}, asked[0]  # type: ignore[return-value]

    return execute


def operator(**other: Any) -> ApplyPolicyOperator:
    outlets = [AssetAlias(name="flights_retrain"), AssetAlias(name="flights_champion")]
    return ApplyPolicyOperator(task_id="t", registered_model="flights", outlets=outlets, **other)


def decided(action: Any, **other: Any) -> PolicyDecision:
    values: dict[str, Any] = {"sentence": "A sentence.", "window": JULY, "reason": "temp drifted", "request": "q"}
    return PolicyDecision(action=action, **{**values, **other})


def test_a_retrain_is_one_event_with_model_window_reason_and_request(
    execute: Any, caplog: pytest.LogCaptureFixture
) -> None:
    record = decided("retrain", breaches=("5 of 15 drifted.",), notes=("June is small.",))

    with caplog.at_level(logging.INFO):
        pushed, emitted, _ = execute(operator(), record)

    extra = {"model": "flights", "window": JULY.model_dump(mode="json"), "reason": "temp drifted", "request": "q"}
    assert emitted == {"flights_retrain": [("flights_retrain", extra)]}
    assert pushed["reasons"] == ["A sentence.", "5 of 15 drifted.", "June is small."]
    assert all(sentence in caplog.text for sentence in pushed["reasons"])


def test_a_task_tried_again_emits_the_same_again(execute: Any) -> None:
    """What was adopted may have been decided by an attempt that never emitted; consumers drop repeats."""
    first, again = (execute(operator(), decided("retrain"))[1] for _ in range(2))

    assert first == again


def test_a_rollback_is_an_event_of_the_champion(execute: Any) -> None:
    _, emitted, _ = execute(operator(), decided("rollback", champion_version=1, entry=3))

    ((name, extra),) = emitted["flights_champion"]
    assert list(emitted) == ["flights_champion"]
    assert (name, extra["version"], extra["entry"], extra["alias"]) == ("flights_champion", 1, 3, "champion")


@pytest.mark.parametrize("action", ["none", "notify"])
def test_nothing_else_is_an_event(execute: Any, action: Any) -> None:
    assert execute(operator(), decided(action, suppressed="cool_down" if action == "none" else ""))[1] == {}


class Lazy:
    """Stands in for what Airflow hands on of a mapped task: no list, and no mapping."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __iter__(self) -> Any:
        return iter(self._items)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(None, None, id="none"),
        pytest.param({"verdict": "drift"}, [{"verdict": "drift"}], id="one"),
        pytest.param([{"a": 1}, None], [{"a": 1}], id="a skipped window"),
        pytest.param(Lazy({"a": 1}, {"b": 2}), [{"a": 1}, {"b": 2}], id="a mapped task's"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_reports_come_alone_in_lists_and_from_mapped_tasks(execute: Any, given: Any, expected: Any) -> None:
    _, _, request = execute(operator(drift=given, performance=given), decided("none"))

    assert (request.payload["drift"], request.payload["performance"]) == (expected, expected)


@pytest.mark.parametrize(("run_type", "backfill"), [("backfill", True), ("asset_triggered", False)])
def test_the_step_is_told_who_decides_and_whether_it_is_a_backfill(execute: Any, run_type: str, backfill: bool) -> None:
    _, _, request = execute(operator(monitoring={"min_rows": 1}), decided("none"), run_type)

    rest = {key: request.payload[key] for key in ("monitoring", "registered_model", "alias", "backfill", "author")}
    assert rest == {
        "monitoring": {"min_rows": 1},
        "registered_model": "flights",
        "alias": "champion",
        "backfill": backfill,
        "author": "airflow:d/r/t",
    }


def planned(window: Window, scoring_run_id: str = "r") -> dict[str, Any]:
    return {"window": window.model_dump(mode="json"), "monitored": {"scoring_run_id": scoring_run_id}}


def first(window: Window, state: str = "provisional") -> dict[str, Any]:
    return {"window": window.model_dump(mode="json"), "state": state}


def report(window: Window) -> dict[str, Any]:
    return {"window": window.model_dump(mode="json")}


def test_a_window_without_report_fails_the_task_after_the_others_were_decided_on(execute: Any) -> None:
    act = operator(drift=[report(JULY)], planned=[planned(JULY), planned(AUGUST)])

    with pytest.raises(AirflowFailException, match=r"drift in 1 of 2 windows .*2013-08-01.*others is remembered"):
        execute(act, decided("notify"))


def test_an_event_goes_out_though_a_window_has_no_report(execute: Any) -> None:
    act = operator(drift=[report(JULY)], planned=[planned(JULY), planned(AUGUST)])

    pushed, emitted, _ = execute(act, decided("retrain"))

    assert list(emitted) == ["flights_retrain"]
    assert "2013-08-01" in pushed["reasons"][-1]


@pytest.mark.parametrize(
    ("given", "raises", "says"),
    [
        pytest.param({"drift": [], "planned": None}, AirflowFailException, "task that plans them", id="no plan"),
        pytest.param({"drift": [], "planned": [planned(JULY)]}, AirflowFailException, "1 of 1", id="all failed"),
        pytest.param({"performance": [], "planned": [planned(JULY)]}, AirflowFailException, "performance", id="labels"),
        pytest.param(
            {"performance": [], "planned": [planned(JULY, "")]}, AirflowSkipException, "scored", id="unscored"
        ),
        pytest.param({"performance": [], "planned": [first(JULY, "final")]}, AirflowSkipException, "final", id="final"),
        pytest.param({"performance": [], "planned": [first(JULY)]}, AirflowFailException, "1 of 1", id="provisional"),
        pytest.param({"performance": [], "planned": [None]}, AirflowSkipException, "no performance", id="no figures"),
    ],
)
def test_without_any_report_nothing_is_decided(execute: Any, given: Any, raises: Any, says: str) -> None:
    with pytest.raises(raises, match=says):
        execute(operator(**given), decided("none"))


def test_a_window_that_nobody_scored_is_not_missed_beside_one_with_figures(execute: Any) -> None:
    act = operator(performance=[report(JULY)], planned=[planned(JULY), planned(AUGUST, "")])

    assert execute(act, decided("none"))[0]["reasons"] == ["A sentence."]
