"""What Airflow is told about the provider: valid by its own schema, true, and cheap to load."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module, resources
from typing import Any

import jsonschema
import pytest

from airflow_mlops.compat import AIRFLOW_3
from airflow_mlops.provider_info import CONNECTION_FIELDS, HOOK_CLASS, get_provider_info
from tests.support.airflow_versions import LOAD_AIRFLOW


def airflows_schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.files("airflow").joinpath(name).read_text())
    return loaded


def test_it_validates_against_airflows_schema() -> None:
    jsonschema.validate(get_provider_info(), airflows_schema("provider_info.schema.json"))


def test_it_uses_no_key_airflow_does_not_know() -> None:
    """The schema allows any key, so a misspelt one would be ignored in silence."""
    known = airflows_schema("provider_info.schema.json")["properties"].keys() | {"versions"}
    if not AIRFLOW_3:  # its schema of what a package tells leaves out what only its documentation is made of
        known |= airflows_schema("provider.yaml.schema.json")["properties"].keys()

    assert get_provider_info().keys() <= known


def test_every_module_it_names_imports() -> None:
    info = get_provider_info()
    modules = [
        module for kind in ("hooks", "operators", "sensors", "triggers") for part in info.get(kind, [])
        for module in part["python-modules"]
    ]  # fmt: skip

    assert "airflow_mlops.hooks.mlflow" in modules
    for module in modules:
        import_module(module)


def test_every_class_it_names_imports() -> None:
    info = get_provider_info()
    classes = [connection["hook-class-name"] for connection in info["connection-types"]] + info.get("extra-links", [])

    assert HOOK_CLASS in classes
    for path in classes:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def test_every_link_of_the_operators_is_told() -> None:
    """A link that the provider info does not name shows no button on Airflow 2."""
    from airflow_mlops import links
    from airflow_mlops.compat import BaseOperatorLink

    ours = [
        name
        for name, thing in vars(links).items()
        if isinstance(thing, type) and issubclass(thing, BaseOperatorLink) and not name.startswith(("_", "Base"))
    ]

    assert sorted(get_provider_info()["extra-links"]) == sorted(f"airflow_mlops.links.{name}" for name in ours)


def test_the_hook_and_the_provider_info_agree() -> None:
    from airflow_mlops.hooks.mlflow import MLflowHook

    (connection,) = get_provider_info()["connection-types"]

    assert connection["connection-type"] == MLflowHook.conn_type
    assert connection["hook-name"] == MLflowHook.hook_name


def test_every_field_of_the_form_is_a_setting_with_its_default() -> None:
    from airflow_mlops.engines.tracking import TrackingServer

    defaults = TrackingServer("http://host").to_dict()

    assert CONNECTION_FIELDS.keys() == defaults.keys() - {"tracking_uri"}
    for name, described in CONNECTION_FIELDS.items():
        assert described["schema"].get("default") == defaults[name]


def test_no_field_of_extra_holds_a_secret() -> None:
    """Airflow masks the password field; a secret in Extra would need a name that it masks too."""
    assert not [name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"]


@pytest.mark.parametrize("heavy", ["airflow", "mlflow", "pydantic", "requests"])
def test_it_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, airflow_mlops.provider_info as p; p.get_provider_info(); print({heavy!r} in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out.strip() == "False"


def test_the_hook_loads_no_engine() -> None:
    code = (
        f"{LOAD_AIRFLOW}; import sys; before = set(sys.modules); import airflow_mlops.hooks.mlflow;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "airflow_mlops" in out
    assert not {"mlflow", "requests", "pandas", "numpy"} & set(out)
