"""The manifest behind a dataset version: which files, or other units, hold its rows, and the digest of each."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import DatasetVersion, Frozen, Window
from airflow_mlops.engines.storage import join

if TYPE_CHECKING:
    import pyarrow


class ManifestFile(Frozen):
    """One file that holds rows of the window; for sources without files, whatever is read at once: a table, say.

    ``path`` is relative to the manifest's root. ``stored`` is where a copy lies, relative to ``copied_to``. ``size`` is
    in bytes; ``total_rows`` also counts the rows outside the window.
    """

    path: str
    size: int
    sha256: str
    row_count: int
    total_rows: int
    stored: str | None = None


class Manifest(Frozen):
    """The files of one dataset version, in the order in which their rows are read: sorted by path.

    ``format`` and ``options`` say which source reads them. ``exported`` holds the same rows as Parquet files, where a
    copy was asked of a source whose units are no files; the digest stays that of the units.
    ``columns`` names every column and its Arrow type; ``arrow_schema`` is the same for Arrow itself, in base64.
    ``removed_digest`` names what a derived version left out of its parent, so that its digest depends on the rows and
    not on the Parquet writer.
    """

    manifest: Literal["manifest/1"] = "manifest/1"
    uri: str
    root: str
    format: str
    options: dict[str, Any] = Field(default_factory=dict)
    conn_id: str | None = None
    event_time: str | None = None
    window: Window | None = None
    columns: tuple[tuple[str, str], ...]
    arrow_schema: str
    partitions: tuple[str, ...] = ()
    files: tuple[ManifestFile, ...]
    notes: tuple[str, ...] = ()
    snapshot: Literal["reference", "copy", "derived"] = "reference"
    copied_to: str | None = None
    parent_digest: str | None = None
    removed_digest: str | None = None
    exported: Manifest | None = None

    @property
    def digest(self) -> str:
        """Return the dataset version's digest; :class:`~airflow_mlops.core.records.DatasetVersion` says of what."""
        content: dict[str, object] = {
            "event_time": self.event_time,
            "window": self.window,
            "columns": self.columns,
        }
        if self.removed_digest is not None:
            return digest_of({**content, "parent": self.parent_digest, "removed": self.removed_digest})
        return digest_of({**content, "files": [[file.path, file.size, file.sha256] for file in self.files]})

    @property
    def row_count(self) -> int:
        """Return how many rows lie in the window."""
        return sum(file.row_count for file in self.files)

    @property
    def schema(self) -> pyarrow.Schema:
        """Return the Arrow schema of the rows."""
        import pyarrow

        return pyarrow.ipc.read_schema(pyarrow.py_buffer(base64.b64decode(self.arrow_schema)))

    def location(self, file: ManifestFile) -> str:
        """Return the URI a file is read from: the copy where there is one."""
        if file.stored is not None and self.copied_to is not None:
            return join(self.copied_to, file.stored)
        return join(self.root, file.path)


def version_of(manifest: Manifest, manifest_uri: str) -> DatasetVersion:
    """Return the small record of a manifest that is stored at ``manifest_uri``."""
    return DatasetVersion(
        digest=manifest.digest,
        uri=manifest.uri,
        format=manifest.format,
        conn_id=manifest.conn_id,
        window=manifest.window,
        event_time=manifest.event_time,
        row_count=manifest.row_count,
        file_count=len(manifest.files),
        byte_count=sum(file.size for file in manifest.files),
        column_count=len(manifest.columns),
        manifest_uri=manifest_uri,
        snapshot=manifest.snapshot,
        parent_digest=manifest.parent_digest,
    )


def encode_schema(schema: pyarrow.Schema) -> str:
    """Return an Arrow schema as text, for :attr:`Manifest.arrow_schema`."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()
