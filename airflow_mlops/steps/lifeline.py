"""A step's process ends tidily when it is asked to. That it ends with its starter is the starter's affair."""

from __future__ import annotations

import os
import signal


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
