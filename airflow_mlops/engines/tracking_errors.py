"""What went wrong between MLflow's client and its server, told from the errors that MLflow and requests raise.

MLflow wraps most network errors into a plain ``MlflowException`` whose text is all that is left, and its download of
artifacts joins the texts of several into one. So the text is read; the phrases are MLflow's, requests' and urllib3's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_mlops.engines.login import Login, origin_of
from airflow_mlops.errors import MLOpsError, TrackingRefusedError, TrackingUnavailableError

if TYPE_CHECKING:
    from airflow_mlops.engines.tracking import TrackingServer

_URL = re.compile(r"(?:API request to|for url:) (https?://[^\s'\"]+)")
_NETWORK = re.compile(
    r"API request to \S+ failed with (?:timeout )?exception|HTTPS?ConnectionPool\(|Connection aborted|Connection broken"
)
_STATUS = re.compile(r"failed with error code (\d{3}) !=|\b(\d{3}) (?:Client|Server) Error|too many (\d{3}) error resp")
_NOT_JSON = "the response body was not in a valid JSON format"

#: What MLflow's JSON answers call a refused login and an overloaded or broken server.
_REFUSED_CODES = {"PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401}
_OUTAGE_CODES = {
    "INTERNAL_ERROR": 500,
    "TEMPORARILY_UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "RESOURCE_EXHAUSTED": 429,
}


def is_outage(exc: BaseException) -> bool:
    """Say whether ``exc``, raised by an MLflow client and not yet translated, means that the server did not answer."""
    text = str(exc)
    status = _status_of(exc, text)
    return isinstance(exc, TrackingUnavailableError) or (
        _comes_from_client(exc) and (_is_outage_status(status) or (status is None and bool(_NETWORK.search(text))))
    )


def translated(exc: Exception, server: TrackingServer, login: Login | None) -> MLOpsError | None:
    """Return our error for what MLflow's client raised about ``server``, or None where it should pass unchanged."""
    if isinstance(exc, MLOpsError) or not server.is_remote or not _comes_from_client(exc):
        return None
    text = str(exc)
    url = _failing_url(exc, text)
    if url is not None and origin_of(url) not in {origin_of(uri) for uri in server.uris}:
        return None  # another host: a download inside a training function, or an artifact store of its own
    address = _address(url, server)
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLError" in text:
        return TrackingRefusedError(_certificate(address, server, text))
    status = _status_of(exc, text)
    if status in (401, 403):
        return TrackingRefusedError(_refused(status, address, login))
    if _is_outage_status(status):
        return TrackingUnavailableError(
            f"The MLflow server at {address} answered {status} ({_MEANING.get(status or 0, 'a server error')}), "
            f"{server.max_retries + 1} attempts in all. Look into its log, and check its database and artifact store."
        )
    if status is None and _NETWORK.search(text):
        return TrackingUnavailableError(_unavailable(address, server, text))
    if _NOT_JSON in text or (status in (404, 405) and "API request to endpoint" in text):
        return TrackingRefusedError(
            f"{address} answers, but not as an MLflow server{f' (status {status})' if status else ''}. Check the "
            f"tracking URI: its path, and whether a proxy or a sign-in page stands in front of MLflow."
        )
    return None


_MEANING = {429: "too many requests", 500: "internal error", 502: "bad gateway", 503: "unavailable", 504: "timeout"}


def _comes_from_client(exc: BaseException) -> bool:
    """Whether MLflow's client raised this, or the HTTP library below it while transferring an artifact."""
    known = {("mlflow", "MlflowException"), ("requests", "RequestException")}  # by name: importing them is not free
    return any((cls.__module__.partition(".")[0], cls.__name__) in known for cls in type(exc).__mro__)


def _failing_url(exc: BaseException, text: str) -> str | None:
    request = getattr(exc, "request", None)
    if request is not None and getattr(request, "url", None):
        return str(request.url)
    found = _URL.search(text)
    return found.group(1) if found else None


def _status_of(exc: BaseException, text: str) -> int | None:
    code = getattr(exc, "error_code", None)
    if type(exc).__name__ == "RestException":  # an answer in MLflow's own words; its code is exact
        return _REFUSED_CODES.get(str(code)) or _OUTAGE_CODES.get(str(code))
    status = getattr(getattr(exc, "response", None), "status_code", None)  # botocore keeps a mapping there
    if status is not None:
        return int(status)
    found = _STATUS.search(text)
    return int(next(group for group in found.groups() if group)) if found else None


def _is_outage_status(status: int | None) -> bool:
    return status is not None and (status in (408, 429) or 500 <= status <= 599)


def _address(url: str | None, server: TrackingServer) -> str:
    """Return the address to name: without a path or query, which may be long, unless the setting itself has a path."""
    if url is None:
        return server.tracking_uri
    for uri in server.uris:
        if origin_of(uri) == origin_of(url):
            return uri
    return origin_of(url)


def _refused(status: int, address: str, login: Login | None) -> str:
    who = login.name if login is not None else "an anonymous user"
    if status == 401:
        mend = (
            "Put a user and a password, or a token, into the Airflow connection."
            if login is None
            else "Check the user and the password or token in the Airflow connection: wrong, expired or for another "
            "server."
        )
        return f"The MLflow server at {address} did not accept {who} (401). {mend}"
    return (
        f"The MLflow server at {address} does not let {who} do this (403). Ask its administrator for the permission "
        f"on the experiment or registered model, or use a connection with another login."
    )


def _certificate(address: str, server: TrackingServer, text: str) -> str:
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text:
        return f"{address} does not speak TLS. If the server is plain HTTP, begin the tracking URI with http://."
    against = f"the CA bundle {server.ca_path}" if server.ca_path else "this machine's certificate authorities"
    return (
        f"The certificate of {address} does not pass against {against}. Set `ca_path` in the Airflow connection to the "
        f"PEM file of the authority that signed it, or mend the host name; `verify_tls: false` is for trials only."
    )


def _unavailable(address: str, server: TrackingServer, text: str) -> str:
    parts = urlsplit(address)
    attempts = server.max_retries + 1
    tries = "one attempt" if attempts == 1 else f"{attempts} attempts"
    probe = f"curl -sS -m 10 {address.rstrip('/')}/health"
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    if "NameResolution" in text or "getaddrinfo" in text or "Name or service not known" in text:
        what = f"the name {host!r} is not known here"
        check = "Check the spelling of the host in the Airflow connection, and the worker's DNS"
    elif "Connection refused" in text:
        what = f"nothing listens on port {port} of {host!r} (connection refused)"
        check = "Check that the server runs, and the port in the Airflow connection"
    elif "ConnectTimeout" in text or "No route to host" in text or "unreachable" in text:
        what = f"{host!r} cannot be reached on port {port}"
        check = "Check that the host runs, and that firewall, network and proxy let this worker through"
    elif "Read timed out" in text or "ReadTimeout" in text:
        what = f"it took the request and did not answer within {server.timeout_seconds:g} seconds"
        check = "Check the server's load, log and database, or raise `timeout_seconds` in the Airflow connection"
    else:
        what = "the connection broke"
        check = "Check the server's log, and any proxy in between"
    return f"The MLflow server at {address} did not answer: {what} ({tries}). {check}; from the worker: {probe}."
