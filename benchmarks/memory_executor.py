"""An Airflow executor that runs each task in a new interpreter, as managed workers do, and writes down its memory.

Airflow runs it inside the scheduler that :mod:`benchmarks.memory` starts. A task is what Airflow starts in a container:
``python -m airflow.sdk.execution_time.execute_workload``, a supervisor that forks the task's own process, with whatever
that one starts. Twenty times a second their memory is added up as proportional set size (PSS): a page that several
processes share counts once in the sum.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor

from benchmarks.memory_page import LOG

INTERVAL_SECONDS = 0.05


class FreshInterpreterExecutor(BaseExecutor):
    """Starts a process a task, waits for it, and logs its peak."""

    is_local = True
    supports_callbacks = True

    def start(self) -> None:
        """Nothing runs yet."""
        self._tasks: dict[Any, Measured] = {}

    def _process_workloads(self, workload_list: Any) -> None:
        for workload in workload_list:
            self.queued_tasks.pop(workload.key, None) or self.queued_callbacks.pop(workload.key, None)
            self._tasks[workload.key] = Measured(workload)

    def sync(self) -> None:
        """Tell the scheduler of every process that has ended."""
        for key, task in list(self._tasks.items()):
            if (code := task.process.poll()) is not None:
                del self._tasks[key]
                task.write_down()
                (self.success if code == 0 else self.fail)(key)

    def end(self) -> None:
        """Wait for what runs."""
        for task in self._tasks.values():
            task.process.wait()
        self.sync()

    def terminate(self) -> None:
        """End what runs."""
        for task in self._tasks.values():
            task.process.terminate()


class Measured:
    """One task's processes and the most memory that they had."""

    def __init__(self, workload: Any) -> None:
        command = [sys.executable, "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
        self.process = subprocess.Popen([*command, workload.model_dump_json()], stdout=subprocess.DEVNULL)
        self.task = getattr(workload, "ti", None)
        self.together = 0
        self.largest = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            found = [memory_of(pid) for pid in tree_of(self.process.pid)]
            self.together = max(self.together, sum(pss for pss, _ in found))
            self.largest = max([self.largest, *(peak for _, peak in found)])
            time.sleep(INTERVAL_SECONDS)

    def write_down(self) -> None:
        """Add the line about this task."""
        self._thread.join()
        if self.task is None:
            return
        line = {
            "dag_id": self.task.dag_id,
            "run_id": self.task.run_id,
            "task_id": self.task.task_id,
            "together_kib": self.together,
            "largest_kib": self.largest,
        }
        with Path(os.environ[LOG]).open("a") as file:
            file.write(json.dumps(line) + "\n")


def tree_of(pid: int) -> list[int]:
    """Return a process and everything below it that is there now."""
    found, new = [], [pid]
    while new:
        one = new.pop()
        found.append(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                new += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """Return a process's proportional set size now and its largest resident set ever, in KiB; 0 where it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    return _field(rollup, "Pss:"), _field(status, "VmHWM:")


def _field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)
