"""A scikit-learn pipeline asked without the frame it was trained on: equal answers for less work.

What costs in a pipeline that begins with a ``ColumnTransformer`` is text: a pandas column of Python strings is made
from Arrow's codes, only for an ``OrdinalEncoder`` to turn it into codes again. Here the encoder is asked once for every
distinct value of a chunk, and its answers are spread over the rows by Arrow's own codes; numbers go straight into the
matrix that the rest of the pipeline gets. Every other transformer is called as the pipeline calls it.

Nothing is assumed: :class:`airflow_mlops.engines.batch_answers.Predictor` uses this only after it has given the same
bits as the plain model, and the plain model answers every chunk on which this one raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mlops.core.metrics import Task
from airflow_mlops.engines.binned_trees import BinnedTrees, binned
from airflow_mlops.engines.predictions import Array, Raw, ask
from airflow_mlops.engines.schemas import to_frame, with_floats

if TYPE_CHECKING:
    import pyarrow


#: Rows that the rest of the pipeline gets at a time: 20 columns of them fit into a processor's cache, which trees like.
_BLOCK = 32_768


class NotDirect(Exception):
    """These rows cannot be given to the unwrapped model."""


@dataclass(frozen=True)
class _Block:
    """Columns that one transformer turns into columns ``places`` of the matrix. No transformer: they pass through."""

    transformer: Any
    columns: tuple[str, ...]
    places: slice
    coded: bool = False


class DirectPrediction:
    """A pipeline taken apart: the matrix is made here, the steps after the ``ColumnTransformer`` stay as they are.

    :param rest: these steps.
    :param trees: the same where they are boosted trees alone, which take bins.
    """

    def __init__(self, blocks: Sequence[_Block], width: int, rest: Any, trees: BinnedTrees | None = None) -> None:
        self._blocks = tuple(blocks)
        self._width = width
        self._rest = rest
        self._trees = trees

    def ask(self, rows: pyarrow.Table, task: Task, floats: frozenset[str]) -> Raw:
        """Return what the pipeline answers.

        :param floats: columns whose whole numbers are to be floats.
        :raises NotDirect: a column has a type that only the plain model may judge.
        :raises ValueError: an encoder refuses a value.
        """
        matrix = np.empty((rows.num_rows, self._width), dtype=np.uint8 if self._trees else np.float64)
        for place, values, spread in self._columns(rows, floats):
            column = self._trees.bins(place, values) if self._trees else values
            matrix[:, place] = column if spread is None else column[spread]
        parts = [self._answer(matrix[start : start + _BLOCK], task) for start in range(0, len(matrix), _BLOCK)]
        return replace(parts[0], values=np.concatenate([part.values for part in parts]))

    def _answer(self, matrix: Array, task: Task) -> Raw:
        return self._trees.ask(matrix, task) if self._trees else ask(self._rest, matrix, task)

    def _columns(self, rows: pyarrow.Table, floats: frozenset[str]) -> Iterator[tuple[int, Array, Array | None]]:
        """Yield the matrix's columns: place, numbers, and, where these are for distinct values, which one a row has."""
        for block in self._blocks:
            chosen = rows.select(list(block.columns))
            if block.coded:
                for number, (codes, spread) in enumerate(_codes(block.transformer, chosen)):
                    yield block.places.start + number, codes, spread
                continue
            frame = to_frame(chosen)
            if block.transformer is None:
                for number, name in enumerate(block.columns):
                    values = frame[name].to_numpy()
                    if values.dtype.kind not in "fiub":
                        raise NotDirect(f"the column {name!r} is no number")
                    yield block.places.start + number, values.astype(np.float64, copy=False), None
                continue
            made = block.transformer.transform(with_floats(frame, floats))
            if not isinstance(made, np.ndarray) or made.dtype != np.float64:
                raise NotDirect("a transformer gives no plain matrix")
            for number in range(made.shape[1]):
                yield block.places.start + number, made[:, number], None


def unwrapped(model: Any, features: Sequence[str]) -> list[DirectPrediction]:
    """Take a model apart; return the ways to ask it, the quickest first.

    There is none where nothing would be gained, or where its parts are of other kinds.
    """
    try:
        from sklearn.compose import ColumnTransformer
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
    except ModuleNotFoundError:
        return []
    if type(model) is not Pipeline or len(model.steps) < 2 or type(model.steps[0][1]) is not ColumnTransformer:
        return []
    first = model.steps[0][1]
    names = list(getattr(first, "feature_names_in_", ()))
    settings = getattr(first, "_sklearn_output_config", None) or {}
    if first.sparse_output_ or settings.get("transform", "default") != "default" or names != list(features):
        return []
    blocks = []
    for name, transformer, columns in first.transformers_:
        places = first.output_indices_.get(name)
        if places is None or places.start == places.stop:
            continue
        chosen = _names(columns, names)
        if chosen is None:
            return []
        passes = isinstance(transformer, FunctionTransformer) and transformer.func is None
        if passes or transformer == "passthrough":
            blocks.append(_Block(None, chosen, places))
            continue
        coded = type(transformer) is OrdinalEncoder and np.dtype(transformer.dtype) == np.float64
        blocks.append(_Block(transformer, chosen, places, coded))
    if not any(block.coded for block in blocks):
        return []
    width, rest = max(block.places.stop for block in blocks), model[1:]
    trees = binned(rest[0]) if len(rest) == 1 else None
    return [DirectPrediction(blocks, width, rest, way) for way in ([trees, None] if trees else [None])]


def same_answer(left: Raw, right: Raw) -> bool:
    """Say whether two answers are equal to the last bit; NaN equals NaN."""
    if left.answer != right.answer or left.classes != right.classes or left.values.dtype != right.values.dtype:
        return False
    numbers = left.values.dtype.kind in "fc"
    return bool(np.array_equal(left.values, right.values, equal_nan=numbers))


def _names(columns: Any, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names behind a transformer's columns; None for one column given alone, which it gets as a series."""
    if isinstance(columns, str | int) or callable(columns):
        return None
    if isinstance(columns, slice):
        return tuple(names[columns]) if not isinstance(columns.start, str) else None
    chosen = list(columns)
    if chosen and all(isinstance(one, bool | np.bool_) for one in chosen):
        return tuple(name for name, wanted in zip(names, chosen, strict=True) if wanted)
    if all(isinstance(one, str) for one in chosen):
        return tuple(chosen)
    return tuple(names[int(one)] for one in chosen)


def _codes(encoder: Any, rows: pyarrow.Table) -> list[tuple[Array, Array]]:
    """Ask an encoder for the distinct values only; return its numbers and which of them each row has, by column."""
    import pandas
    import pyarrow

    distinct: dict[str, list[Any]] = {}
    spread: list[Array] = []
    for name in rows.column_names:
        values = rows[name].combine_chunks()
        if not pyarrow.types.is_dictionary(values.type):
            if not pyarrow.types.is_string(values.type):
                raise NotDirect(f"the column {name!r} is no text")
            values = values.dictionary_encode()
        distinct[name], codes = _used(values)
        spread.append(codes)
    longest = max(len(words) for words in distinct.values())
    # The encoder wants a value in every cell: shorter columns repeat their own first one. As objects, since pandas
    # would make its own text type of them, in which None is NaN, and the encoder tells these apart.
    padded = {
        name: pandas.Series(_texts(words + words[:1] * (longest - len(words))), dtype=object)
        for name, words in distinct.items()
    }
    made = encoder.transform(pandas.DataFrame(padded, columns=list(rows.column_names)))
    return [(np.asarray(made)[:, number], positions) for number, positions in enumerate(spread)]


def _used(values: pyarrow.DictionaryArray) -> tuple[list[Any], Array]:
    """Return the values that occur (missing is None), and for every row the position of its own among them.

    A file's dictionary covers a whole row group: what no row of the chunk has must not be asked for, since the encoder
    may refuse it.
    """
    import pyarrow

    size = len(values.dictionary)
    codes = values.indices.fill_null(size).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    if size > 4 * len(codes):
        used, positions = np.unique(codes, return_inverse=True)
    else:
        used = np.flatnonzero(np.bincount(codes, minlength=size + 1))
        place: Array = np.empty(size + 1, dtype=np.int64)
        place[used] = np.arange(len(used))
        positions = place[codes]
    words = values.dictionary.take(pyarrow.array(used[used < size])).to_pylist()
    return words + [None] * (len(used) - len(words)), positions


def _texts(words: Sequence[Any]) -> Array:
    found: Array = np.empty(len(words), dtype=object)
    found[:] = words
    return found
