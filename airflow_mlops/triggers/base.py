"""Waiting off the worker: ask, sleep, ask again. A sensor that waits on the worker asks the same question.

A question is made of JSON values and connection ids, so a trigger can be stored and taken up by another triggerer. It
reads the connections itself, each time it asks, and asks in a thread: the triggerer's loop serves all other triggers
and must never wait for a store or a server. The libraries a question needs must be installed where the triggerer runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypedDict

from asgiref.sync import sync_to_async

from airflow_mlops.compat import BaseTrigger, TriggerEvent
from airflow_mlops.errors import MissingEngineError, OutageError, VerdictError


@dataclass(frozen=True)
class Look:
    """What one look found.

    :param said: what is there or what is still missing, in a sentence.
    :param found: the record to hand on, as XCom takes it; None: not yet.
    """

    said: str
    found: dict[str, Any] | None = None


class Answer(TypedDict):
    """How a wait off the worker ended: the trigger's event, which the sensor is resumed with."""

    status: Literal["found", "refused", "timeout"]
    said: str
    found: dict[str, Any] | None


class Question:
    """Something that is asked until there is an answer. One object serves one wait and may remember what it saw."""

    def look(self) -> Look:
        """Look once. It may block, and is never called twice at the same time.

        :raises VerdictError: a further look finds the same: the wait ends at once.
        :raises OutageError: something outside did not answer: the wait goes on.
        """
        raise TypeError(f"{type(self).__name__} must define look()")

    def memory(self) -> dict[str, Any]:
        """Return what a new object of the same question goes on from, as keywords of JSON values. Nothing here."""
        return {}


def ask(question: Question) -> Look:
    """Look once; something outside that does not answer is a look that found nothing.

    :raises VerdictError: a further look finds the same.
    """
    from airflow_mlops.engines.outages import looks_like_outage

    try:
        return question.look()
    except OutageError as exc:
        return Look(f"No answer this time, asking again: {exc}")
    except ModuleNotFoundError as exc:
        named = MissingEngineError.of(exc.name or "")
        if named is None:
            raise
        raise named from exc
    except VerdictError:
        raise
    except Exception as exc:
        if not looks_like_outage(exc):
            raise
        return Look(f"No answer this time, asking again: {type(exc).__name__}: {exc}")


class PollTrigger(BaseTrigger):
    """Ask a question until it is answered, refused or out of time. Subclasses say which question.

    It may be taken down and set up again at any time: the end of the wait is a moment, not a length, and what was
    remembered by then costs at most a new settling time.

    :param question: keywords of the question. No secret may be among them: they are stored.
    :param poll_seconds: time between two looks.
    :param ends_at: when the wait ends, ISO 8601 with a zone.
    """

    question_type: ClassVar[type[Question]]

    def __init__(self, *, question: Mapping[str, Any], poll_seconds: float, ends_at: str) -> None:
        super().__init__()
        self.question = dict(question)
        self.poll_seconds = poll_seconds
        self.ends_at = ends_at

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the keywords that make the same trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"question": self.question, "poll_seconds": self.poll_seconds, "ends_at": self.ends_at},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, an :class:`Answer`."""
        question: Question | None = None
        ends_at = datetime.fromisoformat(self.ends_at)
        while True:
            # Measured before the look: whatever is there at the end of the wait is still found.
            left = (ends_at - datetime.now(UTC)).total_seconds()
            try:
                question = question or self.question_type(**self.question)
                # In any thread but the loop's: sync_to_async also lets Airflow 3 read a connection from there.
                look = await sync_to_async(ask, thread_sensitive=False)(question)
            except VerdictError as exc:
                yield TriggerEvent(dict(Answer(status="refused", said=str(exc), found=None)))
                return
            if look.found is not None:
                yield TriggerEvent(dict(Answer(status="found", said=look.said, found=look.found)))
                return
            if left <= 0:
                yield TriggerEvent(dict(Answer(status="timeout", said=look.said, found=None)))
                return
            self.log.info("%s", look.said)
            await asyncio.sleep(min(self.poll_seconds, max(left, 0)))
