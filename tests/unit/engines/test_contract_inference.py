"""A first contract from hostile tables: it holds on them, reads back, stays the same, and shows no one's data."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_mlops.core.records import Window
from airflow_mlops.engines.contract_inference import FirstContract, first_contract, look, prove, read_rows
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.contract import load_contract
from airflow_mlops.spec.model import DataSpec

SECRET = "zuckermann"


def made(path: Path, target: str | None = None, **settings: Any) -> tuple[FirstContract, int]:
    data = DataSpec(uri=str(path), format=path.suffix[1:], **settings)
    rows = read_rows(data, None)
    roles = dict.fromkeys(data.id_columns, "id") | dict.fromkeys(data.personal_columns, "personal")
    roles |= {data.event_time: "event_time"} if data.event_time else {}
    roles |= {target: "target"} if target else {}
    contract = first_contract(look(rows, roles, data.id_columns), "Test.")
    return contract, prove(contract.contract, rows.frame, "the rows")


def types_of(contract: FirstContract, column: str) -> dict[str, dict[str, Any]]:
    return {one.type: one.kwargs for one in contract.contract.expectations if one.kwargs.get("column") == column}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    n = 200
    chance = np.random.default_rng(5)
    some = chance.random(n)
    columns: dict[str, Any] = {
        "at": pa.array(pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC")),
        "key": pa.array(range(n)),
        "owner": pa.array([f"{SECRET} {number % 3}" for number in range(n)]),
        "salary": pa.array(np.full(n, 987_654.25)),
        "nan and null": pa.array([None if v < 0.1 else float("nan") if v < 0.2 else v for v in some]),
        "infinite": pa.array(np.where(some < 0.1, np.inf, some)),
        "only infinite": pa.array(np.full(n, -np.inf)),
        "nothing": pa.nulls(n),
        "only nan": pa.array(np.full(n, np.nan)),
        "constant": pa.array(np.full(n, 0.1, dtype="float32")),
        "huge": pa.array([2**63 - 1, -(2**63)] * (n // 2)),
        "unsigned": pa.array([2**64 - 1, 0] * (n // 2), pa.uint64()),
        "whole with null": pa.array([None, 3] * (n // 2)),
        "largest": pa.array([1.7e308, -1.7e308] * (n // 2)),
        "truth": pa.array([True, False] * (n // 2)),
        "truth with null": pa.array([True, None, False, False] * (n // 4)),
        "day": pa.array(pd.date_range("2024-01-01", periods=n).date),
        "money": pa.array([Decimal("1.10"), Decimal("2.35")] * (n // 2)),
        "digits": pa.array(["007", "1e5"] * (n // 2)),
        "yes": pa.array(["yes", "no", "null", "@home", "~", "on", "1.0", ""] * (n // 8)),
        "long": pa.array(["x" * 5000, "y"] * (n // 2)),
        "lists": pa.array([[1, 2], None] * (n // 2)),
        "bytes": pa.array([b"\x00", b"b"] * (n // 2)),
        "dict": pa.array(["a", "b"] * (n // 2)).dictionary_encode(),
        "schön 漢字: [a] #1": pa.array([1.5, 2.5] * (n // 2)),
        "null": pa.array(["ä\n- b", '"quoted"'] * (n // 2)),
        "sometimes": pa.array(["u", None, "w", None] * (n // 4)),
        "late": pa.array([1, 0] * (n // 2 - 10) + [None] * 20),
    }
    path = tmp_path_factory.mktemp("hostile") / "rows.parquet"
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def contract(hostile: Path) -> tuple[FirstContract, int]:
    return made(hostile, "late", event_time="at", id_columns=("key",), personal_columns=("owner", "salary"))


def test_it_holds_on_the_very_rows_and_sets_aside_only_those_without_a_target(
    contract: tuple[FirstContract, int],
) -> None:
    assert contract[1] == 20


def test_the_same_rows_give_the_same_text(hostile: Path, contract: tuple[FirstContract, int]) -> None:
    again, _ = made(hostile, "late", event_time="at", id_columns=("key",), personal_columns=("owner", "salary"))

    assert again.text == contract[0].text


def test_every_expectation_has_a_reason_beside_it_and_the_file_loads(
    contract: tuple[FirstContract, int], tmp_path: Path
) -> None:
    first = contract[0]
    (tmp_path / "c.yaml").write_text(first.text, encoding="utf-8")

    loaded = load_contract(tmp_path / "c.yaml")

    lines = first.text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  - type:")]
    assert len(starts) == len(loaded.expectations)
    assert all(lines[number - 1].startswith("  # ") for number in starts)
    assert loaded.digest == first.contract.digest


def test_nothing_of_ids_and_personal_columns_is_shown(contract: tuple[FirstContract, int]) -> None:
    first = contract[0]

    assert SECRET not in first.text
    assert "987654" not in first.text.replace(",", "").replace("_", "")
    for column in ("key", "owner", "salary"):
        assert not {"min_value", "value_set"} & {key for kwargs in types_of(first, column).values() for key in kwargs}


@pytest.mark.parametrize(
    ("column", "type_", "kwargs"),
    [
        ("nothing", "expect_column_to_exist", {}),
        ("only nan", "expect_column_to_exist", {}),
        ("constant", "expect_column_values_to_be_between", {"min_value": float(np.float32(0.1))}),
        ("whole with null", "expect_column_values_to_be_in_type_list", {"type_list": ["float64"]}),
        ("truth", "expect_column_values_to_be_in_type_list", {"type_list": ["bool", "float64"]}),
        ("digits", "expect_column_values_to_be_in_set", {"value_set": ["007", "1e5"]}),
        (
            "yes",
            "expect_column_values_to_be_in_set",
            {"value_set": ["", "1.0", "@home", "no", "null", "on", "yes", "~"]},
        ),
        ("null", "expect_column_values_to_be_in_set", {"value_set": ['"quoted"', "ä\n- b"]}),
        ("late", "expect_column_values_to_be_in_set", {"value_set": [0, 1]}),
        ("key", "expect_column_values_to_be_unique", {}),
        ("lists", "expect_column_values_to_not_be_null", {"mostly": 0.4}),
    ],
)
def test_what_is_expected_of_a_column(
    contract: tuple[FirstContract, int], column: str, type_: str, kwargs: dict[str, Any]
) -> None:
    found = types_of(contract[0], column)[type_]

    assert kwargs.items() <= found.items()


@pytest.mark.parametrize("column", ["only infinite", "largest", "long", "day", "lists"])
def test_no_limit_is_made_up_where_there_is_none(contract: tuple[FirstContract, int], column: str) -> None:
    found = set(types_of(contract[0], column))

    assert not found & {"expect_column_values_to_be_between", "expect_column_values_to_be_in_set"}


def test_a_broken_row_is_found_by_what_was_inferred(hostile: Path, contract: tuple[FirstContract, int]) -> None:
    frame = read_rows(DataSpec(uri=str(hostile)), None).frame

    frame.loc[0, "digits"] = "008"

    with pytest.raises(RuntimeError, match=r"'digits' is none of .* in 1 of 180 rows"):
        prove(contract[0].contract, frame, "changed rows")


def test_one_row_is_enough_and_proves_no_key(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("id,x,city\n7,1.5,Gent\n")

    first, _ = made(tmp_path / "one.csv", id_columns=("id",))

    assert first.contract.min_rows == 1
    types = {one.type for one in first.contract.expectations}
    assert not types & {"expect_column_values_to_be_unique", "expect_column_values_to_be_in_set"}


def test_whole_numbers_too_large_to_stand_beside_nulls_are_named_and_left_out(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"big": [2**60, None], "x": [1, 2]}), tmp_path / "big.parquet")

    first, _ = made(tmp_path / "big.parquet")

    assert not types_of(first, "big")
    assert "'big': The column 'big' holds whole numbers beyond 2**53 and nulls" in first.text
    assert types_of(first, "x")


def test_ids_name_a_row_only_together_with_the_time(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("at,id,x\n2024-01-01,a,1\n2024-01-02,a,2\n2024-01-02,b,3\n")

    first, _ = made(tmp_path / "r.csv", event_time="at", id_columns=("id",))

    keys = [one.kwargs for one in first.contract.expectations if "unique" in one.type]
    assert keys == [{"column_list": ["id", "at"]}]


@pytest.mark.parametrize(
    ("window", "says"),
    [
        pytest.param(None, r"nothing to infer from: .*no\.csv holds no row", id="header only"),
        pytest.param(Window(start="2030-01-01", end="2030-02-01"), "window .*2030-01-01.* holds no row", id="window"),
    ],
)
def test_nothing_is_inferred_from_nothing(tmp_path: Path, window: Window | None, says: str) -> None:
    (tmp_path / "no.csv").write_text("at,x\n" if window is None else "at,x\n2024-01-01,1\n")

    with pytest.raises(InvalidSpecError, match=says):
        read_rows(DataSpec(uri=str(tmp_path / "no.csv"), format="csv", event_time="at"), window)


def test_a_wide_table_has_three_expectations_a_column_and_one_for_all(tmp_path: Path) -> None:
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 200)), columns=[f"c{n}" for n in range(200)])
    wide.to_parquet(tmp_path / "wide.parquet")

    seen = look(read_rows(DataSpec(uri=str(tmp_path / "wide.parquet")), None), {})

    assert len(first_contract(seen, "Test.").contract.expectations) == 1 + 3 * 200


def test_more_columns_than_a_contract_can_check_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.engines.contract_inference.MOST_COLUMNS", 2)
    (tmp_path / "w.csv").write_text("a,b,c\n1,2,3\n")

    with pytest.raises(InvalidSpecError, match=r"3 columns.*at most 2"):
        read_rows(DataSpec(uri=str(tmp_path / "w.csv"), format="csv"), None)
