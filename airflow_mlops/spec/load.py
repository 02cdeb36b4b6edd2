"""Read a model specification from YAML or JSON, with the place of every mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.layers import EXTENDS, PROFILES, Layered, fields_at, nearest, read_layers
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.templates import forbidden_templates

PROFILE_VARIABLE = "AIRFLOW_MLOPS_PROFILE"
OWNER_VARIABLE = "AIRFLOW_MLOPS_OWNER"

_KEY = re.compile(r"[a-z_]+(?:\.[a-z_]+|\[\d+\])*(?= )")
#: What pydantic calls what YAML calls otherwise.
_WORDS = {"a valid tuple": "a list", "a valid dictionary": "a mapping", "a valid list": "a list"}


def load_spec(path: str | Path, *, profile: str | None = None, owner: str | None = None) -> ModelSpec:
    """Return the specification in the file ``path``, with its base (``extends``) and the chosen profile's changes.

    All profiles that the file defines are checked, not only the chosen one.

    :param path: a YAML or JSON file; relative paths in it, and in its base, start from its folder.
    :param profile: where it runs, such as ``dev``; None: the environment variable ``AIRFLOW_MLOPS_PROFILE``, else what
        the file says. Outside ``prod``, names carry profile and owner. Where the file has ``profiles``, it must be one
        of them.
    :param owner: whose it is; None: the environment variable ``AIRFLOW_MLOPS_OWNER``, else what the file says.
    :raises InvalidSpecError: it cannot be read or is not valid; each mistake is named with file, line and key.
    """
    return resolve_spec(path, asked(profile, owner))[0]


def asked(profile: str | None, owner: str | None) -> dict[str, str]:
    """Return ``profile`` and ``owner`` as far as an argument or an environment variable gives them."""
    given = {
        "profile": profile or os.environ.get(PROFILE_VARIABLE),
        "owner": owner or os.environ.get(OWNER_VARIABLE),
    }
    return {key: value for key, value in given.items() if value}


def resolve_spec(path: str | Path, given: Mapping[str, str]) -> tuple[ModelSpec, Layered]:
    """Return the specification and the layers that it was made of.

    :param given: what :func:`asked` returned.
    :raises InvalidSpecError: as :func:`load_spec` does.
    """
    layered = read_layers(path, given.get("profile"))
    spec, mistakes = _checked(layered, given)
    for name in layered.profiles:
        if name != layered.profile:
            # Without the profile's name: whether the owner fits its names is known where it runs.
            found = _checked(layered.of(name), {**given, "profile": ""})[1]
            mistakes += [f"{said} (In the profile {name}.)" for said in found if said not in mistakes]
    if spec is None or mistakes:
        raise InvalidSpecError("\n".join(mistakes))
    return spec, layered


def spec_of(data: Mapping[str, Any], given: Mapping[str, str], folder: Path) -> ModelSpec:
    """Return the specification of merged keys.

    :param folder: where its relative paths start from, absolute.
    :raises pydantic.ValidationError: they are not valid.
    """
    return ModelSpec.model_validate({**data, **given, "folder": folder})


def _checked(layered: Layered, given: Mapping[str, str]) -> tuple[ModelSpec | None, list[str]]:
    """Return the specification, and a sentence with the place for each mistake."""
    mistakes = []
    spec = None
    chosen = {key: value or None for key, value in given.items()}
    try:
        spec = spec_of(layered.data, chosen, layered.file.resolve().parent)  # type: ignore[arg-type]  # None: no profile
    except ValidationError as exc:
        for error in exc.errors():
            location = tuple(error["loc"]) or _named_in(error)
            place = _place(layered, given, location)
            mistakes.append(f"{place}: {_sentence(error)}{_profile_hint(layered, error)}")
    for location, said in forbidden_templates(layered.data):
        mistakes.append(f"{layered.place(location)}: {'.'.join(map(str, location))}: {said}.")
    return spec, mistakes


def _place(layered: Layered, given: Mapping[str, str], location: tuple[Any, ...]) -> str:
    if location[:1] and given.get(location[0]):
        return f"{layered.file}, with {location[0]} {given[location[0]]!r} given by argument or environment variable"
    return layered.place(location)


def _named_in(error: Any) -> tuple[Any, ...]:
    """Return the key that the words begin with, where two parts disagree and no key is meant by itself."""
    found = _KEY.match(error["msg"].removeprefix("Value error, "))
    parts = re.findall(r"\w+", found[0]) if found else []
    known = parts and parts[0] in ModelSpec.model_fields
    return tuple(int(part) if part.isdigit() else part for part in parts) if known else ()


def _profile_hint(layered: Layered, error: Any) -> str:
    if error["type"] != "missing" or layered.profile is not None or not layered.profiles:
        return ""
    return f" Or choose a profile, which may give it: {', '.join(layered.profiles)}."


def _sentence(error: Any) -> str:
    # Pydantic marks what is wrong with a key itself.
    location = [part for part in error["loc"] if part != "[key]"]
    key = ".".join(map(str, location)) or "the specification"
    if error["type"] == "extra_forbidden":
        known = fields_at(location[:-1])
        if len(location) == 1:
            known = tuple(sorted((*known, EXTENDS, PROFILES)))
        return f"{key} is not a key here.{nearest(location[-1], known)} Known keys: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{key} is missing; add it."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    if error["type"] == "value_error":
        return f"{key}: {message}."
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    allowed = re.findall(r"'([^']*)'", (error.get("ctx") or {}).get("expected", ""))
    return f"{key}: {message} (got {error['input']!r}).{nearest(error['input'], allowed) if allowed else ''}"
