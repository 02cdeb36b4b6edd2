"""Standard output belongs to the result: what libraries, Airflow's logging and a team's code print goes to stderr."""

from __future__ import annotations

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
    """Print a result to the real standard output."""
    print(text, file=_results[-1] if _results else sys.stdout, flush=True)
