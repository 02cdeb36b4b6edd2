"""One model's specification from its layers: its base, its own file, and what the chosen profile changes.

Later layers are laid over earlier ones: the base (``extends``), the file, the base's profile, the file's own profile.
Mappings are merged key by key; a list, a text, a number and ``null`` replace what stood there. Every key keeps its
file and line, so a mistake is told where it was written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.cache import State, state_of
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.yaml_lines import Locate, load_yaml

#: Keys of a file that are not keys of the specification.
EXTENDS, PROFILES = "extends", "profiles"
#: What files may end in.
SUFFIXES = (".yaml", ".yml", ".json")

#: What a profile may change: these keys of the specification, and everything below them.
PROFILE_KEYS = (
    # connections
    "mlflow_conn_id",
    "promotion.mlflow_conn_id",
    "data.conn_id",
    "scoring.data.conn_id",
    "scoring.output_conn_id",
    "labels.data.conn_id",
    # where rows come from and go to; a data source's options name its table
    "data.uri",
    "data.copy_to",
    "data.options",
    "scoring.output_uri",
    "scoring.data.uri",
    "scoring.data.copy_to",
    "scoring.data.options",
    "labels.data.uri",
    "labels.data.copy_to",
    "labels.data.options",
    # schedules, and how long is waited
    "schedule",
    "scoring.schedule",
    "scoring.wait",
    "labels.poll_seconds",
    "monitoring.schedule",
    # resources
    "runtime",
    "step_runtimes",
    "serving.timeout_seconds",
    "serving.build_timeout_seconds",
    "serving.memory_mb",
    "scoring.chunk_rows",
    # who is told, and who answers for it
    "owner",
    "tags",
    "notifications",
)
PURPOSE = (
    "A profile changes connections, URIs, schedules and resources, and who owns the model and is told; training code, "
    "contract and gate rules are the same everywhere"
)
_ALLOWED = frozenset(PROFILE_KEYS)
_PARENTS = frozenset(".".join(key.split(".")[:depth]) for key in PROFILE_KEYS for depth in range(1, key.count(".") + 1))
_PROFILE_NAME = re.compile(r"[a-z][a-z0-9]{0,29}")


@dataclass(frozen=True)
class Layer:
    """One mapping of one file: the whole of it, or one of its profiles."""

    file: Path
    keys: tuple[str, ...]
    data: Mapping[str, Any]
    line_of: Locate
    #: What the file looked like before it was read; None for a part of it.
    state: State | None = None

    def place(self, location: Sequence[Any]) -> str:
        """Return ``FILE, line N`` of a key in this layer."""
        return f"{self.file}, line {self.line_of((*self.keys, *location))}"


@dataclass(frozen=True)
class Layered:
    """The layers of one model's specification, and what they make together."""

    #: The model's own file; relative paths in the specification, its base's too, start from its folder.
    file: Path
    #: Every file that was read: the model's own, and its base.
    files: tuple[Path, ...]
    #: The profile that was chosen; None where none was.
    profile: str | None
    #: The names of all profiles that the files define.
    profiles: tuple[str, ...]
    #: From the lowest to the topmost.
    layers: tuple[Layer, ...]
    #: The specification's keys, merged, without ``extends`` and ``profiles``.
    data: dict[str, Any]

    def place(self, location: Sequence[Any]) -> str:
        """Return ``FILE, line N`` of the key that counts at ``location``, or of the nearest one around it."""
        above = [(layer, layer.data) for layer in reversed(self.layers)]
        found, path = self.layers[-1], list[Any]()
        # A file's own place is a better answer than a profile's where the whole specification is meant.
        found = next((layer for layer, _ in above if layer.file == self.file and not layer.keys), found)
        for part in location:
            having = [(layer, value[part]) for layer, value in above if isinstance(value, Mapping) and part in value]
            listed = above[0][1] if above else None
            if not having and isinstance(listed, list) and isinstance(part, int) and part < len(listed):
                having = [(above[0][0], listed[part])]
            if not having:
                continue  # a name of pydantic's own, or a key that is missing
            path.append(part)
            above = []
            for layer, value in having:
                above.append((layer, value))
                if not isinstance(value, Mapping):
                    break  # it hides what is below
            found = above[0][0]
        return found.place(path)

    def of(self, profile: str) -> Layered:
        """Return the same files with another profile chosen."""
        return _layered(self.file, self.files, _whole(self.layers), profile, choose=profile)


def read_layers(path: str | Path, profile: str | None = None) -> Layered:
    """Read one model's file, its base, and the profile's part of both.

    Everything about the layers themselves is checked, the profiles that are not chosen included; whether the merged
    keys are a valid specification is not.

    :param path: a YAML or JSON file.
    :param profile: the profile to lay over it; None: what the file or its base says under ``profile``, else none.
    :raises InvalidSpecError: a file cannot be read, ``extends`` or ``profiles`` is not valid, a profile changes what it
        may not, or the files define profiles and not this one; each mistake is named with file and line.
    """
    file = Path(path)
    own = _read(file, "a model specification is a mapping that starts with `name:`")
    if own.data and not own.data.keys() & {*fields_at(()), EXTENDS, PROFILES}:
        raise InvalidSpecError(
            f"{file}: this is no model: it has none of a specification's keys, but {', '.join(map(str, own.data))}. "
            f"Give a file that is none a name that begins with `_`, or move it out of the folder."
        )
    whole = [own]
    if EXTENDS in own.data:
        whole.insert(0, _base(own))
    mistakes = [mistake for layer in whole for mistake in _profile_mistakes(layer)]
    if mistakes:
        raise InvalidSpecError("\n".join(mistakes))
    return _layered(file, (file, *(layer.file for layer in whole if layer is not own)), whole, profile, choose=None)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` laid over it: mappings key by key, anything else replaced."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[key] = merged(under, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result


def fields_at(location: Sequence[Any]) -> tuple[str, ...]:
    """Return the keys that the specification knows at ``location``, sorted; none where any key may stand."""
    model: type[BaseModel] | None = ModelSpec
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part)) if model is not None else None
        model = None if field is None else _model_in(field.annotation)
        if model is None:
            return ()
    return tuple(sorted(set(model.model_fields) - {"folder"})) if model is not None else ()


def nearest(key: Any, known: Sequence[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of ``known``, or nothing."""
    close = get_close_matches(str(key), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _layered(
    file: Path, files: tuple[Path, ...], whole: Sequence[Layer], profile: str | None, *, choose: str | None
) -> Layered:
    bodies = [
        Layer(layer.file, (), {k: v for k, v in layer.data.items() if k not in (EXTENDS, PROFILES)}, layer.line_of)
        for layer in whole
    ]
    data: dict[str, Any] = {}
    for layer in bodies:
        data = merged(data, layer.data)
    names = tuple(dict.fromkeys(str(name) for layer in whole for name in layer.data.get(PROFILES) or ()))
    said = data.get("profile")
    chosen = choose or profile or (said if isinstance(said, str) else None)
    layers = [*whole]
    if chosen is not None and any(PROFILES in layer.data for layer in whole):
        if chosen not in names:
            written = next(layer for layer in reversed(whole) if PROFILES in layer.data)
            raise InvalidSpecError(
                f"{written.place((PROFILES,))}: there is no profile {chosen!r} here.{nearest(chosen, names)} Known: "
                f"{', '.join(names) or 'none'}. Where {chosen} changes nothing, say so: add `{chosen}: {{}}` under "
                f"profiles."
            )
        for layer in whole:
            changes = (layer.data.get(PROFILES) or {}).get(chosen)
            if changes:
                layers.append(Layer(layer.file, (PROFILES, chosen), changes, layer.line_of))
                data = merged(data, changes)
    return Layered(file, files, chosen, names, tuple(layers), data)


def _whole(layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if not layer.keys]


def _read(file: Path, what: str) -> Layer:
    try:
        state = state_of(file.stat())
    except (OSError, ValueError):
        state = None  # reading it says why
    data, line_of = load_yaml(file)
    if not isinstance(data, Mapping):
        held = "nothing" if data is None else type(data).__name__
        raise InvalidSpecError(f"{file}: {what}; this file holds {held}.")
    layer = Layer(file, (), data, line_of, state)
    if "folder" in data:
        raise InvalidSpecError(f"{layer.place(('folder',))}: 'folder' is set by the loader; remove it.")
    return layer


def _base(own: Layer) -> Layer:
    """Read the base that a file extends."""
    written, place = own.data[EXTENDS], own.place((EXTENDS,))
    if not isinstance(written, str) or not written:
        raise InvalidSpecError(
            f"{place}: extends is {written!r}; it names one file, by its path from this file's folder, as _base.yaml."
        )
    if "://" in written or not written.lower().endswith(SUFFIXES):
        raise InvalidSpecError(
            f"{place}: extends is {written!r}; a base is a YAML or JSON file beside the models, such as _base.yaml."
        )
    if Path(written).is_absolute():
        raise InvalidSpecError(
            f"{place}: extends is {written!r}; write the path from this file's folder, such as ../_base.yaml, so that "
            f"it is right on every machine."
        )
    file = _beside(own, written)
    if _is_same(file, own.file):
        raise InvalidSpecError(f"{place}: extends names this file itself. Name another one, or remove extends.")
    try:
        there = file.is_file()
    except (OSError, ValueError):  # no name that a file may have, or a folder that may not be looked into
        there = False
    if not there:
        raise InvalidSpecError(
            f"{place}: extends is {written!r}, and there is no file {file}. Create it, or correct the path (it starts "
            f"from this file's folder).{_like(file)}"
        )
    base = _read(file, "a base is a mapping of a specification's keys")
    if EXTENDS in base.data:
        inner = base.data[EXTENDS]
        circle = isinstance(inner, str) and _is_same(_beside(base, inner), own.file)
        raise InvalidSpecError(
            f"{base.place((EXTENDS,))}: {file.name} is the base of {own.file.name}"
            + (", and extends it in turn, a circle." if circle else ", and a base extends nothing itself.")
            + f" Remove extends here; what several bases share is written into each, or {own.file.name} holds it."
        )
    return base


def _beside(layer: Layer, path: str) -> Path:
    return Path(os.path.normpath(layer.file.resolve().parent / path))


def _is_same(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except (OSError, ValueError):
        return False


def _like(file: Path) -> str:
    try:
        there = [one.name for one in file.parent.iterdir() if one.name.lower().endswith(SUFFIXES)]
    except (OSError, ValueError):
        return ""
    return nearest(file.name, there)


def _profile_mistakes(layer: Layer) -> list[str]:
    """Return what is wrong with the profiles of one file."""
    if PROFILES not in layer.data:
        return []
    profiles = layer.data[PROFILES]
    if profiles is not None and not isinstance(profiles, Mapping):
        return [
            f"{layer.place((PROFILES,))}: profiles is a mapping from a profile's name to what it changes, such as "
            f"`profiles: {{dev: {{schedule: {{cron: null}}}}}}`; here it is {type(profiles).__name__}."
        ]
    mistakes = []
    for name, changes in (profiles or {}).items():
        place = layer.place((PROFILES, name))
        if not isinstance(name, str) or not _PROFILE_NAME.fullmatch(name):
            mistakes.append(
                f"{place}: {name!r} cannot be a profile's name: it takes small letters and digits, a letter first, at "
                f"most 30, such as dev."
            )
        elif changes is not None and not isinstance(changes, Mapping):
            mistakes.append(f"{place}: profiles.{name} is a mapping of keys to change, not {type(changes).__name__}.")
        else:
            mistakes.extend(_forbidden(layer, (PROFILES, name), (), changes or {}))
    return mistakes


def _forbidden(layer: Layer, top: tuple[str, ...], path: tuple[Any, ...], part: Mapping[str, Any]) -> list[str]:
    mistakes = []
    for key, value in part.items():
        here = (*path, key)
        dotted = ".".join(map(str, here))
        if dotted in _ALLOWED:
            continue
        if isinstance(value, Mapping) and dotted in _PARENTS:
            mistakes.extend(_forbidden(layer, top, here, value))
            continue
        known = fields_at(path)
        place = f"{layer.place((*top, *here))}: {'.'.join((*top, dotted))}"
        if known and key not in known and not (not path and key in (EXTENDS, PROFILES, "folder")):
            mistakes.append(f"{place} is not a key here.{nearest(key, known)} Known keys: {', '.join(known)}.")
        elif not path and key == "profile":
            mistakes.append(f"{place}: a profile does not choose a profile. Remove it.")
        else:
            below = [one for one in PROFILE_KEYS if one.startswith(f"{dotted}.")]
            what = f"; below it only {', '.join(below)}" if below else ""
            mistakes.append(f"{place} cannot be changed by a profile{what}. {PURPOSE}. Move it out of profiles.")
    return mistakes


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as ``ScoringSpec | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)
