"""Dataset versions: what the rows of a window are, and reading exactly those rows again, whatever source holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.core.records import Window
from airflow_mlops.engines.manifests import Manifest, ManifestFile, version_of
from airflow_mlops.engines.schemas import conform, to_frame
from airflow_mlops.engines.sources import DataSource, make_source
from airflow_mlops.engines.storage import StorageAccess, describe
from airflow_mlops.errors import DataChangedError, DataReadError

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from airflow_mlops.spec.model import DataSpec

__all__ = [
    "Manifest",
    "ManifestFile",
    "fingerprint",
    "read_frame",
    "read_table",
    "source_of",
    "take_manifest",
    "to_frame",
    "version_of",
]


def fingerprint(data: DataSpec, access: StorageAccess | None = None) -> str:
    """Return a text that differs once the data may have changed; cheap, no row is read.

    :raises InvalidSpecError: the source does not accept ``data.options``.
    :raises DataReadError: nothing is there.
    :raises StorageUnavailableError: the store does not answer.
    """
    return make_source(data.format, data.options).fingerprint(data, access)


def take_manifest(data: DataSpec, window: Window | None = None, access: StorageAccess | None = None) -> Manifest:
    """Find what holds the rows of ``window`` and fix its content. A window without any row gives one without files.

    For files, folder names are not trusted: a Parquet file is passed over only if its own statistics say that none of
    its rows is in the window, every other file is read.

    :param window: None, or no ``data.event_time``: every row, and the manifest then names no window.
    :raises InvalidSpecError: the source does not accept ``data.options``.
    :raises DataReadError: no file, an unreadable one, an event-time column that is missing, null or no time, or files
        whose columns cannot be joined.
    :raises StorageUnavailableError: the store does not answer.
    """
    cut = window if data.event_time is not None else None
    return make_source(data.format, data.options).take_manifest(data, cut, access)


def source_of(manifest: Manifest) -> DataSource:
    """Return the source that a manifest's rows are read from."""
    return make_source(manifest.format, manifest.options)


def read_table(
    manifest: Manifest,
    access: StorageAccess | None = None,
    columns: Sequence[str] | None = None,
    *,
    fetch: Callable[[str], Path] | None = None,
) -> pyarrow.Table:
    """Read a manifest's rows as Arrow, always in the same order, from the copy where there is one.

    Nothing is returned before all of it has been checked. Errors are those of :func:`read_frame`.
    """
    import pyarrow

    full = manifest.schema
    wanted = list(full.names if columns is None else columns)
    for column in wanted:
        if column not in full.names:
            close = get_close_matches(column, full.names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise DataReadError(
                f"{manifest.uri} has no column {column!r}.{hint} Its columns: {describe(full.names, 30)}."
            )
    if not wanted:
        raise DataReadError(f"No column of {manifest.uri} was asked for. Its columns: {describe(full.names, 30)}.")
    schema = pyarrow.schema([full.field(column) for column in wanted])
    if not manifest.files:
        return schema.empty_table()
    held = manifest.exported or manifest
    rows = source_of(held).read_table(held, wanted, access, fetch)
    if rows.num_rows != manifest.row_count:
        raise DataChangedError(
            f"The data source {held.format!r} gave {rows.num_rows} rows of {manifest.uri} where the snapshot counted "
            f"{manifest.row_count}. Clear the snapshot task to take a new version, or bring the old rows back."
        )
    return rows if rows.schema.equals(schema) else conform(rows, schema, manifest.uri)


def read_frame(
    manifest: Manifest,
    access: StorageAccess | None = None,
    columns: Sequence[str] | None = None,
    *,
    fetch: Callable[[str], Path] | None = None,
) -> pandas.DataFrame:
    """Read a manifest's rows as pandas; the types are those of :func:`airflow_mlops.engines.schemas.to_frame`.

    :param columns: columns to read, in this order; None: all.
    :param fetch: answers a ``runs:/`` URI with a local path.
    :raises DataChangedError: a file is gone or not the one that was snapshotted, or other rows are there now.
    :raises DataReadError: a column is not there, or the store refuses.
    :raises StorageUnavailableError: the store does not answer.
    """
    return to_frame(read_table(manifest, access, columns, fetch=fetch))
