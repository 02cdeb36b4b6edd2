"""The figures of the parse benchmark as the table on the documentation's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "parsing.md"
BEGIN, END = "<!-- written by `python -m benchmarks parse` -->\n", "<!-- end of what it writes -->"
#: Entry to what it measures and what stands beside it.
MEANINGS = {
    "parse-cached": ("Making a DAG, specifications cached", "the same DAG by hand"),
    "parse-cold": ("Making a DAG, no cache yet", "the same DAG by hand"),
    "parse-dag-factory": ("Making a training DAG, cached", "dag-factory"),
    "parse-serialised-time": ("Serialising a DAG", "the same DAG by hand"),
    "parse-serialised-size": ("What is stored of a DAG", "the same DAG by hand"),
    "parse-thousand": ("1,000 models in one DAG file, no cache yet", "Airflow's limit for a file"),
    "parse-first-cpu": ("The first model of a process, imports included", "our limit"),
    "parse-first-memory": ("Memory of the first model, imports included", "our limit"),
}


def as_table(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of the entries whose names begin with ``parse``."""
    found = {one["name"]: one for one in entries}
    lines = ["| What | Ours | Beside it | | Ratio | Bound |", "|---|---|---|---|---|---|"]
    for name, (what, peer) in MEANINGS.items():
        if name in found:
            one = found[name]
            figures = f"{_short(one['ours'])} {one['unit']} | {_short(one['peer'])} | {peer}"
            lines.append(f"| {what} | {figures} | {one['ratio']:.2f} | {one['bound']:g} |")
    return "\n".join(lines) + "\n"


def write_page(entries: Iterable[Mapping[str, Any]], page: Path = PAGE) -> None:
    """Put the table between the page's two marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n{as_table(entries)}\n{end}{after}", encoding="utf-8")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
