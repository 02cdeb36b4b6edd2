"""The serving check: a fresh interpreter loads the model and scores its input example, within limits.

The interpreter has the libraries of this one, or those of an environment built from the model's own requirements. It
does not have the team's code path, this process's variables that could be a login, or ``PYTHONPATH``: what serves the
model later has none of them either.
"""

from __future__ import annotations

import json
import signal
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.core.records import VersionDifference, finite
from airflow_mlops.engines.bounded_process import Ended, run_bounded
from airflow_mlops.engines.model_environments import (
    build_environment,
    differences,
    hide_logins,
    last_lines,
    plain_environment,
    said,
)
from airflow_mlops.spec.model import ServingSpec

PROBE = Path(__file__).with_name("serving_probe.py")
MIB = 1024 * 1024
#: Differences that a sentence names; the record and the page have more.
NAMED = 5
#: The share of the time limit after which no further call is timed.
_BUDGET_SHARE = 0.5

_WHILE = {
    "import": "while it started",
    "load": "while it loaded the model",
    "example": "while it read the input example",
    "predict": "in its first call",
    "repeat": "in a later call",
    "done": "after its last call",
}


@dataclass(frozen=True)
class Served:
    """What the check found. A number is None, and a count 0, where it did not get that far.

    :param what: why the model cannot be served, in one sentence; empty where it can.
    :param why: the likely cause and the mend; empty where it can be served.
    :param output: the last lines of what the interpreter, or the installer, wrote.
    :param traceback: of the error that the model raised, for the page.
    """

    differences: tuple[VersionDifference, ...]
    python_version: str = ""
    rows: int = 0
    repeats: int = 0
    load_seconds: float | None = None
    first_call_seconds: float | None = None
    call_seconds: float | None = None
    peak_memory_bytes: int | None = None
    what: str = ""
    why: str = ""
    output: str = ""
    traceback: str = ""

    @property
    def ok(self) -> bool:
        """Say whether the model can be served."""
        return not self.what

    @property
    def call_milliseconds(self) -> float | None:
        """Return the median time of one call."""
        return None if self.call_seconds is None else self.call_seconds * 1000

    @property
    def row_milliseconds(self) -> float | None:
        """Return the median time of one call, divided by its rows."""
        return None if self.call_milliseconds is None or not self.rows else self.call_milliseconds / self.rows


def check_serving(model: Path, scratch: Path, spec: ServingSpec) -> Served:
    """Try the model in ``model``, whose digest was checked before, in a fresh interpreter.

    :param scratch: an existing folder; a built environment and temporary files go into it.
    :raises OutageError: the environment cannot be built because the package index is away.
    """
    installed = spec.env == "installed"
    differing = tuple(differences(model, libraries=installed))
    if installed:
        python: Path = Path(sys.executable)
    else:
        built = build_environment(model, scratch / "build", timeout_seconds=spec.build_timeout_seconds)
        if built.python is None:
            return Served(differing, what=built.what, why=built.why, output=built.output)
        python = built.python
    # The current folder is on nobody's import path, but a library may look there for its settings.
    empty = scratch / "empty"
    temporary = scratch / "tmp"
    empty.mkdir()
    temporary.mkdir()
    answer, request = scratch / "answer.json", scratch / "request.json"
    request.write_text(
        json.dumps(
            {
                "model": str(model),
                "answer": str(answer),
                "repeats": spec.repeats,
                "budget_seconds": spec.timeout_seconds * _BUDGET_SHARE,
            }
        ),
        encoding="utf-8",
    )
    ended = run_bounded(
        [python, *isolation(installed), PROBE, request],
        folder=empty,
        env=plain_environment(temporary),
        timeout_seconds=spec.timeout_seconds,
        memory_bytes=spec.memory_mb * MIB,
    )
    return _judged(ended, read_answer(answer), spec, differing)


def isolation(installed: bool) -> list[str]:
    """Return the interpreter's options that keep this process's import path out.

    A service such as Amazon MWAA installs libraries into the user's own site folder; where this interpreter uses it,
    the fresh one must, too. Everywhere else ``-I`` shuts it out.
    """
    return ["-E", "-P"] if installed and site.ENABLE_USER_SITE else ["-I"]


def read_answer(file: Path) -> dict[str, Any]:
    """Return what the probe wrote; an empty object where there is nothing that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _judged(
    ended: Ended, answer: Mapping[str, Any], spec: ServingSpec, differing: Sequence[VersionDifference]
) -> Served:
    peak = max(ended.peak_bytes, int(_number(answer, "peak_memory_bytes") or 0)) or None
    rows = int(_number(answer, "rows") or 0)
    what, why = _wrong(ended, answer, spec, peak, rows, differing)
    problem = answer.get("problem") or {}
    return Served(
        differences=tuple(differing),
        python_version=str(answer.get("python_version", "")),
        rows=rows,
        repeats=int(_number(answer, "repeats") or 0),
        load_seconds=_number(answer, "load_seconds"),
        first_call_seconds=_number(answer, "first_call_seconds"),
        call_seconds=_number(answer, "call_seconds"),
        peak_memory_bytes=peak,
        what=what,
        why=why,
        output=hide_logins(ended.output, {}) if what else "",
        traceback=hide_logins(str(problem.get("traceback", "")), {}),
    )


def _number(answer: Mapping[str, Any], name: str) -> float | None:
    value = answer.get(name)
    return finite(value) if isinstance(value, int | float) else None


def _wrong(
    ended: Ended,
    answer: Mapping[str, Any],
    spec: ServingSpec,
    peak: int | None,
    rows: int,
    differing: Sequence[VersionDifference],
) -> tuple[str, str]:
    """Return what is wrong and why, or two empty texts."""
    when = _WHILE.get(str(answer.get("stage")), _WHILE["import"])
    memory = (
        f"Make the model smaller, have it predict in smaller parts, or raise serving.memory_mb ({spec.memory_mb}) if "
        f"what serves it has the memory."
    )
    if ended.reason == "timed_out":
        return (
            f"it was stopped {when}, after the {spec.timeout_seconds:g} s that serving.timeout_seconds allows.",
            "Make the model load or predict faster, or raise the limit if what serves it may be as slow.",
        )
    if ended.reason == "over_memory":
        return (
            f"it was stopped {when}, at {_mib(peak)} MiB of memory; serving.memory_mb allows {spec.memory_mb}.",
            memory,
        )
    problem = answer.get("problem")
    if isinstance(problem, Mapping):
        return _found(problem, str(answer.get("stage")), rows, spec, differing)
    if answer.get("stage") == "done" and ended.code == 0:
        if peak is not None and peak > spec.memory_mb * MIB:
            return f"it took {_mib(peak)} MiB of memory; serving.memory_mb allows {spec.memory_mb}.", memory
        return "", ""
    if ended.code == -signal.SIGKILL:
        return (
            f"the system killed its interpreter {when} (SIGKILL).",
            "Most likely the machine, or the container, had no memory left: give it more, or make the model smaller.",
        )
    if ended.code < 0:
        return (
            f"its interpreter crashed {when} ({_signal(-ended.code)}).",
            f"A library with compiled code failed. {_cause(differing)}Train the model again with the libraries that "
            f"serve it.",
        )
    return (
        f"its interpreter ended {when}, with code {ended.code} and without an answer.",
        "The model, or a library it uses, ends the process it runs in; a model that is served must not.",
    )


def _found(
    problem: Mapping[str, Any], stage: str, rows: int, spec: ServingSpec, differing: Sequence[VersionDifference]
) -> tuple[str, str]:
    kind = problem.get("kind")
    if kind == "no_example":
        return (
            "it has no input example, so there is nothing to score.",
            "TrainModelOperator adds one; a model that is logged by hand needs the argument input_example.",
        )
    if kind == "empty_example":
        return "its input example has no rows.", "Log it with an input_example of at least one row."
    if kind == "count":
        return (
            f"it gives {problem.get('predictions')} predictions for the {rows} rows of its input example.",
            "A model must give one prediction per row, in the order of the rows.",
        )
    if kind == "not_finite":
        return (
            f"{problem.get('bad')} of its {rows} predictions for its input example are NaN, infinite or missing.",
            "Find out which value the model cannot digest, and let it impute or refuse that value.",
        )
    error = " ".join(hide_logins(f"{problem.get('type')}: {problem.get('message')}", {}).split()).rstrip(".")
    module = problem.get("missing_module")
    if stage == "import":
        where = (
            "Install mlflow, not only mlflow-skinny, where this task runs; a fresh interpreter ignores PYTHONPATH."
            if spec.env == "installed"
            else "Name mlflow, or mlflow-skinny with numpy and pandas, in train.requirements."
        )
        return f"MLflow cannot be imported in the fresh interpreter: {error}.", where
    if module:
        failed = "does not load" if stage == "load" else "loads, but does not predict"
        return f"it {failed}: the fresh interpreter has no module {module!r}.", _module_mend(spec, differing)
    if stage == "load":
        return (
            f"it does not load in a fresh interpreter: {error}.",
            f"{_cause(differing)}Train it with the libraries that serve it, or choose another train.serialization.",
        )
    if stage == "example":
        return f"its input example cannot be read: {error}.", "Log the model again with an input_example."
    return (
        f"it loads, but does not predict for its own input example: {error}.",
        f"{_cause(differing)}The example is rows like those it was trained on, as a server gets them: from JSON, with "
        f"the types of the model's signature. Let the model take such rows.",
    )


def _module_mend(spec: ServingSpec, differing: Sequence[VersionDifference]) -> str:
    own = (
        "If it is the team's own module: use train.serialization cloudpickle and import it at the top of the file, so "
        "that its classes are stored inside the model."
    )
    if spec.env == "build":
        return f"If it is a library: name it in train.requirements. {own}"
    return f"{_cause(differing)}If it is a library: install it where this task runs. {own}"


def _cause(differing: Sequence[VersionDifference]) -> str:
    if not differing:
        return ""
    return f"Likely cause: this environment is not the one it was trained in: {named(differing)}. "


def named(differing: Sequence[VersionDifference], most: int = NAMED) -> str:
    """Return the first differences in words, and how many more there are."""
    words = ", ".join(said(one) for one in differing[:most])
    return f"{words} and {len(differing) - most} more" if len(differing) > most else words


def sentence(served: Served, spec: ServingSpec) -> str:
    """Return the finding in a sentence or two, for a log line."""
    if not served.ok:
        return f"This model cannot be served: {served.what}"
    where = "with the libraries installed here" if spec.env == "installed" else "in an environment of its own"
    rows = f"{served.rows:,} row{'' if served.rows == 1 else 's'}"
    text = (
        f"A fresh interpreter (Python {served.python_version}, {where}) loads the model in "
        f"{_short(served.load_seconds)} s and scores the {rows} of its input example in "
        f"{_short(served.call_milliseconds)} ms a call, {_short(served.row_milliseconds)} ms a row (median of "
        f"{served.repeats:,} call{'' if served.repeats == 1 else 's'})"
    )
    text += "." if served.peak_memory_bytes is None else f", with at most {_mib(served.peak_memory_bytes):,} MiB."
    if served.differences:
        count = len(served.differences)
        verb = "version is" if count == 1 else "versions are"
        text += f" {count} {verb} not the one it was trained with: {named(served.differences)}."
    return text


def problem(served: Served) -> str | None:
    """Return what is wrong, its cause, the mend, and the last lines of output; None where nothing is wrong."""
    if served.ok:
        return None
    told = f"{served.what[:1].upper()}{served.what[1:]} {served.why}".strip()
    return f"{told}\nIts output ended:\n{last_lines(served.output)}" if served.output.strip() else told


def _mib(value: int | None) -> int:
    return round((value or 0) / MIB)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
