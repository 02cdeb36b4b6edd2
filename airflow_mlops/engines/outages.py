"""Whether an error of another library means that something outside did not answer, so that a retry may help."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from airflow_mlops.engines.tracking_errors import is_outage
from airflow_mlops.errors import MLOpsError, OutageError

#: Error classes of clients that never reached the other side, by top-level package: importing them is not free.
_UNANSWERED = {
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError"},
    "urllib3": {"PoolError", "TimeoutError", "ProtocolError"},
    "botocore": {"ConnectionError", "HTTPClientError", "ResponseStreamingError"},
    "google": {"TransportError", "RetryError", "DataCorruption", "ServerError", "TooManyRequests"},
    "httpx": {"TransportError"},
    "httpcore": {"NetworkError", "TimeoutException", "ProtocolError"},
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
}
#: What S3 and its imitators answer with a status of 4xx although they mean "later".
_LATER = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded"}
#: What a file system says that it will say again.
_SETTLED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_SETTLED_CODES = {errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EROFS}


def looks_like_outage(exc: BaseException) -> bool:
    """Say whether ``exc``, or the error that it was explicitly raised from, is about the way to something outside.

    An answer counts by its status: 408, 429 and 5xx are outages, a refusal or a missing object is not. Of the file
    system's errors all are outages but those that would be found again (no such file, no permission). A database's
    ``OperationalError`` is one, too; SQLite uses it also for a wrong statement, so there only a locked file counts.
    """
    return any(_is_one(error) for error in _chain(exc))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        yield current
        if isinstance(current, MLOpsError):
            return  # it was judged where it was raised
        seen.add(id(current))
        current = current.__cause__


def _is_one(exc: BaseException) -> bool:
    if isinstance(exc, MLOpsError):
        return isinstance(exc, OutageError)
    if isinstance(exc, ConnectionError | TimeoutError) or is_outage(exc):
        return True
    if _code_of(exc) in _LATER:
        return True
    status = _status_of(exc)
    if status is not None:
        return status in (408, 429) or 500 <= status <= 599
    kinds = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(exc).__mro__]
    if any(name in _UNANSWERED.get(package, ()) for package, name in kinds):
        return True
    if any(name == "OperationalError" for _, name in kinds):
        wrapped = getattr(exc, "orig", None) or exc  # SQLAlchemy keeps the driver's own error
        return type(wrapped).__module__ != "sqlite3" or "locked" in str(wrapped)
    if not isinstance(exc, OSError) or isinstance(exc, _SETTLED) or exc.errno in _SETTLED_CODES:
        return False
    # A library's own child of OSError is about its content (a broken archive, say), the plain one about the device.
    return type(exc) is OSError or kinds[0][0] in ("urllib", "socket", "ssl", "gcsfs", "fsspec")


def _code_of(exc: BaseException) -> str | None:
    """Return the word botocore's ClientError carries, such as ``SlowDown``."""
    answer = getattr(exc, "response", None)
    error = answer.get("Error") if isinstance(answer, dict) else None
    return str(error.get("Code")) if isinstance(error, dict) else None


def _status_of(exc: BaseException) -> int | None:
    """Return the HTTP status of an answer that a client turned into an error; None: there was no answer."""
    answer = getattr(exc, "response", None)
    if isinstance(answer, dict):
        about = answer.get("ResponseMetadata")
        found = about.get("HTTPStatusCode") if isinstance(about, dict) else None
    elif answer is not None:
        found = getattr(answer, "status_code", None)
    else:
        package = type(exc).__module__.partition(".")[0]
        found = getattr(exc, "code", None) if package in ("google", "urllib", "gcsfs") else None
    try:
        return None if found is None else int(found)
    except (TypeError, ValueError):
        return None
