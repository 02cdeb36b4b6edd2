"""Other flavours and tasks as whole DAGs: what holds for one model must hold for unlike ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import load_spec, training_dag

TRAINING = """
def regression(data, target, *, weights, parameters, seed):
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=parameters["trees"], random_state=seed, verbose=-1).fit(data, target)


def multiclass(data, target, *, weights, parameters, seed):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=20, random_state=seed).fit(data, target, sample_weight=weights)
"""

CONTRACT = """
min_rows: 100
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: y}}
  - {type: expect_column_values_to_be_between, kwargs: {column: x, min_value: -3, max_value: 3}, on_failure: quarantine}
"""

REGRESSION = """
name: lightgbm_regression
data: {uri: rows.parquet, event_time: at}
contract: {path: contract.yaml}
train:
  function: training:regression
  flavor: lightgbm
  serialization: cloudpickle
  target: y
  features: [x, z]
  parameters: {trees: 30}
  window: {length: 1 month}
evaluation: {task: regression, metrics: [rmse, r2], slices: [region], bootstrap_draws: 200}
gate:
  rules:
    - {rule: at_most, metric: rmse, value: 5}
    - {rule: no_worse_than_champion, metric: rmse, margin: 0.2, evidence: harm}
"""

MULTICLASS = """
name: sklearn_multiclass
data: {uri: rows.csv, format: csv, event_time: at, personal_columns: [region]}
contract: {path: contract.yaml}
train:
  function: training:multiclass
  flavor: sklearn
  serialization: pickle
  target: kind
  weights: w
  features: [x, z]
  window: {length: 1 month}
evaluation: {task: multiclass, metrics: [accuracy, log_loss], bootstrap_draws: 200}
serving: {check: false}
gate:
  rules:
    - {rule: at_least, metric: accuracy, value: 0.4}
    - {rule: better_than_champion, metric: accuracy, by: 0.5}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np
    import pandas as pd

    folder = tmp_path_factory.mktemp("models")
    generator = np.random.default_rng(0)
    at = pd.date_range("2024-01-01", "2024-04-01", periods=3000, inclusive="left", tz="UTC").floor("us")
    x, z = generator.normal(size=(2, len(at)))
    frame = pd.DataFrame(
        {
            "at": at,
            "x": x,
            "z": z,
            "w": generator.uniform(0.5, 1.5, len(at)),
            "region": generator.choice(["BE", "NL"], len(at)),
            "y": 2 * x + z + generator.normal(size=len(at)),
            "kind": np.digitize(x, [-0.5, 0.5]),
        }
    )
    frame.to_parquet(folder / "rows.parquet")
    frame.to_csv(folder / "rows.csv", index=False)
    (folder / "training.py").write_text(TRAINING)
    (folder / "contract.yaml").write_text(CONTRACT)
    return folder


@pytest.mark.parametrize(
    ("text", "second"),
    [
        pytest.param(REGRESSION, "promote", id="lightgbm regression, Parquet: an equal window later is no worse"),
        pytest.param(MULTICLASS, "hold", id="sklearn multiclass, CSV: half an accuracy better is too much to ask"),
    ],
)
def test_a_model_goes_through_the_loop_twice(folder: Path, run_dag: Callable[..., Any], text: str, second: str) -> None:
    path = folder / f"{text.splitlines()[1].removeprefix('name: ')}.yaml"
    path.write_text(text)
    dag = training_dag(load_spec(path))

    first = run_dag(dag, window_start="2024-02-01", window_end="2024-03-01")

    assert first.state == "success", first.tasks
    assert first.record("training_data.validate")["verdict"] == "quarantine"
    accepted = first.record("training_data.validate")
    assert accepted["row_count"] > 0 < accepted["quarantined_count"]
    assert first.record("train")["row_count"] == accepted["dataset"]["row_count"]
    assert first.record("gate")["verdict"] == "first_model"
    assert first.record("promote")["outcome"] == "promoted"

    again = run_dag(dag, window_start="2024-03-01", window_end="2024-04-01")

    assert again.state == "success", again.tasks
    assert again.record("gate")["verdict"] == second
    assert again.record("evaluate")["champion"]["version"] == 1
    if second == "hold":
        assert again.tasks["gate"] == again.tasks["register"] == again.tasks["promote"] == "skipped"
        assert "accuracy" in " ".join(again.record("gate", "reasons"))
    else:
        assert again.record("promote")["to_version"] == 2
