"""Between which times the rows of a file lie, as its footer or its folder's name tells without reading a row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import Length, partition_window
from airflow_mlops.engines.formats import instant, time_range
from airflow_mlops.engines.listing import partition_values

if TYPE_CHECKING:
    import pyarrow.fs

#: Folder keys that count one unit of time each, as ``year=2013/month=3/day=1`` does, from the longest on.
_UNITS = ("year", "month", "day", "hour")
_LENGTHS = {unit: Length.parse(f"1 {unit}") for unit in _UNITS}
#: Under such a key eight digits are a date; elsewhere they may be anything.
_DATE_KEY = re.compile(r"^(dt|ds|day)$|date", re.IGNORECASE)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class FileTimes:
    """What is known of the times of a file's rows.

    :param kind: ``known``: from ``low`` to ``high``, both included; ``unknown``: any; ``empty``: there is no row, or no
        file any more; ``broken``: its footer cannot be read.
    """

    kind: Literal["known", "unknown", "empty", "broken"]
    low: datetime | None = None
    high: datetime | None = None

    def may_touch(self, window: Window) -> bool:
        """Say whether rows of the half-open window are not ruled out."""
        if self.low is None or self.high is None:
            return self.kind != "empty"
        return self.low < window.end and self.high >= window.start


UNKNOWN, EMPTY, BROKEN = FileTimes("unknown"), FileTimes("empty"), FileTimes("broken")


def footer_times(files: pyarrow.fs.FileSystem, path: str, relative: str, column: str) -> FileTimes:
    """Read a Parquet file's footer.

    :param path: the file in its store; ``relative``: below the data's root, whose folders may be partitions.
    :param column: the event-time column, in the file or among the partitions.
    :raises OSError: the store refuses or does not answer.
    """
    from pyarrow import ArrowException, parquet

    try:
        with files.open_input_file(path) as source, parquet.ParquetFile(source) as file:
            if column not in file.schema_arrow.names and column in partition_values(relative):
                return folder_times(relative, column)
            if file.metadata.num_rows == 0:
                return EMPTY
            span = time_range(file, column)
    except FileNotFoundError:
        return EMPTY
    except (ArrowException, OSError) as exc:
        # What is no Parquet at all is an ArrowException; a garbled footer is an OSError like a failing store's.
        if isinstance(exc, ArrowException) or "thrift" in str(exc).lower():
            return BROKEN
        raise
    return UNKNOWN if span is None else FileTimes("known", *span)


def folder_times(relative: str, column: str | None) -> FileTimes:
    """Read the time in the names of the folders a file is in.

    Read are ``KEY=2013``, ``2013-03``, ``2013-03-01`` or ``2013-03-01T05`` (a bare year under a key ``year`` only),
    ``KEY=20130301`` where the key is dt, ds, day or has "date" in it, and ``year=2013/month=3/day=1/hour=5``; of
    several the innermost. The event-time column as a key gives every row of the folder that one moment.
    """
    values = partition_values(relative)
    if column is not None and column in values:
        moment = instant(values[column] or "")
        return UNKNOWN if moment is None else FileTimes("known", moment, moment)
    window = _counted(values)
    for key, value in values.items():
        window = _named(key, value or "") or window
    return UNKNOWN if window is None else FileTimes("known", window.start, window.end - _TICK)


def _named(key: str, value: str) -> Window | None:
    if re.fullmatch(r"\d{8}", value) and _DATE_KEY.search(key):
        value = f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return partition_window(value) if "-" in value else None


def _counted(values: dict[str, str | None]) -> Window | None:
    """Return the time of a year's folder, narrowed by those of month, day and hour as far as they go."""
    numbers: list[int] = []
    by_unit = {key.lower(): value for key, value in values.items()}
    for unit in _UNITS:
        text = by_unit.get(unit)
        if text is None or not re.fullmatch(r"\d{1,4}", text):
            break
        numbers.append(int(text))
    if not numbers:
        return None
    try:
        year, month, day, hour = (*numbers, *(1, 1, 1, 0)[len(numbers) :])
        start = datetime(year, month, day, hour, tzinfo=UTC)
    except ValueError:
        return None
    return Window(start=start, end=_LENGTHS[_UNITS[len(numbers) - 1]].after(start))
