"""Choosing the cells of a column's profile from its values.

- Whole numbers get cells of one whole number each where 1,024 reach from the smallest to the largest, else of as many
  as it takes between the 0.2 % and 99.8 % quantiles. Their edges lie half way between two whole numbers.
- Other numbers get 1,024 equal buckets between these quantiles.
- Where one bucket would then hold more than 1 % of the values (ties, heavy tails), cells between quantiles take the
  place of the equal ones: 1,024 edges at most, and two more around every value that alone makes up 0.2 %, so that its
  cell holds nothing else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mlops.core.drift_counts import BUCKETS, SMALLEST_NORMAL
from airflow_mlops.engines.window_profile_cells import Array, scale_of
from airflow_mlops.engines.window_profile_counters import (
    CategoryCounter,
    Counter,
    MissingCounter,
    NumberCounter,
    as_floats,
    kind_of,
)

if TYPE_CHECKING:
    import pyarrow

LOW_SHARE, HIGH_SHARE = 0.002, 0.998
#: An equal bucket with a larger share of the values than this makes the grid too coarse.
COARSE_SHARE = 0.01
#: A value with a larger share than this gets a cell of its own where edges are chosen.
TIED_SHARE = 0.002
#: Bits of a float's fraction that an edge keeps; the counter is fastest for edges of ten bits.
_EDGE_BITS = 42


class GridFinder:
    """Looks at a column once and makes the counter that will count it."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name
        self.kind = kind_of(type_name)
        self._bounds = (math.inf, -math.inf)
        self._whole = True
        self._seen = 0
        self._sample: list[Array] = []

    def add(self, values: pyarrow.Array, step: int = 1) -> None:
        """Look at a piece; every ``step``-th row of the whole column becomes part of the sample."""
        if self.kind not in ("numeric", "time"):
            return
        numbers = as_floats(values, self.type_name)
        first = -self._seen % step
        self._seen += len(numbers)
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(numbers)
        some = numbers[first::step][finite[first::step]]
        kept = numbers if finite.all() else numbers[finite]
        if not len(kept):
            return
        self._bounds = (min(self._bounds[0], float(kept.min())), max(self._bounds[1], float(kept.max())))
        self._whole = self._whole and bool((np.floor(kept) == kept).all())
        self._sample.append(some.copy())

    def counter(self) -> Counter:
        """Return the counter on the cells that fit what was seen."""
        if self.kind == "unsupported":
            return MissingCounter(self.type_name, self.kind)
        if self.kind == "categorical":
            return CategoryCounter(self.type_name, ())
        return NumberCounter(self.type_name, self.kind, self.grid(), deviation=True)

    def grid(self) -> dict[str, Any]:
        """Return ``low``, ``high``, ``whole`` and, where the grid would be too coarse, ``edges``."""
        low, high = self._bounds
        if low > high:
            return {"low": None, "high": None, "whole": False}
        sample = np.sort(np.concatenate(self._sample)) if self._sample else np.zeros(0)
        if not len(sample):  # a few finite values, and the sample passed them by
            sample = np.array([low, high])
        ends = float(_quantile(sample, LOW_SHARE)), float(_quantile(sample, HIGH_SHARE))
        # Beyond 2**52 half numbers do not exist, so no edge could lie between two whole ones.
        if self._whole and max(abs(low), abs(high)) < 2**52:
            span = (low, high) if high - low < BUCKETS else ends
            grid: dict[str, Any] = {**_whole_grid(*span), "whole": True}
        else:
            grid = {**dict(zip(("low", "high"), _grid(*ends), strict=True)), "whole": self._whole}
        if _largest_share(sample, grid) > COARSE_SHARE:
            grid["edges"] = _edges(sample)
        return grid


def _quantile(ordered: Array, share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def _grid(low: float, high: float) -> tuple[float, float]:
    """Return the two ends of the grid; around a single value they lie half its size, at least one half, away.

    Ends so close that no bucket fits between them count as a single value.
    """
    if not math.isfinite(high - low):  # the span is beyond the largest float
        return low / 4, high / 4
    if low < high and math.isfinite(BUCKETS / (high - low)):
        return low, high
    half = 0.5 * max(1.0, abs(low))
    return low - half, low + half


def _whole_grid(low: float, high: float) -> dict[str, float]:
    width = max(1, math.ceil((high - low + 1) / BUCKETS))
    return {"low": low - 0.5, "high": low - 0.5 + BUCKETS * width}


def _largest_share(sample: Array, grid: dict[str, Any]) -> float:
    """Return the largest share of the sample in one cell, of those that can hold more than one value."""
    low, high = grid["low"], grid["high"]
    if grid["whole"] and high - low == BUCKETS:
        return 0.0
    with np.errstate(over="ignore"):
        places = np.clip((sample - low) * scale_of(low, high) + 1, 0, BUCKETS + 1).astype(np.intp)
    counts = np.bincount(places, minlength=BUCKETS + 2)
    return float(counts.max() / len(sample))


def _edges(sample: Array) -> list[float]:
    """Return ascending edges: quantiles, and both sides of every tied value."""
    values, counts = np.unique(sample, return_counts=True)
    tied = values[counts > TIED_SHARE * len(sample)]
    wanted = sample[np.linspace(0, len(sample) - 1, BUCKETS + 1).astype(np.intp)[1:-1]]
    rounded = _rounded(wanted)
    # Rounding may not bring neighbours together: the cells would be coarse again.
    short = np.where(np.diff(rounded, prepend=-np.inf) > 0, rounded, wanted)
    spread = np.setdiff1d(short[~np.isin(wanted, tied)], tied)
    # Above a tied 0 the next edge is the smallest normal float: the leading bits tell it from 0 at once.
    above = np.where(tied == 0, SMALLEST_NORMAL, np.nextafter(tied, np.inf))
    edges = np.unique(np.concatenate([spread, tied, above]))
    return [float(edge) for edge in edges if np.isfinite(edge)]


def _rounded(values: Array) -> Array:
    """Return the values with the tail of their fraction cut off: nearer to 0, in order."""
    bits = np.add(values, 0.0).view(np.int64) >> _EDGE_BITS << _EDGE_BITS
    rounded: Array = bits.view(np.float64)
    return rounded
