"""Read a model specification from YAML or JSON, with the place of every mistake."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.yaml_lines import load_yaml

PROFILE_VARIABLE = "AIRFLOW_MLOPS_PROFILE"
OWNER_VARIABLE = "AIRFLOW_MLOPS_OWNER"


def load_spec(path: str | Path, *, profile: str | None = None, owner: str | None = None) -> ModelSpec:
    """Return the specification in the file ``path``.

    :param path: a YAML or JSON file; relative paths in it start from its folder.
    :param profile: where it runs, such as ``dev``; None: the environment variable ``AIRFLOW_MLOPS_PROFILE``, else what
        the file says. Outside ``prod``, names carry profile and owner.
    :param owner: whose it is; None: the environment variable ``AIRFLOW_MLOPS_OWNER``, else what the file says.
    :raises InvalidSpecError: it cannot be read or is not valid; each mistake is named with file, line and key.
    """
    file = Path(path)
    data, line_of = load_yaml(file)
    if not isinstance(data, Mapping):
        raise InvalidSpecError(
            f"{file}: a model specification is a mapping that starts with `name:`; this file holds "
            f"{type(data).__name__}."
        )
    if "folder" in data:
        raise InvalidSpecError(f"{file}, line {line_of(('folder',))}: 'folder' is set by the loader; remove it.")
    given = {
        "profile": profile or os.environ.get(PROFILE_VARIABLE),
        "owner": owner or os.environ.get(OWNER_VARIABLE),
    }
    chosen = {key: value for key, value in given.items() if value}

    def place(location: tuple[Any, ...]) -> str:
        if location[:1] and location[0] in chosen:
            return f"{file}, with {location[0]} {chosen[location[0]]!r} given by argument or environment variable"
        return f"{file}, line {line_of(location)}"

    try:
        return ModelSpec.model_validate({**data, **chosen, "folder": file.resolve().parent})
    except ValidationError as exc:
        mistakes = [f"{place(error['loc'])}: {_sentence(error)}" for error in exc.errors()]
        raise InvalidSpecError("\n".join(mistakes)) from exc


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the specification"
    if error["type"] == "extra_forbidden":
        known = sorted(_fields_at(error["loc"][:-1]) - {"folder"})
        close = get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"{key} is not a key here.{hint} Known keys: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{key} is missing; add it."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{key}: {message}." if error["type"] == "value_error" else f"{key}: {message} (got {error['input']!r})."


def _fields_at(location: tuple[Any, ...]) -> set[str]:
    model: type[BaseModel] = ModelSpec
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return set()
        model = field.annotation
    return set(model.model_fields)
