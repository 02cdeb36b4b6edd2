"""A model whose contract says something about every kind of column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec

SPEC = """
name: leavers
data: {uri: rows.parquet, event_time: at, id_columns: [id]}
contract: {path: contract.yaml}
train:
  function: team:train
  serialization: cloudpickle
  target: left
  features: [age, plan, visits, gold]
  window: {length: 1 month}
evaluation: {task: binary, metrics: [roc_auc], bootstrap_draws: 100}
serving: {check: false}
gate: {rules: [{rule: at_least, metric: roc_auc, value: 0.6}]}
"""

CONTRACT = """
min_rows: 100
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: at}}
  - {type: expect_column_values_to_be_in_type_list, kwargs: {column: at, type_list: ["datetime64[us]"]}}
  - {type: expect_column_values_to_be_unique, kwargs: {column: id}}
  - {type: expect_column_values_to_be_of_type, kwargs: {column: id, type_: str}}
  - {type: expect_column_values_to_be_of_type, kwargs: {column: age, type_: float32}}
  - {type: expect_column_values_to_be_between, kwargs: {column: age, min_value: 18, max_value: 90}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: age, mostly: 0.8}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: plan, value_set: [basic, plus, pro]}}
  - {type: expect_column_values_to_be_of_type, kwargs: {column: visits, type_: int64}}
  - {type: expect_column_values_to_be_between, kwargs: {column: visits, min_value: 0, max_value: 30}}
  - {type: expect_column_values_to_be_of_type, kwargs: {column: gold, type_: bool}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: left}, on_failure: quarantine}
"""

TEAM = """
def train(data, target, *, weights, parameters, seed):
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline

    numbers = ColumnTransformer([("numbers", "passthrough", ["age", "visits"])])
    return make_pipeline(numbers, HistGradientBoostingClassifier(max_iter=10)).fit(data, target)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the model's files, with texts replaced, and more expectations; returns the specification's path."""

    def write(*changes: tuple[str, str], contract: str = CONTRACT, name: str = "leavers") -> Path:
        text = SPEC
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "contract.yaml").write_text(contract)
        (tmp_path / "team.py").write_text(TEAM)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def spec(write: Any) -> ModelSpec:
    return load_spec(write())
