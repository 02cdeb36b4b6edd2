"""A process that is followed line by line and never outlives the one that started it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from airflow_mlops.engines.process_group import ProcessGroup
from airflow_mlops.steps.log_lines import MAX_LINE_BYTES, relay_print, relay_record

POLL_SECONDS = 0.2
#: How long output is read on after the process has ended, where something outside its group keeps the pipe open.
DRAIN_SECONDS = 2.0
#: How long a killed process may take to end: one that waits for a broken disk cannot be killed at all.
KILLED_SECONDS = 10.0
_CHUNK = 65_536


class Lines:
    """What arrives on a pipe, handed on line by line.

    Bytes are read and lines are made in two calls, so that a signal handler can keep the pipe from filling up while it
    waits.
    """

    def __init__(self, descriptor: int, emit: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.last = ""
        self.at_end = False
        self._emit = emit
        self._chunks: deque[bytes] = deque()
        self._rest = b""
        self._left_out = 0

    def read(self) -> bool:
        """Take what is there, up to 64 KiB, without waiting; False: nothing was there. Sets :attr:`at_end`."""
        try:
            chunk = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if chunk:
            self._chunks.append(chunk)
        else:
            self.at_end = True
        return bool(chunk)

    def emit(self, *, end: bool = False) -> None:
        """Hand on every whole line that was read; at the end also what has no line break after it."""
        while self._chunks:
            *whole, self._rest = (self._rest + self._chunks.popleft()).split(b"\n")
            for line in whole:
                self._line(line)
            if len(self._rest) > MAX_LINE_BYTES:
                # The beginning is kept, and the rest of the line is only counted: it may be a gigabyte.
                self._left_out += len(self._rest) - MAX_LINE_BYTES
                self._rest = self._rest[:MAX_LINE_BYTES]
        if end and (self._rest or self._left_out):
            self._line(self._rest)
            self._rest = b""

    def _line(self, line: bytes) -> None:
        cut = max(len(line) - MAX_LINE_BYTES, 0) + self._left_out
        self._left_out = 0
        # A progress bar writes over its own line; what it says last is what a person would see.
        text = line[:MAX_LINE_BYTES].rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", errors="replace")
        if cut:
            text = f"{text} [... {cut} bytes of this line were left out]"
        if text.strip():
            self.last = text
            self._emit(text)


class Child:
    """A Python program in a process group of its own, which takes ``--log-fd FD``.

    The group has a watcher that kills it when this process is gone, whatever the program is busy with. Call
    :meth:`close` in any case, also when :meth:`start` or :meth:`follow` was interrupted.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a signal handler may come in between
        self._thread = threading.get_ident()
        self._group: ProcessGroup | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: Lines | None = None
        self._streams: tuple[Lines, ...] = ()
        self._open: list[int] = []
        self._gone = False

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        inherited: Sequence[int] = (),
        folder: Path | None = None,
    ) -> None:
        """Start the program.

        :param inherited: further open descriptors that the program gets under their numbers.
        :param folder: a folder to remove if this process dies and cannot remove it itself.
        :raises OSError: it cannot be started.
        """
        self._group = ProcessGroup(folder)
        records, logged = self._pipe()
        self._process = subprocess.Popen(  # noqa: S603  # the interpreter that the specification names
            [*command, "--log-fd", str(logged)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            process_group=self._group.number,
            pass_fds=(logged, *inherited),
        )
        self._open = [records]
        os.close(logged)
        assert self._process.stdout is not None  # noqa: S101  # asked for above
        self._printed = Lines(self._process.stdout.fileno(), relay_print)
        self._streams = (self._printed, Lines(records, relay_record))

    @property
    def returncode(self) -> int | None:
        """The exit code, or a negative signal number; None before :meth:`close`."""
        return None if self._process is None else self._process.returncode

    @property
    def last_printed(self) -> str:
        """The last line that was printed, for a program that ended without saying why."""
        return self._printed.last if self._printed else ""

    def follow(self) -> None:
        """Hand on lines until the process has ended. What it leaves running in its group is killed."""
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                selector.register(stream.descriptor, selectors.EVENT_READ, stream)
            while not self.has_ended():
                _pump(selector, POLL_SECONDS)
            self._signal(signal.SIGKILL)
            # Something outside the group may hold the pipes open, and may write for ever.
            deadline = time.monotonic() + DRAIN_SECONDS
            while selector.get_map() and time.monotonic() < deadline:
                _pump(selector, POLL_SECONDS)
        for stream in self._streams:
            stream.emit(end=True)

    def has_ended(self) -> bool:
        """Say whether the process has ended. It is left unreaped, so that nobody else gets its number."""
        if self._gone or self._process is None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True  # this process ignores the ends of its children, or somebody else has reaped it

    def stop(self, grace_seconds: float) -> None:
        """Ask the group to end, and make it end ``grace_seconds`` later. Safe in a signal handler and to repeat."""
        try:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while not self.has_ended() and time.monotonic() < deadline:
                if threading.get_ident() == self._thread:
                    # Nobody else reads now, and a process that waits for room in the pipe cannot tidy up.
                    for stream in self._streams:
                        stream.read()
                time.sleep(0.05)
        finally:
            self._signal(signal.SIGKILL)

    def close(self, grace_seconds: float) -> None:
        """End what still runs, hand on what it said last, and give everything back. May be repeated."""
        if self._gone:
            return
        try:
            if not self.has_ended():
                self.stop(grace_seconds)
            self._signal(signal.SIGKILL)
            for stream in self._streams:
                stream.read()
                stream.emit(end=True)
        finally:
            with self._lock:
                self._gone = True
                # Whatever was interrupted above, the group goes.
                if self._group is not None:
                    self._group.close()
                while self._open:
                    os.close(self._open.pop())
                if self._process is not None:
                    self._process.kill()
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(KILLED_SECONDS)
                    if self._process.stdout is not None:
                        self._process.stdout.close()

    def _signal(self, number: int) -> None:
        with self._lock:
            if self._gone or self._group is None:
                return
            self._group.signal(number)
            if self._process is not None:
                # The program may have left the group. It is not reaped yet, so the number is still its own.
                with suppress(ProcessLookupError, PermissionError):
                    if os.getpgid(self._process.pid) != self._group.number:
                        os.kill(self._process.pid, number)

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._open += (reading, writing)
        return reading, writing


def _pump(selector: selectors.BaseSelector, seconds: float) -> None:
    """Wait for lines, at most ``seconds``, and hand them on."""
    if not selector.get_map():
        time.sleep(0.05)  # both pipes are closed while the process goes on
        return
    for key, _ in selector.select(seconds):
        stream: Lines = key.data
        stream.read()
        if stream.at_end:
            selector.unregister(stream.descriptor)
        stream.emit()
