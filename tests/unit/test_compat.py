"""One place knows where the running Airflow keeps what the package uses; what one Airflow lacks harms nobody else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mlops import compat
from airflow_mlops.compat import AIRFLOW_VERSION
from tests.support.airflow_versions import AIRFLOW_ASKS

PACKAGE = Path(compat.__file__).parent
#: Only Airflow 3.1 and later, with a standard provider that is new enough, have these.
LATER = () if AIRFLOW_ASKS else ("HITLOperator",)
#: Import paths that are the same on every supported Airflow, and so may stand anywhere above the hooks.
STEADY = re.compile(
    r"airflow\.(providers\.|timetables\.interval|models\.connection|serialization|exceptions import AirflowCluster)"
)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and nothing of which stays loaded."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", sorted(set(compat._PATHS) - set(LATER)))
def test_this_airflow_has_it(name: str) -> None:
    assert getattr(compat, name) is not None


def test_what_this_airflow_lacks_is_an_error_that_names_the_supported_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compat._PATHS, "Telepathy", ("airflow.no_such_place:Telepathy", "airflow.models:Telepathy"))

    with pytest.raises(ImportError, match=r"no_such_place:Telepathy, airflow\.models:Telepathy.*2\.11 and 3\.x"):
        compat.Telepathy  # noqa: B018  # the look-up is the test


def test_a_name_nobody_asked_for_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Aset'"):
        compat.Aset  # noqa: B018


def test_a_broken_installation_shows_its_own_error(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "half_installed.py").write_text("import a_library_that_is_missing")
    monkeypatch.setitem(compat._PATHS, "Half", ("half_installed:Half", "airflow.models:DagBag"))

    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_missing"):
        compat.Half  # noqa: B018


def test_a_module_that_says_it_is_for_a_later_airflow_counts_as_absent(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the standard provider's question to a person does on Airflow 3.0."""
    (modules / "too_new.py").write_text(
        "from airflow.exceptions import AirflowOptionalProviderFeatureException as Late\nraise Late('needs 9.9+')"
    )
    monkeypatch.setitem(compat._PATHS, "Found", ("too_new:Found", "pathlib:Path"))
    monkeypatch.delitem(vars(compat), "Found", raising=False)

    found = compat.Found
    monkeypatch.delitem(vars(compat), "Found")

    assert found is Path


def test_importing_it_loads_no_airflow() -> None:
    code = "import sys, airflow_mlops.compat; print(any(name.partition('.')[0] == 'airflow' for name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout

    assert out.strip() == "False"


def test_no_other_module_names_a_path_of_airflow_that_moves() -> None:
    named = re.compile(r"^\s*(?:from (airflow[.\w]* import \w+)|import (airflow[.\w]*))", re.MULTILINE)
    strays = [
        f"{path.relative_to(PACKAGE)}: {first or second}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != Path(compat.__file__)
        for first, second in named.findall(path.read_text())
        if not (first or second).startswith("airflow_mlops") and not STEADY.match(first or second)
    ]

    assert strays == []


def test_the_version_is_the_running_one() -> None:
    from airflow import __version__

    assert str(AIRFLOW_VERSION) == __version__
    assert (AIRFLOW_VERSION.major >= 3) == compat.AIRFLOW_3
