"""The reference profile: exact counts, decided edges, and the same JSON every time."""

from __future__ import annotations

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mlops.core.drift_counts import BUCKETS
from airflow_mlops.core.record import Window
from airflow_mlops.engines import profile as module
from airflow_mlops.engines import window_profile_counters as counters
from airflow_mlops.engines.profile import build_profile
from tests.support.data_steps import day

WINDOW = Window.model_validate({"start": "2013-01-01", "end": "2013-03-01"})


def column(values: Any, name: str = "c") -> dict[str, Any]:
    made: dict[str, Any] = build_profile(pa.table({name: values}))["columns"][name]
    return made


def test_every_number_lies_in_the_bucket_that_its_value_says() -> None:
    values = np.random.default_rng(1).normal(size=5_000)
    made = column(pa.array(values))
    low, high = made["low"], made["high"]
    expected = np.clip(np.floor((values - low) / (high - low) * BUCKETS) + 1, 0, BUCKETS + 1)
    expected[values >= high] = BUCKETS + 1
    numbers, counts = np.unique(expected.astype(int), return_counts=True)

    assert made["counts"] == {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}
    assert (low, high) == tuple(np.sort(values)[[9, 4989]]), "the 0.2 % and 99.8 % quantiles"
    assert made["min"] == values.min()
    assert made["max"] == values.max()
    assert made["mean"] == pytest.approx(values.mean(), rel=1e-12)


def test_null_and_nan_are_told_apart_in_arrow_and_not_in_pandas() -> None:
    values = pa.array([1.0, math.nan, None, None])
    arrow = column(values)
    frame = build_profile(pd.DataFrame({"c": [1.0, math.nan, None, None]}))

    assert (arrow["null_count"], arrow["nan_count"], arrow["missing_share"]) == (2, 1, 0.75)
    assert (frame["columns"]["c"]["null_count"], frame["columns"]["c"]["nan_count"]) == (3, 0)
    assert frame["nan_counted_as_null"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            [math.inf, -math.inf, 5.0],
            {"min": 5.0, "max": 5.0, "mean": 5.0, "infinite_count": 2, "counts": {"0": 1, "1": 1, "1025": 1}},
            id="infinities lie in the open ends",
        ),
        pytest.param([7.0] * 3, {"low": 6.5, "high": 1030.5, "counts": {"1": 3}}, id="a whole number has its own cell"),
        pytest.param([0.0] * 3, {"low": -0.5, "high": 1023.5, "counts": {"1": 3}}, id="a constant zero"),
        pytest.param(
            [7.3] * 3, {"edges": [7.3, math.nextafter(7.3, 8)], "counts": {"1": 3}}, id="any constant has its own cell"
        ),
        pytest.param(
            [0.0] * 999 + [1e9],
            {"low": -0.5, "high": 1023.5, "max": 1e9, "counts": {"1": 999, "1025": 1}},
            id="one far value does not blur all others",
        ),
        pytest.param(
            [None, None], {"null_count": 2, "min": None, "mean": None, "low": None, "counts": {}}, id="all null"
        ),
        pytest.param([math.nan], {"nan_count": 1, "low": None, "counts": {}, "missing_share": 1.0}, id="all NaN"),
        pytest.param([math.inf, None], {"low": None, "infinite_count": 1, "counts": {"1025": 1}}, id="nothing finite"),
        pytest.param([-1.7e308, 1.7e308], {"mean": 0.0, "min": -1.7e308}, id="the largest numbers there are"),
        pytest.param([5e-324, 1e-323], {"counts": {"1": 1, "2": 1}}, id="the smallest numbers there are"),
    ],
)
def test_edges_of_numbers(values: list[float | None], expected: dict[str, Any]) -> None:
    made = column(pa.array(values, pa.float64()))

    assert {key: made[key] for key in expected} == expected
    json.dumps(made, allow_nan=False)
    assert sum(made["counts"].values()) + made["null_count"] + made["nan_count"] == len(values)


def test_categories_are_the_most_frequent_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "LISTED_CATEGORIES", 100)
    values = [f"v{n:04d}" for n in range(300) for _ in range(1 + (n < 5))]
    made = column(pa.array([*values, None]))

    assert list(made["categories"])[:6] == ["v0000", "v0001", "v0002", "v0003", "v0004", "v0005"]
    assert len(made["categories"]) == 100
    assert made["categories"]["v0000"] == 2
    assert made["other"] == 305 - sum(made["categories"].values())
    assert (made["distinct_count"], made["null_count"]) == (300, 1)


def test_a_column_that_names_its_rows_keeps_its_values_to_itself() -> None:
    made = column(pa.array([f"person-{n}" for n in range(5_000)]))

    assert made["values_withheld"]
    assert made["categories"] == {}
    assert (made["other"], made["distinct_count"]) == (5_000, 5_000)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        pytest.param(pa.array([True, None, True]), "categorical", {"categories": {"true": 2}}, id="bool"),
        pytest.param(pa.array(["a", "b"]).dictionary_encode(), "categorical", {"distinct_count": 2}, id="dictionary"),
        pytest.param(pa.array(["-1", "nan", ""]), "categorical", {"distinct_count": 3}, id="text like our own marks"),
        pytest.param(pa.array([2**63], pa.uint64()), "numeric", {"max": 2.0**63}, id="large unsigned"),
        pytest.param(pa.array([Decimal("1.5")]), "numeric", {"mean": 1.5}, id="decimal"),
        pytest.param(pa.array([date(1970, 1, 2)]), "time", {"min": 86400.0}, id="date"),
        pytest.param(pa.array([day(1)], pa.timestamp("ms", "Asia/Tokyo")), "time", {"min": 1356998400.0}, id="time"),
        pytest.param(pa.array([[1], None]), "unsupported", {"null_count": 1}, id="list"),
        pytest.param(pa.nulls(2), "categorical", {"null_count": 2, "distinct_count": 0}, id="no type at all"),
    ],
)
def test_kinds(values: pa.Array, kind: str, expected: dict[str, Any]) -> None:
    made = column(values)

    assert made["kind"] == kind
    assert {key: made[key] for key in expected} == expected


def test_long_texts_are_listed_as_far_as_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "LISTED_LETTERS", 10)
    made = column(pa.array(["a" * 6, "b" * 6, "a" * 6]))

    assert (made["categories"], made["other"], made["distinct_count"]) == ({"a" * 6: 2}, 1, 2)


def test_more_different_values_than_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "DISTINCT_VALUES", 3)
    made = column(pa.array(["a", "b", "c", "d", "a", "e"]))

    assert (made["categories"], made["other"]) == ({"a": 2, "b": 1, "c": 1}, 2)


@pytest.mark.parametrize(
    ("values", "edged"),
    [
        pytest.param(np.random.default_rng(0).normal(size=5_000), False, id="smooth"),
        pytest.param(np.random.default_rng(0).pareto(1.1, size=5_000), True, id="a heavy tail"),
        pytest.param(np.r_[np.zeros(4_000), np.linspace(0.001, 9, 1_000)], True, id="mostly zero"),
        pytest.param(1.6e9 + np.random.default_rng(0).normal(size=5_000), False, id="far from zero"),
        pytest.param(np.random.default_rng(0).integers(0, 10**6, 5_000), False, id="many whole numbers"),
        pytest.param(np.random.default_rng(0).integers(0, 20, 5_000), False, id="few whole numbers"),
    ],
)
def test_cells_between_quantiles_where_equal_buckets_are_too_coarse(values: Any, edged: bool) -> None:
    made = column(pa.array(values))
    shares = [count / len(values) for cell, count in made["counts"].items()]

    assert ("edges" in made) == edged
    if edged:
        edges = np.array(made["edges"])
        numbers, counts = np.unique(np.searchsorted(edges, values, side="right"), return_counts=True)
        assert made["counts"] == {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}
        assert max(share for share in shares if share < 0.5) <= 0.01
        assert len(edges) <= BUCKETS * 2


def test_whole_numbers_share_a_bucket_only_with_their_neighbours() -> None:
    made = column(pa.array(np.arange(5_000)))

    assert (made["low"], made["high"], made["whole"]) == (8.5, 8.5 + 5 * BUCKETS, True)
    assert made["counts"].pop("0") == 9
    assert set(made["counts"].values()) == {5, 1}, "every bucket holds five neighbours; the last is not full"


def test_the_profile_states_type_spread_and_quantiles() -> None:
    values = np.random.default_rng(3).normal(10, 2, 20_000)
    made = column(pa.array(values, pa.float64()))

    assert made["type"] == "double"
    assert made["deviation"] == pytest.approx(values.std(), rel=1e-9)
    for share, value in made["quantiles"].items():
        assert value == pytest.approx(np.quantile(values, float(share)), abs=(made["high"] - made["low"]) / BUCKETS)
    assert column(pa.array([5, 5]))["deviation"] == 0


def test_what_the_data_had_besides_and_when() -> None:
    made = build_profile(pa.table({"x": [1]}), available={"x": "int64", "id": "string"}, window=WINDOW)

    assert made["available"] == {"x": "int64", "id": "string"}
    assert made["window"] == ["2013-01-01T00:00:00+00:00", "2013-03-01T00:00:00+00:00"]


def test_excluded_columns_leave_their_name_only() -> None:
    made = build_profile(pa.table({"x": [1], "passenger": ["Ada"]}), exclude=["passenger", "not there"])

    assert list(made["columns"]) == ["x"]
    assert made["excluded"] == ["passenger"]
    assert "Ada" not in json.dumps(made)


@pytest.mark.parametrize("name", ['say "hi"', "select", "a;b", "ä b", "c0"])
def test_any_column_name_works(name: str) -> None:
    assert column([1, 2], name)["kind"] == "numeric"


def test_more_columns_than_one_statement_takes() -> None:
    made = build_profile(pa.table({f"x{n}": [n, n + 1] for n in range(120)}))

    assert [entry["min"] for entry in made["columns"].values()] == list(range(120))


@pytest.mark.parametrize(
    "frame", [pd.DataFrame(), pa.table({"x": pa.array([], pa.float64()), "s": pa.array([], pa.string())})]
)
def test_no_row_gives_a_profile_of_nothing(frame: Any) -> None:
    made = build_profile(frame)

    assert made["row_count"] == 0
    assert all(entry["missing_share"] == 0.0 for entry in made["columns"].values())
    json.dumps(made, allow_nan=False)


def test_a_frame_with_values_of_several_types() -> None:
    made = build_profile(pd.DataFrame({"m": [1, "one", None]}, index=[5, 5, 5]))

    assert made["columns"]["m"]["categories"] == {"1": 1, "one": 1}
    assert made["columns"]["m"]["null_count"] == 1


def test_the_profile_is_the_same_every_time() -> None:
    values = np.random.default_rng(0).lognormal(size=200_000)
    frame = pd.DataFrame({"x": values, "s": np.where(values > 1, "a", "b").astype(object)})

    assert json.dumps(build_profile(frame)) == json.dumps(build_profile(frame))


def test_the_grid_is_taken_from_all_over_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted data, larger than the sample: a grid from the first rows would miss most of it."""
    monkeypatch.setattr(module, "SAMPLE_ROWS", 1_000)
    made = column(pa.array(np.arange(100_000, dtype="float64")))

    assert made["low"] < 1_000
    assert made["high"] > 99_000
    assert len(made["counts"]) > 1_000
