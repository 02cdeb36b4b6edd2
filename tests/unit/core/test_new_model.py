from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.core.inference import ColumnSeen, TableSeen
from airflow_mlops.core.new_model import (
    check_name,
    check_target,
    choose_features,
    guess_event_time,
    guess_ids,
    guess_task,
    split,
)
from airflow_mlops.core.record import Window
from airflow_mlops.errors import InvalidSpecError


def seen(name: str = "y", kind: str = "text", distinct: int | None = None, **changes: object) -> ColumnSeen:
    changes.setdefault("dtypes", ("object",))
    return ColumnSeen(name, kind, changes.pop("rows", 1000), distinct=distinct, **changes)


def table(*columns: ColumnSeen) -> TableSeen:
    return TableSeen(1000, columns, 1000)


@pytest.mark.parametrize(
    ("column", "task"),
    [
        pytest.param(seen(kind="text", distinct=2), "binary", id="two words"),
        pytest.param(seen(kind="text", distinct=7), "multiclass", id="words"),
        pytest.param(seen(kind="bool", distinct=2), "binary", id="truth values"),
        pytest.param(seen(kind="whole", distinct=2), "binary", id="0 and 1"),
        pytest.param(seen(kind="whole", distinct=20), "multiclass", id="few whole numbers"),
        pytest.param(seen(kind="whole", distinct=21), "regression", id="many whole numbers"),
        pytest.param(seen(kind="float", distinct=2), "binary", id="0.0 and 1.0"),
        pytest.param(seen(kind="float", distinct=3), "regression", id="floats"),
    ],
)
def test_the_target_tells_the_task(column: ColumnSeen, task: str) -> None:
    assert guess_task(column)[0] == task


@pytest.mark.parametrize(
    ("column", "task", "says"),
    [
        pytest.param(seen(distinct=1), "binary", "one value only", id="one label"),
        pytest.param(seen(kind="float", low=3.0, high=3.0), "regression", "one value only", id="one number"),
        pytest.param(seen(distinct=3), "binary", "Say --task multiclass", id="three labels"),
        pytest.param(
            seen(kind="float", distinct=30, low=0.0, high=1.0), "binary", "Say --task regression", id="floats"
        ),
        pytest.param(seen(distinct=2), "regression", "needs numbers", id="text to regress"),
        pytest.param(seen(kind="float", low=0.0, high=1.0, infinite=2), "regression", "infinite in 2", id="infinite"),
        pytest.param(seen(distinct=201), "multiclass", "201 different values", id="too many labels"),
        pytest.param(seen(kind="time"), "regression", "neither labels nor numbers", id="time"),
        pytest.param(seen(kind="empty"), "binary", "no value in any", id="empty"),
    ],
)
def test_a_target_that_cannot_be_learnt_is_refused(column: ColumnSeen, task: str, says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        check_target(column, task, "rows.csv")


@pytest.mark.parametrize(
    ("name", "near"),
    [("My Model", "my_model"), ("9lives", "m_9lives"), ("ärger", "rger"), ("", "model"), ("a" * 101, "a" * 100)],
)
def test_a_name_that_will_not_do_is_refused_with_one_that_will(name: str, near: str) -> None:
    with pytest.raises(InvalidSpecError, match=f"'{near}' would do"):
        check_name(name)


def test_the_only_time_is_the_event_time_and_otherwise_the_candidates_are_named() -> None:
    two = table(seen("opened", "time"), seen("closed", "time"), seen("date_text"))

    assert guess_event_time(table(seen("at", "time"), seen("y")), "y", "rows.csv") == "at"
    with pytest.raises(InvalidSpecError, match="'opened', 'closed'"):
        guess_event_time(two, "y", "rows.csv")
    assert guess_event_time(two, "closed", "rows.csv") == "opened"
    with pytest.raises(InvalidSpecError, match=r"no column of times.*'event_text'"):
        guess_event_time(table(seen("city"), seen("event_text")), "y", "rows.csv")


def test_ids_are_told_by_name_and_variety() -> None:
    columns = table(
        seen("customer_id", "whole", 990),
        seen("store_id", "whole", 12),
        seen("grid", "whole", 990),
        seen("comment", "text", 800),
        seen("city", "text", 40),
        seen("known_id", "text", 1000),
    )

    assert guess_ids(columns, ["known_id"]) == ["customer_id", "comment"]


def test_columns_that_no_model_can_use_are_left_out_with_the_reason() -> None:
    columns = table(
        seen("age", "float"),
        seen("born", "time"),
        seen("tags", "other"),
        seen("ratio", "float", infinite=3),
        seen("late_start", "float"),
        seen("who", "text", 900),
        seen("month", distinct=2, values=("2024-01", "2024-02")),
        seen("k", "whole", role="id"),
    )
    train = table(*(one for one in columns.columns if one.name != "late_start"), seen("late_start", "empty"))

    found = choose_features(columns, train)

    assert [one.name for one in found.columns] == ["age"]
    assert len(found.left_out) == 6
    assert any("'late_start' is no feature: it has no value in the rows to train on" in text for text in found.left_out)


def cut(times: list[datetime]):
    def share_before(moment: datetime) -> float:
        return bisect_left(times, moment) / len(times)

    return split([times[0], times[len(times) // 2], times[-1]], share_before, "rows.csv")


@pytest.mark.parametrize(
    ("step", "train", "evaluate", "length"),
    [
        (timedelta(days=3), "[2023-01-01, 2024-09-01)", "[2024-09-01, 2026-05-01)", "20 months"),
        (timedelta(minutes=36), "[2023-01-01, 2023-01-06)", "[2023-01-06, 2023-01-11)", "5 days"),
        (timedelta(seconds=18), "[2023-01-01, 2023-01-01T01)", "[2023-01-01T01, 2023-01-01T02)", "1 hour"),
        (
            timedelta(milliseconds=600),
            "[2023-01-01, 2023-01-01T00:02)",
            "[2023-01-01T00:02, 2023-01-01T00:04)",
            "2 minutes",
        ),
    ],
    ids=["years", "days", "hours", "minutes"],
)
def test_windows_part_the_rows_in_halves_of_the_calendar(
    step: timedelta, train: str, evaluate: str, length: str
) -> None:
    times = [datetime(2023, 1, 1, tzinfo=UTC) + step * number for number in range(400)]

    found = cut(times)

    assert str(found.length) == length
    assert iso(found.train) == train
    assert iso(found.evaluate) == evaluate
    assert found.train.end == found.evaluate.start == found.length.after(found.train.start)


def iso(window: Window) -> str:
    ends = [
        moment.strftime("%Y-%m-%dT%H:%M").removesuffix(":00").removesuffix("T00") for moment in vars(window).values()
    ]
    return f"[{', '.join(ends)})"


def test_rows_in_bursts_are_still_parted() -> None:
    start = datetime(2023, 1, 1, tzinfo=UTC)
    times = [start] * 95 + [start + timedelta(days=900)] * 5

    found = cut(times)

    assert bisect_left(times, found.evaluate.start) == 95


def test_a_history_of_centuries_is_trained_on_as_far_as_a_window_reaches() -> None:
    times = [datetime(1750 + number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in range(274 * 12)]

    found = cut(times)

    assert str(found.length) == "1200 months"
    assert iso(found.train) == "[1787-01-01, 1887-01-01)"
    assert iso(found.evaluate) == "[1887-01-01, 2024-01-01)"


def test_one_row_long_ago_does_not_shorten_what_is_trained_on() -> None:
    times = [datetime(1899, 1, 1, tzinfo=UTC), *(datetime(2023, 1, day, tzinfo=UTC) for day in range(1, 32))]

    found = cut(times)

    assert str(found.length) == "36525 days"
    assert bisect_left(times, found.train.start) == 1
    assert found.train.end == found.evaluate.start == found.length.after(found.train.start)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        pytest.param([datetime(2023, 1, 1, 0, 0, 1, tzinfo=UTC)] * 9, "within one minute", id="one moment"),
        pytest.param([datetime(9999, 12, day, tzinfo=UTC) for day in range(1, 32)], "placeholders", id="end of time"),
        pytest.param(
            [datetime(1, 1, 1, tzinfo=UTC)] * 14 + [datetime(2023, 1, day, tzinfo=UTC) for day in range(1, 19)],
            "100 years long. Mend placeholders",
            id="nearly all to train on are placeholders",
        ),
    ],
)
def test_times_that_cannot_be_parted_are_refused(times: list[datetime], says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        cut(times)
