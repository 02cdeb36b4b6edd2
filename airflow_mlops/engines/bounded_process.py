"""A command within limits of time and memory, in a process group of its own that ends with whoever started it.

Beside the command runs a watcher, the leader of the group. It waits for the end of a pipe that this process holds; when
this process dies, be it by SIGKILL, the kernel closes the pipe and the watcher kills the whole group, itself included.
So nothing is left of a killed task: not the command, nor what the command started. The watcher is there first and the
command is born into its group, so there is no moment in between; and as long as the watcher is not reaped, the group's
number cannot be somebody else's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

#: The watcher: it waits for the end of its standard input.
_WATCH = "import os, signal, sys; sys.stdin.buffer.read(); os.killpg(0, signal.SIGKILL)"
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
    with _group() as group:
        process = subprocess.Popen(  # noqa: S603  # the caller's own command
            [str(word) for word in command],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=group,
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
                    peak = max(peak, resident_bytes(group))
                    # Where thousands of processes run, looking takes long: spend a tenth of the time on it at most.
                    pause = max(POLL_SECONDS, 9 * (time.monotonic() - looked))
                    if peak > memory_bytes:
                        reason = "over_memory"
                        break
        finally:
            _kill(group)
            process.wait()
        output = tail.read()
    return Ended(reason, process.returncode, time.monotonic() - began, peak, output)


@contextmanager
def _group() -> Iterator[int]:
    """Start the watcher; yield the number of its group. Afterwards nothing of the group is left."""
    watcher = subprocess.Popen(  # noqa: S603  # our own few words
        [sys.executable, "-I", "-S", "-c", _WATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Only what an interpreter needs to start: the model's code can read the environment of its neighbours.
        env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ},
        cwd="/",
        process_group=0,
    )
    try:
        yield watcher.pid
    finally:
        _kill(watcher.pid)
        watcher.communicate()


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(group, signal.SIGKILL)


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
