"""Which rows a model refuses: found by halving, then recognised by the value that it refused them for.

A chunk that a model refuses is halved until single rows are left. Where a feed carries a new category, thousands of
rows are refused for one reason, so a refused row is compared with one that was answered: each of its texts, booleans,
missing and infinite values is put into the answered row in turn, and if the model refuses that too, the value is what
it refuses. All rows with it, in this chunk and later ones, are set aside without asking again.

Asking costs calls, so a batch has a budget. A part that is still refused when it is spent is set aside whole, and says
so.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mlops.engines.batch_answers import Predictor
from airflow_mlops.engines.growing_file import plain_text
from airflow_mlops.errors import ModelRefusedError, OutageError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.engines.predictions import Array

log = logging.getLogger(__name__)

#: Characters of a model's own words: in the quarantine file, and in a report.
_MOST_WORDS, _MOST_SHOWN = 500, 160
#: Values a column may be known to be refused for; beyond that rows are searched one by one.
_MOST_VALUES = 1000


@dataclass(frozen=True)
class Reason:
    """Why rows are refused: ``words`` may quote a row, ``shown`` does not."""

    words: str
    shown: str

    def with_note(self, note: str) -> Reason:
        """Return the reason with a remark of ours."""
        return Reason(f"{self.words} ({note})", f"{self.shown} ({note})")


@dataclass(frozen=True)
class Answered:
    """What came of asking a model about ``n`` rows.

    :param positions: rows that were answered, ascending.
    :param answers: their answers, in this order; None where no row was answered.
    :param refused: the other rows, by reason.
    """

    positions: Array
    answers: pyarrow.Table | None
    refused: list[tuple[Array, Reason]]


class RefusalSearch:
    """Asks one model about chunk after chunk, and remembers what it refuses.

    :param calls: extra calls that the search may make in the whole batch.
    """

    def __init__(self, predictor: Predictor, calls: int) -> None:
        self.predictor = predictor
        self._calls = calls
        self._values: dict[str, list[Any]] = {}
        self._reasons: dict[str, list[Reason]] = {}
        self._good: pyarrow.Table | None = None

    def answer(self, rows: pyarrow.Table) -> Answered:
        """Ask about every row, in as few calls as it takes.

        :raises ModelRefusedError: the model's answers are of no form that we know, from its first row on.
        """
        import pyarrow

        found: list[tuple[Array, pyarrow.Table]] = []
        refused: list[tuple[Array, Reason]] = []
        open_rows = np.ones(rows.num_rows, dtype=bool)
        self._recognise(rows, open_rows, refused)
        todo = [(0, rows.num_rows)]
        while todo:
            start, stop = todo.pop()
            places: Array = start + np.flatnonzero(open_rows[start:stop])
            if not len(places):
                continue
            whole = len(places) == stop - start
            part = rows.slice(start, stop - start) if whole else rows.take(pyarrow.array(places))
            try:
                answers = self.predictor.answer(part)
            except (OutageError, MemoryError):
                raise
            except Exception as exc:
                if len(places) > 1 and self._calls > 1:
                    self._calls -= 2
                    middle = int(places[len(places) // 2])
                    todo += [(middle, stop), (start, middle)]
                    continue
                log.debug("%s refuses %d rows.", self.predictor.who, len(places), exc_info=True)
                if isinstance(exc, ModelRefusedError) and self._good is None:
                    raise  # no row was ever answered in a form we know: it is the model, not the rows
                if len(places) == 1 and self._blame(part):
                    self._recognise(rows, open_rows, refused)
                if not open_rows[places].any():
                    continue
                open_rows[places] = False
                reason = _reason(exc)
                if len(places) > 1:
                    reason = reason.with_note("these rows were refused together and not searched further")
                refused.append((places, reason))
                continue
            open_rows[places] = False
            found.append((places, answers))
            if self._good is None:
                self._good = part.slice(0, 1)
        if not found:
            return Answered(np.empty(0, dtype=np.int64), None, refused)
        return Answered(
            np.concatenate([places for places, _ in found]),
            pyarrow.concat_tables([answers for _, answers in found]),
            refused,
        )

    def _recognise(self, rows: pyarrow.Table, open_rows: Array, refused: list[tuple[Array, Reason]]) -> None:
        """Close the rows that hold a value which is known to be refused."""
        import pyarrow
        from pyarrow import compute

        for column, values in self._values.items():
            kind = plain_text(rows[column]).type
            known = pyarrow.array(values, kind, from_pandas=False)
            which = compute.index_in(plain_text(rows[column]), value_set=known, skip_nulls=False)
            numbers = which.fill_null(-1).to_numpy()
            for number in np.unique(numbers[open_rows & (numbers >= 0)]):
                places = np.flatnonzero(open_rows & (numbers == number))
                open_rows[places] = False
                refused.append((places, self._reasons[column][number]))

    def _blame(self, row: pyarrow.Table) -> bool:
        """Find the values that a single row was refused for; say whether there is one."""
        good = self._good
        if good is None or self._calls < len(self.predictor.features):
            return False
        guilty = False
        for column in self.predictor.features:
            value = row[column][0].as_py()
            if not _telling(value) or _same(value, good[column][0].as_py()):
                continue
            if len(self._values.get(column, ())) >= _MOST_VALUES:
                continue
            trial = good.set_column(good.column_names.index(column), column, row[column].cast(good[column].type))
            self._calls -= 1
            try:
                self.predictor.answer(trial)
            except (OutageError, MemoryError):
                raise
            except Exception as exc:  # noqa: BLE001  # the very value that is looked for
                self._values.setdefault(column, []).append(value)
                self._reasons.setdefault(column, []).append(_reason(exc).with_note(f"column {column!r}"))
                guilty = True
        return guilty


def _telling(value: Any) -> bool:
    """Say whether a value is of a kind that models refuse as such: an ordinary number is not."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or isinstance(value, str | bool)


def _same(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or left == right


def _reason(exc: Exception) -> Reason:
    text = " ".join(f"{type(exc).__name__}: {exc}".split()).rstrip(".")
    # What is quoted, listed, long or fractional may be a row's value; a column's number is short and whole.
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|-?\d+\.\d+(?:e[+-]?\d+)?|\d{4,}", "…", text)
    return Reason(text[:_MOST_WORDS], bare[:_MOST_SHOWN])
