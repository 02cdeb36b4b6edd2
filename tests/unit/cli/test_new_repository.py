"""``airflow-mlops init --repository``: what is refused, what is kept, and what is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement

from airflow_mlops import load_spec
from airflow_mlops.cli import main
from airflow_mlops.cli.new_repository_files import owner_of, shared_texts

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of rows, by the hour."""
    chance = np.random.default_rng(0)
    rows = 240
    path = tmp_path_factory.mktemp("tables") / "load.csv"
    pd.DataFrame(
        {
            "at": pd.date_range("2024-03-01", periods=rows, freq="h"),
            "heat": chance.normal(50, 10, rows),
            "line": chance.choice(["a", "b"], rows),
            "load": chance.normal(100, 20, rows),
        }
    ).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teams") / "flights team"
    assert main(["init", "--repository", str(folder)]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_everything_and_says_what_comes_next(repository: Path) -> None:
    assert sorted(contents(repository)) == [
        ".airflowignore",
        ".github/workflows/ci.yaml",
        ".gitignore",
        "README.md",
        "contracts/parcels.yaml",
        "dags/models_dag.py",
        "make_sample.py",
        "models/_base.yaml",
        "models/parcels.yaml",
        "pyproject.toml",
        "requirements.txt",
        "src/parcels_training.py",
        "tests/test_models.py",
        "tests/test_parcels_training.py",
    ]


@pytest.mark.parametrize(
    ("profile", "uri", "cron", "connection", "name"),
    [
        ("dev", "../sample/parcels.parquet", None, "mlflow_default", "dev.flights-team.parcels"),
        ("staging", "s3://your-staging-bucket/parcels/", None, "mlflow_staging_flights-team", None),
        ("prod", "s3://your-bucket/parcels/", "0 0 1 * *", "mlflow_prod", "parcels"),
    ],
)
def test_profiles_change_places_schedules_and_connections(
    profile: str, uri: str, cron: str | None, connection: str, name: str | None, repository: Path
) -> None:
    spec = load_spec(repository / "models" / "parcels.yaml", profile=profile)

    assert (spec.data.uri, spec.schedule.cron, spec.connection_id) == (uri, cron, connection)
    assert name in (None, spec.registered_model)
    assert spec.scoring is not None
    assert profile in spec.scoring.output_uri


def test_without_a_word_it_is_dev(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_MLOPS_PROFILE", raising=False)

    assert load_spec(repository / "models" / "parcels.yaml").profile == "dev"


def test_the_same_command_gives_the_same_files(repository: Path, tmp_path: Path) -> None:
    assert main(["init", "--repository", str(tmp_path / "flights team")]) == 0

    assert contents(tmp_path / "flights team") == contents(repository)
    assert not [path for path, text in contents(repository).items() if tempfile.gettempdir().encode() in text]


@pytest.mark.skipif(find_spec("ruff") is None, reason="the environment of Airflow 2.11 has no ruff; .venv has")
@pytest.mark.parametrize("words", [["check"], ["format", "--check", "--line-length", "120"]], ids=["check", "format"])
def test_what_is_generated_is_clean_under_ruff(repository: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", str(repository)],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("syntax", ["glob", "regexp"])
def test_airflow_reads_the_dag_file_alone(repository: Path, syntax: str) -> None:
    # Airflow 2 reads .airflowignore as regular expressions, Airflow 3 as globs.
    from airflow.utils.file import might_contain_dag

    try:
        from airflow._shared.module_loading import find_path_from_directory
    except ImportError:
        from airflow.utils.file import find_path_from_directory

    (repository / "tests" / "conftest.py").write_text("# airflow dag\n")
    found = [
        path
        for path in find_path_from_directory(str(repository), ".airflowignore", syntax)
        if path.endswith(".py") and might_contain_dag(path, safe_mode=True)
    ]
    (repository / "tests" / "conftest.py").unlink()

    assert found == [str(repository / "dags" / "models_dag.py")]


def test_floors_are_those_of_the_package(repository: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = [*project["dependencies"], *project["optional-dependencies"]["steps"]]
    known = {Requirement(text).name: Requirement(text).specifier for text in ours}
    lines = [line for line in (repository / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    asked = {Requirement(line).name: Requirement(line) for line in lines}

    assert [line for line in lines if ">=" not in line] == []
    assert asked["airflow-mlops"].extras <= set(project["optional-dependencies"])
    assert asked["airflow-mlops"].specifier.contains(project["version"])
    assert {name: one.specifier for name, one in asked.items() if name != "airflow-mlops"} == {
        name: known[name] for name in asked if name != "airflow-mlops"
    }


def test_a_table_becomes_one_more_model_and_the_rest_stays(
    repository: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(repository)
    words = ["init", "--repository", str(repository), "--table", str(table), "--target", "load", "--name", "load"]

    assert main([*words, "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    mine = ["contracts/load.yaml", "models/load.yaml", "src/load_training.py", "tests/test_load_training.py"]
    assert told["files"] == [str(repository / path) for path in mine]
    assert {path: text for path, text in contents(repository).items() if path not in mine} == before
    dev, prod = (load_spec(repository / "models" / "load.yaml", profile=profile) for profile in ("dev", "prod"))
    assert (dev.data.uri, dev.data.format) == ("../sample/load.csv", "csv")
    assert (repository / "models" / prod.data.uri).resolve() == table
    assert prod.schedule.cron == "0 0 * * *"
    assert main(["lint", "--all-profiles", "--no-dags", str(repository / "models")]) == 0

    # Again, it is someone's work.
    capsys.readouterr()
    assert main(words) == 2
    assert "models/load.yaml" in capsys.readouterr().err
    for path in mine:
        (repository / path).unlink()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param("--repository full", "models/_base.yaml exists", id="a file that is there"),
        pytest.param("--repository file", "file is no folder", id="a file for a folder"),
        pytest.param("--repository file/below", "file is no folder", id="below a file"),
        pytest.param("--repository new --out models", "contradict", id="out"),
        pytest.param("--repository new --target y", "--target is about a table", id="a target without a table"),
        pytest.param("--repository new --id y", "--id is about a table", id="an id without a table"),
        pytest.param("--repository new --data gone.csv", "needs --target", id="a table without a target"),
        pytest.param("--repository new --data gone.csv --target y --name m", "gone.csv", id="no table"),
        pytest.param("--repository new --data gone.csv --target y --name My-M", "my_m", id="a name"),
        pytest.param("--name m", "--data and --target are missing", id="neither"),
    ],
)
def test_wrong_input_is_told_with_its_mend_and_leaves_nothing(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full" / "models").mkdir(parents=True)
    (tmp_path / "full" / "models" / "_base.yaml").write_text("owner: me\n")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    assert main(["init", *words.split()]) == 2

    assert says in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_repository_is_not_begun_twice(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--repository", str(repository)]) == 2

    assert "To add a model" in capsys.readouterr().err


def test_what_a_git_host_wrote_stays_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("ours")
    monkeypatch.chdir(tmp_path)

    assert main(["init", "--repository", "."]) == 0

    said = capsys.readouterr().out
    assert (tmp_path / "README.md").read_text() == "ours"
    assert "Kept as it was: README.md" in said
    assert "cd " not in re.findall(r"Next.*", said, re.DOTALL)[0]


@pytest.mark.parametrize(
    ("folder", "owner"),
    [
        ("flights", "flights"),
        ("Team Blue (new)", "team-blue-new"),
        ("Müller & Söhne", "muller-sohne"),
        ("--", "team"),
        ("模型", "team"),
        ("2024", "2024"),
        ("x" * 60, "x" * 40),
    ],
)
def test_the_owner_is_what_names_can_hold(folder: str, owner: str, tmp_path: Path) -> None:
    assert owner_of(tmp_path / folder) == owner


def test_an_owner_that_yaml_takes_for_a_number_stays_text() -> None:
    text = shared_texts("parcels", "2024", example=True)["models/_base.yaml"]

    assert yaml.safe_load(text)["owner"] == "2024"
