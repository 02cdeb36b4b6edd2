"""Every drift method against an independent value: scipy, Evidently, a closed form, or a table from the literature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from scipy.spatial import distance

from airflow_mlops.core.drift_counts import CountPair, NotComparableError
from airflow_mlops.core.drift_methods import (
    ChiSquare,
    Hellinger,
    JensenShannon,
    KolmogorovSmirnov,
    LInfinity,
    MissingShare,
    PopulationStability,
    TotalVariation,
    UnseenShare,
    Wasserstein,
    chi_square,
)
from airflow_mlops.core.special import chi_square_tail, kolmogorov_tail

#: Party by gender, General Social Survey 1991; Agresti, An Introduction to Categorical Data Analysis (2007), table 2.5:
#: chi-square is 30.1 with 2 degrees of freedom.
AGRESTI = ((762, 327, 468), (484, 239, 477))


def categories(before: Sequence[int], after: Sequence[int], **other: object) -> CountPair:
    fields: dict[str, object] = {"labels": tuple(f"v{n}" for n in range(len(before))), "unseen": 0, **other}
    return CountPair(kind="categorical", reference=tuple(before), current=tuple(after), **fields)  # type: ignore[arg-type]


def numbers(before: np.ndarray, after: np.ndarray, edges: np.ndarray, **other: object) -> CountPair:
    counts = [
        np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1) for side in (before, after)
    ]
    both = np.concatenate([before, after])
    fields: dict[str, object] = {"low": both.min(), "high": both.max(), "deviation": before.std(), **other}
    return CountPair(
        kind="numeric",
        reference=tuple(counts[0].tolist()),
        current=tuple(counts[1].tolist()),
        edges=tuple(edges.tolist()),
        **fields,  # type: ignore[arg-type]
    )


def shares(counts: Sequence[int]) -> np.ndarray:
    return np.array(counts) / sum(counts)


def test_psi_is_the_sum_of_both_relative_entropies() -> None:
    p, q = (500, 300, 150, 50), (250, 250, 250, 250)
    expected = stats.entropy(shares(p), shares(q)) + stats.entropy(shares(q), shares(p))

    assert PopulationStability().measure(categories(p, q)).value == pytest.approx(expected, rel=1e-12)


def test_psi_of_two_poisson_columns_is_its_closed_form() -> None:
    """Jeffreys' divergence of Poisson(a) and Poisson(b) is (a - b) * ln(a / b)."""
    places = np.arange(0, 12)
    counts = [tuple(np.round(stats.poisson.pmf(places, mean) * 1e9).astype(int).tolist()) for mean in (3.0, 3.3)]

    found = PopulationStability().measure(categories(*counts)).value

    # The floor under small shares takes a little away.
    assert found == pytest.approx(0.3 * math.log(1.1), rel=0.005)


def test_psi_agrees_with_evidently_on_categories() -> None:
    from evidently.legacy.calculations.stattests import psi_stat_test

    before = pd.Series(["a"] * 600 + ["b"] * 300 + ["c"] * 100)
    after = pd.Series(["a"] * 400 + ["b"] * 350 + ["c"] * 250)

    found = PopulationStability().measure(categories((600, 300, 100), (400, 350, 250)))

    assert found.value == pytest.approx(psi_stat_test(before, after, "cat", 0.1).drift_score, rel=1e-12)


def test_psi_of_a_category_that_is_new() -> None:
    """A share of 0 counts as 0.0001: (0.1 - 0.0001) * ln(1000) for the new one, and the old one's own term."""
    found = PopulationStability().measure(categories((1000, 0), (900, 100)))

    assert found.value == pytest.approx(0.0999 * math.log(1000) + (0.9 - 1) * math.log(0.9), rel=1e-12)


@pytest.mark.parametrize(("p", "q"), [((500, 300, 200), (100, 300, 600)), ((10, 0), (0, 10)), ((1, 1, 0), (0, 1, 1))])
def test_jensen_shannon_is_scipys_in_base_2(p: tuple[int, ...], q: tuple[int, ...]) -> None:
    found = JensenShannon().measure(categories(p, q))

    assert found.value == pytest.approx(distance.jensenshannon(p, q, base=2), rel=1e-12)


def test_hellinger_of_two_poisson_columns_is_its_closed_form() -> None:
    """1 - BC with BC = exp(-(sqrt(a) - sqrt(b))**2 / 2), the Bhattacharyya coefficient."""
    places = np.arange(0, 60)
    counts = [tuple(np.round(stats.poisson.pmf(places, mean) * 1e12).astype(int).tolist()) for mean in (10.0, 14.0)]

    found = Hellinger().measure(categories(*counts)).value

    assert found == pytest.approx(math.sqrt(1 - math.exp(-((math.sqrt(10) - math.sqrt(14)) ** 2) / 2)), rel=1e-6)


def test_total_variation_and_l_infinity_are_half_the_city_block_and_the_chebyshev_distance() -> None:
    p, q = (762, 327, 468), (484, 239, 477)

    assert TotalVariation().measure(categories(p, q)).value == pytest.approx(
        distance.cityblock(shares(p), shares(q)) / 2, rel=1e-12
    )
    widest = LInfinity().measure(categories(p, q))
    assert widest.value == pytest.approx(distance.chebyshev(shares(p), shares(q)), rel=1e-12)
    assert "'v2'" in widest.note


def test_chi_square_of_a_published_table() -> None:
    found = ChiSquare().measure(categories(*AGRESTI))
    peer = stats.chi2_contingency(AGRESTI, correction=False)

    assert chi_square(*AGRESTI) == (pytest.approx(30.07, abs=0.005), 2)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-9)
    assert found.note == "chi-square is 30.1 with 2 degrees of freedom"


def test_cramers_v_does_not_depend_on_how_many_rows_either_side_has() -> None:
    p, q = (500, 300, 200), (250, 350, 400)
    peer = stats.contingency.association([p, q], method="cramer")

    assert ChiSquare().measure(categories(p, q)).value == pytest.approx(peer, rel=1e-12)
    assert ChiSquare().measure(categories([1000 * n for n in p], q)).value == pytest.approx(peer, rel=1e-12)


@pytest.mark.parametrize("values", ["normal", "ties", "heavy", "whole"])
@pytest.mark.parametrize("buckets", [20, 1_000])
def test_kolmogorov_smirnov_states_its_own_error(values: str, buckets: int) -> None:
    random = np.random.default_rng(5)
    before, after = {
        "normal": (random.normal(size=9_000), random.normal(0.1, 1.1, 7_000)),
        "ties": (np.round(random.normal(size=9_000), 1), np.round(random.normal(0.1, 1, 7_000), 1) + 0.03),
        "heavy": (random.pareto(1, 9_000), random.pareto(1.1, 7_000)),
        "whole": (random.poisson(8, 9_000).astype(float), random.poisson(8.5, 7_000).astype(float)),
    }[values]
    edges = np.linspace(*np.quantile(before, [0.002, 0.998]), buckets + 1)
    exact = stats.ks_2samp(before, after).statistic

    found = KolmogorovSmirnov().measure(numbers(before, after, edges))

    assert found.error is not None
    assert found.value <= exact + 1e-12, "cells never show more than there is"
    assert exact <= found.value + found.error + 1e-12


def test_kolmogorov_smirnov_is_exact_where_cells_hold_one_whole_number() -> None:
    random = np.random.default_rng(5)
    before, after = random.poisson(8, 9_000).astype(float), random.poisson(8.5, 7_000).astype(float)
    peer = stats.ks_2samp(before, after)

    found = KolmogorovSmirnov().measure(numbers(before, after, np.arange(-0.5, 40), whole=True))

    assert (found.value, found.error) == (pytest.approx(peer.statistic, abs=1e-12), 0)
    assert found.p_value == pytest.approx(special.kolmogorov(found.value * math.sqrt(63e6 / 16e3)), rel=1e-9)


def test_wasserstein_is_scipys_within_its_error() -> None:
    random = np.random.default_rng(6)
    before, after = random.gamma(2, size=8_000), random.gamma(2.3, size=6_000)
    exact = stats.wasserstein_distance(before, after) / before.std()
    edges = np.linspace(*np.quantile(before, [0.002, 0.998]), 1_025)

    found = Wasserstein().measure(numbers(before, after, edges))

    assert found.error is not None
    assert abs(found.value - exact) <= found.error
    assert found.value == pytest.approx(exact, abs=0.002)


def test_wasserstein_of_whole_numbers_is_exact() -> None:
    before, after = np.array([0.0, 1, 3]), np.array([5.0, 6, 8])
    pair = numbers(before, after, np.arange(-0.5, 10), whole=True)

    found = Wasserstein().measure(pair)

    assert found.value * before.std() == pytest.approx(5, rel=1e-12), "scipy's own example: three values moved by 5"
    assert found.error == 0


def test_wasserstein_without_a_stored_deviation_takes_it_from_the_cells() -> None:
    random = np.random.default_rng(6)
    before, after = random.normal(size=9_000), random.normal(0.5, 1, size=9_000)
    pair = numbers(before, after, np.linspace(-3, 3, 1_025), deviation=None)

    assert Wasserstein().measure(pair).value == pytest.approx(
        stats.wasserstein_distance(before, after) / before.std(), rel=0.01
    )


def test_wasserstein_is_undefined_with_infinities_and_without_spread() -> None:
    before, after = np.array([1.0, 2.0]), np.array([1.0, 3.0])
    with pytest.raises(NotComparableError, match="infinite"):
        Wasserstein().measure(numbers(before, after, np.arange(4), infinite=1))
    with pytest.raises(NotComparableError, match="all of the reference's values are equal"):
        Wasserstein().measure(numbers(before, after, np.arange(4), deviation=0.0))


def test_missing_share_and_missing_values_as_a_cell() -> None:
    pair = categories((80, 20), (60, 20), reference_missing=0, current_missing=20)

    assert MissingShare().measure(pair).value == pytest.approx(0.2)
    assert TotalVariation().measure(pair).value == pytest.approx((0.2 + 0 + 0.2) / 2)
    assert "'missing values'" in LInfinity().measure(categories((8, 2), (1, 1), current_missing=8)).note


def test_unseen_share_is_of_the_present_values() -> None:
    pair = categories((5, 5, 0), (40, 30, 30), current_missing=100, unseen=30)
    found = UnseenShare().measure(pair)

    assert (found.value, found.note) == (0.3, "new are 'v2'")
    with pytest.raises(NotComparableError, match="more categories than its profile lists"):
        UnseenShare().measure(categories((5, 5), (5, 5), unseen=None))


def test_bins_hold_a_tenth_of_the_reference_each() -> None:
    random = np.random.default_rng(7)
    before, after = random.normal(size=50_000), random.normal(0.5, 1, size=40_000)
    pair = numbers(before, after, np.linspace(-2.9, 2.9, 1_025)).binned(10)
    deciles = np.quantile(before, np.arange(0.1, 1, 0.1))
    raw = [np.bincount(np.searchsorted(deciles, side, side="right")) for side in (before, after)]

    assert np.abs(shares(pair.reference) - 0.1).max() < 0.002
    assert pair.edges == pytest.approx(deciles, abs=0.006)
    exact = stats.entropy(shares(raw[0]), shares(raw[1])) + stats.entropy(shares(raw[1]), shares(raw[0]))
    assert PopulationStability().measure(pair).value == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(
    ("counts", "bins"),
    [
        pytest.param([0, 900, 0, 100, 0], 5, id="two values, and gaps around them"),
        pytest.param([0, 1000, 0], 3, id="one value"),
        pytest.param([1, *[0] * 20, *range(1, 20), 9_000, *range(19, 0, -1)], 3, id="nearly all at one of many values"),
    ],
)
def test_ties_make_fewer_bins_and_few_values_a_bin_each(counts: list[int], bins: int) -> None:
    pair = CountPair(
        kind="numeric",
        reference=tuple(counts),
        current=tuple(counts),
        edges=tuple(float(n) for n in range(len(counts) - 1)),
        low=0.0,
        high=9.0,
    )
    binned = pair.binned(10)

    assert len(binned.reference) == bins
    assert sum(binned.reference) == sum(counts)
    assert PopulationStability().measure(pair).value == 0


@pytest.mark.parametrize("freedom", [1, 2, 9, 100, 5_000])
@pytest.mark.parametrize("times", [0.0, 0.1, 0.9, 1.0, 1.3, 4.0])
def test_chi_square_tail(freedom: int, times: float) -> None:
    expected = stats.chi2.sf(freedom * times, freedom)

    assert chi_square_tail(freedom * times, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 0.99, 1.0, 1.5, 3.0, 40.0])
def test_kolmogorov_tail(value: float) -> None:
    assert kolmogorov_tail(value) == pytest.approx(special.kolmogorov(value), rel=1e-9, abs=1e-14)
