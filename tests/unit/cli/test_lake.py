"""The demo's lake: what its files hold, and that making it again changes nothing."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from airflow_mlops.cli.demo.lake import KEY, Lake, prepare_lake, source_folder
from airflow_mlops.errors import DataReadError, MissingEngineError

MONTHS = [*(f"2013-{month:02}" for month in range(1, 13)), "2014-01"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return prepare_lake(tmp_path_factory.mktemp("lake") / "flights")


@pytest.fixture(scope="module")
def rows(lake: Lake) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(lake.file(month)).assign(file=month) for month in lake.rows], ignore_index=True)


@pytest.fixture
def small_source(tmp_path: Path) -> Path:
    """Give a source folder with the first 300 flights, to be changed by a test."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("planes.csv", "weather.csv"):
        shutil.copy(source_folder() / name, source / name)
    write_flights(source, pd.read_csv(source_folder() / "flights.csv.zip", nrows=300))
    return source


def write_flights(source: Path, flights: pd.DataFrame) -> None:
    flights.to_csv(
        source / "flights.csv.zip", index=False, compression={"method": "zip", "archive_name": "flights.csv"}
    )


def digests(lake: Lake) -> dict[str, str]:
    return {month: hashlib.sha256(lake.file(month).read_bytes()).hexdigest() for month in lake.rows}


def test_every_flight_that_arrived_is_in_one_monthly_file(lake: Lake, rows: pd.DataFrame) -> None:
    assert list(lake.rows) == MONTHS
    assert sum(lake.rows.values()) == len(rows) == 327_346
    assert lake.rows["2014-01"] == 84, "the evening of 31 December in New York is January in UTC"
    assert sorted(lake.folder.rglob("*")) == sorted(
        path for month in MONTHS for path in (lake.file(month).parent, lake.file(month))
    )


def test_a_file_holds_the_half_open_utc_month_of_the_event_time(rows: pd.DataFrame) -> None:
    assert str(rows["event_time"].dt.tz) == "UTC"
    assert (rows["event_time"].dt.strftime("%Y-%m") == rows["file"]).all()


def test_the_key_is_unique_and_orders_the_rows(lake: Lake, rows: pd.DataFrame) -> None:
    assert not rows.duplicated(list(KEY)).any()
    may = rows[rows["file"] == "2013-05"]
    assert may[list(KEY)].equals(may[list(KEY)].sort_values(list(KEY)))


def test_a_known_flight_has_its_weather_its_aircraft_and_new_yorks_clock(rows: pd.DataFrame) -> None:
    # UA 1545, EWR to IAH: 1 January 2013 (a Tuesday), 5:15 in New York, 11 minutes late; N14228 of 1999, 149 seats.
    flight = rows.loc[rows["event_time"].eq("2013-01-01T10:15:00Z") & rows["flight"].eq(1545)].iloc[0]

    assert (flight["carrier"], flight["origin"], flight["dest"], flight["late"]) == ("UA", "EWR", "IAH", 0)
    assert (flight["scheduled_minute"], flight["weekday"]) == (5 * 60 + 15, 1)
    assert (flight["aircraft_year"], flight["seats"], flight["distance"]) == (1999, 149, 1400)
    weather = pd.read_csv(source_folder() / "weather.csv")
    hour = weather[(weather["origin"] == "EWR") & (weather["time_hour"] == "2013-01-01T10:00:00Z")].iloc[0]
    assert (flight["temp"], flight["wind_speed"]) == (hour["temp"], hour["wind_speed"])


def test_a_summer_evening_keeps_new_yorks_weekday(rows: pd.DataFrame) -> None:
    evening = rows[rows["event_time"].between("2013-06-02T01:00:00Z", "2013-06-02T02:00:00Z")]

    assert len(evening), "21 to 22 o'clock of Saturday, 1 June in New York"
    assert set(evening["weekday"]) == {5}
    assert evening["scheduled_minute"].between(21 * 60, 22 * 60).all()


def test_late_means_more_than_fifteen_minutes(tmp_path: Path, small_source: Path) -> None:
    flights = pd.read_csv(small_source / "flights.csv.zip")
    flights["arr_delay"] = [15.0, 15.5, 16.0, -3.0, None, *[0.0] * (len(flights) - 5)]
    write_flights(small_source, flights)

    made = pd.read_parquet(prepare_lake(tmp_path / "lake", source=small_source).file("2013-01"))

    late = {(row.carrier, row.flight, row.origin): row.late for row in made.itertuples()}
    assert len(late) == len(made), "within one morning these three name a flight"
    first = [(row.carrier, row.flight, row.origin) for row in flights[:5].itertuples()]
    assert [late.get(key) for key in first] == [0, 1, 1, 0, None]
    assert len(made) == len(flights) - 1, "a flight that never arrived has no answer"


def test_the_types_are_plain_and_whole_numbers_are_never_missing(lake: Lake) -> None:
    schema = pq.read_schema(lake.file("2013-12"))

    assert schema.metadata is None, "pandas metadata names library versions"
    whole = [field.name for field in schema if str(field.type) == "int64"]
    assert whole == ["late", "flight", "distance", "scheduled_minute", "weekday"]
    assert all(
        pq.read_table(lake.file(month), columns=whole)[name].null_count == 0 for month in MONTHS for name in whole
    )
    assert {str(field.type) for field in schema} == {"timestamp[us, tz=UTC]", "string", "int64", "double"}


def test_only_december_lacks_more_than_two_percent_of_the_weather(rows: pd.DataFrame) -> None:
    missing = rows[rows["file"] != "2014-01"].groupby("file")["temp"].apply(lambda column: column.isna().mean())

    assert missing[missing > 0.02].round(4).to_dict() == {"2013-12": 0.0306}


def test_making_it_again_gives_the_same_bytes_and_touches_no_file(lake: Lake, tmp_path: Path) -> None:
    times = {month: lake.file(month).stat().st_mtime_ns for month in lake.rows}
    before = digests(lake)
    lake.file("2013-03").write_bytes(b"cut off")

    again = prepare_lake(lake.folder)

    assert again == lake
    assert digests(lake) == before, "the damaged file is made anew"
    changed = {month for month in lake.rows if lake.file(month).stat().st_mtime_ns != times[month]}
    assert changed == {"2013-03"}


def test_the_order_of_the_source_does_not_matter(tmp_path: Path, small_source: Path) -> None:
    first = digests(prepare_lake(tmp_path / "first", source=small_source))
    write_flights(small_source, pd.read_csv(small_source / "flights.csv.zip").sample(frac=1, random_state=1))

    assert digests(prepare_lake(tmp_path / "second", source=small_source)) == first


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, small_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare_lake(tmp_path / "lake", source=small_source)
    before = digests(made)
    flights = pd.read_csv(small_source / "flights.csv.zip")
    write_flights(small_source, flights[:200])

    def full_disk(table: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        prepare_lake(tmp_path / "lake", source=small_source)

    assert digests(made) == before
    assert [path.name for path in made.file("2013-01").parent.iterdir()] == ["flights.parquet"]


def test_two_rows_of_one_flight_are_refused(tmp_path: Path, small_source: Path) -> None:
    flights = pd.read_csv(small_source / "flights.csv.zip")
    write_flights(small_source, pd.concat([flights, flights[:1]]))

    with pytest.raises(DataReadError, match=r"2 flights in .* share their event_time, carrier, flight, origin"):
        prepare_lake(tmp_path / "lake", source=small_source)


def test_a_source_folder_without_a_file_names_it(tmp_path: Path, small_source: Path) -> None:
    (small_source / "planes.csv").unlink()

    with pytest.raises(DataReadError, match=r"lacks planes\.csv"):
        prepare_lake(tmp_path / "lake", source=small_source)


def test_without_the_package_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.cli.demo.lake.find_spec", lambda name: None)

    with pytest.raises(MissingEngineError, match=r"pip install 'airflow-mlops\[demo\]'"):
        source_folder()
