"""What every data source owes, the plug-in's as the built-in ones: one set of tests, and a way to write per source."""

from __future__ import annotations

import csv
import shutil
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_mlops.engines.sources import DataSource, data_sources, make_source
from airflow_mlops.engines.tables import fingerprint, read_frame, read_table, take_manifest
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError
from airflow_mlops.spec.model import DataSpec
from airflow_mlops.steps.datasets import load_frame, load_table
from tests.support.data_steps import DataSteps, window

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer

pytestmark = pytest.mark.usefixtures("plugin")

SCHEMA = pa.schema(
    [("at", pa.timestamp("us", "UTC")), ("x", pa.int64()), ("share", pa.float64()), ("word", pa.string())]
)
JANUARY = window("2013-01-01", "2013-02-01")
Row = tuple[datetime | None, int | None, float | None, str | None]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


ROWS: list[Row] = [
    (at("2013-01-01T00:00:00"), 1, 0.5, "a"),
    (at("2013-01-15T12:30:00.000001"), None, -1.25, "b,c"),
    (at("2013-01-31T23:59:59.999999"), 3, None, None),
]


class Parquet:
    """Rows as one Parquet file."""

    options: Mapping[str, Any] = {}

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rows.parquet"

    def write(self, rows: Sequence[Row]) -> None:
        columns = zip(*rows, strict=True) if rows else [[]] * len(SCHEMA)
        parquet.write_table(pa.table([list(column) for column in columns], schema=SCHEMA), self.file)


class Csv:
    """Rows as one CSV file."""

    options: Mapping[str, Any] = {}

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rows.csv"

    def write(self, rows: Sequence[Row]) -> None:
        with self.file.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(SCHEMA.names)
            writer.writerows([(row[0].isoformat() if row[0] else None, *row[1:]) for row in rows])


class Sqlite:
    """Rows as a table of a SQLite file: the plug-in's source."""

    options: Mapping[str, Any] = {"table": "rows"}

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rows.db"

    def write(self, rows: Sequence[Row]) -> None:
        with closing(sqlite3.connect(self.file)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS rows (at TIMESTAMP, x INTEGER, share REAL, word TEXT)")
            database.execute("DELETE FROM rows")
            values = [(row[0].isoformat() if row[0] else None, *row[1:]) for row in rows]
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", values)


#: A new data source adds its line here.
PLACES: dict[str, type[Parquet | Csv | Sqlite]] = {"parquet": Parquet, "csv": Csv, "sqlite": Sqlite}


class Source:
    """One source with rows in it."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.name, self.place = name, PLACES[name](folder)
        self.place.write(ROWS)

    def settings(self, **settings: Any) -> dict[str, Any]:
        return {
            "uri": str(self.place.file),
            "format": self.name,
            "options": dict(self.place.options),
            "event_time": "at",
            **settings,
        }

    def spec(self, **settings: Any) -> DataSpec:
        return DataSpec(**self.settings(**settings))

    def digest(self) -> str:
        return take_manifest(self.spec(), JANUARY).digest


@pytest.fixture(params=list(PLACES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return Source(request.param, tmp_path / "lake")


def table_of(rows: Sequence[Row]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA)


# --- one protocol ---------------------------------------------------------------------------------------------------


def test_every_registered_source_is_tested_here() -> None:
    assert sorted(PLACES) == data_sources.names()


def test_a_source_is_made_from_its_options(source: Source) -> None:
    assert isinstance(make_source(source.name, source.place.options), DataSource)


def test_an_unknown_option_is_told_with_those_there_are(source: Source) -> None:
    options = {**source.place.options, "tabel": "rows"}

    with pytest.raises(InvalidSpecError, match=rf"'{source.name}'.*no option 'tabel'.*Its data\.options: "):
        take_manifest(source.spec(options=options), JANUARY)


# --- the same rows, whatever holds them -----------------------------------------------------------------------------


def test_the_same_rows_give_the_same_table(source: Source) -> None:
    manifest = take_manifest(source.spec(), JANUARY)

    assert read_table(manifest).equals(table_of(ROWS))
    assert manifest.row_count == 3
    assert manifest.columns == tuple((field.name, str(field.type)) for field in SCHEMA)
    assert all(len(unit.sha256) == 64 and unit.row_count for unit in manifest.files)


def test_columns_come_as_asked(source: Source) -> None:
    manifest = take_manifest(source.spec(), JANUARY)

    assert read_table(manifest, columns=["word", "x"]).to_pydict() == {"word": ["a", "b,c", None], "x": [1, None, 3]}
    with pytest.raises(DataReadError, match=r"no column 'wrod'.*Did you mean 'word'"):
        read_table(manifest, columns=["wrod"])


def test_a_window_is_half_open(source: Source) -> None:
    outside = [(at("2012-12-31T23:59:59.999999"), 0, 0.0, "z"), (at("2013-02-01T00:00:00"), 9, 9.0, "z")]
    source.place.write([outside[0], *ROWS, outside[1]])

    manifest = take_manifest(source.spec(), JANUARY)

    assert manifest.row_count == 3
    assert read_table(manifest).equals(table_of(ROWS))
    assert read_table(manifest, columns=["x"]).to_pydict() == {"x": [1, None, 3]}


def test_without_a_window_every_row_is_taken(source: Source) -> None:
    source.place.write([*ROWS, (at("2020-02-01T00:00:00"), 9, 9.0, "z")])

    assert read_frame(take_manifest(source.spec()))["word"].tolist() == ["a", "b,c", None, "z"]
    assert read_frame(take_manifest(source.spec(event_time=None), JANUARY))["share"].tolist()[3] == 9.0


def test_an_empty_window_has_columns_and_no_rows(source: Source) -> None:
    manifest = take_manifest(source.spec(), window("2014-01-01", "2014-02-01"))

    assert (manifest.row_count, manifest.files) == (0, ())
    assert read_table(manifest).schema.names == SCHEMA.names
    assert read_table(manifest, columns=["at"]).num_rows == 0


def test_an_event_time_that_is_missing_is_named(source: Source) -> None:
    with pytest.raises(DataReadError, match=r"'att' is not in .*Did you mean 'at'.*data\.event_time"):
        take_manifest(source.spec(event_time="att"), JANUARY)


def test_an_event_time_that_is_null_is_counted(source: Source) -> None:
    source.place.write([*ROWS, (None, 4, 0.0, "d")])

    with pytest.raises(DataReadError, match="'at' is null in 1 of 4 rows"):
        take_manifest(source.spec(), JANUARY)


def test_an_event_time_that_is_no_time_is_refused(source: Source) -> None:
    with pytest.raises(DataReadError, match="'x'"):
        take_manifest(source.spec(event_time="x"), JANUARY)


def test_what_is_not_there_is_named(source: Source) -> None:
    source.place.file.unlink()

    for look in (lambda: fingerprint(source.spec()), lambda: take_manifest(source.spec(), JANUARY)):
        with pytest.raises(DataReadError, match="does not exist"):
            look()


def test_what_cannot_be_read_is_named(source: Source) -> None:
    source.place.file.write_bytes(b"\xff\xfe\x00 no such data")

    with pytest.raises(DataReadError, match=source.place.file.name):
        take_manifest(source.spec(), JANUARY)


# --- versions -------------------------------------------------------------------------------------------------------

CHANGES = {
    "a changed value": [ROWS[0], (ROWS[1][0], None, -1.25, "b,d"), ROWS[2]],
    "a value instead of null": [ROWS[0], (ROWS[1][0], 0, -1.25, "b,c"), ROWS[2]],
    "a changed time": [(at("2013-01-01T00:00:01"), *ROWS[0][1:]), *ROWS[1:]],
    "an added row": [*ROWS, (at("2013-01-20T00:00:00"), 4, 0.0, "d")],
    "a row twice": [*ROWS, ROWS[2]],
    "a removed row": ROWS[:2],
    "no row any more": [],
}


@pytest.mark.parametrize("rows", CHANGES.values(), ids=CHANGES)
def test_a_change_gives_another_version_and_stops_a_reader(source: Source, rows: list[Row]) -> None:
    manifest = take_manifest(source.spec(), JANUARY)

    source.place.write(rows)

    assert source.digest() != manifest.digest
    with pytest.raises(DataChangedError, match=f"{source.place.file.name}.*Clear the snapshot task"):
        read_table(manifest)
    with pytest.raises(DataChangedError):
        read_table(manifest, columns=["at"])


def test_the_same_rows_are_the_same_version_elsewhere_and_later(source: Source, tmp_path: Path) -> None:
    first = source.digest()
    other = Source(source.name, tmp_path / "elsewhere")
    shutil.copyfile(source.place.file, other.place.file)

    assert source.digest() == first == other.digest()


def test_a_fingerprint_stays_until_something_happens(source: Source) -> None:
    first = fingerprint(source.spec())
    take_manifest(source.spec(), JANUARY)
    assert fingerprint(source.spec()) == first, "reading is nothing that happens"

    source.place.write([*ROWS, (at("2013-01-20T00:00:00"), 4, 0.0, "d" * 9000)])
    assert fingerprint(source.spec()) != first


# --- inside the steps, against a real MLflow server -----------------------------------------------------------------


@pytest.fixture
def steps(mlflow_server: MLflowServer) -> DataSteps:
    return DataSteps(mlflow_server.uri, f"sources-{uuid.uuid4().hex[:8]}")


def test_a_retry_adopts_and_a_change_makes_a_new_version(source: Source, steps: DataSteps) -> None:
    first = steps.snapshot(source.settings(), JANUARY)
    again = steps.snapshot(source.settings(), JANUARY)
    source.place.write(ROWS[:2])
    renewed = steps.snapshot(source.settings(), JANUARY)

    assert again == first
    assert (first.format, first.row_count, first.column_count) == (source.name, 3, 4)
    assert renewed.row_count == 2
    assert renewed.digest != first.digest
    with steps.work() as work, pytest.raises(DataChangedError, match=source.place.file.name):
        load_frame(first, work)
    with steps.work() as work:
        assert load_table(renewed, work).equals(table_of(ROWS[:2]))


@pytest.mark.parametrize("to_store", [False, True], ids=["into the run's artifacts", "into a folder of the store"])
def test_a_copy_outlives_the_original(to_store: bool, source: Source, steps: DataSteps, tmp_path: Path) -> None:
    reference = steps.snapshot(source.settings(), JANUARY, task="reference")
    data = source.settings(snapshot="copy", copy_to=str(tmp_path / "copies") if to_store else None)
    copy = steps.snapshot(data, JANUARY, task="copy")
    assert steps.snapshot(data, JANUARY, task="copy") == copy, "a retry finds the copy and adopts it"
    source.place.file.unlink()

    assert (copy.digest, copy.snapshot) == (reference.digest, "copy")
    with steps.work() as work:
        assert load_table(copy, work).equals(table_of(ROWS))
        assert load_frame(copy, work, ["word"])["word"].tolist() == ["a", "b,c", None]


def test_accepted_rows_become_a_version_of_their_own(source: Source, steps: DataSteps) -> None:
    dataset = steps.snapshot(source.settings(), JANUARY)
    between = {"column": "share", "min_value": 0, "max_value": 1}
    contract = {
        "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": between, "on_failure": "quarantine"}]
    }
    report = steps.validate(dataset, contract, source.settings())

    assert (report.verdict, report.quarantined_count) == ("quarantine", 1)
    assert report.dataset.parent_digest == dataset.digest
    source.place.file.unlink()
    with steps.work() as work:
        assert load_table(report.dataset, work).equals(table_of([ROWS[0], ROWS[2]]))
