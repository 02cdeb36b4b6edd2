"""Named processes that end with whoever started them, however that ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from airflow_mlops.errors import OutageError

_TAIL_LINES = 25
_LINE_CHARACTERS = 300


class Processes:
    """Processes in the care of a keeper (:mod:`airflow_mlops.cli.demo.keeper`).

    They end, with everything that they started, on :meth:`stop` and when this process ends, be it by SIGKILL.

    :param logs: folder for ``NAME.log`` of each process; it must exist.
    :param grace_seconds: how long processes have between SIGTERM and SIGKILL.
    :param pass_fds: open files that the keeper holds on to until everything has ended, such as a lock.
    """

    def __init__(self, logs: Path, *, grace_seconds: float = 5.0, pass_fds: Sequence[int] = ()) -> None:
        self.logs = logs
        self._news = threading.Condition()
        self._pids: dict[str, int] = {}
        self._ended: dict[str, str] = {}
        with self.log_file("keeper").open("wb") as log:
            self._keeper = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, str(Path(__file__).with_name("keeper.py")), str(grace_seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the owner, who then calls stop()
                pass_fds=list(pass_fds),
            )
        self._orders = cast("IO[bytes]", self._keeper.stdin)
        self._events = cast("IO[bytes]", self._keeper.stdout)
        self._listener = threading.Thread(target=self._listen, name="keeper-events", daemon=True)
        self._listener.start()

    @property
    def pids(self) -> dict[str, int]:
        """Return the number of each running process by its name."""
        with self._news:
            return dict(self._pids)

    @property
    def ended(self) -> dict[str, str]:
        """Return the processes that have ended by themselves, each with how: ``ended with exit code 1``."""
        with self._news:
            return dict(self._ended)

    def log_file(self, name: str) -> Path:
        """Return where a process writes its output and errors."""
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """Return the last lines of a process's log, ready to end an error message."""
        path = self.log_file(name)
        lines: list[str] = []
        with suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        shown = "\n".join(f"  | {line[:_LINE_CHARACTERS]}" for line in lines) or "  | (empty)"
        return f"The end of {path}:\n{shown}"

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> None:
        """Have a process started; whether it lives is seen in :attr:`pids` and :attr:`ended` a moment later.

        :raises OutageError: the keeper is gone.
        """
        order = {
            "name": name,
            "command": list(command),
            "env": dict(env),
            "folder": str(folder),
            "log": str(self.log_file(name)),
        }
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()
        except (BrokenPipeError, ValueError) as exc:
            raise OutageError(f"The process that watches over the others has ended. {self.tail('keeper')}") from exc

    def wait(self, seconds: float) -> None:
        """Return when something has started or ended, or the time is over."""
        with self._news:
            self._news.wait(timeout=seconds)

    def check(self, *, may_end: Sequence[str] = ()) -> None:
        """Raise when a process has ended by itself.

        :raises OutageError: names it, with the last lines of its log.
        """
        for name, how in self.ended.items():
            if name not in may_end:
                raise OutageError(f"{name} {how}. {self.tail(name)}")
        if self._keeper.poll() is not None:
            raise OutageError(f"The process that watches over the others has ended. {self.tail('keeper')}")

    def stop(self) -> None:
        """End everything and return when nothing is left; a second call does nothing."""
        with suppress(BrokenPipeError):
            self._orders.close()
        self._keeper.wait()  # bounded: after the grace time the keeper kills
        self._listener.join()
        self._events.close()

    def _listen(self) -> None:
        for line in self._events:
            event: dict[str, Any] = json.loads(line)
            name = event["name"]
            with self._news:
                if event["event"] == "started":
                    self._pids[name] = event["pid"]
                elif event["event"] == "ended":
                    self._pids.pop(name, None)
                    self._ended[name] = f"ended with {_exit(event['code'])}"
                else:
                    self._ended[name] = f"could not be started: {event['error']}"
                self._news.notify_all()


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
