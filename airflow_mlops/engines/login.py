"""Who a request to MLflow is sent as: a context variable, read by MLflow's request-auth plug-in.

MLflow takes credentials from environment variables only, and those leak: children inherit them, threads share them, and
what somebody set earlier is used in silence. Its ``mlflow.request_auth_provider`` plug-in point is the way round. While
a connection of ours is open, ``MLFLOW_TRACKING_AUTH`` (a name, no secret) selects :class:`CurrentLogin`, and each
request is signed with the login of the context that makes it, for the servers of that connection only.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_mlops.errors import InvalidSpecError, MissingEngineError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from requests import PreparedRequest

#: The entry-point name of :class:`CurrentLogin`, and the value of ``MLFLOW_TRACKING_AUTH`` while a connection is open.
PROVIDER = "airflow_mlops"


@dataclass(frozen=True)
class Login:
    """A user with a password, or a bearer token. Neither shows in ``repr``, logs or tracebacks of this class.

    :raises InvalidSpecError: both kinds or a half of one are given, or a character cannot travel in a header.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None:
            if self.username is not None or self.password is not None:
                raise InvalidSpecError("A login is a user with a password or a bearer token, not both: leave one out.")
            if not self.token or any(not 33 <= ord(char) <= 126 for char in self.token):
                raise InvalidSpecError(
                    "The bearer token is empty or holds a space, a line break or a non-ASCII character: "
                    "copy it again, without the word 'Bearer'."
                )
        elif not self.username or not self.password:
            raise InvalidSpecError("A login needs both a user and a password, or a bearer token alone.")
        elif ":" in self.username:
            raise InvalidSpecError("A user name cannot hold a colon: HTTP basic authentication ends the name there.")

    @property
    def name(self) -> str:
        """Who this is, for messages: ``user 'ada'`` or ``a bearer token``."""
        return "a bearer token" if self.token is not None else f"user {self.username!r}"

    def header(self) -> str:
        """Return the value of the ``Authorization`` header: a secret."""
        if self.token is not None:
            return f"Bearer {self.token}"
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True)
class BoundLogin:
    """A login, or the decision to send none, and the servers that it is meant for."""

    login: Login | None
    origins: frozenset[str]


#: The login of the running context. None means that no connection of ours is open here.
current_login: ContextVar[BoundLogin | None] = ContextVar("airflow_mlops_current_login", default=None)


def origin_of(uri: str) -> str:
    """Return scheme, host and port of an address, the port always written out: ``https://mlflow.example.com:443``."""
    parts = urlsplit(uri)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


@contextmanager
def acting_as(login: Login | None, *uris: str) -> Iterator[None]:
    """Send the requests that this context makes to the servers at ``uris`` as ``login``; with None, anonymously."""
    bound = BoundLogin(login, frozenset(origin_of(uri) for uri in uris))
    token = current_login.set(bound)
    try:
        yield
    finally:
        current_login.reset(token)


class SignRequest:
    """The ``auth`` callable of requests: it signs each request as the context that sends it."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Return ``request`` with this context's login, and without what was ambient."""
        bound = current_login.get()
        if bound is None:
            # Another thread of this process, using MLflow in its own way while a connection of ours is open.
            return request
        # What MLflow took from ambient variables or ~/.mlflow/credentials is not this connection's login.
        request.headers.pop("Authorization", None)
        # MLflow keeps one session per process, so a proxy's session cookie would let one user act as another.
        request.headers.pop("Cookie", None)
        # An artifact address may name any host: the login goes to the servers of the connection only.
        if bound.login is not None and origin_of(request.url or "") in bound.origins:
            request.headers["Authorization"] = bound.login.header()
        return request


class CurrentLogin:
    """MLflow's ``RequestAuthProvider``, found by its entry point.

    MLflow checks its two methods, not its base class; inheriting would import MLflow wherever this module is imported.
    """

    def get_name(self) -> str:
        """Return the name that ``MLFLOW_TRACKING_AUTH`` selects this provider by."""
        return PROVIDER

    def get_auth(self) -> SignRequest:
        """Return the callable that signs a request; it also keeps requests from looking into ``~/.netrc``."""
        return SignRequest()


_prepare_lock = threading.Lock()
_CARRIES = "_airflow_mlops_carries_context"


def prepare_mlflow() -> None:
    """Make sure that this process's MLflow uses our provider, in its worker threads too. Cheap when done before.

    :raises MissingEngineError: MLflow does not know the provider, or is of a version whose threads cannot be reached.
    """
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking.request_auth.registry import fetch_auth

    fetch: Callable[[str], Any] = fetch_auth
    if not isinstance(fetch(PROVIDER), SignRequest):
        raise MissingEngineError(
            f"MLflow does not find the request-auth plug-in {PROVIDER!r}, so logins would not be sent. It is an entry "
            f"point of airflow-mlops: install the package (pip install airflow-mlops) rather than copying its folder."
        )
    with _prepare_lock:
        repository: Any = ArtifactRepository
        original = getattr(repository, "_create_thread_pool", None)
        if original is None:
            raise MissingEngineError(
                "This MLflow transfers artifacts in a way airflow_mlops does not know, so logins would not be sent. "
                "Install a supported version: pip install 'mlflow-skinny>=3.2,<4'."
            )
        if not getattr(original, _CARRIES, False):
            repository._create_thread_pool = _carrying_context(original)


def _carrying_context(create: Callable[[Any], ThreadPoolExecutor]) -> Callable[[Any], ThreadPoolExecutor]:
    """Wrap MLflow's maker of thread pools: context variables do not reach pool threads by themselves.

    Every artifact download runs in such a pool, and would otherwise be sent without the login.
    """

    def create_thread_pool(self: Any) -> ThreadPoolExecutor:
        pool = create(self)
        submit = pool.submit

        def submit_in_context(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            return submit(copy_context().run, fn, *args, **kwargs)

        pool.submit = submit_in_context  # type: ignore[method-assign]  # one instance, not the class
        return pool

    setattr(create_thread_pool, _CARRIES, True)
    return create_thread_pool
