"""Score chunks of rows: who answers which row, which rows nobody can score and why, and the two files that follow."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from airflow_mlops.engines.batch_answers import Predictor, Terms, usable
from airflow_mlops.engines.entity_split import draws
from airflow_mlops.engines.growing_file import GrowingFile, plain_text
from airflow_mlops.engines.refusals import Answered, RefusalSearch
from airflow_mlops.engines.sentences import percent
from airflow_mlops.errors import DataReadError, ModelRefusedError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.record import Window
    from airflow_mlops.engines.predictions import Array

log = logging.getLogger(__name__)

#: Extra calls that the search for refused rows may make in a batch.
MAX_SEARCH_CALLS = 20_000
#: The same for a version that only scores beside the champion: it must not hold the champion's predictions up.
MAX_SHADOW_CALLS = 500
REASON = "reason"
OTHER = "other_"
STAMPS = ("model_name", "model_version", "run_key", "window_start", "window_end")
#: Rows by which the meaning of a version's answers is settled where its input example does not.
_SETTLING_ROWS = 1000
_MOST_REASONS = 10
NOT_FINITE = "the prediction is not finite"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What stands beside every prediction.

    :param copied: columns of the data that are written first: ids, event time, and what is kept.
    :param ids: of these, the columns that must not be null.
    """

    copied: tuple[str, ...]
    ids: tuple[str, ...]
    model_name: str
    run_key: str
    window: Window | None


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One version that answers."""

    predictor: Predictor
    version: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which entities the second version answers for: those whose number is below ``share``."""

    by: tuple[str, ...]
    share: float
    salt: str = ""


@dataclass
class Tally:
    """What was counted."""

    rows: int = 0
    scored: int = 0
    quarantined: int = 0
    unanswered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    by_version: Counter[int] = field(default_factory=Counter)

    def shown(self) -> dict[str, int]:
        """Return the commonest reasons, ten at most, without any row's value."""
        common = dict(self.reasons.most_common(_MOST_REASONS))
        rest = self.quarantined - sum(common.values())
        return common | ({"other reasons": rest} if rest > 0 else {})


class TooManyRefused(DataReadError):
    """More rows cannot be scored than ``scoring.max_quarantined_share`` allows."""


class BatchScorer:
    """Score one window's chunks into two files of this machine.

    :param other: the second version; ``mode`` says how it takes part. None with ``shadow``: it could not be loaded.
    :param expected_rows: rows of the whole window, of which ``max_share`` may be refused.
    """

    def __init__(
        self,
        champion: Arm,
        layout: Layout,
        folder: Path,
        *,
        other: Arm | None = None,
        mode: Literal["", "shadow", "split"] = "",
        share: Share | None = None,
        expected_rows: int,
        max_share: float,
    ) -> None:
        self.champion = champion
        self.layout = layout
        self.other = other
        self.mode = mode
        self.share = share
        self.tally = Tally()
        #: Why the second version did not answer, where it did not.
        self.other_problem = ""
        # One that answered no row of a chunk is not asked again.
        self._other_silent = False
        self._expected = expected_rows
        self._max_share = max_share
        self._search = RefusalSearch(champion.predictor, MAX_SEARCH_CALLS)
        calls = MAX_SHADOW_CALLS if mode == "shadow" else MAX_SEARCH_CALLS
        self._other_search = RefusalSearch(other.predictor, calls) if other is not None else None
        self._predictions = GrowingFile(folder / "predictions.parquet")
        self._quarantine = GrowingFile(folder / "quarantine.parquet")

    def score(self, chunks: Iterable[pyarrow.Table], schema: pyarrow.Schema) -> tuple[Path, Path | None]:
        """Score every chunk; return the file of predictions and, where a row was refused, that of those rows.

        :param schema: of the chunks, for a window without any.
        :raises TooManyRefused: the allowed share is exceeded; :meth:`quarantined_so_far` has the rows.
        """
        for chunk in chunks:
            self._score(chunk)
            # A quotient, not a product: 0.29 * 100 is less than 29.
            if self.tally.quarantined / max(1, self._expected) > self._max_share:
                raise TooManyRefused(self._too_many())
        if self._predictions.empty:
            nothing = schema.empty_table()
            self._write(nothing, self._columns().empty_table(), np.empty(0, dtype=np.int64))
        return self._predictions.close(), self.quarantined_so_far()

    def quarantined_so_far(self) -> Path | None:
        """Return the whole file of refused rows, or None where there is none."""
        return None if self._quarantine.empty else self._quarantine.close()

    def close(self) -> None:
        """Let go of the files, whatever their state."""
        self._predictions.abandon()
        self._quarantine.abandon()

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the predictions' columns, in order."""
        return (*self.layout.copied, *self._columns().names, *STAMPS)

    # --- One chunk ------------------------------------------------------------------------------------------------

    def _score(self, chunk: pyarrow.Table) -> None:
        import pyarrow

        self.tally.rows += chunk.num_rows
        chunk = self._with_ids(chunk)
        if not chunk.num_rows:
            return
        versions = np.full(chunk.num_rows, self.champion.version, dtype=np.int64)
        if self.mode == "split" and self.other is not None and self.share is not None:
            theirs = draws(chunk, self.share.by, self.share.salt) < self.share.share
            versions[theirs] = self.other.version
            kept, answers = self._shared(chunk, theirs)
        else:
            kept, answers = self._answered(self._search, chunk)
        if answers is None or not len(kept):
            return
        if len(kept) < chunk.num_rows:
            chunk, versions = chunk.take(pyarrow.array(kept)), versions[kept]
        if self.mode == "shadow":
            answers = self._beside(chunk, answers)
        self._write(chunk, answers, versions)

    def _with_ids(self, chunk: pyarrow.Table) -> pyarrow.Table:
        """Set the rows aside whose id is null: nobody could join a label to their prediction."""
        from pyarrow import compute

        needed = dict.fromkeys((*self.layout.ids, *(self.share.by if self.share else ())))
        for name in needed:
            # Among floats some writers store NaN, which names an entity no more than null does.
            missing = compute.is_null(chunk[name], nan_is_null=True)
            if compute.any(missing).as_py():
                self._set_aside(chunk.filter(missing), f"the id column {name!r} is null")
                chunk = chunk.filter(compute.invert(missing))
        return chunk

    def _shared(self, chunk: pyarrow.Table, theirs: Array) -> tuple[Array, pyarrow.Table | None]:
        """Let each version answer its entities; return the rows that were answered and the answers, in row order."""
        import pyarrow

        self._join_terms(chunk)
        parts, places = [], []
        for search, mine in ((self._search, ~theirs), (self._other_search, theirs)):
            rows = np.flatnonzero(mine)
            if search is None or not len(rows):
                continue
            kept, answers = self._answered(search, chunk.take(pyarrow.array(rows)))
            if answers is not None:
                parts.append(answers)
                places.append(rows[kept])
        if not parts:
            return np.empty(0, dtype=np.int64), None
        positions = np.concatenate(places)
        order = np.argsort(positions, kind="stable")
        return positions[order], pyarrow.concat_tables(parts).take(pyarrow.array(order))

    def _join_terms(self, chunk: pyarrow.Table) -> None:
        """Settle one meaning of the shared columns before anything is written."""
        assert self.other is not None  # noqa: S101  # a split has two versions
        ours, other = self.champion.predictor, self.other.predictor
        if ours.terms is not None and other.terms is not None:
            if ours.terms != other.terms:
                ours.terms = other.terms = ours.terms.joined(other.terms)
            return
        # Neither example nor rows settled one of them yet: any row of the chunk tells, whoever it belongs to.
        for search in (self._search, self._other_search):
            if search is not None and search.predictor.terms is None:
                search.answer(chunk.slice(0, _SETTLING_ROWS))
        ours.terms = other.terms = ours.settled().joined(other.settled())

    def _beside(self, chunk: pyarrow.Table, answers: pyarrow.Table) -> pyarrow.Table:
        """Add what the second version says of the same rows; what it refuses is null and counted."""
        import pyarrow

        named = None
        kept: Array = np.empty(0, dtype=np.int64)
        found = self._other_answers(chunk)
        if found is not None and found.answers is not None:
            good = usable(found.answers)
            kept = found.positions[good]
            place = np.full(chunk.num_rows, -1, dtype=np.int64)
            place[kept] = np.flatnonzero(good)
            named = found.answers.take(pyarrow.array(place, mask=place < 0))
            if not good.all() and not self.other_problem:
                self.other_problem = NOT_FINITE
        self.tally.unanswered += chunk.num_rows - len(kept)
        for column in self._other_terms().schema:
            values = pyarrow.nulls(chunk.num_rows, column.type) if named is None else named[column.name]
            answers = answers.append_column(f"{OTHER}{column.name}", values)
        return answers

    def _other_answers(self, chunk: pyarrow.Table) -> Answered | None:
        """Ask the second version beside the champion; whatever is wrong with it is kept, not raised."""
        if self._other_search is None or self._other_silent:
            return None
        try:
            found = self._other_search.answer(chunk)
        except ModelRefusedError as exc:
            self._other_silent, self.other_problem = True, str(exc)
            return None
        if found.refused and not self.other_problem:
            self.other_problem = found.refused[0][1].shown
        self._other_silent = found.answers is None
        return found

    def _other_terms(self) -> Terms:
        # A version that could not even be loaded still has its columns, of the champion's types.
        return (self.champion if self.other is None else self.other).predictor.settled()

    def _columns(self) -> pyarrow.Schema:
        import pyarrow

        own = self.champion.predictor.settled().schema
        if self.mode != "shadow":
            return own
        beside = [column.with_name(f"{OTHER}{column.name}") for column in self._other_terms().schema]
        return pyarrow.schema([*own, *beside])

    # --- Rows that a model refuses --------------------------------------------------------------------------------

    def _answered(self, search: RefusalSearch, rows: pyarrow.Table) -> tuple[Array, pyarrow.Table | None]:
        """Return the positions of the rows that were answered, ascending, and their answers; None where none was.

        The others are set aside.
        """
        import pyarrow

        found = search.answer(rows)
        for places, reason in found.refused:
            self._set_aside(rows.take(pyarrow.array(places)), reason.words, reason.shown)
        positions, answers = found.positions, found.answers
        if answers is not None and not (good := usable(answers)).all():
            self._set_aside(rows.take(pyarrow.array(positions[~good])), NOT_FINITE)
            positions, answers = positions[good], answers.filter(pyarrow.array(good))
        return positions, answers

    def _set_aside(self, rows: pyarrow.Table, reason: str, shown: str = "") -> None:
        import pyarrow

        if not rows.num_rows:
            return
        self.tally.quarantined += rows.num_rows
        self.tally.reasons[shown or reason] += rows.num_rows
        name = REASON
        while name in rows.column_names:
            name = f"{name}_"
        constants = {name: reason, "run_key": self.layout.run_key}
        plain = {column: plain_text(rows[column]) for column in rows.column_names}
        self._quarantine.write(
            pyarrow.table(
                {
                    **plain,
                    **{
                        column: pyarrow.repeat(pyarrow.scalar(value), rows.num_rows)
                        for column, value in constants.items()
                        if column not in plain
                    },
                }
            )
        )

    def _too_many(self) -> str:
        tally = self.tally
        reasons = "; ".join(f"{count:,} rows: {reason}" for reason, count in tally.reasons.most_common(3))
        seen = "" if tally.rows == self._expected else f" among the first {tally.rows:,}, where scoring stopped"
        return (
            f"{tally.quarantined:,} of {self._expected:,} rows cannot be scored{seen}, more than the "
            f"{percent(self._max_share)} that scoring.max_quarantined_share allows. {reasons}."
        )

    # --- Writing --------------------------------------------------------------------------------------------------

    def _write(self, rows: pyarrow.Table, answers: pyarrow.Table, versions: Array) -> None:
        import pyarrow

        count = rows.num_rows
        window, moment = self.layout.window, pyarrow.timestamp("us", "UTC")

        def constant(value: Any, kind: pyarrow.DataType) -> Any:
            return pyarrow.repeat(pyarrow.scalar(value, kind), count)

        # Codes of one word each: a million copies of a name need not be compared to find that they are equal.
        def name(value: str) -> Any:
            return pyarrow.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), pyarrow.array([value]))

        columns = {column: plain_text(rows[column]) for column in self.layout.copied}
        columns |= {column: answers[column] for column in answers.column_names}
        stamps = (
            name(self.layout.model_name),
            pyarrow.array(versions, pyarrow.int64()),
            name(self.layout.run_key),
            constant(window.start if window else None, moment),
            constant(window.end if window else None, moment),
        )
        columns |= dict(zip(STAMPS, stamps, strict=True))
        self._predictions.write(pyarrow.table(columns))
        self.tally.scored += count
        numbers, counts = np.unique(versions, return_counts=True)
        self.tally.by_version.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
