"""Starting and ending a server process, whole group, without leaving anything behind, even when tests are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 300,
    stop_signal: int = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` in a process group of its own, wait until ``ready()``, and end the whole group afterwards.

    :raises RuntimeError: it ended, or was not ready within ``seconds``; the message holds the end of its log.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True
        )
    # Tests are killed at times. This one waits for the end of its pipe, which the kernel closes with us.
    watch = f"read nothing; kill -9 -{process.pid}"
    guard = subprocess.Popen(["/bin/sh", "-c", watch], stdin=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                state = "not ready in time" if process.returncode is None else f"ended with {process.returncode}"
                raise RuntimeError(f"{' '.join(command[:4])}: {state}\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)
        yield process
    finally:
        end_group(process, stop_signal)
        guard.kill()
        guard.communicate()


def end_group(process: subprocess.Popen[bytes], stop_signal: int = signal.SIGTERM, seconds: float = 10) -> None:
    """Ask the process's group to end, then make it."""
    group = process.pid  # start_new_session: the group carries the leader's number, also after the leader has gone
    with suppress(ProcessLookupError):
        os.killpg(group, stop_signal)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    process.wait(seconds)
