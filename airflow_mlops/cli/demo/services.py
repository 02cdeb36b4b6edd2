"""A real MLflow server and a real Airflow 3 on this machine, for the demo and for end-to-end tests.

Everything lives in one home folder; nothing is taken from the ambient Airflow or MLflow settings. The processes belong
to a keeper (:mod:`airflow_mlops.cli.demo.keeper`), which ends all of them, grandchildren included, when the services
are stopped, on Ctrl-C, and when this process is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

from airflow_mlops.cli.demo import preload
from airflow_mlops.cli.demo.processes import Processes
from airflow_mlops.errors import OutageError, VerdictError

HOST = "127.0.0.1"
USER = "admin"
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_LOCK_SECONDS = 20.0
_SAY_SECONDS = 10.0


class Services:
    """MLflow and Airflow, running for as long as the ``with`` block lasts.

    :param home: folder for databases, artifacts, settings and logs; made when missing, and kept, so a later start
        finds the runs of an earlier one.
    :param dags_folder: what Airflow's DAG processor reads.
    :param mlflow_port: None takes any free port; a number takes that one, or refuses.
    :param airflow_port: the same for Airflow's pages and API.
    :param env: further environment variables for every process, such as ``AIRFLOW__CORE__PARALLELISM``; they win.
    :param preloads: the scheduler imports what the tasks need before it forks them, which makes each of them start
        seconds earlier; without, a task takes the memory and the time that it takes elsewhere.
    :param start_seconds: how long everything together may take until it is healthy.
    :param say: called with one line about each thing that happens; None says nothing.
    """

    user = USER

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        *,
        mlflow_port: int | None = None,
        airflow_port: int | None = None,
        env: Mapping[str, str] | None = None,
        preloads: bool = True,
        start_seconds: float = 240.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.home = Path(home).absolute()
        self.dags_folder = Path(dags_folder).absolute()
        self._wanted = {"mlflow": mlflow_port, "airflow": airflow_port}
        self._env = dict(env or {})
        self._preloads = preloads
        self._start_seconds = start_seconds
        self._say = say or _say_nothing
        self._ports: dict[str, int] = {}
        self._processes: Processes | None = None
        self._lock: IO[bytes] | None = None
        self._password = ""

    # What others ask -------------------------------------------------------------------------------------------------

    @property
    def mlflow_uri(self) -> str:
        """Return the tracking server's address."""
        return f"http://{HOST}:{self._port('mlflow')}"

    @property
    def airflow_url(self) -> str:
        """Return the address of Airflow's pages and API."""
        return f"http://{HOST}:{self._port('airflow')}"

    @property
    def password(self) -> str:
        """Return the generated password of :attr:`user`; it is in :attr:`password_file` only."""
        self._port("airflow")
        return self._password

    @property
    def password_file(self) -> Path:
        """Return the file, readable by its owner only, that holds user and password."""
        return self.home / "airflow" / "passwords.json"

    @property
    def pids(self) -> Mapping[str, int]:
        """Return the running processes by name: ``mlflow`` and Airflow's components."""
        return self._running.pids

    def log_file(self, name: str) -> Path:
        """Return where a process writes: ``mlflow``, ``migrate``, ``keeper`` or one of :data:`COMPONENTS`."""
        return self.home / "logs" / f"{name}.log"

    def environment(self) -> dict[str, str]:
        """Return the environment of every process: this one's, cleaned of ambient settings, and the services' own."""
        self._port("airflow")
        return {**_clean_environment(), **self._settings(), **self._env}

    # Life ------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when it is healthy.

        :raises OutageError: a port is taken, another process uses the home folder, or a service failed or stayed
            unhealthy; then everything is stopped again, and the message holds the last lines of its log.
        :raises VerdictError: the services are running already.
        """
        if self._processes is not None:
            raise VerdictError(f"The services in {self.home} are running already; stop() them first.")
        try:
            processes = self._prepare()
            begin = datetime.now(UTC)
            deadline = time.monotonic() + self._start_seconds
            env = self.environment()
            self._say(f"MLflow starts at {self.mlflow_uri}; Airflow makes its database")
            processes.start("mlflow", self._mlflow_command(), env=env, folder=self.home)
            processes.start("migrate", [sys.executable, "-m", "airflow", "db", "migrate"], env=env, folder=self.home)
            self._await("Airflow's database", self._migration_fault, deadline)
            self._say(f"Airflow starts at {self.airflow_url}")
            for name in COMPONENTS:
                processes.start(name, self._airflow_command(name), env=env, folder=self.home)
            self._await("MLflow", self._mlflow_fault, deadline)
            self._await("Airflow", lambda: self._airflow_fault(begin), deadline)
            self._say("MLflow and Airflow are healthy")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and return when none is left. Does nothing when nothing runs."""
        processes, self._processes = self._processes, None
        try:
            if processes is not None:
                processes.stop()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None
            self._ports = {}

    def check(self) -> None:
        """Raise when a service has ended by itself.

        :raises OutageError: names it, with the last lines of its log.
        """
        self._running.check(may_end=["migrate"])

    # Start -----------------------------------------------------------------------------------------------------------

    @property
    def _running(self) -> Processes:
        if self._processes is None:
            raise VerdictError(f"The services in {self.home} are not running; start() them first.")
        return self._processes

    def _port(self, name: str) -> int:
        if name not in self._ports:
            raise VerdictError(f"The services in {self.home} are not running; start() them first.")
        return self._ports[name]

    def _prepare(self) -> Processes:
        """Take the folder and the ports, and return the keeper of the processes to come."""
        for folder in ("airflow", "mlflow", "logs"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.home / ".lock")
        preload.write_settings(self.home / "airflow", on=self._preloads)
        self._ports = {}
        for name, wanted in self._wanted.items():
            if wanted is not None and not port_is_free(wanted):
                raise OutageError(
                    f"Port {wanted} on {HOST}, wanted for {name}, is taken by another program. Stop that program, or "
                    f"choose another port ({name}_port; None takes any free one)."
                )
            self._ports[name] = wanted if wanted is not None else free_port(besides=tuple(self._ports.values()))
        self._password = self._make_password()
        # The folder stays locked until the keeper has ended everything, even when we are killed.
        self._processes = Processes(self.home / "logs", pass_fds=[self._lock.fileno()])
        return self._processes

    def _make_password(self) -> str:
        """Keep the password of an earlier start, so that an open page stays logged in."""
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads(self.password_file.read_text())[USER])
        password = secrets.token_urlsafe(12)
        descriptor = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({USER: password}, file)
        return password

    def _settings(self) -> dict[str, str]:
        airflow = self.home / "airflow"
        return {
            "AIRFLOW_HOME": str(airflow),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            # The default forks 32 workers.
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.password_file),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.airflow_url}/execution/",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow / 'airflow.db'}",
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            # New files are looked for every 300 seconds by default. Each look also takes the errors of model files off
            # the page, and the next parse brings them back.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow_uri}),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "GX_ANALYTICS_ENABLED": "False",
            "DO_NOT_TRACK": "1",
            # Threads make gradient boosting many times slower where cores are few and shared.
            "OMP_NUM_THREADS": "1",
            # Pictures are drawn without a screen, and without what a notebook has set.
            "MPLBACKEND": "Agg",
        }

    def _mlflow_command(self) -> list[str]:
        folder = self.home / "mlflow"
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
            *("--host", HOST, "--port", str(self._port("mlflow")), "--workers", "1"),
        ]

    def _airflow_command(self, name: str) -> list[str]:
        options = {
            "api-server": ["--host", HOST, "--port", str(self._port("airflow"))],
            # Their log servers listen on fixed ports; the pages read the log files themselves.
            "scheduler": ["--skip-serve-logs"],
            "triggerer": ["--skip-serve-logs"],
        }
        return [sys.executable, "-m", "airflow", name, *options.get(name, [])]

    # Health ----------------------------------------------------------------------------------------------------------

    def _await(self, what: str, fault: Callable[[], tuple[str, str] | None], deadline: float) -> None:
        """Wait until ``fault`` returns None; it returns the process to blame and what is the matter."""
        said = time.monotonic()
        while (found := fault()) is not None:
            self.check()
            name, matter = found
            now = time.monotonic()
            if now > deadline:
                raise OutageError(
                    f"{what} was not ready {self._start_seconds:.0f} s after the start: {matter}. "
                    f"{self._running.tail(name)}"
                )
            if now - said > _SAY_SECONDS:
                said = now
                self._say(f"waiting for {what}: {matter}")
            self._running.wait(0.5)

    def _migration_fault(self) -> tuple[str, str] | None:
        how = self._running.ended.get("migrate")
        if how is None:
            return "migrate", "the database is being made"
        if how != "ended with exit code 0":
            raise OutageError(f"airflow db migrate {how}. {self._running.tail('migrate')}")
        return None

    def _mlflow_fault(self) -> tuple[str, str] | None:
        answer = _get(f"{self.mlflow_uri}/health")
        return None if answer is not None and answer.text.strip() == "OK" else ("mlflow", "it does not answer yet")

    def _airflow_fault(self, begin: datetime) -> tuple[str, str] | None:
        answer = _get(f"{self.airflow_url}/api/v2/monitor/health")
        if answer is None:
            return "api-server", "the API server does not answer yet"
        health = answer.json()
        for part, name in (("scheduler", "scheduler"), ("dag_processor", "dag-processor"), ("triggerer", "triggerer")):
            state = health.get(part) or {}
            beat = state.get(f"latest_{part}_heartbeat")
            # A heartbeat of an earlier start, in the same database, can still count as healthy: it must be a new one.
            if state.get("status") != "healthy" or beat is None or datetime.fromisoformat(beat) < begin:
                return name, f"the {name} has sent no heartbeat yet"
        return None


def port_is_free(port: int) -> bool:
    """Tell whether nobody listens on the port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports of closed connections are free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None, *, besides: Collection[int] = ()) -> int:
    """Return ``preferred`` if it is free, else any free port that is not among ``besides``."""
    if preferred is not None and preferred not in besides and port_is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in besides:
            return port


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without ambient Airflow and MLflow settings.

    Somebody's own tracking server or database must not receive the demo's runs.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW_", "MLFLOW_", "_MLFLOW_"))
    }
    # Without compiled bytecode every process imports three times slower.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # A program started through its folder's path, not an activated environment, still finds its own tools.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    for name in ("no_proxy", "NO_PROXY"):
        env[name] = ",".join(filter(None, [env.get(name), HOST, "localhost"]))
    return env


def _lock(path: Path) -> IO[bytes]:
    """Lock the home folder, waiting a little for a killed owner's keeper to finish."""
    file = path.open("ab")  # held as long as the services run
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise OutageError(
                    f"Another process runs its services in {path.parent}. Stop it first, or use another folder."
                ) from None
            time.sleep(0.2)


def _get(url: str) -> httpx.Response | None:
    try:
        answer = httpx.get(url, timeout=5.0, trust_env=False)
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 200 else None


def _say_nothing(_line: str) -> None:
    return None


def remove_home(home: Path) -> None:
    """Delete what services have left in a folder, for a demo that starts afresh.

    :raises OutageError: services still run there.
    """
    if not home.exists():
        return
    with _lock(home / ".lock"):
        for name in ("airflow", "mlflow", "logs"):
            shutil.rmtree(home / name, ignore_errors=True)
