"""What a person reads in MLflow about realised performance: promised beside realised, and what became of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_mlops.core.monitoring_records import PerformanceReport
from airflow_mlops.core.pages import MAX_ROWS, page
from airflow_mlops.core.realised import Realised, RealisedFigure
from airflow_mlops.core.rules import number

_MANY = 50


def performance_page(found: Realised, notes: Sequence[str] = ()) -> str:
    """Return one HTML page without scripts and without rows.

    :param notes: every note in full; the record has them cut.
    """
    report = found.report
    parts = [
        f"<p><strong>{escape(report.sentence)}</strong></p>",
        f"<p>{escape(_about(report))}</p>",
    ]
    if found.changes:
        parts.append(f"<p>{escape(found.changes)}</p>")
    columns = dict.fromkeys(one.slice for one in found.figures)
    for column in columns:
        figures = [one for one in found.figures if one.slice == column]
        parts.append(f"<h2>{escape('All labelled rows' if column is None else f'By {column}')}</h2>")
        parts.append(_figures(figures[:MAX_ROWS], found))
        if len(figures) > MAX_ROWS:
            parts.append(f"<p>{len(figures) - MAX_ROWS} more are in performance.json.</p>")
    parts += ["<h2>Labels</h2>", _counts(report)]
    if notes:
        more = [f"<li>and {len(notes) - _MANY} more in performance.json</li>"] if len(notes) > _MANY else []
        parts += ["<ul>", *(f"<li>{escape(note)}</li>" for note in notes[:_MANY]), *more, "</ul>"]
    if found.draws and found.figures:
        parts.append(
            f"<p>Intervals are two-sided at {found.confidence:.0%}, from {found.draws:,} bootstrap draws over rows "
            f"(seed {found.seed}). Rows count as independent; where they come in clusters, such as the flights of one "
            f"day, this is more certain than it should be.</p>"
        )
    return page(f"Realised performance of {report.model.name}: {report.state}", parts)


def _about(report: PerformanceReport) -> str:
    window = f" Window {report.window}." if report.window else ""
    other = f" Beside it: {report.other}." if report.other is not None else ""
    return f"{str(report.model)[:1].upper()}{str(report.model)[1:]}, revision {report.revision}.{window}{other}"


def _figures(figures: Sequence[RealisedFigure], found: Realised) -> str:
    beside = any(one.other_rows is not None for one in figures)
    heads = [("", "Metric"), ("n", "Rows"), ("n", "Promised"), ("n", "Realised"), ("n", "Interval"), ("n", "Better by")]
    if beside:
        heads += [("n", "Rows of the other"), ("n", "Promised"), ("n", "Realised"), ("n", "Interval")]
    heads.append(("", "Note"))
    if figures[0].slice is not None:
        heads.insert(0, ("", "Slice"))
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in heads)
    return f"<table><tr>{head}</tr>{''.join(_row(one, found, beside=beside) for one in figures)}</table>"


def _row(one: RealisedFigure, found: Realised, *, beside: bool) -> str:
    higher = found.metrics.get(one.metric, True)
    gain = None
    if one.realised is not None and one.promised is not None:
        gain = (one.realised - one.promised) * (1 if higher else -1)
    way = "" if not gain else "better" if gain > 0 else "worse"
    cells = [
        *([("", one.value or "")] if one.slice is not None else []),
        ("", one.metric + ("" if higher else " (lower is better)")),
        ("n", f"{one.rows:,}"),
        ("n", _cell(one.promised)),
        ("n", _cell(one.realised)),
        ("n", _interval(one.low, one.high)),
        (f"n {way}", "" if gain is None else f"{gain:+.4f}"),
    ]
    if beside:
        cells += [
            ("n", "" if one.other_rows is None else f"{one.other_rows:,}"),
            ("n", _cell(one.other_promised)),
            ("n", _cell(one.other)),
            ("n", _interval(one.other_low, one.other_high)),
        ]
    cells.append(("", one.note))
    return "<tr>" + "".join(f'<td class="{kind}">{escape(text)}</td>' for kind, text in cells) + "</tr>"


def _counts(report: PerformanceReport) -> str:
    rows = [
        ("Predictions", report.row_count),
        ("Predictions with a label", report.labelled_count),
        ("Predictions whose labels contradict each other", report.duplicate_count),
        ("Labels without a prediction", report.unknown_count),
        ("Labels from the future", report.future_count),
    ]
    body = "".join(f'<tr><td>{escape(name)}</td><td class="n">{count:,}</td></tr>' for name, count in rows)
    return f'<table><tr><th>What</th><th class="n">Count</th></tr>{body}</table>'


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"
