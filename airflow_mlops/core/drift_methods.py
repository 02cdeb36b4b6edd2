"""The built-in drift methods: distances between two columns of counts.

Every method takes a :class:`~airflow_mlops.core.drift_counts.CountPair` and gives a :class:`Distance`. It is 0 for
equal shares and does not depend on how many rows there are, so one threshold serves small and large windows; a p-value
does depend on them and at a million rows is tiny for any column, which is why no verdict follows from one.

``p`` are the reference's shares of the cells, ``q`` the window's. What the cells are:

- *binned* methods (psi, jensen_shannon, hellinger, chi_square, total_variation, l_infinity): numbers in at most 10 bins
  with about as many of the reference's values each (edges of the profile's grid nearest to the deciles; ties make
  fewer bins; the first and the last bin are open), but each value and each gap by itself where the reference fills at
  most 10 cells; categories one by one; and missing values (NULL and NaN) as one more cell where either side has any.
  Categories that a profile does not list are one cell, ``(other)``. The counts are exact, so the distance is exactly
  that of the raw values in the same cells: ``error`` is 0.
- *ordered* methods (kolmogorov_smirnov, wasserstein): numbers only, on all cells of the profile's grid (1,024 buckets
  and two open ends), missing values left out. ``error`` says how far the raw values' distance may be from this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from airflow_mlops.core.drift_counts import CountPair, Kind, NotComparableError
from airflow_mlops.core.special import chi_square_tail, kolmogorov_tail

BINS = 10
#: Shares below this are raised to it before their logarithm is taken.
FLOOR = 1e-4


@dataclass(frozen=True)
class Distance:
    """How far two columns of counts are apart.

    :param value: 0 for equal shares.
    :param error: largest amount by which the distance of the raw values may differ from ``value``; None where unknown.
    :param p_value: of methods that are tests.
    :param note: what else a reader wants to know, a clause.
    """

    value: float
    error: float | None = 0.0
    p_value: float | None = None
    note: str = ""


class PopulationStability:
    """Population stability index: ``sum((q - p) * ln(q / p))``.

    Base: natural logarithm. Bins: as in the module's text. Sides: symmetric. Smoothing: shares below 0.0001 are raised
    to 0.0001, on both sides and without scaling the others. Range: 0 upwards.

    Source: Lewis, *An Introduction to Credit Scoring* (1994); Siddiqi, *Credit Risk Scorecards* (2006), whose rule of
    thumb is the threshold: above 0.25 is a significant shift (0.1 to 0.25 a minor one). The symmetric Kullback-Leibler
    divergence of Jeffreys (1946) under another name.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.25

    def measure(self, pair: CountPair) -> Distance:
        """Return the index over the binned cells."""
        shares = ((max(p, FLOOR), max(q, FLOOR)) for p, q in _shares(*pair.binned(BINS).with_missing()))
        return Distance(math.fsum((q - p) * math.log(q / p) for p, q in shares))


class JensenShannon:
    """Jensen-Shannon distance: ``sqrt((KL(p, m) + KL(q, m)) / 2)`` with ``m = (p + q) / 2``.

    Base: 2, so it lies between 0 and 1. It is the root of the divergence, a metric. Bins: as in the module's text.
    Sides: symmetric. Smoothing: none is needed.

    Source: Lin (1991), *Divergence measures based on the Shannon entropy*; Endres and Schindelin (2003) for the root.
    ``scipy.spatial.distance.jensenshannon(p, q, base=2)`` is the same; Evidently's is in nats. Threshold: 0.1, the
    default of NannyML and of Evidently.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the distance over the binned cells."""
        terms = [
            side * math.log2(2 * side / (p + q))
            for p, q in _shares(*pair.binned(BINS).with_missing())
            for side in (p, q)
            if side > 0
        ]
        return Distance(math.sqrt(max(0.0, math.fsum(terms) / 2)))


class Hellinger:
    """Hellinger distance: ``sqrt(sum((sqrt(p) - sqrt(q))**2) / 2)``, between 0 and 1.

    Base: none. Bins: as in the module's text. Sides: symmetric. Smoothing: none is needed.

    Source: Hellinger (1909); Le Cam and Yang, *Asymptotics in Statistics* (2000) for the factor of one half.
    Threshold: 0.1, the default of NannyML and of Evidently.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the distance over the binned cells."""
        terms = [(math.sqrt(p) - math.sqrt(q)) ** 2 for p, q in _shares(*pair.binned(BINS).with_missing())]
        return Distance(math.sqrt(math.fsum(terms) / 2))


class TotalVariation:
    """Total variation distance: ``sum(|p - q|) / 2``, between 0 and 1: the share of rows that would have to move.

    Base: none. Bins: as in the module's text. Sides: symmetric. Smoothing: none is needed.

    Source: Levin, Peres and Wilmer, *Markov Chains and Mixing Times* (2009), proposition 4.2. Threshold: 0.1, our own:
    a tenth of the rows.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the distance over the binned cells."""
        return Distance(math.fsum(abs(p - q) for p, q in _shares(*pair.binned(BINS).with_missing())) / 2)


class LInfinity:
    """L-infinity (Chebyshev) distance: ``max(|p - q|)``, between 0 and 1: the one cell that changed most.

    Base: none. Bins: as in the module's text. Sides: symmetric. Smoothing: none is needed.

    Source: Deza and Deza, *Encyclopedia of Distances* (2009), as NannyML uses it on categories; threshold 0.1, its
    default.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the distance over the binned cells; categories name the cell."""
        binned = pair.binned(BINS)
        gaps = [abs(p - q) for p, q in _shares(*binned.with_missing())]
        widest = max(range(len(gaps)), key=gaps.__getitem__)
        labels = (*binned.labels, "missing values") if binned.kind == "categorical" else ()
        return Distance(gaps[widest], note=f"the widest gap is at {labels[widest]!r}" if labels else "")


class ChiSquare:
    """Pearson's chi-square test of homogeneity on the 2 x k table of counts, with Cramer's V as the distance.

    ``value`` is Cramer's V of the table with both rows scaled to shares, ``sqrt(sum((p - q)**2 / (p + q)) / 2)``:
    between 0 and 1 whatever the row counts. The statistic is of the unscaled table, both sides being samples (Evidently
    takes the reference as exact, a one-sample test); no continuity correction. Bins: as in the module's text, cells
    that are empty on both sides left out; ``k - 1`` degrees of freedom; the test is one-sided, as chi-square tests are.

    Source: Pearson (1900); Cramer, *Mathematical Methods of Statistics* (1946), section 21.9;
    ``scipy.stats.chi2_contingency(table, correction=False)`` gives the same statistic and p-value. Threshold: 0.1,
    "small" in Cohen, *Statistical Power Analysis* (1988), section 7.2 (his w is V on a table with two rows).
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return V with the test's p-value; the note has the statistic."""
        before, after = pair.binned(BINS).with_missing()
        statistic, freedom = chi_square(before, after)
        shares = [(p, q) for p, q in _shares(before, after) if p + q > 0]
        value = math.sqrt(math.fsum((p - q) ** 2 / (p + q) for p, q in shares) / 2)
        return Distance(
            value,
            p_value=chi_square_tail(statistic, freedom) if freedom else None,
            note=f"chi-square is {statistic:,.1f} with {freedom} degrees of freedom",
        )


class KolmogorovSmirnov:
    """Two-sample Kolmogorov-Smirnov distance: the largest difference of the two cumulative shares, between 0 and 1.

    Base: none. Bins: the profile's grid. Sides: two-sided (``max |P - Q|``). Smoothing: none.

    The grid's value is never above that of the raw values. Inside a cell both cumulative shares only rise, so the raw
    difference there is at most the larger of "P at its end minus Q at its start" and the reverse; ``error`` is the
    largest of these less ``value``, and is at most the largest cell's share. A cell that holds one value has none.

    Source: Smirnov (1939); ``scipy.stats.ks_2samp`` on raw values. p-value: Kolmogorov's limit for two samples,
    ``scipy.special.kolmogorov(sqrt(n * m / (n + m)) * value)``, good from a few hundred rows. Threshold: 0.1, our own:
    a tenth of the rows on the other side of some value.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric",)
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the distance with its error bound and p-value."""
        before, after = pair.reference_present, pair.current_present
        value = upper = left = right = 0.0
        below = above = 0
        for cell, (ours, theirs) in enumerate(zip(pair.reference, pair.current, strict=True)):
            below, above = below + ours, above + theirs
            new_left, new_right = below / before, above / after
            if ours and theirs and not pair.single(cell):
                upper = max(upper, new_left - right, new_right - left)
            left, right = new_left, new_right
            value = max(value, abs(left - right))
        scale = math.sqrt(before * after / (before + after))
        return Distance(value, error=max(0.0, min(1.0, upper) - value), p_value=kolmogorov_tail(scale * value))


class Wasserstein:
    """First Wasserstein (earth mover's) distance in standard deviations of the reference: ``integral |P - Q| / s``.

    Base: none. Bins: the profile's grid, values taken to lie evenly within a cell; the open ends reach to the smallest
    and largest finite value of both sides. Sides: symmetric but for ``s``. Smoothing: none. Range: 0 upwards. Not
    defined with infinities, and where the reference has one value only (``s`` is 0).

    Source: Vallender (1974) for the integral; ``scipy.stats.wasserstein_distance`` on raw values over ``numpy.std``.
    ``error``: on either side no value is farther from its even place than its cell is wide, so the sum over cells of
    width times the two shares, over ``s``, bounds the difference. Threshold: 0.1, Evidently's default.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric",)
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the distance with its error bound.

        :raises NotComparableError: infinities, or a reference without spread.
        """
        if pair.infinite or pair.low is None or pair.high is None:
            raise NotComparableError("the Wasserstein distance is not defined with infinite values")
        places = (min(pair.low, pair.edges[0]), *pair.edges, max(pair.high, pair.edges[-1]))
        scale = pair.deviation if pair.deviation is not None else _deviation(pair, places)
        if not scale:
            raise NotComparableError("all of the reference's values are equal, so its standard deviation is no unit")
        before, after = pair.reference_present, pair.current_present
        total, wrong, gap = [], [], 0.0
        for cell, (ours, theirs) in enumerate(zip(pair.reference, pair.current, strict=True)):
            width = places[cell + 1] - places[cell]
            p, q = ours / before, theirs / after
            after_gap = gap + p - q
            if pair.single(cell):
                # One whole number in the middle of its cell: the gap changes there and nowhere else.
                total.append(width * (abs(gap) + abs(after_gap)) / 2)
            else:
                total.append(width * _mean_distance(gap, after_gap))
                wrong.append(width * (p + q))
            gap = after_gap
        return Distance(math.fsum(total) / scale, error=math.fsum(wrong) / scale)


class MissingShare:
    """Change of the missing share (NULL and NaN): ``|missing share of the window - of the reference|``, 0 to 1.

    Base: none. Bins: missing and present. Sides: both (the guard ``max_missing_increase`` has one). Smoothing: none.
    Source: the total variation distance of these two cells, so exact. Threshold: 0.1, our own.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("numeric", "categorical")
    threshold: ClassVar[float] = 0.1

    def measure(self, pair: CountPair) -> Distance:
        """Return the change; the note has both shares."""
        before = pair.reference_missing / (pair.reference_missing + pair.reference_present)
        after = pair.current_missing / (pair.current_missing + pair.current_present)
        return Distance(abs(after - before), note=f"missing were {before:.1%}, and are {after:.1%}")


class UnseenShare:
    """Share of the window's present values that the reference does not have: between 0 and 1, exact. Categories only.

    Base: none. Bins: seen and unseen. Sides: one-sided by nature. Smoothing: none. Not defined where the reference has
    more categories than its profile lists. Source: as NannyML's unseen values check, over present values instead of
    rows. Threshold: 0.01, our own.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("categorical",)
    threshold: ClassVar[float] = 0.01

    def measure(self, pair: CountPair) -> Distance:
        """Return the share; the note names the most frequent unseen values.

        :raises NotComparableError: the reference does not list all of its categories.
        """
        if pair.unseen is None:
            raise NotComparableError(
                "the reference has more categories than its profile lists, so a value that is not listed may be an old "
                "one"
            )
        new = [
            (count, label)
            for label, ours, count in zip(pair.labels, pair.reference, pair.current, strict=True)
            if not ours and count
        ]
        named = ", ".join(repr(label) for _, label in sorted(new, key=lambda one: (-one[0], one[1]))[:3])
        return Distance(pair.unseen / pair.current_present, note=f"new are {named}" if named else "")


def chi_square(before: Sequence[int], after: Sequence[int]) -> tuple[float, int]:
    """Return the chi-square statistic of a 2 x k table and its degrees of freedom; empty columns are left out."""
    columns = [(ours, theirs) for ours, theirs in zip(before, after, strict=True) if ours + theirs]
    rows = [sum(ours for ours, _ in columns), sum(theirs for _, theirs in columns)]
    total = sum(rows)
    terms: Iterator[float] = (
        (count - row * sum(column) / total) ** 2 / (row * sum(column) / total)
        for column in columns
        for count, row in zip(column, rows, strict=True)
    )
    return math.fsum(terms), len(columns) - 1


def _shares(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[float, float]]:
    ours, theirs = sum(before), sum(after)
    return ((one / ours, other / theirs) for one, other in zip(before, after, strict=True))


def _mean_distance(start: float, end: float) -> float:
    """Return the mean of ``|x|`` while x goes evenly from ``start`` to ``end``."""
    if start * end >= 0:
        return (abs(start) + abs(end)) / 2
    return (start * start + end * end) / (2 * (abs(start) + abs(end)))


def _deviation(pair: CountPair, places: Sequence[float]) -> float:
    """Return the reference's standard deviation from its cells' middles; ``profile/1`` does not hold it."""
    total = pair.reference_present
    middles = [(places[cell] + places[cell + 1]) / 2 for cell in range(len(pair.reference))]
    mean = math.fsum(count * middle for count, middle in zip(pair.reference, middles, strict=True)) / total
    squares = (count * (middle - mean) ** 2 for count, middle in zip(pair.reference, middles, strict=True))
    return math.sqrt(math.fsum(squares) / total)
