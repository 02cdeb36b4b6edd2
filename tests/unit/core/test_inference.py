"""Limits from what was seen: always with room, never inward, each with its reason."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from airflow_mlops.core.inference import ColumnSeen, KeySeen, Proposal, TableSeen, combine, infer, outward


def column(**changes: object) -> ColumnSeen:
    seen = ColumnSeen("x", "float", 1000, ("float64",), low=1.0, high=9.0)
    return replace(seen, **changes)


def proposals(*columns: ColumnSeen, rows: int = 1000, **changes: object) -> dict[str, Proposal]:
    seen = replace(TableSeen(rows, columns, rows), **changes)
    return {one.type.removeprefix("expect_"): one for one in infer(seen).proposals}


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        pytest.param(80, 4983, True, (0, 8000), id="stops at zero"),
        pytest.param(-9.94, 57.2, False, (-50, 100), id="across zero"),
        pytest.param(-5.0, -1.0, False, (-7, 0), id="negative stops at zero"),
        pytest.param(7, 7, True, (7, 7), id="one value"),
        pytest.param(0.1, 0.1, False, (0.1, 0.1), id="one value that no decimal writes"),
        pytest.param(0, 1, True, (0, 2), id="whole numbers move by whole steps"),
        pytest.param(983.8, 1034.6, False, (950, 1060), id="far from zero"),
        pytest.param(-1.7e308, 1.7e308, False, (None, None), id="wider than floats"),
        pytest.param(0, 2**64 - 1, True, (0, 28_000_000_000_000_000_000), id="64 bits"),
    ],
)
def test_ranges_are_rounded_outward(low: float, high: float, whole: bool, expected: tuple) -> None:
    assert outward(low, high, whole=whole) == expected


@pytest.mark.parametrize("low", [1e16, -1e16, 1e-300, 123456789.123456])
def test_a_range_is_never_inside_what_was_seen(low: float) -> None:
    high = math.nextafter(low, math.inf)

    start, end = outward(low, high, whole=False)

    assert start is not None
    assert end is not None
    assert start <= low < high <= end


@pytest.mark.parametrize(
    ("missing", "mostly", "reason"),
    [
        pytest.param(0, 0.999, "none of 100,000 rows; limit 0.1 %, the least", id="none"),
        pytest.param(120, 0.988, "0.12 % of 100,000 rows; limit 1.2 % = ten times that", id="few"),
        pytest.param(5_000, 0.85, "5 % of 100,000 rows; limit 15 % = ten percentage points above", id="some"),
        pytest.param(99_999, 0.000005, "half way from that to all", id="nearly all"),
    ],
)
def test_the_limit_on_missing_values_follows_from_the_share(missing: int, mostly: float, reason: str) -> None:
    seen = column(rows=100_000, missing=missing, worst_missing=missing / 100_000)

    found = proposals(seen, rows=100_000)["column_values_to_not_be_null"]

    assert found.kwargs["mostly"] == pytest.approx(mostly)
    assert 0 < found.kwargs["mostly"] <= 1 - missing / 100_000
    assert reason in found.reason
    assert found.on_failure == "fail"


def test_nan_and_null_are_told_apart_in_the_reason() -> None:
    found = proposals(column(missing=8, nans=3, worst_missing=0.008))["column_values_to_not_be_null"]

    assert "0.8 % of 1,000 rows, 3 of them NaN" in found.reason


def test_infinities_make_a_range_that_lets_some_through() -> None:
    found = proposals(column(infinite=10, worst_infinite=0.01))["column_values_to_be_between"]

    assert found.kwargs["mostly"] == 0.9
    assert "infinite in 10 rows" in found.reason


@pytest.mark.parametrize("role", ["id", "personal"])
def test_ids_and_personal_columns_get_no_limit_on_values(role: str) -> None:
    found = proposals(column(kind="text", role=role, distinct=2, values=("ann", "bob")))

    assert set(found) == {
        "table_columns_to_match_set",
        "column_values_to_be_in_type_list",
        "column_values_to_not_be_null",
    }


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        pytest.param({"distinct": 2, "values": ("a", "b")}, True, id="categories"),
        pytest.param({"distinct": 51, "values": None}, False, id="too many"),
        pytest.param({"distinct": 2, "values": ("a", "b"), "rows": 19}, False, id="seen too seldom"),
        pytest.param({"distinct": 2, "values": ("2013-01", "2013-02")}, False, id="dates move on"),
    ],
)
def test_a_value_set_only_where_the_values_repeat(changes: dict, listed: bool) -> None:
    found = proposals(column(kind="text", dtypes=("object",), **changes))

    assert ("column_values_to_be_in_set" in found) is listed
    if listed:
        assert found["column_values_to_be_in_set"].on_failure == "warn"


def test_rows_without_a_target_are_set_aside_up_to_a_share() -> None:
    target = column(name="y", kind="whole", role="target", distinct=2, values=(0, 1), missing=4, worst_missing=0.004)

    made = infer(TableSeen(1000, (target,), 1000))

    found = {one.type: one for one in made.proposals}
    assert found["expect_column_values_to_not_be_null"].on_failure == "quarantine"
    assert found["expect_column_values_to_be_in_set"].kwargs["value_set"] == [0, 1]
    assert found["expect_column_values_to_be_in_set"].on_failure == "fail"
    assert made.max_quarantined_share == 0.04


def test_the_shortest_key_that_held_is_expected_and_the_others_are_named() -> None:
    seen = TableSeen(1000, (column(),), 1000, keys=(KeySeen(("a",), 3), KeySeen(("a", "at"), 0)))

    made = infer(seen)

    assert "expect_compound_columns_to_be_unique" in [one.type for one in made.proposals]
    assert "'a' does not name a row: 3 rows repeat" in made.left_out


def test_parts_widen_what_the_whole_allows() -> None:
    whole = TableSeen(1000, (column(missing=5, worst_missing=0.005),), 1000)
    part = TableSeen(100, (column(rows=100, missing=5, worst_missing=0.05, dtypes=("int64",)),), 100)

    seen = combine(whole, {"the evaluation window": part})
    found = {one.type: one for one in infer(seen).proposals}

    assert infer(seen).min_rows == 50
    assert found["expect_column_values_to_not_be_null"].kwargs["mostly"] == 0.85
    assert "5 % of one of the evaluation window" in found["expect_column_values_to_not_be_null"].reason
    assert found["expect_column_values_to_be_in_type_list"].kwargs["type_list"] == ["float64", "int64"]


def test_a_column_that_a_part_lacks_altogether_has_no_limit_on_missing_values() -> None:
    whole = TableSeen(10, (column(rows=10, missing=5, worst_missing=0.5),), 10)
    part = TableSeen(5, (ColumnSeen("x", "empty", 5, ("float64",), missing=5, worst_missing=1.0),), 5)

    made = infer(combine(whole, {"the training window": part}))

    assert "expect_column_values_to_not_be_null" not in [one.type for one in made.proposals]
    assert any("missing throughout" in text for text in made.left_out)


def test_whole_numbers_beyond_64_bits_get_no_range() -> None:
    assert "column_values_to_be_between" in proposals(column(kind="whole", low=2**62, high=2**62 + 9))
    assert "column_values_to_be_between" not in proposals(column(kind="whole", low=2**63, high=2**63 + 9))


def test_an_expectation_that_would_need_an_infinite_number_is_left_out() -> None:
    labels = column(role="target", distinct=2, values=(math.inf, 0.0))

    found = infer(TableSeen(1000, (labels,), 1000), labels=True)

    assert "expect_column_values_to_be_in_set" not in [one.type for one in found.proposals]
    assert any("infinite number" in said for said in found.left_out)
