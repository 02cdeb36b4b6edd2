"""Which errors of other libraries a retry may mend: the real classes, as their libraries raise them."""

from __future__ import annotations

import errno
import gzip
import sqlite3
import urllib.error
from email.message import Message
from typing import Any

import botocore.exceptions
import google.api_core.exceptions
import google.auth.exceptions
import psycopg2
import pytest
import requests
import sqlalchemy
import urllib3
from mlflow.exceptions import MlflowException, RestException

from airflow_mlops.engines.outages import looks_like_outage
from airflow_mlops.errors import ModelRefusedError, StorageUnavailableError


def answered(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Error", response=response)


def s3(status: int, code: str) -> botocore.exceptions.ClientError:
    about: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(about, "GetObject")


def url(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://store/x", status, "said the store", Message(), None)


def sqlite(statement: str) -> Exception:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        try:
            connection.execute(sqlalchemy.text(statement))
        except sqlalchemy.exc.OperationalError as exc:
            return exc
    raise AssertionError("it was to fail")


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "exc",
    [
        pytest.param(ConnectionResetError("reset"), id="a connection"),
        pytest.param(TimeoutError("late"), id="a time-out"),
        pytest.param(OSError("AWS Error NETWORK_CONNECTION"), id="an OSError of unknown kind, as pyarrow raises it"),
        pytest.param(OSError(errno.EIO, "input/output error"), id="a device"),
        pytest.param(requests.ConnectionError("refused"), id="requests: no connection"),
        pytest.param(requests.ReadTimeout("late"), id="requests: a time-out"),
        pytest.param(answered(503), id="requests: 503"),
        pytest.param(answered(429), id="requests: 429"),
        pytest.param(url(502), id="urllib: 502"),
        pytest.param(urllib.error.URLError("refused"), id="urllib: no connection"),
        pytest.param(urllib3.exceptions.ProtocolError("broken"), id="urllib3: broken off"),
        pytest.param(urllib3.exceptions.MaxRetryError(None, "/x"), id="urllib3: gave up"),  # type: ignore[arg-type]  # no pool
        pytest.param(botocore.exceptions.EndpointConnectionError(endpoint_url="http://s3"), id="botocore: connection"),
        pytest.param(botocore.exceptions.ReadTimeoutError(endpoint_url="http://s3"), id="botocore: time-out"),
        pytest.param(s3(500, "InternalError"), id="botocore: 500"),
        pytest.param(s3(400, "RequestTimeout"), id="botocore: a 400 that means later"),
        pytest.param(google.api_core.exceptions.ServiceUnavailable("later"), id="google: 503"),
        pytest.param(google.auth.exceptions.TransportError("refused"), id="google: no connection"),
        pytest.param(psycopg2.OperationalError("server closed the connection"), id="a database that is gone"),
        pytest.param(sqlite3.OperationalError("database is locked"), id="a locked SQLite file"),
        pytest.param(RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}), id="MLflow: later"),
        pytest.param(MlflowException("API request to http://x failed with exception refused"), id="MLflow: no answer"),
        pytest.param(StorageUnavailableError("no answer"), id="our own"),
        pytest.param(caused(RuntimeError("no features"), requests.ConnectionError("refused")), id="raised from one"),
    ],
)
def test_an_outage(exc: Exception) -> None:
    assert looks_like_outage(exc)


@pytest.mark.parametrize(
    "exc",
    [
        pytest.param(ValueError("bad"), id="a mistake"),
        pytest.param(FileNotFoundError(errno.ENOENT, "no such file"), id="no such file"),
        pytest.param(PermissionError(errno.EACCES, "not allowed"), id="no permission"),
        pytest.param(IsADirectoryError(errno.EISDIR, "a folder"), id="a folder"),
        pytest.param(gzip.BadGzipFile("not gzip"), id="a broken archive"),
        pytest.param(answered(404), id="requests: 404"),
        pytest.param(requests.exceptions.InvalidURL("nonsense"), id="requests: a wrong address"),
        pytest.param(url(404), id="urllib: 404"),
        pytest.param(s3(404, "NoSuchKey"), id="botocore: no such object"),
        pytest.param(s3(403, "AccessDenied"), id="botocore: refused"),
        pytest.param(google.api_core.exceptions.NotFound("gone"), id="google: 404"),
        pytest.param(sqlite("select * from nothing"), id="no such table"),
        pytest.param(RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}), id="MLflow: gone"),
        pytest.param(MlflowException("the model has no flavor"), id="MLflow: an error of its own"),
        pytest.param(caused(ModelRefusedError("no"), ConnectionError("x")), id="our own verdict, whatever its cause"),
    ],
)
def test_a_retry_would_find_the_same(exc: Exception) -> None:
    assert not looks_like_outage(exc)


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert not looks_like_outage(first)
