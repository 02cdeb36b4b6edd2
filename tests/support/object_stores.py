"""Object stores for tests on 127.0.0.1: S3 by moto, Google Cloud Storage by an emulator."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_mlops.engines.storage import StorageAccess
from tests.support.processes import free_port

S3_KEY, S3_SECRET = "access-key-of-the-tests", "secret-key-of-the-tests"


@dataclass(frozen=True)
class ObjectStore:
    """A running store: its address, its one bucket, and the access that opens it."""

    endpoint_url: str
    bucket: str
    access: StorageAccess

    def uri(self, path: str) -> str:
        """Return the URI of a path in the bucket."""
        return f"{self.access.kind}://{self.bucket}/{path}"

    def put(self, path: str, data: bytes) -> str:
        """Write one object and return its URI."""
        from airflow_mlops.engines.storage import write_bytes

        write_bytes(self.uri(path), data, self.access)
        return self.uri(path)

    def delete(self, path: str) -> None:
        """Delete one object."""
        from airflow_mlops.engines.storage import filesystem

        files, inside = filesystem(self.uri(path), self.access)
        files.delete_file(inside)


@contextmanager
def s3_store(bucket: str = "lake") -> Iterator[ObjectStore]:
    """Run moto's S3 on a free port."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=S3_KEY,
            aws_secret_access_key=S3_SECRET,
        )
        client.create_bucket(Bucket=bucket)
        access = StorageAccess(
            kind="s3", access_key=S3_KEY, secret_key=S3_SECRET, region="us-east-1", endpoint_url=endpoint
        )
        yield ObjectStore(endpoint, bucket, access)
    finally:
        server.stop()


@contextmanager
def gs_store(bucket: str = "lake") -> Iterator[ObjectStore]:
    """Run a Google Cloud Storage emulator on a free port."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{port}"
        access = StorageAccess(kind="gs", anonymous=True, project="tests", endpoint_url=endpoint)
        yield ObjectStore(endpoint, bucket, access)
    finally:
        server.stop()
