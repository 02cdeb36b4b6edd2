"""Made-up rows meet the contract, and where they cannot, it is said."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from airflow_mlops import ModelSpec, Window, load_spec
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.testing import drift_between, made_up, violations, write_sample
from tests.unit.testing.conftest import CONTRACT


def test_rows_have_the_types_ranges_and_values_of_the_contract(spec: ModelSpec) -> None:
    rows = made_up(spec, rows=400)

    assert {name: str(dtype) for name, dtype in rows.dtypes.items() if name not in ("id", "plan")} == {
        "at": "datetime64[us]",
        "age": "float32",
        "visits": "int64",
        "gold": "bool",
        "left": "int64",
    }
    assert rows["id"].is_unique
    assert set(rows["plan"]) == {"basic", "plus", "pro"}
    assert rows["visits"].between(0, 30).all()
    assert 0 < rows["age"].isna().mean() < 0.2
    assert set(rows["left"]) == {0, 1}
    assert violations(rows, spec) == ()


def test_half_of_the_rows_lie_in_each_window(spec: ModelSpec) -> None:
    rows = made_up(spec, rows=301, window=Window(start="2025-03-01", end="2025-04-01"))

    assert rows["at"].between("2025-02-01", "2025-02-28 23:59:59").sum() == 150
    assert rows["at"].between("2025-03-01", "2025-03-31 23:59:59").sum() == 151


def test_the_seed_decides(spec: ModelSpec) -> None:
    pd.testing.assert_frame_equal(made_up(spec, rows=200), made_up(spec, rows=200))
    assert not made_up(spec, rows=200).equals(made_up(spec, rows=200, seed=1))


def test_the_target_follows_the_first_feature(spec: ModelSpec) -> None:
    rows = made_up(spec, rows=1000).dropna()

    assert rows["age"].corr(rows["left"]) > 0.7


def test_so_many_rows_as_the_contract_asks_for(write: Any) -> None:
    spec = load_spec(write(contract=CONTRACT.replace("min_rows: 100", "min_rows: 3000")))

    assert len(made_up(spec)) // 2 >= 3000


def test_so_many_rows_as_drift_is_judged_on(write: Any) -> None:
    spec = load_spec(write(("gate:", "drift: {min_rows: 2500}\ngate:")))
    rows = made_up(spec)

    assert drift_between(spec, rows, made_up(spec, seed=1)).verdict == "none"


def test_values_that_no_contract_tells_can_be_given(spec: ModelSpec) -> None:
    rows = made_up(spec, rows=200, columns={"visits": [1, 2]})

    assert set(rows["visits"]) == {1, 2}


def test_columns_that_are_unique_together_are(write: Any) -> None:
    more = "  - {type: expect_compound_columns_to_be_unique, kwargs: {column_list: [plan, gold, code]}}\n"
    spec = load_spec(write(contract=CONTRACT + more))

    assert made_up(spec, rows=200)["code"].is_unique


def test_a_contract_that_asks_for_more_is_told_by_its_expectation(write: Any) -> None:
    more = "  - {type: expect_column_pair_values_a_to_be_greater_than_b, kwargs: {column_A: visits, column_B: age}}\n"
    spec = load_spec(write(contract=CONTRACT + more))

    with pytest.raises(InvalidSpecError, match=r"columns=\{...\}.*\n.*greater_than_b\(visits, age\)"):
        made_up(spec, rows=200)


@pytest.mark.parametrize(
    ("changes", "arguments", "error", "says"),
    [
        pytest.param([], {"columns": {"agee": [1]}}, UnknownNameError, "Did you mean 'age'", id="a misspelt column"),
        pytest.param([], {"columns": {"age": []}}, InvalidSpecError, "is empty", id="no value to draw"),
        pytest.param([], {"rows": 1}, InvalidSpecError, "at least 4", id="too few rows"),
        pytest.param(
            [("task: binary, metrics: [roc_auc]", "task: multiclass, metrics: [accuracy]"),
             ("metric: roc_auc", "metric: accuracy")],
            {}, InvalidSpecError, "which labels 'left' has", id="labels that nobody names",
        ),
    ],
)  # fmt: skip
def test_wrong_use_is_told_with_its_mend(write: Any, changes: Any, arguments: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        made_up(load_spec(write(*changes)), **arguments)


def test_a_contract_and_a_specification_without_a_feature_are_refused(write: Any) -> None:
    path = write(
        ("  features: [age, plan, visits, gold]\n", ""),
        contract="expectations: [{type: expect_column_to_exist, kwargs: {column: left}}]",
    )

    with pytest.raises(InvalidSpecError, match=r"train\.features"):
        made_up(load_spec(path))


def test_a_sample_is_written_where_the_model_reads_and_never_over_rows_that_are_there(spec: ModelSpec) -> None:
    path = write_sample(spec, rows=200)
    assert path == spec.folder / "rows.parquet"
    assert len(pd.read_parquet(path)) == 200

    path.write_bytes(b"mine")

    assert write_sample(spec, rows=200).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        pytest.param("s3://bucket/rows.parquet", "profile whose data.uri names one", id="elsewhere"),
        pytest.param("rows", "a file's name, such as rows.parquet", id="a folder"),
    ],
)
def test_a_place_that_is_no_local_file_is_refused(write: Any, uri: str, says: str) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        write_sample(load_spec(write(("rows.parquet", uri))))


def test_importing_it_needs_no_test_framework_and_no_heavy_library() -> None:
    code = (
        "import sys; import airflow_mlops.testing; "
        "print(*({'pytest', 'airflow', 'pandas', 'numpy', 'mlflow', 'great_expectations'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == []
