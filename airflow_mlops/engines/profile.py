"""The reference profile that is logged with every model: what its training rows looked like, column by column.

Statistics of drift are computed from such counts alone (:mod:`airflow_mlops.core.drift`), so the training rows are
never read again. A later window is counted on the same cells by
:func:`airflow_mlops.engines.window_profile.window_profile`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift_counts import quantiles
from airflow_mlops.core.record import Window

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from airflow_mlops.engines.manifests import Manifest
    from airflow_mlops.engines.window_profile_counters import Counter

SCHEMA = "profile/2"
#: Rows from which the grid is taken; they are spread evenly over the table, so that sorted data gives no lopsided grid.
SAMPLE_ROWS = 250_000
#: Shares at which a profile states quantiles.
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PIECE_ROWS = 65_536


def build_profile(
    frame: pandas.DataFrame | pyarrow.Table,
    exclude: Collection[str] = (),
    *,
    available: Mapping[str, str] | None = None,
    window: Window | None = None,
) -> dict[str, Any]:
    """Return the profile of a table as plain JSON.

    ``{"schema", "row_count", "window", "available", "excluded": [...], "nan_counted_as_null", "columns": {name:
    {...}}}``. ``window`` is ``[start, end]`` or None, ``available`` every column of the data that the table was taken
    from, name to Arrow type, or None. Each column has ``kind``, ``type`` (Arrow's name), ``null_count`` and
    ``missing_share`` (NULL and NaN), and by kind:

    - ``numeric`` (whole numbers, floats, decimals): ``low``, ``high``, sometimes ``edges``, ``counts`` (``{cell:
      rows}``, empty cells left out), ``min``, ``max``, ``mean``, ``deviation`` (standard deviation, divisor n; all
      four of finite values; None where there are none or the figure is beyond the largest float; a window has no
      ``deviation``), ``whole`` (every finite value is a whole number; of a window: and the reference's are),
      ``nan_count``, ``infinite_count``, ``quantiles`` (``{share: value}``, from the counts). Cell 0 is everything
      below ``low``, cell ``b`` of 1 to 1024 is ``[low + (b-1)*w, low + b*w)`` with
      ``w = (high - low) / 1024``, cell 1025 is ``high`` and above; infinities lie in the open ends. With ``edges``,
      cell 0 is below the first of them, cell ``b`` is ``[edges[b-1], edges[b])``, and the last is the last and above.
      :mod:`~airflow_mlops.engines.window_profile_grid` says how the cells are chosen. All None and empty where no
      finite value is there.
    - ``time``: as ``numeric``, in seconds since 1970 UTC.
    - ``categorical`` (text, bool): ``categories`` (``{value: rows}``, the 10,000 most frequent or as many as take
      250,000 letters, ties by value), ``other`` (rows of all the rest), ``distinct_count`` (NULL not counted; above
      200,000 the least there can be), ``values_withheld`` (true where nearly every row has its own value, which are
      then not stored).
    - ``unsupported`` (lists, structs, bytes): nothing more.

    ``profile/1``, of earlier versions, has the equal buckets only, at most 100 categories, and neither ``window``,
    ``available``, ``type``, ``edges``, ``whole``, ``deviation`` nor ``quantiles``; windows can be counted against it
    all the same.

    NULL and NaN are told apart in an Arrow table. In a pandas frame missing *is* NaN: all of them count as NULL, and
    ``nan_counted_as_null`` is true.

    :param frame: the rows; a pandas frame's index is ignored.
    :param exclude: columns to leave out: identifiers, personal data; names that are not there are ignored.
    :param available: columns of the data that the table was taken from; lets later windows be checked for new ones.
    :param window: the time that the rows cover; lets later windows be checked for their rows per day.
    """
    from airflow_mlops.engines.window_profile_grid import GridFinder

    given, merged = _as_arrow(frame)
    names = [name for name in given.column_names if name not in set(exclude)]
    step = max(1, -(-given.num_rows // SAMPLE_ROWS))
    counters: dict[str, Counter] = {}
    for name in names:
        finder = GridFinder(str(_plain(given.schema.field(name).type)))
        for piece in _pieces(given[name]):
            finder.add(piece, step)
        counters[name] = finder.counter()
        for piece in _pieces(given[name]):
            counters[name].add(piece)
    return {
        **profile_of(given.num_rows, counters, excluded=[name for name in given.column_names if name not in counters]),
        "window": _ends(window),
        "available": dict(available) if available is not None else None,
        "nan_counted_as_null": merged,
    }


def profile_of(
    rows: int, counters: Mapping[str, Counter], *, excluded: list[str], manifest: Manifest | None = None
) -> dict[str, Any]:
    """Put a profile together from what its columns' counters hold.

    :param manifest: of the rows; names the window and the columns that were available.
    """
    columns = {name: counter.entry(rows) for name, counter in counters.items()}
    for column in columns.values():
        if "counts" in column:
            column["quantiles"] = quantiles(column, QUANTILES)
    return {
        "schema": SCHEMA,
        "row_count": rows,
        "window": _ends(manifest.window) if manifest is not None else None,
        "available": dict(manifest.columns) if manifest is not None else {},
        "nan_counted_as_null": False,
        "excluded": excluded,
        "columns": columns,
    }


def _ends(window: Window | None) -> list[str] | None:
    return [window.start.isoformat(), window.end.isoformat()] if window is not None else None


def _pieces(values: pyarrow.ChunkedArray) -> Iterator[pyarrow.Array]:
    for chunk in values.chunks:
        for start in range(0, len(chunk), _PIECE_ROWS):
            yield chunk.slice(start, _PIECE_ROWS)


def _plain(kind: pyarrow.DataType) -> pyarrow.DataType:
    import pyarrow

    return _plain(kind.value_type) if pyarrow.types.is_dictionary(kind) else kind


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
