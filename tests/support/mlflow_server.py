"""A real ``mlflow server`` for tests, and two that fail in the ways networks do: stalled and dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.support.processes import free_port, running

#: The interpreter that runs the server. It does not start beside SQLAlchemy 1.4, which Airflow 2.11 and 3.0 need: there
#: it is the one of `make venv`, a server that runs elsewhere, as in production.
PYTHON = sys.executable
if int(version("sqlalchemy").partition(".")[0]) < 2:
    PYTHON = str(Path(__file__).parents[2] / ".venv" / "bin" / "python")

ADMIN = ("admin", "admin-password-of-the-tests")


@dataclass(frozen=True)
class MLflowServer:
    """A running server: its address, its artifact folder, its log, and its process (leader of its own group)."""

    uri: str
    artifacts: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    backend_uri: str | None = None,
    workers: int = 1,
    basic_auth: bool = False,
    port: int | None = None,
) -> Iterator[MLflowServer]:
    """Run a server on a free port of 127.0.0.1 whose store and artifacts live in ``folder``.

    :param backend_uri: a Postgres URI; None: an SQLite file in ``folder``, kept there for a server started later.
    :param basic_auth: ask for a login; :data:`ADMIN` is the first user, and new users may read only (the default
        permission is READ).
    :param port: a port to take, for a server that comes back at its old address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    uri, artifacts, log = f"http://127.0.0.1:{port}", folder / "artifacts", folder / "mlflow.log"
    command = [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", backend_uri or f"sqlite:///{folder / 'mlflow.db'}", "--workers", str(workers)]
    command += ["--serve-artifacts", "--artifacts-destination", str(artifacts)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AIRFLOW_"))}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
    if basic_auth:
        settings = folder / "basic_auth.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder / 'users.db'}\n"
            f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
            f"authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            f"auth_cache_ttl_seconds = 300\n"  # otherwise every request hashes the password for half a second
        )
        command += ["--app-name", "basic-auth"]
        env |= {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests"}
    with running(command, log=log, ready=lambda: _answers(f"{uri}/health"), env=env, cwd=folder) as process:
        yield MLflowServer(uri, artifacts, log, process)


@contextmanager
def stalled_server() -> Iterator[str]:
    """Yield the address of a server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:

        def accept() -> None:
            with suppress(OSError):  # the listener was closed: the end
                while True:
                    stack.enter_context(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@contextmanager
def dead_server() -> Iterator[str]:
    """Yield an address whose connections are never established: packets get lost, as with a host that is down.

    The queue of a listener that nobody serves is filled; the kernel then drops what arrives.
    """
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refusing_server() -> Iterator[str]:
    """Yield an address that nobody listens on: bound, so nobody else takes it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # an http address made above
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
