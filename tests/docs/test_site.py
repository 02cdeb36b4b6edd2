"""The site builds strictly, complete, and without anything from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. No name can be resolved while it is made."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NETWORK, "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


_WITHOUT_NETWORK = """
import socket

def refused(*args, **kwargs):
    raise OSError(f"the build wanted the network: {args}")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refused
from mkdocs.__main__ import cli
cli()
"""


class Loaded(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "link" and named.get("rel") != "canonical":
            self.addresses.append(named.get("href") or "")
        elif tag in ("script", "img", "iframe", "source", "video"):
            self.addresses.append(named.get("src") or "")


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    found = []
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.name}: {one}" for one in loaded.addresses if re.match(r"(https?:)?//", one)]

    assert list(site.rglob("*.html"))
    assert found == []


def test_every_page_of_the_docs_is_in_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]

    assert [str(page) for page in pages if not (site / page).is_file()] == []
    assert (site / "changelog.html").is_file()


def test_pictures_are_small(site: Path) -> None:
    pictures = [*(ROOT / "docs").rglob("*.png")]

    assert {path.name: path.stat().st_size for path in pictures if path.stat().st_size > 200_000} == {}


def text_of(page: Path) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")).split())


def test_the_reference_holds_every_key_of_the_specification(site: Path) -> None:
    import yaml
    from pydantic import BaseModel

    from airflow_mlops.spec import data, model, monitoring, schedule, scoring

    page = text_of(site / "reference" / "specification.html")
    models = {
        one
        for module in (data, model, monitoring, schedule, scoring)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, BaseModel) and one.__module__ == module.__name__
    }
    fields = {
        (model.__name__, name): field
        for model in models
        for name, field in model.model_fields.items()
        if not field.exclude
    }

    assert [key for key in fields if key[1] not in page] == []
    assert len(fields) > len(yaml.safe_load((ROOT / "dags" / "flights.yaml").read_text()))
    for (owner, name), field in fields.items():
        if field.description:
            words = " ".join(field.description.replace("`", "").split()[:4])
            assert words in page.replace("&#x27;", "'").replace("&#39;", "'"), f"{owner}.{name}: {words}"


def test_every_key_is_explained() -> None:
    import airflow_mlops.spec.contract as contract
    import airflow_mlops.spec.model as spec
    from scripts.docs.reference import _meaning

    models = [spec.ModelSpec, contract.Contract, contract.ExpectationSpec]
    for model in models:
        for field in model.model_fields.values():
            inner = _inner(field.annotation)
            if inner is not None and inner not in models:
                models.append(inner)
    silent = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.exclude and not _meaning(field)
    ]

    assert len(models) > 10
    assert silent == []


def _inner(annotation: object) -> object:
    from scripts.docs.reference import _inner_model

    return _inner_model(annotation)


def test_the_reference_holds_every_verb_and_option(site: Path) -> None:
    import argparse

    from airflow_mlops.cli import build_parser

    page = text_of(site / "reference" / "command-line.html")
    (verbs,) = (one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    options = {option for verb in verbs.choices.values() for one in verb._actions for option in one.option_strings}

    assert {"run", "promote", "rollback"} <= set(verbs.choices)
    assert [verb for verb in verbs.choices if f"airflow-mlops {verb}" not in page] == []
    assert [option for option in options - {"-h", "--help"} if option not in page] == []


def test_a_part_that_stands_at_several_keys_has_one_section_and_every_key_leads_to_a_section() -> None:
    from scripts.docs.reference import specification

    page = specification()
    anchors = re.findall(r"\{#([\w-]+)\}", page)

    assert len(anchors) == len(set(anchors))
    assert {"scoring", "labels", "drift-numeric", "monitoring-performance", "notifications"} <= set(anchors)
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= set(anchors)
    assert not {"drift-categorical", "labels-data", "scoring-schedule"} & set(anchors)


def test_the_reference_holds_every_public_operator_rule_error_and_record(site: Path) -> None:
    import airflow_mlops
    from airflow_mlops import errors
    from airflow_mlops.core import monitoring_records, records, sightings
    from airflow_mlops.core.drift import drift_methods
    from airflow_mlops.core.gate import gate_rules

    for ending, page in (("Operator", "operators"), ("Sensor", "sensors"), ("_dag", "python")):
        told = text_of(site / "reference" / f"{page}.html")
        assert [name for name in airflow_mlops.__all__ if name.endswith(ending) and name not in told] == []
    methods = text_of(site / "reference" / "drift-methods.html")
    assert [name for name in drift_methods.builtins if name not in methods] == []
    rules = text_of(site / "reference" / "gate-rules.html")
    assert [name for name in gate_rules.builtins if name not in rules] == []
    told = text_of(site / "reference" / "errors.html")
    assert [name for name in vars(errors) if name.endswith("Error") and name not in told] == []
    kept = text_of(site / "reference" / "records.html")
    made = [
        name
        for module in (records, monitoring_records, sightings)
        for name, one in vars(module).items()
        if getattr(one, "schema_name", None) and name != "Record"
    ]
    assert made
    assert [name for name in made if name not in kept] == []


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        pytest.param("see :class:`~airflow_mlops.core.X`.", "see `X`.", id="a role"),
        pytest.param("==  ===\na   b\n==  ===\n1   two\n==  ===", "| a | b |\n| --- | --- |", id="no head, no role"),
        pytest.param("``harm``\n    Hold.\n    Always.", "\n``harm``\n:   Hold.\n    Always.", id="a term"),
    ],
)
def test_docstrings_become_markdown(text: str, markdown: str) -> None:
    from scripts.docs.docstrings import as_markdown

    assert as_markdown(text).startswith(markdown)


@pytest.mark.parametrize(
    ("fence", "left"),
    [
        ("```console run exit=1", "```console"),
        ('```python title="a b.py"', '```python title="a b.py"'),
        ('    ```yaml title="a.yaml" no-run="the reason"', '    ```yaml title="a.yaml"'),
        ("```text", "```text"),
    ],
)
def test_readers_do_not_see_the_words_for_the_tests(fence: str, left: str) -> None:
    from scripts.docs.hooks import plain_fences

    assert plain_fences(f"{fence}\nx\n```") == f"{left}\nx\n```"


def test_what_nobody_can_make_is_refused() -> None:
    from scripts.docs.reference import make

    with pytest.raises(ValueError, match="Nothing is made from 'the moon'"):
        make("the moon")


def test_a_bar_in_a_table_is_escaped_but_in_code(site: Path) -> None:
    from scripts.docs.reference import _cell

    assert _cell("a | b, `|c|` and ``d | e``") == "a \\| b, `|c|` and ``d | e``"
    assert "sum(|p - q|) / 2" in text_of(site / "concepts" / "drift.html")
