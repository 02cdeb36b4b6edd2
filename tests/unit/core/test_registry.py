from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from airflow_mlops.core import registry as module
from airflow_mlops.core.registry import Registry
from airflow_mlops.errors import InvalidSpecError, UnknownNameError


def test_a_builtin_is_imported_when_asked_for() -> None:
    assert Registry("shapes", {"path": "pathlib:Path"}).load("path").__name__ == "Path"


def test_an_unknown_name_suggests_the_nearest_and_names_the_group() -> None:
    with pytest.raises(
        UnknownNameError, match=r"No shape is called 'pth'\. Did you mean 'path'\?.*airflow_mlops\.shapes"
    ):
        Registry("shapes", {"path": "pathlib:Path"}).load("pth")


def test_an_entry_point_adds_a_name_but_cannot_shadow_a_builtin(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = [
        EntryPoint("path", "collections:Counter", "airflow_mlops.shapes"),
        EntryPoint("counter", "collections:Counter", "airflow_mlops.shapes"),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: plugins)
    shapes = Registry("shapes", {"path": "pathlib:Path"})

    assert shapes.load("path").__name__ == "Path"
    assert shapes.load("counter").__name__ == "Counter"
    assert shapes.names() == ["counter", "path"]


def test_a_plug_in_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = EntryPoint("broken", "no_such_module_of_anyone:Thing", "airflow_mlops.shapes")
    monkeypatch.setattr(module, "entry_points", lambda group: [plugin])
    shapes = Registry("shapes", {})

    shapes.check("broken")
    with pytest.raises(InvalidSpecError, match=r"shape 'broken' \(no_such_module_of_anyone:Thing\) cannot be loaded"):
        shapes.load("broken")


def test_a_name_is_checked_without_an_import() -> None:
    shapes = Registry("shapes", {"path": "no_such_module_of_anyone:Thing"})

    shapes.check("path")
    with pytest.raises(UnknownNameError, match="No shape is called 'pth'"):
        shapes.check("pth")
