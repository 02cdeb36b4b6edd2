"""A Parquet file that grows by tables: equal tables give equal bytes, and memory holds one row group at most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

#: Rows of one row group.
GROUP_ROWS = 250_000


class GrowingFile:
    """One file while it is written.

    :param path: it is made with the first table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None
        self._waiting: list[pyarrow.Table] = []
        self._closed = False

    @property
    def empty(self) -> bool:
        """Say whether no table was written yet."""
        return self._writer is None

    def write(self, table: pyarrow.Table) -> None:
        """Add rows."""
        from pyarrow import parquet

        if self._writer is None:
            # Arrow's own schema is left out of the file: a reader is to see text, not our codes of it.
            numbers = [field.name for field in table.schema if str(field.type) in ("double", "float")]
            coded = [name for name in table.column_names if name not in numbers]
            self._writer = parquet.ParquetWriter(
                self.path, table.schema, store_schema=False, use_dictionary=coded, compression="snappy"
            )
        self._waiting.append(table)
        if sum(part.num_rows for part in self._waiting) >= GROUP_ROWS:
            self._flush()

    def close(self) -> Path:
        """Finish the file."""
        if not self._closed:
            self._flush()
            self._writer.close()
            self._closed = True
        return self.path

    def abandon(self) -> None:
        """Close what is open; what was written so far is of no use."""
        if self._writer is not None and not self._closed:
            self._writer.close()
            self._closed = True

    def _flush(self) -> None:
        import pyarrow

        if self._waiting:
            self._writer.write_table(pyarrow.concat_tables(self._waiting), row_group_size=GROUP_ROWS)
            self._waiting.clear()


def plain_text(values: Any) -> Any:
    """Return text as text: its codes differ from chunk to chunk, and with them the file's bytes would."""
    import pyarrow

    return values.cast(values.type.value_type) if pyarrow.types.is_dictionary(values.type) else values
