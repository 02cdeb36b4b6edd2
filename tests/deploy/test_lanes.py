"""The files of the managed services agree with each other, without asking any index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.check_constraints import (
    DATA,
    DOCS,
    LIBRARIES,
    Lane,
    floor,
    lane_floors,
    project_floors,
    read_lanes,
    read_pins,
    read_requirements,
)

ROOT = Path(__file__).resolve().parents[2]
LANES = read_lanes()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
each_lane = pytest.mark.parametrize("lane", LANES.values(), ids=LANES)


def pins(lane: Lane) -> dict[str, str]:
    """Return all that the service holds pip to."""
    return {name: version for path in lane.constraints for name, version in read_pins(path.read_text()).items()}


def test_every_promised_service_and_version_has_a_lane_and_a_requirements_file() -> None:
    promised = {"mwaa-2.11.2", "mwaa-3.2.1", "mwaa-3.3.1", "composer-2.11.1", "composer-3.3.1"}

    assert set(LANES) == promised
    found = {
        path.stem for pattern in ("mwaa-*.txt", "composer-*.txt") for path in (ROOT / "requirements").glob(pattern)
    }
    assert found == promised
    assert {lane.requirements.stem for lane in LANES.values()} == promised


@each_lane
def test_every_library_has_a_floor_at_least_as_high_as_the_package_asks_for(lane: Lane) -> None:
    own = {canonicalize_name(each.name): floor(each.specifier) for each in read_requirements(lane.requirements)}

    assert {name for name in LIBRARIES if own.get(name) is None} == set()
    project = project_floors()
    assert {name: str(own[name]) for name in LIBRARIES if own[name] < project[name]} == {}
    assert lane_floors(lane) == {name: own[name] for name in LIBRARIES}


@each_lane
def test_the_caps_of_the_package_stay(lane: Lane) -> None:
    asked = {canonicalize_name(each.name): each.specifier for each in read_requirements(lane.requirements)}

    assert not asked["pandas"].contains("3.1.0"), "evidently does not import on pandas 3.1"
    assert not asked["mlflow"].contains("3.18.0"), "it was published without its mlflow-skinny"
    assert not asked["mlflow-skinny"].contains("3.18.0")


@each_lane
def test_what_the_service_pins_is_inside_what_the_lane_and_the_package_ask_for(lane: Lane) -> None:
    package = [
        *PROJECT["dependencies"],
        *(line for lines in PROJECT["optional-dependencies"].values() for line in lines),
    ]
    asked = [*(Requirement(line) for line in package), *read_requirements(lane.requirements)]
    held = pins(lane)
    outside = [
        f"{each} but {held[each.name]}"
        for each in asked
        if each.name in held and not each.specifier.contains(held[each.name])
    ]

    assert outside == []
    assert {"pandas", "pyarrow", "numpy"} <= set(held), "without these the lane proves little"
    assert lane.airflow in str(lane.image), "the image's own Airflow takes part in the resolution"


@each_lane
def test_the_lane_installs_this_version_with_what_a_worker_needs(lane: Lane) -> None:
    (package,) = [each for each in read_requirements(lane.requirements) if each.name == "airflow-mlops"]

    assert package.specifier == SpecifierSet(f"=={PROJECT['version']}")
    cloud = "amazon" if lane.name.startswith("mwaa") else "google"
    assert package.extras == {"steps", "mlflow", "great-expectations", "evidently", cloud}
    assert package.extras <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize(
    "lane", [lane for lane in LANES.values() if lane.name.startswith("mwaa")], ids=lambda lane: lane.name
)
def test_nothing_in_an_mwaa_file_switches_airflows_constraints_off(lane: Lane) -> None:
    # MWAA looks for this even in comments, and then leaves its own constraints out.
    assert re.findall(r"-c |--constraint ", lane.requirements.read_text()) == []
    assert "--find-links /usr/local/airflow/plugins" in lane.requirements.read_text()


@pytest.mark.parametrize(
    "lane", [lane for lane in LANES.values() if lane.name.startswith("composer")], ids=lambda lane: lane.name
)
def test_a_composer_file_has_only_packages(lane: Lane) -> None:
    # Composer's update reads names and versions; it knows no option of pip.
    assert [line for line in lane.requirements.read_text().splitlines() if line.startswith("-")] == []


@pytest.mark.parametrize("path", sorted((ROOT / DATA).glob("*.txt")), ids=lambda path: path.name)
def test_a_list_of_pins_says_where_it_is_from_and_holds_each_name_once(path: Path) -> None:
    lines = path.read_text().splitlines()
    head = " ".join(line for line in lines if line.startswith("#"))
    body = [line for line in lines if line and not line.startswith("#")]

    assert "github.com/" in head or "uv pip compile" in head or "cloud.google.com/" in head
    names = [re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==[^\s=]+", line) for line in body]
    assert [line for line, match in zip(body, names, strict=True) if match is None] == []
    assert sorted({match[1] for match in names if match}) == sorted(match[1] for match in names if match)


def test_simulated_lists_say_so_and_keep_what_google_published() -> None:
    for lane in (lane for lane in LANES.values() if lane.name.startswith("composer")):
        assert "SIMULATED" in lane.constraints[0].read_text().splitlines()[0]
        assert "simulated" in lane.obtained
    published = read_pins((ROOT / DATA / "composer-3.3.1-published.txt").read_text())
    simulated = pins(LANES["composer-3.3.1"])
    assert len(published) == 24
    assert {name: simulated.get(name) for name in published} == published


@pytest.mark.parametrize(
    "lane", [lane for lane in LANES.values() if lane.name.startswith("mwaa")], ids=lambda lane: lane.name
)
def test_airflows_constraints_and_the_enforced_list_can_hold_together(lane: Lane) -> None:
    first, second = (read_pins(path.read_text()) for path in lane.constraints)

    assert {
        name: (first[name], second[name]) for name in first.keys() & second.keys() if first[name] != second[name]
    } == {}
    assert second["apache-airflow"] == lane.airflow


@pytest.mark.parametrize("service", DOCS)
def test_the_page_of_a_service_shows_versions_that_its_lanes_allow(service: str) -> None:
    text = (ROOT / DOCS[service]).read_text()
    part = text.split(f"<!-- resolved versions: {service} -->")[1].split("<!-- end of resolved versions -->")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| ")
    ]
    lanes = [lane for lane in LANES.values() if lane.name.startswith(f"{service}-")]
    shown = {row[0]: dict(zip((lane.name for lane in lanes), row[1:], strict=True)) for row in rows if row[0]}

    for lane in lanes:
        assert shown["apache-airflow"][lane.name] == lane.airflow
        asked = {canonicalize_name(each.name): each.specifier for each in read_requirements(lane.requirements)}
        held = pins(lane)
        for name in LIBRARIES:
            version = shown[name][lane.name]
            assert asked[name].contains(version), f"{lane.name}: the page shows {name} {version}; run the script anew"
            assert Version(held.get(name, version)) == Version(version)
