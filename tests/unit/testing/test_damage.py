"""Every kind of damage is what it says, is noticed by a contract that is about it, and leaves the given frame alone."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from airflow_mlops import ModelSpec
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.testing import KINDS, broken, drift_between, drifted, kinds_of_damage, made_up, violations


@pytest.fixture
def rows(spec: ModelSpec) -> pd.DataFrame:
    return made_up(spec, rows=1000)


@pytest.mark.parametrize(
    ("kind", "expectation", "column"),
    [
        ("nulls", "expect_column_values_to_not_be_null", "age"),
        ("duplicate_ids", "expect_column_values_to_be_unique", "id"),
        ("wrong_type", "expect_column_values_to_be_of_type", "id"),
        ("out_of_range", "expect_column_values_to_be_between", "age"),
        ("new_category", "expect_column_values_to_be_in_set", "plan"),
        ("missing_column", "expect_column_values_to_be_unique", "id"),
        ("too_few_rows", "min_rows", None),
    ],
)
def test_each_kind_is_noticed_and_the_rows_given_stay(
    kind: str, expectation: str, column: str | None, spec: ModelSpec, rows: pd.DataFrame
) -> None:
    before = rows.copy()

    bad = broken(rows, spec, kind=kind)

    found = violations(bad, spec)
    assert (expectation, column) in [(one.expectation, one.column) for one in found]
    assert all(one.column == column for one in found)  # one damage, nothing beside it
    pd.testing.assert_frame_equal(rows, before)
    pd.testing.assert_frame_equal(bad, broken(rows, spec, kind=kind))


def test_every_kind_is_tried_above(spec: ModelSpec) -> None:
    assert kinds_of_damage(spec) == tuple(KINDS)


@pytest.mark.parametrize("column", ["visits", "gold", "at"])
def test_what_is_no_text_becomes_text(column: str, spec: ModelSpec, rows: pd.DataFrame) -> None:
    bad = broken(rows, spec, kind="wrong_type", column=column)

    assert pd.api.types.infer_dtype(bad[column]) == "string"
    assert [one.column for one in violations(bad, spec)][:1] == [column]


def test_a_share_counts_rows(spec: ModelSpec, rows: pd.DataFrame) -> None:
    bad = broken(rows, spec, kind="out_of_range", column="visits", share=0.03, seed=5)

    assert (bad["visits"] == 60).sum() == 30
    assert bad["visits"].dtype == "int64"
    assert not bad.equals(broken(rows, spec, kind="out_of_range", column="visits", share=0.03, seed=6))


def test_rows_that_are_set_aside_are_a_finding_and_the_others_are_not_blamed(
    spec: ModelSpec, rows: pd.DataFrame
) -> None:
    found = violations(broken(rows, spec, kind="nulls", column="left", share=0.1), spec)

    assert [(one.on_failure, one.column, one.unexpected_count) for one in found] == [("quarantine", "left", 100)]


def test_a_contract_that_would_not_notice_is_told(rows: pd.DataFrame) -> None:
    contract = {"expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "age"}}]}

    assert kinds_of_damage(contract) == ("missing_column",)
    with pytest.raises(InvalidSpecError, match="expect_column_values_to_not_be_null to the contract"):
        broken(rows, contract, kind="nulls")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        pytest.param({"kind": "null"}, UnknownNameError, "Did you mean 'nulls'", id="a kind that is none"),
        pytest.param({"kind": "nulls", "share": 1.5}, InvalidSpecError, "above 0 and at most 1", id="a share above 1"),
        pytest.param({"kind": "nulls", "column": "plan"}, InvalidSpecError, "It does of .*age", id="not its column"),
    ],
)
def test_wrong_use_of_broken_is_told(
    arguments: Any, error: Any, says: str, spec: ModelSpec, rows: pd.DataFrame
) -> None:
    with pytest.raises(error, match=says):
        broken(rows, spec, **arguments)


def test_a_frame_without_the_column_is_told(spec: ModelSpec, rows: pd.DataFrame) -> None:
    with pytest.raises(UnknownNameError, match="column of the frame"):
        broken(rows.drop(columns="age"), spec, kind="nulls")


@pytest.mark.parametrize(
    ("columns", "how"),
    [
        pytest.param(["age"], {"shift": 1.0}, id="shift"),
        pytest.param(["visits"], {"shift": -1.0}, id="shift of whole numbers"),
        pytest.param(["age"], {"scale": 3.0}, id="scale"),
        pytest.param(["plan"], {"mix": 0.6}, id="mix of texts"),
        pytest.param(["gold"], {"mix": 0.6}, id="mix of truth values"),
        pytest.param(["plan"], {"new_category": 0.3}, id="a new category"),
        pytest.param(["age", "plan", "visits", "gold"], {"shift": 2, "mix": 0.7}, id="all at once"),
    ],
)
def test_drift_moves_the_named_columns_and_is_noticed(
    columns: list[str], how: dict[str, float], spec: ModelSpec, rows: pd.DataFrame
) -> None:
    before = rows.copy()

    judged = drift_between(spec, rows, drifted(rows, columns=columns, **how))

    assert judged.verdict == "drift", judged.sentence
    assert {one.column for one in judged.columns if one.drifted} == set(columns)
    pd.testing.assert_frame_equal(rows, before)


def test_units_of_a_shift_and_types_stay(rows: pd.DataFrame) -> None:
    moved = drifted(rows, columns=["age", "visits"], shift=2)

    assert moved["age"].mean() - rows["age"].mean() == pytest.approx(2 * rows["age"].std(), rel=1e-3)
    assert moved.dtypes.equals(rows.dtypes)


def test_another_column_in_the_list_leaves_the_first_as_it_was(rows: pd.DataFrame) -> None:
    one = drifted(rows, columns=["plan"], mix=0.5)
    both = drifted(rows, columns=["gold", "plan"], mix=0.5)

    assert one["plan"].equals(both["plan"])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        pytest.param({"columns": ["age"]}, InvalidSpecError, "and how", id="no kind"),
        pytest.param({"columns": "age", "shift": 1}, InvalidSpecError, "which columns", id="a text for a list"),
        pytest.param({"columns": ["plan"], "shift": 1}, InvalidSpecError, "mix or new_category", id="a kind unfit"),
        pytest.param({"columns": ["plan"], "mix": 2}, InvalidSpecError, "above 0 and at most 1", id="no share"),
        pytest.param({"columns": ["aeg"], "shift": 1}, UnknownNameError, "Did you mean 'age'", id="a misspelt column"),
    ],
)
def test_wrong_use_of_drifted_is_told(arguments: Any, error: Any, says: str, rows: pd.DataFrame) -> None:
    with pytest.raises(error, match=says):
        drifted(rows, **arguments)
