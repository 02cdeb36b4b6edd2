"""A wait off the worker: one event, never a blocked loop, nothing secret stored, and it survives a restart."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest

from airflow_mlops.errors import LedgerError, TrackingUnavailableError
from airflow_mlops.triggers.base import Look, PollTrigger, Question
from airflow_mlops.triggers.data import DataArrivalTrigger
from airflow_mlops.triggers.model import ModelAliasTrigger


class Counting(Question):
    """Finds something at look number ``at``; each look takes ``seconds`` and blocks its thread."""

    def __init__(self, *, at: int, seconds: float = 0.0, fails: str = "") -> None:
        self.at, self.seconds, self.fails, self.count = at, seconds, fails, 0

    def look(self) -> Look:
        self.count += 1
        time.sleep(self.seconds)
        if self.fails == "verdict":
            raise LedgerError("Settle it.")
        if self.fails == "outage" and self.count == 1:
            raise TrackingUnavailableError("MLflow did not answer.")
        return Look(f"look {self.count}", {"count": self.count} if self.count >= self.at else None)


class CountingTrigger(PollTrigger):
    question_type = Counting


def within(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def run(trigger: PollTrigger) -> list[Any]:
    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(events(), 20))


def restored(trigger: Any) -> Any:
    """Return the trigger as another triggerer makes it from what Airflow stored."""
    from airflow.models.trigger import Trigger

    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    # Airflow 2.11 keeps the same two steps to itself.
    encrypt = getattr(Trigger, "encrypt_kwargs", None) or Trigger._encrypt_kwargs
    stored = encrypt(kwargs)
    return getattr(import_module(module), name)(**Trigger._decrypt_kwargs(stored))


def test_it_looks_until_it_finds_and_yields_one_event() -> None:
    trigger = CountingTrigger(question={"at": 3}, poll_seconds=0.01, ends_at=within(10))

    assert run(trigger) == [{"status": "found", "said": "look 3", "found": {"count": 3}}]


def test_no_answer_is_asked_again_and_a_verdict_is_the_end() -> None:
    outage = CountingTrigger(question={"at": 1, "fails": "outage"}, poll_seconds=0.01, ends_at=within(10))
    verdict = CountingTrigger(question={"at": 1, "fails": "verdict"}, poll_seconds=0.01, ends_at=within(10))

    assert run(outage)[0]["found"] == {"count": 2}
    assert run(verdict) == [{"status": "refused", "said": "Settle it.", "found": None}]


def test_at_its_end_it_looks_once_more_and_gives_up() -> None:
    late = CountingTrigger(question={"at": 1}, poll_seconds=60, ends_at=within(-60))
    never = CountingTrigger(question={"at": 99}, poll_seconds=60, ends_at=within(0.2))

    assert run(late)[0]["status"] == "found"
    assert run(never) == [{"status": "timeout", "said": "look 2", "found": None}]


def test_a_slow_look_does_not_block_the_loop() -> None:
    async def longest_pause() -> float:
        trigger = CountingTrigger(question={"at": 2, "seconds": 0.5}, poll_seconds=0.01, ends_at=within(10))
        looking = asyncio.ensure_future(anext(aiter(trigger.run())))
        longest, before = 0.0, time.monotonic()
        while not looking.done():
            await asyncio.sleep(0.01)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        return longest

    assert asyncio.run(longest_pause()) < 0.4


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        pytest.param(
            ModelAliasTrigger,
            {"registered_model": "m", "alias": "champion", "version": None, "newer_than": 3, "mlflow_conn_id": "c"},
            id="alias",
        ),
        pytest.param(
            DataArrivalTrigger,
            {
                "data": {"uri": "s3://lake/x", "conn_id": "lake", "event_time": "at", "options": {}},
                "window": {"start": "2013-01-01T00:00:00Z", "end": "2013-02-01T00:00:00Z"},
                "settle_minutes": 5.0,
                "select": "auto",
                "every": "1 day",
                "holds": False,
                "seen": "abc",
                "since": "2013-02-01T00:00:00+00:00",
                "changed": True,
            },
            id="data",
        ),
    ],
)
def test_another_triggerer_goes_on_with_the_same_question(kind: Any, question: dict[str, Any]) -> None:
    trigger = kind(question=question, poll_seconds=30, ends_at="2013-03-01T00:00:00+00:00")

    again = restored(trigger)

    assert type(again) is kind
    assert again.serialize() == trigger.serialize()
    asked = kind.question_type(**again.question)
    remembered = asked.memory()
    assert remembered == {name: question[name] for name in remembered}
