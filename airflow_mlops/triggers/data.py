"""Waiting for data to arrive and to stop changing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.core.sightings import DataArrival
from airflow_mlops.triggers.base import Look, PollTrigger, Question

log = logging.getLogger(__name__)


class DataArrivalQuestion(Question):
    """Asks whether the data is there and has rested long enough.

    :param data: the keys of ``DataSpec``.
    :param window: ``{"start": ISO, "end": ISO}``; None: any data.
    :param holds: stay in one look until rest is over where only watching tells it. For a task that forgets between two
        looks, as a rescheduled one does.
    :param seen, since, changed: what an earlier object remembered.
    """

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        window: Mapping[str, Any] | None,
        settle_minutes: float,
        select: str,
        every: str | None,
        holds: bool = False,
        seen: str | None = None,
        since: str | None = None,
        changed: bool = False,
    ) -> None:
        from airflow_mlops.core.records import Window
        from airflow_mlops.core.windows import parse_length
        from airflow_mlops.engines.arrivals import Lookout, Settling
        from airflow_mlops.spec.data import DataSpec

        self.data = DataSpec.model_validate(data)
        self.window = None if window is None else Window.model_validate(window)
        self.lookout = Lookout(
            self.data,
            self.window,
            select=select,  # type: ignore[arg-type]  # it checks the name
            every=None if every is None else parse_length(every, "every"),
        )
        self.settling = Settling(
            timedelta(minutes=settle_minutes),
            seen=seen,
            since=None if since is None else datetime.fromisoformat(since),
            changed=changed,
        )
        self.holds = holds

    def look(self) -> Look:
        """List the files, or ask the source for its fingerprint.

        :raises DataReadError: the store refuses, or what came to rest cannot be read.
        :raises InvalidSpecError: ``data.conn_id`` names no usable connection.
        :raises StorageUnavailableError: the store does not answer.
        """
        look, rest = self._look()
        if look.found is None and rest is not None and self.holds:
            log.info("%s Watching it here, because what it was like now is not known at the next look.", look.said)
            time.sleep(rest.total_seconds() + 0.2)  # the wall clock, by which rest is measured, may run a little slower
            look, _ = self._look()
        return look

    def memory(self) -> dict[str, Any]:
        """Return what was seen last, since when, and whether it was seen to change."""
        since = self.settling.since
        return {
            "seen": self.settling.seen,
            "since": None if since is None else since.isoformat(),
            "changed": self.settling.changed,
        }

    def _look(self) -> tuple[Look, timedelta | None]:
        """Return what was found and, where only watching tells when it has rested, how long that takes."""
        from airflow_mlops.engines.arrivals import tells_rest
        from airflow_mlops.errors import DataReadError
        from airflow_mlops.hooks.storage import storage_access

        sight = self.lookout.look(storage_access(self.data.conn_id))
        now = datetime.now(UTC)
        rest = self.settling.rest(sight, now)
        if not sight.present:
            return Look(f"{sight.said}."), None
        if rest > timedelta(0):
            left = f"{_shown(self.settling.settle - rest)} of {_shown(self.settling.settle)}"
            return Look(f"{sight.said}, unchanged for {left}."), None if tells_rest(sight, now) else rest
        if sight.problem is not None:
            raise DataReadError(f"{sight.problem} It has not changed for {_shown(self.settling.settle)}.")
        record = DataArrival(
            uri=self.data.uri,
            window=self.lookout.window,
            file_count=sight.file_count,
            byte_count=sight.byte_count,
            newest=sight.newest,
            fingerprint=sight.fingerprint,
            checked=self.lookout.checked,
        )
        return Look(f"{sight.said}, unchanged for {_shown(self.settling.settle)} or longer.", record.to_xcom()), None


class DataArrivalTrigger(PollTrigger):
    """Wait, off the worker, until data is there and at rest. Keywords: those of :class:`DataArrivalQuestion`."""

    question_type = DataArrivalQuestion


def _shown(length: timedelta) -> str:
    """Return a length as people say it: ``4 min 30 s``."""
    minutes, seconds = divmod(max(round(length.total_seconds(), 1), 0), 60)
    parts = [f"{minutes:g} min"] if minutes else []
    return " ".join([*parts, f"{seconds:g} s"] if seconds or not parts else parts)
