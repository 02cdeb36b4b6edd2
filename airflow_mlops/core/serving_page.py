"""What a person reads in MLflow about a serving check."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_mlops.core.pages import page
from airflow_mlops.core.records import ServingReport, VersionDifference
from airflow_mlops.core.rules import number

_MIB = 1024 * 1024


def serving_page(
    report: ServingReport, differences: Sequence[VersionDifference], *, output: str = "", traceback: str = ""
) -> str:
    """Return the check as one HTML page without scripts: the finding, its numbers, and every differing version.

    :param differences: all of them; the record has the first ones only.
    :param output: the last lines of what the fresh interpreter, or the installer, wrote.
    :param traceback: of the error that the model raised.
    """
    parts = [f'<p class="{"pass" if report.ok else "fail"}"><strong>{escape(report.sentence)}</strong></p>']
    if report.problem:
        parts.append(f"<p>{escape(report.problem.partition(chr(10))[0])}</p>")
    parts.append(_table([("", "What"), ("n", "Measured")], _numbers(report)))
    if differences:
        parts.append("<h2>Versions that are not those of the training</h2>")
        rows = [(one.name, one.recorded or "any", one.installed or "not installed") for one in differences]
        parts.append(_table([("", "Name"), ("n", "Trained with"), ("n", "Here")], rows))
    for title, text in (("Where the model failed", traceback), ("Last lines of output", output)):
        if text.strip():
            parts.append(f"<h2>{title}</h2><pre>{escape(text)}</pre>")
    return page(f"Serving check: {'passed' if report.ok else 'failed'}", parts)


def _numbers(report: ServingReport) -> list[tuple[str, ...]]:
    where = "libraries installed on the worker" if report.env == "installed" else "built from the model's requirements"
    calls = f"median of {report.repeats:,} calls of {report.rows:,} rows"
    peak = None if report.peak_memory_bytes is None else report.peak_memory_bytes / _MIB
    found = [
        ("Model", report.model_uri),
        ("Digest", report.digest),
        ("Environment", where),
        ("Python", report.python_version),
        ("Loading", _shown(report.load_seconds, "s")),
        (f"One call ({calls})", _shown(report.call_milliseconds, "ms")),
        ("One row (the call's time by its rows)", _shown(report.row_milliseconds, "ms")),
        ("Peak memory", _shown(peak, "MiB")),
        ("Size of the model's files", f"{report.size_bytes:,} bytes"),
    ]
    return [(name, value or "not measured") for name, value in found]


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{number(value)} {unit}"


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{escape(cell)}</td>' for (kind, _), cell in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
