"""Standard output belongs to the result: what libraries, Airflow's logging and a team's code print goes to stderr."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_results: list[TextIO] = []


@contextmanager
def results_only() -> Iterator[None]:
    """Send every print but :func:`emit`'s to standard error inside the block."""
    _results.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results.pop()


def emit(text: str) -> None:
    """Print a result to the real standard output; a reader that has seen enough, as ``head``, ends the verb quietly."""
    out = _results[-1] if _results else sys.stdout
    try:
        print(_printable(text, out), file=out, flush=True)
    except BrokenPipeError:
        # What Python would still flush at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _printable(text: str, out: TextIO) -> str:
    """Return the text with what the terminal's encoding lacks written as an escape, such as bytes of a file's name."""
    encoding = out.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
