"""Holm's correction for asking the same question of many slices."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order they came in.

    The smallest p is multiplied by the number of tests, the next by one less, and so on; no adjusted value is below
    an earlier one, none above 1. Rejecting where the adjusted value is at most alpha keeps the chance of even one
    wrong rejection at alpha, however the tests depend on each other.

    :param p_values: one per test, each in [0, 1]; may be empty.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = running
    return adjusted


def draws_needed(tests: int, alpha: float) -> int:
    """Return how many bootstrap draws it takes that the smallest possible p-value can be rejected at all.

    The smallest p is 1 / (draws + 1); Holm holds it against alpha / tests.

    :param tests: number of tests, at least 1.
    :param alpha: one-sided error, in (0, 1).
    """
    # 1 - 0.95 is 0.050000000000000044: without rounding, an exact quotient would come out one lower.
    return math.ceil(round(tests / alpha, 6)) - 1
