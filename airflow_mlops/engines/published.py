"""One file in a local folder or an object store that readers see whole or not at all.

Locally the file is copied beside its final name, forced to disk and renamed. In a store it is uploaded under
``_writing`` first, and the store itself copies it to its final name when it is complete: closing an Arrow stream to S3
completes the upload whatever was written, also when an exception or a signal ends the task in between, so no stream is
ever opened at the final name. What a killed task left behind is removed by its next attempt.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_mlops.core.keys import key_id
from airflow_mlops.engines.storage import (
    StorageAccess,
    filesystem,
    join,
    matching,
    path_in_store,
    scheme_of,
    translated,
)
from airflow_mlops.errors import DataReadError, InvalidSpecError, StorageUnavailableError

if TYPE_CHECKING:
    from airflow_mlops.core.record import Window

log = logging.getLogger(__name__)

PREDICTIONS_FILE = "predictions.parquet"
QUARANTINE_FOLDER = "_quarantine"
QUARANTINE_FILE = "quarantine.parquet"
#: Files and folders whose name begins so are no data to any reader of the folder.
_WRITING_FOLDER = "_writing"
_WRITING = ".writing-"
_PIECE = 8 << 20
#: Pieces that may be under way to a store at once; they are held in memory.
_PIECES_AT_ONCE = 8
#: What S3 copies in one request.
MAX_STORE_BYTES = 5 * 1000**3


def window_folder(window: Window | None) -> str:
    """Return the name of a window's folder; names sort as the windows' starts do."""
    if window is None:
        return "window=all"
    return f"window={_stamp(window.start)}_{_stamp(window.end)}"


def predictions_uri(root: str, window: Window | None) -> str:
    """Return where a window's predictions are published."""
    return join(root, window_folder(window), PREDICTIONS_FILE)


def quarantine_uri(root: str, window: Window | None) -> str:
    """Return where the rows go that cannot be scored; readers of ``root`` pass such a folder over."""
    return join(root, QUARANTINE_FOLDER, window_folder(window), QUARANTINE_FILE)


def publish(file: Path, root: str, uri: str, access: StorageAccess | None, *, key: str) -> tuple[str, int]:
    """Put a copy of ``file`` at ``uri``, in place of what is there; return its SHA-256 and size.

    Of several processes that publish there at once the last one's whole file stays.

    :param root: the folder below which ``uri`` and what is needed on the way lie.
    :param key: of the task; another attempt of it clears up after this one.
    :raises InvalidSpecError: it is too large for the store to copy.
    :raises StorageUnavailableError: the store does not answer, or has not taken all of it.
    """
    usable = matching(access, uri)
    with translated(uri, usable):
        if scheme_of(uri) == "local":
            return _publish_locally(file, Path(path_in_store(uri)), key)
        return _publish_in_store(file, root, uri, usable, key)


def digest_at(uri: str, access: StorageAccess | None) -> str | None:
    """Return the SHA-256 of what is at ``uri`` now, or None where nothing is."""
    usable = matching(access, uri)
    hashed = hashlib.sha256()
    try:
        with translated(uri, usable):
            files, path = filesystem(uri, usable)
            with files.open_input_stream(path, compression=None) as stream:
                while piece := stream.read(_PIECE):
                    hashed.update(piece)
    except DataReadError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            return None
        raise
    return hashed.hexdigest()


def withdraw(uri: str, access: StorageAccess | None) -> None:
    """Remove what is at ``uri``, if anything is."""
    usable = matching(access, uri)
    with translated(uri, usable):
        files, path = filesystem(uri, usable)
        with suppress(FileNotFoundError):
            files.delete_file(path)


def pause(point: str) -> None:
    """Do nothing. Fault tests put a delay or a kill here; ``point`` says which place was reached."""


def _publish_locally(file: Path, target: Path, key: str) -> tuple[str, int]:
    target.parent.mkdir(parents=True, exist_ok=True)
    mine = f"{_WRITING}{key_id(key)[:16]}-"
    _clear(target.parent, mine)
    scratch = target.parent / f"{mine}{uuid4().hex}"
    try:
        with scratch.open("xb") as sink:
            with suppress(OSError):  # a file system without locks: then nothing is taken for left behind
                fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
            digest, size = _copied(file, sink)
            sink.flush()
            os.fsync(sink.fileno())
            pause("copied")
            scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    pause("replaced")
    return digest, size


def _clear(folder: Path, prefix: str) -> None:
    """Remove what killed attempts of this task left: files that nobody holds a lock on."""
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError), left.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _publish_in_store(file: Path, root: str, uri: str, access: StorageAccess | None, key: str) -> tuple[str, int]:
    size = file.stat().st_size
    if size > MAX_STORE_BYTES:
        raise InvalidSpecError(
            f"{uri} would have {size / 1000**3:.1f} GB, and a store puts at most {MAX_STORE_BYTES / 1000**3:.0f} GB in "
            f"place at once. Score shorter windows (scoring.schedule), or keep fewer columns (scoring.keep)."
        )
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    files, path = filesystem(uri, access)
    folder, mine = path_in_store(join(root, _WRITING_FOLDER)), f"{key_id(key)[:16]}-"
    _clear_store(files, folder, mine)
    scratch = f"{folder}/{mine}{uuid4().hex}"
    try:
        _upload(file, files, scratch)
        pause("uploaded")
        found = files.get_file_info(scratch)
        if found.size != size:
            raise StorageUnavailableError(
                f"{uri}: the store holds {found.size} bytes of {size} after the upload. The task may be retried."
            )
        files.copy_file(scratch, path)
        pause("replaced")
    finally:
        with suppress(Exception):  # the next attempt clears up; what failed before matters more
            files.delete_file(scratch)
    return digest, size


def _upload(file: Path, files: Any, path: str) -> None:
    with file.open("rb") as source, files.open_output_stream(path, compression=None) as sink:
        number = 0
        while piece := source.read(_PIECE):
            sink.write(piece)
            number += 1
            # Arrow uploads in the background without a limit: waiting now and then keeps the file out of memory.
            if number % _PIECES_AT_ONCE == 0:
                sink.flush()
            pause("uploading")


def _clear_store(files: Any, folder: str, prefix: str) -> None:
    """Remove what killed attempts of this task left."""
    from pyarrow import fs

    for found in files.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if found.type == fs.FileType.File and found.base_name.startswith(prefix):
            with suppress(FileNotFoundError):
                files.delete_file(found.path)


def _copied(file: Path, sink: Any) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            sink.write(piece)
            hashed.update(piece)
            size += len(piece)
            pause("copying")
    return hashed.hexdigest(), size


def _stamp(moment: Any) -> str:
    """Return ``20130301T000000Z``, with the fraction where there is one."""
    return re.sub(r"\.000000", "", moment.strftime("%Y%m%dT%H%M%S.%fZ"))
