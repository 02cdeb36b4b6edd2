from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.cli import build_parser, main
from airflow_mlops.cli.doctor import requirements

SPEC = Path(__file__).parents[3] / "dags" / "flights.yaml"


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    return subprocess.run(
        [sys.executable, "-c", "from airflow_mlops.cli import main; raise SystemExit(main())", *words],
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = (
        "lint",
        "render",
        "run",
        "history",
        "promote",
        "rollback",
        "trace",
        "infer-contract",
        "init",
        "doctor",
        "demo",
    )
    for verb in verbs:
        with pytest.raises(SystemExit) as stopped:
            build_parser().parse_args([verb, "--help"])
        assert stopped.value.code == 0
        assert "--json" in capsys.readouterr().out, verb


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["run", "gone.yaml", "--window", "2013-03-01", "2013-04-01"], "gone.yaml", id="no such file"),
        pytest.param(
            ["run", str(SPEC), "--window", "2013", "2014"], "2013-03-01 and 2013-04-01", id="years as numbers"
        ),
        pytest.param(["run", str(SPEC), "--window", "2013-04-01", "2013-03-01"], "start before end", id="backwards"),
        pytest.param(["history", "flights"], "MLFLOW_TRACKING_URI", id="no server named"),
        pytest.param(["promote", "flights", "--reason", "x"], "--adopt", id="nothing to do"),
    ],
)
def test_wrong_input_is_told_with_its_mend_and_exit_code_2(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert main(words) == 2

    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_a_dead_server_is_exit_code_75() -> None:
    done = run("history", "flights", "--json", MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert done.returncode == 75
    assert "127.0.0.1:9" in done.stderr
    assert done.stdout == ""


def test_doctor_prints_nothing_but_json(tmp_path: Path) -> None:
    done = run("doctor", "--json", "--tracking-uri", f"sqlite:///{tmp_path}/m.db")

    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert checks["Python"]["status"] == checks["MLflow server"]["status"] == "ok"
    assert checks["mlflow-skinny"]["status"] == "ok"


def test_doctor_names_a_missing_and_a_wrong_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "duckdb":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.27.0" if name == "mlflow" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = {check.name: check for check in requirements()}

    assert checks["duckdb"].status == "missing"
    assert "airflow-mlops[steps]" in checks["duckdb"].mend
    assert checks["mlflow"].status == "wrong"
    assert "pip install 'mlflow" in checks["mlflow"].mend
