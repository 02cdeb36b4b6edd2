"""The built-in data source: files of Parquet or CSV, local or in an object store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.core.records import Window
from airflow_mlops.engines.formats import (
    event_times,
    in_window,
    instant,
    parquet_row_count,
    parquet_schema,
    read_rows,
    time_range,
)
from airflow_mlops.engines.listing import (
    ListedFile,
    Listing,
    list_files,
    listing_fingerprint,
    partition_values,
    partitions_of,
)
from airflow_mlops.engines.manifests import Manifest, ManifestFile, encode_schema
from airflow_mlops.engines.schemas import conform, names_and_types, unify
from airflow_mlops.engines.storage import (
    Blob,
    StorageAccess,
    filesystem,
    matching,
    path_in_store,
    read_blob,
    scheme_of,
    translated,
)
from airflow_mlops.errors import DataChangedError, DataReadError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs

    from airflow_mlops.spec.model import DataSpec

log = logging.getLogger(__name__)

_REMOTE_READERS = 4


class FileSource:
    """Files below a folder, behind a glob, or one by one. It has no options: ``format`` and ``uri`` say everything."""

    def fingerprint(self, data: DataSpec, access: StorageAccess | None) -> str:
        """Return a digest of names, sizes and times of the files; none of them is read."""
        return listing_fingerprint(data, access)

    def take_manifest(self, data: DataSpec, window: Window | None, access: StorageAccess | None) -> Manifest:
        """Find the files that hold rows of ``window`` and hash them."""
        return take_manifest(data, window, access)

    def read_table(
        self,
        manifest: Manifest,
        columns: Sequence[str],
        access: StorageAccess | None,
        fetch: Callable[[str], Path] | None,
    ) -> pyarrow.Table:
        """Read the files in manifest order, each checked before any of its rows is used."""
        return read_table(manifest, columns, access, fetch)

    def blobs(self, manifest: Manifest, access: StorageAccess | None) -> Iterator[tuple[ManifestFile, Blob]]:
        """Yield the checked bytes of every file, which a copy of the dataset keeps as they are."""
        return read_blobs(manifest, access)


def take_manifest(data: DataSpec, window: Window | None = None, access: StorageAccess | None = None) -> Manifest:
    """Find the files that hold rows of ``window`` and fix their content.

    Folder names are not trusted for that: a Parquet file is passed over only if its own statistics say that none of
    its rows is in the window, every other file is read. A window without any row gives a manifest without files.

    :param window: None, or no ``data.event_time``: every row, and the manifest then names no window.
    :raises DataReadError: no file, an unreadable one, an event-time column that is missing, null or no time, or files
        whose columns cannot be joined.
    :raises StorageUnavailableError: the store does not answer.
    """
    listing = list_files(data, access)
    files, _ = filesystem(data.uri, access)
    cut = window if data.event_time is not None else None
    taken: list[ManifestFile] = []
    schemas: dict[str, pyarrow.Schema] = {}
    newest: tuple[str, pyarrow.Schema] | None = None

    def examine(listed: ListedFile) -> tuple[ManifestFile | None, pyarrow.Schema] | None:
        with translated(listing.uri(listed), access):
            return _examine(files, listed, listing, data, cut)

    # A store answers one request in tens of milliseconds, a disk at once: only the former is worth threads.
    workers = 1 if scheme_of(data.uri) == "local" else _REMOTE_READERS
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(examine, listing.files))
    for listed, found in zip(listing.files, results, strict=True):
        if found is not None:
            uri, (file, schema) = listing.uri(listed), found
            newest = (uri, schema)
            if file is not None:
                taken.append(file)
                schemas[uri] = schema
    if newest is None:  # every file was passed over by its statistics: the last one tells the columns
        last = listing.files[-1]
        with translated(listing.uri(last), access):
            newest = (listing.uri(last), _schema_of(files, listing, last))
    partitions = partitions_of([file.path for file in taken] or [listing.files[-1].path])
    schema, notes = unify(schemas or dict([newest]), data.format)
    schema = _with_partitions(schema, partitions, data)
    for note in notes:
        log.warning("%s", note)
    return Manifest(
        uri=data.uri,
        root=listing.root,
        format=data.format,
        conn_id=data.conn_id,
        event_time=data.event_time,
        window=cut,
        columns=tuple(names_and_types(schema)),
        arrow_schema=encode_schema(schema),
        partitions=tuple(partitions),
        files=tuple(taken),
        notes=tuple(notes),
    )


def read_blobs(
    manifest: Manifest, access: StorageAccess | None = None, *, fetch: Callable[[str], Path] | None = None
) -> Iterator[tuple[ManifestFile, Blob]]:
    """Read the files of a manifest one by one, each checked against it before it is handed out.

    What is checked is what is handed out: a file that is overwritten meanwhile cannot slip in between.

    :param fetch: answers a ``runs:/`` URI with a local path; needed for copies among a run's artifacts.
    :raises DataChangedError: a file is gone or has other bytes; its name and what was expected are in the message.
    """
    for file in manifest.files:
        uri = manifest.location(file)
        source = str(fetch(uri)) if uri.startswith("runs:/") and fetch is not None else uri
        usable = matching(access, source)
        try:
            with translated(source, usable):
                files, path = filesystem(source, usable)
                blob = read_blob(files, path, size=file.size)
        except DataReadError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise DataChangedError(
                    f"{uri} is gone since it was snapshotted. Bring the file back, or clear the snapshot task to take "
                    f"a new version without it. With data.snapshot: copy the rows would still be there."
                ) from exc
            raise
        if blob.sha256 != file.sha256:
            raise DataChangedError(
                f"{uri} is not the file that was snapshotted: it has {blob.size} bytes with SHA-256 "
                f"{blob.sha256[:12]}, the snapshot has {file.size} bytes with {file.sha256[:12]}. Clear the snapshot "
                f"task to take a new version, or bring the old file back."
            )
        yield file, blob


def read_table(
    manifest: Manifest,
    columns: Sequence[str],
    access: StorageAccess | None = None,
    fetch: Callable[[str], Path] | None = None,
) -> pyarrow.Table:
    """Read a manifest's rows as Arrow: files in manifest order, rows in file order, cut to the window.

    Nothing is returned before every file has been checked.

    :param columns: names that the manifest has, at least one.
    :param fetch: answers a ``runs:/`` URI with a local path; needed for copies among a run's artifacts.
    """
    import pyarrow

    full = manifest.schema
    cut = manifest.window if manifest.event_time is not None else None
    needed = set(columns)
    if cut is not None and manifest.event_time is not None:
        needed.add(manifest.event_time)
    types = {name: full.field(name).type for name in full.names if name not in manifest.partitions}
    if manifest.event_time in types and manifest.format == "csv":
        types |= _time_as_text(manifest.event_time)
    parts = [full.empty_table().select(list(columns))]
    for file, blob in read_blobs(manifest, access, fetch=fetch):
        name = manifest.location(file)
        rows = read_rows(blob.buffer, manifest.format, name, columns=sorted(needed), types=types)
        rows = _add_partitions(rows, file.path, file.total_rows, full, manifest)
        if manifest.event_time is not None and manifest.event_time in needed and manifest.format == "csv":
            times = event_times(rows, manifest.event_time, manifest.format, name)
            rows = rows.set_column(rows.column_names.index(manifest.event_time), manifest.event_time, times)
        if cut is not None and manifest.event_time is not None and file.row_count != file.total_rows:
            rows = rows.filter(in_window(event_times(rows, manifest.event_time, manifest.format, name), cut))
        if rows.num_rows != file.row_count:
            raise DataReadError(
                f"{name} gave {rows.num_rows} rows of the window where the snapshot counted {file.row_count}, from the "
                f"same bytes: the reader has changed since. Clear the snapshot task to take a new version."
            )
        parts.append(conform(rows, pyarrow.schema([full.field(column) for column in columns]), name))
    return pyarrow.concat_tables(parts)


def _examine(
    files: pyarrow.fs.FileSystem, listed: ListedFile, listing: Listing, data: DataSpec, cut: Window | None
) -> tuple[ManifestFile | None, pyarrow.Schema] | None:
    """Return a file's manifest entry (None: no row in the window) and schema; None: its statistics rule it out."""
    uri = listing.uri(listed)
    path = path_in_store(uri)
    column = data.event_time
    if cut and column and data.format == "parquet" and _ruled_out(files, path, listed, column, cut):
        return None
    blob = read_blob(files, path, size=listed.size)
    if data.format == "parquet":
        schema = parquet_schema(blob.buffer, uri)
        rows = read_rows(blob.buffer, "parquet", uri, columns=[column] if column else [])
        total = parquet_row_count(blob.buffer, uri)
    else:
        rows = read_rows(blob.buffer, "csv", uri, types=_time_as_text(column))
        schema, total = rows.schema, rows.num_rows
    kept = total
    if column is not None:
        if column in schema.names:
            times = event_times(rows, column, data.format, uri)
            kept = _count(in_window(times, cut)) if cut is not None else total
            if data.format == "csv":
                place = schema.get_field_index(column)
                schema = schema.set(place, schema.field(place).with_type(times.type))
        elif column in partition_values(listed.path):
            moment = _partition_moment(listed.path, column, uri)
            kept = total if cut is None or cut.start <= moment < cut.end else 0
        else:
            event_times(schema.empty_table(), column, data.format, uri)  # raises: it is missing
    if kept == 0 and cut is not None:
        return None, schema
    return ManifestFile(path=listed.path, size=blob.size, sha256=blob.sha256, row_count=kept, total_rows=total), schema


def _time_as_text(column: str | None) -> dict[str, pyarrow.DataType]:
    """Have CSV times read as text, for our own rules to parse: they also take a mixture of zones."""
    import pyarrow

    return {} if column is None else {column: pyarrow.string()}


def _ruled_out(files: pyarrow.fs.FileSystem, path: str, listed: ListedFile, column: str, cut: Window) -> bool:
    """Say whether a Parquet file surely holds no row of the window, from its footer alone."""
    from pyarrow import ArrowException, parquet

    try:
        with files.open_input_file(path) as source, parquet.ParquetFile(source) as file:
            if column in partition_values(listed.path) and column not in file.schema_arrow.names:
                moment = _partition_moment(listed.path, column, path)
                return not cut.start <= moment < cut.end
            span = time_range(file, column)
    except (ArrowException, OSError):
        return False  # reading the whole file says what is wrong with it
    return span is not None and (span[1] < cut.start or span[0] >= cut.end)


def _schema_of(files: pyarrow.fs.FileSystem, listing: Listing, listed: ListedFile) -> pyarrow.Schema:
    uri = listing.uri(listed)
    return parquet_schema(read_blob(files, path_in_store(uri), size=listed.size).buffer, uri)


def _count(mask: pyarrow.ChunkedArray) -> int:
    from pyarrow import compute

    return int(compute.sum(mask).as_py() or 0)


def _partition_moment(path: str, column: str, uri: str) -> datetime:
    value = partition_values(path)[column]
    moment = instant(value) if value is not None else None
    if moment is None:
        raise DataReadError(
            f"The event-time partition {column}={value} of {uri} is no ISO date or time. Name the folder like "
            f"{column}=2013-01-31, or name a column of the file in data.event_time."
        )
    return moment


def _with_partitions(schema: pyarrow.Schema, partitions: Sequence[str], data: DataSpec) -> pyarrow.Schema:
    import pyarrow

    for key in partitions:
        if key not in schema.names:
            kind = pyarrow.timestamp("us", "UTC") if key == data.event_time else pyarrow.string()
            schema = schema.append(pyarrow.field(key, kind))
    return schema


def _add_partitions(
    rows: pyarrow.Table, path: str, count: int, schema: pyarrow.Schema, manifest: Manifest
) -> pyarrow.Table:
    """Add the folder's ``key=value`` pairs as columns; a column of the file itself wins over the folder's name."""
    import pyarrow

    for key, value in partition_values(path).items():
        if key in schema.names and key not in rows.column_names:
            if key == manifest.event_time:
                constant = pyarrow.scalar(_partition_moment(path, key, path), schema.field(key).type)
            else:
                constant = pyarrow.scalar(value, pyarrow.string())
            columns = {**{name: rows[name] for name in rows.column_names}, key: pyarrow.repeat(constant, count)}
            rows = pyarrow.table(columns)
    return rows
