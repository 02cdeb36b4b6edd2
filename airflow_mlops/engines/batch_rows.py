"""The rows of a dataset version in chunks, for work whose memory must not grow with the data.

Arrow's Parquet reader fetches the column chunks of *every* row group ahead by default and keeps them until the file is
closed, so its memory is the size of the file (measured: 448 MB for a file of 420 MB, 67 MB without). Here nothing is
fetched ahead, and a column is read through a buffer of 1 MB, so that a row group of any size is not held whole either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_mlops.engines.formats import event_times, in_window, instant
from airflow_mlops.engines.listing import partition_values
from airflow_mlops.engines.manifests import Manifest
from airflow_mlops.engines.schemas import conform
from airflow_mlops.errors import DataChangedError, DataReadError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.engines.checked_files import CheckedFile

_BUFFER_BYTES = 1 << 20
#: A CSV file is parsed in blocks of this size; a row must fit into one.
CSV_BLOCK_BYTES = 16 << 20


def read_chunks(
    files: Iterable[CheckedFile], manifest: Manifest, columns: Sequence[str], chunk_rows: int
) -> Iterator[pyarrow.Table]:
    """Yield the rows of a manifest's window in order, at most ``chunk_rows`` at a time.

    A table has ``columns`` in this order, each as one Arrow chunk of the manifest's type; text may be dictionary-coded.
    Cuts follow the files and their row groups, so equal files give equal chunks. No chunk is empty.

    :param files: what :func:`airflow_mlops.engines.checked_files.checked_files` yields for ``manifest``.
    :param columns: names that the manifest has, at least one.
    :raises DataReadError: a file cannot be parsed; file and, where known, row are named.
    :raises DataChangedError: a file holds another number of rows than were snapshotted.
    """
    import pyarrow

    full = manifest.schema
    schema = pyarrow.schema([full.field(name) for name in columns])
    for file in files:
        held, seen = file.manifest, 0
        needed = set(columns) | ({held.event_time} if held.event_time else set())
        parts = _parquet(file, needed, chunk_rows) if file.format == "parquet" else _csv(file, needed, chunk_rows)
        for read in parts:
            rows = _with_folders(read, file, full)
            rows = _with_times(rows, file)
            if file.cut and held.event_time is not None and held.window is not None:
                times = event_times(rows, held.event_time, file.format, file.name)
                rows = rows.filter(in_window(times, held.window))
            seen += rows.num_rows
            if rows.num_rows:
                yield _conformed(rows, schema, file.name)
        if seen != file.entry.row_count:
            raise DataChangedError(
                f"{file.name} gave {seen} rows of the window where the snapshot counted {file.entry.row_count}. Clear "
                f"the snapshot task to take a new version."
            )


def _parquet(file: CheckedFile, needed: set[str], chunk_rows: int) -> Iterator[pyarrow.Table]:
    import pyarrow
    from pyarrow import parquet

    types = pyarrow.types
    with _readable(file.name, "Parquet"):
        schema = parquet.read_schema(file.path)
    wanted = [name for name in schema.names if name in needed]
    text = [
        name
        for name in wanted
        if types.is_string(schema.field(name).type) or types.is_large_string(schema.field(name).type)
    ]
    # A dot in a name would be read as a path into a struct, so columns are chosen after reading where one has it.
    chosen = None if any("." in name for name in wanted) else wanted
    with (
        _readable(file.name, "Parquet"),
        parquet.ParquetFile(file.path, read_dictionary=text, pre_buffer=False, buffer_size=_BUFFER_BYTES) as source,
    ):
        for batch in source.iter_batches(chunk_rows, columns=chosen, use_threads=False):
            yield pyarrow.Table.from_batches([batch]).select(wanted).replace_schema_metadata(None)


def _csv(file: CheckedFile, needed: set[str], chunk_rows: int) -> Iterator[pyarrow.Table]:
    """Parse a CSV file block by block, with the types that the snapshot found by reading all of it."""
    import pyarrow
    from pyarrow import csv

    full, held = file.manifest.schema, file.manifest
    types = {name: full.field(name).type for name in full.names if name not in held.partitions and name in needed}
    if held.event_time in types:
        types[str(held.event_time)] = pyarrow.string()  # times are parsed by our own rules, which take mixed zones
    bad: list[Any] = []

    def stop(row: Any) -> str:
        bad.append(row)
        return "error"

    try:
        with _bytes_of(file) as source:
            reader = csv.open_csv(
                source,
                # One thread: only then does the reader know the number of a bad row.
                read_options=csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
                parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=stop),
                # An empty text field is null; the word NA in a text column is a word. Columns are chosen afterwards:
                # naming them here would refuse a file that lacks one.
                convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
            )
            wanted = [name for name in reader.schema.names if name in needed]
            left = reader.schema.empty_table().select(wanted)
            for batch in reader:
                left = pyarrow.concat_tables([left, pyarrow.Table.from_batches([batch]).select(wanted)])
                whole = left.num_rows - left.num_rows % chunk_rows
                for start in range(0, whole, chunk_rows):
                    yield _null_for_empty(left.slice(start, chunk_rows))
                left = left.slice(whole)
            if left.num_rows:
                yield _null_for_empty(left)
    except (pyarrow.ArrowException, OSError) as exc:
        if bad:
            row = f", row {bad[0].number} (the header is row 1)" if bad[0].number is not None else ""
            raise DataReadError(
                f"{file.name}{row}: {bad[0].actual_columns} fields where the header has {bad[0].expected_columns}. "
                f"Mend or remove that row; a field that holds a comma or a quote must be quoted."
            ) from exc
        raise _unreadable(file.name, "CSV", exc) from exc


@contextmanager
def _bytes_of(file: CheckedFile) -> Iterator[Any]:
    import pyarrow

    with pyarrow.OSFile(str(file.path)) as plain:
        for ending, kind in ((".gz", "gzip"), (".bz2", "bz2"), (".zst", "zstd")):
            if file.name.lower().endswith(ending):
                yield pyarrow.CompressedInputStream(plain, kind)
                return
        yield plain


def _null_for_empty(rows: pyarrow.Table) -> pyarrow.Table:
    import pyarrow
    from pyarrow import compute

    for number, field in enumerate(rows.schema):
        if pyarrow.types.is_string(field.type):
            # Before pyarrow 23 if_else makes an array that cannot be read of a slice of text, so it gets a copy.
            text = rows.column(number).combine_chunks()
            rows = rows.set_column(number, field.name, compute.if_else(compute.equal(text, ""), None, text))
    return rows


def _with_folders(rows: pyarrow.Table, file: CheckedFile, full: pyarrow.Schema) -> pyarrow.Table:
    """Add the folder's ``key=value`` pairs as columns; a column of the file itself wins over the folder's name."""
    import pyarrow

    for key, value in partition_values(file.entry.path).items():
        if key not in full.names or key in rows.column_names:
            continue
        constant = pyarrow.scalar(value, pyarrow.string())
        if key == file.manifest.event_time:
            constant = pyarrow.scalar(instant(value) if value else None, full.field(key).type)
        rows = pyarrow.table(
            {**{name: rows[name] for name in rows.column_names}, key: pyarrow.repeat(constant, rows.num_rows)}
        )
    return rows


def _with_times(rows: pyarrow.Table, file: CheckedFile) -> pyarrow.Table:
    """Parse the event times of CSV, which come as text."""
    name = file.manifest.event_time
    if name is None or file.format != "csv" or name not in rows.column_names:
        return rows
    return rows.set_column(rows.column_names.index(name), name, event_times(rows, name, "csv", file.name))


def _conformed(rows: pyarrow.Table, schema: pyarrow.Schema, name: str) -> pyarrow.Table:
    """Return the columns of ``schema``, dictionary-coded text left as it is."""
    import pyarrow

    types = pyarrow.types

    def coded(column: str) -> bool:
        if column not in rows.column_names:
            return False
        kind = rows[column].type
        return bool(
            types.is_string(schema.field(column).type)
            and types.is_dictionary(kind)
            and types.is_string(kind.value_type)
        )

    kept = {column: rows[column] for column in schema.names if coded(column)}
    rest = [column for column in schema.names if column not in kept]
    if rest:
        plain = conform(
            rows.select([column for column in rest if column in rows.column_names])
            if any(column in rows.column_names for column in rest)
            else rows,
            pyarrow.schema([schema.field(column) for column in rest]),
            name,
        )
        kept |= {column: plain[column] for column in rest}
    return pyarrow.table({column: _one_chunk(kept[column]) for column in schema.names})


def _one_chunk(values: pyarrow.ChunkedArray) -> pyarrow.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.unify_dictionaries().combine_chunks()


@contextmanager
def _readable(name: str, form: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as exc:
        raise _unreadable(name, form, exc) from exc


def _unreadable(name: str, form: str, exc: Exception) -> DataReadError:
    # The reader's own words may quote a row, so only their kind is passed on.
    return DataReadError(
        f"{name} is not a readable {form} file ({type(exc).__name__}). It may be cut off or of another format; deliver "
        f"it again, or correct data.format."
    )
