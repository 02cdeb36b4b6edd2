"""Two profiles of one column as counts over the same cells: all that a drift statistic ever sees.

A cell is a bucket of the reference's grid, or a category. Nothing here knows what counted the rows, so files, a
warehouse and Spark share every statistic. Plain Python: a thousand cells take well under a millisecond.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

from airflow_mlops.errors import InvalidSpecError, VerdictError

#: Schemas of a profile that can be read; ``profile/1`` lacks types, edges and the standard deviation.
READABLE = ("profile/1", "profile/2")

#: Equal buckets of a column's grid.
BUCKETS = 1024
#: 2**-1022. Nothing that is measured lies between it and 0.
SMALLEST_NORMAL = 2.2250738585072014e-308
#: Stands for all values that a profile does not list by themselves.
OTHER = "(other)"

Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class CountPair:
    """One column's values on both sides, cell by cell; both sequences of counts have the same length.

    :param reference: rows per cell. Numeric: cell ``i`` is ``[edges[i-1], edges[i])``, the first and the last are open
        ends and hold the infinities too. Categorical: one cell a category.
    :param current: the same of the window.
    :param edges: numeric: ascending, one fewer than cells; empty for categories.
    :param labels: categorical: what each cell stands for.
    :param whole: the values of both sides are whole numbers, so a cell that holds one whole number holds one value.
    :param low: numeric: smallest finite value of both sides; None where neither has one.
    :param high: numeric: largest finite value of both sides.
    :param deviation: numeric: standard deviation of the reference's finite values; None where unknown.
    :param reference_missing: NULL and NaN of the reference.
    :param current_missing: the same of the window.
    :param infinite: infinities of both sides.
    :param unseen: categorical: rows of the window whose value the reference does not have; None where the reference
        does not list all of its values.
    """

    kind: Kind
    reference: tuple[int, ...]
    current: tuple[int, ...]
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    whole: bool = False
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    reference_missing: int = 0
    current_missing: int = 0
    infinite: int = 0
    unseen: int | None = None

    @property
    def reference_present(self) -> int:
        """Return the reference's rows with a value."""
        return sum(self.reference)

    @property
    def current_present(self) -> int:
        """Return the window's rows with a value."""
        return sum(self.current)

    def single(self, cell: int) -> bool:
        """Say whether a cell surely holds one value only: then the order of the values in it cannot matter.

        The cell from 0 to the smallest normal float is taken to hold 0 only.
        """
        if not 0 < cell < len(self.edges):
            return False
        below, above = self.edges[cell - 1], self.edges[cell]
        if self.whole:
            return _whole_numbers(below, above) == 1
        return (below == 0 and above <= SMALLEST_NORMAL) or math.nextafter(below, math.inf) >= above

    def with_missing(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the counts with missing values as a cell of their own, where either side has any."""
        if self.reference_missing or self.current_missing:
            return (*self.reference, self.reference_missing), (*self.current, self.current_missing)
        return self.reference, self.current

    def binned(self, bins: int) -> CountPair:
        """Return numeric cells merged into ``bins`` at most, each with about as many of the reference's values.

        The edges are those edges of the grid at which the reference's share is nearest to ``k / bins``; where several
        shares lead to one edge (ties), there are fewer bins. A reference that fills at most ``bins`` cells has few
        different values: then each of these cells is a bin of its own, and so is every gap around them, because a
        value that was never there says more than its neighbours. Categories stay as they are.
        """
        if self.kind == "categorical":
            return self
        filled = [cell for cell, count in enumerate(self.reference) if count]
        if len(filled) <= bins:
            cuts = {cut for cell in filled for cut in (cell - 1, cell) if 0 <= cut < len(self.edges)}
        else:
            cuts = self._even_cuts(bins)
        ends = [-1, *sorted(cuts), len(self.reference) - 1]
        reference, current = (
            tuple(sum(counts[start + 1 : end + 1]) for start, end in pairwise(ends))
            for counts in (self.reference, self.current)
        )
        return replace(self, reference=reference, current=current, edges=tuple(self.edges[at] for at in sorted(cuts)))

    def _even_cuts(self, bins: int) -> set[int]:
        """Return the places of the edges nearest to the shares ``k / bins``."""
        total = self.reference_present
        shares = [count / total for count in accumulate(self.reference[:-1])]
        cuts = {_nearest(shares, number / bins) for number in range(1, bins)}
        # An edge below or above all of the reference's values would make a bin that it never fills.
        return {at for at in cuts if 0 < shares[at] < 1}


class NotComparableError(VerdictError, ValueError):
    """A column's two profiles cannot be laid over each other; the message is a sentence that says why."""


def check_profile(profile: Mapping[str, Any], what: str) -> None:
    """Refuse what is no profile, or one of a newer schema.

    :param what: names it in the message: ``the reference``.
    :raises InvalidSpecError: the schema is none of :data:`READABLE`.
    """
    schema = profile.get("schema")
    if schema not in READABLE or not isinstance(profile.get("columns"), Mapping):
        raise InvalidSpecError(
            f"The profile of {what} has schema {schema!r}; {' and '.join(READABLE)} can be read. Give the file that "
            f"the train step logged (profile.json), or train again with this version of airflow_mlops."
        )


def pair_of(reference: Mapping[str, Any], current: Mapping[str, Any]) -> CountPair:
    """Lay the profiles of one column over each other.

    :param reference: an entry of a reference profile's ``columns``.
    :param current: the same column, counted by ``window_profile`` against that reference.
    :raises NotComparableError: one side has no value, its values are withheld, or its kind cannot be compared.
    """
    if reference["kind"] == "categorical":
        return _categories(reference, current)
    return _numbers(reference, current)


def grid_edges(column: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the edges of a numeric column's cells: its own, or those of 1024 equal buckets from low to high."""
    if column.get("edges"):
        return tuple(column["edges"])
    low, high = column["low"], column["high"]
    if low is None:
        return ()
    width = (high - low) / BUCKETS
    return (*(low + number * width for number in range(BUCKETS)), high)


def quantiles(column: Mapping[str, Any], shares: Sequence[float]) -> dict[str, float | None]:
    """Return a numeric column's quantiles from its counts: share as text to value, None where there is no value.

    Values are taken to lie evenly within their bucket, so a quantile is wrong by at most one bucket's width; those of
    the open ends by at most the distance to ``min`` or ``max``.
    """
    edges = grid_edges(column)
    counts = dense(column["counts"], len(edges) + 1)
    total = sum(counts)
    found: dict[str, float | None] = dict.fromkeys((f"{share:g}" for share in shares), None)
    low, high = column["min"], column["max"]
    if not total or not edges or low is None:
        return found
    reached = list(accumulate(counts))
    ends = (min(low, edges[0]), *edges, max(high, edges[-1]))
    for share in shares:
        cell = bisect_left(reached, max(share * total, 1))
        part = (share * total - (reached[cell] - counts[cell])) / counts[cell]
        value = ends[cell] + (ends[cell + 1] - ends[cell]) * max(0.0, part)
        found[f"{share:g}"] = float(min(max(value, low), high)) if math.isfinite(value) else None
    return found


def dense(counts: Mapping[str, int], cells: int) -> tuple[int, ...]:
    """Return sparse counts (bucket number as text to rows) with the empty buckets filled in."""
    return tuple(counts.get(str(number), 0) for number in range(cells))


def _nearest(ascending: Sequence[float], value: float) -> int:
    """Return the place of the number nearest to ``value``; of equals the first."""
    above = bisect_left(ascending, value)
    if above == 0:
        return 0
    below = bisect_left(ascending, ascending[above - 1])
    if above == len(ascending):
        return below
    return below if value - ascending[below] <= ascending[above] - value else above


def _numbers(reference: Mapping[str, Any], current: Mapping[str, Any]) -> CountPair:
    edges = grid_edges(reference)
    if not edges:
        raise NotComparableError("the reference has no finite value to compare with")
    if grid_edges(current) != edges:
        raise NotComparableError(
            "the two profiles were counted on different grids; count the window with window_profile and this reference"
        )
    counts = [dense(side["counts"], len(edges) + 1) for side in (reference, current)]
    if not sum(counts[1]):
        raise NotComparableError("the window has no value to compare")
    finite = [side[end] for side in (reference, current) for end in ("min", "max") if side[end] is not None]
    return CountPair(
        kind="numeric",
        reference=counts[0],
        current=counts[1],
        edges=edges,
        whole=bool(reference.get("whole")) and bool(current.get("whole")),
        low=min(finite, default=None),
        high=max(finite, default=None),
        deviation=reference.get("deviation"),
        reference_missing=reference["null_count"] + reference["nan_count"],
        current_missing=current["null_count"] + current["nan_count"],
        infinite=reference["infinite_count"] + current["infinite_count"],
    )


def _categories(reference: Mapping[str, Any], current: Mapping[str, Any]) -> CountPair:
    if reference["values_withheld"]:
        raise NotComparableError("nearly every row of the reference has a value of its own, so none were stored")
    ours, theirs = reference["categories"], current["categories"]
    if not (ours or reference["other"]):
        raise NotComparableError("the reference has no value to compare with")
    if not (theirs or current["other"]):
        raise NotComparableError("the window has no value to compare")
    listed = reference["other"] == 0
    # Where the reference does not list all of its values, a value that it does not list may still have been in it.
    new = [value for value in theirs if value not in ours] if listed else []
    rest = sum(count for value, count in theirs.items() if value not in ours) if not listed else 0
    rest += current["other"]
    cells = [*ours, *new]
    before = [*ours.values(), *([0] * len(new))]
    after = [theirs.get(value, 0) for value in cells]
    if rest or reference["other"]:
        cells.append(OTHER)
        before.append(reference["other"])
        after.append(rest)
    return CountPair(
        kind="categorical",
        reference=tuple(before),
        current=tuple(after),
        labels=tuple(cells),
        reference_missing=reference["null_count"],
        current_missing=current["null_count"],
        unseen=sum(after[len(ours) :]) if listed else None,
    )


def _whole_numbers(below: float, above: float) -> int:
    """Return how many whole numbers lie in ``[below, above)``."""
    return math.ceil(above) - math.ceil(below)
