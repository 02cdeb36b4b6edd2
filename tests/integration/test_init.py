"""What ``airflow-mlops init`` writes works as it is: its test, the loop to a first champion, and the DAG file."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import uuid
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops import load_spec
from airflow_mlops.cli import main

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer

ROWS = 900


def customers(folder: Path) -> Path:
    """A CSV with text, missing values, truth values, ids, and rows without an answer."""
    chance = np.random.default_rng(1)
    plan = chance.choice(["basic", "plus", "größer, x", None], ROWS, p=[0.4, 0.3, 0.2, 0.1])
    spend = chance.gamma(2, 20, ROWS).round(2)
    left = np.where(spend + 30 * (plan == "basic") + chance.normal(0, 10, ROWS) > 50, "left", "stayed").astype(object)
    left[::200] = None
    frame = pd.DataFrame(
        {
            "signed up": pd.date_range("2023-01-01", "2023-12-30", periods=ROWS).strftime("%Y-%m-%d %H:%M:%S"),
            "customer_id": [f"c{number:05d}" for number in range(ROWS)],
            "age": np.where(chance.random(ROWS) < 0.1, np.nan, chance.integers(18, 90, ROWS)),
            "plan": plan,
            "spend": spend,
            "is_late": chance.random(ROWS) < 0.3,
            "note": None,
            "churned": left,
        }
    )
    frame.to_csv(folder / "customers.csv", index=False)
    return folder / "customers.csv"


def machines(folder: Path) -> Path:
    """A Parquet file with float32, lists, truth values and infinities, over two days."""
    chance = np.random.default_rng(2)
    temp, line = chance.normal(50, 10, ROWS).astype("float32"), chance.choice(["a", "b"], ROWS)
    load = temp * 2 + (line == "a") * 10 + chance.normal(0, 3, ROWS)
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2024-03-01", "2024-03-03", periods=ROWS, tz="UTC"),
            "temp": temp,
            "line": line,
            "ok": [None, *(chance.random(ROWS - 1) < 0.5)],
            "vibration": np.where(chance.random(ROWS) < 0.02, np.inf, chance.normal(size=ROWS)),
            "parts": [[1, 2]] * ROWS,
            "load": load,
            "grade": np.digitize(load, [95, 110]),
        }
    )
    frame.to_parquet(folder / "machines.parquet")
    return folder / "machines.parquet"


@dataclass(frozen=True)
class Made:
    """The folder with every model's files, and what ``init --json`` said of each, by target."""

    folder: Path
    told: dict[str, Any]
    names: dict[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    tables = tmp_path_factory.mktemp("tables")
    folder, told, names = tables / "models", {}, {}
    for table, target in ((customers(tables), "churned"), (machines(tables), "load"), (machines(tables), "grade")):
        names[target] = f"{target}_{uuid.uuid4().hex[:8]}"
        words = ["--data", str(table), "--target", target, "--name", names[target], "--out", str(folder), "--json"]
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert main(["init", *words]) == 0
        told[target] = json.loads(printed.getvalue())
    return Made(folder, told, names)


def test_the_generated_tests_pass_as_they_are(made: Made) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=made.folder,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("passed") == 1
    assert "skipped" not in done.stdout


def test_the_dag_files_are_imported_by_airflow(made: Made, airflow_database: None) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(made.folder))

    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(f"train_{name}" for name in made.names.values())


@pytest.mark.parametrize(
    ("target", "task", "features"),
    [
        pytest.param("churned", "binary", {"age", "plan", "spend", "is_late"}, id="binary, csv"),
        pytest.param("load", "regression", {"temp", "line", "ok", "grade"}, id="regression, parquet"),
        pytest.param("grade", "multiclass", {"temp", "line", "ok", "load"}, id="multiclass, parquet"),
    ],
)
def test_a_table_becomes_a_champion_without_a_word_changed(
    target: str,
    task: str,
    features: set[str],
    made: Made,
    mlflow_server: MLflowServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = load_spec(made.folder / f"{made.names[target]}.yaml")
    # The very command that it prints, but for the server's address.
    command = next(text for text in made.told[target]["next"] if text.startswith("airflow-mlops run "))
    words = command.removesuffix(" --tracking-uri http://localhost:5000").split()[1:]
    monkeypatch.chdir(made.folder)

    code = main([*words, "--json", "--tracking-uri", mlflow_server.uri])

    ran = json.loads(capsys.readouterr().out)
    assert code == 0, ran["ended"]
    assert spec.evaluation.task == task
    assert set(spec.train.features or ()) == features
    assert ran["decision"]["verdict"] == "first_model"
    assert ran["promotion"]["outcome"] == "promoted"
    assert all(value is not None for value in ran["report"]["metrics"].values())
    for part in ("training_data", "evaluation_data"):
        # Rows without an answer are set aside; nothing else is held against the table.
        assert ran[part]["verdict"] == ("quarantine" if target == "churned" else "pass"), ran[part]["findings"]
