"""What follows from the windows, as a pure function: N of M, cool-down, once, and who holds what back."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import WindowState
from airflow_mlops.core.policy import Decided, Request, decide, request_id
from airflow_mlops.core.record import Window
from airflow_mlops.spec.monitoring import MonitoringSpec

NOW = datetime(2013, 12, 1, tzinfo=UTC)
MODEL = "flights"


def month(number: int) -> Window:
    return Window(start=datetime(2013, number, 1), end=datetime(2013 + number // 12, number % 12 + 1, 1))


def drift(number: int, verdict: Any = "drift", *, rows: int = 1_000, version: int = 1, **other: Any) -> WindowState:
    values: dict[str, Any] = {"drift_share": 0.4, "drifted_columns": {"temp": 0.61, "dewp": 0.5}}
    counts = {"drifted_count": 2, "compared_count": 5}
    found = values | counts if verdict == "drift" else {}
    return WindowState(window=month(number), version=version, rows=rows, **{"drift_verdict": verdict, **found, **other})


def realised(number: int, auc: float | None, *, promised: float | None = 0.70, **other: Any) -> WindowState:
    figures: dict[str, Any] = {"performance": {"auc": auc}, "promised": {"auc": promised}, "performance_state": "final"}
    return WindowState(window=month(number), version=1, rows=1_000, **{**figures, "labelled": 950, **other})


def spec(action: str = "retrain", breaches: int = 1, of_last: int = 1, **other: Any) -> MonitoringSpec:
    rule = {"action": action, "breaches": breaches, "of_last": of_last}
    return MonitoringSpec.model_validate({"drift": rule, "cool_down": "35 days", **other})


def by_performance(action: str = "retrain", **rule: Any) -> MonitoringSpec:
    return spec("notify", performance={"metric": "auc", "max_drop": 0.03, "action": action, **rule})


def run(states: list[WindowState], policy: MonitoringSpec, *numbers: int, **other: Any) -> Decided:
    windows = [month(number) for number in numbers] or [max((s.window for s in states), key=lambda w: w.end)]
    return decide(states, policy, model=MODEL, windows=windows, **{"now": NOW, **other})


def asked(number: int, **other: Any) -> Request:
    values: dict[str, Any] = {"action": "retrain", "asked_at": NOW - timedelta(days=3), "answered": True, "ended": True}
    return Request(**{"id": request_id(MODEL, month(number)), "window": month(number), **values, **other})


def test_a_breach_asks_for_what_the_rule_says_and_tells_what_how_far_and_which_window() -> None:
    decision = run([drift(6, "none"), drift(7)], spec()).decision

    assert (decision.action, decision.suppressed, decision.window) == ("retrain", "", month(7))
    assert decision.request == request_id(MODEL, month(7))
    assert decision.reason == (
        "2 of 5 columns drifted in [2013-07-01, 2013-08-01): temp 0.6100, dewp 0.5000. One such window is a breach."
    )
    assert "A retrain over [2013-07-01, 2013-08-01) is asked for" in decision.sentence


def test_no_breach_says_so() -> None:
    decision = run([drift(7, "none")], spec()).decision

    assert (decision.action, decision.breaches, decision.request) == ("none", (), "")
    assert decision.sentence == ("flights: no rule is breached up to [2013-07-01, 2013-08-01). Nothing follows.")


def test_nothing_at_all_is_no_breach() -> None:
    assert decide([], spec(), model=MODEL, windows=[], now=NOW).decision.action == "none"


@pytest.mark.parametrize(
    ("verdicts", "acts"),
    [
        pytest.param(["drift"], False, id="one of three is not two"),
        pytest.param(["drift", "drift"], True, id="two of the only two there are"),
        pytest.param(["drift", "none", "drift"], True, id="two of three"),
        pytest.param(["drift", "none", "none", "drift"], False, id="the first is out of the last three"),
        pytest.param(["drift", "drift", "none"], False, id="the newest does not breach"),
        pytest.param(
            ["drift", "insufficient", "insufficient", "none", "drift"], True, id="insufficient takes no place"
        ),
        pytest.param(["none", "drift", "insufficient"], False, id="insufficient is no breach"),
        pytest.param(["drift", "drift", "insufficient"], False, id="insufficient judges nothing anew"),
        pytest.param(["drift", "schema_broken", "drift"], True, id="broken data stands between two drifts"),
    ],
)
def test_two_of_the_last_three(verdicts: list[str], acts: bool) -> None:
    states = [drift(number, verdict) for number, verdict in enumerate(verdicts, start=1)]

    assert (run(states, spec(breaches=2, of_last=3)).decision.action == "retrain") is acts


def test_windows_with_few_rows_do_not_count_and_the_note_says_so() -> None:
    states = [drift(1), drift(2, rows=499), drift(3, "none"), drift(4)]

    decision = run(states, spec(breaches=2, of_last=2), 4).decision
    assert decision.action == "none"
    assert run(states, spec(breaches=2, of_last=3), 4).decision.action == "retrain"
    small = run([drift(1, rows=499)], spec()).decision
    assert small.action == "none"
    assert small.notes == ("[2013-01-01, 2013-02-01) has 499 rows, and 500 are needed to count (monitoring.min_rows).",)


def test_since_when_is_the_first_of_the_unbroken_row() -> None:
    states = [drift(number, "none" if number == 3 else "drift") for number in range(1, 7)]

    assert "every one since [2013-04-01, 2013-05-01)." in run(states, spec(breaches=2, of_last=3)).decision.reason


@pytest.mark.parametrize("wanted", ["retrain", "rollback"])
def test_broken_data_is_told_and_nothing_is_retrained_on_it(wanted: str) -> None:
    decision = run([drift(1, "none"), drift(2, "schema_broken")], spec(wanted)).decision

    assert (decision.action, decision.request) == ("notify", "")
    assert "mend the feed" in decision.sentence


def test_broken_data_completes_a_breach_only_for_telling() -> None:
    states = [drift(1, "none"), drift(2, "schema_broken"), drift(3)]

    assert run(states, spec(breaches=2, of_last=3)).decision.action == "notify"
    assert run(states, spec("notify", breaches=2, of_last=3)).decision.action == "notify"


def test_a_metric_in_a_broken_window_rolls_nothing_back() -> None:
    state = realised(1, 0.5, drift_verdict="schema_broken")

    assert run([state], by_performance("rollback")).decision.action == "notify"


@pytest.mark.parametrize(
    ("auc", "promised", "other", "acts"),
    [
        pytest.param(0.60, 0.70, {}, True, id="worse by more than allowed"),
        pytest.param(0.67, 0.70, {}, False, id="exactly what is allowed, though not in binary"),
        pytest.param(0.75, 0.70, {}, False, id="better"),
        pytest.param(0.60, 0.70, {"performance_state": "provisional"}, False, id="provisional does not count"),
        pytest.param(None, 0.70, {}, False, id="not measured"),
        pytest.param(0.60, None, {}, False, id="nothing promised"),
        pytest.param(0.60, 0.70, {"labelled": 12}, False, id="a handful of labels"),
        pytest.param(0.75, 0.70, {"lower_is_better": ("auc",)}, True, id="less is better: more is worse"),
        pytest.param(0.60, 0.70, {"lower_is_better": ("auc",)}, False, id="less is better: less is fine"),
    ],
)
def test_performance_is_measured_against_the_promise(auc: Any, promised: Any, other: Any, acts: bool) -> None:
    decision = run([realised(1, auc, promised=promised, **other)], by_performance()).decision

    assert (decision.action == "retrain") is acts
    if None in (auc, promised) or other.get("performance_state") or other.get("labelled"):
        assert len(decision.notes) == 1, "what could not be judged is said"


def test_provisional_figures_count_where_the_rule_says_so_and_are_named() -> None:
    decision = run([realised(1, 0.6, performance_state="provisional")], by_performance(provisional=True)).decision

    assert decision.action == "retrain"
    assert decision.reason == (
        "auc of version 1 on [2013-01-01, 2013-02-01) is 0.6000 where 0.7000 was promised (provisional): worse by "
        "0.1000, and 0.03 is allowed. One such window is a breach."
    )


@pytest.mark.parametrize(
    ("drift_action", "performance_action", "expected"),
    [("retrain", "rollback", "rollback"), ("retrain", "notify", "retrain"), ("notify", "retrain", "retrain")],
)
def test_of_two_breaches_the_strongest_follows_once(drift_action: str, performance_action: str, expected: str) -> None:
    state = realised(1, 0.5, drift_verdict="drift")
    rule = {"metric": "auc", "max_drop": 0.03, "action": performance_action}

    decided = run([state], spec(drift_action, performance=rule))

    assert decided.decision.action == expected
    assert len(decided.decision.breaches) == 2
    assert {one.rule for one in decided.acted} == {"drift", "performance"}


@pytest.mark.parametrize(
    ("number", "request_of", "expected"),
    [
        pytest.param(7, asked(7), "already_acted", id="a window asks once"),
        pytest.param(6, asked(7), "already_acted", id="a newer window asked"),
        pytest.param(8, asked(7), "cool_down", id="31 days after, of 35"),
        pytest.param(9, asked(7), "", id="61 days after"),
        pytest.param(9, asked(7, ended=False, asked_at=NOW), "retrain_under_way", id="it is still running"),
        pytest.param(8, asked(7, ended=False, asked_at=NOW), "retrain_under_way", id="running counts before cool-down"),
        pytest.param(8, asked(7, ended=False), "cool_down", id="taken up and lost: no longer waited for, still cools"),
        pytest.param(8, asked(7, ended=False, answered=False), "", id="nobody took it up in time"),
        pytest.param(7, asked(7, ended=False, answered=False), "already_acted", id="but the window itself asks once"),
    ],
)
def test_what_holds_a_retrain_back(number: int, request_of: Request, expected: str) -> None:
    decision = run([drift(number)], spec(), requests=[request_of]).decision

    assert decision.suppressed == expected
    assert decision.action == ("retrain" if expected == "" else "none")
    assert decision.breaches, "what breached is told all the same"
    if expected == "already_acted":
        assert decision.request == request_id(MODEL, month(number))
    if expected in ("cool_down", "retrain_under_way"):
        assert "by [2013-07-01, 2013-08-01) at" in decision.sentence
        assert decision.request == ""


def test_a_retrain_that_is_held_back_does_not_silence_the_weaker_rule() -> None:
    state = realised(8, 0.5, drift_verdict="drift")
    rule = {"metric": "auc", "max_drop": 0.03, "action": "notify"}

    decision = run([state], spec(performance=rule), requests=[asked(7)]).decision

    assert (decision.action, decision.suppressed) == ("notify", "")
    assert len(decision.breaches) == 2


def test_people_are_told_once_but_of_each_rule_and_by_a_task_tried_again() -> None:
    told = drift(7, told={"drift": "monitor/run/act/-1"})
    policy = spec("notify")

    assert run([told], policy, me="another").decision.suppressed == "already_acted"
    assert run([told], policy, me="monitor/run/act/-1").decision.action == "notify"
    both = realised(7, 0.5, drift_verdict="drift", told={"drift": "x"})
    assert run([both], by_performance("notify"), me="another").decision.action == "notify"


@pytest.mark.parametrize(
    "request_of", [pytest.param(asked(7), id="cool-down"), pytest.param(asked(7, ended=False, asked_at=NOW), id="runs")]
)
def test_of_a_breach_that_is_held_back_people_are_told_once(request_of: Request) -> None:
    """Drift and performance of a window are decided on by two tasks, maybe weeks apart: the later repeats nothing."""
    first = run([drift(8)], spec(), requests=[request_of], me="act_on_drift")
    told = {one.topic: "act_on_drift" for one in first.told}
    again = run([drift(8, told=told)], spec(), requests=[request_of], me="act_on_drift").decision
    later = run([drift(8, told=told)], spec(), requests=[request_of], me="act_on_performance").decision

    assert first.decision == again, "a task tried again says the same"
    assert (later.action, later.suppressed, later.request) == ("none", "already_acted", "")
    assert "told of it before" in later.sentence
    assert run([drift(8, told=told)], spec(), me="act_on_performance").decision.action == "retrain", "nothing holds it"


def test_of_two_breaches_that_are_held_back_the_one_that_nobody_knows_is_told() -> None:
    state = realised(8, 0.5, drift_verdict="drift", told={"drift": "act_on_drift"})
    policy = spec("rollback", performance={"metric": "auc", "max_drop": 0.03, "action": "retrain"})

    decided = run([state], policy, requests=[asked(7)], me="act_on_performance")

    assert decided.decision.suppressed == "cool_down"
    assert "auc" in decided.decision.reason
    assert [one.rule for one in decided.told] == ["performance"]


def test_a_window_that_was_told_of_as_broken_is_told_of_again_where_its_mended_data_drifts() -> None:
    broken = run([drift(7, "schema_broken")], spec("notify"), me="first")
    told = {one.topic: "first" for one in broken.told}

    assert run([drift(7, "schema_broken", told=told)], spec("notify"), me="second").decision.action == "none"
    assert run([drift(7, told=told)], spec("notify"), me="second").decision.action == "notify"


def test_what_the_task_asked_for_itself_does_not_hold_it_back() -> None:
    mine = asked(7, by="me", ended=False, asked_at=NOW)

    assert run([drift(7)], spec(), requests=[mine], me="me").decision.action == "retrain"
    assert run([drift(7)], spec(), requests=[mine], me="you").decision.suppressed == "already_acted"


def test_a_backfill_is_silent_unless_asked() -> None:
    decision = run([drift(7)], spec(), backfill=True).decision

    assert (decision.action, decision.suppressed, len(decision.breaches)) == ("none", "backfill", 1)
    assert run([drift(7, "none")], spec(), backfill=True).decision.suppressed == ""
    assert run([drift(7)], spec(act_in_backfill=True), backfill=True).decision.action == "retrain"
    assert run([drift(7)], spec("notify"), backfill=True).decision.action == "none"


@pytest.mark.parametrize("serves", [pytest.param(2, id="promoted"), pytest.param(0, id="rolled back")])
def test_windows_of_another_version_than_the_one_that_serves_do_not_count(serves: int) -> None:
    states = [drift(5), drift(6), drift(7, version=serves)]

    decision = run(states, spec(breaches=2, of_last=3), champion=serves).decision
    assert decision.action == "none"
    late = run(states, spec(), 6, champion=serves).decision
    assert (late.action, late.breaches) == ("none", ())
    assert late.notes == (
        f"[2013-06-01, 2013-07-01) was scored by version 1, and version {serves} serves now: it does not count.",
    )


def test_a_late_window_can_complete_the_breach_of_a_newer_one() -> None:
    """The newest window is asked for, whichever arrived last."""
    decision = run([drift(6), drift(7)], spec(breaches=2, of_last=2), 6).decision

    assert (decision.action, decision.window) == ("retrain", month(7))


def test_old_breaches_that_the_run_has_no_part_in_are_left_alone() -> None:
    """A silent backfill's breaches do not go off when the next window comes, however it is."""
    assert run([drift(3), drift(4), drift(7, "none")], spec(), 7).decision.action == "none"


def test_collapsed_windows_are_decided_once_over_the_newest() -> None:
    decided = run([drift(5), drift(6), drift(7)], spec(), 5, 6, 7)

    assert decided.decision.window == month(7)
    assert len(decided.decision.breaches) == 1


def test_a_good_older_window_is_retrained_on_where_the_newest_is_broken() -> None:
    decision = run([drift(6), drift(7, "schema_broken")], spec(), 6, 7).decision

    assert (decision.action, decision.window) == ("retrain", month(6))


def test_the_order_in_which_states_are_read_is_no_matter() -> None:
    states = [drift(n, v) for n, v in enumerate(["drift", "none", "insufficient", "drift", "none", "drift"], start=1)]
    requests = [asked(1), asked(4, ended=False, asked_at=NOW)]
    expected = run(states, spec(breaches=2, of_last=3), 6, requests=requests)

    for seed in range(50):
        shuffled = random.Random(seed).sample(states, len(states))
        assert run(shuffled, spec(breaches=2, of_last=3), 6, requests=requests[::-1]) == expected


class Life:
    """Windows that arrive one after another, each decided on as it comes, as runs on a scheduler do."""

    def __init__(self, policy: MonitoringSpec) -> None:
        self.policy = policy
        self.states: dict[Window, WindowState] = {}
        self.requests: list[Request] = []

    def arrive(self, state: WindowState) -> str:
        self.states[state.window] = state
        decision = decide(
            self.states.values(),
            self.policy,
            model=MODEL,
            windows=[state.window],
            now=NOW,
            requests=self.requests,
            champion=1,
        ).decision
        if decision.action == "retrain":
            assert decision.request not in [one.id for one in self.requests], "a window asked twice"
            window = decision.window
            assert window is not None
            values: dict[str, Any] = {"action": "retrain", "asked_at": NOW, "answered": True, "ended": True}
            self.requests.append(Request(id=decision.request, window=window, **values))
        return decision.action


@pytest.mark.parametrize(
    "verdicts",
    [
        pytest.param(["none", "drift", "drift", "none", "drift"], id="a row"),
        pytest.param(["drift", "insufficient", "drift", "schema_broken", "drift"], id="with gaps"),
        pytest.param(["drift", "drift", "drift", "drift", "drift"], id="all"),
    ],
)
def test_in_whatever_order_windows_arrive_and_are_run_again_one_retrain_is_asked_for(verdicts: list[str]) -> None:
    """The cool-down is longer than the year, so one is all there may be; each window is then run a second time."""
    policy = spec(breaches=2, of_last=3, cool_down="2 years")
    states = [drift(number, verdict) for number, verdict in enumerate(verdicts, start=1)]
    for order in itertools.permutations(states):
        life = Life(policy)
        for state in (*order, *order):
            life.arrive(state)
        assert len(life.requests) == 1, [state.window for state in order]


def test_in_no_order_does_a_quiet_year_ask_for_anything() -> None:
    verdicts = ["none", "insufficient", "none", "schema_broken", "none"]
    states = [drift(number, verdict) for number, verdict in enumerate(verdicts, start=1)]
    for order in itertools.permutations(states):
        life = Life(spec(breaches=1, of_last=1))
        assert "retrain" not in [life.arrive(state) for state in (*order, *order)]


def test_after_the_cool_down_the_next_breach_asks_again() -> None:
    life = Life(spec(cool_down="40 days"))

    assert [life.arrive(drift(number)) for number in range(1, 8)] == [
        "retrain", "none", "retrain", "none", "retrain", "none", "retrain",
    ]  # fmt: skip


def test_a_window_that_was_mended_and_run_again_gets_its_verdict_anew() -> None:
    life = Life(spec())

    assert [life.arrive(drift(7, "schema_broken")), life.arrive(drift(7, "none")), life.arrive(drift(7))] == [
        "notify",
        "none",
        "retrain",
    ]


def test_a_long_story_stays_within_a_record() -> None:
    columns = {f"column_{number:04}" * 8: 0.5 for number in range(200)}
    states = [drift(number % 12 + 1, drifted_columns=columns, rows=499) for number in range(12)]

    decision = run([*states, drift(7, drifted_columns=columns)], spec(), *range(1, 13)).decision

    assert len(str(decision.to_xcom())) < 8_000
    assert len(decision.notes) <= 11
