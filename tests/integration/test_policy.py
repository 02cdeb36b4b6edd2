"""The policy step on a real MLflow server: what is remembered, what is asked for once, and the rollback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import (
    ColumnDrift,
    DriftReport,
    PerformanceReport,
    PolicyDecision,
    ServedModel,
)
from airflow_mlops.core.notices import Place, notice_of
from airflow_mlops.core.policy import request_id
from airflow_mlops.core.record import Window
from airflow_mlops.engines import monitoring_state, promotions, request_log, runs
from airflow_mlops.engines.monitoring_state import read_states, window_run, write_state
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps import policy
from tests.support.candidates import Bench, make_bench, month

RETRAIN = {"drift": {"action": "retrain"}, "cool_down": "40 days"}


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("policy"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(promotions, "CONFIRM_SECONDS", 0.01)
    monkeypatch.setattr(request_log, "SETTLE_SECONDS", 0.0)
    # Pictures are tried by their own tests; these draw none.
    monkeypatch.setattr(policy, "PICTURES", "airflow_mlops.engines.no_pictures_here")
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"policy.{name}"[:90].rstrip("-"))


def model(bench: Bench, version: int) -> ServedModel:
    return ServedModel(name=bench.name, version=version, model_uri="models:/m", artifact_uri="a")


def drift(bench: Bench, number: int, verdict: Any = "drift", *, version: int = 1, **other: Any) -> DriftReport:
    columns = (
        ColumnDrift(column="temp", kind="numeric", method="psi", value=0.61, threshold=0.25, drifted=True),
        ColumnDrift(column="hour", kind="numeric", method="psi", value=0.01, threshold=0.25),
    )
    values: dict[str, Any] = {
        "verdict": verdict, "sentence": "s", "window": month(number), "model": model(bench, version),
        "reference": "its profile", "row_count": 1_000, "compared_count": 2,
        "drifted_count": int(verdict == "drift"), "share": 0.5 if verdict == "drift" else 0.0,
        "columns": columns if verdict == "drift" else columns[1:],
    }  # fmt: skip
    return DriftReport(**{**values, **other})


def realised(bench: Bench, number: int, auc: float, *, version: int = 1, **other: Any) -> PerformanceReport:
    values: dict[str, Any] = {
        "state": "final", "sentence": "s", "window": month(number), "model": model(bench, version),
        "row_count": 1_000, "labelled_count": 960, "coverage": 0.96, "metrics": {"roc_auc": auc},
        "promised": {"roc_auc": 0.70}, "other_metrics": {"roc_auc": 0.55},
    }  # fmt: skip
    return PerformanceReport(**{**values, **other})


def apply(bench: Bench, *reports: Any, run: str = "run", task: str = "act", **payload: Any) -> PolicyDecision:
    """Perform the step as a task of the run ``run``."""
    values = {
        "drift": [one.to_xcom() for one in reports if isinstance(one, DriftReport)],
        "performance": [one.to_xcom() for one in reports if isinstance(one, PerformanceReport)],
        "monitoring": RETRAIN,
        "registered_model": bench.name,
        "author": f"airflow:monitor/{run}/{task}",
        **payload,
    }
    made = bench.step("policy", values, key=f"monitor/{bench.name}.{run}/{task}/-1")
    assert isinstance(made, PolicyDecision)
    return made


def experiment(bench: Bench) -> str:
    return runs.experiment_id(bench.client, bench.experiment_name)


def states(bench: Bench) -> list[Any]:
    return read_states(bench.client, experiment(bench), bench.name)


def requests(bench: Bench) -> list[Window]:
    log = request_log.read_log(bench.client, experiment(bench), bench.name)
    return [one.window for one in log.requests]


def end(bench: Bench, request: str) -> None:
    """Answer a request with a training run that has come to its end."""
    run = bench.client.create_run(experiment(bench), tags={"airflow_mlops.requests": request})
    bench.client.set_terminated(run.info.run_id, "FINISHED")


def test_a_breach_asks_for_a_retrain_and_the_window_remembers_it(bench: Bench) -> None:
    bench.serve(1)

    made = apply(bench, drift(bench, 6, "none"), drift(bench, 7))

    assert (made.action, made.window, made.request) == ("retrain", month(7), request_id(bench.name, month(7)))
    assert made.champion_version == 1
    assert made.champion_age_days is not None
    assert 0 <= made.champion_age_days < 1
    june, july = states(bench)
    assert (june.drift_verdict, june.drifted_columns, june.action) == ("none", {}, "none")
    assert (july.drift_verdict, july.drift_share, july.drifted_columns) == ("drift", 0.5, {"temp": 0.61})
    assert (july.version, july.rows, july.action, july.request) == (1, 1_000, "retrain", made.request)
    assert datetime.now(UTC) - datetime.fromisoformat(july.asked_at) < timedelta(minutes=5)
    run = bench.client.get_run(july.run_id)
    assert run.data.metrics == {"drift_share": 0.5, "drifted_columns": 1.0, "rows": 1_000.0}
    assert run.data.tags["airflow_mlops.kind"] == "monitoring"


def test_the_same_task_tried_again_gives_the_same_and_another_run_of_the_window_asks_for_nothing(bench: Bench) -> None:
    made = apply(bench, drift(bench, 7))

    assert apply(bench, drift(bench, 7)) == made
    again = apply(bench, drift(bench, 7), run="rerun")
    assert (again.action, again.suppressed, again.request) == ("none", "already_acted", made.request)
    assert requests(bench) == [month(7)]


def test_a_task_killed_after_its_request_finishes_it_when_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:

    def die(reached: str) -> None:
        if reached == "after-request":
            raise KeyboardInterrupt(reached)

    monkeypatch.setattr(request_log, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        apply(bench, drift(bench, 7))
    monkeypatch.setattr(request_log, "pause", lambda reached: None)

    made = apply(bench, drift(bench, 7))
    assert (made.action, made.request) == ("retrain", request_id(bench.name, month(7)))
    assert "temp" in made.breaches[0]
    assert requests(bench) == [month(7)]
    assert states(bench)[0].request == made.request


def test_a_task_killed_after_its_request_finishes_it_though_its_inputs_have_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:

    def die(reached: str) -> None:
        if reached == "after-request":
            raise KeyboardInterrupt(reached)

    monkeypatch.setattr(request_log, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        apply(bench, drift(bench, 7))
    monkeypatch.setattr(request_log, "pause", lambda reached: None)

    made = apply(bench, drift(bench, 7, row_count=1_001))
    assert (made.action, made.request) == ("retrain", request_id(bench.name, month(7)))
    assert requests(bench) == [month(7)], "it was asked for once"
    end(bench, made.request)
    again = apply(bench, drift(bench, 7, row_count=1_002))
    assert (again.action, again.suppressed) == ("none", "already_acted"), "somebody has taken it up"


def test_under_way_then_cool_down_then_one_more(bench: Bench) -> None:
    asked = apply(bench, drift(bench, 5), run="may")

    during = apply(bench, drift(bench, 6), run="june")
    end(bench, asked.request)
    cooling = apply(bench, drift(bench, 6), run="june")
    later = apply(bench, drift(bench, 7), run="july")

    assert (during.action, during.suppressed) == ("none", "retrain_under_way")
    assert cooling.suppressed == "cool_down", "a decision of which nothing followed is looked at again"
    assert cooling.action == "none"
    assert (later.action, later.suppressed) == ("retrain", "")
    assert requests(bench) == [month(5), month(7)]


def test_a_backfill_remembers_and_stays_silent(bench: Bench) -> None:

    made = apply(bench, drift(bench, 6), drift(bench, 7), backfill=True)

    assert (made.action, made.suppressed) == ("none", "backfill")
    assert len(states(bench)) == 2
    assert requests(bench) == []


def test_people_are_told_once_by_whichever_task_comes_first(bench: Bench) -> None:

    first = apply(bench, drift(bench, 7), monitoring={})
    tried_again = apply(bench, drift(bench, 7), monitoring={})
    rule = {"performance": {"metric": "roc_auc", "max_drop": 0.05}}
    later = apply(bench, realised(bench, 7, 0.6), task="act_on_performance", monitoring=rule)

    assert (first.action, tried_again) == ("notify", first)
    assert (later.action, len(later.breaches)) == ("notify", 2)
    assert states(bench)[0].told.keys() == {"drift", "performance"}


def test_a_breach_in_the_cool_down_is_told_by_one_of_the_two_tasks_that_see_it(bench: Bench) -> None:
    place = Place(model=bench.name, step="policy", dag_id="d", run_id="r", task_id="t")
    end(bench, apply(bench, drift(bench, 7)).request)

    first = apply(bench, drift(bench, 8), run="august")
    later = apply(bench, realised(bench, 8, 0.7), run="august", task="act_on_performance")

    assert first.suppressed == "cool_down"
    assert notice_of(first, place) is not None
    assert later.action == "none"
    assert notice_of(later, place) is None


def test_drift_and_performance_of_a_window_are_remembered_side_by_side_and_replaced(bench: Bench) -> None:
    write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, 7, "none"))
    performance = realised(bench, 7, 0.66, state="provisional")
    write_state(bench.client, experiment(bench), bench.name, performance=performance)
    write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, 7))
    write_state(bench.client, experiment(bench), bench.name, performance=realised(bench, 7, 0.65))

    (state,) = states(bench)
    assert (state.drift_verdict, state.rows, state.labelled) == ("drift", 1_000, 960)
    assert (state.performance, state.promised, state.performance_state) == (
        {"roc_auc": 0.65},
        {"roc_auc": 0.7},
        "final",
    )
    assert (state.other_performance, state.coverage) == ({"roc_auc": 0.55}, 0.96)


def test_figures_of_a_version_whose_scoring_was_replaced_are_left_out(bench: Bench) -> None:
    write_state(bench.client, experiment(bench), bench.name, performance=realised(bench, 7, 0.65, version=1))
    write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, 7, "none", version=2))

    (state,) = states(bench)
    assert (state.version, state.performance, state.drift_verdict) == (2, {}, "none")


def test_the_newest_windows_are_read_oldest_first_whatever_order_they_came_in(bench: Bench) -> None:
    for number in (7, 3, 12, 5, 9):
        write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, number, "none"))

    found = read_states(bench.client, experiment(bench), bench.name, most=3)

    assert [state.window for state in found] == [month(7), month(9), month(12)]


def test_a_window_is_judged_however_many_newer_ones_there_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels come weeks later, and with windows of an hour that is hundreds of windows later."""
    monkeypatch.setattr(policy, "MAX_STATES", 2)
    monkeypatch.setattr(monitoring_state, "_PAGE", 2)
    for number in range(1, 8):
        write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, number, "none"))

    rule = {"performance": {"metric": "roc_auc", "max_drop": 0.05}}
    made = apply(bench, realised(bench, 3, 0.6), monitoring=rule)

    assert (made.action, made.window) == ("notify", month(3))
    read = read_states(bench.client, experiment(bench), bench.name, most=2, back_to=month(3).end)
    assert [state.window for state in read] == [month(number) for number in range(2, 8)]


def test_two_runs_that_were_made_for_one_window_at_once_are_read_as_one(bench: Bench) -> None:
    """The look right after creating can miss a rival whose create call was still under way."""
    run = window_run(bench.client, experiment(bench), bench.name, month(7))
    write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, 7))
    twin = bench.client.create_run(experiment(bench), start_time=run.info.start_time - 5, tags=dict(run.data.tags))
    write_state(bench.client, experiment(bench), bench.name, performance=realised(bench, 7, 0.6))

    (state,) = states(bench)
    assert "airflow_mlops.performance_state" in bench.client.get_run(twin.info.run_id).data.tags
    assert (state.drift_verdict, state.performance) == ("drift", {"roc_auc": 0.6})


def test_a_state_stays_within_a_tag_however_much_drifted(bench: Bench) -> None:
    columns = tuple(
        ColumnDrift(column=f"{n:04}" * 50, kind="numeric", method="psi", value=1 / (n + 1), drifted=True)
        for n in range(30)
    )
    figures = {f"metric_{n}_" * 20: 0.5 for n in range(20)}

    write_state(
        bench.client,
        experiment(bench),
        bench.name,
        drift=drift(bench, 7, columns=columns),
        performance=realised(bench, 7, 0.6, metrics={"roc_auc": 0.6}, other_metrics=figures),
    )

    (state,) = states(bench)
    assert 10 < len(state.drifted_columns) < 30
    assert next(iter(state.drifted_columns)) == "0000" * 50, "the farthest stay"
    assert state.performance == {"roc_auc": 0.6}


def test_a_tag_that_somebody_edited_is_no_evidence(bench: Bench) -> None:
    run_id = write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, 7))
    write_state(bench.client, experiment(bench), bench.name, drift=drift(bench, 8, "none"))
    bench.client.set_tag(run_id, "airflow_mlops.drift_state", '{"version": 1, "rows": "many"}')

    assert [state.window for state in states(bench)] == [month(8)]


def test_a_report_without_window_is_an_error_that_says_why(bench: Bench) -> None:
    with pytest.raises(InvalidSpecError, match=r"no window.*data\.event_time"):
        apply(bench, drift(bench, 7, window=None))


def test_no_report_at_all_decides_nothing(bench: Bench) -> None:
    made = apply(bench, drift=None, performance=[None])

    assert (made.action, made.states, made.champion_version) == ("none", 0, None)


ROLLBACK = {"drift": {"action": "rollback"}, "cool_down": "40 days"}


def test_a_rollback_is_done_once_and_audited(bench: Bench) -> None:
    bench.serve(1, 2)

    made = apply(bench, drift(bench, 7, version=2), monitoring=ROLLBACK)
    again = apply(bench, drift(bench, 7, version=2), monitoring=ROLLBACK)

    assert again == made
    assert (made.action, made.champion_version, made.entry) == ("rollback", 1, 3)
    assert bench.alias() == 1
    body = read_ledger(bench.client, bench.name, "champion").head.body  # type: ignore[union-attr]
    assert (body.action, body.author) == ("rollback", "airflow:monitor/run/act")
    assert "temp 0.6100" in body.reason
    assert f"champion of '{bench.name}' is version 1 since entry 3" in made.sentence
    # Version 1 drifts as well, and is not rolled back in turn.
    other = apply(bench, drift(bench, 8, version=1), run="august", monitoring=ROLLBACK)
    assert (other.action, other.suppressed, bench.alias()) == ("none", "cool_down", 1)


def test_a_rollback_killed_after_its_request_is_finished_when_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve(1, 2)

    def die(reached: str) -> None:
        raise KeyboardInterrupt(reached)

    monkeypatch.setattr(promotions, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        apply(bench, drift(bench, 7, version=2), monitoring=ROLLBACK)
    monkeypatch.setattr(promotions, "pause", lambda reached: None)

    assert apply(bench, drift(bench, 7, version=2), monitoring=ROLLBACK).entry == 3
    assert (bench.alias(), read_ledger(bench.client, bench.name, "champion").number) == (1, 3)


def test_without_a_version_before_people_are_told_that_nothing_was_rolled_back(bench: Bench) -> None:
    bench.serve(1)

    made = apply(bench, drift(bench, 7), monitoring=ROLLBACK)

    assert (made.action, made.champion_version, made.entry) == ("notify", 1, None)
    assert "A rollback was due and did not happen: refused: Version 1" in made.sentence


def test_a_version_promoted_meanwhile_is_not_rolled_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict was about the version before."""
    bench.serve(1, 2)

    def promote(reached: str) -> None:
        if reached == "after-request":
            bench.promote(bench.register("three", entry=2, window=month(9)), key="three")

    monkeypatch.setattr(request_log, "pause", promote)
    made = apply(bench, drift(bench, 7, version=2), monitoring=ROLLBACK)

    assert made.action == "notify"
    assert "version 2 was judged, and version 3 serves by now" in made.sentence
    assert bench.alias() == 3


def test_somebody_who_asks_between_reading_and_asking_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    raced = []

    def interfere(reached: str) -> None:
        if reached == "before-request" and not raced:
            raced.append(True)
            assert apply(bench, drift(bench, 8), run="august").action == "retrain"

    monkeypatch.setattr(request_log, "pause", interfere)
    made = apply(bench, drift(bench, 7), run="july")

    assert (made.action, made.suppressed) == ("none", "already_acted"), "a newer window asked"
    assert requests(bench) == [month(8)]


def test_pictures_are_linked_and_one_that_fails_is_a_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    drawing = ModuleType("drawing_for_this_test")
    drawing.__spec__ = sys.__spec__

    def log_pictures(client: Any, run_id: str, folder: Any, found: Any, promoted: Any) -> str:
        seen.append((folder.is_dir(), [one.window for one in found], [line.to_version for line in promoted]))
        if len(seen) > 1:
            raise RuntimeError("no colour left")
        return f"runs:/{run_id}/pictures"

    drawing.log_pictures = log_pictures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "drawing_for_this_test", drawing)
    monkeypatch.setattr(policy, "PICTURES", "drawing_for_this_test")
    bench.serve(1)

    made = apply(bench, drift(bench, 7, "none"))
    assert made.pictures_uri == f"runs:/{made.run_id}/pictures"
    assert seen[0] == (True, [month(7)], [1])
    with caplog.at_level(logging.WARNING):
        failed = apply(bench, drift(bench, 8), run="august")
    assert (failed.action, failed.pictures_uri) == ("retrain", "")
    assert "no colour left" in caplog.text
