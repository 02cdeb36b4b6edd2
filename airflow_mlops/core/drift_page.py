"""What a person reads in MLflow about a window's drift: what drifted, how far, by which method, and how it looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from airflow_mlops.core.drift_counts import dense, grid_edges
from airflow_mlops.core.monitoring_records import ColumnDrift, DriftReport, SchemaFinding
from airflow_mlops.core.pages import page
from airflow_mlops.core.rules import number

#: Columns that are drawn, and rows of the table; drift.json has them all.
MAX_PICTURES, MAX_ROWS = 20, 300
_BARS, _CATEGORIES = 32, 12
_WIDTH, _HEIGHT, _TOP, _BOTTOM = 560, 170, 10, 34
_REFERENCE, _CURRENT = "#8c959f", "#0969da"
_MAX_LABEL = 14

Profile = Mapping[str, Any]
#: Label, share of the reference's values, share of the window's.
Bar = tuple[str, float, float]


def drift_page(
    report: DriftReport,
    columns: Sequence[ColumnDrift],
    findings: Sequence[SchemaFinding],
    *,
    reference: Profile,
    current: Profile,
    predictions: tuple[Profile, Profile] | None = None,
    evidently: str = "",
) -> str:
    """Return the verdict as one HTML page without scripts, with histograms as inline SVG. No row is in it.

    :param columns: all of them; the record has the first ones only.
    :param reference: the profile compared with, as :func:`airflow_mlops.engines.profile.build_profile` describes it.
    :param current: the window's, on the same grid.
    :param predictions: the same two of the predictions; None where they were not compared.
    :param evidently: address of Evidently's page; empty for none.
    """
    style = {"none": "pass", "drift": "fail"}.get(report.verdict, "undecided")
    parts = [f'<p class="{style}"><strong>{escape(report.sentence)}</strong></p>', f"<p>{escape(_about(report))}</p>"]
    parts += [f"<p>{escape(note)}</p>" for note in report.notes]
    if evidently:
        parts.append(f'<p><a href="{escape(evidently)}">Evidently\'s page, on a sample of the rows</a></p>')
    if findings:
        rows = "".join(
            f"<tr><td>{escape(one.kind.replace('_', ' '))}</td><td>{escape(one.column or '')}</td>"
            f"<td>{escape(one.sentence)}</td></tr>"
            for one in findings[:MAX_ROWS]
        )
        parts.append(f"<h2>Guards</h2><table><tr><th>What</th><th>Column</th><th>Why</th></tr>{rows}</table>")
        parts.append(_more(len(findings)))
    shown = [*([report.prediction] if report.prediction else []), *columns[:MAX_ROWS]]
    if shown:
        parts += ["<h2>Columns</h2>", _table(shown), _more(len(columns))]
    pictures = [_picture(one, reference, current) for one in columns[:MAX_PICTURES]]
    if predictions is not None and report.prediction is not None:
        pictures.insert(0, _picture(report.prediction, *predictions))
    if any(pictures):
        parts += [_legend(), *pictures]
    return page(f"Drift: {report.verdict.replace('_', ' ')}", parts)


def _about(report: DriftReport) -> str:
    window = f" of {report.window}" if report.window else ""
    shares = ""
    if report.share is not None:
        shares = f" {report.drifted_count} of {report.compared_count} compared columns drifted ({report.share:.0%})."
    how = "counts of all rows" if report.engine == "statistics" else "Evidently's methods on a sample"
    return (
        f"{report.row_count:,} rows{window}, dataset {report.dataset_digest[:12]}, compared with {report.reference}, "
        f"by {how}.{shares}"
    )


def _more(count: int) -> str:
    return f"<p>{count - MAX_ROWS} more are in drift.json.</p>" if count > MAX_ROWS else ""


def _table(columns: Sequence[ColumnDrift]) -> str:
    heads = [
        ("", "Column"),
        ("", "Kind"),
        ("", "Method"),
        ("n", "Distance"),
        ("n", "At most off by"),
        ("n", "Threshold"),
    ]
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in [*heads, ("", "Result"), ("", "Why")])
    return f"<table><tr>{head}</tr>{''.join(map(_row, columns))}</table>"


def _row(one: ColumnDrift) -> str:
    result = (
        ("fail", "drifted") if one.drifted else ("undecided", "not compared") if one.value is None else ("pass", "")
    )
    cells = [
        ("", one.column),
        ("", one.kind),
        ("", one.method),
        ("n", _shown(one.value)),
        ("n", "exact" if one.error == 0 else _shown(one.error)),
        ("n", _shown(one.threshold)),
        (result[0], result[1] or "no drift"),
        ("", one.sentence),
    ]
    return "<tr>" + "".join(f'<td class="{kind}">{escape(text)}</td>' for kind, text in cells) + "</tr>"


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if 0 < abs(value) < 0.0001 else number(value)


def _legend() -> str:
    return (
        f'<h2>How they look</h2><p><span style="color:{_REFERENCE}">&#9632;</span> reference '
        f'<span style="color:{_CURRENT}">&#9632;</span> this window; shares of the rows, with missing values apart.</p>'
    )


def _picture(one: ColumnDrift, reference: Profile, current: Profile) -> str:
    before, now = reference["columns"].get(one.column), current["columns"].get(one.column)
    if before is None or now is None or before["kind"] != now["kind"]:
        return ""
    bars = bars_of(before, now, reference["row_count"], current["row_count"])
    if not bars:
        return ""
    where = f"{one.method} {_shown(one.value)}" if one.value is not None else one.method
    return f"<h3>{escape(one.column)} ({escape(where)})</h3>{_svg(bars, one.column)}"


def bars_of(before: Profile, now: Profile, rows_before: int, rows_now: int) -> list[Bar]:
    """Return a column's bars: numbers in at most 32 spans and the grid's two ends, else the commonest categories.

    Empty where there is nothing to draw: no row, no grid, withheld values.

    :param before: the reference's column of a profile.
    :param now: the window's, on the same grid.
    """
    if not rows_before or not rows_now:
        return []
    missing = ("missing", before["missing_share"], now["missing_share"])
    tail = [missing] if missing[1] or missing[2] else []
    if before["kind"] == "categorical":
        if before["values_withheld"] or now["values_withheld"]:
            return []
        return [*_categories(before, now, rows_before, rows_now), *tail]
    edges = grid_edges(before) if before["kind"] in ("numeric", "time") else ()
    if not edges or grid_edges(now) != edges:
        return []
    return [*_spans(before, now, edges, rows_before, rows_now), *tail]


def _categories(before: Profile, now: Profile, rows_before: int, rows_now: int) -> list[Bar]:
    left, right = before["categories"], now["categories"]
    weight = {value: left.get(value, 0) / rows_before + right.get(value, 0) / rows_now for value in {**left, **right}}
    chosen = sorted(weight, key=lambda value: (-weight[value], value))[:_CATEGORIES]
    bars = [(value, left.get(value, 0) / rows_before, right.get(value, 0) / rows_now) for value in chosen]
    others = (
        (sum(left.values()) + before["other"]) / rows_before - sum(bar[1] for bar in bars),
        (sum(right.values()) + now["other"]) / rows_now - sum(bar[2] for bar in bars),
    )
    return [*bars, ("others", max(0.0, others[0]), max(0.0, others[1]))] if max(others) > 1e-9 else bars


def _spans(before: Profile, now: Profile, edges: Sequence[float], rows_before: int, rows_now: int) -> list[Bar]:
    """Return the spans of equal width between the outermost occupied cells, and the open ends where they hold rows."""
    left, right = (dense(side["counts"], len(edges) + 1) for side in (before, now))
    occupied = [cell for cell in range(1, len(edges)) if left[cell] or right[cell]]
    bars: list[Bar] = []
    if occupied:
        low, high = edges[occupied[0] - 1], edges[occupied[-1]]
        count = min(_BARS, occupied[-1] - occupied[0] + 1)
        # Ends that are farther apart than a float can say are measured in quarters.
        unit = 1.0 if math.isfinite(high - low) else 4.0
        low, wide = low / unit, (high / unit - low / unit) / count
        shares = [[0.0, 0.0] for _ in range(count)]
        for cell in occupied:
            # A cell counts where its middle lies.
            middle = edges[cell - 1] / unit / 2 + edges[cell] / unit / 2
            place = min(count - 1, int((middle - low) / wide))
            shares[place][0] += left[cell] / rows_before
            shares[place][1] += right[cell] / rows_now
        whole = bool(before.get("whole")) and wide == 1
        starts = [math.ceil(low + place) if whole else (low + place * wide) * unit for place in range(count)]
        bars = [
            (_edge(start, before["kind"]), ours, theirs) for start, (ours, theirs) in zip(starts, shares, strict=True)
        ]
    ends = (("below", 0, 0), ("above", -1, len(bars) + 1))
    for label, cell, place in ends:
        if left[cell] or right[cell]:
            bars.insert(place, (label, left[cell] / rows_before, right[cell] / rows_now))
    return bars


def _edge(value: float, kind: str) -> str:
    if kind != "time":
        return f"{value:.4g}"
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return f"{value:.4g}"


def _svg(bars: Sequence[Bar], name: str) -> str:
    """Return paired bars: the reference's beside the window's, each with a title that a pointer shows."""
    highest = max(max(left, right) for _, left, right in bars) or 1.0
    slot = _WIDTH / len(bars)
    thick = slot * 0.42
    parts = []
    every = max(1, len(bars) // 8)
    for place, (label, left, right) in enumerate(bars):
        for side, share, color in ((0, left, _REFERENCE), (1, right, _CURRENT)):
            tall = share / highest * _HEIGHT
            who = "this window" if side else "reference"
            parts.append(
                f'<rect x="{place * slot + side * thick:.1f}" y="{_TOP + _HEIGHT - tall:.1f}" width="{thick:.1f}" '
                f'height="{tall:.1f}" fill="{color}"><title>{escape(label)}: {share:.2%} of {who}</title></rect>'
            )
        if len(bars) <= _CATEGORIES + 2 or place % every == 0 or label == "missing":
            text = label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"
            parts.append(
                f'<text x="{place * slot:.1f}" y="{_TOP + _HEIGHT + 14 + 12 * (place % 2)}" font-size="9">'
                f"{escape(text)}</text>"
            )
    return (
        f'<svg role="img" aria-label="Histogram of {escape(name)}" width="{_WIDTH}" '
        f'height="{_TOP + _HEIGHT + _BOTTOM}" viewBox="0 0 {_WIDTH} {_TOP + _HEIGHT + _BOTTOM}">{"".join(parts)}'
        f'<text x="0" y="9" font-size="9">{highest:.1%}</text></svg>'
    )
