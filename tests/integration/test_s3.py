"""``s3://`` against moto: through a StorageAccess, through an Airflow connection, and against stores that fail."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops.engines.listing import list_files, listing_fingerprint
from airflow_mlops.engines.storage import StorageAccess, filesystem
from airflow_mlops.engines.tables import read_frame, take_manifest
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError, StorageUnavailableError
from airflow_mlops.hooks.storage import storage_access
from airflow_mlops.spec.model import DataSpec
from tests.support.data_steps import DataSteps, day, parquet_bytes, window
from tests.support.object_stores import S3_KEY, S3_SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.mlflow_server import MLflowServer
    from tests.support.object_stores import ObjectStore

JANUARY = window("2013-01-01", "2013-02-01")
#: Nothing listens there.
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def folder(s3: ObjectStore) -> str:
    """A folder of its own with two partitions, a marker and a file of another month."""
    name = f"flights-{uuid.uuid4().hex[:8]}"
    s3.put(f"{name}/carrier=AA/a.parquet", parquet_bytes({"at": [day(1), day(2)], "x": [1, 2]}))
    s3.put(f"{name}/carrier=B6/b.parquet", parquet_bytes({"at": [day(3), day(1, month=2)], "x": [3, 4]}))
    s3.put(f"{name}/carrier=B6/c.parquet", parquet_bytes({"at": [day(5, month=3)], "x": [5]}))
    s3.put(f"{name}/_SUCCESS", b"")
    return name


def test_a_partitioned_folder_is_read_cut_to_the_window(s3: ObjectStore, folder: str) -> None:
    manifest = take_manifest(DataSpec(uri=s3.uri(folder), event_time="at"), JANUARY, s3.access)
    frame = read_frame(manifest, s3.access)

    assert [file.path for file in manifest.files] == ["carrier=AA/a.parquet", "carrier=B6/b.parquet"]
    assert frame["x"].tolist() == [1, 2, 3]
    assert frame["carrier"].tolist() == ["AA", "AA", "B6"]


@pytest.mark.parametrize(
    ("below", "found"),
    [
        pytest.param("/carrier=AA/a.parquet", ["a.parquet"], id="one file"),
        pytest.param("/", ["carrier=AA/a.parquet", "carrier=B6/b.parquet", "carrier=B6/c.parquet"], id="a folder"),
        pytest.param("/*/[ab].parquet", ["carrier=AA/a.parquet", "carrier=B6/b.parquet"], id="a glob on files"),
        pytest.param("/carrier=B*", ["carrier=B6/b.parquet", "carrier=B6/c.parquet"], id="a glob on folders"),
    ],
)
def test_what_a_uri_names(below: str, found: list[str], s3: ObjectStore, folder: str) -> None:
    listing = list_files(DataSpec(uri=s3.uri(folder) + below), s3.access)

    assert [file.path for file in listing.files] == found


def test_the_same_files_have_the_same_version_on_a_local_disk(s3: ObjectStore, folder: str, tmp_path: Path) -> None:
    files, inside = filesystem(s3.uri(folder), s3.access)
    for name in ("carrier=AA/a.parquet", "carrier=B6/b.parquet"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(files.open_input_stream(f"{inside}/{name}").read())

    remote = take_manifest(DataSpec(uri=s3.uri(folder), event_time="at"), JANUARY, s3.access)
    local = take_manifest(DataSpec(uri=str(tmp_path), event_time="at"), JANUARY)

    assert remote.digest == local.digest


def test_an_object_that_changed_or_went_is_named(s3: ObjectStore, folder: str) -> None:
    spec = DataSpec(uri=s3.uri(folder), event_time="at")
    before = listing_fingerprint(spec, s3.access)
    manifest = take_manifest(spec, JANUARY, s3.access)
    s3.put(f"{folder}/carrier=B6/b.parquet", parquet_bytes({"at": [day(3)], "x": [33]}))

    assert listing_fingerprint(spec, s3.access) != before
    with pytest.raises(DataChangedError, match=r"carrier=B6/b\.parquet is not the file"):
        read_frame(manifest, s3.access)
    s3.delete(f"{folder}/carrier=B6/b.parquet")
    with pytest.raises(DataChangedError, match=r"carrier=B6/b\.parquet is gone"):
        read_frame(manifest, s3.access)


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        pytest.param("s3://lake/nothing-here", DataReadError, "does not exist", id="no such path"),
        pytest.param("s3://no-such-bucket/x/*.parquet", DataReadError, "does not exist", id="no such bucket"),
        pytest.param("gs://lake/x", InvalidSpecError, "is on gs://.*is for s3://", id="access of another store"),
        pytest.param("s3://key:secret@lake/x", ValueError, "holds credentials", id="login in the URI"),
        pytest.param("s3:///x", InvalidSpecError, "names no bucket", id="no bucket"),
        pytest.param("hdfs://host/x", InvalidSpecError, "local path, file://, s3:// or gs://", id="another store"),
    ],
)
def test_what_cannot_be_read_is_told_apart(uri: str, error: type[Exception], said: str, s3: ObjectStore) -> None:
    with pytest.raises(error, match=said) as caught:
        list_files(DataSpec(uri=uri), s3.access)

    assert "secret@" not in str(caught.value)


def test_a_dead_store_is_an_outage_within_its_budget(s3: ObjectStore) -> None:
    started = time.monotonic()
    with pytest.raises(StorageUnavailableError, match=r"127\.0\.0\.1:9"):
        list_files(DataSpec(uri=s3.uri("x")), dataclasses.replace(s3.access, endpoint_url=DEAD))

    assert time.monotonic() - started < 60


def test_refused_credentials_are_no_outage(s3: ObjectStore, folder: str) -> None:
    """moto checks nothing, so a policy that denies everything stands in for wrong keys."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3.endpoint_url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="closed")
    deny = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::closed/*"}],
    }
    client.put_object(Bucket="closed", Key="x.parquet", Body=b"x")
    client.put_bucket_policy(Bucket="closed", Policy=json.dumps(deny))

    with pytest.raises(DataReadError, match=r"refuses .*closed/x\.parquet.*Give that identity leave"):
        take_manifest(DataSpec(uri="s3://closed/x.parquet"), None, s3.access)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make Airflow connections the way a deployment does with environment variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def make(**fields: Any) -> str:
        conn_id = f"store_{uuid.uuid4().hex[:8]}"
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return make


@pytest.mark.parametrize("place", ["login", "extra", "service"])
def test_an_airflow_connection_opens_the_store(
    place: str, s3: ObjectStore, folder: str, connection: Callable[..., str]
) -> None:
    extra: dict[str, Any] = {"region_name": "us-east-1", "endpoint_url": s3.endpoint_url}
    login: dict[str, Any] = {"login": S3_KEY, "password": S3_SECRET}
    if place == "extra":
        login, extra = {}, {**extra, "aws_access_key_id": S3_KEY, "aws_secret_access_key": S3_SECRET}
    if place == "service":
        extra = {**extra, "endpoint_url": DEAD, "service_config": {"s3": {"endpoint_url": s3.endpoint_url}}}
    access = storage_access(connection(conn_type="aws", extra=extra, **login))

    assert access is not None
    assert (access.access_key, access.secret_key, access.region) == (S3_KEY, S3_SECRET, "us-east-1")
    assert S3_SECRET not in repr(access)
    assert S3_KEY not in repr(access)
    manifest = take_manifest(DataSpec(uri=s3.uri(folder), event_time="at"), JANUARY, access)
    assert read_frame(manifest, access)["x"].tolist() == [1, 2, 3]


def test_an_assumed_role_gives_its_session_token(s3: ObjectStore, folder: str, connection: Callable[..., str]) -> None:
    extra = {
        "region_name": "us-east-1",
        "endpoint_url": s3.endpoint_url,
        "role_arn": "arn:aws:iam::123456789012:role/reader",
        # The STS of the same fake: for assuming a role, Airflow never uses the general endpoint.
        "service_config": {"sts": {"endpoint_url": s3.endpoint_url}},
    }
    access = storage_access(connection(conn_type="aws", login=S3_KEY, password=S3_SECRET, extra=extra))

    assert access is not None
    assert access.session_token
    assert access.access_key != S3_KEY
    manifest = take_manifest(DataSpec(uri=s3.uri(folder), event_time="at"), JANUARY, access)
    assert manifest.row_count == 3


def test_a_public_bucket_needs_no_keys(s3: ObjectStore, connection: Callable[..., str]) -> None:
    extra = {"endpoint_url": s3.endpoint_url, "config_kwargs": {"signature_version": "unsigned"}}
    access = storage_access(connection(conn_type="aws", extra=extra))

    assert access is not None
    assert access.anonymous


def test_no_connection_means_the_workers_own_credentials() -> None:
    assert storage_access(None) is None


def test_a_connection_that_does_not_fit_is_named(connection: Callable[..., str]) -> None:
    with pytest.raises(InvalidSpecError, match="no Airflow connection 'absent_store'"):
        storage_access("absent_store")
    conn_id = connection(conn_type="postgres", host="db")
    with pytest.raises(InvalidSpecError, match=f"{conn_id}.*has type 'postgres'.*aws"):
        storage_access(conn_id)
    conn_id = connection(conn_type="aws", extra={"service_config": "text"})
    with pytest.raises(InvalidSpecError, match="service_config must be an object"):
        storage_access(conn_id)


def test_a_whole_snapshot_copied_within_the_store(
    s3: ObjectStore, folder: str, mlflow_server: MLflowServer, connection: Callable[..., str]
) -> None:
    conn_id = connection(
        conn_type="aws",
        login=S3_KEY,
        password=S3_SECRET,
        extra={"region_name": "us-east-1", "endpoint_url": s3.endpoint_url},
    )
    steps = DataSteps(mlflow_server.uri, f"s3-{uuid.uuid4().hex[:8]}", storage_access)
    data = {
        "uri": s3.uri(folder),
        "event_time": "at",
        "conn_id": conn_id,
        "snapshot": "copy",
        "copy_to": s3.uri(f"{folder}-copies"),
    }
    dataset = steps.snapshot(data, JANUARY)
    limit = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "max_value": 2}}
    s3.put(f"{folder}/carrier=B6/b.parquet", b"overwritten")
    report = steps.validate(dataset, {"expectations": [{**limit, "on_failure": "quarantine"}]}, data)

    assert report.quarantined_count == 1
    assert str(report.quarantine_uri).startswith(s3.uri(f"{folder}-copies/quarantine/"))
    from airflow_mlops.steps.datasets import load_frame

    with steps.work() as work:
        assert load_frame(report.dataset, work, ["x", "carrier"]).to_dict("list") == {
            "x": [1, 2],
            "carrier": ["AA", "AA"],
        }
        manifest = work.read_file(dataset.manifest_uri).read_text()
    assert S3_SECRET not in manifest + dataset.model_dump_json() + report.model_dump_json()


def test_messages_hide_secrets() -> None:
    access = StorageAccess(kind="s3", access_key="AKIAKEY", secret_key="s3cr3t", session_token="t0ken")

    assert access.hide("AKIAKEY said s3cr3t with t0ken") == "*** said *** with ***"
    assert "s3cr3t" not in f"{access!r} {access}"
