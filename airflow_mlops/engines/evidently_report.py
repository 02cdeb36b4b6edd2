"""Evidently's report on two samples, made in a process of its own within limits of time and memory.

Evidently costs seconds and hundreds of megabytes to import, and some frames make it fail; none of that may touch the
step that asks. Its usage reports are off there, and it is given no login.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.engines.bounded_process import Ended, run_bounded
from airflow_mlops.engines.model_environments import hide_logins, last_lines, plain_environment
from airflow_mlops.engines.serving import isolation, read_answer
from airflow_mlops.errors import MissingEngineError

if TYPE_CHECKING:
    import pyarrow

CHILD = Path(__file__).with_name("evidently_child.py")
PAGE_FILE, JSON_FILE = "evidently.html", "evidently.json"
#: Evidently chooses its method by type, number of values and rows.
AUTO = "auto"
#: Columns of the page: each costs a second and some hundred kilobytes.
MAX_PAGE_COLUMNS = 30
TIMEOUT_SECONDS = 900.0
MEMORY_BYTES = 4 << 30

#: What stands for "<", with which a text could end the script that Evidently writes it into.
_HARMLESS = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"

#: Our names of methods that Evidently has as well, and its own. Bins, bases and sides are Evidently's.
METHODS: Mapping[str, str] = {
    "psi": "psi",
    "jensen_shannon": "jensenshannon",
    "hellinger": "hellinger",
    "wasserstein": "wasserstein",
    "kolmogorov_smirnov": "ks",
    "ks": "ks",
    "chi_square": "chisquare",
    "total_variation": "TVD",
    **{
        name: name
        for name in (
            "anderson",
            "chisquare",
            "cramer_von_mises",
            "ed",
            "es",
            "fisher_exact",
            "g_test",
            "jensenshannon",
            "kl_div",
            "mannw",
            "t_test",
            "TVD",
            "z",
        )
    },
}
#: Methods whose score is a p-value: a small one is drift. Those that Evidently chose itself say so in their names.
_TESTS = frozenset(
    {"ks", "chisquare", "z", "anderson", "cramer_von_mises", "es", "fisher_exact", "g_test", "mannw", "t_test"}
)


@dataclass(frozen=True)
class EvidentlyColumn:
    """Evidently's word on one column.

    :param method: as Evidently calls it.
    :param value: its score; None where it is not finite.
    :param is_p_value: the score is a p-value, and drift is one below the threshold.
    """

    method: str
    value: float | None
    threshold: float | None
    drifted: bool
    is_p_value: bool


@dataclass(frozen=True)
class EvidentlyAnswer:
    """What became of asking Evidently.

    :param problem: why there is no page, in one sentence; empty where there is one.
    """

    columns: Mapping[str, EvidentlyColumn] = field(default_factory=dict)
    html: Path | None = None
    json: Path | None = None
    version: str = ""
    problem: str = ""


def require_evidently() -> None:
    """Check that Evidently is installed, without importing it.

    :raises MissingEngineError: it is not; the message has the install line.
    """
    if find_spec("evidently") is None:
        raise MissingEngineError.of("evidently") or AssertionError("evidently is a known extra")


def ask_evidently(
    reference: pyarrow.Table,
    current: pyarrow.Table,
    scratch: Path,
    *,
    methods: Mapping[str, str] | None = None,
    thresholds: Mapping[str, float] | None = None,
    page: Sequence[str],
    rest: Sequence[str] = (),
) -> EvidentlyAnswer:
    """Make Evidently's page, and get its verdict on every column.

    :param reference: numbers as float64, categories as text; as many columns as ``current``, with the same names.
    :param scratch: an existing folder, in which the page stays.
    :param methods: Evidently's method by column; it chooses for the others.
    :param thresholds: by column; Evidently's own default for the others.
    :param page: columns of the page.
    :param rest: columns whose verdict is wanted beside those of the page.
    """
    folder = scratch / "evidently"
    folder.mkdir()
    (folder / "empty").mkdir()
    (folder / "tmp").mkdir()
    names = [*page, *rest]
    labels = safe_labels(names)
    files = {"html": folder / PAGE_FILE, "json": folder / JSON_FILE, "answer": folder / "answer.json"}
    request = {
        "numeric": [labels[name] for name in names if str(reference.schema.field(name).type) == "double"],
        "categorical": [labels[name] for name in names if str(reference.schema.field(name).type) != "double"],
        "methods": {labels[name]: method for name, method in (methods or {}).items() if name in labels},
        "thresholds": {labels[name]: number for name, number in (thresholds or {}).items() if name in labels},
        "page": [labels[name] for name in page],
        "rest": [labels[name] for name in rest],
        "reference": str(_written(reference, labels, folder / "reference.parquet")),
        "current": str(_written(current, labels, folder / "current.parquet")),
        **{name: str(path) for name, path in files.items()},
    }
    asked = folder / "request.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    ended = run_bounded(
        [sys.executable, *isolation(installed=True), CHILD, asked],
        folder=folder / "empty",
        env=plain_environment(folder / "tmp"),
        timeout_seconds=TIMEOUT_SECONDS,
        memory_bytes=MEMORY_BYTES,
    )
    answer = read_answer(files["answer"])
    problem = _problem(ended, answer)
    if problem:
        return EvidentlyAnswer(problem=problem)
    back = {label: name for name, label in labels.items()}
    columns = {back[label]: _column(found) for label, found in answer["columns"].items() if label in back}
    return EvidentlyAnswer(columns, files["html"], files["json"], str(answer.get("version", "")))


def safe_labels(names: Sequence[str]) -> dict[str, str]:
    """Return a label for each column that cannot end a script: Evidently writes names into its page as they are."""
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        label = _harmless(name)
        while label in taken:
            label += "'"
        taken.add(label)
        labels[name] = label
    return labels


def _harmless(text: str) -> str:
    return text.replace("<", _HARMLESS)


def _written(table: pyarrow.Table, labels: Mapping[str, str], path: Path) -> Path:
    import pyarrow
    from pyarrow import compute, parquet

    arrays = []
    for name in labels:
        values = table[name]
        if pyarrow.types.is_string(values.type):
            values = compute.replace_substring(values, "<", _HARMLESS)
        arrays.append(values)
    parquet.write_table(pyarrow.table(arrays, names=list(labels.values())), path)
    return path


def _column(found: Mapping[str, Any]) -> EvidentlyColumn:
    method = str(found["method"])
    return EvidentlyColumn(
        method=method,
        value=found["value"],
        threshold=found["threshold"],
        drifted=bool(found["drifted"]) and found["value"] is not None,
        is_p_value=method in _TESTS or "p_value" in method,
    )


def _problem(ended: Ended, answer: Mapping[str, Any]) -> str:
    if ended.reason == "timed_out":
        return f"Evidently was stopped after {TIMEOUT_SECONDS:g} s; set drift.report_rows or drift.columns lower."
    if ended.reason == "over_memory":
        return f"Evidently was stopped at {MEMORY_BYTES >> 20} MiB; set drift.report_rows or drift.columns lower."
    if missing := answer.get("missing"):
        return str(MissingEngineError.of(str(missing)) or f"Evidently needs the library {missing!r}.")
    if "problem" in answer:
        return f"Evidently failed on these samples: {hide_logins(str(answer['problem']), {})}"
    if "columns" not in answer:
        said = last_lines(hide_logins(ended.output, {}), 1).strip()[:300]
        return f"Evidently ended with code {ended.code} and no answer{f': {said}' if said else '.'}"
    return ""
