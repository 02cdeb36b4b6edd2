"""The two samples that Evidently is shown: seeded, small, and without what names a person or a row.

The current one is drawn from the window's rows while they are streamed. The reference's rows are not kept, so its
sample is rebuilt from the reference profile: each column by itself, from its buckets and categories. Numbers inside the
reference's range are then set to the middle of its buckets in both samples, so that the grid itself is no difference.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from airflow_mlops.core.drift_counts import OTHER, dense, grid_edges
from airflow_mlops.engines.batch_rows import read_chunks

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.engines.checked_files import CheckedFile

#: A numpy array of numbers, one dimension.
Array: TypeAlias = Any
#: Categories of a column that a sample tells apart, on each side.
SHOWN_CATEGORIES = 100
_CHUNK_ROWS = 65_536
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class Sampler:
    """Rows of a window, drawn without replacement while somebody else streams its files.

    The same rows, columns and seed give the same sample.

    :param columns: columns to keep; one that the window does not have is left out.
    :param total: rows of the window.
    :param rows: rows to draw; fewer where the window has fewer.
    """

    def __init__(self, columns: Sequence[str], *, total: int, rows: int, seed: int) -> None:
        self._columns = list(columns)
        size = min(rows, total)
        drawn = np.random.default_rng(seed).choice(total, size=size, replace=False, shuffle=False) if size else []
        self._places = np.sort(np.asarray(drawn, dtype=np.int64))
        self._seen = 0
        self._parts: list[pyarrow.Table] = []

    def watch(self, files: Iterable[CheckedFile]) -> Iterator[CheckedFile]:
        """Hand ``files`` through and take what was drawn of each."""
        for file in files:
            if file.entry.row_count:
                self._take(file)
            yield file

    def table(self) -> pyarrow.Table:
        """Return the sample once every file was handed through: numbers as float64, times in seconds, text."""
        import pyarrow

        return pyarrow.concat_tables(self._parts) if self._parts else pyarrow.table({})

    def _take(self, file: CheckedFile) -> None:
        import pyarrow

        wanted = _between(self._places, self._seen, self._seen + file.entry.row_count)
        self._seen += file.entry.row_count
        types = {name: file.manifest.schema.field(name).type for name in file.manifest.schema.names}
        names = [name for name in self._columns if name in types]
        if not names or not len(wanted):
            return
        before = 0
        for rows in read_chunks([file], file.manifest, names, _CHUNK_ROWS):
            here = _between(wanted, before, before + rows.num_rows)
            if len(here):
                taken = rows.take(here)
                self._parts.append(pyarrow.table({name: _countable(taken[name], types[name]) for name in names}))
            before += rows.num_rows


def _between(places: Array, start: int, end: int) -> Array:
    """Return the sorted places from ``start`` up to ``end``, counted from ``start``."""
    return places[int(np.searchsorted(places, start)) : int(np.searchsorted(places, end))] - start


def _countable(values: Any, kind: pyarrow.DataType) -> Any:
    """Return values as the profile counts them: float64, seconds since 1970, or text; null where it counts none."""
    import pyarrow
    from pyarrow import compute

    types = pyarrow.types
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return values.cast(pyarrow.float64(), safe=False)
    if types.is_timestamp(kind) or types.is_date(kind):
        unit = kind.unit if types.is_timestamp(kind) else "ms"
        moments = values.cast(pyarrow.timestamp(unit)) if types.is_date(kind) else values
        return compute.divide(moments.cast(pyarrow.int64()).cast(pyarrow.float64(), safe=False), _PER_SECOND[unit])
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return values.cast(pyarrow.string())
    return pyarrow.nulls(len(values), pyarrow.string())


def rebuilt_sample(profile: Mapping[str, Any], columns: Sequence[str], *, rows: int, seed: int) -> pyarrow.Table:
    """Draw ``rows`` rows from a profile, each column by itself: what columns had to do with each other is not in it.

    :param columns: names of numeric, time or categorical columns of the profile.
    :return: float64 for numbers and seconds, text for categories; missing values as often as the profile counted them.
    """
    import pyarrow

    drawn = {}
    for name in columns:
        column = profile["columns"][name]
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values: Sequence[str | float | None]
        values, counts = (_categories if column["kind"] == "categorical" else _numbers)(column)
        weights = np.asarray(counts, dtype=float)
        taken = generator.choice(len(values), size=rows, p=weights / weights.sum()) if weights.sum() else []
        drawn[name] = pyarrow.array(
            [values[place] for place in taken] if len(taken) else [None] * rows,
            pyarrow.string() if column["kind"] == "categorical" else pyarrow.float64(),
        )
    return pyarrow.table(drawn)


def on_grid(sample: pyarrow.Table, profile: Mapping[str, Any]) -> pyarrow.Table:
    """Set the numbers inside the reference's range to what :func:`rebuilt_sample` draws for their bucket.

    Numbers beyond the range stay as they are, so that a shift out of it still shows.
    """
    import pyarrow

    arrays = {name: sample[name] for name in sample.column_names}
    for name, column in profile["columns"].items():
        if name in arrays and column["kind"] in ("numeric", "time") and grid_edges(column):
            values = arrays[name].to_numpy()
            arrays[name] = pyarrow.array(_snapped(values, column), pyarrow.float64(), from_pandas=True)
    return pyarrow.table(arrays)


def shown_categories(
    sample: pyarrow.Table, reference: Mapping[str, Any], current: Mapping[str, Any], *, rebuilt: bool
) -> pyarrow.Table:
    """Replace all but the commonest categories by ``(other)``, in a sample of real rows.

    :param rebuilt: the other sample was drawn from ``reference``: what is other there is other here as well.
    """
    import pyarrow
    from pyarrow import compute

    arrays = {name: sample[name] for name in sample.column_names}
    for name, values in arrays.items():
        column, now = reference["columns"][name], current["columns"][name]
        if column["kind"] != "categorical":
            continue
        # What a rebuilt sample drew as other has no name there, so it has none here; a value that is new keeps its own.
        new = [value for value in _commonest(now) if value not in column["categories"] and not column["other"]]
        known = [*_commonest(column), *(new if rebuilt else _commonest(now))]
        listed = compute.is_in(values, value_set=pyarrow.array(known, pyarrow.string()))
        arrays[name] = compute.if_else(compute.or_(listed, compute.is_null(values)), values, OTHER)
    return pyarrow.table(arrays)


def showable(columns: Iterable[str], reference: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return the columns that Evidently can compare and a page may show: with values on both sides, none withheld."""
    return [name for name in columns if _both_show(reference["columns"].get(name), current["columns"].get(name))]


def _both_show(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    if before is None or now is None or before["kind"] != now["kind"] or before["kind"] == "unsupported":
        return False
    if before["kind"] == "categorical":
        seen = [sum(side["categories"].values()) + side["other"] for side in (before, now)]
        return all(seen) and not (before["values_withheld"] or now["values_withheld"])
    return all(sum(side["counts"].values()) for side in (before, now))


def _commonest(column: Mapping[str, Any]) -> list[str]:
    ordered = sorted(column["categories"], key=lambda value: (-column["categories"][value], value))
    return ordered[:SHOWN_CATEGORIES]


def _categories(column: Mapping[str, Any]) -> tuple[list[str | None], list[int]]:
    values = _commonest(column)
    counts = [column["categories"][value] for value in values]
    rest = column["other"] + sum(column["categories"].values()) - sum(counts)
    return [*values, OTHER, None], [*counts, rest, column["null_count"]]


def _numbers(column: Mapping[str, Any]) -> tuple[list[float | None], list[int]]:
    edges = grid_edges(column)
    if not edges:
        return [None], [1]
    missing = column["null_count"] + column["nan_count"]
    counts = dense(column["counts"], len(edges) + 1)
    return [*map(float, _points(column, np.asarray(edges))), None], [*counts, missing]


def _points(column: Mapping[str, Any], edges: Array) -> Array:
    """Return one number for each cell of the grid, the open ends included: its middle, or the whole number nearest.

    The upper end is drawn at its edge, which nearly all of its rows equal or follow closely, as it is the 99.8 %
    quantile. The lower one holds at most 0.2 % of the rows and is drawn halfway to the smallest.
    """
    inside = (edges[:-1] + edges[1:]) / 2
    lowest = (min(column["min"], edges[0]) + edges[0]) / 2
    if column.get("whole", _whole(column, edges)):
        rounded = np.rint(inside)
        # Where the cell holds a whole number, the one in it: rounding could lead out of a narrow one.
        first = np.ceil(edges[:-1])
        held = np.where((rounded >= edges[:-1]) & (rounded < edges[1:]), rounded, first)
        inside = np.where(first < edges[1:], held, inside)
        lowest = np.floor(lowest)
    return np.concatenate([[lowest], inside, [edges[-1]]])


def _whole(column: Mapping[str, Any], edges: Array) -> bool:
    """Say whether a column of an early profile seems to hold whole numbers: every occupied cell has room for one."""
    if any(not float(column[end]).is_integer() for end in ("min", "max")):
        return False
    cells = [int(cell) for cell in column["counts"] if 0 < int(cell) < len(edges)]
    return all(math.ceil(edges[cell]) - math.ceil(edges[cell - 1]) == 1 for cell in cells)


def _snapped(values: Array, column: Mapping[str, Any]) -> Array:
    edges = np.asarray(grid_edges(column))
    inside = np.isfinite(values) & (values >= column["min"]) & (values <= column["max"])
    cells = np.searchsorted(edges, np.where(inside, values, edges[0]), side="right")
    return np.where(inside, _points(column, edges)[cells], values)
