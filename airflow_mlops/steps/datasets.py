"""Storing the manifest of a dataset version inside a step, and reading its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_mlops.core.records import DatasetVersion
from airflow_mlops.engines.tables import Manifest, read_frame, read_table, version_of
from airflow_mlops.errors import DataChangedError

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from airflow_mlops.steps.base import Work


#: Rows up to this many bytes go into the run's artifacts when the specification names no folder for them.
MAX_ARTIFACT_BYTES = 256 * 1024 * 1024


def store_manifest(manifest: Manifest, work: Work, name: str) -> DatasetVersion:
    """Store a manifest as the artifact ``name`` of the step's run and return its dataset version."""
    return version_of(manifest, work.log_json(manifest.model_dump(mode="json"), name))


def load_manifest(dataset: DatasetVersion, work: Work) -> Manifest:
    """Fetch the list of files behind ``dataset`` and check that it is the one the version was made of.

    :raises DataChangedError: the manifest's digest is not the version's.
    """
    manifest = Manifest.model_validate(work.read_json(dataset.manifest_uri))
    if manifest.digest != dataset.digest:
        raise DataChangedError(
            f"The manifest {dataset.manifest_uri} has digest {manifest.digest[:12]}, the dataset version says "
            f"{dataset.digest[:12]}: the artifact was edited or belongs to another version. Clear the snapshot task."
        )
    return manifest


def load_table(dataset: DatasetVersion, work: Work, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Read the rows of ``dataset`` as Arrow, where NULL and NaN stay apart. Otherwise as :func:`load_frame`."""
    manifest = load_manifest(dataset, work)
    return read_table(manifest, work.access.storage(dataset.conn_id), columns, fetch=work.read_file)


def load_frame(dataset: DatasetVersion, work: Work, columns: Sequence[str] | None = None) -> pandas.DataFrame:
    """Read the rows of ``dataset``, in manifest order and, within a file, in the file's order.

    Every file is checked against the manifest before any of its rows is used. The index counts rows from 0. Column
    types are plain numpy ones (:func:`airflow_mlops.engines.tables.to_frame` lists them); missing is NaN, NaT or None.

    :param columns: columns to read, in this order; None: all.
    :raises DataChangedError: a file is gone or not the one that was snapshotted; the message names it.
    :raises DataReadError: a column is not there, or the store refuses.
    :raises StorageUnavailableError: the store does not answer.
    """
    manifest = load_manifest(dataset, work)
    return read_frame(manifest, work.access.storage(dataset.conn_id), columns, fetch=work.read_file)
