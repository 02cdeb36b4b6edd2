"""What the model files of a folder say, kept on disk, so that a DAG file is parsed again without reading them again.

Airflow parses every DAG file in a fresh process, again and again; reading a thousand YAML files takes longer there than
all the rest. What is kept is plain data: each file's merged keys, before they become a specification. They are
validated anew every time, which is quick; what is spared is the YAML, the base, and the check of the other profiles.

An entry counts only while its file and its base are the same by size, times and inode, or, where a file is so young
that its times could miss a change, by content. Another version of the package starts afresh. Nothing depends on the
cache: without a place to write, with a damaged file or with one that somebody else could have written, the files are
read.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import airflow_mlops
from airflow_mlops.core.keys import digest_of

#: Where the cache is, as a folder; ``off`` for none.
CACHE_VARIABLE = "AIRFLOW_MLOPS_CACHE"
#: Form of the file; another one is not read.
_FORM = 1
#: A file that changed less than this long before it was read could change again without its times showing it.
_YOUNG_NS = 2_000_000_000
#: A file that nobody used for so long is removed: folders of versioned DAG bundles come and go.
_UNUSED_SECONDS = 7 * 86_400

_log = logging.getLogger(__name__)

State = tuple[int, int, int, int]


@dataclass
class SpecCache:
    """The entries of one folder for one profile and owner. Read with :meth:`open`, written with :meth:`save`."""

    #: What the entries depend on beside their files.
    header: Mapping[str, Any]
    name: str
    _entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    _used: dict[str, dict[str, Any]] = field(default_factory=dict)
    _bases: dict[str, State | None] = field(default_factory=dict)
    _changed: bool = False

    @classmethod
    def open(cls, folder: Path, given: Mapping[str, str]) -> Self:
        """Return what is kept of ``folder``, which is nothing where it cannot be read or trusted.

        :param folder: absolute.
        :param given: the profile and owner that were asked for.
        """
        header = {"form": _FORM, "folder": str(folder), "given": dict(given), "code": _code_state()}
        opened = cls(header=header, name=f"{digest_of([ascii(folder), dict(given)])[:32]}.json")
        for place in places():
            try:
                kept = _read_trusted(place, opened.name)
            except (OSError, ValueError, RecursionError) as exc:
                _log.debug("The cache %s is not read: %s", place / opened.name, exc)
                continue
            if isinstance(kept, dict) and kept.get("header") == header and isinstance(kept.get("files"), dict):
                opened._entries = kept["files"]
                break
        return opened

    def get(self, file: Path, state: State) -> Entry | None:
        """Return what is kept of a file, if it and its base are unchanged."""
        key = str(file)
        try:
            kept = self._entries[key]
            young = kept["young"]
            same = tuple(kept["state"]) == state and (young is None or young == _content(file))
            base = kept["base"]
            if base is not None and same:
                same = tuple(base["state"]) == self._base_state(base["path"]) and (
                    base["young"] is None or base["young"] == _content(Path(base["path"]))
                )
            if not same:
                return None
            entry = Entry(data=kept["data"])
        except (KeyError, TypeError, ValueError, OSError):
            return None
        self._used[key] = kept
        # Old enough now to be told by its times alone.
        if (young is not None and not _is_young(state)) or (
            base is not None and base["young"] is not None and not _is_young(tuple(base["state"]))
        ):
            self.put(file, state, entry.data, None if base is None else Path(base["path"]))
        return entry

    def put(
        self,
        file: Path,
        state: State,
        data: Mapping[str, Any] | None,
        base: Path | None,
        base_state: State | None = None,
    ) -> None:
        """Keep what a file says. What JSON would change is not kept.

        :param state: what the file looked like before it was read: a change while it is read then counts as one.
        :param data: its merged keys; None: it is no model.
        :param base: the file that it extends.
        :param base_state: as ``state``; None: what the base looks like now.
        """
        if data is not None and not _survives(data):
            return
        entry: dict[str, Any] = {"state": list(state), "young": None, "base": None, "data": data}
        try:
            if _is_young(state):
                entry["young"] = _content(file)
            if base is not None:
                base_state = base_state or self._base_state(str(base))
                if base_state is None:
                    return
                entry["base"] = {
                    "path": str(base),
                    "state": list(base_state),
                    "young": _content(base) if _is_young(base_state) else None,
                }
        except OSError:
            return
        self._used[str(file)] = entry
        self._changed = True

    def save(self) -> None:
        """Write what was used, whole or not at all, if it differs from what was read. Never raises."""
        if not self._changed and self._used.keys() == self._entries.keys():
            return
        text = json.dumps({"header": self.header, "files": self._used}, separators=(",", ":"))
        for place in places():
            try:
                _write(place, self.name, text)
            except OSError as exc:
                _log.debug("Nothing is kept in %s: %s", place, exc)
                continue
            return
        _log.debug("No place to keep what %s says; its files are read each time.", self.header["folder"])

    def _base_state(self, path: str) -> State | None:
        if path not in self._bases:
            try:
                self._bases[path] = state_of(os.stat(path))  # noqa: PTH116  # a Path costs more than the call
            except OSError:
                self._bases[path] = None
        return self._bases[path]


@dataclass(frozen=True)
class Entry:
    """What is kept of one file: its merged keys, or None where it is no model."""

    data: dict[str, Any] | None


def state_of(status: os.stat_result) -> State:
    """Return what changes when a file does: its size, its times in nanoseconds, its inode."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def places() -> Iterator[Path]:
    """Yield the folders that the cache may be in, the best first.

    ``$AIRFLOW_MLOPS_CACHE`` alone where it is set; else below Airflow's home, the user's cache, the temporary folder.
    """
    said = os.environ.get(CACHE_VARIABLE, "").strip()
    if said:
        if said.lower() not in ("off", "0", "false", "no"):
            yield Path(said)
        return
    if home := os.environ.get("AIRFLOW_HOME"):
        yield Path(home) / ".cache" / "airflow_mlops"
    if user := os.environ.get("XDG_CACHE_HOME"):
        yield Path(user) / "airflow_mlops"
    elif user := os.environ.get("HOME"):
        yield Path(user) / ".cache" / "airflow_mlops"
    yield Path(tempfile.gettempdir()) / f"airflow_mlops-{_user()}"


def _read_trusted(place: Path, name: str) -> Any:
    """Return what a file of the cache holds, if nobody but this user and root could have written it."""
    if not _is_ours(place.lstat(), folder=True):
        raise PermissionError(f"somebody else may write to {place}")
    path = place / name
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(number, "rb") as file:
        status = os.fstat(number)
        if not _is_ours(status, folder=False):
            raise PermissionError(f"somebody else may write to {path}")
        text = file.read()
    if time.time() - status.st_mtime > 86_400:
        with suppress(OSError):
            os.utime(path)  # still in use
    return json.loads(text)


def _write(place: Path, name: str, text: str) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(place.lstat(), folder=True):
        raise PermissionError(f"somebody else may write to it; remove it, or `chmod 700 {place}`")
    number, temporary = tempfile.mkstemp(dir=place, prefix=".", suffix=".part")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, place / name)  # noqa: PTH105  # as above
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _remove_unused(place)


def _remove_unused(place: Path) -> None:
    limit = time.time() - _UNUSED_SECONDS
    with os.scandir(place) as entries:
        for entry in entries:
            try:
                if entry.name.endswith((".json", ".part")) and entry.stat(follow_symlinks=False).st_mtime < limit:
                    os.unlink(entry.path)  # noqa: PTH108  # as above
            except OSError:
                continue


def _is_ours(status: os.stat_result, *, folder: bool) -> bool:
    right = stat.S_ISDIR(status.st_mode) if folder else stat.S_ISREG(status.st_mode)
    if sys.platform == "win32":
        return right
    return right and status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _user() -> str:
    return str(os.geteuid()) if hasattr(os, "geteuid") else "user"


def _is_young(state: tuple[int, ...]) -> bool:
    return time.time_ns() - max(state[1], state[2]) < _YOUNG_NS


def _content(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def _survives(data: Mapping[str, Any]) -> bool:
    try:
        return bool(json.loads(json.dumps(data, allow_nan=False)) == data)
    except (TypeError, ValueError, RecursionError):
        return False


@cache
def _code_state() -> str:
    """Return what changes when the code that checks specifications does."""
    parts: list[Any] = [airflow_mlops.__version__, list(sys.version_info[:2])]
    for file in sorted(Path(__file__).parent.glob("*.py")):
        try:
            parts.append([file.name, *state_of(file.stat())[:2]])
        except OSError:
            parts.append([file.name])
    return digest_of(parts)
