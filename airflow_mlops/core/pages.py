"""What a person reads in MLflow: the evaluation's table, and the gate's decision with its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from airflow_mlops.core.evidence import Evidence, Measurement
from airflow_mlops.core.gate import Decision
from airflow_mlops.core.rules import number

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:75em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}h1{font-size:1.4em}h2{font-size:1.1em}"
    ".pass{color:#1a7f37}.fail{color:#cf222e}.undecided{color:#9a6700}.better{color:#1a7f37}.worse{color:#cf222e}"
)
#: Rows of one slice column that a page shows; the artifact evidence.json has them all.
MAX_ROWS = 200


def evaluation_page(evidence: Evidence) -> str:
    """Return the evaluation as one HTML page without scripts: a table for all rows, one per slice column."""
    parts = [f"<p>{escape(_about(evidence))}</p>"]
    if evidence.champion_problem:
        parts.append(f'<p class="fail">{escape(evidence.champion_problem)}</p>')
    parts += [f"<p>{escape(note)}</p>" for note in evidence.notes.values()]
    columns = dict.fromkeys(one.slice for one in evidence.measurements)
    for column in columns:
        found = [one for one in evidence.measurements if one.slice == column]
        parts.append(f"<h2>{escape('All rows' if column is None else f'By {column}')}</h2>")
        parts.append(_measurements(found[:MAX_ROWS], evidence))
        if len(found) > MAX_ROWS:
            parts.append(f"<p>{len(found) - MAX_ROWS} more are in evidence.json.</p>")
    return page(f"Evaluation of {evidence.registered_model}", parts)


def decision_page(decision: Decision, evidence: Evidence) -> str:
    """Return the gate's decision as one HTML page: the verdict, its sentence, every rule's result."""
    parts = [
        f"<p><strong>{escape(decision.sentence)}</strong></p>",
        f"<p>{escape(_about(evidence))} Mode: {decision.mode}.</p>",
        "<table><tr><th>Result</th><th>Rule</th><th>Why</th></tr>",
        *(
            f'<tr><td class="{result.status}">{result.status}</td><td>{escape(result.rule)}</td>'
            f"<td>{escape(result.sentence)}</td></tr>"
            for result in decision.results
        ),
        "</table>",
        _small_print(evidence),
    ]
    return page(f"Gate of {evidence.registered_model}: {decision.verdict}", parts)


def decision_note(decision: Decision, most: int = 12) -> str:
    """Return the decision as short Markdown, for the description of an MLflow run."""
    lines = [f"**{decision.verdict}**: {decision.sentence}", ""]
    lines += [f"- {result.status}: {result.sentence}" for result in decision.results[:most]]
    if len(decision.results) > most:
        lines.append(f"- and {len(decision.results) - most} more in decision.html")
    return "\n".join(lines)


def _about(evidence: Evidence) -> str:
    champion = evidence.champion
    against = "There is no champion yet." if champion is None else f"Compared with champion version {champion.version}."
    if evidence.not_compared:
        against = f"{evidence.not_compared}."
    window = f" of {evidence.window}" if evidence.window else ""
    return f"{evidence.rows:,} rows{window}, dataset {evidence.dataset_digest[:12]}. {against}"


def _small_print(evidence: Evidence) -> str:
    if not evidence.draws:
        return ""
    return (
        f"<p>Intervals are two-sided at {evidence.confidence:.0%}, from {evidence.draws:,} paired bootstrap draws over "
        f"rows (seed {evidence.seed}); a proof is one-sided at {number(evidence.alpha)}. Rows count as independent; "
        f"where they come in clusters, such as the flights of one day, this is more certain than it should be.</p>"
    )


def _measurements(found: Sequence[Measurement], evidence: Evidence) -> str:
    heads = [("", "Metric"), ("n", "Rows"), ("n", "Candidate"), ("n", "Champion"), ("n", "Difference")]
    heads += [("n", f"{evidence.confidence:.0%} interval"), ("", "Note")]
    if found[0].slice is not None:
        heads.insert(0, ("", "Slice"))
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in heads)
    return f"<table><tr>{head}</tr>{''.join(_row(one, evidence) for one in found)}</table>"


def _row(one: Measurement, evidence: Evidence) -> str:
    better = one.difference is not None and one.difference > 0
    way = "" if not one.difference else "better" if better else "worse"
    interval = "" if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}"
    lower = "" if evidence.metrics.get(one.metric, True) else " (lower is better)"
    cells = [
        *([("", one.value or "")] if one.slice is not None else []),
        ("", one.metric + lower),
        ("n", f"{one.rows:,}"),
        ("n", _cell(one.candidate)),
        ("n", _cell(one.champion)),
        (f"n {way}", "" if one.difference is None else f"{one.difference:+.4f}"),
        ("n", interval),
        ("", one.note),
    ]
    return "<tr>" + "".join(f'<td class="{kind}">{escape(text)}</td>' for kind, text in cells) + "</tr>"


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole HTML page without scripts or outside files. ``title`` is text, ``parts`` are HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>"
    )
