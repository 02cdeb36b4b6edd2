"""scripts/check_constraints.py with a real uv, on packages of a few bytes and without a network."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from scripts.check_constraints import (
    Lane,
    Outcome,
    below,
    installed_constraints,
    lane_floors,
    main,
    read_lanes,
    read_pins,
    resolve,
    table,
)


def add_wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """Make a wheel that has metadata and nothing else."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {need}\n" for need in needs
    )
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder of wheels in the state of the day that the floors are for: a new mlflow, and the old one."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for version in ("1.27.0", "3.17.2"):
        add_wheel(folder, "mlflow", version, *(["packaging<27"] if version == "3.17.2" else []))
    for version in ("24.0", "26.3", "28.0"):
        add_wheel(folder, "packaging", version)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one lane, whose service holds packaging to a version that mlflow 3 refuses."""
    root = tmp_path / "repository"
    (root / "tests/deploy/constraints").mkdir(parents=True)
    (root / "requirements").mkdir()
    (root / "pyproject.toml").write_text(
        '[project]\nname = "airflow-mlops"\nversion = "0.1.0"\ndependencies = ["packaging>=24"]\n'
        '[project.optional-dependencies]\nmlflow = ["mlflow"]\n'
    )
    (root / "tests/deploy/constraints/lanes.toml").write_text(
        '["mwaa-9"]\nservice = "Amazon MWAA"\nairflow = "9"\npython = "3.12"\n'
        'requirements = "requirements/mwaa-9.txt"\n'
        'constraints = ["mwaa-9.txt"]\nimage = []\nobtained = "made up"\n'
    )
    (root / "tests/deploy/constraints/mwaa-9.txt").write_text("packaging==28.0\n")
    (root / "requirements/mwaa-9.txt").write_text("--find-links /somewhere\nairflow-mlops[mlflow]==0.1.0  # ours\n")
    return root


def outcome(repository: Path, shop: Path) -> Outcome:
    lane = read_lanes(repository)["mwaa-9"]
    return resolve(lane, lane.constraints, repository, ("--offline", "--no-index", "--find-links", str(shop)))


def test_without_floors_a_resolver_steps_back_in_silence(repository: Path, shop: Path) -> None:
    found = outcome(repository, shop)

    assert found.versions["mlflow"] == "1.27.0"
    assert found.problems == (), "nothing says what is too old"


def test_a_floor_in_the_lanes_file_turns_the_step_back_into_a_failure(repository: Path, shop: Path) -> None:
    with (repository / "requirements/mwaa-9.txt").open("a") as file:
        file.write("mlflow>=3.17,<4\n")

    (problem,) = outcome(repository, shop).problems

    assert problem.startswith("uv found no solution.")
    assert "packaging" in problem


def test_a_library_under_the_packages_own_floor_fails_though_uv_is_content(repository: Path, shop: Path) -> None:
    # The floor stands in an extra that the lane does not install, so that uv never sees it.
    text = (repository / "pyproject.toml").read_text()
    (repository / "pyproject.toml").write_text(text + 'strict = ["mlflow>=3.2"]\n')

    assert outcome(repository, shop).problems == ("mlflow fell to 1.27.0, under its floor 3.2.",)


def test_a_lane_that_fits_resolves_to_what_the_service_allows(repository: Path, shop: Path) -> None:
    (repository / "tests/deploy/constraints/mwaa-9.txt").write_text("packaging==26.3\n")

    found = outcome(repository, shop)

    assert found.problems == ()
    assert found.versions == {"mlflow": "3.17.2", "packaging": "26.3"}


def test_a_library_that_is_not_resolved_at_all_is_a_failure() -> None:
    lane = read_lanes()["mwaa-3.3.1"]

    (problem,) = below(
        {name: str(low) for name, low in lane_floors(lane).items() if name != "duckdb"}, lane_floors(lane)
    )

    assert problem.startswith("duckdb is not in the resolution")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("# a list\npandas==2.1.4\napache-airflow==3.3.1+composer\n", id="pip freeze"),
        pytest.param(
            "Package         Version\n--------------- -------\npandas          2.1.4\napache_airflow  3.3.1+composer\n",
            id="pip list",
        ),
        pytest.param("pandas==2.1.4 ; python_version < '3.12'\napache-airflow==3.3.1\n", id="with markers"),
    ],
)
def test_a_services_own_list_is_read_in_the_forms_that_people_have(text: str) -> None:
    assert read_pins(text) == {"pandas": "2.1.4", "apache-airflow": "3.3.1"}


def test_a_list_without_a_single_pin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text("ERROR: (gcloud) not signed in\n")

    with pytest.raises(SystemExit, match="has no line such as"):
        installed_constraints(tmp_path / "packages.txt")
    with pytest.raises(SystemExit, match="gcloud composer environments list-packages"):
        installed_constraints(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--lane", "mwaa-1.10"], "invalid choice: 'mwaa-1.10'", id="a version nobody has"),
        pytest.param(["--installed", "packages.txt"], "goes with exactly one --lane", id="a list for all lanes"),
        pytest.param(["--write-docs", "--lane", "mwaa-3.3.1"], "takes all lanes", id="a page with a gap"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_the_table_has_a_column_for_each_lane(repository: Path, shop: Path) -> None:
    (repository / "tests/deploy/constraints/mwaa-9.txt").write_text("packaging==26.3\n")
    lane: Lane = read_lanes(repository)["mwaa-9"]

    lines = table([lane], {"mwaa-9": outcome(repository, shop)}, "2026-11-21").splitlines()

    assert "| | Amazon MWAA 9 |" in lines
    assert "| mlflow | 3.17.2 |" in lines
    assert "| packages in all | 2 |" in lines


def test_the_whole_script_reports_as_json_and_fails_with_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # No index and no cache: uv can find nothing, which is the same to the script as a conflict.
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))

    assert main(["--lane", "mwaa-3.3.1", "--json"]) == 1

    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["lanes"][0]["lane"] == "mwaa-3.3.1"
    assert told["lanes"][0]["problems"][0].startswith("uv found no solution.")
