"""Whether data is there and at rest: what a look sees, and how long it must still rest."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.windows import Length
from airflow_mlops.engines import arrivals
from airflow_mlops.engines.arrivals import Lookout, Settling, Sight, tells_rest
from airflow_mlops.errors import DataReadError, InvalidSpecError, UnknownNameError
from airflow_mlops.spec.data import DataSpec
from tests.support.data_steps import day, window, write_parquet

JANUARY = window("2013-01-01", "2013-02-01")
SETTLE = timedelta(minutes=5)
NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def lookout(folder: Path, part: Any = JANUARY, *, form: str = "parquet", **settings: Any) -> Lookout:
    return Lookout(DataSpec(uri=str(folder), format=form, event_time="at"), part, **settings)


def sight(mark: str = "a", newest: datetime | None = None) -> Sight:
    return Sight(bool(mark), "seen", mark, newest)


# --- rest ---------------------------------------------------------------------------------------


def test_one_look_tells_rest_where_the_store_tells_times() -> None:
    assert Settling(SETTLE).rest(sight(newest=NOON - minutes(7)), NOON) == minutes(-2)
    assert Settling(SETTLE).rest(sight(newest=NOON - minutes(2)), NOON) == minutes(3)


def test_without_times_or_with_times_to_come_it_is_watched() -> None:
    for newest in (None, NOON + minutes(60)):
        settling = Settling(SETTLE)

        assert settling.rest(sight(newest=newest), NOON) == SETTLE
        assert settling.rest(sight(newest=newest), NOON + minutes(4)) == minutes(1)
        assert settling.rest(sight(newest=newest), NOON + minutes(5)) == minutes(0)
        assert not tells_rest(sight(newest=newest), NOON)


def test_what_was_seen_to_change_rests_from_then_on_whatever_the_store_says() -> None:
    old = NOON - minutes(600)
    settling = Settling(SETTLE)
    settling.rest(sight("a", NOON - minutes(1)), NOON)

    assert settling.rest(sight("b", old), NOON + minutes(1)) == SETTLE, "replaced by a file with an older time"
    assert settling.rest(sight("b", old), NOON + minutes(3)) == minutes(3)
    assert settling.rest(sight("b", old), NOON + minutes(6)) == minutes(0)


def test_what_arrives_while_it_is_watched_rests_from_then_on() -> None:
    settling = Settling(SETTLE)
    settling.rest(sight(""), NOON)

    assert settling.rest(sight("a", NOON - minutes(600)), NOON + minutes(1)) == SETTLE


def test_it_goes_on_from_what_was_remembered() -> None:
    first = Settling(SETTLE)
    first.rest(sight("a"), NOON)
    second = Settling(SETTLE, seen=first.seen, since=first.since, changed=first.changed)

    assert second.rest(sight("a"), NOON + minutes(5)) == minutes(0)


def test_no_settling_time_needs_one_look() -> None:
    assert Settling(minutes(0)).rest(sight(newest=NOON), NOON) <= minutes(0)
    assert Settling(minutes(0)).rest(sight(), NOON) <= minutes(0)


# --- what is of the window ----------------------------------------------------------------------


def test_parquet_files_are_told_by_their_footers(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_parquet(tmp_path / f"{number}.parquet", {"at": [day(1, number), day(20, number)]})

    seen = lookout(tmp_path).look()
    nothing = lookout(tmp_path, window("2013-05-01", "2013-06-01")).look()

    assert (seen.present, seen.file_count) == (True, 1)
    assert seen.byte_count == (tmp_path / "1.parquet").stat().st_size
    assert seen.said == f"There are 3 files at {tmp_path}, 1 of the window [2013-01-01, 2013-02-01)"
    assert not nothing.present
    assert nothing.said.endswith(
        "none of the window [2013-05-01, 2013-06-01); the latest time among them is 2013-03-20 00:00"
    )


def test_without_window_or_event_time_every_file_counts(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"at": [day(1, 7)]})

    assert lookout(tmp_path, None).look().file_count == 1
    assert Lookout(DataSpec(uri=str(tmp_path)), JANUARY).look().file_count == 1
    assert lookout(tmp_path, select="anything").look().file_count == 1


def test_csv_files_are_told_by_their_folders_where_these_name_a_time(tmp_path: Path) -> None:
    for name in ("dt=2013-01-31", "dt=2013-02-01", "loose"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("at\n2013-01-31\n")

    looked = lookout(tmp_path, form="csv")

    assert looked.look().file_count == 2, "the day of the window, and the file in a folder without a time"
    assert "folders' names" in looked.checked


def test_folders_may_be_trusted_for_parquet_too(tmp_path: Path) -> None:
    write_parquet(tmp_path / "dt=2013-01-01" / "a.parquet", {"at": [day(1, 7)]})

    assert lookout(tmp_path, select="folders").look().present
    assert not lookout(tmp_path).look().present


def test_files_of_another_time_may_change_while_the_window_rests(tmp_path: Path) -> None:
    write_parquet(tmp_path / "1.parquet", {"at": [day(1)]})
    write_parquet(tmp_path / "2.parquet", {"at": [day(1, 2)]})
    looked = lookout(tmp_path)
    before = looked.look()

    write_parquet(tmp_path / "2.parquet", {"at": [day(1, 2), day(2, 2)]})
    write_parquet(tmp_path / "3.parquet", {"at": [day(1, 3)]})

    assert looked.look().fingerprint == before.fingerprint
    write_parquet(tmp_path / "1.parquet", {"at": [day(1), day(2)]})
    assert looked.look().fingerprint != before.fingerprint


def test_a_footer_is_read_again_only_when_its_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = arrivals.footer_times

    def counted(files: Any, path: str, *rest: Any) -> Any:
        read.append(Path(path).name)
        return real(files, path, *rest)

    monkeypatch.setattr(arrivals, "footer_times", counted)
    write_parquet(tmp_path / "a.parquet", {"at": [day(1)]})
    write_parquet(tmp_path / "b.parquet", {"at": [day(2)]})
    looked = lookout(tmp_path)
    looked.look()
    looked.look()
    write_parquet(tmp_path / "b.parquet", {"at": [day(2), day(3)]})
    (tmp_path / "a.parquet").unlink()
    looked.look()

    assert read == ["a.parquet", "b.parquet", "b.parquet"]


@pytest.mark.parametrize(
    ("days", "gap"),
    [
        pytest.param([1, 2, 4], "[2013-01-03, 2013-01-04)", id="a day in between"),
        pytest.param([2, 3, 4], "[2013-01-01, 2013-01-02)", id="the first"),
        pytest.param([1, 2, 3], "[2013-01-04, 2013-01-05)", id="the last"),
        pytest.param([1, 2, 3, 4], None, id="none"),
    ],
)
def test_every_piece_of_the_window_must_be_touched(days: list[int], gap: str | None, tmp_path: Path) -> None:
    for number in days:
        write_parquet(tmp_path / f"{number}.parquet", {"at": [day(number)]})

    seen = lookout(tmp_path, window("2013-01-01", "2013-01-05"), every=Length.parse("1 day")).look()

    assert seen.present is (gap is None)
    assert gap is None or seen.said.endswith(f"none of its part {gap}")


def test_pieces_are_touched_by_files_that_reach_beyond_and_never_by_those_of_unknown_times(tmp_path: Path) -> None:
    write_parquet(tmp_path / "long.parquet", {"at": [day(1, 1), day(31, 12)]})
    month = window("2013-03-01", "2013-04-01")

    assert lookout(tmp_path, month, every=Length.parse("1 day")).look().present
    write_parquet(tmp_path / "long.parquet", {"at": [day(1, 1), day(31, 12)]}, write_statistics=False)
    assert lookout(tmp_path, month).look().present
    assert not lookout(tmp_path, month, every=Length.parse("1 week")).look().present


# --- what is not there, or not right ------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda folder: None, "does not exist", id="no folder"),
        pytest.param(lambda folder: folder.mkdir(), "Nothing at all is there", id="an empty folder"),
        pytest.param(lambda folder: put(folder / "_SUCCESS"), "left out: '_SUCCESS'", id="a marker alone"),
        pytest.param(lambda folder: put(folder / "a.parquet"), "left out: 'a.parquet'", id="an empty file"),
        pytest.param(lambda folder: put(folder / "a.parquet.tmp", "x"), "a.parquet.tmp", id="a file by another name"),
    ],
)
def test_what_is_not_there_yet_is_said(make: Any, said: str, tmp_path: Path) -> None:
    make(tmp_path / "lake")

    seen = lookout(tmp_path / "lake").look()

    assert not seen.present
    assert seen.fingerprint == ""
    assert seen.said.startswith("Nothing is there yet. ")
    assert said in seen.said


def put(file: Path, text: str = "") -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def test_a_glob_that_nothing_matches_yet_is_waited_for(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a" / "x.parquet", {"at": [day(1)]})

    assert not lookout(tmp_path / "b*" / "*.parquet").look().present
    assert lookout(tmp_path / "a*" / "*.parquet").look().present


def test_a_table_format_is_a_verdict(tmp_path: Path) -> None:
    put(tmp_path / "_delta_log", "")
    (tmp_path / "_delta_log").unlink()
    (tmp_path / "_delta_log").mkdir()
    put(tmp_path / "_delta_log" / "0.json", "{}")

    with pytest.raises(DataReadError, match="Delta Lake"):
        lookout(tmp_path).look()


def test_a_file_without_a_footer_is_there_and_a_problem_once_it_rests(tmp_path: Path) -> None:
    put(tmp_path / "half.parquet", "PAR1 and then the writer went home")

    seen = lookout(tmp_path).look()

    assert seen.present
    assert seen.problem is not None
    assert "'half.parquet'" in seen.problem


def test_a_file_that_grows_never_looks_the_same(tmp_path: Path) -> None:
    file, looked, marks = tmp_path / "a.csv", lookout(tmp_path, form="csv"), []
    for _ in range(3):
        with file.open("a") as sink:
            sink.write("2013-01-01\n")
        marks.append(looked.look().fingerprint)

    assert len(set(marks)) == 3


def test_a_copy_that_keeps_its_old_time_is_new(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"at": [day(1)]})
    os.utime(file, (1_000_000_000, 1_000_000_000))

    seen = lookout(tmp_path).look()

    assert seen.newest is not None
    assert abs(seen.newest.timestamp() - time.time()) < 30


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"select": "footers"}, UnknownNameError, "No way to select files is called 'footers'"),
        ({"form": "csv", "select": "statistics"}, InvalidSpecError, "only Parquet files have"),
        ({"select": "anything", "every": "1 day"}, InvalidSpecError, "nothing that is looked at tells which times"),
        ({"every": "1 minute"}, InvalidSpecError, "more than 10,000 pieces"),
        ({"every": "0 days"}, InvalidSpecError, "more than 10,000 pieces"),
    ],
)
def test_settings_that_do_not_go_together(
    settings: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    every = settings.pop("every", None)

    with pytest.raises(error, match=said):
        lookout(tmp_path, every=Length.parse(every) if every else None, **settings)
