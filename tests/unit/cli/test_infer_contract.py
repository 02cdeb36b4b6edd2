"""``airflow-mlops infer-contract`` as a person calls it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from airflow_mlops.cli import main
from airflow_mlops.spec.contract import load_contract
from airflow_mlops.spec.yaml_lines import parse_yaml

ROWS = "at,customer,plan,spend,left\n" + "".join(
    f"2024-0{1 + number % 2}-{1 + number % 28:02d} 10:00:00,c{number},{'ab'[number % 2]},{number}.5,{number % 2}\n"
    for number in range(60)
)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path / "rows.csv"


def test_it_prints_a_contract_that_loads_and_says_what_it_checked(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rows.csv", "--event-time", "at", "--window", "2024-01-01", "2024-02-01", "--target", "left"]

    assert main(["infer-contract", *words, "--id", "customer"]) == 0

    told = capsys.readouterr()
    assert load_contract(parse_yaml(told.out, "printed")[0]).min_rows == 15
    assert "window [2024-01-01, 2024-02-01) of rows.csv: 30 rows" in told.out
    assert "checked: they hold on the window" in told.err


def test_a_file_is_not_written_over_without_being_told_to(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = table.parent / "contract.yaml"
    out.write_text("mine")

    assert main(["infer-contract", "rows.csv", "--out", "contract.yaml"]) == 2
    assert out.read_text() == "mine"
    assert "--force" in capsys.readouterr().err

    assert main(["infer-contract", "rows.csv", "--out", "contract.yaml", "--force"]) == 0
    assert load_contract(out).expectations
    assert stat.S_IMODE(out.stat().st_mode) & stat.S_IRGRP
    assert sorted(path.name for path in table.parent.iterdir()) == ["contract.yaml", "rows.csv"]


def test_json_holds_the_contract_and_a_reason_for_each_expectation(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer-contract", "rows.csv", "--json", "--personal", "customer"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 60
    assert len(told["reasons"]) == len(told["contract"]["expectations"])
    assert load_contract(told["contract"]).min_rows == 30
    assert not any(f'"c{number}"' in json.dumps(told) for number in range(60))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["gone.csv"], "gone.csv does not exist", id="no file"),
        pytest.param(["rows.csv", "--target", "lefd"], "Did you mean 'left'?", id="misspelt target"),
        pytest.param(["rows.csv", "--id", "plam"], "Did you mean 'plan'?", id="misspelt id"),
        pytest.param(["rows.csv", "--event-time", "att"], "Did you mean 'at'?", id="misspelt time"),
        pytest.param(["rows.csv", "--window", "2024-01-01", "2024-02-01"], "--event-time", id="window without time"),
        pytest.param(
            ["rows.csv", "--event-time", "at", "--window", "2030-01-01", "2030-02-01"], "nothing to infer", id="no row"
        ),
        pytest.param(["rows.csv", "--id", "plan", "--personal", "plan"], "by --personal", id="two roles"),
        pytest.param(["rows.csv", "--target", "plan", "--id", "plan"], "also named as --id", id="target is id"),
        pytest.param(["rows.csv", "--out", "."], "is a folder", id="folder"),
        pytest.param(["rows.csv", "--out", "no/such/c.yaml"], "cannot be written", id="no such folder"),
        pytest.param(["rows.txt"], "--format parquet or --format csv", id="no ending"),
        pytest.param(["rows.csv", "--format", "parquet"], "not a readable Parquet file", id="other format"),
        pytest.param(["s3://user:secret@bucket/x.csv"], "credentials", id="password in the address"),
    ],
)
def test_wrong_input_is_told_with_its_mend(
    table: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (table.parent / "rows.txt").write_text(ROWS)

    assert main(["infer-contract", *words]) == 2

    told = capsys.readouterr()
    assert says in told.err
    assert "secret" not in told.err
    assert told.out == ""


def test_a_folder_tells_its_format_by_what_it_holds(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table.parent / "lake").mkdir()
    os.rename(table, table.parent / "lake" / "part.csv")  # noqa: PTH104

    assert main(["infer-contract", "lake", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 60


def test_what_it_infers_and_cannot_prove_is_the_packages_fault(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("airflow_mlops.core.inference.outward", lambda low, high, whole: (high, high))

    assert main(["infer-contract", "rows.csv", "--out", "c.yaml"]) == 70

    assert "does not hold on" in capsys.readouterr().err
    assert not (table.parent / "c.yaml").exists()
