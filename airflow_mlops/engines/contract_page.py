"""The contract report: one HTML page without scripts or outside files.

Great Expectations can render a page of its own, but it fails on numpy numbers, loads styles from a content network that
a closed network lacks, and prints values of rows. This one holds counts, shares, limits and sentences only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem;margin:0 0 .3rem}table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #d5dae0;vertical-align:top}
th{font-weight:600;background:#f4f6f8}code{font-size:.9em;overflow-wrap:anywhere}
.mark{font-weight:600;white-space:nowrap}.fail,.error{color:#a40e26}.warn,.quarantine{color:#7a4a00}.pass{color:#116329}
.unchecked{color:#57606a}.note{color:#57606a}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}
dt{color:#57606a}dd{margin:0}
"""
_ORDER = ("error", "fail", "quarantine", "warn", "unchecked", "pass")


@dataclass(frozen=True)
class ReportLine:
    """One expectation in the report; ``mark`` is its word and colour."""

    mark: str
    expectation: str
    on_failure: str
    sentence: str
    notes: str | None = None


def render_page(
    *,
    verdict: str,
    sentence: str,
    facts: Sequence[tuple[str, str]],
    findings: Sequence[str],
    lines: Sequence[ReportLine],
) -> str:
    """Return the page.

    :param facts: names and values for the head: dataset, window, rows.
    :param findings: sentences that belong to no single expectation, such as too few rows.
    """
    head = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    general = "".join(f'<p class="fail">{escape(text)}</p>' for text in findings)
    rows = "".join(
        f'<tr><td class="mark {escape(line.mark)}">{escape(line.mark)}</td><td>{escape(line.sentence)}'
        f"{f'<div class=note>{escape(line.notes)}</div>' if line.notes else ''}</td>"
        f"<td><code>{escape(line.expectation)}</code></td><td>{escape(line.on_failure)}</td></tr>"
        # What is wrong first; within one kind as the contract has them.
        for line in sorted(lines, key=lambda line: _ORDER.index(line.mark) if line.mark in _ORDER else 0)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data contract: {escape(verdict)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>"
        f'<h1>Data contract: <span class="{escape(verdict)}">{escape(verdict)}</span></h1><p>{escape(sentence)}</p>'
        f"<dl>{head}</dl>{general}<table><thead><tr><th>Outcome</th><th>What was found</th><th>Expectation</th>"
        f"<th>On failure</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="note">Shares of row-wise expectations are of the rows that have a value. No row is shown here.</p>'
        f"</main></body></html>\n"
    )
