"""Tables of a SQLite file as a data source: ``data: {uri: shop.db, format: sqlite, options: {table: orders}}``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import Window
from airflow_mlops.engines.sources import Manifest, ManifestFile, manifest_of, rows_digest, rows_of_window
from airflow_mlops.engines.storage import StorageAccess, path_in_store, scheme_of
from airflow_mlops.errors import DataChangedError, DataReadError, StorageUnavailableError
from airflow_mlops.spec.model import DataSpec

if TYPE_CHECKING:
    import pyarrow


class SQLiteTable:
    """The rows of one table, in rowid order. A column declared TIMESTAMP holds ISO 8601 text, UTC without a zone.

    :param table: the table's name.
    """

    def __init__(self, *, table: str) -> None:
        if not isinstance(table, str) or not table:
            raise ValueError("table must be the name of a table")
        self.table = table

    def fingerprint(self, data: DataSpec, access: StorageAccess | None) -> str:
        """Return size and time of the database file and of its write-ahead log."""
        file = _file_of(data.uri)
        stats = [path.stat() for path in (file, Path(f"{file}-wal")) if path.exists()]
        return digest_of([[stat.st_size, stat.st_mtime_ns] for stat in stats])

    def take_manifest(self, data: DataSpec, window: Window | None, access: StorageAccess | None) -> Manifest:
        """Read the table once; its rows of the window are the one unit."""
        everything = self._rows(data.uri)
        rows = rows_of_window(everything, data.event_time, window, f"table {self.table!r} of {data.uri}")
        unit = ManifestFile(
            path=self.table,
            size=rows.nbytes,
            sha256=rows_digest(rows),
            row_count=rows.num_rows,
            total_rows=everything.num_rows,
        )
        return manifest_of(data, window, rows.schema, [unit] if rows.num_rows else [])

    def read_table(
        self,
        manifest: Manifest,
        columns: Sequence[str],
        access: StorageAccess | None,
        fetch: Callable[[str], Path] | None,
    ) -> pyarrow.Table:
        """Read the table again; other rows than the manifest's are an error."""
        name = f"table {self.table!r} of {manifest.uri}"
        rows = rows_of_window(self._rows(manifest.uri), manifest.event_time, manifest.window, name)
        if rows_digest(rows) != manifest.files[0].sha256:
            raise DataChangedError(
                f"The rows of {name} are not those that were snapshotted. Clear the snapshot task to take a new "
                f"version. With data.snapshot: copy the old rows would still be there."
            )
        return rows.select(list(columns))

    def _rows(self, uri: str) -> pyarrow.Table:
        import pyarrow

        file = _file_of(uri)
        with _opened(file, uri) as database:
            declared = database.execute("SELECT name, type FROM pragma_table_info(?)", (self.table,)).fetchall()
            if not declared:
                raise _no_table(database, self.table, uri)
            # One statement sees one state of the table, whoever writes meanwhile.
            rows = database.execute(f"SELECT * FROM {_quoted(self.table)} ORDER BY rowid").fetchall()
        columns = {}
        for number, (name, declared_type) in enumerate(declared):
            kind, convert = _arrow_type(declared_type, name, uri)
            try:
                values = [None if row[number] is None else convert(row[number]) for row in rows]
                columns[name] = pyarrow.array(values, kind)
            except (pyarrow.ArrowException, TypeError, ValueError) as exc:
                raise DataReadError(
                    f"The column {name!r} of table {self.table!r} in {uri} is declared {declared_type}, but holds "
                    f"something else ({type(exc).__name__}). Mend the rows, or declare the column otherwise."
                ) from exc
        return pyarrow.table(columns)


def _file_of(uri: str) -> Path:
    if scheme_of(uri) != "local":
        raise DataReadError(f"{uri} is no local file. The source sqlite reads a database file on this machine.")
    file = Path(path_in_store(uri))
    if not file.is_file():
        raise DataReadError(f"{uri} does not exist or is no file. Check data.uri.")
    return file


@contextmanager
def _opened(file: Path, uri: str) -> Iterator[sqlite3.Connection]:
    """Open a database for reading only, and tell a lock, which passes, from a file that is no database."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=2)) as database:
            yield database
    except sqlite3.OperationalError as exc:
        if "locked" in str(exc) or "busy" in str(exc):
            raise StorageUnavailableError(f"{uri} is locked by a writer: {exc}. The task may be retried.") from exc
        raise DataReadError(f"{uri} cannot be read: {exc}.") from exc
    except sqlite3.DatabaseError as exc:
        raise DataReadError(f"{uri} is no SQLite database: {exc}. Check data.uri and data.format.") from exc


def _no_table(database: sqlite3.Connection, table: str, uri: str) -> DataReadError:
    found = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    close = get_close_matches(table, found, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return DataReadError(f"{uri} has no table {table!r}.{hint} Its tables: {', '.join(found) or 'none'}.")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _arrow_type(declared: str, column: str, uri: str) -> tuple[Any, Callable[[Any], Any]]:
    import pyarrow

    kinds: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "INTEGER": (pyarrow.int64(), lambda value: value),
        "REAL": (pyarrow.float64(), lambda value: value),
        "TEXT": (pyarrow.string(), lambda value: value),
        "TIMESTAMP": (pyarrow.timestamp("us", "UTC"), _instant),
    }
    if declared.upper() not in kinds:
        raise DataReadError(
            f"The column {column!r} in {uri} is declared {declared or 'without a type'}; the source sqlite reads "
            f"{', '.join(kinds)}."
        )
    return kinds[declared.upper()]


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
