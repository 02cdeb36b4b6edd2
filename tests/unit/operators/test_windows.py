from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.core.records import Window
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.operators.context import last_complete_interval
from airflow_mlops.operators.windows import all_windows, anchor_window

MARCH = Window(start="2013-03-01", end="2013-04-01")
APRIL = Window(start="2013-04-01", end="2013-05-01")
AS_TEXT = MARCH.model_dump_json()


def context(run_type: str = "manual", interval: Window | None = None, events: Any = None) -> Any:
    dag_run = SimpleNamespace(
        run_type=run_type,
        data_interval_start=interval.start if interval else None,
        data_interval_end=interval.end if interval else None,
        run_after=datetime(2013, 4, 17, tzinfo=UTC),
        logical_date=None,
        start_date=None,
    )
    return {"dag_run": dag_run, "triggering_asset_events": events or {}}


def event(window: Window | str | None = None, source: Window | None = None, **extra: Any) -> Any:
    if window:
        extra["window"] = window.model_dump(mode="json") if isinstance(window, Window) else window
    run = SimpleNamespace(data_interval_start=source.start, data_interval_end=source.end) if source else None
    return SimpleNamespace(asset=SimpleNamespace(name="drift"), extra=extra, source_dag_run=run, partition_key=None)


def test_a_scheduled_run_takes_its_data_interval() -> None:
    assert anchor_window(context("scheduled", MARCH)) == (MARCH, "schedule, data interval [2013-03-01, 2013-04-01)")


def test_a_backfill_takes_its_own_interval() -> None:
    window, reason = anchor_window(context("backfill", MARCH))

    assert window == MARCH
    assert reason.startswith("backfill")


def test_parameters_win_over_the_interval() -> None:
    window, _ = anchor_window(context("manual", MARCH), start="2013-04-01", end="2013-05-01")

    assert window == APRIL


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([event(MARCH), event(APRIL), event(MARCH)], APRIL, id="the newest of several, whatever the order"),
        pytest.param([event(source=MARCH)], MARCH, id="the source run's interval"),
        pytest.param([event(AS_TEXT)], MARCH, id="as JSON text, which is what an event of Airflow 2.11 holds"),
        pytest.param([event(APRIL, source=MARCH)], APRIL, id="the extra wins over the source run"),
        pytest.param([event(), event(MARCH)], MARCH, id="an event without window beside one with"),
    ],
)
def test_an_asset_run_takes_the_newest_window(events: list[Any], expected: Window) -> None:
    assert anchor_window(context("asset_triggered", events={"drift": events}))[0] == expected


def test_a_time_partition_counts_before_the_source_run() -> None:
    partitioned = event(source=MARCH)
    partitioned.partition_key = "2013-04"

    assert anchor_window(context("asset_triggered", events={"drift": [partitioned]}))[0] == APRIL


def test_the_reason_of_the_event_is_kept() -> None:
    _, reason = anchor_window(
        context("asset_triggered", events={"d": [event(MARCH, reason="5 of 15 columns drifted")]})
    )

    assert reason == "Asset event of drift: 5 of 15 columns drifted"


def test_events_without_any_window_are_an_error_that_tells_the_mend() -> None:
    with pytest.raises(InvalidSpecError, match=r"\(drift\) carry no data window.*extra="):
        anchor_window(context("asset_triggered", events={"d": [event()]}))


def test_an_interval_without_length_is_no_window() -> None:
    empty = SimpleNamespace(start=MARCH.start, end=MARCH.start)

    with pytest.raises(InvalidSpecError, match="window_start and window_end"):
        anchor_window(context("scheduled", empty))  # type: ignore[arg-type]  # what a bare cron string gives Airflow 3


def test_a_manual_run_without_window_asks_for_it() -> None:
    with pytest.raises(InvalidSpecError, match="window_start and window_end"):
        anchor_window(context())


@pytest.mark.parametrize("run_type", ["manual", "operator_triggered"])
def test_an_interval_that_airflow_inferred_for_a_triggered_run_is_not_taken(run_type: str) -> None:
    with pytest.raises(InvalidSpecError, match="window_start and window_end"):
        anchor_window(context(run_type, MARCH))


def test_airflow_2_calls_asset_events_dataset_events() -> None:
    old = context("dataset_triggered", MARCH)
    old["triggering_dataset_events"] = {"drift": [event(APRIL)]}

    assert anchor_window(old)[0] == APRIL


def test_half_a_window_is_an_error() -> None:
    with pytest.raises(InvalidSpecError, match="window_start and window_end"):
        anchor_window(context(), start="2013-03-01")


def test_the_last_complete_interval_follows_the_run_not_the_clock() -> None:
    last = last_complete_interval(context(), cron="0 0 1 * *", timezone="UTC")

    assert last == MARCH
    assert anchor_window(context(), last_complete=last)[0] == MARCH


DAY = Window(start="2013-03-01", end="2013-03-02")


def test_of_collapsed_events_every_distinct_window_counts_oldest_first() -> None:
    partitioned = event()
    partitioned.partition_key = "2013-03"
    events = {"scored": [event(APRIL), event(MARCH, reason="x")], "other": [event(source=DAY), partitioned]}

    windows, reason = all_windows(context("asset_triggered", events=events))

    assert windows == [DAY, MARCH, APRIL]
    assert reason == "Asset event of drift; Asset event of drift: x (3 windows of 4 events)"


def test_one_window_of_many_events_is_one_window() -> None:
    repeated = {"scored": [event(MARCH), event(MARCH)]}

    assert all_windows(context("asset_triggered", events=repeated)) == ([MARCH], "Asset event of drift")


def test_an_event_without_window_beside_others_is_told() -> None:
    windows, reason = all_windows(context("asset_triggered", events={"d": [event(), event(MARCH), event()]}))

    assert windows == [MARCH]
    assert reason.endswith("(2 further events named no window)")


def test_many_reasons_are_cut() -> None:
    events = [event(MARCH, reason=f"reason {number}") for number in range(9)]

    _, reason = all_windows(context("asset_triggered", events={"d": events}))

    assert reason.endswith("reason 4; and 4 more reasons")


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        pytest.param(context("scheduled", MARCH), {}, MARCH, id="a schedule's interval"),
        pytest.param(context("backfill", MARCH), {}, MARCH, id="a backfill's own"),
        pytest.param(context(), {"last_complete": APRIL}, APRIL, id="the last complete interval"),
        pytest.param(
            context("asset_triggered", events={"d": [event(MARCH), event(DAY)]}),
            {"start": "2013-04-01", "end": "2013-05-01"},
            APRIL,
            id="parameters win over events",
        ),
    ],
)
def test_other_runs_have_one_window(given: Any, options: Any, expected: Window) -> None:
    windows, reason = all_windows(given, **options)

    assert windows == [expected]
    assert (windows[0], reason) == anchor_window(given, **options)


@pytest.mark.parametrize(
    ("given", "options", "error"),
    [
        pytest.param(context(), {}, "window_start and window_end", id="by hand without a window"),
        pytest.param(context("asset_triggered", events={"d": [event()]}), {}, "carry no data window", id="no window"),
        pytest.param(context(), {"end": "2013-03-01"}, "window_start and window_end", id="half a window"),
    ],
)
def test_the_errors_are_those_of_the_anchor_window(given: Any, options: Any, error: str) -> None:
    for read in (anchor_window, all_windows):
        with pytest.raises(InvalidSpecError, match=error):
            read(given, **options)
