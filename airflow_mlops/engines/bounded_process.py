"""A command within limits of time and memory, in a process group of its own that ends with whoever started it.

So nothing is left of a killed task: not the command, nor what the command started. What leaves the group on purpose
(``setsid``) is not found; the command itself is, as long as this process lives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from airflow_mlops.engines.process_group import ProcessGroup

#: How long a killed command may take to end: one that waits for a broken disk cannot be killed at all.
KILLED_SECONDS = 10.0
POLL_SECONDS = 0.05
#: Characters of output that are kept: the last ones.
TAIL_CHARACTERS = 16_000


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    :param reason: ``ended`` by itself, or killed because it ``timed_out`` or was ``over_memory``.
    :param code: exit code; negative: the signal that ended it.
    :param peak_bytes: the largest resident memory of the command and what it started, together, that was seen; 0 where
        the system has no ``/proc``, and then nothing is killed for it.
    :param output: the end of what it wrote to standard output and error.
    """

    reason: Literal["ended", "timed_out", "over_memory"]
    code: int
    seconds: float
    peak_bytes: int
    output: str


def run_bounded(
    command: Sequence[str | Path],
    *,
    folder: Path,
    env: Mapping[str, str],
    timeout_seconds: float,
    memory_bytes: int | None = None,
) -> Ended:
    """Run ``command`` in ``folder`` with exactly ``env``; kill it, with all it started, when a limit is passed.

    :param memory_bytes: limit of the resident memory of the command and what it started, together; it is looked at 20
        times a second, on Linux.
    """
    began = time.monotonic()
    with closing(ProcessGroup()) as group:
        process = subprocess.Popen(  # noqa: S603  # the caller's own command
            [str(word) for word in command],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=group.number,
        )
        tail = _Tail(process.stdout)
        reason: Literal["ended", "timed_out", "over_memory"] = "ended"
        peak = 0
        try:
            pause = POLL_SECONDS
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(pause)
                    break
                if time.monotonic() - began > timeout_seconds:
                    reason = "timed_out"
                    break
                if memory_bytes is not None:
                    looked = time.monotonic()
                    peak = max(peak, resident_bytes(group.number))
                    # Where thousands of processes run, looking takes long: spend a tenth of the time on it at most.
                    pause = max(POLL_SECONDS, 9 * (time.monotonic() - looked))
                    if peak > memory_bytes:
                        reason = "over_memory"
                        break
        finally:
            group.signal(signal.SIGKILL)
            process.kill()  # it may have left the group
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILLED_SECONDS)
        output = tail.read()
    code = -signal.SIGKILL if process.returncode is None else process.returncode
    return Ended(reason, code, time.monotonic() - began, peak, output)


def resident_bytes(group: int) -> int:
    """Return the resident memory of all processes of a group but its leader, summed; 0 without ``/proc``."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    with suppress(OSError):
        for name in os.listdir("/proc"):  # noqa: PTH208  # twenty times a second
            if not name.isdigit() or int(name) == group:
                continue
            # A process may end between the two looks.
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # The name of the program, in brackets, may hold anything: count behind it. man 5 proc: 5 and 24.
                fields = file.read().rpartition(b")")[2].split()
                if int(fields[2]) == group:
                    total += int(fields[21]) * page
    return total


class _Tail:
    """The end of what a command writes, read as it comes so that it never waits and never fills a disk."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream = stream
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._thread = threading.Thread(target=self._follow, name="bounded-output", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while self._stream is not None and (chunk := os.read(self._stream.fileno(), 65_536)):
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._chunks[0]) >= TAIL_CHARACTERS:
                self._size -= len(self._chunks.popleft())

    def read(self) -> str:
        """Return the tail, once the command has ended."""
        # What left the group may keep the pipe open for ever: it is not waited for.
        self._thread.join(timeout=2)
        if not self._thread.is_alive() and self._stream is not None:
            self._stream.close()
        return b"".join(list(self._chunks)).decode("utf-8", errors="replace")[-TAIL_CHARACTERS:]
