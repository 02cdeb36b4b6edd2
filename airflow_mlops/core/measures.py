"""The numbers a record gives to monitoring systems: gauges and counters with their tags. Names begin in one place."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from airflow_mlops.core.monitoring_records import DriftReport, PerformanceReport, PolicyDecision, ScoringReport
from airflow_mlops.core.record import Record
from airflow_mlops.core.records import GateDecision, Promotion

PREFIX = "airflow_mlops"
#: Longest part of a name; Airflow drops a name of more than 250 characters, its own prefix included.
MAX_PART = 80
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number to send.

    :param name: letters, digits, ``_``, ``-`` and ``.`` only, without tags.
    :param tags: in the order in which they would stand in a name.
    """

    kind: Literal["gauge", "counter"]
    name: str
    value: float
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """Return the name with the tags' values in it, for a backend that drops tags."""
        return ".".join([self.name, *(name_part(value) for value in self.tags.values())])

    @property
    def safe_tags(self) -> dict[str, str]:
        """Return the tags with values that every backend takes: InfluxDB's format has no place for commas or blanks."""
        return {key: re.sub(r"[^A-Za-z0-9_./-]", "_", value) or "unknown" for key, value in self.tags.items()}


def measures_of(record: Record, *, model: str, step: str = "", backfill: bool = False) -> tuple[Measure, ...]:
    """Return what a fresh record gives to monitoring systems; nothing for most records.

    ``drift_share`` (gauge, 0 to 1, of the compared columns), ``drift_verdict`` (counter, tag ``verdict``),
    ``label_coverage`` (gauge, 0 to 1), ``performance.METRIC`` (gauge, in the metric's unit, tag ``state``),
    ``champion_age_days`` (gauge), ``promotions``, ``rollbacks``, ``retrains`` that were asked for, ``holds``,
    ``rows_scored``, ``rows_quarantined`` (counters); each with the tag ``model``. What is undefined is left out.

    :param model: the name for a record that has none.
    :param step: tells a rollback from a promotion.
    :param backfill: gauges are then left out, because an old window's number would stand as the newest one.
    """
    found = _measures(record, model, step)
    return tuple(one for one in found if math.isfinite(one.value) and not (backfill and one.kind == "gauge"))


def _measures(record: Record, model: str, step: str) -> Iterator[Measure]:
    if isinstance(record, DriftReport):
        name = record.model.name if record.model is not None else model
        if record.share is not None:
            yield _gauge("drift_share", record.share, model=name)
        yield _counter("drift_verdict", 1, model=name, verdict=record.verdict)
    elif isinstance(record, PerformanceReport):
        name = record.model.name
        yield _gauge("label_coverage", record.coverage, model=name)
        for metric, value in record.metrics.items() if record.state != "waiting" else ():
            if value is not None:
                yield _gauge(f"performance.{name_part(metric)}", value, model=name, state=record.state)
    elif isinstance(record, PolicyDecision):
        if record.champion_age_days is not None:
            yield _gauge("champion_age_days", record.champion_age_days, model=model)
        if record.action in ("retrain", "rollback"):
            yield _counter(f"{record.action}s", 1, model=model)
    elif isinstance(record, ScoringReport):
        yield _counter("rows_scored", record.scored_count, model=record.model.name)
        yield _counter("rows_quarantined", record.quarantined_count, model=record.model.name)
    elif isinstance(record, Promotion) and record.outcome == "promoted":
        yield _counter("rollbacks" if step == "rollback" else "promotions", 1, model=record.name)
    elif isinstance(record, GateDecision) and record.verdict == "hold":
        yield _counter("holds", 1, model=model)


def _gauge(name: str, value: float, **tags: str) -> Measure:
    return Measure(kind="gauge", name=f"{PREFIX}.{name}", value=float(value), tags=tags)


def _counter(name: str, value: int, **tags: str) -> Measure:
    return Measure(kind="counter", name=f"{PREFIX}.{name}", value=value, tags=tags)


def name_part(text: str) -> str:
    """Return ``text`` as one part of a statsd name: ``.``, which parts names, as ``__``, as Airflow does.

    Anything else that is not a letter, digit, ``_`` or ``-`` becomes ``_``. A text of more than 80 characters is cut
    and ends with 8 digits of its SHA-256, so that two long ones stay apart.
    """
    safe = _NOT_ALLOWED.sub("_", text.replace(".", "__")) or "unknown"
    if len(safe) <= MAX_PART:
        return safe
    return f"{safe[: MAX_PART - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
