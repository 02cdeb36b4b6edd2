"""``gs://`` against an emulator: through a StorageAccess, through an Airflow connection, and against a dead store."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_mlops.engines.listing import listing_fingerprint
from airflow_mlops.engines.storage import filesystem
from airflow_mlops.engines.tables import read_frame, take_manifest
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError, StorageUnavailableError
from airflow_mlops.hooks.storage import storage_access
from airflow_mlops.spec.model import DataSpec
from tests.support.data_steps import DataSteps, day, parquet_bytes, window

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.mlflow_server import MLflowServer
    from tests.support.object_stores import ObjectStore

JANUARY = window("2013-01-01", "2013-02-01")


@pytest.fixture
def folder(gs: ObjectStore) -> str:
    name = f"flights-{uuid.uuid4().hex[:8]}"
    gs.put(f"{name}/a.parquet", parquet_bytes({"at": [day(1), day(2)], "x": [1, 2]}))
    gs.put(f"{name}/month=2/b.parquet", parquet_bytes({"at": [day(3), day(1, month=2)], "x": [3, 4]}))
    gs.put(f"{name}/_SUCCESS", b"")
    return name


def test_a_folder_is_read_cut_to_the_window(gs: ObjectStore, folder: str) -> None:
    manifest = take_manifest(DataSpec(uri=gs.uri(folder), event_time="at"), JANUARY, gs.access)

    assert [file.path for file in manifest.files] == ["a.parquet", "month=2/b.parquet"]
    assert read_frame(manifest, gs.access, ["x"])["x"].tolist() == [1, 2, 3]


def test_csv_by_glob(gs: ObjectStore) -> None:
    name = uuid.uuid4().hex
    gs.put(f"{name}/one.csv", b"at,x\n2013-01-01,1\n")
    gs.put(f"{name}/two.csv", b"at,x\n2013-01-02T00:00:00Z,2\n")
    spec = DataSpec(uri=gs.uri(f"{name}/*.csv"), format="csv", event_time="at")

    assert read_frame(take_manifest(spec, JANUARY, gs.access), gs.access)["x"].tolist() == [1, 2]


def test_the_same_files_have_the_same_version_on_a_local_disk(gs: ObjectStore, folder: str, tmp_path: Path) -> None:
    files, inside = filesystem(gs.uri(folder), gs.access)
    for name in ("a.parquet", "month=2/b.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(files.open_input_stream(f"{inside}/{name}").read())

    remote = take_manifest(DataSpec(uri=gs.uri(folder), event_time="at"), JANUARY, gs.access)

    assert remote.digest == take_manifest(DataSpec(uri=str(tmp_path), event_time="at"), JANUARY).digest


def test_an_object_that_changed_or_went_is_named(gs: ObjectStore, folder: str) -> None:
    spec = DataSpec(uri=gs.uri(folder), event_time="at")
    before = listing_fingerprint(spec, gs.access)
    assert listing_fingerprint(spec, gs.access) == before
    manifest = take_manifest(spec, JANUARY, gs.access)
    gs.put(f"{folder}/a.parquet", parquet_bytes({"at": [day(1), day(2)], "x": [1, 3]}))

    assert listing_fingerprint(spec, gs.access) != before, "same name and size, another time"
    with pytest.raises(DataChangedError, match=r"a\.parquet is not the file"):
        read_frame(manifest, gs.access)
    gs.delete(f"{folder}/a.parquet")
    with pytest.raises(DataChangedError, match=r"a\.parquet is gone"):
        read_frame(manifest, gs.access)


@pytest.mark.parametrize("uri", ["gs://lake/nothing-here", "gs://no-such-bucket/x", "gs://no-such-bucket/*.parquet"])
def test_what_is_not_there(uri: str, gs: ObjectStore) -> None:
    with pytest.raises(DataReadError, match=r"does not exist|No parquet file"):
        take_manifest(DataSpec(uri=uri), None, gs.access)


def test_a_dead_store_is_an_outage_within_its_budget(gs: ObjectStore) -> None:
    started = time.monotonic()
    with pytest.raises(StorageUnavailableError, match="gs://lake/x did not answer"):
        take_manifest(
            DataSpec(uri=gs.uri("x")), None, dataclasses.replace(gs.access, endpoint_url="http://127.0.0.1:9")
        )

    assert time.monotonic() - started < 60


def test_an_airflow_connection_opens_the_store(
    gs: ObjectStore, folder: str, mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"is_anonymous": True, "endpoint_url": gs.endpoint_url, "project": "tests"}
    monkeypatch.setenv("AIRFLOW_CONN_GS_LAKE", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    steps = DataSteps(mlflow_server.uri, f"gs-{uuid.uuid4().hex[:8]}", storage_access)
    dataset = steps.snapshot({"uri": gs.uri(folder), "event_time": "at", "conn_id": "gs_lake"}, JANUARY)
    report = steps.validate(
        dataset, {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "x"}}]}
    )

    assert (report.verdict, report.row_count) == ("pass", 3)


def test_a_key_that_google_refuses_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = {"type": "service_account", "private_key": "private-key-of-the-tests"}
    extra = {"keyfile_dict": json.dumps(key)}
    monkeypatch.setenv("AIRFLOW_CONN_GS_WRONG", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))

    with pytest.raises(DataReadError, match="'gs_wrong' gives no valid Google Cloud credentials") as caught:
        storage_access("gs_wrong")
    assert "private-key-of-the-tests" not in str(caught.value)


def test_an_aws_connection_does_not_open_gs(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "aws", "login": "a", "password": "b", "extra": {"region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_NOT_GS", json.dumps(fields))

    with pytest.raises(InvalidSpecError, match="'not_gs' is for s3://"):
        take_manifest(DataSpec(uri="gs://lake/x"), None, storage_access("not_gs"))
