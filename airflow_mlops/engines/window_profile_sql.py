"""The same counts with one SQL statement, for rows that live in a database instead of in files.

All columns are counted in one scan with ``GROUPING SETS``: a number is replaced by its cell, text stays as it is, and
every column is a grouping set of its own. The cells are computed as in
:mod:`~airflow_mlops.engines.window_profile_cells`, in 64-bit floats and in the same order, so the counts are equal to
those from files, to the last row. Files are not read this way: ten million rows of 14 numbers and 6 texts took
DuckDB 13 CPU seconds, and 3 piece by piece.

The text is standard SQL but for ``isnan`` and ``isinf``, which are DuckDB's, Spark's and BigQuery's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_mlops.core.drift_counts import BUCKETS, check_profile, quantiles
from airflow_mlops.engines.profile import QUANTILES, SCHEMA
from airflow_mlops.engines.window_profile_cells import scale_of
from airflow_mlops.engines.window_profile_counters import kind_of, most_frequent

#: One statement groups by at most this many columns; DuckDB allows 64.
COLUMNS_AT_ONCE = 50
_NAN = -1

#: Runs a statement and gives its rows.
Query = Callable[[str], Iterable[Sequence[Any]]]


def table_profile(
    query: Query, relation: str, types: Mapping[str, str], reference: Mapping[str, Any], *, where: str = ""
) -> dict[str, Any]:
    """Count the rows of a relation on the cells of ``reference``; the result is that of ``window_profile``.

    Columns whose kind is another than the reference's, and kinds without a profile, are left out: only files say how
    many of their values are missing.

    :param query: runs a statement in the database.
    :param relation: a table, or a query in parentheses, as it stands in SQL. Never a person's text.
    :param types: the relation's columns, name to Arrow type.
    :param where: a condition that cuts the window, as it stands in SQL.
    :raises InvalidSpecError: the reference is no profile, or one of a newer schema.
    """
    check_profile(reference, "the reference")
    known = reference["columns"]
    names = [
        name
        for name in known
        if name in types and kind_of(types[name]) == known[name]["kind"] != "unsupported" and types[name] != "null"
    ]
    source = f"{relation} WHERE {where}" if where else relation
    rows = int(next(iter(query(f"SELECT count(*) FROM {source}")))[0])  # noqa: S608  # the caller's own relation
    columns: dict[str, dict[str, Any]] = {}
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        some = {name: known[name] for name in names[start : start + COLUMNS_AT_ONCE]}
        counts = _by_column(query(counts_statement(source, some)), list(some))
        numeric = [name for name in some if some[name]["kind"] != "categorical"]
        bounds = dict(zip(numeric, _fives(query(bounds_statement(source, some))), strict=True)) if numeric else {}
        for name, column in some.items():
            entry = _entry(column, counts[name], bounds.get(name), rows)
            columns[name] = {"kind": column["kind"], "type": types[name], **entry}
    return {
        "schema": SCHEMA,
        "row_count": rows,
        "window": None,
        "available": dict(types),
        "nan_counted_as_null": False,
        "excluded": [],
        "columns": columns,
    }


def counts_statement(source: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the statement that counts all columns in one scan.

    Its rows are ``(which, value, rows)``: ``which`` is SQL's ``grouping`` mask, in which only the bit of the row's
    column is 0 (the first column has the highest bit); ``value`` is the cell's number (-1 for NaN) or the text, NULL
    for NULL.

    :param source: what follows FROM.
    :param columns: name to entry of the reference profile; at most :data:`COLUMNS_AT_ONCE`.
    """
    keys = [f"k{place}" for place in range(len(columns))]
    cells = ", ".join(
        f"{_cell(name, column)} AS {key}" for (name, column), key in zip(columns.items(), keys, strict=True)
    )
    return (
        f"SELECT grouping({', '.join(keys)}) AS which, "  # noqa: S608  # our own names, and quoted ones
        f"coalesce({', '.join(f'CAST({key} AS VARCHAR)' for key in keys)}) AS value, count(*) AS rows_in "
        f"FROM (SELECT {cells} FROM {source}) AS cells "
        f"GROUP BY GROUPING SETS ({', '.join(f'({key})' for key in keys)})"
    )


def bounds_statement(source: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the statement for bounds and mean of every numeric column, in one row of five values each.

    They are the smallest, largest and mean finite value, the number of infinities, and 1 where all are whole numbers.
    """
    terms = []
    for name, column in columns.items():
        if column["kind"] != "categorical":
            value = _float(name, column)
            finite = f"CASE WHEN isnan({value}) OR isinf({value}) THEN NULL ELSE {value} END"
            terms += [
                f"min({finite})",
                f"max({finite})",
                f"avg({finite})",
                f"coalesce(sum(CASE WHEN isinf({value}) THEN 1 ELSE 0 END), 0)",
                f"coalesce(min(CASE WHEN floor({finite}) <> {finite} THEN 0 ELSE 1 END), 1)",
            ]
    return f"SELECT {', '.join(terms)} FROM {source}"  # noqa: S608  # our own terms


def _cell(name: str, column: Mapping[str, Any]) -> str:
    if column["kind"] == "categorical":
        return _quoted(name)
    value = _float(name, column)
    if column.get("edges"):
        inside = _search(value, column["edges"], 0)
        last = len(column["edges"])
    elif column["low"] is None:
        inside, last = f"CASE WHEN {value} < 0 THEN 0 ELSE {BUCKETS + 1} END", BUCKETS + 1
    else:
        low, scale = column["low"], scale_of(column["low"], column["high"])
        last = BUCKETS + 1
        # Held between the ends before the cast, which refuses what does not fit.
        place = f"floor(({value} - {_number(low)}) * {_number(scale)} + 1)"
        inside = f"CAST(greatest(0, least({last}, {place})) AS INTEGER)"
    return (
        f"CASE WHEN {_quoted(name)} IS NULL THEN NULL WHEN isnan({value}) THEN {_NAN} "
        f"WHEN isinf({value}) THEN CASE WHEN {value} < 0 THEN 0 ELSE {last} END ELSE {inside} END"
    )


def _search(value: str, edges: Sequence[float], first: int) -> str:
    """Return nested conditions that find a value's cell by halving."""
    if not edges:
        return str(first)
    middle = len(edges) // 2
    below, above = _search(value, edges[:middle], first), _search(value, edges[middle + 1 :], first + middle + 1)
    return f"CASE WHEN {value} < {_number(edges[middle])} THEN {below} ELSE {above} END"


def _float(name: str, column: Mapping[str, Any]) -> str:
    if column["kind"] == "time":
        return f"CAST(extract(EPOCH FROM {_quoted(name)}) AS DOUBLE PRECISION)"
    return f"CAST({_quoted(name)} AS DOUBLE PRECISION)"


def _number(value: float) -> str:
    """Return a float so that it is read as the same float; in parentheses, as two minus signs begin a comment."""
    return f"(CAST('{float(value)!r}' AS DOUBLE PRECISION))"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _by_column(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> dict[str, dict[str | None, int]]:
    every = (1 << len(names)) - 1
    of_mask = {every ^ (1 << (len(names) - 1 - place)): name for place, name in enumerate(names)}
    found: dict[str, dict[str | None, int]] = {name: {} for name in names}
    for which, value, count in rows:
        found[of_mask[which]][value] = count
    return found


def _fives(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    values = next(iter(rows))
    return (values[start : start + 5] for start in range(0, len(values), 5))


def _entry(
    reference: Mapping[str, Any], counts: dict[str | None, int], bounds: Sequence[Any] | None, rows: int
) -> dict[str, Any]:
    nulls = counts.pop(None, 0)
    if bounds is None:
        listed = {value: counts.get(value, 0) for value in reference["categories"]}
        if not reference["values_withheld"]:
            listed |= most_frequent({str(value): count for value, count in counts.items()}, listed)
        return {
            "null_count": nulls,
            "missing_share": nulls / rows if rows else 0.0,
            "categories": listed,
            "other": rows - nulls - sum(listed.values()),
            "distinct_count": len(counts),
            "values_withheld": reference["values_withheld"],
        }
    nans = counts.pop(str(_NAN), 0)
    column = {
        "null_count": nulls,
        "missing_share": (nulls + nans) / rows if rows else 0.0,
        "nan_count": nans,
        "min": bounds[0],
        "max": bounds[1],
        "mean": bounds[2],
        "deviation": None,
        "infinite_count": int(bounds[3]),
        "whole": bool(reference.get("whole")) and bool(bounds[4]),
        "low": reference["low"],
        "high": reference["high"],
        **({"edges": reference["edges"]} if reference.get("edges") else {}),
        "counts": {str(cell): counts[str(cell)] for cell in sorted(int(value or 0) for value in counts)},
    }
    return {**column, "quantiles": quantiles(column, QUANTILES)}
