"""A step's process ends when it is asked to, tidily, and when the process that started it is gone, at once."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path


class Stopped(BaseException):
    """Somebody asked this process to end. No :class:`Exception`, so that no handler takes it for the step's failure."""


def stop_on_sigterm() -> None:
    """Let SIGTERM raise :class:`Stopped` in the main thread: the MLflow run is marked and scratch files are removed."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the tidying
        raise Stopped("The step was asked to stop (SIGTERM).")

    signal.signal(signal.SIGTERM, stop)


def end_by_sigterm() -> None:
    """End this process the way SIGTERM does by default, so that its parent sees what it was."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def hold_lifeline(descriptor: int, folder: Path) -> None:
    """End this process's whole group, and remove ``folder``, once the other end of a pipe is closed.

    The starter holds that end and the kernel closes it with the starter, whatever kills it. The group is ended only if
    this process leads it: otherwise it would hold those who called us.

    :param descriptor: the reading end. Nothing is ever written to it.
    """
    os.set_inheritable(descriptor, False)

    def wait() -> None:
        try:
            while os.read(descriptor, 1):
                pass
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpgrp(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="airflow-mlops-lifeline", daemon=True).start()
