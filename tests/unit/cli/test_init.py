"""``airflow-mlops init``: what is refused, with the mend, and what is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mlops import load_spec
from airflow_mlops.cli import main
from airflow_mlops.spec.contract import load_contract


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables that differ in one thing each from ``good.csv``."""
    folder = tmp_path_factory.mktemp("tables")
    chance = np.random.default_rng(0)
    n = 200
    good = pd.DataFrame(
        {
            "at": pd.date_range("2024-01-01", periods=n, freq="D"),
            'it\'s "odd"': chance.normal(size=n),
            "yes": chance.choice(["on", "off", "Zoë"], n),
            "left": chance.integers(0, 2, n),
        }
    )
    changed = {
        "good": good,
        "no_time": good.drop(columns="at"),
        "two_times": good.assign(closed=good["at"]),
        "one_label": good.assign(left=1),
        "halves": good.assign(left=[0] * 100 + [1] * 100),
        "few": good[:30],
        "one_moment": good.assign(at="2024-01-01 00:00:00"),
        "alone": good[["at", "left"]],
        "header": good[:0],
        "time_gaps": good.assign(at=good["at"].where(good.index != 7)),
    }
    for name, frame in changed.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / "empty.csv").touch()
    (folder / "broken.csv").write_text("a,b\n1,2\n3\n")
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param("--data good.csv --target left --name Churn", "'churn' would do", id="name"),
        pytest.param("--data gone.csv --target left --name m", "gone.csv does not exist", id="no file"),
        pytest.param("--data empty.csv --target left --name m", "No csv file was found", id="empty file"),
        pytest.param("--data broken.csv --target b --name m", "broken.csv, row 3", id="unreadable"),
        pytest.param("--data header.csv --target left --name m", "holds no row", id="no row"),
        pytest.param("--data good.csv --target lefd --name m", "Did you mean 'left'?", id="misspelt target"),
        pytest.param(
            "--data good.csv --target left --name m --event-time ta", "Correct --event-time", id="no such time"
        ),
        pytest.param("--data good.csv --target left --name m --event-time yes", "no ISO", id="a time that is none"),
        pytest.param("--data no_time.csv --target left --name m", "no column of times", id="no time"),
        pytest.param("--data two_times.csv --target left --name m", "'at', 'closed'", id="two times"),
        pytest.param("--data time_gaps.csv --target left --name m", "null in 1 of 200 rows", id="a row without time"),
        pytest.param("--data one_label.csv --target left --name m", "one value only", id="one label"),
        pytest.param("--data halves.csv --target left --name m", "both labels", id="a label that comes later"),
        pytest.param("--data few.csv --target left --name m", "Too few rows", id="few rows"),
        pytest.param("--data one_moment.csv --target left --name m", "within one minute", id="one moment"),
        pytest.param("--data alone.csv --target left --name m", "left to learn from", id="no feature"),
        pytest.param("--data good.csv --target left --name m --task regression --out good.csv", "good.csv", id="out"),
        pytest.param("--data good.csv --target yes --name m --task binary", "Say --task multiclass", id="wrong task"),
    ],
)
def test_wrong_input_is_told_with_its_mend_and_leaves_nothing(
    words: str, says: str, tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tables)
    before = sorted(tables.rglob("*"))

    assert main(["init", *words.split()]) == 2

    assert says in capsys.readouterr().err
    assert sorted(tables.rglob("*")) == before


@pytest.fixture(scope="module")
def written(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "models"
    assert main(["init", "--data", str(tables / "good.csv"), "--target", "left", "--name", "m", "--out", str(out)]) == 0
    return out


def test_it_writes_five_files_that_load(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "m.yaml",
        "m_contract.yaml",
        "m_dag.py",
        "m_training.py",
        "test_m_training.py",
    ]
    spec = load_spec(written / "m.yaml")
    assert spec.train.features == ('it\'s "odd"', "yes")
    assert spec.evaluation.task == "binary"
    assert load_contract(written / "m_contract.yaml").min_rows == 45


@pytest.mark.skipif(find_spec("ruff") is None, reason="the environment of Airflow 2.11 has no ruff; .venv has")
@pytest.mark.parametrize("words", [["check"], ["format", "--check", "--line-length", "120"]], ids=["check", "format"])
def test_what_is_generated_is_clean_under_ruff(written: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", *map(str, written.glob("*.py"))],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_existing_file_stays_unless_told_otherwise(
    written: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["init", "--data", str(tables / "good.csv"), "--target", "left", "--name", "m", "--out", str(written)]
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    (written / "m_training.py").write_text("mine")

    assert main(words) == 2
    assert "m_training.py" in capsys.readouterr().err
    assert (written / "m_training.py").read_text() == "mine"

    # Told so, the same table gives the same files, byte for byte.
    assert main([*words, "--force", "--json"]) == 0
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    told = json.loads(capsys.readouterr().out)
    assert len(told["files"]) == 5
    assert any(text.startswith("event time 'at'") for text in told["guessed"])
    assert any(re.search(r"run m\.yaml --window 2024-04-01 2024-08-01", command) for command in told["next"])


def test_values_of_personal_columns_are_nowhere(tables: Path, tmp_path: Path) -> None:
    words = ["--target", "left", "--name", "quiet", "--out", str(tmp_path), "--personal", "yes"]

    assert main(["init", "--data", str(tables / "good.csv"), *words]) == 0

    assert not [path.name for path in tmp_path.iterdir() if "Zoë" in path.read_text()]
    assert load_spec(tmp_path / "quiet.yaml").train.features == ('it\'s "odd"',)
