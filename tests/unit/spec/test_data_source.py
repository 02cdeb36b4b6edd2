"""``data.format`` and ``data.options``: what is refused while a specification is read, and with which words."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_mlops.core import registry
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.load import load_spec
from airflow_mlops.spec.model import DataSpec

SPEC = """
name: shop
data:
  uri: shop.db
  event_time: at
  {data}
contract: {{path: contract.yaml}}
train: {{function: "t:train", serialization: cloudpickle, target: y, window: {{length: 1 month}}}}
evaluation: {{task: binary, metrics: [roc_auc]}}
gate: {{rules: [{{rule: at_least, metric: roc_auc, value: 0.6}}]}}
"""


def load(folder: Path, data: str) -> Any:
    (folder / "spec.yaml").write_text(SPEC.format(data=data))
    return load_spec(folder / "spec.yaml")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        pytest.param("format: parqet", r"No data source is called 'parqet'\. Did you mean 'parquet'", id="a typo"),
        pytest.param("format: warehouse", r"Known: csv, parquet\..*group 'airflow_mlops\.data_sources'", id="unknown"),
        pytest.param("format: ''", r"data\.format", id="empty"),
        pytest.param("format: 7", r"data\.format", id="no text"),
        pytest.param("options: [rows]", r"data\.options", id="options are a mapping"),
        pytest.param("options: {password: hush}", r"options\.password holds credentials.*conn_id", id="a password"),
        pytest.param("options: {a: {b: [{api_key: hush}]}}", r"options\.a\.b\.api_key holds", id="a key, deep inside"),
        pytest.param("options: {to: 'pg://me:hush@host/db'}", r"options\.to holds credentials", id="in a URI"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_without_its_secret(tmp_path: Path, written: str, words: str) -> None:
    with pytest.raises(InvalidSpecError, match=rf"spec\.yaml, line 6: .*{words}") as caught:
        load(tmp_path, written)

    assert "hush" not in str(caught.value)


def test_words_that_only_sound_like_a_secret_pass() -> None:
    options = {"table": "tokens", "token_column": "t", "secretary": "me", "url": "https://host/path@v2"}

    assert DataSpec(uri="x", options=options).options == options


def test_a_plug_ins_source_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = EntryPoint("warehouse", "no_such_module:Thing", "airflow_mlops.data_sources")
    monkeypatch.setattr(registry, "entry_points", lambda group: [plugin])

    spec = load(tmp_path, "format: warehouse\n  options: {table: orders}")

    assert (spec.data.format, spec.data.options) == ("warehouse", {"table": "orders"})


def test_a_built_in_name_looks_for_no_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(group: str) -> Any:
        raise AssertionError("entry points were looked for")

    monkeypatch.setattr(registry, "entry_points", never)

    assert [DataSpec(uri="x", format=name).format for name in ("parquet", "csv")] == ["parquet", "csv"]


def test_naming_a_source_imports_none() -> None:
    code = (
        "import sys\nfrom airflow_mlops.spec.model import DataSpec\nDataSpec(uri='x', format='csv')\n"
        "print(*[m for m in sys.modules if m.startswith(('pyarrow', 'airflow_mlops.engines'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout.split() == []


def test_options_are_what_json_can_say() -> None:
    with pytest.raises(ValidationError, match="since"):
        DataSpec(uri="x", options={"since": date(2013, 1, 1)})


def test_python_tells_the_same() -> None:
    with pytest.raises(ValidationError, match="No data source is called 'parqet'"):
        DataSpec(uri="x", format="parqet")
