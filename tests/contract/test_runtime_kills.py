"""Real processes that are killed: the task's, the step's, and what the step started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.errors import OutageError
from tests.support.runtimes import ROOT, Runs, is_alive, wait_until


@contextmanager
def task(apart: Runs, **payload: Any) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a waiting step in a task's process of its own; yield the process and its folder for scratch files."""
    scratch = apart.folder / "scratch"
    scratch.mkdir()
    orders = apart.folder / "orders.json"
    given = {"name": apart.name, "settings": apart.settings, "uri": apart.uri, "experiment": apart.experiment}
    given["payload"] = payload
    orders.write_text(json.dumps(given))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.runtime_worker", str(orders)],
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": path},
    )
    try:
        yield process, scratch
    finally:
        process.kill()
        process.wait()


def busy_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    import psutil

    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def test_a_killed_task_leaves_no_process_and_no_file(apart: Runs) -> None:
    with task(apart) as (process, scratch):
        pids = apart.pids()
        assert all(map(is_alive, pids))
        assert any(scratch.iterdir())
        process.send_signal(signal.SIGKILL)
        process.wait()

        wait_until(lambda: not any(map(is_alive, pids)), "the step and its child are gone")
        wait_until(lambda: not any(path.is_file() for path in scratch.rglob("*")), "no file is left")
        if apart.name == "external_python":
            wait_until(lambda: not any(scratch.iterdir()), "no folder is left")


def test_a_killed_task_leaves_no_step_that_holds_the_global_lock(make_runs: Any) -> None:
    apart = make_runs("external_python")
    with task(apart, hold=True) as (process, scratch):
        pids = apart.pids()
        before = busy_seconds(pids[0])
        try:
            # No thread of the step runs any more once it is in there; a second of processor time is far inside.
            wait_until(lambda: busy_seconds(pids[0]) > before + 1, "the step holds the lock")
            process.send_signal(signal.SIGKILL)
            process.wait()

            wait_until(lambda: not any(map(is_alive, pids)), "the step and its child are gone")
            wait_until(lambda: not any(scratch.iterdir()), "no folder is left")
        finally:
            for pid in filter(is_alive, pids):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        pytest.param(signal.SIGTERM, "was stopped", id="stopped from a signal handler"),
        pytest.param(signal.SIGALRM, "TaskTimeoutError", id="a task's time-out"),
    ],
)
def test_an_interrupted_task_ends_the_step(apart: Runs, number: signal.Signals, said: str) -> None:
    with task(apart) as (process, scratch):
        pids = apart.pids()
        process.send_signal(number)

        assert process.wait(120) == 0
        assert said in (apart.folder / "ended").read_text()
        assert not any(map(is_alive, pids))
        assert list(scratch.iterdir()) == []


def test_a_killed_step_is_told_and_the_retry_continues_its_run(apart: Runs) -> None:
    from mlflow import MlflowClient

    with apart.under_way(text="it was hard work") as ended:
        step, child = apart.pids()
        os.kill(step, signal.SIGKILL)
        wait_until(lambda: ended, "run() comes back")
        assert not apart.go.exists()
    wait_until(lambda: not is_alive(child), "the step's child is gone")
    assert isinstance(ended[0], OutageError)
    if apart.name == "external_python":
        assert "signal 9 (SIGKILL)" in str(ended[0])
        assert "out of memory" in str(ended[0])

    record = apart.run(**apart.waiting, text="it was hard work")

    assert record.text == "it was hard work"
    client = MlflowClient(apart.uri)
    experiment = client.get_experiment_by_name(apart.experiment)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`airflow_mlops.step` = 'probe'")
    assert [(run.info.run_id, run.info.status) for run in found] == [(record.run_id, "FINISHED")]
