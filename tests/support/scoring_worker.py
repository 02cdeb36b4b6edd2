"""What the processes of the scoring fault tests do: publish, and die where they are told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops.engines import published
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.engines.tracking import TrackingServer


def dying(point: str, visit: int) -> Callable[[str], None]:
    """Return a ``pause`` that kills this process when ``point`` is reached for the ``visit``-th time."""
    seen: list[str] = []

    def pause(reached: str) -> None:
        seen.append(reached)
        if reached == point and seen.count(point) == visit:
            os.kill(os.getpid(), signal.SIGKILL)

    return pause


def score(uri: str, name: str, key: str, payload: dict[str, Any], point: str, visit: int) -> None:
    """Perform the score step as a task would."""
    from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform

    published.pause = dying(point, visit)
    run = RunInfo(key=f"dag/{name}", name=name, experiment=name)
    perform(
        StepRequest(step="score", key=key, run=run, payload=payload),
        Access(server=TrackingServer(tracking_uri=uri, timeout_seconds=30)),
    )


def publish(file: Path, root: str, uri: str, access: StorageAccess | None, key: str, point: str, visit: int) -> None:
    """Publish one file."""
    published.pause = dying(point, visit)
    published.publish(file, root, uri, access, key=key)


def publish_again_and_again(file: Path, root: str, uri: str, key: str, start_at: float, times: int) -> None:
    """Publish one file many times, beginning with everybody else."""
    time.sleep(max(0.0, start_at - time.time()))
    for _ in range(times):
        published.publish(file, root, uri, None, key=key)
