"""Load a logged model in this interpreter, score its input example, and write down how that went.

This file is run by its path, ``python serving_probe.py REQUEST.json``, in an interpreter that may hold nothing but the
model's own requirements. So it imports the standard library and mlflow only, and never this package.

The request is ``{"model": FOLDER, "answer": FILE, "repeats": N, "budget_seconds": S}``. The answer is a JSON object
that is replaced as the work goes on, so that a reader knows how far a killed interpreter got: ``stage`` (``import``,
``load``, ``example``, ``predict``, ``repeat`` or ``done``), the numbers measured so far, and ``problem`` where the
model is at fault.
"""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_MESSAGE = 1_500
MAX_TRACEBACK = 20_000


class Unfit(Exception):
    """The model answers, but not as it must. ``kind`` names the finding, ``facts`` its numbers."""

    def __init__(self, kind: str, **facts: Any) -> None:
        super().__init__(kind)
        self.kind = kind
        self.facts = facts


class Answer:
    """What is known so far, in a file that is whole at every moment."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, Any] = {"stage": "import", "python_version": platform.python_version()}

    def tell(self, **news: Any) -> None:
        """Add ``news`` and replace the file."""
        self.content.update(news)
        scratch = self.file.with_name(self.file.name + ".part")
        scratch.write_text(json.dumps(self.content, allow_nan=False), encoding="utf-8")
        scratch.replace(self.file)


def probe(request: dict[str, Any], answer: Answer) -> None:
    """Load, score once, score again and again with a clock.

    :raises Unfit: the model has no input example, or its predictions are wrong in number or not finite.
    """
    began = time.perf_counter()
    answer.tell()
    import mlflow.pyfunc
    from mlflow.models import Model

    answer.tell(stage="load")
    start = time.perf_counter()
    model = mlflow.pyfunc.load_model(request["model"], suppress_warnings=True)
    answer.tell(stage="example", load_seconds=time.perf_counter() - start)
    example, params = _example(Model.load(request["model"]), request["model"])
    table = is_table(example)
    rows = count(example) if table else 1
    answer.tell(stage="predict", rows=rows)
    if not rows:
        raise Unfit("empty_example")

    def call() -> tuple[Any, float]:
        given = copy.deepcopy(example)  # a model may change what it gets
        start = time.perf_counter()
        predictions = model.predict(given, params=params) if params else model.predict(given)
        return predictions, time.perf_counter() - start

    predictions, seconds = call()
    answer.tell(stage="repeat", first_call_seconds=seconds)
    found = count(predictions)
    if table and found != rows:
        raise Unfit("count", predictions=found, kind_of=type(predictions).__name__)
    bad = not_finite(predictions)
    if bad:
        raise Unfit("not_finite", bad=bad)
    spent: list[float] = []
    # The calls after the first timed one are for a steadier median; they must not be what breaks the time limit.
    while not spent or (len(spent) < request["repeats"] and time.perf_counter() - began < request["budget_seconds"]):
        spent.append(call()[1])
    answer.tell(stage="done", repeats=len(spent), call_seconds=statistics.median(spent))


def _example(described: Any, folder: str) -> tuple[Any, Any]:
    try:
        example = described.load_input_example(folder)
        read_params = getattr(described, "load_input_example_params", None)
        params = None if read_params is None or example is None else read_params(folder)
    except FileNotFoundError:
        example, params = None, None
    if example is None:
        raise Unfit("no_example")
    return _without_zones(example), params


def _without_zones(example: Any) -> Any:
    """Return a data frame's timestamps in UTC without their zone: MLflow's scoring refuses those that have one."""
    dtypes: Any = getattr(example, "dtypes", None)
    for name, dtype in dtypes.items() if hasattr(dtypes, "items") else ():
        if getattr(dtype, "tz", None) is not None:
            example[name] = example[name].dt.tz_convert("UTC").dt.tz_localize(None)
    return example


def is_table(example: Any) -> bool:
    """Say whether an input example has rows: a table, an array, a list, or arrays by name. A chat has none."""
    if isinstance(example, dict):
        return bool(example) and all(getattr(one, "shape", ()) for one in example.values())
    return bool(getattr(example, "shape", ())) or isinstance(example, list | tuple)


def count(value: Any) -> int:
    """Return how many rows ``value`` has: a table, an array, a list, or columns by name; anything else is one row."""
    if value is None:
        return 0
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    if isinstance(value, dict):
        lengths = {count(one) for one in value.values() if not isinstance(one, str) and hasattr(one, "__len__")}
        return lengths.pop() if len(lengths) == 1 else 1
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return 1
    return len(value)


def not_finite(predictions: Any) -> int:
    """Return how many rows hold a NaN or an infinity, or no value at all; 0 for what cannot be looked into."""
    try:
        return sum(_is_bad(row) for row in _rows(predictions))
    except Exception:  # noqa: BLE001  # a type of the team's own, which nobody here can take apart
        return 0


def _rows(value: Any) -> list[Any]:
    if hasattr(value, "toarray"):  # SciPy's sparse matrices
        value = value.toarray()
    elif not hasattr(value, "tolist") and not isinstance(value, dict):
        if hasattr(value, "numpy"):  # TensorFlow
            value = value.numpy()
        elif hasattr(value, "values") and not callable(value.values):  # a data frame
            value = value.values
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        columns = [_rows(column) for column in value.values()]
        return list(zip(*columns, strict=True)) if len({len(column) for column in columns}) == 1 else columns
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_bad(row: Any) -> bool:
    leaves = list(_leaves(row))
    missing = [leaf is None or type(leaf).__name__ in ("NAType", "NaTType") for leaf in leaves]
    return (bool(leaves) and all(missing)) or any(
        isinstance(leaf, float) and not math.isfinite(leaf) for leaf in leaves
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def peak_memory_bytes() -> int | None:
    """Return the largest resident set of this interpreter so far, or None where the system does not tell.

    Linux: ``VmHWM``, because there ``ru_maxrss`` begins with what the starting process had. It is in KiB there and in
    bytes on macOS.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _finding(exc: BaseException) -> dict[str, Any]:
    if isinstance(exc, Unfit):
        return {"kind": exc.kind, **exc.facts}
    missing = None
    chained: BaseException | None = exc
    for _ in range(20):  # an error may, by hand, be its own cause
        if chained is None or missing:
            break
        if isinstance(chained, ModuleNotFoundError):
            missing = chained.name
        chained = chained.__cause__ or chained.__context__
    return {
        "kind": "raised",
        "type": type(exc).__name__,
        "message": str(exc)[:MAX_MESSAGE],
        "missing_module": missing,
        "traceback": "".join(traceback.format_exception(exc))[-MAX_TRACEBACK:],
    }


def main(path: str) -> None:
    """Answer one request. A model at fault is an answer, too."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    answer = Answer(Path(request["answer"]))
    try:
        probe(request, answer)
    except BaseException as exc:  # noqa: BLE001  # a model may raise anything, SystemExit and MemoryError included
        answer.tell(problem=_finding(exc))
    answer.tell(peak_memory_bytes=peak_memory_bytes())
    sys.stdout.flush()
    sys.stderr.flush()
    # The answer is whole: threads and exit handlers that a library left behind are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
