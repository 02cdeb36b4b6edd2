"""Reading and writing bytes in a local folder, on S3 or on Google Cloud Storage, through pyarrow's file systems.

S3 goes through pyarrow's own client. Google Cloud Storage goes through gcsfs wrapped for pyarrow: pyarrow's own client
hangs when it reads from the storage emulators, and it cannot be given a connect time-out. Both have short time-outs,
so a dead store fails within a minute instead of hanging the task.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from airflow_mlops.errors import (
    DataMissingError,
    DataReadError,
    InvalidSpecError,
    MissingEngineError,
    MLOpsError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs

CONNECT_SECONDS = 5
REQUEST_SECONDS = 20
ATTEMPTS = 3
#: A file up to this size is held in memory while it is checked and read; a larger one goes through a scratch file.
MEMORY_BYTES = 256 * 1024 * 1024
_CHUNK = 8 * 1024 * 1024

Scheme = Literal["local", "s3", "gs"]


@dataclass(frozen=True, kw_only=True)
class StorageAccess:
    """Credentials and settings of one object store. Its ``repr`` shows no secret, and it never enters a record.

    :param kind: ``s3`` or ``gs``.
    :param conn_id: the Airflow connection it came from, for messages.
    :param token: a Google access token; it is used as it is and not renewed.
    :param anonymous: send no credentials at all.
    """

    kind: Literal["s3", "gs"]
    conn_id: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint_url: str | None = None
    token: str | None = field(default=None, repr=False)
    project: str | None = None
    anonymous: bool = False

    def __str__(self) -> str:
        return f"connection {self.conn_id!r}" if self.conn_id else f"the given {self.kind} credentials"

    def hide(self, text: str) -> str:
        """Return ``text`` with every secret of this access replaced."""
        for secret in (self.access_key, self.secret_key, self.session_token, self.token):
            if secret:
                text = text.replace(secret, "***")
        return text


@dataclass(frozen=True)
class Blob:
    """The bytes of one file as they were read once, with their digest."""

    buffer: pyarrow.Buffer
    size: int
    sha256: str


def scheme_of(uri: str) -> Scheme:
    """Return which kind of store a URI names.

    :raises InvalidSpecError: none that is supported, or the URI carries credentials.
    """
    scheme, found, rest = uri.partition("://")
    if not found:
        return "local"
    if "@" in rest.partition("/")[0]:
        raise InvalidSpecError(
            f"A {scheme}:// URI must not carry credentials. Put them into an Airflow connection and name it in "
            f"data.conn_id."
        )
    if scheme == "file":
        return "local"
    if scheme in ("s3", "s3a"):
        return "s3"
    if scheme in ("gs", "gcs"):
        return "gs"
    raise InvalidSpecError(
        f"{uri!r} has the scheme {scheme!r}; data can be read from a local path, file://, s3:// or gs://."
    )


def matching(access: StorageAccess | None, uri: str) -> StorageAccess | None:
    """Return ``access`` if it belongs to the store of ``uri``, else None, which means ambient credentials."""
    return access if access is not None and access.kind == scheme_of(uri) else None


def path_in_store(uri: str) -> str:
    """Return what the store itself calls ``uri``: an absolute path, or ``bucket/key``. Nothing is unquoted in a key."""
    if scheme_of(uri) == "local":
        local = Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else Path(uri).expanduser()
        return os.path.abspath(local)  # noqa: PTH100  # resolve() would follow links, and a link may be moved on purpose
    path = uri.partition("://")[2].rstrip("/")
    if not path.partition("/")[0]:
        raise InvalidSpecError(f"{uri!r} names no bucket; write {uri.partition('://')[0]}://BUCKET/PATH.")
    return path


def absolute(uri: str) -> str:
    """Return ``uri`` without a trailing slash, a relative local path made absolute."""
    scheme = scheme_of(uri)
    return path_in_store(uri) if scheme == "local" else f"{scheme}://{path_in_store(uri)}"


def join(root: str, *parts: str) -> str:
    """Return the URI of a path below ``root``."""
    return "/".join((root.rstrip("/"), *(part.strip("/") for part in parts if part)))


def filesystem(uri: str, access: StorageAccess | None = None) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system that serves ``uri`` and the path inside it.

    :param access: credentials of the store; None: what the environment of the process offers.
    :raises InvalidSpecError: the URI is of no supported kind, or the access belongs to another kind of store.
    :raises MissingEngineError: ``gs://`` without gcsfs.
    """
    from pyarrow import fs

    scheme = scheme_of(uri)
    path = path_in_store(uri)
    if scheme == "local":
        return fs.LocalFileSystem(), path
    if access is not None and access.kind != scheme:
        raise InvalidSpecError(
            f"{uri} is on {scheme}://, but {access} is for {access.kind}://. Name a connection of the right type in "
            f"data.conn_id ({'aws' if scheme == 's3' else 'google_cloud_platform'})."
        )
    with translated(uri, access):
        return (_s3 if scheme == "s3" else _gs)(path, access or StorageAccess(kind=scheme)), path


def read_blob(files: pyarrow.fs.FileSystem, path: str, *, size: int | None = None) -> Blob:
    """Read a whole file once and hash what was read, so that the digest is of the very bytes that are used.

    :param size: the size the store reported, which decides between memory and a scratch file.
    """
    import pyarrow

    digest = hashlib.sha256()
    with files.open_input_stream(path, compression=None) as stream:
        if size is not None and size <= MEMORY_BYTES:
            data = stream.read()
            digest.update(data)
            return Blob(pyarrow.py_buffer(data), len(data), digest.hexdigest())
        count = 0
        with tempfile.NamedTemporaryFile(prefix="airflow-mlops-") as scratch:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                scratch.write(chunk)
                count += len(chunk)
            scratch.flush()
            # The mapping outlives the name: the space is given back when the buffer goes.
            buffer = pyarrow.memory_map(scratch.name).read_buffer() if count else pyarrow.py_buffer(b"")
    return Blob(buffer, count, digest.hexdigest())


def write_bytes(uri: str, data: bytes | pyarrow.Buffer, access: StorageAccess | None = None) -> None:
    """Write one file whole: on a local disk under a scratch name first, so that no reader sees half of it."""
    files, path = filesystem(uri, matching(access, uri))
    with translated(uri, access):
        if scheme_of(uri) == "local":
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(f".writing-{uuid4().hex}")
            scratch.write_bytes(data)
            scratch.replace(target)
            return
        with files.open_output_stream(path, compression=None) as sink:
            sink.write(data)


@contextmanager
def translated(uri: str, access: StorageAccess | None = None) -> Iterator[None]:
    """Turn the store's own errors into ours: a retry helps (unavailable) or a person must act (cannot be read).

    :raises DataReadError: nothing is there, or the store refuses; the message says what to mend.
    :raises StorageUnavailableError: no answer in time, or an answer that a retry may better.
    """
    try:
        yield
    except MLOpsError:
        raise
    except FileNotFoundError as exc:
        raise DataMissingError(f"{uri} does not exist. Check the spelling and whether the file was delivered.") from exc
    except Exception as exc:
        text = _words(exc, access)
        if _is_refusal(exc, text):
            who = str(access) if access else "the credentials of this process (no connection was named)"
            raise DataReadError(
                f"The store refuses {uri} to {who}: {text}. Give that identity leave to list and read the path, or "
                f"name another connection in data.conn_id."
            ) from exc
        if _MISSING.search(text):
            # No delivery makes a bucket: nobody should wait for it.
            raise DataReadError(f"{uri} does not exist: {text}. Check the bucket's name and the path.") from exc
        if isinstance(exc, OSError | TimeoutError) or _is_network(exc):
            raise StorageUnavailableError(
                f"{uri} did not answer: {text}. Check that the store is reachable from this worker"
                f"{f' at {access.endpoint_url}' if access and access.endpoint_url else ''}; the task may be retried."
            ) from exc
        raise


_REFUSED = re.compile(
    r"ACCESS_DENIED|AccessDenied|Access Denied|INVALID_ACCESS_KEY|InvalidAccessKeyId|SIGNATURE|HTTP status 40[13]|"
    r"Forbidden|\b40[13]\b|Invalid Credentials|UNRECOGNIZED_CLIENT|EXPIRED_TOKEN|ExpiredToken|does not have .* access|"
    r"Permission denied|invalid_grant|credentials were not found",
    re.IGNORECASE,
)
_MISSING = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|RESOURCE_NOT_FOUND", re.IGNORECASE)


def _is_refusal(exc: Exception, text: str) -> bool:
    if isinstance(exc, PermissionError):
        return True
    return "NETWORK_CONNECTION" not in text and _REFUSED.search(text) is not None


def _is_network(exc: Exception) -> bool:
    packages = ("aiohttp", "requests", "gcsfs", "fsspec", "google", "botocore", "urllib3")
    return any(kind.__module__.partition(".")[0] in packages for kind in type(exc).__mro__)


def _words(exc: Exception, access: StorageAccess | None) -> str:
    text = " ".join(str(exc).split()) or type(exc).__name__
    text = access.hide(text) if access else text
    return (text if len(text) <= 300 else f"{text[:299]}…").rstrip(".")


def _s3(path: str, access: StorageAccess) -> pyarrow.fs.FileSystem:
    from pyarrow import fs

    region = access.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        custom = access.endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
        region = "us-east-1" if custom else _region_of(path.partition("/")[0])
    settings: dict[str, Any] = {}
    if access.anonymous:
        settings["anonymous"] = True
    elif access.access_key is not None:
        settings.update(access_key=access.access_key, secret_key=access.secret_key, session_token=access.session_token)
    if access.endpoint_url:
        settings["endpoint_override"] = access.endpoint_url
    return fs.S3FileSystem(
        region=region,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **settings,
    )


@lru_cache(maxsize=64)
def _region_of(bucket: str) -> str:
    """Ask S3 where a bucket is: without its region every request is answered with a redirection error."""
    from pyarrow import fs

    return str(fs.resolve_s3_region(bucket))


def _gs(path: str, access: StorageAccess) -> pyarrow.fs.FileSystem:
    from pyarrow import fs

    try:
        import aiohttp

        # The class of gcsfs.core: the package's default one first asks over gRPC what kind of bucket it is, which an
        # emulator cannot answer, and waits a minute for that.
        from gcsfs.core import GCSFileSystem
    except ModuleNotFoundError as exc:
        raise MissingEngineError(
            f"gs://{path} needs {exc.name}, which is not installed on this worker. "
            f"Run: pip install 'airflow-mlops[google]'."
        ) from exc
    token: Any = "anon" if access.anonymous else None
    if access.token is not None and not access.anonymous:
        from google.oauth2.credentials import Credentials

        token = Credentials(token=access.token)
    files = GCSFileSystem(
        project=access.project or "",
        access="read_write",
        token=token,
        endpoint_url=access.endpoint_url,
        requests_timeout=REQUEST_SECONDS * ATTEMPTS,
        session_kwargs={"timeout": aiohttp.ClientTimeout(connect=CONNECT_SECONDS, sock_read=REQUEST_SECONDS)},
        # A cached instance would outlive its token, and a cached listing would hide a late file.
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    return fs.PyFileSystem(fs.FSSpecHandler(files))


def describe(names: Sequence[str], most: int = 5) -> str:
    """Return up to ``most`` names for a message, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
