"""Which of two versions answers for an entity: the same one in every batch, wherever it is computed.

An entity is the values of its columns as canonical text: whole numbers in decimal digits, without a fraction where a
float holds a whole number, booleans as ``true`` and ``false``, times as ISO 8601 in UTC, text as it is. So ``7`` read
from Parquet, ``7.0`` from a file with missing values and ``"7"`` from CSV are one entity. The salt and these texts,
each as ``LENGTH:TEXT`` with its length in characters, are hashed with SHA-256; the first 8 bytes, as a big-endian
fraction of 2**64, give a number in [0, 1). Entities below ``share`` belong to the second version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.engines.predictions import Array


def draw(values: Sequence[Any], salt: str = "") -> float:
    """Return the number in [0, 1) that belongs to one entity.

    :param values: the entity's values in the order of its columns; none is None.
    """
    text = "".join(f"{len(part)}:{part}" for part in (salt, *(canonical(value) for value in values)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def draws(rows: pyarrow.Table, columns: Sequence[str], salt: str = "") -> Array:
    """Return the numbers of many rows, shape ``(n,)``."""
    values = zip(*(_plain(rows[name]).to_pylist() for name in columns), strict=True)
    known: dict[tuple[Any, ...], float] = {}
    found = np.empty(rows.num_rows)
    for number, entity in enumerate(values):
        if entity not in known:
            known[entity] = draw(entity, salt)
        found[number] = known[entity]
    return found


def canonical(value: Any) -> str:
    """Return the text of one value, the same however the value was stored."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _plain(values: Any) -> Any:
    """Return dictionary-coded values as they are meant, and times as microseconds, which Python knows."""
    import pyarrow

    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pyarrow.types.is_timestamp(values.type) and values.type.unit == "ns":
        return values.cast(pyarrow.timestamp("us", values.type.tz), safe=False)
    return values
