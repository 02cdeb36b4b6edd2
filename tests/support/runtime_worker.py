"""A task's process, for tests that kill it: ``python -m tests.support.runtime_worker ORDERS.json``.

It runs a waiting probe step as a task would. SIGTERM stops the runtime from the handler and goes on, as Airflow 3 does;
SIGALRM raises, as a task's time-out does.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from tests.support.runtimes import Runs


class TaskTimeoutError(BaseException):
    """As Airflow's, which is no Exception either."""


def main(orders: Path) -> None:
    """Run the step and write how it ended to ``ended`` beside the orders."""
    given = json.loads(orders.read_text())
    runs = Runs(given["name"], given["settings"], given["uri"], orders.parent, experiment=given["experiment"])

    def stop(*_: object) -> None:
        if runs.runtime is not None:
            runs.runtime.stop()

    def time_out(*_: object) -> None:
        raise TaskTimeoutError("too long")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, time_out)
    try:
        ended = runs.run(**runs.waiting, **given.get("payload", {})).text
    except BaseException as exc:  # noqa: BLE001  # the test looks at whatever it was
        ended = f"{type(exc).__name__}: {exc}"
    (orders.parent / "ended").write_text(ended)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
