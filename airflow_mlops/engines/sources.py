"""What a data source is: the plug point ``airflow_mlops.data_sources``, and what its authors build on.

``data.format`` names a source. The built-in names ``parquet`` and ``csv`` are files
(:mod:`airflow_mlops.engines.files`); any other is an entry point of the group ``airflow_mlops.data_sources`` that names
a class with the three methods of :class:`DataSource`. Operators, steps and factories only ever call
:mod:`airflow_mlops.engines.tables`, which asks the source, checks its answer, and needs no edit for a new one.

What a source owes:

- the same rows give the same manifest, wherever and whenever it is taken; one that is changed, added or removed in the
  window gives another (:func:`rows_digest` sees to that where the store has no digests of its own);
- a window is half-open in UTC (:func:`rows_of_window` cuts and refuses rows without a time);
- :meth:`DataSource.read_table` gives exactly the rows of the manifest or raises
  :class:`~airflow_mlops.errors.DataChangedError`: never what happens to be there now;
- a verdict of :mod:`airflow_mlops.errors` where a person must act, an outage where a retry may help;
- heavy libraries are imported inside methods.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from airflow_mlops.core.data_sources import data_sources
from airflow_mlops.core.records import Window
from airflow_mlops.engines.formats import event_times, in_window
from airflow_mlops.engines.manifests import Manifest, ManifestFile, encode_schema
from airflow_mlops.engines.schemas import names_and_types
from airflow_mlops.engines.storage import Blob, StorageAccess
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.spec.model import DataSpec

__all__ = [
    "DataSource",
    "HoldsFiles",
    "Manifest",
    "ManifestFile",
    "data_sources",
    "make_source",
    "manifest_of",
    "rows_digest",
    "rows_of_window",
]


@runtime_checkable
class DataSource(Protocol):
    """Something that rows are read from.

    Made with ``data.options`` as keywords, when it is first used; ValueError or TypeError for wrong ones. One object
    serves one call.
    """

    def fingerprint(self, data: DataSpec, access: StorageAccess | None) -> str:
        """Return a text that differs once the data may have changed, without reading the rows.

        A cleared snapshot task looks anew when it differs, and a retry adopts what the first try made when it does not.
        """
        ...

    def take_manifest(self, data: DataSpec, window: Window | None, access: StorageAccess | None) -> Manifest:
        """Fix what the rows of ``window`` are: units with digests and row counts, columns, and their Arrow schema.

        A unit is whatever the source reads at once: a file, a table, a partition. No row in the window: no unit.
        :func:`manifest_of` puts the manifest together.

        :param window: None: every row. So it is without ``data.event_time``.
        """
        ...

    def read_table(
        self,
        manifest: Manifest,
        columns: Sequence[str],
        access: StorageAccess | None,
        fetch: Callable[[str], Path] | None,
    ) -> pyarrow.Table:
        """Return the manifest's rows, always in the same order.

        :param columns: names that the manifest has, at least one; the answer has exactly these, in this order.
        :param fetch: answers a ``runs:/`` URI with a local path; only for sources whose copies are files.
        :raises DataChangedError: the rows are not those of the manifest any more.
        """
        ...


@runtime_checkable
class HoldsFiles(Protocol):
    """A source whose units are files: ``snapshot: copy`` keeps their bytes. Others are copied as Parquet."""

    def blobs(self, manifest: Manifest, access: StorageAccess | None) -> Iterator[tuple[ManifestFile, Blob]]:
        """Yield every file's bytes, checked against the manifest."""
        ...


def make_source(name: str, options: Mapping[str, Any]) -> DataSource:
    """Return the data source called ``name`` with its options.

    :raises UnknownNameError: no data source is called so; the nearest name is given.
    :raises InvalidSpecError: it does not accept its options, or it is no data source.
    """
    made = data_sources.load(name)
    known = _options_of(made)
    for option in options:
        if known is not None and option not in known:
            close = get_close_matches(option, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidSpecError(
                f"The data source {name!r} (data.format) has no option {option!r}.{hint} Its data.options: "
                f"{', '.join(known) or 'none'}."
            )
    try:
        source = made(**options)
    except (TypeError, ValueError) as exc:
        raise InvalidSpecError(f"The data source {name!r} does not accept its data.options: {exc}.") from exc
    if not isinstance(source, DataSource):
        raise InvalidSpecError(
            f"The data source {name!r} gives {type(source).__name__}, which lacks a method of DataSource: it needs "
            f"fingerprint, take_manifest and read_table. See airflow_mlops.engines.sources."
        )
    return source


def manifest_of(
    data: DataSpec, window: Window | None, schema: pyarrow.Schema, units: Sequence[ManifestFile]
) -> Manifest:
    """Return the manifest of a source whose units are no files.

    :param window: the window as it was asked for; without ``data.event_time`` it is left out.
    :param schema: columns and types of the rows, also where there are none.
    :param units: what holds the rows, in the order they are read.
    """
    return Manifest(
        uri=data.uri,
        root=data.uri,
        format=data.format,
        options=data.options,
        conn_id=data.conn_id,
        event_time=data.event_time,
        window=window if data.event_time is not None else None,
        columns=tuple(names_and_types(schema)),
        arrow_schema=encode_schema(schema),
        files=tuple(units),
    )


def rows_of_window(table: pyarrow.Table, event_time: str | None, window: Window | None, name: str) -> pyarrow.Table:
    """Return the rows whose event time lies in the half-open window; all of them without window or event time.

    :param name: what the rows come from, for messages.
    :raises DataReadError: the event-time column is missing, holds nulls, or is no time.
    """
    if event_time is None:
        return table
    times = event_times(table, event_time, "", name)
    return table if window is None else table.filter(in_window(times, window))


def rows_digest(table: pyarrow.Table) -> str:
    """Return the SHA-256 over columns, types and values of ``table``, row order included.

    It depends neither on chunks nor on the library's version; null, NaN, an empty text and zero are four things.
    """
    import pyarrow

    types = pyarrow.types
    digest = hashlib.sha256()
    for field in table.schema:
        values = table[field.name]
        digest.update(f"{field.name!r} {field.type} {len(values)}\n".encode())
        if types.is_string(field.type) or types.is_large_string(field.type):
            values = values.cast(pyarrow.large_string())
        values = values.combine_chunks()
        digest.update(_bits(values.is_valid()))
        if types.is_large_string(values.type):
            for part in _text_bytes(values.fill_null("")):
                digest.update(part)
        elif types.is_boolean(field.type):
            digest.update(_bits(values.fill_null(False)))
        elif types.is_temporal(field.type) and not types.is_interval(field.type):
            whole = pyarrow.int32() if field.type.bit_width == 32 else pyarrow.int64()
            digest.update(values.cast(whole).fill_null(0).to_numpy(zero_copy_only=False).tobytes())
        elif types.is_integer(field.type) or types.is_floating(field.type):
            digest.update(values.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
        else:
            for value in values:
                digest.update(f"{value.as_py()!r}\n".encode())
    return digest.hexdigest()


def _options_of(made: Any) -> list[str] | None:
    """Return the names of a source's options; None: any name, as far as can be told."""
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return [one.name for one in parameters]


def _text_bytes(values: pyarrow.LargeStringArray) -> Iterator[bytes | memoryview]:
    """Yield the lengths of the texts and then the texts themselves, without touching each in Python."""
    import numpy

    _, offsets, content = values.buffers()
    if len(values) and content is not None:
        ends = numpy.frombuffer(offsets, dtype="<i8")[values.offset : values.offset + len(values) + 1]
        yield numpy.diff(ends).tobytes()
        yield memoryview(content)[ends[0] : ends[-1]]


def _bits(values: pyarrow.BooleanArray) -> bytes:
    return bytes(values.to_numpy(zero_copy_only=False).tobytes())
