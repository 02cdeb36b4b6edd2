"""Files that are read as they were snapshotted, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_mlops.engines import tables
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.manifests import Manifest
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.errors import DataChangedError
from airflow_mlops.spec.model import DataSpec
from tests.support.object_stores import ObjectStore, s3_store


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    for number in range(3):
        parquet.write_table(pa.table({"x": list(range(number, number + 4))}), folder / f"{number}.parquet")
    return folder


def manifest_of(folder: Path) -> Manifest:
    return tables.take_manifest(DataSpec(uri=str(folder)))


def test_every_file_comes_in_order_where_it_lies(lake: Path, tmp_path: Path) -> None:
    found = list(checked_files(manifest_of(lake), tmp_path))

    assert [file.path for file in found] == [lake / f"{number}.parquet" for number in range(3)]
    assert [file.format for file in found] == ["parquet"] * 3
    assert not any(file.cut for file in found)


def test_a_file_with_other_bytes_is_never_handed_out(lake: Path, tmp_path: Path) -> None:
    manifest = manifest_of(lake)
    parquet.write_table(pa.table({"x": [7, 7, 7, 7]}), lake / "1.parquet")

    seen: list[str] = []
    with pytest.raises(DataChangedError, match=r"1\.parquet is not the file that was snapshotted"):
        seen.extend(file.path.name for file in checked_files(manifest, tmp_path))
    assert seen == ["0.parquet"]


def test_a_file_that_is_gone_names_both_ways_out(lake: Path, tmp_path: Path) -> None:
    manifest = manifest_of(lake)
    (lake / "0.parquet").unlink()

    with pytest.raises(DataChangedError, match=r"(?s)0\.parquet is gone.*snapshot: copy"):
        list(checked_files(manifest, tmp_path))


def test_a_file_that_is_rewritten_under_the_reader_is_noticed(lake: Path, tmp_path: Path) -> None:
    files = checked_files(manifest_of(lake), tmp_path)
    first = next(files)
    rewrite = threading.Thread(target=parquet.write_table, args=(pa.table({"x": [1]}), first.path))
    rewrite.start()
    rewrite.join()

    with pytest.raises(DataChangedError, match="rewritten while it was read"):
        next(files)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with s3_store() as store:
        yield store


def test_a_remote_file_is_copied_one_at_a_time_and_removed(lake: Path, tmp_path: Path, store: ObjectStore) -> None:
    for file in lake.iterdir():
        store.put(f"part/{file.name}", file.read_bytes())
    access: StorageAccess = store.access
    manifest = tables.take_manifest(DataSpec(uri=store.uri("part")), None, access)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    sizes = []
    for file in checked_files(manifest, scratch, access):
        assert parquet.read_table(file.path).num_rows == 4
        sizes.append(len(list(scratch.iterdir())))
    assert sizes == [1, 1, 1]
    assert list(scratch.iterdir()) == []

    store.put("part/2.parquet", b"other bytes")
    with pytest.raises(DataChangedError, match=r"2\.parquet is not the file"):
        list(checked_files(manifest, scratch, access))
