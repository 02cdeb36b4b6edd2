"""Which ledger entries concern a version, and how it stands to the alias: over entries, without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_mlops.core.ledger import START, Body, Entry, Ledger, fold, read_entry, text_digest
from airflow_mlops.engines.trace_ledger import ledger_lines, standing

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def ledger(*acts: tuple[str, int | None, int]) -> dict[str, Ledger]:
    """Return the ledger after these acts: action, from version, to version; each follows the last that counted."""
    entries: list[Entry] = []
    for number, (action, old, new) in enumerate(acts, start=1):
        tail = fold("m", "champion", entries).tail if entries else START
        values: dict[str, Any] = {"action": action, "from_version": old, "to_version": new, "to_digest": f"d{new}"}
        body = Body(
            model="m",
            alias="champion",
            author="ada",
            reason="why",
            key=f"k{number}",
            expects=tail,
            written_at=NOW,
            **values,
        )
        text = body.to_text()
        entries.append(read_entry(number, text, text_digest(text), applied="owner", created_at=NOW))
    return {"champion": fold("m", "champion", entries)}


def roles(ledgers: dict[str, Ledger], version: int) -> list[tuple[int, str]]:
    return [(line["entry"], line["role"]) for line in ledger_lines(ledgers, version)]


def test_a_version_that_served_and_came_back() -> None:
    found = ledger(("promote", None, 1), ("promote", 1, 2), ("rollback", 2, 1))

    assert roles(found, 1) == [(1, "promoted"), (2, "replaced"), (3, "promoted")]
    assert roles(found, 2) == [(2, "promoted"), (3, "replaced")]
    assert standing(found, {"champion": 1}, 1) == ["It is champion, since entry 3."]
    assert standing(found, {"champion": 1}, 2) == [
        "It was champion by entry 2; entry 3 (rollback of version 1 by ada) replaced it."
    ]


def test_what_a_person_decided_is_about_the_candidate_alone() -> None:
    found = ledger(("promote", None, 1), ("approve", 1, 2), ("promote", 1, 2))

    assert roles(found, 2) == [(2, "decided"), (3, "promoted")]
    assert roles(found, 1) == [(1, "promoted"), (3, "replaced")]


def test_a_rejected_candidate_never_served() -> None:
    found = ledger(("promote", None, 1), ("reject", 1, 2))

    assert roles(found, 2) == [(2, "decided")]
    assert standing(found, {"champion": 1}, 2) == []


def test_an_alias_that_the_ledger_does_not_know_is_told() -> None:
    assert "no ledger entry says who promoted it" in standing({}, {"shadow": 4}, 4)[0]
    moved = standing(ledger(("promote", None, 1)), {"champion": 2}, 2)
    assert moved == [
        "MLflow's alias 'champion' names it, but the ledger says version 1: airflow-mlops history tells why."
    ]


def test_a_version_nobody_ever_named() -> None:
    assert ledger_lines(ledger(("promote", None, 1)), 7) == []
    assert standing(ledger(("promote", None, 1)), {}, 7) == []
