"""Which files a data specification names: one file, a folder, or a glob, in any of the stores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_mlops.core.keys import digest_of
from airflow_mlops.engines.storage import (
    StorageAccess,
    describe,
    filesystem,
    join,
    path_in_store,
    scheme_of,
    translated,
)
from airflow_mlops.errors import DataMissingError, DataReadError

if TYPE_CHECKING:
    import pyarrow.fs

    from airflow_mlops.spec.model import DataSpec

#: In a folder only files with these endings are data; a file or glob that is written out is taken as it is.
ENDINGS = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv", ".csv.gz", ".csv.bz2", ".csv.zst"),
}
_WILD = re.compile(r"[*?\[]")
_PARTITION = re.compile(r"^([^=/]+)=(.*)$")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class ListedFile:
    """One file: its path below the root, its size in bytes, and the store's time stamp in nanoseconds."""

    path: str
    size: int
    modified_ns: int | None


@dataclass(frozen=True)
class Listing:
    """The files of one specification, sorted by path.

    ``root`` is the URI the paths start from: the folder, the folder of the file, or what stands before a glob's first
    wildcard.
    """

    root: str
    files: tuple[ListedFile, ...]

    def uri(self, file: ListedFile) -> str:
        """Return the URI of one file."""
        return join(self.root, file.path)


def list_files(data: DataSpec, access: StorageAccess | None = None) -> Listing:
    """Find the files that ``data`` names.

    Hidden files and folders (``.x``, ``_x``: ``_SUCCESS``, ``_temporary``) and empty files are no data and are left
    out; a partition folder ``_x=1`` is none of them. In a folder only the format's endings count.

    :raises DataReadError: nothing is there, or it is a table format whose files must not be read one by one.
    :raises StorageUnavailableError: the store does not answer.
    """
    files, path = filesystem(data.uri, access)
    with translated(data.uri, access):
        root_path, pattern, found = _look(files, path, data.uri)
    prefix = root_path.rstrip("/") + "/"
    scheme = scheme_of(data.uri)
    root = root_path if scheme == "local" else f"{scheme}://{root_path}"
    listed, skipped = [], []
    for info in found:
        relative = info.path.removeprefix(prefix)
        _refuse_table_formats(relative, data.uri)
        if _is_data(relative, info.size or 0, data.format, pattern):
            listed.append(ListedFile(relative, info.size or 0, info.mtime_ns))
        else:
            skipped.append(relative)
    if not listed:
        seen = f" Seen there but left out: {describe(sorted(skipped))}." if skipped else " Nothing at all is there."
        raise DataMissingError(
            f"No {data.format} file was found at {data.uri}. Looked for {_looked_for(data, pattern)}, without empty "
            f"files and names that start with '.' or '_'.{seen} Check data.uri, data.format and the delivery."
        )
    return Listing(root, tuple(sorted(listed, key=lambda file: file.path)))


def listing_fingerprint(data: DataSpec, access: StorageAccess | None = None) -> str:
    """Return a digest of names, sizes and time stamps of the files, without reading any of them.

    It changes when a file is delivered again, so that a cleared snapshot task looks anew, and stays while nothing
    happens, so that a retry adopts what the first try made.
    """
    listing = list_files(data, access)
    return digest_of([[file.path, file.size, file.modified_ns] for file in listing.files])


def partition_values(path: str) -> dict[str, str | None]:
    """Return the ``key=value`` folders of a relative path. Values are text, whatever they look like, or None."""
    from urllib.parse import unquote

    values: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        if match := _PARTITION.match(folder):
            values[unquote(match[1])] = None if match[2] == _NO_VALUE else unquote(match[2])
    return values


def _look(
    files: pyarrow.fs.FileSystem, path: str, uri: str
) -> tuple[str, re.Pattern[str] | None, Iterator[pyarrow.fs.FileInfo]]:
    """Return the root, the glob as a pattern on relative paths (None without one), and the files below the root."""
    from pyarrow import fs

    info = files.get_file_info(path)
    if info.type == fs.FileType.File:
        return path.rpartition("/")[0], re.compile(".*", re.DOTALL), iter([info])
    parts = path.split("/")
    wild = next((number for number, part in enumerate(parts) if _WILD.search(part)), None)
    pattern: re.Pattern[str] | None = None
    if info.type == fs.FileType.Directory:
        root = path
    elif wild is None:
        raise DataMissingError(
            f"{uri} does not exist. Check the spelling of data.uri and whether the data was delivered."
        )
    else:
        root, pattern = "/".join(parts[:wild]), _pattern("/".join(parts[wild:]))
        if not root:
            raise DataReadError(f"{uri} has a wildcard in its first part; name the bucket or top folder.")
    found = files.get_file_info(fs.FileSelector(root, recursive=True))
    return root, pattern, (item for item in found if item.type == fs.FileType.File)


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob: ``*`` and ``?`` stay in one folder, ``**`` crosses folders, a folder takes what is in it."""
    text, place = "", 0
    while place < len(glob):
        rest = glob[place:]
        if rest.startswith("**/"):
            text, place = text + "(?:[^/]+/)*", place + 3
        elif rest.startswith("**"):
            text, place = text + ".*", place + 2
        elif rest[0] == "*":
            text, place = text + "[^/]*", place + 1
        elif rest[0] == "?":
            text, place = text + "[^/]", place + 1
        elif rest[0] == "[" and (match := re.match(r"\[(!?)(\]?[^\]]*)\]", rest)):
            inner = match[2].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            text, place = text + f"[{'^' if match[1] else ''}{inner}]", place + match.end()
        else:
            text, place = text + re.escape(rest[0]), place + 1
    return re.compile(f"(?:{text})(?P<below>/.*)?", re.DOTALL)


def _is_data(relative: str, size: int, form: str, pattern: re.Pattern[str] | None) -> bool:
    names = relative.split("/")
    if size == 0 or any(name[0] in "._" and "=" not in name for name in names if name):
        return False
    has_ending = names[-1].lower().endswith(ENDINGS[form])
    if pattern is None:
        return has_ending
    match = pattern.fullmatch(relative)
    if match is None:
        return False
    # A glob that ends on folders takes their data files, one that ends on files takes exactly those.
    return has_ending if match.groupdict().get("below") else True


def _refuse_table_formats(relative: str, uri: str) -> None:
    names = relative.split("/")
    for sign, table in (("_delta_log", "Delta Lake"), (".hoodie", "Hudi")):
        if sign in names[:-1]:
            raise _table_format(uri, table)
    if len(names) > 1 and names[-2] == "metadata" and names[-1].endswith(".metadata.json"):
        raise _table_format(uri, "Iceberg")


def _table_format(uri: str, table: str) -> DataReadError:
    return DataReadError(
        f"{uri} is a {table} table: its files also hold rows that were deleted or replaced, so reading them one by one "
        f"would be wrong. Export the table as plain Parquet and point data.uri there."
    )


def _looked_for(data: DataSpec, pattern: re.Pattern[str] | None) -> str:
    if pattern is not None:
        return f"names that match {path_in_store(data.uri)!r}"
    return f"names that end with {', '.join(ENDINGS[data.format])}"


def partitions_of(paths: Mapping[str, object] | list[str]) -> list[str]:
    """Return the partition keys of ``paths`` in the order in which they first appear."""
    keys: dict[str, None] = {}
    for path in paths:
        keys.update(dict.fromkeys(partition_values(path)))
    return list(keys)
