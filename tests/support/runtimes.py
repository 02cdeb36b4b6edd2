"""Running the probe step in a runtime, beside a test that watches its processes."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mlops.engines.login import Login
from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.runtimes import Runtime, make_runtime
from airflow_mlops.steps.base import Access, RunInfo, StepRequest

ROOT = Path(__file__).parents[2]
#: A folder that makes the step ``probe`` known to every interpreter that has it on its import path.
PROBE_STEP = Path(__file__).parent / "probe_step"


def steps_python() -> str:
    """Return the interpreter without Airflow."""
    path = ROOT / ".venv-steps" / "bin" / "python"
    assert path.exists(), "The environment without Airflow is missing. Run: make steps"
    return str(path)


@dataclass
class Runs:
    """Runs of the probe step, each a task of its own, in one runtime on one MLflow server."""

    name: str
    settings: dict[str, Any]
    uri: str
    folder: Path
    login: Login | None = None
    storage: Callable[[str | None], Any] = lambda conn_id: None
    experiment: str = field(default_factory=lambda: f"runtimes-{uuid.uuid4().hex[:8]}")
    runtime: Runtime | None = None

    @property
    def access(self) -> Access:
        """How the step reaches the server."""
        return Access(server=TrackingServer(tracking_uri=self.uri), login=self.login, storage=self.storage)

    def request(self, act: str = "note", task: str = "t", **payload: Any) -> StepRequest:
        """Return the request of one task."""
        key = f"dag/{self.experiment}"
        run = RunInfo(key=key, name="probe", experiment=self.experiment)
        return StepRequest(step="probe", key=f"{key}/{task}/-1", run=run, payload={"act": act, **payload})

    def run(self, act: str = "note", task: str = "t", **payload: Any) -> Any:
        """Run the step in a runtime made for it."""
        self.runtime = make_runtime(self.name, self.settings)
        return self.runtime.run(self.request(act, task, **payload), self.access)

    @property
    def go(self) -> Path:
        """The file that a waiting step waits for."""
        return self.folder / "go"

    @property
    def waiting(self) -> dict[str, str]:
        """What makes the step write its process numbers and wait for :attr:`go`."""
        return {"act": "wait", "pids": str(self.folder / "pids.json"), "go": str(self.go)}

    def pids(self, seconds: float = 120) -> list[int]:
        """Return the process numbers of the waiting step and of its child, once they are there."""
        path = self.folder / "pids.json"
        wait_until(path.exists, "the step writes its process numbers", seconds)
        return list(json.loads(path.read_text()))

    @contextmanager
    def under_way(self, **payload: Any) -> Iterator[list[Any]]:
        """Run a waiting step in a thread; yield a list that holds its record or its error when it has ended."""
        ended: list[Any] = []

        def body() -> None:
            try:
                ended.append(self.run(**self.waiting, **payload))
            except BaseException as exc:  # noqa: BLE001  # the test looks at whatever it was
                ended.append(exc)

        thread = threading.Thread(target=body)
        thread.start()
        try:
            yield ended
        finally:
            self.go.touch()
            thread.join(120)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait until ``condition()`` holds.

    :raises AssertionError: it does not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def shown_by(pid: int) -> bytes:
    """Return what everybody on the machine may see of a process, and what its children inherit."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


def descendants(pid: int) -> set[int]:
    """Return the numbers of every process below ``pid``."""
    import psutil

    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def files_with(folder: Path, secret: bytes) -> list[Path]:
    """Return the files below ``folder`` that hold ``secret``."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file() and secret in path.read_bytes():
                found.append(path)
    return found
