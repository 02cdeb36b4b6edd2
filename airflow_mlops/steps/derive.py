"""Rows that are derived from a dataset version: written as Parquet, known by their parent and what was taken away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import DatasetVersion
from airflow_mlops.engines.manifests import Manifest, ManifestFile, encode_schema
from airflow_mlops.engines.schemas import names_and_types
from airflow_mlops.engines.storage import absolute, join, matching, write_bytes
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps.datasets import MAX_ARTIFACT_BYTES, store_manifest

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.steps.base import Work


@dataclass(frozen=True)
class Written:
    """One Parquet file that was written: its URI, the folder and name that make it up, and its content."""

    uri: str
    folder: str
    name: str
    size: int
    sha256: str


def store_rows(
    manifest: Manifest, table: pyarrow.Table, removed: Sequence[int], work: Work, copy_to: str | None
) -> DatasetVersion:
    """Store ``table`` without the rows at ``removed`` and return it as a dataset version whose parent is ``manifest``.

    :param table: all rows of ``manifest``, in their order.
    :param removed: positions to leave out, ascending, counted from 0.
    :param copy_to: folder to write to; None: the run's artifacts.
    """
    import numpy
    import pyarrow

    keep = numpy.ones(table.num_rows, dtype=bool)
    keep[list(removed)] = False
    rows = table.filter(pyarrow.array(keep))
    removed_digest = digest_of(list(removed))
    written = write_parquet(
        rows, f"accepted/{manifest.digest[:12]}-{removed_digest[:12]}.parquet", work, copy_to, conn_id=manifest.conn_id
    )
    derived = Manifest(
        uri=manifest.uri,
        root=written.folder,
        format="parquet",
        conn_id=manifest.conn_id,
        event_time=manifest.event_time,
        window=manifest.window,
        columns=tuple(names_and_types(rows.schema)),
        arrow_schema=encode_schema(rows.schema),
        files=(
            ManifestFile(
                path=written.name,
                size=written.size,
                sha256=written.sha256,
                row_count=rows.num_rows,
                total_rows=rows.num_rows,
            ),
        ),
        snapshot="derived",
        parent_digest=manifest.digest,
        removed_digest=removed_digest,
    )
    return store_manifest(derived, work, "accepted_manifest.json")


def write_parquet(
    rows: pyarrow.Table, name: str, work: Work, copy_to: str | None, *, conn_id: str | None = None
) -> Written:
    """Write rows to ``copy_to``, or among the run's artifacts where that is None.

    :raises InvalidSpecError: too large for the artifacts and no folder was named.
    """
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(rows, sink, compression="zstd")
    buffer = sink.getvalue()
    folder, _, base = name.rpartition("/")
    if copy_to is not None:
        root = join(absolute(copy_to), folder)
        uri = join(root, base)
        write_bytes(uri, buffer, matching(work.access.storage(conn_id), uri))
    elif buffer.size > MAX_ARTIFACT_BYTES:
        raise InvalidSpecError(
            f"{name} takes {buffer.size} bytes, more than the {MAX_ARTIFACT_BYTES} that go into a run's artifacts. Set "
            f"data.copy_to to a folder of your store."
        )
    else:
        local = work.folder / "derived" / base
        local.parent.mkdir(exist_ok=True)
        local.write_bytes(buffer)
        uri = work.log_file(local, name)
        root = uri.rpartition("/")[0]
        local.unlink()
    return Written(uri, root, base, buffer.size, hashlib.sha256(buffer).hexdigest())
