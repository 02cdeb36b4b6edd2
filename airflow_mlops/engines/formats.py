"""The bytes of one Parquet or CSV file as Arrow rows, with every fault named by file and place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_mlops.engines.storage import describe
from airflow_mlops.errors import DataReadError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.records import Window

#: A CSV file is read as one block up to this size, so that its types are inferred from all of its rows.
CSV_BLOCK_BYTES = 1024 * 1024 * 1024
_PANDAS_INDEX = re.compile(r"^__index_level_\d+__$")


def read_rows(
    buffer: pyarrow.Buffer,
    form: str,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    types: Mapping[str, pyarrow.DataType] | None = None,
) -> pyarrow.Table:
    """Parse one file.

    :param name: the file, for messages.
    :param columns: columns to keep; one that the file lacks is simply not there. None: all.
    :param types: types of CSV columns as the manifest knows them; without them they are inferred from all rows.
    :raises DataReadError: the bytes are not what the format says; file and, for CSV, row are named.
    """
    if form == "parquet":
        return _read_parquet(buffer, name, columns)
    return _read_csv(buffer, name, columns, types)


def parquet_schema(buffer: pyarrow.Buffer, name: str) -> pyarrow.Schema:
    """Return a Parquet file's schema without pandas' own notes and without the index columns that pandas adds."""
    import pyarrow
    from pyarrow import parquet

    with _parsed(name, "Parquet"):
        return _without_index(parquet.read_schema(pyarrow.BufferReader(buffer))).remove_metadata()


def parquet_row_count(buffer: pyarrow.Buffer, name: str) -> int:
    """Return how many rows a Parquet file holds."""
    import pyarrow
    from pyarrow import parquet

    with _parsed(name, "Parquet"):
        return int(parquet.read_metadata(pyarrow.BufferReader(buffer)).num_rows)


def time_range(file: Any, column: str) -> tuple[datetime, datetime] | None:
    """Return earliest and latest value of a column from a Parquet file's statistics, or None where they do not tell.

    :param file: an open ``pyarrow.parquet.ParquetFile``.
    """
    metadata = file.metadata
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    if column not in names:
        return None
    number = names.index(column)
    lows, highs = [], []
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group)
        if chunk.num_rows == 0:
            continue
        statistics = chunk.column(number).statistics
        if statistics is None or not statistics.has_min_max or not statistics.has_null_count or statistics.null_count:
            return None  # nulls are looked for in the rows, where they are counted and named
        low, high = _moment(statistics.min), _moment(statistics.max)
        if low is None or high is None:
            return None
        lows.append(low)
        highs.append(high)
    return (min(lows), max(highs)) if lows else None


def event_times(table: pyarrow.Table, column: str, form: str, name: str) -> pyarrow.ChunkedArray:
    """Return a column as instants in UTC: aware times converted, naive times and dates taken as UTC.

    In CSV, ISO 8601 text is read too, with or without zone.

    :raises DataReadError: the column is missing, holds nulls, or is no time; column and file are named.
    """
    import pyarrow

    if column not in table.column_names:
        close = get_close_matches(column, table.column_names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataReadError(
            f"The event-time column {column!r} is not in {name}.{hint} Its columns: "
            f"{describe(table.column_names, 20)}. Correct data.event_time."
        )
    values = table[column]
    if values.null_count:
        raise DataReadError(
            f"The event-time column {column!r} is null in {values.null_count} of {len(values)} rows of {name}. A row "
            f"without a time belongs to no window: fill the column or drop those rows where the file is made."
        )
    kind = values.type
    types = pyarrow.types
    if types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = kind.value_type
    if types.is_timestamp(kind):
        return values.cast(pyarrow.timestamp(kind.unit, "UTC"))
    if types.is_date(kind):
        return values.cast(pyarrow.timestamp("s")).cast(pyarrow.timestamp("s", "UTC"))
    if form == "csv" and (types.is_string(kind) or types.is_large_string(kind)):
        return _iso_times(values, column, name)
    if not len(values) and types.is_null(kind):
        return pyarrow.chunked_array([], pyarrow.timestamp("us", "UTC"))
    raise DataReadError(
        f"The event-time column {column!r} of {name} has type {kind}, which is no time. Store it as a timestamp"
        f"{' or ISO 8601 text, such as 2013-01-31T05:00:00Z' if form == 'csv' else ''}, or name another column in "
        f"data.event_time."
    )


def in_window(times: pyarrow.ChunkedArray, window: Window) -> pyarrow.ChunkedArray:
    """Return which instants lie in the half-open window."""
    import pyarrow
    from pyarrow import compute

    # The coarser unit would cut the window's ends; the finer one may not hold far dates: nanoseconds end in 2262.
    unit = "ns" if times.type.unit == "ns" else "us"
    values = times.cast(pyarrow.timestamp(unit, "UTC"))
    start = pyarrow.scalar(window.start, pyarrow.timestamp("us", "UTC")).cast(pyarrow.timestamp(unit, "UTC"))
    end = pyarrow.scalar(window.end, pyarrow.timestamp("us", "UTC")).cast(pyarrow.timestamp(unit, "UTC"))
    return compute.and_(compute.greater_equal(values, start), compute.less(values, end))


def instant(value: str) -> datetime | None:
    """Read a partition value such as ``2013-01``, ``2013-01-31`` or an ISO time, as UTC; else None."""
    text = f"{value}-01" if re.fullmatch(r"\d{4}-\d{2}", value) else value
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _moment(value: Any) -> datetime | None:
    if hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime(warn=False)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None


@contextmanager
def _parsed(name: str, form: str) -> Iterator[None]:
    """Name the file of a parsing fault. The reader's own words may quote a row, so only their kind is passed on."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as exc:
        if isinstance(exc, DataReadError):
            raise
        raise DataReadError(
            f"{name} is not a readable {form} file: {_without_rows(str(exc))}. It may be cut off or of another format; "
            f"deliver it again, or correct data.format."
        ) from exc


def _without_rows(text: str) -> str:
    """Shorten a reader's message to the part that quotes no value."""
    text = " ".join(text.split())
    text = re.sub(r"(Expected \d+ columns, got \d+).*", r"\1", text)
    text = re.sub(r"invalid value '.*", "invalid value", text)
    return text[:200].rstrip(".")


def _without_index(schema: pyarrow.Schema) -> pyarrow.Schema:
    for name in [name for name in schema.names if _PANDAS_INDEX.match(name)]:
        schema = schema.remove(schema.get_field_index(name))
    return schema


def _read_parquet(buffer: pyarrow.Buffer, name: str, columns: Sequence[str] | None) -> pyarrow.Table:
    import pyarrow
    from pyarrow import parquet

    schema = parquet_schema(buffer, name)
    twice = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if twice:
        raise DataReadError(f"{name} has the column {twice[0]!r} more than once. Name each column differently.")
    wanted = [column for column in schema.names if columns is None or column in columns]
    with _parsed(name, "Parquet"), parquet.ParquetFile(pyarrow.BufferReader(buffer)) as file:
        # A dot in a name would be read as a path into a struct, so columns are chosen after reading where one has it.
        if any("." in column for column in wanted):
            return file.read().select(wanted).replace_schema_metadata(None)
        return file.read(columns=wanted).select(wanted).replace_schema_metadata(None)


def _read_csv(
    buffer: pyarrow.Buffer,
    name: str,
    columns: Sequence[str] | None,
    types: Mapping[str, pyarrow.DataType] | None,
) -> pyarrow.Table:
    import pyarrow
    from pyarrow import compute, csv

    bad: list[tuple[int, int, int | None]] = []

    def stop(row: Any) -> str:
        bad.append((row.expected_columns, row.actual_columns, row.number))
        return "error"

    source: Any = pyarrow.BufferReader(buffer)
    for ending, kind in ((".gz", "gzip"), (".bz2", "bz2"), (".zst", "zstd")):
        if name.lower().endswith(ending):
            source = pyarrow.CompressedInputStream(source, kind)
    header = _csv_header(buffer, name)
    wanted = [column for column in header if columns is None or column in columns]
    try:
        table = csv.read_csv(
            source,
            # One thread: only then does the reader know the number of a bad row.
            read_options=csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=stop),
            convert_options=csv.ConvertOptions(
                column_types={column: kind for column, kind in (types or {}).items() if column in wanted},
                include_columns=wanted,
                # An empty text field is null; the word NA in a text column is a word.
                strings_can_be_null=False,
            ),
        )
    except (pyarrow.ArrowException, OSError) as exc:
        if bad:
            expected, actual, number = bad[0]
            raise DataReadError(
                f"{name}, row {number} (the header is row 1): {actual} fields where the header has {expected}. Mend or "
                f"remove that row; a field that holds a comma or a quote must be quoted."
            ) from exc
        match = re.search(r"In CSV column #(\d+)(?:: Row #(\d+))?", str(exc))
        if match is not None:
            column = wanted[int(match[1])] if int(match[1]) < len(wanted) else f"number {int(match[1]) + 1}"
            raise DataReadError(
                f"{name}{f', row {match[2]}' if match[2] else ''}: column {column!r} holds a value that is not of its "
                f"type: {_without_rows(str(exc).partition('CSV conversion error ')[2] or str(exc))}."
            ) from exc
        raise DataReadError(f"{name} is not a readable CSV file: {_without_rows(str(exc))}.") from exc
    for number, field in enumerate(table.schema):
        if pyarrow.types.is_binary(field.type):
            raise DataReadError(f"{name}: column {field.name!r} is not UTF-8 text. Save the file as UTF-8.")
        if pyarrow.types.is_string(field.type):
            text = table.column(number)
            empty = compute.equal(text, "")
            table = table.set_column(number, field.name, compute.if_else(empty, None, text))
    return table


def _csv_header(buffer: pyarrow.Buffer, name: str) -> list[str]:
    """Return a CSV file's column names, refusing names that stand twice or are empty."""
    import pyarrow
    from pyarrow import csv

    source: Any = pyarrow.BufferReader(buffer)
    for ending, kind in ((".gz", "gzip"), (".bz2", "bz2"), (".zst", "zstd")):
        if name.lower().endswith(ending):
            source = pyarrow.CompressedInputStream(source, kind)
    with _parsed(name, "CSV"):
        # The first block alone: a row of the wrong length is the reader's business, with its number.
        reader = csv.open_csv(
            source,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip"),
        )
        names = list(reader.schema.names)
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataReadError(f"{name} has the column {twice[0]!r} more than once. Name each column differently.")
    if "" in names:
        raise DataReadError(f"{name}: column {names.index('') + 1} has no name in the header. Give it one.")
    return names


def _iso_times(values: pyarrow.ChunkedArray, column: str, name: str) -> pyarrow.ChunkedArray:
    import pyarrow
    from pyarrow import compute

    text = values.combine_chunks() if isinstance(values, pyarrow.ChunkedArray) else values
    zoned = compute.match_substring_regex(text, r"(?:Z|[+-]\d{2}:?\d{2})$")
    # A plain date ends on -31 too: only what has a time of day can carry a zone.
    zoned = compute.and_(zoned, compute.match_substring_regex(text, r"\d[T ]\d"))
    target = pyarrow.timestamp("us", "UTC")
    try:
        aware = compute.if_else(zoned, text, None).cast(target)
        naive = compute.if_else(zoned, None, text).cast(pyarrow.timestamp("us")).cast(target)
    except pyarrow.ArrowInvalid as exc:
        for number, value in enumerate(text.to_pylist()):
            if instant(value) is None:
                raise DataReadError(
                    f"{name}, row {number + 2} (the header is row 1): the event-time column {column!r} holds no ISO "
                    f"8601 time. Write times such as 2013-01-31T05:00:00Z or 2013-01-31 05:00:00."
                ) from exc
        raise DataReadError(
            f"{name}: the event-time column {column!r} cannot be read as ISO 8601 with at most six decimals."
        ) from exc
    return pyarrow.chunked_array([compute.coalesce(aware, naive)])
