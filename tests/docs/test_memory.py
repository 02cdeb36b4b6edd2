"""The page about memory: every operator is there, and the benchmark wrote what stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import airflow_mlops
from benchmarks.memory_page import BEGIN, END, FLOOR, FLOOR_DAG, PAGE, as_table, by_operator, write_page

ROW = re.compile(r"^\| `?([^|`]+)`? \| (\d+) \| (\d+) \| (?:[+-]\d+|-) \| \d+ \|$")


def rows(text: str) -> dict[str, tuple[int, int]]:
    """Return both figures (RSS, PSS) of each row between the markers, by operator."""
    written = text.partition(BEGIN)[2].partition(END)[0]
    found = [ROW.match(line) for line in [line for line in written.splitlines() if line.startswith("|")][2:]]
    assert all(found), "a row has another form than the benchmark writes"
    return {row[1].strip(): (int(row[2]), int(row[3])) for row in found if row}


def test_every_operator_and_sensor_is_in_the_table() -> None:
    public = {name for name in airflow_mlops.__all__ if name.endswith(("Operator", "Sensor"))}

    found = rows(PAGE.read_text())
    assert public - set(found) == set(), "measure them: python -m benchmarks.memory"
    assert set(found) - public == {FLOOR}
    assert all(0 < max(found[FLOOR]) <= max(both) for both in found.values())


def test_the_largest_task_of_an_operator_counts_and_the_page_is_written_again(tmp_path: Path) -> None:
    lines = [
        {"dag_id": FLOOR_DAG, "task_id": "nothing", "together_kib": 200 * 1024, "largest_kib": 150 * 1024},
        {"dag_id": "one", "task_id": "train", "together_kib": 500 * 1024, "largest_kib": 450 * 1024},
        {"dag_id": "two", "task_id": "train", "together_kib": 600 * 1024, "largest_kib": 440 * 1024},
        {"dag_id": "two", "task_id": "nobody knows", "together_kib": 9000 * 1024, "largest_kib": 9000 * 1024},
    ]
    names = {(FLOOR_DAG, "nothing"): "task", ("one", "train"): "Train", ("two", "train"): "Train"}
    page = tmp_path / "memory.md"
    page.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")

    write_page(page, as_table(by_operator(lines, names)))
    write_page(page, as_table(by_operator(lines, names)))

    text = page.read_text()
    assert rows(text) == {FLOOR: (150, 200), "Train": (450, 600)}
    assert "| `Train` | 450 | 600 | +400 | 3 |" in text
    assert "1 of the 2 rows need more" in text
    assert (text.startswith("before"), text.endswith("after\n"), "old" in text) == (True, True, False)


def test_a_page_without_the_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "memory.md"
    page.write_text("a page\n")

    with pytest.raises(ValueError, match="has no line '<!-- written by"):
        write_page(page, "table")
    assert page.read_text() == "a page\n"
