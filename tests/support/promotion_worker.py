"""What the processes of the race tests do: promote and roll back with delays, and die where they are told to."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mlops.core.records import ModelVersionRef, Promotion
from airflow_mlops.engines import promotions, versions
from airflow_mlops.engines.alias_moves import Wish, promote, rollback
from airflow_mlops.engines.registry import current_champion
from airflow_mlops.engines.tracking import TrackingServer, connected

ALIAS = "champion"


@dataclass(frozen=True)
class Orders:
    """What one process is to do.

    :param folder: where it keeps what survives it: the champion each task was judged against, and each outcome.
    :param acts: one per task: the version to promote, or None to roll back.
    :param deaths: how likely it is to be killed at each point.
    :param stalls: how likely it is to stand still for a second or two at a point, so that others overtake it.
    :param start_at: wall clock at which the first act begins, so that all begin together.
    """

    uri: str
    name: str
    folder: Path
    worker: str
    seed: int
    acts: tuple[ModelVersionRef | None, ...]
    deaths: dict[str, float] = field(default_factory=dict)
    stalls: float = 0.25
    start_at: float = 0.0


def work(orders: Orders) -> None:
    """Do every act in turn; one that was done in an earlier life is adopted by its key."""
    chance = random.Random(orders.seed)

    def pause(point: str) -> None:
        if chance.random() < orders.deaths.get(point, 0.0):
            os.kill(os.getpid(), signal.SIGKILL)
        stalled = chance.random() < orders.stalls
        time.sleep(chance.uniform(1.0, 2.5) if stalled else chance.uniform(0.0, 0.05))

    promotions.pause = pause
    with connected(TrackingServer(tracking_uri=orders.uri, timeout_seconds=30)) as client:
        time.sleep(max(0.0, orders.start_at - time.time()))
        for number, version in enumerate(orders.acts):
            key = f"{orders.worker}-{number}"
            wish = Wish(orders.name, ALIAS, f"airflow:dag/{orders.worker}/{number}", "a race", key)
            judged = _remember(orders.folder / f"{key}.judged", lambda: _champion_entry(client, orders.name))
            if version is None:
                record = rollback(client, wish)
            else:
                record = promote(client, wish, version.model_copy(update={"ledger_entry": judged}))
            _write(orders.folder / f"{key}.outcome", record.to_xcom())


def register(uri: str, name: str, payload: dict[str, Any], key: str, die: bool, start_at: float) -> None:
    """Register as a task would, and be killed right after the create call."""
    from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform

    def pause(point: str) -> None:
        if die and point == "after-registration":
            os.kill(os.getpid(), signal.SIGKILL)

    versions.pause = pause
    time.sleep(max(0.0, start_at - time.time()))
    run = RunInfo(key="dag/run", name="run", experiment=f"exp-{name}")
    perform(
        StepRequest(step="register", key=key, run=run, payload=payload),
        Access(server=TrackingServer(tracking_uri=uri, timeout_seconds=30)),
    )


def outcomes(folder: Path) -> dict[str, Promotion]:
    """Return what every finished act reported, by key."""
    return {path.stem: Promotion.from_xcom(json.loads(path.read_text())) for path in folder.glob("*.outcome")}


def _champion_entry(client: Any, name: str) -> int:
    champion = current_champion(client, name, ALIAS)
    return 0 if champion is None else champion.entry


def _remember(path: Path, find: Any) -> Any:
    if not path.exists():
        _write(path, find())
    return json.loads(path.read_text())


def _write(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)
