"""Which cell of a column's grid a number lies in.

The bucket of a number on an equal grid is ``floor((x - low) * scale + 1)``, held between 0 and 1025, in 64-bit floats
and in this order of operations, with ``scale`` from :func:`scale_of`. Any engine that computes the same puts every
value into the same bucket, down to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from airflow_mlops.core.drift_counts import BUCKETS

Array = np.ndarray[Any, np.dtype[Any]]

#: Numbers handled at once: what several passes over them need stays in the processor's cache.
AT_ONCE = 65_536
#: Leading bits of a float that choose a cell of the look-up table: sign, exponent, ten of the fraction.
_KEY_SHIFT = 42


class Cells(Protocol):
    """Where numbers fall; ``counts`` has a place for every cell."""

    counts: Array
    #: What is taken away before values are squared.
    origin: float

    def count(self, numbers: Array) -> None:
        """Count finite floats, at most ``AT_ONCE`` of them."""


class EqualCells:
    """Equal buckets between two open ends."""

    def __init__(self, low: float | None, high: float | None) -> None:
        known = low is not None and high is not None
        self.origin = low if known and low is not None else 0.0
        self.scale = scale_of(low, high) if known and low is not None and high is not None else math.inf
        self.counts: Array = np.zeros(BUCKETS + 2, dtype=np.int64)
        self._floats = np.empty(AT_ONCE)
        self._places: Array = np.empty(AT_ONCE, dtype=np.int32)

    def count(self, numbers: Array) -> None:
        """Count finite floats, at most ``AT_ONCE`` of them."""
        if self.scale == math.inf:
            below = int((numbers < 0).sum())
            self.counts[0] += below
            self.counts[-1] += len(numbers) - below
            return
        floats, places = self._floats[: len(numbers)], self._places[: len(numbers)]
        with np.errstate(over="ignore"):
            np.subtract(numbers, self.origin, out=floats)
            np.multiply(floats, self.scale, out=floats)
        np.add(floats, 1.0, out=floats)
        np.clip(floats, 0.0, BUCKETS + 1.0, out=floats)
        np.copyto(places, floats, casting="unsafe")
        self.counts += np.bincount(places, minlength=BUCKETS + 2)


class EdgeCells:
    """Cells between given edges: as ``numpy.searchsorted(edges, value, side="right")``, and several times as fast.

    The leading bits of a float, read as a whole number, rise with its value. They choose a place in a table that holds
    the cell, or -1 where an edge lies between two values of equal leading bits; only such values are searched for.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = np.asarray(edges, dtype=np.float64)
        self.origin = float(self.edges[len(self.edges) // 2])
        self.counts: Array = np.zeros(len(self.edges) + 1, dtype=np.int64)
        keys = _keys(self.edges.copy())
        self._first = int(keys[0]) - 1
        size = int(keys[-1]) - self._first + 2
        at: Array = keys - self._first
        aligned = _keys(np.nextafter(self.edges, -math.inf)) < keys
        table = np.cumsum(np.bincount(at, minlength=size))
        table[at[~aligned]] = -1
        self._table = table.astype(np.int16)
        self._floats = np.empty(AT_ONCE)

    def count(self, numbers: Array) -> None:
        """Count finite floats, at most ``AT_ONCE`` of them."""
        floats = self._floats[: len(numbers)]
        np.add(numbers, 0.0, out=floats)  # -0.0 becomes 0.0, whose bits are in order
        keys = _keys(floats)
        keys -= self._first
        cells: Array = np.take(self._table, keys, mode="clip")
        if cells.min() < 0:
            unsure = cells < 0
            cells[unsure] = self.edges.searchsorted(numbers[unsure], side="right")
        self.counts += np.bincount(cells, minlength=len(self.counts))


def scale_of(low: float, high: float) -> float:
    """Return buckets per unit of a grid, such that ``high`` itself surely lies in the upper open end."""
    span = high - low
    scale = BUCKETS / span
    while span * scale < BUCKETS:
        scale = math.nextafter(scale, math.inf)
    return scale


def _keys(floats: Array) -> Array:
    """Return whole numbers that rise with the floats: their leading bits; the array given is overwritten."""
    bits: Array = floats.view(np.int64)
    if len(floats) and floats.min() < 0:
        # Of a negative float the bits fall while its value rises.
        np.bitwise_xor(bits, (bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF), out=bits)
    keys: Array = bits >> _KEY_SHIFT
    return keys
