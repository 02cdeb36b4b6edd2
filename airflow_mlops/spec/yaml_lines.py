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
from typing import Any, cast

import yaml
from yaml.reader import ReaderError

from airflow_mlops.errors import InvalidSpecError

Locate = Callable[[Sequence[Any]], int]

#: A file that is larger is data that lies there by mistake, and would be read for longer than a parse may take.
MOST_BYTES = 4_000_000
_MOST_NODES = 200_000
_MOST_DEEP = 5_000
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

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = {_TEXT, *(f"tag:yaml.org,2002:{kind}" for kind in _PLAIN)} - {_MERGE}


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader with the plain words of YAML 1.2."""


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two loaders
    """The same through libyaml, some ten times as fast; the slow one where PyYAML was built without."""


for _loader in (_PlainLoader, _QuickLoader):
    _loader.yaml_implicit_resolvers = {}
    for _kind, (_pattern, _first) in _PLAIN.items():
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))
    # The loader's own reader of floats takes ``1e3`` for an error.
    _loader.add_constructor(
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
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise InvalidSpecError(
                f"{file} has {size:,} bytes; what is read here has at most {MOST_BYTES:,}. Move data out of the "
                f"folder, or give it a name that begins with `_`."
            )
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
    known: list[Locate] = []

    def locate(location: Sequence[Any]) -> int:
        # Only a mistake asks for a line, and most files have none.
        if not known:
            try:
                # Raw tabs cannot stand inside a JSON string, so blanks in their place change nothing but please YAML.
                known.append(parse_yaml(text.replace("\t", " "), str(file))[1])
            except InvalidSpecError:
                known.append(lambda location: 1)
        return known[0](location)

    return data, locate


def parse_yaml(text: str, name: str) -> tuple[Any, Locate]:
    """Do the work of :func:`load_yaml` on ``text``; ``name`` stands for the file in messages."""
    # Libyaml overruns the stack, and takes the process with it, where some ten thousand parts stand in one another.
    if sum(map(text.count, "[{-?")) < _MOST_DEEP:
        try:
            return _parse(_QuickLoader, text, name)
        except yaml.YAMLError:
            pass  # the loader written in Python says better what is wrong
    try:
        return _parse(_PlainLoader, text, name)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidSpecError(
            f"{name}, line {line}: this is not valid YAML: {exc.problem or exc.context}. Check indentation, quotes and "
            f"colons on this line and the one before."
        ) from exc
    except ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise InvalidSpecError(
            f"{name}, line {line}: this is not valid YAML: the character {chr(exc.character)!r} may not stand here. "
            f"Remove it."
        ) from exc
    except yaml.YAMLError as exc:
        raise InvalidSpecError(f"{name}: this is not valid YAML: {' '.join(str(exc).split())}.") from exc


def _parse(kind: type[Any], text: str, name: str) -> tuple[Any, Locate]:
    loader = kind(text)
    try:
        root = loader.get_single_node()
        data = None if root is None else _Builder(loader, name).build(root, ())
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, InvalidSpecError):
            raise
        said = "it is nested too deeply" if isinstance(exc, RecursionError) else " ".join(str(exc).split())
        raise InvalidSpecError(f"{name}: this is not valid YAML: {said}.") from exc
    finally:
        loader.dispose()
    return data, lambda location: _line(root, location)


def _line(root: yaml.Node | None, location: Sequence[Any]) -> int:
    """Return the line of the key at ``location``, or of the nearest one around it, from the nodes as they were read."""
    node, line = root, 1 if root is None else root.start_mark.line + 1
    for part in location:
        # Pydantic puts names of its own between keys (a union's branch, a validator): step over them.
        if isinstance(node, yaml.MappingNode):
            # The last one: what was merged in with ``<<`` stands before what is written here.
            for key_node, value_node in reversed(node.value):
                if key_node.value == str(part):
                    node, line = value_node, key_node.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


class _Builder:
    """Make plain data of nodes: no tag acts, no key stands twice, no alias goes round or multiplies."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader = loader
        self._name = name
        self._built = 0

    def build(self, node: yaml.Node, above: tuple[int, ...]) -> Any:
        """Return the data of ``node``; ``above`` are the nodes that it stands in."""
        self._count(1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        above = self._below(node, above)
        if isinstance(node, yaml.SequenceNode):
            _require(node, "seq", self._name)
            return [self.build(item, above) for item in node.value]
        _require(node, "map", self._name)
        seen: dict[Any, int] = {}
        merges = False
        for key_node, _ in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidSpecError(f"{self._name}, line {at}: a key must be plain text.")
            key = key_node.value
            if key in seen:
                raise InvalidSpecError(
                    f"{self._name}, line {at}: the key {key!r} stands here a second time (first on line {seen[key]}). "
                    f"Remove one of them."
                )
            seen[key] = at
            merges = merges or key_node.tag == _MERGE
        if merges:
            self._merge(cast("yaml.MappingNode", node), above[:-1])
        return {self._scalar(key_node): self.build(value_node, above) for key_node, value_node in node.value}

    def _merge(self, node: yaml.MappingNode, above: tuple[int, ...]) -> None:
        """Put what ``<<`` names before what the mapping says itself, each key once.

        The loader's own way keeps every entry of every alias, so that a few lines of merges fill the memory.
        """
        above = self._below(node, above)
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            # Of several, the first that has a key counts.
            for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                if not isinstance(source, yaml.MappingNode):
                    raise InvalidSpecError(
                        f"{self._name}, line {source.start_mark.line + 1}: `<<` takes a mapping or a list of them, "
                        f"such as `<<: *shared`."
                    )
                self._merge(source, above)
                self._count(len(source.value))
                for pair in source.value:
                    merged.setdefault(str(pair[0].value), pair)
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        written = {str(key_node.value) for key_node, _ in own}
        node.value = [*(pair for key, pair in merged.items() if key not in written), *own]

    def _below(self, node: yaml.Node, above: tuple[int, ...]) -> tuple[int, ...]:
        if id(node) in above:
            line = node.start_mark.line + 1
            raise InvalidSpecError(f"{self._name}, line {line}: an alias leads back to itself. Write the part out.")
        return (*above, id(node))

    def _count(self, entries: int) -> None:
        self._built += entries
        if self._built > _MOST_NODES:
            raise InvalidSpecError(
                f"{self._name}: more than {_MOST_NODES} entries; aliases that multiply are not followed."
            )

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == _TEXT:
            return node.value
        if node.tag not in _SCALARS:
            _require(node, "str", self._name)
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError):  # an enormous number, or a tag that its text does not fit
            raise InvalidSpecError(
                f"{self._name}, line {node.start_mark.line + 1}: {str(node.value)[:40]!r} cannot be read as "
                f"{node.tag.rpartition(':')[2]}. Correct it, or put quotes around it and leave the tag out."
            ) from None


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
            parse_yaml(text.replace("\t", " "), name)  # it says the same, and the line
            raise InvalidSpecError(f"{name}: the key {twice[0]!r} stands twice in one object. Remove one of them.")
        return dict(pairs)

    def no_number(word: str) -> Any:
        raise InvalidSpecError(f"{name}: {word} is not a JSON number. Write a finite number or null.")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except json.JSONDecodeError as exc:
        raise InvalidSpecError(f"{name}, line {exc.lineno}: this is not valid JSON: {exc.msg}.") from exc
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, InvalidSpecError):
            raise
        said = "it is nested too deeply" if isinstance(exc, RecursionError) else "a number has too many digits"
        raise InvalidSpecError(f"{name}: this cannot be read as JSON: {said}.") from exc
