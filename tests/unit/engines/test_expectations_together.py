"""Several expectations that Great Expectations would take for one."""

from __future__ import annotations

import pandas as pd

from airflow_mlops.engines.expectations import evaluate
from airflow_mlops.spec.contract import load_contract


def test_each_of_several_alike_gets_its_own_answer() -> None:
    frame = pd.DataFrame({"x": [1.0, 20.0], "y": [1, 2]})
    kinds = [
        ("expect_column_to_exist", {"column": "x"}, "pass"),
        ("expect_column_to_exist", {"column": "gone"}, "fail"),
        ("expect_column_to_exist", {"column": "y"}, "pass"),
        ("expect_column_values_to_be_between", {"column": "x", "min_value": 0}, "pass"),
        ("expect_column_values_to_be_between", {"column": "x", "max_value": 10}, "fail"),
    ]
    contract = load_contract({"expectations": [{"type": kind, "kwargs": kwargs} for kind, kwargs, _ in kinds]})

    outcomes = evaluate(frame, contract, range(len(kinds)))

    assert [outcome.status for outcome in outcomes] == [status for _, _, status in kinds]


def test_more_than_are_checked_at_once_come_back_in_order() -> None:
    frame = pd.DataFrame({f"c{number}": [number] for number in range(70)})
    contract = load_contract(
        {
            "expectations": [
                {"type": "expect_column_values_to_be_between", "kwargs": {"column": f"c{number}", "max_value": 34}}
                for number in range(70)
            ]
        }
    )

    outcomes = evaluate(frame, contract, range(70))

    assert [outcome.number for outcome in outcomes] == list(range(70))
    assert [outcome.status for outcome in outcomes] == ["pass"] * 35 + ["fail"] * 35


def test_a_column_that_is_alone_asked_for_and_not_there_is_missing() -> None:
    contract = load_contract({"expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "gone"}}]})

    assert [one.status for one in evaluate(pd.DataFrame({"x": [1]}), contract, [0])] == ["fail"]


def test_the_place_of_a_column_is_its_place_in_the_whole_table() -> None:
    kwargs = {"column": "y", "column_index": 1}
    contract = load_contract({"expectations": [{"type": "expect_column_to_exist", "kwargs": kwargs}]})

    assert [one.status for one in evaluate(pd.DataFrame({"x": [1], "y": [2]}), contract, [0])] == ["pass"]
