"""URIs, secrets, writing, and which faults a retry may mend."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from airflow_mlops.engines import storage
from airflow_mlops.engines.storage import (
    StorageAccess,
    absolute,
    filesystem,
    join,
    matching,
    path_in_store,
    read_blob,
    scheme_of,
    translated,
    write_bytes,
)
from airflow_mlops.errors import DataReadError, InvalidSpecError, StorageUnavailableError


@pytest.mark.parametrize(
    ("uri", "scheme", "path"),
    [
        ("/data/x.parquet", "local", "/data/x.parquet"),
        ("file:///data/a%20b.csv", "local", "/data/a b.csv"),
        ("s3://lake/flights/", "s3", "lake/flights"),
        ("s3a://lake/flights", "s3", "lake/flights"),
        ("gs://lake/a%20b", "gs", "lake/a%20b"),
        ("gcs://lake", "gs", "lake"),
    ],
)
def test_scheme_and_path(uri: str, scheme: str, path: str) -> None:
    assert scheme_of(uri) == scheme
    assert path_in_store(uri) == path


@pytest.mark.parametrize("uri", ["hdfs://host/x", "s3://user:pass@lake/x", "s3:///key", "http://host/x"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        filesystem(uri)
    assert "pass@" not in str(caught.value)


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert absolute("lake/") == str(tmp_path / "lake")
    assert absolute("s3a://b/x/") == "s3://b/x"
    assert join("s3://b/x/", "a", "/b/") == "s3://b/x/a/b"


def test_access_belongs_to_one_kind_of_store() -> None:
    access = StorageAccess(kind="s3")

    assert matching(access, "s3://b/x") is access
    assert matching(access, "gs://b/x") is None
    assert matching(access, "/x") is None
    with pytest.raises(InvalidSpecError, match="google_cloud_platform"):
        filesystem("gs://b/x", access)


def test_what_was_read_is_what_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files stay in memory, large ones go through a scratch file that is gone afterwards; both read alike."""
    content = os.urandom(100_000)
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    files, inside = filesystem(str(path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(storage, "_CHUNK", 4096)

    in_memory = read_blob(files, inside, size=len(content))
    spilled = read_blob(files, inside, size=None)

    for blob in (in_memory, spilled):
        assert blob.buffer.to_pybytes() == content
        assert (blob.size, blob.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [item.name for item in tmp_path.iterdir()] == ["x.bin"]


def test_an_empty_file_can_be_read_both_ways(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    files, inside = filesystem(str(tmp_path / "empty"))

    assert read_blob(files, inside, size=0).size == read_blob(files, inside, size=None).size == 0


def test_a_compressed_file_is_hashed_as_it_lies_there(tmp_path: Path) -> None:
    """pyarrow would unpack by the name's ending."""
    (tmp_path / "x.csv.gz").write_bytes(b"not really gzip")
    files, inside = filesystem(str(tmp_path / "x.csv.gz"))

    assert read_blob(files, inside, size=None).buffer.to_pybytes() == b"not really gzip"


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.bin"
    write_bytes(str(target), b"one")
    write_bytes(str(target), b"two")

    assert target.read_bytes() == b"two"
    assert [item.name for item in target.parent.iterdir()] == ["x.bin"]
    assert target.stat().st_mode & 0o444, "readable like any other file, not private to its writer"


class FromAiohttp(Exception):
    """Stands for an error of a client library that is no OSError."""


FromAiohttp.__module__ = "aiohttp.client_exceptions"


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        pytest.param(FileNotFoundError("x"), DataReadError, id="nothing there"),
        pytest.param(PermissionError("x"), DataReadError, id="a local file of somebody else"),
        pytest.param(OSError("AWS Error ACCESS_DENIED during GetObject"), DataReadError, id="S3 says no"),
        pytest.param(OSError("Forbidden: https://storage"), DataReadError, id="Google says no"),
        pytest.param(OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2"), DataReadError, id="no bucket"),
        pytest.param(OSError("AWS Error NETWORK_CONNECTION: curlCode: 7"), StorageUnavailableError, id="no network"),
        pytest.param(OSError("AWS Error SLOW_DOWN (HTTP status 503)"), StorageUnavailableError, id="throttled"),
        pytest.param(TimeoutError(), StorageUnavailableError, id="no answer"),
        pytest.param(FromAiohttp("disconnected"), StorageUnavailableError, id="a client library's own error"),
        pytest.param(ZeroDivisionError("a mistake of ours"), ZeroDivisionError, id="anything else stays what it is"),
    ],
)
def test_faults_of_the_store(raised: Exception, ours: type[Exception]) -> None:
    with pytest.raises(ours) as caught, translated("s3://lake/x"):
        raise raised
    if ours is not ZeroDivisionError:
        assert "s3://lake/x" in str(caught.value)
        assert caught.value.__cause__ is raised


def test_a_refusal_hides_the_key_it_quotes() -> None:
    access = StorageAccess(kind="s3", conn_id="lake", access_key="AKIA123", secret_key="s3cr3t")
    with pytest.raises(DataReadError) as caught, translated("s3://lake/x", access):
        raise OSError("ACCESS_DENIED for AKIA123 with s3cr3t")

    assert "connection 'lake'" in str(caught.value)
    assert "AKIA123" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
