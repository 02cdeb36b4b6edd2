from __future__ import annotations

import pytest

from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import (
    Length,
    parse_length,
    parse_window,
    partition_window,
    require_apart,
    training_window,
    without,
)
from airflow_mlops.errors import InvalidSpecError, LeakageError


def window(start: str, end: str) -> Window:
    return Window(start=start, end=end)


@pytest.mark.parametrize(
    ("length", "gap", "expected"),
    [
        pytest.param("2 months", "0 days", ("2013-01-01", "2013-03-01"), id="calendar months"),
        pytest.param("1 month", "1 day", ("2013-01-28", "2013-02-28"), id="a gap ends earlier"),
        pytest.param("28 days", "0 days", ("2013-02-01", "2013-03-01"), id="days"),
        pytest.param("1 year", "0 days", ("2012-03-01", "2013-03-01"), id="a leap year"),
        pytest.param("6 hours", "30 minutes", ("2013-02-28T17:30", "2013-02-28T23:30"), id="below a day"),
    ],
)
def test_the_training_window_ends_before_the_anchor(length: str, gap: str, expected: tuple[str, str]) -> None:
    anchor = window("2013-03-01", "2013-04-01")

    train = training_window(anchor, length=Length.parse(length), gap=Length.parse(gap))

    assert train == window(*expected)
    require_apart(train, anchor)


def test_a_training_window_without_length_is_refused() -> None:
    with pytest.raises(LeakageError, match="no length"):
        training_window(window("2013-03-01", "2013-04-01"), length=Length.parse("0 days"), gap=Length.parse("0 days"))


@pytest.mark.parametrize(
    ("train", "overlaps"),
    [
        pytest.param(("2013-01-01", "2013-03-01"), False, id="touching shares no instant"),
        pytest.param(("2013-01-01", "2013-03-01T00:00:01"), True, id="one second"),
        pytest.param(("2013-03-10", "2013-03-11"), True, id="inside"),
        pytest.param(("2013-04-01", "2013-05-01"), False, id="after"),
    ],
)
def test_overlap_is_leakage(train: tuple[str, str], overlaps: bool) -> None:
    anchor = window("2013-03-01", "2013-04-01")

    if overlaps:
        with pytest.raises(LeakageError, match=r"overlap.*train\.window\.gap"):
            require_apart(window(*train), anchor)
    else:
        require_apart(window(*train), anchor)


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        pytest.param(("2013-01-01", "2013-02-01"), ("2013-03-01", "2013-04-01"), id="elsewhere"),
        pytest.param(("2013-01-01", "2013-03-10"), ("2013-03-10", "2013-04-01"), id="the start is cut"),
        pytest.param(("2013-03-20", "2013-05-01"), ("2013-03-01", "2013-03-20"), id="the end is cut"),
        pytest.param(("2013-03-10", "2013-03-20"), ("2013-03-20", "2013-04-01"), id="inside: the newer part stays"),
        pytest.param(("2013-03-01", "2013-04-01"), None, id="all of it"),
        pytest.param(("2013-01-01", "2014-01-01"), None, id="more than all of it"),
    ],
)
def test_seen_rows_are_cut_away(seen: tuple[str, str], left: tuple[str, str] | None) -> None:
    assert without(window("2013-03-01", "2013-04-01"), window(*seen)) == (window(*left) if left else None)


WRONG_LENGTHS = [
    "2",
    "two months",
    "-1 days",
    "1.5 days",
    "2 fortnights",
    "",
    None,
    60,
    {"count": -1, "unit": "days"},
    {"count": 1, "unit": "fortnights"},
    f"{'9' * 5_000} days",
]


@pytest.mark.parametrize("written", WRONG_LENGTHS, ids=lambda value: str(value)[:40])
def test_a_wrong_length_says_what_to_write(written: object) -> None:
    with pytest.raises(InvalidSpecError, match=r"train_length: .* is not a length; write .*'2 months'"):
        parse_length(written, "train_length")


MOST = ["100 years", "1200 months", "5217 weeks", "36525 days", "876600 hours", "52596000 minutes"]


@pytest.mark.parametrize("written", MOST)
def test_a_century_is_the_most_that_a_length_may_be(written: str) -> None:
    most = Length.parse(written)
    anchor = window("2013-03-01", "2013-04-01")

    train = training_window(anchor, length=most, gap=most)
    assert 36_515 < (train.end - train.start).days < 36_535
    for longer in (f"{most.count + 1} {most.unit}", most.model_copy(update={"count": 99_999_999_999}).model_dump()):
        with pytest.raises(InvalidSpecError, match=r"train_length: .* is longer than 100 years; write a shorter one"):
            parse_length(longer, "train_length")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param("2013-04-01", "2013-03-01", id="backwards"),
        pytest.param("2013-03-01", "2013-03-01", id="empty"),
        pytest.param("2013-03-01", None, id="no end"),
        pytest.param("yesterday", "2013-03-01", id="no time"),
    ],
)
def test_a_wrong_window_says_what_to_write(start: object, end: object) -> None:
    with pytest.raises(InvalidSpecError, match=r"--window: .*ISO times, start before end"):
        parse_window(start, end, "--window")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("2013-03", ("2013-03-01", "2013-04-01"), id="month"),
        pytest.param("2013-12-31", ("2013-12-31", "2014-01-01"), id="day"),
        pytest.param("2013", ("2013-01-01", "2014-01-01"), id="year"),
        pytest.param("2013-03-01T05", ("2013-03-01T05:00", "2013-03-01T06:00"), id="hour"),
        pytest.param("BE", None, id="no time"),
    ],
)
def test_a_time_partition_is_a_window(key: str, expected: tuple[str, str] | None) -> None:
    assert partition_window(key) == (window(*expected) if expected else None)


def test_windows_are_utc_whatever_zone_they_were_written_in() -> None:
    assert window("2013-03-01T00:00:00-05:00", "2013-03-02") == window("2013-03-01T05:00:00Z", "2013-03-02T00:00:00Z")
    assert str(window("2013-03-01", "2013-04-01")) == "[2013-03-01, 2013-04-01)"
