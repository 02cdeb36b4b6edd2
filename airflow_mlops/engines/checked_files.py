"""A dataset version's rows as files on this machine that hold what was snapshotted, for readers that stream.

Memory stays flat: a local file is hashed where it lies, a remote one while it is copied into the scratch folder. A
file that is rewritten after it was hashed is noticed when the reader is done with it. Sources without files, and
formats that only their own source understands, are read as a table and written to one Parquet file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.engines import tables
from airflow_mlops.engines.manifests import Manifest, ManifestFile
from airflow_mlops.engines.storage import StorageAccess, filesystem, matching, scheme_of, translated
from airflow_mlops.errors import DataChangedError, DataReadError

if TYPE_CHECKING:
    import os

_PIECE = 8 << 20


@dataclass(frozen=True)
class CheckedFile:
    """One file.

    :param path: where it is on this machine.
    :param name: what messages call it.
    :param format: ``parquet`` or ``csv``.
    :param entry: the manifest's entry; ``row_count`` of its ``total_rows`` lie in the window, and the reader cuts.
    :param manifest: the manifest that the entry belongs to, with event time, window, schema and partitions.
    """

    path: Path
    name: str
    format: str
    entry: ManifestFile
    manifest: Manifest

    @property
    def cut(self) -> bool:
        """Say whether rows outside the window are in the file."""
        return self.entry.row_count != self.entry.total_rows


def checked_files(
    manifest: Manifest,
    scratch: Path,
    access: StorageAccess | None = None,
    *,
    fetch: Callable[[str], Path] | None = None,
) -> Iterator[CheckedFile]:
    """Yield the files one after the other, in the order in which rows are read; a copy is removed when its turn ends.

    :param scratch: a folder for copies; it holds at most one remote file at a time.
    :param fetch: answers a ``runs:/`` URI with a local path; needed for copies among a run's artifacts.
    :raises DataChangedError: a file is gone, has other bytes, or was rewritten while it was read.
    :raises StorageUnavailableError: the store does not answer.
    """
    held = manifest.exported or manifest
    if held.format not in ("parquet", "csv"):
        yield from _from_table(manifest, scratch, access, fetch)
        return
    for number, entry in enumerate(held.files):
        uri = held.location(entry)
        source = str(fetch(uri)) if uri.startswith("runs:/") and fetch is not None else uri
        local = scheme_of(source) == "local"
        path = Path(source.removeprefix("file://")) if local else scratch / f"{number}-{Path(entry.path).name}"
        with _as_gone(uri):
            digest, size = _hash_local(path) if local else _copy(source, path, access)
        if digest != entry.sha256:
            raise DataChangedError(
                f"{uri} is not the file that was snapshotted: it has {size} bytes with SHA-256 {digest[:12]}, the "
                f"snapshot has {entry.size} bytes with {entry.sha256[:12]}. Clear the snapshot task to take a new "
                f"version, or bring the old file back."
            )
        before = path.stat()
        yield CheckedFile(path=path, name=uri, format=held.format, entry=entry, manifest=held)
        if not local:
            path.unlink(missing_ok=True)
        elif _mark(path.stat()) != _mark(before):
            raise DataChangedError(
                f"{uri} was rewritten while it was read. Clear the snapshot task to take a new version."
            )


def _mark(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def _as_gone(uri: str) -> Iterator[None]:
    try:
        yield
    except DataReadError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise _gone(uri) from exc
        raise
    except FileNotFoundError as exc:
        raise _gone(uri) from exc


def _gone(uri: str) -> DataChangedError:
    return DataChangedError(
        f"{uri} is gone since it was snapshotted. Bring the file back, or clear the snapshot task to take a new "
        f"version without it. With data.snapshot: copy the rows would still be there."
    )


def _hash_local(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _copy(source: str, target: Path, access: StorageAccess | None) -> tuple[str, int]:
    usable = matching(access, source)
    hashed, size = hashlib.sha256(), 0
    with translated(source, usable):
        files, path = filesystem(source, usable)
        with files.open_input_stream(path) as stream, target.open("wb") as out:
            while piece := stream.read(_PIECE):
                hashed.update(piece)
                out.write(piece)
                size += len(piece)
    return hashed.hexdigest(), size


def _from_table(
    manifest: Manifest, scratch: Path, access: StorageAccess | None, fetch: Callable[[str], Path] | None
) -> Iterator[CheckedFile]:
    from pyarrow import parquet

    rows = tables.read_table(manifest, access, fetch=fetch)
    path = scratch / "rows.parquet"
    parquet.write_table(rows, path)
    entry = ManifestFile(
        path=path.name,
        size=path.stat().st_size,
        sha256=_hash_local(path)[0],
        row_count=rows.num_rows,
        total_rows=rows.num_rows,
    )
    del rows
    held = manifest.model_copy(update={"format": "parquet", "root": str(scratch), "files": (entry,), "options": {}})
    yield CheckedFile(path=path, name=manifest.uri, format="parquet", entry=entry, manifest=held)
    path.unlink(missing_ok=True)
