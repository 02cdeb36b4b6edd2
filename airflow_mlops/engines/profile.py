"""The reference profile that is logged with every model: what its training rows looked like, column by column.

SQL in DuckDB makes it. One statement finds each column's bounds and mean, one the grid from a sample; a third puts
every number into its bucket arithmetically and counts all columns at once with ``GROUPING SETS``. Later statistics of
drift are computed from such counts alone, so the training rows are never read again.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pandas
    import pyarrow

SCHEMA = "profile/1"
BUCKETS = 1024
LOW_SHARE, HIGH_SHARE = 0.002, 0.998
TOP_CATEGORIES = 100
#: Rows from which the grid is taken; they are spread evenly over the table, so that sorted data gives no lopsided grid.
SAMPLE_ROWS = 250_000
#: A text column with more distinct values than this, and more than half as many as rows, names its rows: its values
#: would be data about individuals, so they are counted and not stored.
IDENTIFIER_VALUES = 1_000
#: One statement groups by at most this many columns; DuckDB allows 64.
_COLUMNS_AT_ONCE = 50


def build_profile(frame: pandas.DataFrame | pyarrow.Table, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return the profile of a table as plain JSON.

    ``{"schema", "row_count", "buckets", "excluded": [...], "columns": {name: {...}}}``; each column has ``kind``,
    ``null_count`` and ``missing_share`` (NULL and NaN), and by kind:

    - ``numeric`` (whole numbers, floats, decimals): ``low``, ``high``, ``counts`` (``{bucket: rows}``, empty buckets
      left out), ``min``, ``max``, ``mean`` (of finite values; None where there are none), ``nan_count``,
      ``infinite_count``. Bucket 0 is everything below ``low``, bucket ``b`` of 1 to 1024 is
      ``[low + (b-1)*w, low + b*w)`` with ``w = (high - low) / 1024``, bucket 1025 is ``high`` and above; infinities lie
      in the open ends. ``low`` and ``high`` are the 0.2 % and 99.8 % quantiles; where both are one value, the grid is
      laid around it. All None and empty where no finite value is there.
    - ``time``: as ``numeric``, in seconds since 1970 UTC.
    - ``categorical`` (text, bool): ``categories`` (``{value: rows}``, the 100 most frequent, ties by value), ``other``
      (rows of all the rest), ``distinct_count`` (NULL not counted), ``values_withheld`` (true where nearly every row
      has its own value, which are then not stored).
    - ``unsupported`` (lists, structs, bytes): nothing more.

    NULL and NaN are told apart in an Arrow table. In a pandas frame missing *is* NaN: all of them count as NULL, and
    ``nan_counted_as_null`` is true.

    :param frame: the rows; a pandas frame's index is ignored.
    :param exclude: columns to leave out: identifiers, personal data; names that are not there are ignored.
    """
    import duckdb

    given, merged = _as_arrow(frame)
    names = [name for name in given.column_names if name not in set(exclude)]
    kinds = {name: _kind(given.schema.field(name).type) for name in names}
    shapes: dict[str, dict[str, Any]] = {}
    counts: dict[str, list[tuple[Any, int, int]]] = {}
    with duckdb.connect(config={"threads": 1}) as connection:
        # One thread: sums of floats then come out the same on every machine.
        for start in range(0, len(names), _COLUMNS_AT_ONCE):
            batch = names[start : start + _COLUMNS_AT_ONCE]
            table = _countable(given.select(batch), kinds)
            shapes |= _shapes(connection, table, kinds)
            counts |= _counts(connection, table, kinds, shapes)
    return {
        "schema": SCHEMA,
        "row_count": given.num_rows,
        "buckets": BUCKETS,
        "nan_counted_as_null": merged,
        "excluded": [name for name in given.column_names if name not in kinds],
        "columns": {name: _column(kinds[name], shapes[name], counts.get(name, []), given.num_rows) for name in names},
    }


def _as_arrow(frame: pandas.DataFrame | pyarrow.Table) -> tuple[pyarrow.Table, bool]:
    """Return the rows as Arrow and whether NaN was counted as NULL on the way."""
    import pandas
    import pyarrow

    if not isinstance(frame, pandas.DataFrame):
        return frame, False
    arrays = []
    for place in range(frame.shape[1]):
        values = frame.iloc[:, place]
        try:
            arrays.append(pyarrow.array(values, from_pandas=True))
        except (pyarrow.ArrowException, TypeError, ValueError):
            # Values of several types in one column: their text is what can be counted.
            arrays.append(pyarrow.array([None if pandas.isna(value) else str(value) for value in values]))
    chunked = [array if isinstance(array, pyarrow.ChunkedArray) else pyarrow.chunked_array([array]) for array in arrays]
    return pyarrow.table(chunked, names=[str(name) for name in frame.columns]), True


def _kind(kind: pyarrow.DataType) -> str:
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "numeric"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return "categorical"
    return "unsupported"


def _countable(table: pyarrow.Table, kinds: dict[str, str]) -> pyarrow.Table:
    """Return the columns as float64 (numeric, time in seconds) and text, named c0, c1 ..."""
    import pyarrow
    from pyarrow import compute

    arrays = []
    for name in table.column_names:
        values = table[name]
        if pyarrow.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if kinds[name] == "numeric":
            values = values.cast(pyarrow.float64(), safe=False)
        elif kinds[name] == "time":
            unit = values.type.unit if pyarrow.types.is_timestamp(values.type) else "ms"
            moments = values.cast(pyarrow.timestamp(unit)) if pyarrow.types.is_date(values.type) else values
            ticks = moments.cast(pyarrow.int64()).cast(pyarrow.float64(), safe=False)
            values = compute.divide(ticks, {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit])
        elif kinds[name] == "categorical":
            values = values.cast(pyarrow.string())
        else:
            values = values.is_null()
        arrays.append(values)
    return pyarrow.table(
        arrays, names=[f"c{number}" for number in range(len(arrays))], metadata=None
    ).replace_schema_metadata({b"names": "\0".join(table.column_names).encode()})


def _names(table: pyarrow.Table) -> list[str]:
    return str(table.schema.metadata[b"names"].decode()).split("\0")


def _shapes(
    connection: duckdb.DuckDBPyConnection, table: pyarrow.Table, kinds: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Return each column's bounds, mean and grid, from one statement over all rows and one over the sample."""
    import numpy
    import pyarrow

    names = _names(table)
    step = max(1, math.ceil(table.num_rows / SAMPLE_ROWS))
    sample = table if step == 1 else table.take(pyarrow.array(numpy.arange(0, table.num_rows, step)))
    connection.register("all_rows", table)
    connection.register("sample_rows", sample)
    numbers = [place for place, name in enumerate(names) if kinds[name] in ("numeric", "time")]
    shapes: dict[str, dict[str, Any]] = {name: {} for name in names}
    for place, name in enumerate(names):
        if kinds[name] == "unsupported":
            shapes[name]["null_count"] = int(table.column(place).to_numpy().sum())
    if not numbers:
        return shapes
    finite = {place: f"FILTER (WHERE isfinite(c{place}))" for place in numbers}
    bounds = _one_row(
        connection,
        "all_rows",
        [f"{act}(c{place}) {finite[place]}" for place in numbers for act in ("min", "max", "favg")]
        + [f"count(*) FILTER (WHERE isinf(c{place}))" for place in numbers],
    )
    quantiles = _one_row(
        connection,
        "sample_rows",
        [f"quantile_disc(c{place}, [{LOW_SHARE}, {HIGH_SHARE}]) {finite[place]}" for place in numbers],
    )
    for order, place in enumerate(numbers):
        low, high, mean = bounds[3 * order : 3 * order + 3]
        grid = _grid(quantiles[order] or ([low, high] if low is not None else None))
        shapes[names[place]] = {
            "min": low,
            "max": high,
            # A mean beyond the largest float has no JSON form.
            "mean": mean if mean is not None and math.isfinite(mean) else None,
            "infinite_count": int(bounds[3 * len(numbers) + order]),
            "low": grid[0] if grid else None,
            "high": grid[1] if grid else None,
        }
    return shapes


def _one_row(connection: duckdb.DuckDBPyConnection, table: str, terms: list[str]) -> tuple[Any, ...]:
    statement = f"SELECT {', '.join(terms)} FROM {table}"  # noqa: S608  # built from numbers and our own names only
    return tuple(connection.execute(statement).fetchall()[0])


def _grid(ends: list[float] | None) -> tuple[float, float] | None:
    """Return the two ends of the grid; around a single value they lie half its size, at least one half, away.

    Ends so close that no bucket fits between them count as a single value.
    """
    if ends is None:
        return None
    low, high = float(ends[0]), float(ends[-1])
    if not math.isfinite(high - low):  # the span is beyond the largest float
        return low / 4, high / 4
    if low < high and math.isfinite(BUCKETS / (high - low)):
        return low, high
    half = 0.5 * max(1.0, abs(low))
    return low - half, low + half


def _counts(
    connection: duckdb.DuckDBPyConnection,
    table: pyarrow.Table,
    kinds: dict[str, str],
    shapes: dict[str, dict[str, Any]],
) -> dict[str, list[tuple[Any, int, int]]]:
    """Count every column's buckets or values in one scan.

    :return: name to rows of (bucket or value, None for NULL; its count; how many different ones the column has).
    """
    names = _names(table)
    places = [place for place, name in enumerate(names) if kinds[name] != "unsupported"]
    if not places or table.num_rows == 0:
        return {}
    values = [_bucket(place, kinds[names[place]], shapes[names[place]]) for place in places]
    keys = [f"k{place}" for place in places]
    statement = f"""
        WITH bucketed AS (SELECT {", ".join(f"{value} AS {key}" for value, key in zip(values, keys, strict=True))}
                          FROM all_rows),
             counted AS (SELECT grouping_id({", ".join(keys)}) AS which,
                                coalesce({", ".join(f"{key}::VARCHAR" for key in keys)}) AS value, count(*) AS rows_in
                         FROM bucketed GROUP BY GROUPING SETS ({", ".join(f"({key})" for key in keys)}))
        SELECT which, value, rows_in, count(value) OVER (PARTITION BY which) AS different
        FROM counted
        QUALIFY row_number() OVER (PARTITION BY which ORDER BY value IS NULL DESC, rows_in DESC, value) <= {BUCKETS + 4}
    """  # noqa: S608  # built from numbers and our own names only
    every = (1 << len(places)) - 1
    # The bit of the column that a row is about is the only one that is not set; the first column has the highest bit.
    columns = {every ^ (1 << (len(places) - 1 - order)): names[place] for order, place in enumerate(places)}
    found: dict[str, list[tuple[Any, int, int]]] = {}
    for which, value, count, different in connection.execute(statement).fetchall():
        found.setdefault(columns[which], []).append((value, count, different))
    return found


def _bucket(place: int, kind: str, shape: dict[str, Any]) -> str:
    """Return the SQL of a column's bucket: NULL stays NULL, NaN is -1, then 0 to 1025; text is its own bucket."""
    if kind == "categorical":
        return f"c{place}"
    low, high = shape["low"], shape["high"]
    if low is None:  # nothing finite: the open ends alone
        low, high, inside = 0.0, 0.0, "0"
    else:
        # Between the ends only: the cast refuses what does not fit.
        scaled = f"(c{place} - {low!r}::DOUBLE) * {BUCKETS / (high - low)!r}::DOUBLE"
        inside = f"1 + least({BUCKETS - 1}, floor({scaled}))::SMALLINT"
    return (
        f"CASE WHEN c{place} IS NULL THEN NULL WHEN isnan(c{place}) THEN -1 WHEN c{place} < {low!r}::DOUBLE THEN 0 "
        f"WHEN c{place} >= {high!r}::DOUBLE THEN {BUCKETS + 1} ELSE {inside} END"
    )


def _column(kind: str, shape: dict[str, Any], counts: list[tuple[Any, int, int]], row_count: int) -> dict[str, Any]:
    by_value = {value: count for value, count, _ in counts}
    nulls = int(shape.get("null_count", by_value.pop(None, 0)))
    column: dict[str, Any] = {
        "kind": kind,
        "null_count": nulls,
        "missing_share": nulls / row_count if row_count else 0.0,
    }
    if kind == "unsupported":
        return column
    if kind == "categorical":
        distinct = counts[0][2] if counts else 0
        withheld = distinct > IDENTIFIER_VALUES and distinct * 2 > row_count
        top = sorted(by_value.items(), key=lambda item: (-item[1], item[0]))[:TOP_CATEGORIES]
        shown = {} if withheld else dict(top)
        return {
            **column,
            "categories": shown,
            "other": row_count - nulls - sum(shown.values()),
            "distinct_count": distinct,
            "values_withheld": withheld,
        }
    nans = by_value.pop("-1", 0)
    column["missing_share"] = (nulls + nans) / row_count if row_count else 0.0
    buckets = {str(bucket): by_value[str(bucket)] for bucket in sorted(int(value) for value in by_value)}
    return {**column, "nan_count": nans, **shape, "counts": buckets}
