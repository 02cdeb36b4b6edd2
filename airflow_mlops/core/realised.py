"""Everything that was measured of one scored batch once its labels came, as values; ``performance.json`` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from airflow_mlops.core.monitoring_records import PerformanceReport
from airflow_mlops.core.record import Frozen, Record
from airflow_mlops.core.rules import number
from airflow_mlops.errors import RecordTooLargeError

#: Characters of one note in a record; the artifact has all of it.
MAX_NOTE = 300


class RealisedFigure(Frozen):
    """One metric on one group of labelled rows.

    :param slice: the slice's column, or None for all labelled rows; ``value`` is the slice's value as text.
    :param rows: labelled rows that the version answered; ``other_rows`` those of the version beside it.
    :param realised: None where the metric has no value; ``note`` says why.
    :param low: lower end of the two-sided percentile interval of ``realised`` from bootstrap draws over rows, at the
        confidence of :class:`Realised`; ``high``, ``other_low`` and ``other_high`` likewise.
    :param promised: the same metric, on the same group, in the evaluation that let the version through.
    """

    metric: str
    slice: str | None = None
    value: str | None = None
    rows: int
    realised: float | None = None
    low: float | None = None
    high: float | None = None
    promised: float | None = None
    other_rows: int | None = None
    other: float | None = None
    other_low: float | None = None
    other_high: float | None = None
    other_promised: float | None = None
    note: str = ""


class Realised(Record, schema="realised/1"):
    """The whole result. It holds counts and figures, no row.

    :param metrics: every metric and whether higher is better.
    :param figures: all labelled rows first, then slice by slice; empty while the state is ``waiting``.
    :param changes: what is new since the revision before, in words; empty for a first one.
    :param measured_digest: of what is measured and how, labels apart.
    """

    report: PerformanceReport
    task: Literal["binary", "multiclass", "regression"]
    metrics: Mapping[str, bool]
    figures: tuple[RealisedFigure, ...] = ()
    other_promised: Mapping[str, float | None] = {}
    changes: str = ""
    draws: int = 0
    seed: int = 0
    confidence: float = 0.95
    measured_digest: str = ""

    def metrics_for_mlflow(self) -> dict[str, float]:
        """Return the figures on all rows as MLflow takes them."""
        report = self.report
        figures: dict[str, float | None] = {
            "coverage": report.coverage,
            "predictions": float(report.row_count),
            "labelled": float(report.labelled_count),
            "labels.ambiguous": float(report.duplicate_count),
            "labels.unknown": float(report.unknown_count),
            "labels.future": float(report.future_count),
        }
        for one in self.figures:
            if one.slice is None:
                # MLflow allows no colon in a metric's name on every platform.
                plain = one.metric.replace(":", ".")
                figures |= {plain: one.realised, f"promised.{plain}": one.promised, f"other.{plain}": one.other}
        return {name: value for name, value in figures.items() if value is not None}


def short(text: str) -> str:
    """Return a note on one line, cut to what a record may repeat of it."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_NOTE else f"{line[: MAX_NOTE - 1]}…"


def fitted(report: PerformanceReport) -> PerformanceReport:
    """Return the report cut to what XCom may carry: first the lists of features go, then the last notes.

    :raises RecordTooLargeError: it is too large even so.
    """
    bare = {
        "model": report.model.model_copy(update={"features": None}),
        "other": report.other.model_copy(update={"features": None}) if report.other is not None else None,
    }
    notes = {name: short(text) for name, text in report.notes.items()}
    report = report.model_copy(update={"notes": notes})
    while True:
        try:
            report.to_xcom()
        except RecordTooLargeError:
            if bare:
                report, bare = report.model_copy(update=bare), {}
                continue
            left = [name for name in report.notes if name != "more"]
            if not left:
                raise
            kept = {name: report.notes[name] for name in left[: len(left) // 2]}
            report = report.model_copy(update={"notes": {**kept, "more": "Further notes are in performance.json."}})
        else:
            return report


def sentence_of(report: PerformanceReport, changes: str) -> str:
    """Return the outcome in words: what was realised beside what was promised, and of how many labels."""
    who = f"{str(report.model)[:1].upper()}{str(report.model)[1:]}"
    where = f" on {report.window}" if report.window else ""
    labels = f"{report.labelled_count:,} of {report.row_count:,} predictions have a label ({report.coverage:.1%})"
    if report.state == "waiting":
        return f"{who}{where} waits for labels: {labels}."
    shown = []
    for name, value in list(report.metrics.items())[:3]:
        promised = report.promised.get(name)
        beside = f" where {number(promised)} was promised" if promised is not None else ""
        shown.append(f"{name} {'undefined' if value is None else number(value)}{beside}")
    revision = f", revision {report.revision}" if report.revision > 1 else ""
    return f"{who}{where}: {'; '.join(shown)}. {labels}; {report.state}{revision}. {changes}".rstrip()
