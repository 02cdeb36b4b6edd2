"""What the processes of the policy's race tests do: decide, be killed where they are told to, and take requests up."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mlops.engines import request_log
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.steps import policy
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform


@dataclass(frozen=True)
class Orders:
    """One task of the policy.

    :param folder: where its record is left, as ``WORKER.json``.
    :param deaths: how likely it is to be killed at each point.
    :param start_at: wall clock at which it begins, so that all begin together.
    """

    uri: str
    experiment: str
    folder: Path
    worker: str
    payload: dict[str, Any]
    seed: int = 0
    deaths: dict[str, float] = field(default_factory=dict)
    start_at: float = 0.0


def decide(orders: Orders) -> None:
    """Perform the step, and leave its record."""
    chance = random.Random(orders.seed)

    def pause(point: str) -> None:
        if chance.random() < orders.deaths.get(point, 0.0):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(chance.uniform(0.0, 0.3))

    request_log.pause = pause
    policy.PICTURES = "airflow_mlops.engines.no_pictures_here"
    time.sleep(max(0.0, orders.start_at - time.time()))
    record = perform(
        StepRequest(
            step="policy",
            key=f"monitor/{orders.worker}/act/-1",
            run=RunInfo(key=f"monitor/{orders.worker}", name=orders.worker, experiment=orders.experiment),
            payload=orders.payload,
        ),
        Access(server=TrackingServer(tracking_uri=orders.uri, timeout_seconds=30)),
    )
    _leave(orders.folder / f"{orders.worker}.json", record.to_xcom())


def take_up(uri: str, experiment_id: str, request: str, worker: str, folder: Path, start_at: float) -> None:
    """Take a request up as the run ``worker``, and leave who answers it."""
    with connected(TrackingServer(tracking_uri=uri, timeout_seconds=30)) as client:
        time.sleep(max(0.0, start_at - time.time()))
        _leave(folder / f"{worker}.json", {"answers": request_log.take_up(client, experiment_id, request, worker)})


def left(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what every process left, by worker."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def _leave(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)
