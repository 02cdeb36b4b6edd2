"""The environment digest: changes with what a model depends on, and with nothing else."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from airflow_mlops.engines import environment
from airflow_mlops.engines.environment import describe_environment, installed, loose_modules

LIBRARIES = ("scikit-learn", "numpy", "cloudpickle")


def test_direct_libraries_are_pinned_and_their_dependencies_recorded() -> None:
    found = describe_environment(distributions=LIBRARIES)

    assert f"scikit-learn=={metadata.version('scikit-learn')}" in found.requirements
    assert found.direct == ("cloudpickle", "numpy", "scikit-learn")
    assert {"scipy", "joblib", "threadpoolctl"} <= set(found.libraries)
    assert "mlflow" not in found.libraries


def test_modules_count_through_the_distribution_that_provides_them() -> None:
    found = describe_environment(modules=("sklearn", "yaml", "no_such_module"))

    assert found.direct == ("pyyaml", "scikit-learn")


def test_airflow_and_this_package_do_not_count() -> None:
    found = describe_environment(distributions=LIBRARIES, modules=("airflow", "airflow_mlops"))

    assert found == describe_environment(distributions=LIBRARIES)


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        pytest.param("numpy", True, id="a library the model uses"),
        pytest.param("joblib", True, id="what that one depends on"),
        pytest.param("apache-airflow", False, id="what only schedules the work"),
    ],
)
def test_digest(monkeypatch: pytest.MonkeyPatch, changed: str, differs: bool) -> None:
    before = describe_environment(distributions=LIBRARIES, modules=("airflow",)).digest
    real = metadata.version
    monkeypatch.setattr(environment.metadata, "version", lambda name: "99.0" if name == changed else real(name))

    assert (describe_environment(distributions=LIBRARIES, modules=("airflow",)).digest != before) is differs


def test_digest_covers_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe_environment(distributions=LIBRARIES).digest
    monkeypatch.setattr(environment.platform, "python_version", lambda: "3.99.0")

    assert describe_environment(distributions=LIBRARIES).digest != before


def test_the_record_lists_everything_installed() -> None:
    record = describe_environment(distributions=LIBRARIES).to_dict()

    assert record["installed"] == installed()
    assert record["installed"]["mlflow"] == metadata.version("mlflow")
    assert record["digest"] == describe_environment(distributions=LIBRARIES).digest


def test_a_module_that_no_distribution_brought_counts_with_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "loose_helper.py").write_text("LIMIT = 1\n")
    (tmp_path / "loose_package").mkdir()
    (tmp_path / "loose_package" / "__init__.py").write_text("")
    (tmp_path / "loose_package" / "inner.py").write_text("LIMIT = 1\n")
    names = ("loose_helper", "loose_package.inner", "numpy", "no_such_module_here", "airflow")
    before = loose_modules(names)

    (tmp_path / "loose_package" / "inner.py").write_text("LIMIT = 2\n")
    after = loose_modules(names)

    assert set(before) == set(after) == {"loose_helper", "loose_package"}
    assert before["loose_helper"] == after["loose_helper"]
    assert before["loose_package"] != after["loose_package"]
