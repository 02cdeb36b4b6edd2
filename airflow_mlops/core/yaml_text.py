"""Write YAML that every reader takes for exactly what was meant.

Words that YAML could take for something else are quoted, and no value can break out of its line or comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 118
#: Plain text that no reader, of YAML 1.1 or 1.2, takes for anything else.
_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(?:[-. ][A-Za-z0-9_]+)*$")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


def scalar(value: Any) -> str:
    """Return text, a number, a truth value or None as one YAML scalar on one line.

    :raises ValueError: a float is not finite.
    :raises TypeError: it is none of these.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in a contract or specification: write a finite number")
        return repr(value)
    if isinstance(value, str):
        plain = _PLAIN.match(value) and value.lower() not in _WORDS
        return value if plain else '"' + "".join(map(_escaped, value)) + '"'
    raise TypeError(f"{type(value).__name__} is no YAML scalar")


def flow(value: Any) -> str:
    """Return a value with what is in it on one line: ``{column: x, value_set: [1, 2]}``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def entry(key: str, value: Any, indent: int) -> str:
    """Return ``key: value`` indented, on one line where it fits, else with lists and mappings broken over several."""
    space = " " * indent
    line = f"{space}{scalar(key)}: {flow(value)}"
    if len(line) <= WIDTH or not isinstance(value, Mapping | list | tuple) or not value:
        return line
    if isinstance(value, Mapping):
        inner = "\n".join(entry(name, item, indent + 2) for name, item in value.items())
        return f"{space}{scalar(key)}:\n{inner}"
    return f"{space}{scalar(key)}:\n{space}  [\n{_filled(value, indent + 4)}\n{space}  ]"


def comment(text: str, indent: int = 0) -> str:
    """Return text as comment lines of at most :data:`WIDTH` characters, as far as its words allow."""
    head = " " * indent + "#"
    lines, line = [], head
    for word in "".join(char if char.isprintable() else _escaped(char) for char in text).split(" "):
        if len(line) + 1 + len(word) > WIDTH and line != head:
            lines.append(line)
            line = head
        line = f"{line} {word}"
    return "\n".join([*lines, line])


def _filled(items: Sequence[Any], indent: int) -> str:
    lines, line = [], ""
    for text in map(flow, items):
        if line and indent + len(line) + len(text) + 2 > WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {text}," if line else f"{text},"
    return "\n".join(f"{' ' * indent}{one}" for one in [*lines, line])


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    # JSON writes what lies beyond 16 bits as two escapes, which YAML would read as two characters.
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
