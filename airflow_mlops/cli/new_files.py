"""Writing files that a person keeps: whole or not at all, and never over something without being told to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from airflow_mlops.errors import InvalidSpecError


def refuse_existing(paths: list[Path], *, force: bool) -> None:
    """Refuse to go on where one of the files exists, before any work is done.

    :raises InvalidSpecError: one exists and ``force`` is False, or is a folder.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise InvalidSpecError(f"{folders[0]} is a folder; name a file.")
    existing = [] if force else [path for path in paths if path.exists()]
    if existing:
        raise InvalidSpecError(
            f"{', '.join(map(str, existing))} {'exists' if len(existing) == 1 else 'exist'} already and may hold "
            f"someone's work. Choose another place, or write over it with --force."
        )


def write_files(texts: Mapping[Path, str], *, force: bool) -> None:
    """Write each file in one act: a reader, or an interruption, finds all of a file or nothing of it.

    :raises InvalidSpecError: a file exists (also one that appeared meanwhile), or the folder cannot be written.
    """
    refuse_existing(list(texts), force=force)
    staged: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            staged[path] = Path(name)
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            staged[path].chmod(0o666 & ~_umask())
        for path, draft in staged.items():
            if force:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename it fails where the name is taken
    except FileExistsError:
        refuse_existing(list(texts), force=force)
        raise
    except OSError as exc:
        where = exc.filename or next(iter(texts)).parent
        raise InvalidSpecError(f"{where} cannot be written: {exc.strerror or exc}. Choose another place.") from exc
    finally:
        for draft in staged.values():
            draft.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
