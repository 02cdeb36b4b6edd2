"""Docstrings as Markdown: the package's docstrings are plain text with a little reStructuredText in it.

Read statically by griffe, so that the reference needs nothing of what the package works with.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:py:)?(?:class|func|meth|mod|data|attr|exc):`~?([\w.]+)`")
_RULE = re.compile(r"^=+(?: +=+)+$")


class PlainMarkup(griffe.Extension):
    """Turns roles, tables and term lists of every docstring into Markdown before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of ``obj``, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Return a docstring as Markdown: roles become code, simple tables and term lists become Markdown's own."""
    text = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    return "\n".join(_terms(_tables(text.split("\n"))))


def _tables(lines: list[str]) -> list[str]:
    made: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number].rstrip()
        if not _RULE.match(line.strip()):
            made.append(lines[number])
            number += 1
            continue
        starts = [match.start() for match in re.finditer(r"=+", line)]
        end = next(n for n in range(len(lines) - 1, number, -1) if lines[n].strip() == line.strip())
        rows = [lines[n] for n in range(number + 1, end) if not _RULE.match(lines[n].strip())]
        has_head = any(_RULE.match(lines[n].strip()) for n in range(number + 1, end))
        cells = [_cells(row, starts) for row in rows if row.strip()]
        if not has_head:
            cells.insert(0, [""] * len(starts))
        if made and made[-1].strip():
            made.append("")
        made += [_row(cells[0]), _row(["---"] * len(starts)), *map(_row, cells[1:])]
        number = end + 1
    return made


def _cells(row: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], None]
    return [row[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _terms(lines: list[str]) -> list[str]:
    """Write a line that is one ``term``, followed by an indented explanation, as Markdown's definition list."""
    made: list[str] = []
    explained = False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"`{1,2}[^`]+`{1,2}", line) and following.startswith("    "):
            made += ["", line]
            explained = True
        elif explained:
            made.append(f":   {line.strip()}")
            explained = False
        else:
            made.append(line)
    return made
