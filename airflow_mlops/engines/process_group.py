"""A process group that ends with whoever made it.

The leader of the group is a watcher, a process that does nothing else. It waits for the end of a pipe that this process
holds; when this process dies, be it by SIGKILL, the kernel closes the pipe and the watcher kills the whole group. No
process of the group has a part in it, so none can be too busy: a library that holds Python's global lock stops every
thread of its own process, but not the watcher. The watcher is there first and the others are born into its group, so
there is no moment in between; and as long as the watcher is not reaped, the group's number cannot be somebody else's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

#: The watcher: it waits for the end of its standard input. To remove a folder afterwards, a copy of it leaves the
#: group, while the watcher itself waits to be killed with the rest, so that the number stays theirs until then.
_WATCH = """
import os, signal, sys, time
sys.stdin.buffer.read()
group, folders = os.getpgrp(), sys.argv[1:]
try:
    if folders:
        copy = os.fork()
        if copy:
            os.waitpid(copy, 0)
        else:
            os.setpgid(0, 0)
except OSError:
    pass
os.killpg(group, signal.SIGKILL)
import shutil
for folder in folders:
    # Who is being killed may still finish the call that makes one more file.
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            break
        time.sleep(0.05)
os._exit(0)
"""
#: What is sent to the whole group, to end it tidily, must not end its watcher first.
_TIDY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ProcessGroup:
    """A new group: start processes in it with ``Popen(..., process_group=group.number)``, and close it in any case.

    :param folder: a folder to remove once the group was killed because this process is gone; :meth:`close` leaves it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # A new process inherits what is blocked, so there is no moment in which these would end the watcher.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TIDY)
        try:
            self._watcher = subprocess.Popen(  # noqa: S603  # our own few words
                [sys.executable, "-I", "-S", "-c", _WATCH, *([] if folder is None else [str(folder)])],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Only what an interpreter needs to start: neighbours can read the environment of each other.
                env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ},
                cwd="/",
                process_group=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.number = self._watcher.pid

    def signal(self, number: int) -> None:
        """Send a signal to every process of the group. Not after :meth:`close`: the number may be another's then."""
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            os.killpg(self.number, number)

    def close(self) -> None:
        """Kill whatever is left of the group, and the watcher with it. May be repeated."""
        if self._watcher.returncode is None:
            self.signal(signal.SIGKILL)
            # Closing the pipe comes second: the watcher would take it for the end of this process.
            self._watcher.communicate()
