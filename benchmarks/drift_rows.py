"""The rows of the drift benchmark: 14 numeric and 6 text columns, Parquet, the same on every machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

#: Name to rows, seed and how far the columns have moved.
FILES = {
    "tiny-reference": (3_000, 11, 0.0),
    "tiny-current": (3_000, 12, 1.0),
    "reference": (1_000_000, 1, 0.0),
    "current-1m": (1_000_000, 2, 1.0),
    "current-10m": (10_000_000, 3, 1.0),
}
NUMERIC = (
    *("normal", "shifted", "uniform", "exponential", "lognormal", "heavy", "price", "zeros", "offset", "nulls"),
    *("float32", "hour", "count", "amount"),
)
TEXT = ("flag", "month", "fifty", "hundreds", "thousands", "text_nulls")
_BLOCK = 1_000_000


def folder() -> Path:
    """Return where the files are kept from one run to the next: 1.1 GB."""
    return Path(os.environ.get("AIRFLOW_MLOPS_BENCH", Path(tempfile.gettempdir()) / "airflow-mlops-bench")) / "drift-1"


def file(name: str) -> Path:
    """Return one of :data:`FILES`, made when it is not there."""
    path = folder() / f"{name}.parquet"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, seed, shift = FILES[name]
    random = np.random.default_rng(seed)
    part = path.with_suffix(f".{os.getpid()}.part")
    writer: Any = None
    for start in range(0, rows, _BLOCK):
        table = _rows(random, min(_BLOCK, rows - start), shift)
        writer = writer or parquet.ParquetWriter(part, table.schema)
        writer.write_table(table, row_group_size=250_000)
    writer.close()
    part.replace(path)
    return path


def _rows(random: np.random.Generator, count: int, shift: float) -> pa.Table:
    zeros = np.where(random.random(count) < 0.85, 0.0, random.exponential(2, count))
    columns = {
        "normal": random.normal(0, 1, count),
        "shifted": random.normal(0.6 * shift, 1, count),
        "uniform": random.random(count),
        "exponential": random.exponential(1 + 0.1 * shift, count),
        "lognormal": random.lognormal(0, 1 + 0.05 * shift, count),
        "heavy": random.pareto(1.1, count),
        "price": np.round(random.gamma(3, 20 * (1 + 0.05 * shift), count), 2),
        "zeros": zeros,
        "offset": 1.6e9 + random.normal(0, 1, count),
        "nulls": pa.array(random.normal(10, 3, count), mask=random.random(count) < 0.07),
        "float32": random.normal(5, 2, count).astype(np.float32),
        "hour": random.integers(0, 24, count).astype(np.int32),
        "count": random.poisson(40 + 5 * shift, count),
        "amount": random.integers(0, 1_000_000, count),
        "flag": _words(random, count, 2, 0.5),
        "month": _words(random, count, 12, 0.1),
        "fifty": _words(random, count, 50, 1 + 0.5 * shift),
        "hundreds": _words(random, count, 300, 1),
        "thousands": _words(random, count, 5_000, 1),
        "text_nulls": compute.if_else(pa.array(random.random(count) < 0.1), None, _words(random, count, 20, 0.8)),
    }
    return pa.table(columns)


def _words(random: np.random.Generator, count: int, kinds: int, power: float) -> pa.Array:
    weights = 1 / np.arange(1, kinds + 1) ** power
    codes = random.choice(kinds, size=count, p=weights / weights.sum()).astype(np.int32)
    words = pa.array([f"value-{kind:05d}" for kind in range(kinds)])
    return pa.DictionaryArray.from_arrays(pa.array(codes), words).cast(pa.string())
