"""The page ``docs/reference/memory.md``: its table from what :mod:`benchmarks.memory` measured. Imports no Airflow."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "memory.md"
BEGIN, END = "<!-- written by `python -m benchmarks.memory` -->", "<!-- end of what it writes -->"
#: The environment variable with the file that gets one JSON line a task.
LOG = "BENCHMARK_MEMORY_LOG"
#: MiB of an Amazon MWAA mw1.small worker, and how many tasks it runs at once by default.
WORKER_MIB, WORKER_TASKS = 2048, 5
#: The DAG whose one task does nothing, and what its row is called.
FLOOR_DAG, FLOOR = "floor", "a task that does nothing"


def by_operator(
    lines: Iterable[Mapping[str, Any]], operators: Mapping[tuple[str, str], str]
) -> dict[str, tuple[float, float]]:
    """Return the largest figures of each operator, in MiB: all processes of a task (PSS), the largest of them (RSS)."""
    found: dict[str, tuple[float, float]] = {}
    for line in lines:
        name = operators.get((line["dag_id"], line["task_id"]))
        if name is None:
            continue
        name = FLOOR if line["dag_id"] == FLOOR_DAG else name
        together, largest = found.get(name, (0.0, 0.0))
        found[name] = (max(together, line["together_kib"] / 1024), max(largest, line["largest_kib"] / 1024))
    return found


def as_table(found: Mapping[str, tuple[float, float]]) -> str:
    """Return the Markdown between the markers. A task needs the larger of its two figures."""
    needs = {name: max(both) for name, both in found.items()}
    share = WORKER_MIB / WORKER_TASKS
    lines = [
        "| Operator | Largest process (RSS) | All its processes (PSS) | Over Airflow's own | At once in 2 GB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in sorted(found, key=lambda name: (name != FLOOR, needs[name])):
        together, largest = found[name]
        shown = name if name == FLOOR else f"`{name}`"
        over = "-" if name == FLOOR else f"{needs[name] - needs[FLOOR]:+.0f}"
        lines.append(f"| {shown} | {largest:.0f} | {together:.0f} | {over} | {int(WORKER_MIB // needs[name])} |")
    too_large = sum(need > share for need in needs.values())
    lines += [
        "",
        f"Airflow {version('apache-airflow')}, MLflow {version('mlflow')}, pandas {version('pandas')}, scikit-learn "
        f"{version('scikit-learn')}, Great Expectations {version('great-expectations')}, Evidently "
        f"{version('evidently')}, Python {sys.version_info.major}.{sys.version_info.minor}. An equal share of 2 GB for "
        f"{WORKER_TASKS} tasks is {share:.0f} MiB: {too_large} of the {len(found)} rows need more.",
    ]
    return "\n".join(lines)


def write_page(page: Path, table: str) -> None:
    """Put the table between the markers of the page.

    :raises ValueError: the page has no markers.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no line {BEGIN!r} with a line {END!r} after it.")
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
