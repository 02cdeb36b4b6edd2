"""Between which times a file's rows lie: from footers, and from the names of folders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow
import pytest
from pyarrow import fs

from airflow_mlops.engines.file_times import BROKEN, EMPTY, UNKNOWN, FileTimes, folder_times, footer_times
from tests.support.data_steps import day, window, write_parquet

TICK = timedelta(microseconds=1)
MARCH = window("2013-03-01", "2013-04-01")


def known(start: str, end: str) -> FileTimes:
    """Return the times of a folder that stands for ``[start, end)``."""
    part = window(start, end)
    return FileTimes("known", part.start, part.end - TICK)


def footer(file: Path, relative: str | None = None, column: str = "at") -> FileTimes:
    return footer_times(fs.LocalFileSystem(), str(file), relative or file.name, column)


@pytest.mark.parametrize(
    ("path", "times"),
    [
        pytest.param("year=2013/a.csv", known("2013-01-01", "2014-01-01"), id="a year"),
        pytest.param("year=2013/month=03/a.csv", known("2013-03-01", "2013-04-01"), id="counted to the month"),
        pytest.param("Year=2013/Month=3/Day=31/a.csv", known("2013-03-31", "2013-04-01"), id="counted to the day"),
        pytest.param("year=2013/month=12/day=31/hour=23/a.csv", known("2013-12-31T23", "2014-01-01"), id="to the hour"),
        pytest.param("dt=2013-03-01/a.csv", known("2013-03-01", "2013-03-02"), id="a date"),
        pytest.param("dt=20130301/a.csv", known("2013-03-01", "2013-03-02"), id="eight digits under a date's key"),
        pytest.param("load_date=20130301/a.csv", known("2013-03-01", "2013-03-02"), id="likewise, a longer key"),
        pytest.param("p=2013-03/a.csv", known("2013-03-01", "2013-04-01"), id="a month under any key"),
        pytest.param("h=2013-03-01T05/a.csv", known("2013-03-01T05", "2013-03-01T06"), id="an hour"),
        pytest.param("m=2013-03/d=2013-03-07/a.csv", known("2013-03-07", "2013-03-08"), id="the innermost of two"),
        pytest.param("region=EU/dt=2013-03-01/a.csv", known("2013-03-01", "2013-03-02"), id="beside another key"),
        pytest.param("at=2013-03-05/a.csv", FileTimes("known", day(5, 3), day(5, 3)), id="the event time: one moment"),
        pytest.param("at=soon/a.csv", UNKNOWN, id="an event time that is none"),
        pytest.param("store=20130301/a.csv", UNKNOWN, id="eight digits of something else"),
        pytest.param("store=2013/a.csv", UNKNOWN, id="four digits of something else"),
        pytest.param("month=3/a.csv", UNKNOWN, id="a month without a year"),
        pytest.param("year=2013/month=13/a.csv", UNKNOWN, id="no month"),
        pytest.param("dt=20139999/a.csv", UNKNOWN, id="no date"),
        pytest.param("dt=__HIVE_DEFAULT_PARTITION__/a.csv", UNKNOWN, id="no value"),
        pytest.param("2013-03-01/a.csv", UNKNOWN, id="a folder without a key"),
        pytest.param("dt=2013-03-01", UNKNOWN, id="a file's own name is no folder"),
    ],
)
def test_the_time_in_folder_names(path: str, times: FileTimes) -> None:
    assert folder_times(path, "at") == times


@pytest.mark.parametrize(
    ("times", "touches"),
    [
        (FileTimes("known", datetime(2013, 2, 1, tzinfo=UTC), MARCH.start - TICK), False),
        (FileTimes("known", datetime(2013, 2, 1, tzinfo=UTC), MARCH.start), True),
        (FileTimes("known", MARCH.end - TICK, datetime(2014, 1, 1, tzinfo=UTC)), True),
        (FileTimes("known", MARCH.end, MARCH.end), False),
        (UNKNOWN, True),
        (BROKEN, True),
        (EMPTY, False),
    ],
)
def test_only_what_is_ruled_out_does_not_touch_a_window(times: FileTimes, touches: bool) -> None:
    assert times.may_touch(MARCH) is touches


def test_a_footer_tells_the_time_of_the_rows(tmp_path: Path) -> None:
    rows = [day(3, 3), day(1, 3), day(9, 3)]
    file = write_parquet(tmp_path / "a.parquet", {"at": rows}, row_group_size=2)

    assert footer(file) == FileTimes("known", day(1, 3), day(9, 3))
    assert footer(file, "at=2013-07-01/a.parquet") == FileTimes("known", day(1, 3), day(9, 3)), "the column wins"
    assert footer(file, "when=2013-07-01/a.parquet", "when") == FileTimes("known", day(1, 7), day(1, 7))
    assert footer(file, column="absent") == UNKNOWN


def test_a_footer_that_does_not_tell(tmp_path: Path) -> None:
    plain = write_parquet(tmp_path / "plain.parquet", {"at": [day(1)]}, write_statistics=False)
    holes = write_parquet(tmp_path / "holes.parquet", {"at": [day(1), None]})
    none = write_parquet(tmp_path / "none.parquet", {"at": pyarrow.array([], pyarrow.timestamp("us", "UTC"))})

    assert (footer(plain), footer(holes), footer(none)) == (UNKNOWN, UNKNOWN, EMPTY)
    assert footer(tmp_path / "gone.parquet") == EMPTY


def test_a_file_that_is_cut_off_or_garbled_is_broken(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", {"at": [day(1)] * 100}).read_bytes()
    garbled = whole[:-8] + bytes(len(whole[-8:-4])) + whole[-4:]
    footer_length = int.from_bytes(whole[-8:-4], "little")
    noise = whole[: -8 - footer_length] + b"\xff" * footer_length + whole[-8:]
    for number, content in enumerate((whole[: len(whole) // 2], b"PAR1", b"x", garbled, noise)):
        (tmp_path / f"{number}.parquet").write_bytes(content)

        assert footer(tmp_path / f"{number}.parquet") == BROKEN, number


def test_a_file_that_may_not_be_read_is_an_error_and_not_broken(tmp_path: Path) -> None:
    (tmp_path / "folder.parquet").mkdir()

    with pytest.raises(OSError, match=r"folder\.parquet"):
        footer(tmp_path / "folder.parquet")
