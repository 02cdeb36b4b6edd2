"""What a team may write in a contract, and how a mistake is pointed at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.errors import InvalidSpecError, ModelRefusedError
from airflow_mlops.spec.contract import load_contract

WRITTEN = """\
min_rows: 100
expectations:
  # why
  - type: expect_column_values_to_be_between
    kwargs: {column: distance, min_value: 50, max_value: 6e3}
    on_failure: quarantine
    notes: Nothing flies less.
  - type: expect_column_pair_values_to_be_equal
    kwargs: {column_A: a, column_B: b}
  - type: expect_compound_columns_to_be_unique
    kwargs: {column_list: [a, b]}
    on_failure: warn
"""


def test_yaml_json_and_a_mapping_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(WRITTEN)
    contract = load_contract(tmp_path / "c.yaml")
    (tmp_path / "c.json").write_text(json.dumps(contract.model_dump(mode="json"), indent="\t"))

    assert contract.min_rows == 100
    assert [item.on_failure for item in contract.expectations] == ["quarantine", "fail", "warn"]
    assert [item.columns for item in contract.expectations] == [("distance",), ("a", "b"), ("a", "b")]
    assert contract.expectations[0].kwargs["max_value"] == 6000.0
    for other in (tmp_path / "c.json", contract.model_dump(), contract):
        assert load_contract(other).model_dump() == contract.model_dump()
        assert load_contract(other).digest == contract.digest


def test_the_digest_is_of_what_is_asked(tmp_path: Path) -> None:
    expectation = {"type": "expect_column_to_exist", "kwargs": {"column": "x"}}
    base = load_contract({"expectations": [expectation]}).digest

    def digest(item: dict[str, Any], **settings: Any) -> str:
        return load_contract({"expectations": [{**expectation, **item}], **settings}).digest

    assert digest({"notes": "because"}, notes="of ours") == base
    assert digest({"on_failure": "fail"}, min_rows=1) == base
    others = [digest({"on_failure": "warn"}), digest({"kwargs": {"column": "y"}}), digest({}, min_rows=2)]
    assert len({base, *others, digest({}, max_quarantined_share=0.5), digest({}, train_only=["x"])}) == 6
    assert digest({}, train_only=["x", "y"]) == digest({}, train_only=["y", "x"])


def test_a_contract_without_train_only_columns_keeps_the_digest_of_earlier_runs() -> None:
    contract = load_contract({"expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "x"}}]})

    assert contract.digest == "54a5f2a18acf938f3c83186378249d1d43c7b970076ffdd9b7e2e6df9e21a57b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "min_row: 3\nexpectations: []",
            r"line 1: min_row is not a key here. Did you mean 'min_rows'\?",
            id="misspelt",
        ),
        pytest.param("min_rows: 3", "line 1: expectations is missing; add it", id="missing"),
        pytest.param("expectations: []", "expects nothing passes anything", id="empty"),
        pytest.param(
            "min_rows: 0\nexpectations: [{type: expect_x}]",
            "line 1: min_rows: .*greater than or equal to 1",
            id="no rows",
        ),
        pytest.param(
            "expectations:\n- type: expect_x\n  on_failure: skip",
            "line 3: .*'fail', 'warn' or 'quarantine'",
            id="unknown consequence",
        ),
        pytest.param(
            "expectations:\n- type: expect_x\n  on_fail: warn",
            r"line 3: .*Did you mean 'on_failure'\?",
            id="misspelt inside",
        ),
        pytest.param(
            "expectations:\n- type: expect_x\n  kwargs: {result_format: COMPLETE}",
            "line 3: .*'result_format' cannot be set",
            id="what would leak rows",
        ),
        pytest.param("expectations:\n- type: ExpectX", "line 2: .*type", id="class name instead of the snake-case one"),
        pytest.param(
            "expectations:\n- type: expect_x\n- type: expect_x",
            r"expectations\[1\] repeats expectations\[0\]",
            id="twice",
        ),
        pytest.param(
            "expectations:\n- {type: expect_x}\nexpectations:\n- {type: expect_y}",
            "line 3: the key 'expectations' stands here a second time",
            id="double key",
        ),
        pytest.param(
            "train_only: [late, late]\nexpectations: [{type: expect_x}]",
            "line 1: train_only: 'late' stands there more than once",
            id="train-only twice",
        ),
        pytest.param(
            "train_only: late\nexpectations: [{type: expect_x}]",
            "line 1: train_only: .*tuple.*got 'late'",
            id="train-only without brackets",
        ),
        pytest.param("expectations: [", "line 1: this is not valid YAML", id="not YAML"),
        pytest.param("- type: expect_x", "this file holds list", id="a list"),
        pytest.param("", "this file holds nothing", id="empty file"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)

    with pytest.raises(InvalidSpecError, match=said) as caught:
        load_contract(tmp_path / "c.yaml")
    assert str(tmp_path / "c.yaml") in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        load_contract({"min_rows": -1, "expectations": [{"type": "X"}, {"kwargs": {}}]})

    assert len(str(caught.value).splitlines()) == 3


def test_a_place_is_known_for_messages_of_later(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(WRITTEN)

    assert (
        load_contract(tmp_path / "c.yaml").place(1).endswith("c.yaml, line 8 (expect_column_pair_values_to_be_equal)")
    )
    assert load_contract({"expectations": [{"type": "expect_x"}]}).place(0) == "contract, expectations[0] (expect_x)"


def test_reading_a_contract_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(WRITTEN)
    code = (
        "from airflow_mlops.spec.contract import load_contract; import sys;"
        f"load_contract({str(tmp_path / 'c.yaml')!r});"
        "print([m for m in sys.modules if m in ('great_expectations', 'pandas', 'pyarrow', 'numpy', 'mlflow')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def asks(contract: Any, columns: list[str], **model: Any) -> tuple[list[str], list[str]]:
    """Return what a batch must meet and what is left out."""
    kept, left_out = load_contract(contract).for_scoring(columns, **model)
    return [item.type for item in kept.expectations], list(left_out)


def about(column: str, kind: str = "expect_column_to_exist", **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": {"column": column, **kwargs}}


def test_what_is_expected_of_train_only_columns_is_left_out_for_scoring() -> None:
    contract = {
        "train_only": ["late", "arr_delay"],
        "expectations": [
            about("distance"),
            about("late", "expect_column_values_to_not_be_null"),
            {"type": "expect_column_pair_values_to_be_equal", "kwargs": {"column_A": "x", "column_B": "arr_delay"}},
            {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["day", "arr_delay", "late"]}},
            {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
        ],
    }

    assert asks(contract, ["distance", "x", "day"]) == (
        ["expect_column_to_exist", "expect_table_row_count_to_be_between"],
        [
            "expect_column_values_to_not_be_null(late)",
            "expect_column_pair_values_to_be_equal(arr_delay)",
            "expect_compound_columns_to_be_unique(late, arr_delay)",
        ],
    )


@pytest.mark.parametrize(
    ("condition", "is_about"),
    [
        pytest.param("late == 1", True, id="bare"),
        pytest.param("x > 0 and not late", True, id="at the end"),
        pytest.param("`late` == 1", True, id="in backticks"),
        pytest.param('col("late").notNull()', True, id="a column call"),
        pytest.param("col( 'late' ) > 1", True, id="a column call, other quotes"),
        pytest.param({"column": {"name": "late"}, "operator": ">", "parameter": 0}, True, id="an object"),
        pytest.param("carrier == 'late'", False, id="a value"),
        pytest.param('col("carrier") == "late"', False, id="a value beside a column call"),
        pytest.param("later == 1 or plate == 1 or late_2 == 1", False, id="part of another name"),
        pytest.param({"column": {"name": "later"}}, False, id="an object about another"),
        pytest.param(None, False, id="none"),
    ],
)
def test_a_condition_about_a_train_only_column_counts(condition: Any, is_about: bool) -> None:
    contract = {"train_only": ["late"], "expectations": [about("x"), about("y", row_condition=condition)]}

    assert len(asks(contract, ["x", "y"])[1]) == is_about


def test_a_name_with_spaces_and_signs_is_found_in_a_condition() -> None:
    contract = {"train_only": ["is late?"], "expectations": [about("y", row_condition="`is late?` > 0 and y > 1")]}

    assert asks(contract, ["y"]) == ([], ["expect_column_to_exist(is late?)"])


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("expect_table_columns_to_match_set", "column_set"),
        ("expect_table_columns_to_match_ordered_list", "column_list"),
    ],
)
def test_a_list_of_the_tables_columns_is_shortened_by_those_that_are_absent(kind: str, key: str) -> None:
    contract = load_contract(
        {"train_only": ["late", "delay"], "expectations": [{"type": kind, "kwargs": {key: ["x", "late", "delay"]}}]}
    )

    def listed(columns: list[str]) -> Any:
        kept, left_out = contract.for_scoring(columns)
        assert not left_out
        return kept.expectations[0].kwargs[key]

    assert listed(["x"]) == ["x"]
    assert listed(["x", "delay"]) == ["x", "delay"]
    assert listed(["delay"]) == ["x", "delay"]
    only = {"train_only": ["late"], "expectations": [{"type": kind, "kwargs": {key: ["late"]}}]}
    assert asks(only, ["x"]) == ([], [f"{kind}(late)"])


def test_the_target_is_train_only_even_if_nothing_says_so() -> None:
    contract = {"expectations": [about("x"), about("late")]}

    assert asks(contract, ["x"]) == (["expect_column_to_exist"] * 2, [])
    assert asks(contract, ["x"], target="late") == (["expect_column_to_exist"], ["expect_column_to_exist(late)"])


def test_a_model_that_reads_a_train_only_column_is_refused() -> None:
    contract = load_contract({"train_only": ["late", "delay"], "expectations": [about("x")]})

    assert contract.for_scoring(["x"], inputs=["x", "distance"])[0] == contract
    with pytest.raises(ModelRefusedError, match=r"reads 'delay', which only training has.*train\.features.*train_only"):
        contract.for_scoring(["x", "delay"], inputs=["x", "delay"])
    with pytest.raises(ModelRefusedError, match="reads 'y', which only training has"):
        contract.for_scoring(["x", "y"], inputs=["y"], target="y")


def test_what_stays_keeps_its_place_for_messages(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(WRITTEN.replace("expectations:", "train_only: [distance]\nexpectations:", 1))

    contract, _ = load_contract(tmp_path / "c.yaml").for_scoring(["a", "b"])

    assert contract.place(0).endswith("c.yaml, line 9 (expect_column_pair_values_to_be_equal)")
