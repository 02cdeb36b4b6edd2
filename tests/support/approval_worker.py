"""What the processes of the approval tests do: decide at the same moment, or die between decision and promotion."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from airflow_mlops.engines import approvals, promotions
from airflow_mlops.engines.alias_moves import Wish
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import LedgerError


def decide(uri: str, name: str, said: str, author: str, folder: Path) -> None:
    """Say it once both processes have seen that nobody decided yet; write down what held."""

    def meet(point: str) -> None:
        (folder / f"{author}.ready").touch()
        deadline = time.monotonic() + 60
        while point == "before-decision" and len(list(folder.glob("*.ready"))) < 2:
            assert time.monotonic() < deadline, "the other process did not come"
            time.sleep(0.02)

    approvals.pause = meet
    with connected(TrackingServer(tracking_uri=uri, timeout_seconds=30)) as client:
        wish = Wish(name, "champion", author, f"{author} says so", key=author)
        try:
            if said == "approve":
                outcome = approvals.approve(client, wish, 1)[1].outcome
            else:
                outcome = approvals.reject(client, wish, 1).outcome
        except LedgerError as exc:
            outcome = f"refused: {exc}"
    (folder / f"{author}.outcome").write_text(outcome)


def approve_and_die(uri: str, name: str, author: str) -> None:
    """Be killed right after the decision was written, before the promotion."""

    def die(point: str) -> None:
        if point == "after-entry":
            os.kill(os.getpid(), signal.SIGKILL)

    promotions.pause = die
    with connected(TrackingServer(tracking_uri=uri, timeout_seconds=30)) as client:
        approvals.approve(client, Wish(name, "champion", author, "it is good", key=author), 1)
