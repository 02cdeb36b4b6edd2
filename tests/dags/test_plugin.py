"""A whole DAG whose data source, gate rule and runtime come from a plug-in: no file of the package knows them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import airflow_mlops
from airflow_mlops import load_spec, training_dag
from airflow_mlops.engines.tables import Manifest

pytestmark = pytest.mark.usefixtures("plugin")

TRAINING = """
import os
from pathlib import Path


def train(data, target, *, weights, parameters, seed):
    from sklearn.linear_model import LogisticRegression

    Path(__file__).with_name("niceness").write_text(str(os.nice(0)))
    return LogisticRegression().fit(data, target)
"""

CONTRACT = """
min_rows: 100
expectations:
  - {type: expect_column_values_to_be_between, kwargs: {column: x, min_value: -3, max_value: 3}, on_failure: quarantine}
"""

SPEC = """
name: plugged_in
data: {uri: shop.db, format: sqlite, options: {table: orders}, event_time: at}
contract: {path: contract.yaml}
step_runtimes:
  snapshot: {name: niced, increment: 3}
  train: {name: niced, increment: 3}
serving: {check: false}
train:
  function: training:train
  serialization: cloudpickle
  target: late
  features: [x, z]
  window: {length: 1 month}
evaluation: {task: binary, metrics: [roc_auc], bootstrap_draws: 100}
gate:
  rules:
    - {rule: at_least, metric: roc_auc, value: 0.6}
    - {rule: enough_rows, metric: roc_auc, rows: 200}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import numpy as np
    import pandas as pd

    generator = np.random.default_rng(0)
    at = pd.date_range("2024-01-01", "2024-03-01", periods=1200, inclusive="left", tz="UTC")
    x, z = generator.normal(size=(2, len(at)))
    late = (x + generator.normal(size=len(at)) > 0).astype(int)
    rows = zip(at.map(lambda moment: moment.isoformat()), x.tolist(), z.tolist(), late.tolist(), strict=True)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (at TIMESTAMP, x REAL, z REAL, late INTEGER)")
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "contract.yaml").write_text(CONTRACT)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def test_a_model_of_plugged_in_parts_is_promoted(
    folder: Path, run_dag: Callable[..., Any], mlflow_connection: str
) -> None:
    ran = run_dag(training_dag(load_spec(folder / "spec.yaml")), window_start="2024-02-01", window_end="2024-03-01")

    assert ran.state == "success", ran.tasks
    assert ran.record("promote")["outcome"] == "promoted"
    dataset = ran.record("training_data.snapshot")
    assert (dataset["format"], dataset["file_count"], dataset["column_count"]) == ("sqlite", 1, 4)
    accepted = ran.record("training_data.validate")
    assert accepted["quarantined_count"] > 0
    assert accepted["dataset"]["parent_digest"] == dataset["digest"]
    assert accepted["dataset"]["format"] == "parquet"
    assert ran.record("train")["row_count"] == accepted["dataset"]["row_count"]
    reasons = " ".join(ran.record("gate", "reasons"))
    assert "at least 200 were asked for" in reasons
    assert int((folder / "niceness").read_text()) == min(os.nice(0) + 3, 19)
    run_id, _, name = dataset["manifest_uri"].removeprefix("runs:/").partition("/")
    file = MlflowClient(mlflow_connection).download_artifacts(run_id, name, str(folder))
    manifest = Manifest.model_validate_json(Path(file).read_text())
    assert manifest.options == {"table": "orders"}
    assert [(unit.path, unit.row_count) for unit in manifest.files] == [("orders", dataset["row_count"])]


def test_no_file_of_the_package_names_the_plug_in() -> None:
    package = Path(airflow_mlops.__file__).parent
    for file in package.rglob("*.py"):
        text = file.read_text()
        assert not [word for word in ("acme_mlops", "SQLiteTable", "NicedRuntime", "EnoughRows") if word in text], file
