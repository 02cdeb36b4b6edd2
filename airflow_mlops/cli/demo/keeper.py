"""Starts processes and makes sure that none of them outlives whoever asked for them.

Run as a program by :mod:`airflow_mlops.cli.demo.services`, never imported by it. It reads one JSON order a line from
its standard input and writes one JSON event a line to its standard output. The end of the input, which comes too when
the owner is killed with SIGKILL, ends everything.

Killing process groups is not enough: Airflow puts every task into a group of its own. On Linux the keeper is therefore
the subreaper of all it starts: an orphan becomes its child, so nothing escapes.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_SET_CHILD_SUBREAPER = 36
_SET_PARENT_DEATH_SIGNAL = 1
_TICK_SECONDS = 0.2
_KILL_SECONDS = 10.0


class Keeper:
    """The processes, and what became of them."""

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self.names: dict[int, str] = {}
        self.stopping = False

    def run(self) -> None:
        """Obey until the input ends, the owner dies or somebody sends SIGTERM; then end every process."""
        # Ctrl-C is the owner's to handle. A function, because SIG_IGN would be inherited by what is started.
        signal.signal(signal.SIGINT, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_to_stop)
        owner = os.getppid()
        pending = b""
        try:
            while not self.stopping and os.getppid() == owner:
                self._reap()
                readable, _, _ = select.select([0], [], [], _TICK_SECONDS)
                if readable:
                    chunk = os.read(0, 1 << 16)
                    if not chunk:
                        break
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        self._start(**json.loads(line))
        finally:
            self._end_all()

    def _ask_to_stop(self, *_: Any) -> None:
        self.stopping = True

    def _start(self, name: str, command: list[str], env: dict[str, str], folder: str, log: str) -> None:
        try:
            with Path(log).open("wb") as output:
                process = subprocess.Popen(  # noqa: S603  # the owner's own commands
                    command,
                    env=env,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # safe: the keeper has one thread
                )
        except OSError as exc:
            _tell(event="refused", name=name, error=str(exc))
            return
        self.names[process.pid] = name
        process.returncode = 0  # waited for by _reap, which also takes orphans: Popen must not wait again
        _tell(event="started", name=name, pid=process.pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.names:
                _tell(event="ended", name=self.names.pop(pid), code=os.waitstatus_to_exitcode(status))

    def _end_all(self) -> None:
        seen = _descendants()
        for pid in list(self.names):
            _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + self.grace_seconds
        while self.names and time.monotonic() < deadline:
            time.sleep(0.05)
            self._reap()
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline:
            seen = {process for process in seen | _descendants() if _alive(process)}
            if not seen:
                return
            for process in seen:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)
            self._reap()


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _alive(process: psutil.Process) -> bool:
    """Return False too for a number that another process has taken over, and for what only waits to be reaped."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _tell(**event: Any) -> None:
    # The owner may be dead; ending its processes matters more than telling it.
    with suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    """In the new process: die with the keeper, should somebody kill that."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


if __name__ == "__main__":
    _prctl(_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    Keeper(grace_seconds=float(sys.argv[1])).run()
