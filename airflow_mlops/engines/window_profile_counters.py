"""Counting one column piece by piece: numbers into the cells of a grid, text into categories."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from airflow_mlops.core.drift_guards import family
from airflow_mlops.engines.window_profile_cells import AT_ONCE, Array, Cells, EdgeCells, EqualCells
from airflow_mlops.errors import DataReadError

if TYPE_CHECKING:
    import pyarrow

Kind = Literal["numeric", "time", "categorical", "unsupported"]

#: Most categories of a column that a profile lists by name, and the most letters they may take together.
LISTED_CATEGORIES = 10_000
LISTED_LETTERS = 250_000
#: A text column with more distinct values than this, and more than half as many as rows, names its rows: its values
#: would be data about individuals, so they are counted and not stored.
IDENTIFIER_VALUES = 1_000
#: Most different values of a column that are told apart while counting; of later ones only the rows are counted.
DISTINCT_VALUES = 200_000
#: Words that wait to be joined, at most.
WAITING_WORDS = 200_000


class Counter(Protocol):
    """Counts one column."""

    def add(self, values: pyarrow.Array) -> None:
        """Count a piece; DataReadError where its type cannot be counted."""

    def add_missing(self, rows: int) -> None:
        """Count rows of a file that lacks the column."""

    def entry(self, rows: int) -> dict[str, Any]:
        """Return the column's entry in a profile of so many rows."""


def kind_of(type_name: str) -> Kind:
    """Return how a column of this Arrow type is profiled."""
    found = family(type_name)
    if found == "number":
        return "numeric"
    if found == "time":
        return "time"
    return "unsupported" if found == "other" else "categorical"


def counter_for(type_name: str, reference: Mapping[str, Any] | None) -> Counter:
    """Return the counter of a column on the cells of its reference.

    :param type_name: Arrow's name of the column's type in the window.
    :param reference: the column's entry in the reference profile; None, or of another kind: missing values only.
    """
    kind = kind_of(type_name)
    if reference is None or kind == "unsupported":
        return MissingCounter(type_name, kind)
    if type_name == "null":  # no value, so no kind of its own
        kind = reference["kind"]
    if kind != reference["kind"] or kind == "unsupported":
        return MissingCounter(type_name, kind)
    if kind == "categorical":
        return CategoryCounter(type_name, None if reference["values_withheld"] else reference["categories"])
    return NumberCounter(type_name, kind, reference)


class MissingCounter:
    """Counts NULL alone, and NaN among floats."""

    def __init__(self, type_name: str, kind: Kind) -> None:
        self.type_name = type_name
        self.kind = kind
        self.nulls = 0

    def add(self, values: pyarrow.Array) -> None:
        """Count a piece."""
        self.nulls += values.null_count
        if str(values.type) in ("float", "double"):
            self.nulls += int(np.isnan(present(values)).sum())

    def add_missing(self, rows: int) -> None:
        """Count rows of a file that lacks the column."""
        self.nulls += rows

    def entry(self, rows: int) -> dict[str, Any]:
        """Return kind, type and missing values."""
        return {
            "kind": self.kind,
            "type": self.type_name,
            "null_count": self.nulls,
            "missing_share": self.nulls / rows if rows else 0.0,
        }


class NumberCounter:
    """Counts numbers, or times in seconds since 1970 UTC, in the cells of a grid.

    :param grid: ``low``, ``high`` and ``edges`` of a profile's entry, and ``whole``; ``low`` None and no edges: nothing
        finite is known, and the open ends below and from 0 are all there is.
    :param deviation: whether the standard deviation is found too; a window's own is not needed.
    """

    def __init__(self, type_name: str, kind: Kind, grid: Mapping[str, Any], *, deviation: bool = False) -> None:
        self.type_name = type_name
        self.kind = kind
        self.low, self.high, self.edges = grid.get("low"), grid.get("high"), grid.get("edges")
        self.whole = bool(grid.get("whole"))
        self._cells: Cells = EdgeCells(self.edges) if self.edges else EqualCells(self.low, self.high)
        self._nulls = self._nans = self._infinite = self._finite = 0
        self._low, self._high = math.inf, -math.inf
        self._sums: list[float] = []
        self._squares: list[float] | None = [] if deviation else None

    def add(self, values: pyarrow.Array) -> None:
        """Count a piece."""
        self._nulls += values.null_count
        numbers = as_floats(values, self.type_name, nulls=False)
        check = self.whole and not _is_integer(values.type)
        for start in range(0, len(numbers), AT_ONCE):
            self._add(numbers[start : start + AT_ONCE], check)

    def _add(self, numbers: Array, check_whole: bool) -> None:
        total = float(numbers.sum())
        if not math.isfinite(total):  # NaN, an infinity, or very large numbers
            numbers = self._only_finite(numbers)
            total = float(numbers.sum())
        if not len(numbers):
            return
        self._finite += len(numbers)
        self._low = min(self._low, float(numbers.min()))
        self._high = max(self._high, float(numbers.max()))
        self._sums.append(total)
        if check_whole:
            self.whole = self.whole and bool((np.floor(numbers) == numbers).all())
        if self._squares is not None:
            self._squares.append(_squared(numbers - self._cells.origin))
        self._cells.count(numbers)

    def _only_finite(self, numbers: Array) -> Array:
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(numbers)
        rest = numbers[~finite]
        up, down = int((rest == np.inf).sum()), int((rest == -np.inf).sum())
        self._infinite += up + down
        self._nans += len(rest) - up - down
        self._cells.counts[0] += down
        self._cells.counts[-1] += up
        kept: Array = numbers[finite]
        return kept

    def add_missing(self, rows: int) -> None:
        """Count rows of a file that lacks the column."""
        self._nulls += rows

    def entry(self, rows: int) -> dict[str, Any]:
        """Return the numeric entry; ``profile.build_profile`` says what it holds."""
        mean = _finite(sum_of(self._sums) / self._finite) if self._finite else None
        return {
            "kind": self.kind,
            "type": self.type_name,
            "null_count": self._nulls,
            "missing_share": (self._nulls + self._nans) / rows if rows else 0.0,
            "nan_count": self._nans,
            "min": self._low if self._finite else None,
            "max": self._high if self._finite else None,
            "mean": mean,
            "deviation": self._deviation(),
            "infinite_count": self._infinite,
            "whole": self.whole,
            "low": self.low,
            "high": self.high,
            **({"edges": self.edges} if self.edges else {}),
            "counts": {str(cell): int(self._cells.counts[cell]) for cell in np.flatnonzero(self._cells.counts)},
        }

    def _deviation(self) -> float | None:
        if not self._finite or self._squares is None:
            return None
        if self._low == self._high:
            return 0.0
        offset = sum_of(self._sums) / self._finite - self._cells.origin
        squared = sum_of(self._squares) / self._finite - offset * offset
        return math.sqrt(max(0.0, squared)) if math.isfinite(squared) else None


class CategoryCounter:
    """Counts text, or true and false.

    :param listed: categories of the reference, each of which is listed whatever its count; None: none is, and new ones
        are not listed either (the reference withholds its values).
    """

    def __init__(self, type_name: str, listed: Collection[str] | None) -> None:
        self.type_name = type_name
        self.listed = listed
        self._tally: dict[str, int] = dict.fromkeys(listed or (), 0)
        self._limit = DISTINCT_VALUES + len(self._tally)
        self._nulls = self._late = 0
        self._words: pyarrow.Array | None = None
        self._parts: list[tuple[pyarrow.Array, Array]] = []
        self._waiting = 0
        self._pending: Array = np.zeros(0, dtype=np.int64)

    def add(self, values: pyarrow.Array) -> None:
        """Count a piece."""
        import pyarrow

        types = pyarrow.types
        self._nulls += values.null_count
        if types.is_null(values.type):
            return
        if types.is_boolean(values.type):
            for word, count in (("true", values.true_count), ("false", values.false_count)):
                if count:
                    self._tell(word, count)
            return
        coded = values if types.is_dictionary(values.type) else values.dictionary_encode()
        words = coded.dictionary
        if not (types.is_string(words.type) or types.is_large_string(words.type)):
            raise DataReadError(f"text was expected, and it holds {values.type}")
        if coded.null_count == len(coded):
            return
        counts = np.bincount(present(coded.indices), minlength=len(words))
        # Pieces of one row group share their dictionary: its words are looked at once.
        if self._words is not None and words.equals(self._words):
            self._pending = self._pending + counts
        else:
            self._put_aside()
            self._words, self._pending = words, counts

    def _put_aside(self) -> None:
        """Keep what was counted by one dictionary until there is enough to look at."""
        if self._words is not None:
            if self._parts and self._parts[0][0].type != self._words.type:
                self._flush()
            self._parts.append((self._words, self._pending))
            self._waiting += len(self._words)
        self._words = None
        if self._waiting > WAITING_WORDS:
            self._flush()

    def _flush(self) -> None:
        parts, self._parts, self._waiting = self._parts, [], 0
        if not parts:
            return
        words, counts = parts[0] if len(parts) == 1 else _together(parts)
        for word, count in zip(words.to_pylist(), counts.tolist(), strict=True):
            if count:
                self._tell(word, count)

    def _tell(self, word: str, count: int) -> None:
        if word in self._tally:
            self._tally[word] += count
        elif len(self._tally) < self._limit:
            self._tally[word] = count
        else:
            self._late += count

    def add_missing(self, rows: int) -> None:
        """Count rows of a file that lacks the column."""
        self._nulls += rows

    def entry(self, rows: int) -> dict[str, Any]:
        """Return the categorical entry; ``profile.build_profile`` says what it holds."""
        self._put_aside()
        self._flush()
        distinct = sum(1 for count in self._tally.values() if count)
        withheld = self.listed is None or (distinct > IDENTIFIER_VALUES and distinct * 2 > rows)
        shown = {word: self._tally[word] for word in self.listed or ()}
        if not withheld:
            shown |= most_frequent(self._tally, shown)
        return {
            "kind": "categorical",
            "type": self.type_name,
            "null_count": self._nulls,
            "missing_share": self._nulls / rows if rows else 0.0,
            "categories": shown,
            "other": sum(self._tally.values()) + self._late - sum(shown.values()),
            "distinct_count": distinct,
            "values_withheld": withheld,
        }


def _together(parts: Sequence[tuple[pyarrow.Array, Array]]) -> tuple[pyarrow.Array, Array]:
    """Join the counts of several dictionaries: many row groups list the same words, each in an order of its own."""
    import pyarrow

    coded = []
    for words, _ in parts:
        codes = pyarrow.py_buffer(np.arange(len(words), dtype=np.int32))
        indices = pyarrow.Array.from_buffers(pyarrow.int32(), len(words), [None, codes])
        coded.append(pyarrow.DictionaryArray.from_arrays(indices, words))
    unified = pyarrow.chunked_array(coded).unify_dictionaries()
    words = unified.chunk(unified.num_chunks - 1).dictionary
    counts: Array = np.zeros(len(words), dtype=np.int64)
    for chunk, (_, some) in zip(unified.chunks, parts, strict=True):
        np.add.at(counts, present(chunk.indices), some)
    return words, counts


def most_frequent(tally: Mapping[str, int], but: Collection[str]) -> dict[str, int]:
    """Return the other categories that may be listed, the most frequent first, ties by value."""
    new = [(word, count) for word, count in tally.items() if count and word not in but]
    new.sort(key=lambda one: (-one[1], one[0]))
    found: dict[str, int] = {}
    letters = 0
    for word, count in new[:LISTED_CATEGORIES]:
        letters += len(word)
        if letters > LISTED_LETTERS:
            break
        found[word] = count
    return found


def as_floats(values: pyarrow.Array, type_name: str, *, nulls: bool = True) -> Array:
    """Return numbers as float64 and times as seconds since 1970 UTC; a view where nothing changes.

    :param nulls: whether NULL becomes NaN, or is left out.
    :raises DataReadError: the values are neither.
    """
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    unit = None
    if types.is_null(kind):
        return np.full(len(values) if nulls else 0, np.nan)
    if types.is_date(kind):
        values, unit = values.cast(pyarrow.timestamp("ms")).cast(pyarrow.int64()), "ms"
    elif types.is_timestamp(kind):
        values, unit = values.cast(pyarrow.int64()), kind.unit
    elif types.is_decimal(kind):
        values = values.cast(pyarrow.float64())
    elif not (types.is_integer(kind) or types.is_floating(kind)):
        raise DataReadError(f"{type_name} was expected, and it holds {kind}")
    if nulls and values.null_count:
        values = values.cast(pyarrow.float64(), safe=False).fill_null(math.nan)
    numbers: Array = present(values).astype(np.float64, copy=False)
    return numbers if unit is None else numbers / {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]


def present(values: pyarrow.Array) -> Array:
    """Return the numbers that are not NULL; a view where none is.

    Read from the buffers: Arrow's own ``to_numpy`` and ``scalar`` import pandas, which takes as long as counting a
    million rows.
    """
    if not len(values):
        return np.zeros(0)
    size = values.type.bit_width // 8
    bits, data = values.buffers()
    # Numbers of either sign and floats are told apart by Arrow's names, which numpy shares but for floats'.
    name = {"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(values.type), str(values.type))
    numbers: Array = np.frombuffer(data, dtype=name, count=len(values), offset=values.offset * size)
    if not values.null_count:
        return numbers
    valid = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")
    there: Array = valid[values.offset : values.offset + len(values)].view(bool)
    return numbers[there]


def _is_integer(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_integer(kind))


def sum_of(parts: Sequence[float]) -> float:
    """Return a sum without loss, or an infinity where it is beyond the largest float."""
    try:
        return math.fsum(parts)
    except (OverflowError, ValueError):
        return math.inf


def _squared(floats: Array) -> float:
    """Return the sum of squares; ``numpy.dot`` would ask a BLAS library, which starts threads that wait busily."""
    with np.errstate(over="ignore"):
        return float(np.einsum("i,i->", floats, floats))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
