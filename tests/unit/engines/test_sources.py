"""Data sources: how one is made, what is refused, and when rows count as the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.metadata import EntryPoint
from typing import Any

import pyarrow as pa
import pytest

from airflow_mlops.core import registry
from airflow_mlops.core.records import Window
from airflow_mlops.engines.sources import ManifestFile, make_source, manifest_of, rows_digest, rows_of_window
from airflow_mlops.engines.tables import read_table, take_manifest
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError, UnknownNameError
from airflow_mlops.spec.model import DataSpec

JANUARY = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 2, 1, tzinfo=UTC))
ROWS = pa.table({"at": pa.array([datetime(2013, 1, 5, tzinfo=UTC)], pa.timestamp("us", "UTC")), "x": [1]})


class Fixed:
    """Says that it holds ``said`` rows and gives ``given``."""

    said: pa.Table = ROWS
    given: pa.Table = ROWS

    def __init__(self, *, place: str = "here", depth: int = 1) -> None:
        if depth < 1:
            raise ValueError("depth must be at least 1")

    def fingerprint(self, data: DataSpec, access: Any) -> str:
        return "always"

    def take_manifest(self, data: DataSpec, window: Window | None, access: Any) -> Any:
        rows = rows_of_window(self.said, data.event_time, window, "the rows")
        unit = ManifestFile(path="all", size=8, sha256=rows_digest(rows), row_count=rows.num_rows, total_rows=1)
        return manifest_of(data, window, rows.schema, [unit])

    def read_table(self, manifest: Any, columns: Any, access: Any, fetch: Any) -> pa.Table:
        return self.given.select(list(columns))


class Half:
    """Lacks two of the methods."""

    def fingerprint(self, data: DataSpec, access: Any) -> str:
        return "always"


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that a plug-in brings: ``fixed``, ``half``, and two that cannot be imported."""
    group = "airflow_mlops.data_sources"
    plugins = [
        EntryPoint("fixed", f"{__name__}:Fixed", group),
        EntryPoint("half", f"{__name__}:Half", group),
        EntryPoint("gone", "no_such_module_of_anyone:Thing", group),
        EntryPoint("misspelt", f"{__name__}:Fxed", group),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: plugins)


def spec(**settings: Any) -> DataSpec:
    return DataSpec(**{"uri": "anywhere", "format": "fixed", "event_time": "at", **settings})


# --- making one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"plce": "x"}, r"no option 'plce'\. Did you mean 'place'\?.*options: place, depth", id="name"),
        pytest.param({"depth": 0}, r"'fixed' does not accept its data\.options: depth must be at least 1", id="value"),
        pytest.param({"depth": "deep"}, r"'fixed' does not accept its data\.options", id="type"),
    ],
)
def test_wrong_options_are_told(plugged_in: None, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        take_manifest(spec(options=options), JANUARY)


def test_files_have_no_options() -> None:
    with pytest.raises(InvalidSpecError, match=r"'csv' \(data\.format\) has no option 'sep'.*options: none"):
        make_source("csv", {"sep": ";"})


def test_a_source_without_its_methods_is_refused(plugged_in: None) -> None:
    with pytest.raises(InvalidSpecError, match=r"'half' gives Half, which lacks.*take_manifest and read_table"):
        make_source("half", {})


@pytest.mark.parametrize("name", ["gone", "misspelt"])
def test_a_source_that_cannot_be_imported_is_named(plugged_in: None, name: str) -> None:
    with pytest.raises(InvalidSpecError, match=f"data source '{name}'.*cannot be loaded.*Install what it needs"):
        make_source(name, {})


def test_an_unknown_source_is_told_with_the_nearest(plugged_in: None) -> None:
    with pytest.raises(UnknownNameError, match=r"No data source is called 'fixd'\. Did you mean 'fixed'"):
        make_source("fixd", {})


# --- checking its answers -------------------------------------------------------------------------------------------


def test_a_source_that_gives_other_rows_than_it_said_is_noticed(
    plugged_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = take_manifest(spec(), JANUARY)
    assert read_table(manifest).equals(ROWS)

    monkeypatch.setattr(Fixed, "given", pa.concat_tables([ROWS, ROWS]))

    with pytest.raises(DataChangedError, match="'fixed' gave 2 rows of anywhere where the snapshot counted 1"):
        read_table(manifest)


def test_a_source_that_gives_other_types_is_brought_into_line(
    plugged_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = take_manifest(spec(), JANUARY)

    monkeypatch.setattr(Fixed, "given", ROWS.set_column(1, "x", pa.array([1], pa.int8())))
    assert read_table(manifest).schema.equals(ROWS.schema)

    monkeypatch.setattr(Fixed, "given", ROWS.set_column(1, "x", pa.array([1.5])))
    with pytest.raises(DataReadError, match="'x' is double"):
        read_table(manifest)


def test_options_are_kept_for_the_reader_and_out_of_the_digest(plugged_in: None) -> None:
    here, there = (take_manifest(spec(options={"place": place}), JANUARY) for place in ("here", "there"))

    assert (here.options, there.options) == ({"place": "here"}, {"place": "there"})
    assert here.digest == there.digest, "the same rows are the same version wherever they lie"


# --- the rows of a window, and their digest -------------------------------------------------------------------------


def test_without_an_event_time_a_window_cuts_nothing() -> None:
    assert rows_of_window(ROWS, None, JANUARY, "the rows").num_rows == 1
    assert rows_of_window(ROWS, "at", None, "the rows").num_rows == 1


def test_text_is_no_time() -> None:
    rows = pa.table({"at": ["2013-01-05"]})

    with pytest.raises(DataReadError, match="'at' of the rows has type string, which is no time"):
        rows_of_window(rows, "at", JANUARY, "the rows")


def digest(values: Any, kind: pa.DataType | None = None) -> str:
    return rows_digest(pa.table({"x": pa.array(values, kind)}))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param([1, 2], [2, 1], id="order"),
        pytest.param([1, None], [1, 0], id="null and zero"),
        pytest.param(["a", None], ["a", ""], id="null and an empty text"),
        pytest.param([1.0, None], [1.0, float("nan")], id="null and NaN"),
        pytest.param(["ab", "c"], ["a", "bc"], id="where one text ends"),
        pytest.param([1], [1.0], id="types"),
        pytest.param([True, None], [True, False], id="null and false"),
        pytest.param([[1], [2]], [[1, 2], []], id="lists"),
        pytest.param([Decimal("1.0")], [Decimal("1.1")], id="decimals"),
        pytest.param([date(2013, 1, 1)], [date(2013, 1, 2)], id="dates"),
        pytest.param([time(1)], [time(2)], id="times of day"),
        pytest.param([timedelta(1)], [timedelta(2)], id="durations"),
        pytest.param([b"a"], [b"b"], id="bytes"),
        pytest.param([1], [1, 1], id="a row twice"),
        pytest.param([], [None], id="no row and null"),
    ],
)
def test_what_makes_rows_different(left: list[Any], right: list[Any]) -> None:
    assert digest(left) != digest(right)
    assert digest(left) == digest(left)


def test_a_columns_name_counts() -> None:
    assert rows_digest(pa.table({"x": [1]})) != rows_digest(pa.table({"y": [1]}))


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.timestamp("us", "UTC")])
def test_chunks_and_slices_do_not_count(kind: pa.DataType) -> None:
    values = pa.array([0, 1, None, 1], pa.int64()).cast(kind)
    whole = pa.table({"x": values})
    parts = pa.table({"x": pa.chunked_array([values.slice(0, 1), values.slice(1, 3)])})
    cut = pa.table({"x": pa.concat_arrays([values, values]).slice(4, 4)})

    assert rows_digest(whole) == rows_digest(parts) == rows_digest(cut)


def test_the_digest_is_the_same_in_every_version_of_the_library() -> None:
    """Computed by hand: header, validity, lengths, then the text itself."""
    import hashlib
    import struct

    expected = hashlib.sha256(
        b"'word' string 3\n" + b"\1\0\1" + struct.pack("<3q", 2, 0, 1) + b"abc" + b"'n' int64 3\n" + b"\1\1\0"
        + struct.pack("<3q", 7, -1, 0)
    ).hexdigest()  # fmt: skip

    assert rows_digest(pa.table({"word": ["ab", None, "c"], "n": [7, -1, None]})) == expected
