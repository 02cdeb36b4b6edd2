"""What a team may write in a contract, and how a mistake is pointed at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.errors import InvalidSpecError
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
    assert len({base, *others, digest({}, max_quarantined_share=0.5)}) == 5


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
