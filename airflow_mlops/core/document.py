"""A small document (sections of facts, tables, lists, sentences and commands) and its Markdown and HTML renderings.

Both are made from one structure, so they cannot say different things. Every text is data: in either rendering it shows
as it is written and is never read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from airflow_mlops.core.pages import page

#: Characters of one text that a document shows.
MAX_TEXT = 600
#: Entries of one list or table, where the writer says nothing else; the rest is counted.
MAX_ENTRIES = 30


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A head and rows of as many cells; ``more`` rows were left out."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    more: int = 0


@dataclass(frozen=True)
class Bullets:
    """Sentences, one a line; ``more`` were left out."""

    items: Sequence[str]
    more: int = 0


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Block = Facts | Table | Bullets | Text | Commands


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A title and sections."""

    title: str
    sections: Sequence[Section]

    def to_markdown(self) -> str:
        """Return the document as Markdown with GitHub's tables."""
        parts = [f"# {markdown(self.title)}"]
        for section in self.sections:
            parts.append(f"## {markdown(section.title)}")
            parts.extend(_markdown(block) for block in section.blocks)
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """Return the document as one HTML page without scripts or outside files."""
        parts = []
        for section in self.sections:
            parts.append(f"<h2>{escape(one_line(section.title))}</h2>")
            parts.extend(_html(block) for block in section.blocks)
        return page(one_line(self.title), parts)


def bounded(items: Sequence[str], most: int = MAX_ENTRIES) -> Bullets:
    """Return the first ``most`` items as bullets, and how many more there are."""
    return Bullets(items[:most], max(0, len(items) - most))


def one_line(text: str) -> str:
    """Return a text on one line, cut to :data:`MAX_TEXT` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def markdown(text: str) -> str:
    """Return a text so that Markdown shows it as it is written."""
    line = escape(one_line(text), quote=False)
    line = re.sub(r"([\\`*\[\]|~])", r"\\\1", line)
    # Inside a word, as in roc_auc, an underscore is no markup.
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)
    # At the start of a line these would make a heading, a list or a rule.
    line = re.sub(r"^([#+\-=])", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)


def _markdown(block: Block) -> str:
    match block:
        case Facts(pairs):
            return "\n".join(["| | |", "|---|---|", *(f"| {markdown(k)} | {markdown(v)} |" for k, v in pairs)])
        case Table(head, rows, more):
            lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
            return "\n".join(lines) + (f"\n\nAnd {more:,} more." if more else "")
        case Bullets(items, more):
            lines = [f"- {markdown(item)}" for item in items]
            return "\n".join([*lines, *([f"- and {more:,} more"] if more else [])])
        case Text(text):
            return markdown(text)
        case Commands(lines):
            # Four blanks make code whatever is in it; a fence could be closed by a line of its own kind.
            return "\n".join(f"    {one_line(line)}" for line in lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def _html(block: Block) -> str:
    match block:
        case Facts(pairs):
            rows = "".join(f"<tr><th>{_cell(name)}</th><td>{_cell(value)}</td></tr>" for name, value in pairs)
            return f"<table>{rows}</table>"
        case Table(head, rows, more):
            top = "".join(f"<th>{_cell(name)}</th>" for name in head)
            body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<table><tr>{top}</tr>{body}</table>" + (f"<p>And {more:,} more.</p>" if more else "")
        case Bullets(items, more):
            lines = "".join(f"<li>{_cell(item)}</li>" for item in items)
            return f"<ul>{lines}{f'<li>and {more:,} more</li>' if more else ''}</ul>"
        case Text(text):
            return f"<p>{_cell(text)}</p>"
        case Commands(lines):
            return f"<pre>{escape(chr(10).join(map(one_line, lines)))}</pre>"


def _cell(text: str) -> str:
    return escape(one_line(text))
