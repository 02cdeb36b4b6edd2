"""Fix the rows of a window as an immutable dataset version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_mlops.core.records import DatasetVersion, Window
from airflow_mlops.engines.artifacts import stored_json, stored_sizes
from airflow_mlops.engines.environment import versions_of
from airflow_mlops.engines.manifests import ManifestFile
from airflow_mlops.engines.sources import HoldsFiles
from airflow_mlops.engines.storage import (
    absolute,
    filesystem,
    join,
    matching,
    path_in_store,
    translated,
    write_bytes,
)
from airflow_mlops.engines.tables import Manifest, fingerprint, read_table, source_of, take_manifest
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import DataSpec
from airflow_mlops.steps.base import Access, Step, Work
from airflow_mlops.steps.datasets import MAX_ARTIFACT_BYTES, store_manifest
from airflow_mlops.steps.derive import write_parquet

if TYPE_CHECKING:
    from mlflow import MlflowClient

MANIFEST_FILE = "manifest.json"


class SnapshotPayload(BaseModel):
    """Where the rows are, and the window to take; None takes every row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataSpec
    window: Window | None = None


class SnapshotStep(Step[SnapshotPayload, DatasetVersion]):
    """Write down which files hold the window's rows, with the digest of each, and copy them if asked to.

    What is no file, a table of a plug-in's data source say, is copied as Parquet. Data that was delivered again makes a
    new version when the task is cleared; a retry adopts the first one.
    """

    name = "snapshot"
    payload_type = SnapshotPayload
    record_type = DatasetVersion

    def inputs(self, payload: SnapshotPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Return the payload, the source's fingerprint (names, sizes and times of the files), and the reader."""
        found = fingerprint(payload.data, access.storage(payload.data.conn_id))
        return {**payload.model_dump(mode="json"), "listing": found, "reader": versions_of("pyarrow")}

    def recheck(self, record: DatasetVersion, payload: SnapshotPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt only while the manifest is the version's own and every copy is there with its size."""
        try:
            manifest = Manifest.model_validate(stored_json(client, record.manifest_uri))
        except ValidationError:
            return False
        return manifest.digest == record.digest and _has_copies(manifest, client, access)

    def run(self, payload: SnapshotPayload, work: Work) -> DatasetVersion:
        """Take the manifest, copy where asked, store the manifest among the run's artifacts."""
        storage = work.access.storage(payload.data.conn_id)
        manifest = take_manifest(payload.data, payload.window, storage)
        if payload.data.snapshot == "copy":
            source = source_of(manifest)
            if isinstance(source, HoldsFiles):
                manifest = _copied(manifest, source, payload.data, work)
            else:
                manifest = _exported(manifest, payload.data, work)
        return store_manifest(manifest, work, MANIFEST_FILE)


def _has_copies(manifest: Manifest, client: MlflowClient, access: Access) -> bool:
    manifest = manifest.exported or manifest
    folder = manifest.copied_to
    expected = {file.stored: file.size for file in manifest.files if file.stored is not None}
    if folder is None or not expected:
        return True
    if folder.startswith("runs:/"):
        found = stored_sizes(client, folder)
        # Not every artifact store tells sizes.
        return all(name in found and found[name] in (size, None) for name, size in expected.items())
    storage = matching(access.storage(manifest.conn_id), folder)
    with translated(folder, storage):
        files, _ = filesystem(folder, storage)
        infos = files.get_file_info([path_in_store(join(folder, name)) for name in expected])
    return [info.size if info.is_file else None for info in infos] == list(expected.values())


def _copied(manifest: Manifest, source: HoldsFiles, data: DataSpec, work: Work) -> Manifest:
    """Copy every file as it was checked, so that what is in the copy is what the manifest says."""
    storage = work.access.storage(data.conn_id)
    size = sum(file.size for file in manifest.files)
    if data.copy_to is None and size > MAX_ARTIFACT_BYTES:
        raise InvalidSpecError(
            f"data.snapshot: copy would put {size} bytes into the run's artifacts, more than {MAX_ARTIFACT_BYTES}. "
            f"Set data.copy_to to a folder of your store, or data.snapshot to reference."
        )
    folder = data.copy_to
    target = f"runs:/{work.run_id}/data" if folder is None else join(absolute(folder), manifest.digest)
    files = []
    for number, (file, blob) in enumerate(source.blobs(manifest, storage)):
        if data.copy_to is None:
            # Numbered, because a path such as day=1/a.parquet need not be a valid artifact name.
            stored = f"{number:05d}.{manifest.format}{_packing(file.path)}"
            local = work.folder / "copy" / stored
            local.parent.mkdir(exist_ok=True)
            local.write_bytes(blob.buffer)
            work.log_file(local, f"data/{stored}")
            local.unlink()
        else:
            stored = file.path
            write_bytes(join(target, stored), blob.buffer, matching(storage, target))
        files.append(file.model_copy(update={"stored": stored}))
    return manifest.model_copy(update={"files": tuple(files), "snapshot": "copy", "copied_to": target})


def _exported(manifest: Manifest, data: DataSpec, work: Work) -> Manifest:
    """Write the rows, as they were checked, to one Parquet file beside the manifest's own units."""
    files: tuple[ManifestFile, ...] = ()
    folder = None
    if manifest.files:
        table = read_table(manifest, work.access.storage(data.conn_id), fetch=work.read_file)
        name = f"{'data' if data.copy_to is None else manifest.digest}/00000.parquet"
        written = write_parquet(table, name, work, data.copy_to, conn_id=data.conn_id)
        file = ManifestFile(
            path=written.name,
            size=written.size,
            sha256=written.sha256,
            row_count=table.num_rows,
            total_rows=table.num_rows,
            stored=written.name,
        )
        files, folder = (file,), written.folder
    exported = manifest.model_copy(
        update={
            "root": folder or manifest.root,
            "format": "parquet",
            "options": {},
            "files": files,
            "snapshot": "copy",
            "copied_to": folder,
        }
    )
    return manifest.model_copy(update={"snapshot": "copy", "exported": exported})


def _packing(path: str) -> str:
    """Return the ending that says how a CSV file is compressed, which the reader goes by."""
    return next((ending for ending in (".gz", ".bz2", ".zst") if path.lower().endswith(ending)), "")
