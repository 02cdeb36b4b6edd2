"""Verdicts on frames are those of production, the guards included."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from airflow_mlops import ModelSpec, load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.contract import load_contract
from airflow_mlops.testing import assert_dags_valid, drift_between, drifted, made_up, violations
from tests.unit.testing.conftest import CONTRACT


@pytest.fixture
def rows(spec: ModelSpec) -> pd.DataFrame:
    return made_up(spec, rows=1000)


def test_rows_of_the_same_kind_are_no_drift(spec: ModelSpec, rows: pd.DataFrame) -> None:
    judged = drift_between(spec, rows, made_up(spec, rows=1000, seed=1))

    assert judged.verdict == "none", judged.sentence
    assert judged.compared_count == 4


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        pytest.param(lambda rows: rows.drop(columns="age"), "schema_broken", "'age' is not in", id="a column is gone"),
        pytest.param(lambda rows: rows[:100], "insufficient", "100 rows", id="few rows"),
        pytest.param(lambda rows: rows[:0], "insufficient", "no row", id="no row"),
        pytest.param(lambda rows: rows.assign(more=1), "schema_broken", "'more'", id="a column more"),
        pytest.param(
            lambda rows: drifted(rows, columns=["plan"], missing=0.9), "schema_broken", "90.0%", id="values are gone"
        ),
        pytest.param(
            lambda rows: rows.assign(visits=rows["visits"].astype(str)), "schema_broken", "type", id="another type"
        ),
    ],
)
def test_the_guards_speak_first(change: Any, verdict: str, says: str, spec: ModelSpec, rows: pd.DataFrame) -> None:
    judged = drift_between(spec, rows, change(rows))

    assert judged.verdict == verdict, judged.sentence
    assert says in judged.sentence


def test_the_models_own_settings_decide(write: Any, rows: pd.DataFrame) -> None:
    spec = load_spec(write(("gate:", "drift: {min_columns: 2, numeric: {method: wasserstein, threshold: 0.5}}\ngate:")))

    assert drift_between(spec, rows, drifted(rows, columns=["age"], shift=2)).verdict == "none"
    both = drift_between(spec, rows, drifted(rows, columns=["age", "visits"], shift=2))
    assert (both.verdict, {one.method for one in both.columns if one.drifted}) == ("drift", {"wasserstein"})


def test_a_contract_may_come_in_any_form(spec: ModelSpec, rows: pd.DataFrame) -> None:
    bad = rows.assign(visits=rows["visits"] + 100)
    path = spec.folder / "contract.yaml"

    found = [violations(bad, form) for form in (spec, path, str(path), load_contract(path))]

    assert [one[0].column for one in found] == ["visits"] * 4


def test_an_empty_frame_lacks_rows(spec: ModelSpec, rows: pd.DataFrame) -> None:
    assert [one.expectation for one in violations(rows[:0], spec)] == ["min_rows"]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        pytest.param(lambda spec, rows: violations([1], spec), "pandas frame is needed", id="no frame"),
        pytest.param(
            lambda spec, rows: violations(rows.assign(age=[1, "two"] * 500), spec), "one type", id="mixed values"
        ),
        pytest.param(lambda spec, rows: drift_between(spec, rows[:0], rows), "has no row", id="no reference"),
    ],
)
def test_wrong_use_is_told_with_its_mend(act: Any, says: str, spec: ModelSpec, rows: pd.DataFrame) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        act(spec, rows)


def test_drift_that_evidently_judges_is_not_measured_here(write: Any, rows: pd.DataFrame) -> None:
    spec = load_spec(write(("gate:", "drift: {engine: evidently}\ngate:")))

    with pytest.raises(InvalidSpecError, match="statistics"):
        drift_between(spec, rows, rows)


def test_valid_models_give_their_dags(spec: ModelSpec) -> None:
    dags = assert_dags_valid(spec.folder)

    assert list(dags) == ["train_leavers"]
    assert dags["train_leavers"].has_task("promote")


def test_every_mistake_of_every_model_is_told(write: Any) -> None:
    write(("length: 1 month", "lenght: 1 month"), name="one")
    write(("value: 0.6", "value: 0.6}, {rule: at_laest, metric: roc_auc, value: 1"), name="two")
    write(("name: leavers", "name: other"), name="three")
    folder = write(name="four").parent
    (folder / "contract.yaml").write_text(CONTRACT.replace("_in_set", "_in_sett"))

    with pytest.raises(AssertionError) as told:
        assert_dags_valid(folder)

    said = str(told.value)
    assert "4 models or DAGs are not valid" in said
    assert "one.yaml, line 10" in said
    assert "Did you mean 'length'" in said
    assert "at_least" in said
    assert "three.yaml: its contract" in said
    assert "Did you mean 'expect_column_values_to_be_in_set'" in said


def test_a_folder_without_a_model_is_told(tmp_path: Any) -> None:
    with pytest.raises(InvalidSpecError, match="holds no model"):
        assert_dags_valid(tmp_path)
    with pytest.raises(InvalidSpecError, match="is no folder"):
        assert_dags_valid(tmp_path / "gone")
