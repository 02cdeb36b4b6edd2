"""A specification with everything filled in, and where each value is from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from airflow_mlops.core.windows import Length
from airflow_mlops.core.yaml_text import comment, entry, flow, scalar
from airflow_mlops.spec.layers import Layered
from airflow_mlops.spec.model import ModelSpec, RuntimeSpec
from airflow_mlops.spec.strict import CREDENTIALS, is_secret_address, secret_in

HIDDEN = "(hidden)"
_COLUMN = 72
#: Beside secret addresses, what a log should not show: what may be a signed address, a webhook, or authorise a request.
_SECRET_LOOK = re.compile(
    r"[?&;][\w.-]{0,64}(?:token|secret|passw(?:or)?d|pwd|sig|signature|api-?_?key|access-?_?key|accountkey|credential)"
    r"=[^&;\s]"
    r"|[?&]key=[\w-]{20}"
    r"|://hooks\.|^(?:bearer|basic) +\S",
    re.IGNORECASE,
)
_SECRET_KEY = re.compile(r"(?:^|[_-])(?:authorization|webhook(?:_url)?|dsn|connection_string)$", re.IGNORECASE)

Location = tuple[Any, ...]


def plain(spec: ModelSpec) -> dict[str, Any]:
    """Return every key with its value or default as a person would write it; what looks like a secret is hidden."""
    found: dict[str, Any] = _plain(spec)
    return found


def origin_of(layered: Layered, given: Mapping[str, str], location: Location) -> dict[str, Any]:
    """Return where a key's value is from.

    ``from`` is ``file``, ``base``, ``profile``, ``default``, or ``given``: by argument or environment variable. With
    the first three ``file`` and ``line`` say where, and with ``profile`` which.
    """
    if location[0] in given:
        return {"from": "given"}
    for layer in reversed(layered.layers):
        value: Any = layer.data
        path: Location = ()
        for part in location:
            if not isinstance(value, Mapping) or part not in value:
                break
            value, path = value[part], (*path, part)
        # A list, a text or null in the way is the value of all below it.
        if path == location or (path and not isinstance(value, Mapping)):
            kind = "profile" if layer.keys else "file" if layer.file == layered.file else "base"
            place: dict[str, Any] = {"from": kind, "file": str(layer.file)}
            place["line"] = layer.line_of((*layer.keys, *path))
            return {**place, "profile": layer.keys[-1]} if layer.keys else place
    return {"from": "default"}


def origins(layered: Layered, given: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the origin of every value, by its dotted key."""
    return {".".join(map(str, at)): origin_of(layered, given, at) for at in _locations(values, ())}


def yaml_of(layered: Layered, given: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """Return the values as YAML, each line with the origin of its value as a comment."""
    return "\n".join(_lines(layered, given, values, ()))


def _plain(value: Any, key: str = "") -> Any:
    if isinstance(value, RuntimeSpec):
        return _plain(value.written)
    if isinstance(value, Length):
        return str(value)
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name, field in type(value).model_fields.items() if not field.exclude}
        return {name: _plain(one, name) for name, one in {**fields, **(value.model_extra or {})}.items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(one, str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, key) for one in value]
    return HIDDEN if isinstance(value, str) and value and _is_secret(key, value) else value


def _is_secret(key: str, value: str) -> bool:
    look = CREDENTIALS.search(value) or is_secret_address(value) or _SECRET_LOOK.search(value)
    return bool(look or _SECRET_KEY.search(key) or secret_in({key: ""}))


def _locations(values: Mapping[str, Any], above: Location) -> Iterator[Location]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _locations(value, (*above, key))
        else:
            yield (*above, key)


def _lines(layered: Layered, given: Mapping[str, str], values: Mapping[str, Any], above: Location) -> Iterator[str]:
    indent = 2 * len(above)
    for key, value in values.items():
        location = (*above, key)
        head = f"{' ' * indent}{scalar(key)}:"
        if isinstance(value, Mapping) and value:
            yield head
            yield from _lines(layered, given, value, location)
            continue
        said = _words(layered, origin_of(layered, given, location))
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            yield _noted(head, said)
            yield from (f"{' ' * indent}  - {flow(one)}" for one in value)
            continue
        first, *rest = entry(key, value, indent).splitlines()
        yield _noted(first, said)
        yield from rest


def _noted(line: str, said: str) -> str:
    return f"{line:<{_COLUMN}}{comment(said, 2)}"


def _words(layered: Layered, origin: Mapping[str, Any]) -> str:
    if origin["from"] == "given":
        return "by argument or environment variable"
    if origin["from"] == "default":
        return "default"
    file = Path(origin["file"])
    # A base is known by its whole path, a model's file as it was asked for.
    beside = file == layered.file or file.parent == layered.file.resolve().parent
    shown = file.name if beside else str(file)
    kinds = {"file": "", "base": "base ", "profile": f"profile {origin.get('profile')}, "}
    return f"{kinds[origin['from']]}{shown}:{origin['line']}"
