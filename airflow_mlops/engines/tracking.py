"""A tracking server's settings, a client that keeps to them, and errors that say which host failed and what to check.

MLflow reads timeouts, retries and TLS from environment variables on every request. They are no secrets, so
:func:`connected` sets them while a connection is open and puts back what was there before. Connections with equal
settings share; one with other settings waits until those in other threads have closed (:data:`MAX_WAIT_SECONDS` at
most). Logins never enter the environment: see :mod:`airflow_mlops.engines.login`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_mlops.engines.login import PROVIDER, Login, acting_as, prepare_mlflow
from airflow_mlops.engines.tracking_errors import translated
from airflow_mlops.errors import InvalidSpecError, MissingEngineError, OutageError, UnknownNameError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Seconds before the second retry; the first follows at once and each later one waits twice as long (urllib3).
BACKOFF_SECONDS = 1
#: How long a connection waits for others in this process that hold other settings.
MAX_WAIT_SECONDS = 300.0

_REMOTE = ("http", "https")
_LOCAL = ("sqlite",)


@dataclass(frozen=True)
class TrackingServer:
    """Where MLflow is and how patient to be with it. Plain values and no secret, so it may travel in a request.

    :param tracking_uri: ``http(s)://host[:port][/path]``; or ``sqlite:///FILE`` for local use with the full ``mlflow``,
        which keeps the artifacts in ``mlruns`` of the folder that the experiment is created in.
    :param registry_uri: the model registry; None: the same server.
    :param verify_tls: check the server's certificate.
    :param ca_path: a PEM bundle to check it against; None: the system's.
    :param timeout_seconds: how long one attempt may wait for each answer, 1 to 3600, rounded up to whole seconds.
    :param max_retries: how often an attempt is repeated, 0 to 10.
    :param ui_url: where people open MLflow, if that is not ``tracking_uri``.
    :raises InvalidSpecError: a value is not allowed; the message says what is.
    """

    tracking_uri: str
    registry_uri: str | None = None
    verify_tls: bool = True
    ca_path: str | None = None
    timeout_seconds: float = 10
    max_retries: int = 2
    ui_url: str | None = None

    def __post_init__(self) -> None:
        _check_uri("tracking_uri", self.tracking_uri, _REMOTE + _LOCAL)
        if self.registry_uri is not None:
            _check_uri("registry_uri", self.registry_uri, _REMOTE + _LOCAL)
        if self.ui_url is not None:
            _check_uri("ui_url", self.ui_url, _REMOTE)
        if not isinstance(self.verify_tls, bool):
            raise InvalidSpecError(f"verify_tls is {self.verify_tls!r}; it must be true or false.")
        if self.ca_path is not None and not self.verify_tls:
            raise InvalidSpecError("ca_path is given and verify_tls is off: set verify_tls to true, or drop ca_path.")
        _check_number("timeout_seconds", self.timeout_seconds, 1, 3600, whole=False)
        _check_number("max_retries", self.max_retries, 0, 10, whole=True)

    @property
    def is_remote(self) -> bool:
        """Whether requests travel over the network; otherwise MLflow works on local files."""
        return urlsplit(self.tracking_uri).scheme in _REMOTE

    @property
    def uris(self) -> tuple[str, ...]:
        """The addresses a client of this server talks to: tracking, then the registry where it is another."""
        return tuple(dict.fromkeys((self.tracking_uri, self.registry_uri or self.tracking_uri)))

    @property
    def budget_seconds(self) -> float:
        """The longest that one request to a dead or stalled address lasts, all attempts and pauses together."""
        pauses = BACKOFF_SECONDS * sum(2.0**n for n in range(1, self.max_retries))
        return math.ceil(self.timeout_seconds) * (self.max_retries + 1) + pauses

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrackingServer:
        """Rebuild what :meth:`to_dict` made.

        :raises UnknownNameError: a key is not a setting.
        :raises InvalidSpecError: ``tracking_uri`` is missing, or a value is not allowed.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownNameError.of("tracking server setting", name, known)
        if "tracking_uri" not in values:
            raise InvalidSpecError("A tracking server needs `tracking_uri`, such as http://mlflow.example.com:5000.")
        return cls(**values)


@contextmanager
def connected(server: TrackingServer, login: Login | None = None) -> Iterator[MlflowClient]:
    """Yield a client of ``server``; in this context its requests carry ``login``, or none at all.

    Ambient ``MLFLOW_TRACKING_USERNAME``, ``_PASSWORD`` and ``_TOKEN``, ``~/.mlflow/credentials`` and ``~/.netrc`` are
    not used. Connections may be nested in one context when timeout, retries and TLS are equal.

    :raises TrackingUnavailableError: the server did not answer within its budget, or with a 5xx: a retry may help.
    :raises TrackingRefusedError: it refused the login, or is no MLflow server: a retry will not help.
    :raises InvalidSpecError: a connection with other settings is open around this one.
    :raises OutageError: connections with other settings were open in other threads for too long.
    :raises MissingEngineError: a local URI without the full ``mlflow``, or MLflow does not know our plug-in.
    """
    telemetry_off()
    if not server.is_remote:
        _check_local(server, login)
    if server.ca_path is not None and not Path(server.ca_path).is_file():
        raise InvalidSpecError(
            f"There is no CA bundle at {server.ca_path!r} on this machine: put the PEM file there, or mend `ca_path`."
        )
    with ExitStack() as stack:
        stack.enter_context(_settings.held(_environment(server)))
        from mlflow import MlflowClient

        prepare_mlflow()
        stack.enter_context(acting_as(login, *(uri for uri in server.uris if urlsplit(uri).scheme in _REMOTE)))
        stack.enter_context(translate_errors(server, login))
        yield MlflowClient(tracking_uri=server.tracking_uri, registry_uri=server.registry_uri or server.tracking_uri)


@contextmanager
def translate_errors(server: TrackingServer, login: Login | None = None) -> Iterator[None]:
    """Turn MLflow's and requests' errors about ``server`` into ours; others, and MLflow's own answers, pass through.

    ``RESOURCE_DOES_NOT_EXIST`` and its like stay ``mlflow.exceptions.MlflowException``: they are answers.

    :raises TrackingUnavailableError: see :func:`connected`.
    :raises TrackingRefusedError: see :func:`connected`.
    """
    try:
        yield
    except Exception as exc:
        ours = translated(exc, server, login)
        if ours is None:
            raise
        raise ours from exc


def server_version(server: TrackingServer) -> str:
    """Return the server's MLflow version, or the library's for a local store. Call it while connected.

    A server that hides it answers as ``(version unknown)``.
    """
    if not server.is_remote:
        from mlflow import __version__

        return str(__version__)
    from mlflow.utils import credentials, rest_utils

    ask: Callable[..., Any] = rest_utils.http_request
    creds_for: Callable[[str], Any] = credentials.get_default_host_creds
    response = ask(creds_for(server.tracking_uri), "/version", "GET")
    text = str(response.text).strip() if response.status_code == 200 else ""
    return text if text and len(text) < 40 and "<" not in text else "(version unknown)"


def telemetry_off() -> None:
    """Switch MLflow's usage reports off in this process and its children, unless the user has set the switch."""
    if "MLFLOW_DISABLE_TELEMETRY" not in os.environ and "DO_NOT_TRACK" not in os.environ:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def run_page(server: TrackingServer, run_id: str, experiment_id: str | None = None) -> str:
    """Return the page of a run, or an empty string for a local store without ``ui_url``."""
    if experiment_id is None:
        return _page(server, "runs", run_id)  # MLflow's page looks the experiment up and moves on
    return _page(server, "experiments", experiment_id, "runs", run_id)


def version_page(server: TrackingServer, name: str, version: int | str) -> str:
    """Return the page of a model version, or an empty string for a local store without ``ui_url``."""
    return _page(server, "models", name, "versions", str(version))


def artifact_page(server: TrackingServer, run_id: str, path: str, experiment_id: str | None = None) -> str:
    """Return the page of a run's artifact, or an empty string for a local store without ``ui_url``.

    MLflow 3.17 opens a file of the top folder; for one in a sub-folder it shows the list of artifacts. It takes any
    number for the experiment, which only names the page's heading; without ``experiment_id`` it is 0.
    """
    parts = path.strip("/").split("/")
    return _page(server, "experiments", experiment_id or "0", "runs", run_id, "artifacts", *parts)


def _page(server: TrackingServer, *parts: str) -> str:
    base = server.ui_url or (server.tracking_uri if server.is_remote else "")
    return f"{base.rstrip('/')}/#/" + "/".join(quote(part, safe="") for part in parts) if base else ""


def _check_uri(name: str, uri: object, schemes: tuple[str, ...]) -> None:
    forms = {"http": "http://host:port", "https": "https://host", "sqlite": "sqlite:////folder/mlflow.db"}
    allowed = " or ".join(forms[scheme] for scheme in schemes)
    if not isinstance(uri, str) or not uri.strip():
        raise InvalidSpecError(f"{name} is empty; it must look like {allowed}.")
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None:
        raise InvalidSpecError(
            f"{name} holds a user or a password (its host is {parts.hostname!r}): such an address ends up in logs. "
            f"Put them into the connection's User and Password fields and leave them out of the address."
        )
    if parts.scheme in ("", "file"):
        raise InvalidSpecError(
            f"{name} is {uri!r}, a folder or a host without a scheme; it must look like {allowed}. MLflow no longer "
            f"opens a folder of files by itself: `mlflow migrate-filestore` turns it into a database."
        )
    if parts.scheme not in schemes:
        raise InvalidSpecError(
            f"{name} begins with {parts.scheme}:, which airflow_mlops was not tried with; it must look like {allowed}."
        )
    if parts.scheme in _REMOTE:
        try:
            port_ok = parts.port is None or parts.port > 0
        except ValueError:
            port_ok = False
        if not parts.hostname or not port_ok or parts.query or parts.fragment or any(c.isspace() for c in uri):
            raise InvalidSpecError(f"{name} is {uri!r}; it must look like {allowed}, with no ? or # part.")


def _check_number(name: str, value: object, low: int, high: int, *, whole: bool) -> None:
    kind = "a whole number" if whole else "a number"
    right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right_type or not low <= value <= high:  # type: ignore[operator]  # a number, as just checked
        raise InvalidSpecError(f"{name} is {value!r}; it must be {kind} from {low} to {high}.")


def _check_local(server: TrackingServer, login: Login | None) -> None:
    if login is not None:
        raise InvalidSpecError(
            f"A login is given for {server.tracking_uri}, which is a local store and asks for none: leave it out."
        )
    try:
        distribution("mlflow")
    except PackageNotFoundError:
        raise MissingEngineError(
            f"{server.tracking_uri} is a local store, which the slim MLflow client cannot open. "
            f"Run: pip install 'airflow-mlops[mlflow]', or use a server's http:// address."
        ) from None


def _environment(server: TrackingServer) -> dict[str, str | None]:
    """Return the variables that MLflow reads per request; None means unset."""
    return {
        "MLFLOW_TRACKING_AUTH": PROVIDER,
        "MLFLOW_TRACKING_AWS_SIGV4": None,  # would replace our signature
        "MLFLOW_TRACKING_INSECURE_TLS": None if server.verify_tls else "true",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": server.ca_path,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(server.timeout_seconds)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(server.max_retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": str(BACKOFF_SECONDS),
        "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
        # A Retry-After of an hour would be slept through, whatever the budget.
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        # Standard output belongs to whoever calls us (JSON, in the command line's case).
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # MLflow's own SQL registry resolves models through the process's address, not the client's.
        **({} if server.is_remote else {"MLFLOW_TRACKING_URI": server.tracking_uri}),
    }


class _ProcessSettings:
    """Environment variables shared by holders of equal values; unequal ones take turns."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._values: dict[str, str | None] | None = None
        self._before: dict[str, str | None] = {}
        self._holders = 0
        #: What this context holds; threads started with a copied context see it too.
        self._mine: ContextVar[dict[str, str | None] | None] = ContextVar("airflow_mlops_settings", default=None)
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # The lock may have been taken by a thread that does not exist in the child.
        self._changed = threading.Condition()

    @contextmanager
    def held(self, values: dict[str, str | None]) -> Iterator[None]:
        self._acquire(values)
        token = self._mine.set(values)
        try:
            yield
        finally:
            self._mine.reset(token)
            self._release()

    def _acquire(self, values: dict[str, str | None]) -> None:
        mine = self._mine.get()
        if mine is not None and mine != values:
            differing = ", ".join(sorted(name for name in values if values[name] != mine.get(name)))
            raise InvalidSpecError(
                f"A connection to MLflow with other settings is open around this one (they differ in {differing}), and "
                f"MLflow has one set of them per process. Close the outer connection first, or give both the same "
                f"timeout, retries and TLS settings."
            )
        with self._changed:
            if not self._changed.wait_for(lambda: self._values in (None, values), timeout=MAX_WAIT_SECONDS):
                raise OutageError(
                    f"Connections to MLflow with other timeout, retry or TLS settings were open in other threads of "
                    f"this process for {MAX_WAIT_SECONDS:.0f} seconds. Give the Airflow connections the same settings, "
                    f"or use them one after the other."
                )
            if self._values is None:
                self._values = values
                self._before = {name: os.environ.get(name) for name in values}
                _set_environment(values)
            self._holders += 1

    def _release(self) -> None:
        with self._changed:
            self._holders -= 1
            if self._holders == 0:
                _set_environment(self._before)
                self._values = None
                self._changed.notify_all()


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


_settings = _ProcessSettings()
