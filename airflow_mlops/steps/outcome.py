"""How an error gets from a step in a process of its own back to the task: its kind and its words, as JSON.

Written by ``python -m airflow_mlops.steps --outcome`` and read by the runtime that started it, which raises an error of
the same kind: a verdict must not be retried, an outage must.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow_mlops import errors
from airflow_mlops.engines.outages import looks_like_outage
from airflow_mlops.errors import MissingEngineError, MLOpsError, OutageError, VerdictError

#: Longer messages are cut: they end up in a log line and in a tag.
MAX_MESSAGE = 20_000


def write_outcome(path: Path, error: BaseException) -> None:
    """Write what went wrong to ``path``, all of it or nothing."""
    missing = _missing_module(error)
    text = json.dumps(
        {
            "type": type(error).__name__,
            "message": str(error)[:MAX_MESSAGE],
            "verdict": isinstance(error, VerdictError),
            "outage": isinstance(error, OutageError) or looks_like_outage(error),
            "ours": isinstance(error, MLOpsError),
            "missing_module": missing,
        }
    )
    write_whole(path, text)


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that a reader finds all of it or no file, even when this process is killed meanwhile."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)  # noqa: PTH105  # the rename is the point


def read_outcome(path: Path, *, step: str, python: str, mend: str) -> Exception | None:
    """Return the error that :func:`write_outcome` wrote, to be raised; None where there is none.

    :param python: the interpreter that the step ran in.
    :param mend: the command that installs what a step needs there.
    """
    try:
        outcome = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    kind, message, missing = outcome["type"], outcome["message"], outcome["missing_module"]
    where = f"The step ran in {python}."
    if missing and not outcome["ours"]:
        return MissingEngineError(
            f"The step {step!r} needs the module {missing!r}, and {python} does not have it ({message}). Run: {mend}; "
            f"what only your own code imports is installed there too: {python} -m pip install NAME"
        )
    if missing:
        message = f"{message} {where} Install what provides {missing!r} there: {python} -m pip install NAME"
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, MLOpsError):
        if issubclass(known, MissingEngineError) and not missing:
            message = f"{message} {where} Everything at once: {mend}"
        return known(message)
    said = f"{kind}: {message}"
    if outcome["verdict"]:
        return VerdictError(said)
    if outcome["outage"]:
        return OutageError(said)
    return RuntimeError(f"The step {step!r} failed in {python} with {said}. The traceback is in the log above.")


def _missing_module(error: BaseException) -> str | None:
    """Return the module whose absence is at the root of ``error``, where its own words or its causes name one."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        if isinstance(current, ModuleNotFoundError) and current.name:
            return current.name
        seen.add(id(current))
        current = current.__cause__
    return None
