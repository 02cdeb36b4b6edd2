"""A folder of models: which of its files are, and what each of them says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec import naming
from airflow_mlops.spec.cache import SpecCache, State, state_of
from airflow_mlops.spec.layers import SUFFIXES
from airflow_mlops.spec.load import resolve_spec, spec_of
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.yaml_lines import MOST_BYTES, load_yaml, parse_yaml

#: Keys of which a model has some and a contract none.
_MODEL_KEYS = frozenset({"name", "extends", "profiles", "data", "train", "evaluation", "gate"})
_CONTRACT_LOOK = re.compile(r"""^\s*['"]?expectations['"]?\s*:|[{,]\s*['"]?expectations['"]?\s*:""", re.MULTILINE)
_NAME_LOOK = re.compile(r"""^name[ ]*:[ ]+['"]?([a-z][a-z0-9_]*)""", re.MULTILINE)


@dataclass(frozen=True)
class FoundFile:
    """One file of a folder that may be a model, and what changes when it does."""

    path: Path
    state: State
    #: Where relative paths in it start from: its own folder, or that of the file it links to; absolute.
    folder: Path


def model_files(folder: str | Path) -> tuple[Path, ...]:
    """Return every model's file in ``folder`` and below, sorted.

    A model's file ends in ``.yaml``, ``.yml`` or ``.json``. Left out are names, of files and folders, that begin with
    ``_`` or ``.``, data contracts, which have ``expectations``, and JSON Schemas (``$schema``, ``$defs``). A link to a
    file counts as a file; a link to a folder that the search is in already is not followed again. A file that cannot be
    read counts, so that its error is seen.

    :raises InvalidSpecError: there is no such folder, or it cannot be read.
    """
    return tuple(found.path for found in found_files(folder) if not (is_contract(found.path) or _is_schema(found.path)))


def found_files(folder: str | Path) -> tuple[FoundFile, ...]:
    """Return what :func:`model_files` looks at, contracts included, without opening one.

    :raises InvalidSpecError: as there.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file, not a folder; load_spec reads one file" if root.is_file() else "is no folder"
        raise InvalidSpecError(
            f"{root} {what}. Give the folder of the models' files; relative ones start at {Path.cwd()}."
        )
    return tuple(sorted(_walk(root, ()), key=lambda found: str(found.path)))


def read_models(
    folder: str | Path, given: Mapping[str, str], *, only: Callable[[str], bool] | None = None
) -> Iterator[tuple[Path, ModelSpec | Exception]]:
    """Yield every model's file, sorted by path, with its specification or with what is wrong with it.

    What did not change since it was last read comes from the cache on disk.

    :param given: the profile and owner that were asked for, as ``load.asked`` returns them.
    :param only: whether a model of that name is wanted; None: all are. Of the others, mistakes are not told.
    :raises InvalidSpecError: there is no such folder.
    """
    # Path.resolve() would follow a link that moves.
    kept = SpecCache.open(Path(os.path.abspath(folder)), given)  # noqa: PTH100
    for found in found_files(folder):
        entry = kept.get(found.path, found.state)
        if entry is not None and entry.data is None:
            continue
        if entry is not None:
            if only is not None and not only(str(entry.data and entry.data.get("name"))):
                continue
            try:
                yield found.path, spec_of(entry.data or {}, given, found.folder)
                continue
            except Exception:  # noqa: BLE001, S110  # what is installed has changed; reading the file says what misfits
                pass
        elif only is not None and not _may_be(found.path, only):
            continue
        if is_contract(found.path) or _is_schema(found.path):
            kept.put(found.path, found.state, None, None)
            continue
        try:
            spec, layered = resolve_spec(found.path, given)
        except Exception as exc:  # noqa: BLE001  # a plug-in's mistake is one model's, too
            # A file that was removed since it was listed is no mistake; a link that leads nowhere is one.
            if only is None and os.path.lexists(found.path):
                yield found.path, exc
            continue
        base = next((layer for layer in layered.layers if layer.file != layered.file), None)
        file, state = (base.file, base.state) if base is not None else (None, None)
        kept.put(found.path, found.state, layered.data, file, state)
        if only is None or only(spec.name):
            yield found.path, spec
    if only is None:
        kept.save()


def dag_kinds(spec: ModelSpec) -> tuple[str, ...]:
    """Return which DAGs a model of a fleet has: ``training`` always, the others where it speaks of them.

    ``scoring`` where it says how; ``monitoring`` where it is scored, or says something under ``drift`` or
    ``monitoring``.
    """
    kinds = ["training"]
    if spec.scoring is not None:
        kinds.append("scoring")
    if spec.scoring is not None or {"drift", "monitoring"} & spec.model_fields_set:
        kinds.append("monitoring")
    return tuple(kinds)


def dag_ids(spec: ModelSpec) -> dict[str, str]:
    """Return the ids of a model's DAGs by kind, as the factories name them, without making any."""
    verbs = {"training": "train", "scoring": "score", "monitoring": "monitor"}
    return {kind: naming.dag_id(f"{verbs[kind]}_{spec.name}", spec.profile, spec.owner) for kind in dag_kinds(spec)}


def is_contract(path: Path) -> bool:
    """Say whether a file holds a data contract. One that cannot be read does not."""
    text = _text_of(path)
    if text is None or not _CONTRACT_LOOK.search(text):
        return False
    try:
        data, _ = parse_yaml(text, str(path))
    except InvalidSpecError:
        # Broken, so its outline must do: the keys that begin a line.
        keys = set(re.findall(r"""^\s{0,2}['"]?(\w+)['"]?\s*:""", text, re.MULTILINE))
        return "expectations" in keys and not _MODEL_KEYS & keys
    return isinstance(data, Mapping) and "expectations" in data and not _MODEL_KEYS & set(data)


def _is_schema(path: Path) -> bool:
    """Say whether a file holds a JSON Schema, such as an editor's of the models beside it."""
    if path.suffix.lower() != ".json":
        return False
    try:
        data, _ = load_yaml(path)
    except InvalidSpecError:
        return False
    return isinstance(data, Mapping) and {"$schema", "$defs"} <= data.keys()


def _may_be(path: Path, only: Callable[[str], bool]) -> bool:
    """Say whether a file may hold a model that is wanted, by the line that most begin with: a task is waiting."""
    text = _text_of(path)
    if text is None:
        return False
    named = _NAME_LOOK.search(text)
    return named is None or only(named[1])


def _text_of(path: Path) -> str | None:
    """Return what a file says; None where it cannot be read, or is too large for a model."""
    try:
        return path.read_text(encoding="utf-8-sig") if path.stat().st_size <= MOST_BYTES else None
    except (OSError, UnicodeDecodeError):
        return None


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[FoundFile]:
    try:
        here = folder.stat()
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError as exc:
        if above and isinstance(exc, FileNotFoundError):
            return  # removed since it was listed
        raise InvalidSpecError(
            f"{folder} cannot be read: {exc.strerror or exc}. Let the user that Airflow runs as list it, or give it a "
            f"name that begins with `_` if it holds no models."
        ) from exc
    real = folder.resolve()
    inside = (*above, (here.st_dev, here.st_ino))
    for entry in listed:
        if entry.name.startswith(("_", ".")):
            continue
        try:
            below = entry.stat() if entry.is_dir() else None
        except OSError:  # a link to itself, or a folder that was removed since it was listed
            below = None
        if below is not None:
            if (below.st_dev, below.st_ino) not in inside:
                yield from _walk(folder / entry.name, inside)
        # A link that leads nowhere is told when it is read; a pipe would never end.
        elif entry.name.lower().endswith(SUFFIXES) and (entry.is_symlink() or entry.is_file()):
            path = folder / entry.name
            # Path.resolve() fails on a link to itself.
            yield FoundFile(path, _state(entry), Path(os.path.realpath(path)).parent if entry.is_symlink() else real)


def _state(entry: os.DirEntry[str]) -> State:
    try:
        return state_of(entry.stat())
    except OSError:
        return (-1, -1, -1, -1)
