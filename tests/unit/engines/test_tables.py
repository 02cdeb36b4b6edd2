"""Which files belong to a window, what changes a dataset version, and how rows come back."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mlops.core.records import Window
from airflow_mlops.engines import files as file_source
from airflow_mlops.engines.listing import list_files, listing_fingerprint
from airflow_mlops.engines.tables import (
    Manifest,
    read_frame,
    read_table,
    take_manifest,
    to_frame,
    version_of,
)
from airflow_mlops.errors import DataChangedError, DataReadError
from airflow_mlops.spec.model import DataSpec
from tests.support.data_steps import day, window, write_parquet

JANUARY = window("2013-01-01", "2013-02-01")
ROWS = {"at": [day(1), day(2)], "x": [1, 2]}


def spec(path: Path | str, **settings: Any) -> DataSpec:
    return DataSpec(uri=str(path), **{"event_time": "at", **settings})


def csv(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- which files -------------------------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    for name in ("b.parquet", "a.parquet", "y=1/c.PARQUET", "y=2/d.pq", "_hidden/e.parquet", ".tmp/f.parquet"):
        write_parquet(root / name, ROWS)
    write_parquet(root / "_part=1" / "g.parquet", ROWS)
    for marker in ("_SUCCESS", "empty.parquet", ".crc"):
        (root / marker).touch()
    (root / "README.md").write_text("about")
    return root


def found(uri: Path | str, **settings: Any) -> list[str]:
    return [file.path for file in list_files(spec(uri, **settings)).files]


def test_a_folder_gives_its_data_files_sorted(lake: Path) -> None:
    assert found(lake) == ["_part=1/g.parquet", "a.parquet", "b.parquet", "y=1/c.PARQUET", "y=2/d.pq"]
    assert found(f"{lake}/") == found(lake)
    assert found(f"file://{lake}") == found(lake)


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("?.parquet", ["a.parquet", "b.parquet"]),
        ("[!a].parquet", ["b.parquet"]),
        ("y=*", ["y=1/c.PARQUET", "y=2/d.pq"]),
        ("y=*/*.pq", ["y=2/d.pq"]),
        ("**/*.parquet", ["_part=1/g.parquet", "a.parquet", "b.parquet"]),
        ("y=1/**", ["c.PARQUET"]),
        ("README.m?", ["README.md"]),
    ],
)
def test_globs(glob: str, names: list[str], lake: Path) -> None:
    assert found(f"{lake}/{glob}") == names


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x[1].parquet", ROWS)

    assert found(tmp_path / "x[1].parquet") == ["x[1].parquet"]


@pytest.mark.parametrize(
    ("name", "table"),
    [("_delta_log/0.json", "Delta Lake"), ("metadata/v1.metadata.json", "Iceberg"), (".hoodie/x", "Hudi")],
)
def test_a_table_format_is_not_read_file_by_file(name: str, table: str, lake: Path) -> None:
    (lake / name).parent.mkdir()
    (lake / name).write_text("{}")

    with pytest.raises(DataReadError, match=f"is a {table} table"):
        found(lake)


def test_nothing_found_tells_what_was_looked_for_and_seen(lake: Path) -> None:
    with pytest.raises(DataReadError, match=r"No csv file.*names that end with \.csv.*'README\.md'"):
        found(lake, format="csv")
    with pytest.raises(DataReadError, match="does not exist"):
        found(lake / "nowhere")
    with pytest.raises(DataReadError, match=r"names that match .*z\*\.parquet"):
        found(lake / "z*.parquet")


def test_the_fingerprint_notices_a_redelivery_and_nothing_else(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    first = listing_fingerprint(spec(tmp_path))
    assert listing_fingerprint(spec(tmp_path)) == first
    os.utime(path, ns=(1, 1))

    assert listing_fingerprint(spec(tmp_path)) != first


# --- windows -----------------------------------------------------------------------------------------------------


def test_windows_are_half_open_in_utc(tmp_path: Path) -> None:
    moments = [day(1) - timedelta(microseconds=1), day(1), day(31), day(1, month=2) - timedelta(microseconds=1)]
    write_parquet(tmp_path / "a.parquet", {"at": [*moments, day(1, month=2)], "x": [0, 1, 2, 3, 4]})

    assert read_frame(take_manifest(spec(tmp_path), JANUARY))["x"].tolist() == [1, 2, 3]


def test_folder_names_are_not_trusted(tmp_path: Path) -> None:
    """A late row lies in the folder of the month it arrived in."""
    write_parquet(tmp_path / "month=2013-01" / "a.parquet", {"at": [day(1)], "x": [1]})
    write_parquet(tmp_path / "month=2013-02" / "a.parquet", {"at": [day(30), day(2, month=2)], "x": [2, 3]})

    assert read_frame(take_manifest(spec(tmp_path), JANUARY))["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("times", "zone_of_frame"),
    [
        pytest.param(pa.array([datetime(2013, 1, 5)], pa.timestamp("us")), None, id="naive is UTC"),
        pytest.param(pa.array([datetime(2013, 1, 5)], pa.timestamp("ms", "America/New_York")), None, id="aware"),
        pytest.param(pa.array([datetime(2013, 1, 5)], pa.timestamp("s")), None, id="seconds"),
        pytest.param(pa.array([datetime(2013, 1, 5)], pa.timestamp("ns", "UTC")), None, id="nanoseconds"),
        pytest.param(pa.array([date(2013, 1, 5)], pa.date32()), None, id="a date is its midnight"),
        pytest.param(pa.array([datetime(2013, 1, 5)]).dictionary_encode(), None, id="dictionary"),
    ],
)
def test_kinds_of_event_time(times: pa.Array, zone_of_frame: None, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"at": times})
    inside = take_manifest(spec(tmp_path), window("2013-01-05", "2013-01-06"))
    outside = take_manifest(spec(tmp_path), window("2013-01-06", "2013-01-07"))

    assert (inside.row_count, outside.row_count) == (1, 0)
    assert read_frame(inside)["at"].tolist() == [pd.Timestamp("2013-01-05")]


def test_an_aware_time_is_converted(tmp_path: Path) -> None:
    new_york = timezone(timedelta(hours=-5))
    write_parquet(tmp_path / "a.parquet", {"at": pa.array([datetime(2013, 1, 31, 20, tzinfo=new_york)])})

    assert take_manifest(spec(tmp_path), JANUARY).row_count == 0, "it is February in UTC"


def test_statistics_rule_files_out_without_reading_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "in.parquet", ROWS)
    write_parquet(tmp_path / "out.parquet", {"at": [day(1, month=5)], "x": [1]})
    write_parquet(tmp_path / "silent.parquet", {"at": [day(1, month=5)], "x": [1]}, write_statistics=False)
    read: list[str] = []
    whole = file_source.read_blob

    def spy(files: Any, path: str, *, size: int | None = None) -> Any:
        read.append(Path(path).name)
        return whole(files, path, size=size)

    monkeypatch.setattr(file_source, "read_blob", spy)
    manifest = take_manifest(spec(tmp_path), JANUARY)

    assert read == ["in.parquet", "silent.parquet"]
    assert [file.path for file in manifest.files] == ["in.parquet"]


def test_a_partition_can_be_the_event_time(tmp_path: Path) -> None:
    for month in ("2013-01", "2013-02"):
        write_parquet(tmp_path / f"month={month}" / "a.parquet", {"x": [1, 2]})
    frame = read_frame(take_manifest(spec(tmp_path, event_time="month"), JANUARY))

    assert frame["x"].tolist() == [1, 2]
    assert set(frame["month"]) == {pd.Timestamp("2013-01-01")}


def test_without_event_time_every_row_belongs_to_every_window(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"x": [1, 2, 3]})

    assert take_manifest(spec(tmp_path, event_time=None), JANUARY).row_count == 3
    assert take_manifest(spec(tmp_path, event_time=None), None).row_count == 3


def test_a_manifest_that_was_not_cut_names_no_window(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"at": [day(1), day(1, month=5)], "x": [1, 2]})
    cut = DataSpec(uri=str(tmp_path), event_time="at")

    assert take_manifest(cut, JANUARY).window == JANUARY
    assert take_manifest(cut.model_copy(update={"event_time": None}), JANUARY).window is None


def test_an_empty_window_keeps_the_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    manifest = take_manifest(spec(tmp_path), window("2014-01-01", "2014-02-01"))

    assert (manifest.row_count, manifest.files) == (0, ())
    assert list(read_frame(manifest).columns) == ["at", "x"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        pytest.param({"att": [day(1)]}, r"'at' is not in .*a\.parquet\. Did you mean 'att'", id="missing"),
        pytest.param({"at": [day(1), None]}, r"is null in 1 of 2 rows of .*a\.parquet", id="null"),
        pytest.param({"at": [20130101]}, "has type int64, which is no time", id="a number"),
        pytest.param({"at": ["2013-01-01"]}, "has type string, which is no time", id="text in Parquet"),
    ],
)
def test_an_event_time_that_cannot_be_used(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", columns)

    with pytest.raises(DataReadError, match=said):
        take_manifest(spec(tmp_path), JANUARY)


# --- versions ----------------------------------------------------------------------------------------------------


def digest(path: Path, part: Window | None = JANUARY, **settings: Any) -> str:
    return take_manifest(spec(path, **settings), part).digest


def rewrite(path: Path, at: list[datetime], x: list[int]) -> None:
    write_parquet(path / "a.parquet", {"at": at, "x": x})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: rewrite(p, [day(1), day(2)], [1, 3]), id="a changed value"),
        pytest.param(lambda p: rewrite(p, [day(1), day(2), day(2)], [1, 2, 2]), id="an added row, even a double"),
        pytest.param(lambda p: rewrite(p, [day(1)], [1]), id="a removed row"),
        pytest.param(lambda p: rewrite(p, [day(2), day(1)], [2, 1]), id="another order of rows"),
        pytest.param(lambda p: (p / "a.parquet").rename(p / "c.parquet"), id="another order of files"),
        pytest.param(lambda p: (p / "b.parquet").unlink(), id="a removed file"),
        pytest.param(lambda p: write_parquet(p / "c.parquet", ROWS), id="an added file"),
        pytest.param(lambda p: write_parquet(p / "a.parquet", {"at": ROWS["at"], "y": [1, 2]}), id="a renamed column"),
    ],
)
def test_what_changes_the_version(change: Callable[[Path], Any], tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write_parquet(tmp_path / name, ROWS)
    before = digest(tmp_path)
    change(tmp_path)

    assert digest(tmp_path) != before


def test_what_does_not_change_the_version(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write_parquet(tmp_path / "here" / name, ROWS)
    before = digest(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    os.utime(tmp_path / "there" / "a.parquet", (0, 0))
    write_parquet(tmp_path / "there" / "of-may.parquet", {"at": [day(1, month=5)], "x": [1]})
    (tmp_path / "there" / "_SUCCESS").touch()

    assert digest(tmp_path / "there") == before, "another place, time stamp, marker, or file of another window"
    assert digest(tmp_path / "there" / "[ab].parquet") == before, "named by a glob"


def test_window_and_event_time_are_part_of_the_version(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {**ROWS, "at2": ROWS["at"]})
    digests = {
        digest(tmp_path),
        digest(tmp_path, window("2013-01-01", "2013-01-03")),
        digest(tmp_path, None),
        digest(tmp_path, event_time="at2"),
    }

    assert len(digests) == 4


def test_the_digest_of_known_bytes_is_the_same_everywhere(tmp_path: Path) -> None:
    """A literal value: a change of this number would make every stored version unknown."""
    csv(tmp_path / "a.csv", "at,x\n2013-01-01,1\n2013-01-02,2\n")

    assert digest(tmp_path, format="csv") == "c8c2a0566ab7b9487e7b7d88013147a6114873f127116110886de58dcba1881c"


def test_a_manifest_survives_json(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    manifest = take_manifest(spec(tmp_path), JANUARY)
    again = Manifest.model_validate_json(manifest.model_dump_json())

    assert again == manifest
    assert again.digest == manifest.digest
    assert read_frame(again)["x"].tolist() == [1, 2]
    assert version_of(manifest, "runs:/r/manifest.json").row_count == 2


def test_a_file_swapped_while_it_is_read_cannot_slip_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that were hashed are the bytes that are parsed, whatever lies at the path by then."""
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    manifest = take_manifest(spec(tmp_path), JANUARY)
    parse = file_source.read_rows

    def swapped(*args: Any, **kwargs: Any) -> Any:
        write_parquet(path, {"at": [day(1), day(2)], "x": [7, 7]})
        return parse(*args, **kwargs)

    monkeypatch.setattr(file_source, "read_rows", swapped)

    assert read_frame(manifest)["x"].tolist() == [1, 2]
    with pytest.raises(DataChangedError, match=r"a\.parquet is not the file"):
        read_frame(manifest)


# --- reading -----------------------------------------------------------------------------------------------------


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {**ROWS, "z": ["p", "q"], "a.b": [5, 6]})
    manifest = take_manifest(spec(tmp_path), JANUARY)

    assert list(read_frame(manifest, columns=["z", "a.b", "at"]).columns) == ["z", "a.b", "at"]
    with pytest.raises(DataReadError, match=r"has no column 'zz'\. Did you mean 'z'"):
        read_frame(manifest, columns=["zz"])
    with pytest.raises(DataReadError, match="No column"):
        read_frame(manifest, columns=[])


def test_partition_values_are_text_and_a_files_own_column_wins(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d=01" / "a.parquet", ROWS)
    write_parquet(tmp_path / "d=__HIVE_DEFAULT_PARTITION__" / "b.parquet", ROWS)
    write_parquet(tmp_path / "d=a%20b" / "c.parquet", ROWS)
    frame = read_frame(take_manifest(spec(tmp_path), JANUARY), columns=["d"])
    assert frame["d"].tolist() == ["01", "01", None, None, "a b", "a b"]

    write_parquet(tmp_path / "x=9" / "d.parquet", ROWS)
    assert read_frame(take_manifest(spec(tmp_path / "x=*"), JANUARY))["x"].tolist() == [1, 2]


def test_index_columns_of_pandas_are_left_out(tmp_path: Path) -> None:
    pd.DataFrame({**ROWS, "k": ["a", "b"]}).iloc[::-1].to_parquet(tmp_path / "a.parquet")
    manifest = take_manifest(spec(tmp_path), JANUARY)

    assert [name for name, _ in manifest.columns] == ["at", "x", "k"]
    assert read_frame(manifest).index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        pytest.param(pa.array([1, 2], pa.int32()), "int32", [1, 2], id="whole numbers"),
        pytest.param(pa.array([1, None]), "float64", [1.0, np.nan], id="whole numbers with null"),
        pytest.param(pa.array([1.5, None], pa.float32()), "float32", [1.5, np.nan], id="floats keep their width"),
        pytest.param(pa.array([Decimal("1.25"), None]), "float64", [1.25, np.nan], id="decimals"),
        pytest.param(pa.array([True, False]), "bool", [True, False], id="bool"),
        pytest.param(pa.array([True, None]), "float64", [1.0, np.nan], id="bool with null"),
        pytest.param(pa.array(["a", None]), "object", ["a", None], id="text"),
        pytest.param(pa.array(["a", None]).dictionary_encode(), "object", ["a", None], id="dictionary text"),
        pytest.param(pa.nulls(2), "float64", [np.nan, np.nan], id="all null"),
        pytest.param(
            pa.array([day(1), None], pa.timestamp("us", "UTC")),
            "datetime64[us]",
            [pd.Timestamp("2013-01-01"), pd.NaT],
            id="times lose the zone, in UTC",
        ),
        pytest.param(pa.array([[1], None]), "object", [[1], None], id="lists"),
    ],
)
def test_types_of_the_frame(values: pa.Array, dtype: str, expected: list[Any]) -> None:
    frame = to_frame(pa.table({"c": values}))

    assert frame["c"].dtype == dtype
    for got, wanted in zip(frame["c"], expected, strict=True):
        assert got == wanted or (pd.isna(got) and pd.isna(wanted))


def test_large_numbers_beside_nulls_are_refused_not_rounded() -> None:
    table = pa.table({"id": pa.array([2**53 + 1, None])})

    with pytest.raises(DataReadError, match=r"'id' holds whole numbers beyond 2\*\*53"):
        to_frame(table)
    assert to_frame(pa.table({"id": pa.array([2**53 + 1])}))["id"][0] == 2**53 + 1


def test_a_frame_can_be_written_to() -> None:
    """Arrow's memory is read-only, which some scikit-learn code cannot stand."""
    frame = to_frame(pa.table({"x": [1.0, 2.0], "t": [day(1), day(2)]}))

    frame.loc[0, "x"] = 5.0
    assert frame["x"].tolist() == [5.0, 2.0]


# --- several files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "joined", "values"),
    [
        pytest.param(pa.array([1], pa.int32()), pa.array([2]), "int64", [1, 2], id="wider whole numbers"),
        pytest.param(pa.array([1], pa.uint8()), pa.array([-2], pa.int8()), "int16", [1, -2], id="signs"),
        pytest.param(pa.array([1]), pa.array([2.5]), "double", [1.0, 2.5], id="whole numbers and floats"),
        pytest.param(pa.array([1]), pa.nulls(1), "int64", [1, None], id="nothing and something"),
        pytest.param(pa.array(["a"]), pa.array(["b"], pa.large_string()), "string", ["a", "b"], id="kinds of text"),
        pytest.param(
            pa.array([date(2013, 1, 1)]),
            pa.array([datetime(2013, 1, 2, 3)], pa.timestamp("us")),
            "timestamp[us]",
            [datetime(2013, 1, 1), datetime(2013, 1, 2, 3)],
            id="dates and times",
        ),
    ],
)
def test_types_are_joined_where_nothing_is_lost(
    first: pa.Array, second: pa.Array, joined: str, values: list[Any], tmp_path: Path
) -> None:
    write_parquet(tmp_path / "a.parquet", {"c": first})
    write_parquet(tmp_path / "b.parquet", {"c": second})
    manifest = take_manifest(spec(tmp_path, event_time=None))

    assert manifest.columns == (("c", joined),)
    assert read_table(manifest)["c"].to_pylist() == values


def test_types_that_cannot_be_joined_are_named_with_both_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"c": [1]})
    write_parquet(tmp_path / "b.parquet", {"c": ["1"]})

    with pytest.raises(DataReadError, match=r"'c' is int64 in .*a\.parquet and string in .*b\.parquet"):
        take_manifest(spec(tmp_path, event_time=None))


def test_a_number_that_a_float_cannot_hold_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"c": [2**53 + 1]})
    write_parquet(tmp_path / "b.parquet", {"c": [0.5]})
    manifest = take_manifest(spec(tmp_path, event_time=None))

    with pytest.raises(DataReadError, match=r"a\.parquet: column 'c' is int64 there and double"):
        read_frame(manifest)


def test_a_column_that_a_file_lacks_is_null_there_and_noted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    write_parquet(tmp_path / "b.parquet", {"at": [day(3)], "y": ["new"]})
    manifest = take_manifest(spec(tmp_path), JANUARY)
    frame = read_frame(manifest)

    assert frame["y"].tolist() == [None, None, "new"]
    assert frame["x"].tolist()[:2] == [1.0, 2.0]
    assert any("'x' is missing in 1 of 2 files" in note and "b.parquet" in note for note in manifest.notes)


# --- CSV ---------------------------------------------------------------------------------------------------------


def test_csv_types_come_from_every_row_of_every_file(tmp_path: Path) -> None:
    """A type guessed from the first rows would differ by file and break on the first odd one."""
    many = "".join(f"2013-01-01,{n},,1\n" for n in range(50_000))
    csv(tmp_path / "a.csv", f"at,n,t,f\n{many}2013-01-02,007x,word,2\n")
    csv(tmp_path / "b.csv", "at,n,t,f\n2013-01-03T00:00:00Z,012,NA,2.5\n")
    manifest = take_manifest(spec(tmp_path, format="csv"), JANUARY)
    frame = read_frame(manifest)

    assert dict(manifest.columns) == {
        "at": "timestamp[us, tz=UTC]",
        "n": "string",
        "t": "string",
        "f": "double",
    }
    assert frame["n"].tolist()[-2:] == ["007x", "012"], "text as it was written"
    assert frame["t"].tolist()[-3:] == [None, "word", "NA"], "empty is null, the word NA is a word"
    assert frame["f"].tolist()[-2:] == [2.0, 2.5]


@pytest.mark.parametrize(
    ("written", "hour"),
    [
        ("2013-01-05", 0),
        ("2013-01-05T06:00:00Z", 6),
        ("2013-01-05 06:00:00", 6),
        ("2013-01-05T06:00:00.250+02:00", 4),
    ],
)
def test_csv_times_in_iso_8601(written: str, hour: int, tmp_path: Path) -> None:
    csv(tmp_path / "a.csv", f"at,x\n{written},1\n2013-01-06T00:00:00Z,2\n")
    frame = read_frame(take_manifest(spec(tmp_path, format="csv"), JANUARY))

    assert frame["at"].dtype == "datetime64[us]"
    assert frame["at"][0].hour == hour


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "at,x\n2013-01-01,1\n2013-01-02,2,secret\n", r"row 3 .*3 fields where the header has 2", id="ragged"
        ),
        pytest.param("at,x\n2013-01-01,1\n05/01/2013,2\n", "row 3 .*no ISO 8601 time", id="a time of another kind"),
        pytest.param("at,x\n2013-01-01,1\n,2\n", "is null in 1 of 2 rows", id="no time"),
        pytest.param("at,x,x\n2013-01-01,1,2\n", "has the column 'x' more than once", id="double column"),
        pytest.param("at,\n2013-01-01,1\n", "column 2 has no name", id="unnamed column"),
    ],
)
def test_malformed_csv_is_named_by_file_and_row(text: str, said: str, tmp_path: Path) -> None:
    csv(tmp_path / "a.csv", text)

    with pytest.raises(DataReadError, match=rf"a\.csv.*{said}|{said}") as caught:
        take_manifest(spec(tmp_path, format="csv"), JANUARY)
    assert "a.csv" in str(caught.value)
    assert "secret" not in str(caught.value), "a message quotes no row"


def test_csv_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"at,x\n2013-01-01,caf\xe9\n")

    with pytest.raises(DataReadError, match="'x' is not UTF-8 text"):
        take_manifest(spec(tmp_path, format="csv"), JANUARY)


def test_csv_with_mark_quotes_and_packing(tmp_path: Path) -> None:
    text = '\ufeffat,"a ""b"""\r\n2013-01-01,"line\none, two"\r\n'
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    frame = read_frame(take_manifest(spec(tmp_path, format="csv"), JANUARY))

    assert list(frame.columns) == ["at", 'a "b"']
    assert frame['a "b"'][0] == "line\none, two"


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_broken_file_is_named(form: str, tmp_path: Path) -> None:
    (tmp_path / f"broken.{form}").write_bytes(b"PAR1 no, not really\x00\x01" if form == "parquet" else b"\xff\xfe\x00")

    with pytest.raises(DataReadError, match=rf"broken\.{form}"):
        take_manifest(spec(tmp_path, format=form, event_time=None))
    if form == "parquet":
        with pytest.raises(DataReadError, match=r"broken\.parquet is not a readable Parquet file"):
            take_manifest(spec(tmp_path), JANUARY)


def test_csv_with_a_header_only_is_an_empty_version(tmp_path: Path) -> None:
    csv(tmp_path / "a.csv", "at,x\n")
    manifest = take_manifest(spec(tmp_path, format="csv"), JANUARY)

    assert manifest.row_count == 0
    assert list(read_frame(manifest).columns) == ["at", "x"]


def test_times_are_never_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    write_parquet(tmp_path / "a.parquet", {"at": pa.array([datetime(2013, 1, 31, 23, 30)], pa.timestamp("us"))})
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        manifest = take_manifest(spec(tmp_path), JANUARY)
        assert read_frame(manifest)["at"].tolist() == [pd.Timestamp("2013-01-31 23:30")]
        assert manifest.window is not None
        assert manifest.window.start.tzinfo is UTC
    finally:
        monkeypatch.undo()
        time.tzset()
