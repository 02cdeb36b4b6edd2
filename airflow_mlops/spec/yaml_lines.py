"""Read YAML or JSON and keep the line of every key, so that a mistake can be pointed at.

Only plain data is built: no tag can make an object. A key that is written twice is refused, because YAML would silently
keep the last one. Words mean what they look like, as in YAML 1.2: ``NO``, ``on`` and ``2013-01-01`` are text, ``010``
is text, ``1e-3`` is a number; only ``true`` and ``false`` are truth values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from airflow_mlops.errors import InvalidSpecError

Locate = Callable[[Sequence[Any]], int]

_MOST_NODES = 200_000
_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", *_PLAIN)} - {"tag:yaml.org,2002:merge"}


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader with the plain words of YAML 1.2."""


_PlainLoader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _PLAIN.items():
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))
# The loader's own reader of floats takes ``1e3`` for an error.
_PlainLoader.add_constructor(
    "tag:yaml.org,2002:float",
    lambda loader, node: float(str(node.value).replace(".inf", "inf").replace(".nan", "nan").lower().lstrip("+")),
)


def load_yaml(path: str | Path) -> tuple[Any, Locate]:
    """Return the data of a YAML or JSON file and a function from a place in it to its line.

    The function takes a location such as pydantic reports, ``("gate", "rules", 0, "metric")``, and answers with the
    line, counted from 1, of that key, or of the nearest key around it that the file holds.

    :raises InvalidSpecError: the file cannot be read, is not valid YAML or JSON, or holds a key twice; the message
        names file and line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise InvalidSpecError(f"{file} does not exist. Check the path; relative ones start at {Path.cwd()}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidSpecError(f"{file} is not UTF-8 text (byte {exc.start}). Save it as UTF-8.") from exc
    except OSError as exc:
        raise InvalidSpecError(f"{file} cannot be read: {exc.strerror or exc}.") from exc
    if file.suffix.lower() != ".json":
        return parse_yaml(text, str(file))
    data = _parse_json(text, str(file))
    try:
        # Raw tabs cannot stand inside a JSON string, so blanks in their place change nothing but please YAML.
        return data, parse_yaml(text.replace("\t", " "), str(file))[1]
    except InvalidSpecError:
        return data, lambda location: 1


def parse_yaml(text: str, name: str) -> tuple[Any, Locate]:
    """Do the work of :func:`load_yaml` on ``text``; ``name`` stands for the file in messages."""
    loader = _PlainLoader(text)
    lines: dict[tuple[Any, ...], int] = {(): 1}
    try:
        node = loader.get_single_node()
        data = None if node is None else _build(loader, node, (), lines, name, ())
    except InvalidSpecError:
        raise
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidSpecError(
            f"{name}, line {line}: this is not valid YAML: {exc.problem or exc.context}. Check indentation, quotes and "
            f"colons on this line and the one before."
        ) from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise InvalidSpecError(f"{name}: this is not valid YAML: {' '.join(str(exc).split())}.") from exc
    finally:
        loader.dispose()

    def locate(location: Sequence[Any]) -> int:
        place: tuple[Any, ...] = ()
        for part in location:
            # Pydantic puts names of its own between keys (a union's branch, a validator): step over them.
            if (*place, part) in lines:
                place = (*place, part)
        return lines[place]

    return data, locate


def _build(
    loader: _PlainLoader,
    node: yaml.Node,
    place: tuple[Any, ...],
    lines: dict[tuple[Any, ...], int],
    name: str,
    above: tuple[int, ...],
) -> Any:
    line = node.start_mark.line + 1
    if id(node) in above:
        raise InvalidSpecError(f"{name}, line {line}: an alias leads back to itself. Write the part out.")
    if len(lines) > _MOST_NODES:
        raise InvalidSpecError(f"{name}: more than {_MOST_NODES} entries; aliases that multiply are not followed.")
    above = (*above, id(node))
    lines.setdefault(place, line)
    if isinstance(node, yaml.SequenceNode):
        _require(node, "seq", name)
        return [_build(loader, item, (*place, number), lines, name, above) for number, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        if node.tag not in _SCALARS:
            _require(node, "str", name)
        return loader.construct_object(node)
    _require(node, "map", name)
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise InvalidSpecError(f"{name}, line {key_node.start_mark.line + 1}: a key must be plain text.")
        at = key_node.start_mark.line + 1
        key = key_node.value
        if key in seen:
            raise InvalidSpecError(
                f"{name}, line {at}: the key {key!r} stands here a second time (first on line {seen[key]}). "
                f"Remove one of them."
            )
        seen[key] = at
    loader.flatten_mapping(node)
    built: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        lines[(*place, key)] = key_node.start_mark.line + 1
        built[key] = _build(loader, value_node, (*place, key), lines, name, above)
    return built


def _require(node: yaml.Node, kind: str, name: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise InvalidSpecError(
            f"{name}, line {node.start_mark.line + 1}: the tag {node.tag!r} is not allowed; only plain data is read."
        )


def _parse_json(text: str, name: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
        if twice:
            raise InvalidSpecError(f"{name}: the key {twice[0]!r} stands twice in one object. Remove one of them.")
        return dict(pairs)

    def no_number(word: str) -> Any:
        raise InvalidSpecError(f"{name}: {word} is not a JSON number. Write a finite number or null.")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except json.JSONDecodeError as exc:
        raise InvalidSpecError(f"{name}, line {exc.lineno}: this is not valid JSON: {exc.msg}.") from exc
