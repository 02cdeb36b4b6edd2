"""A specification's file cannot read connections and variables through templates, except where that is allowed."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

from airflow_mlops import load_spec
from airflow_mlops import operators as operators_package
from airflow_mlops import sensors as sensors_package
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.templates import forbidden_templates
from tests.unit.spec.test_load import GOOD


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param(
            "name: churn\n",
            'name: churn\ndescription: "{{ conn.mlflow_default.password }}"\n',
            r"churn\.yaml, line 2: description: this text holds a template",
            id="a connection, in a text that is logged",
        ),
        pytest.param(
            "name: churn\n",
            'name: churn\ndescription: "{% set x = conn.a %}"\n',
            "line 2: description",
            id="a statement",
        ),
        pytest.param("name: churn\n", "name: churn\ntags: [a, '{{ 7 }}']\n", r"line 2: tags\.1", id="in a list"),
        pytest.param(
            "  target: left\n",
            "  target: left\n  parameters: {deep: {list: ['{# a #}']}}\n",
            r"line \d+: train\.parameters\.deep\.list\.0",
            id="deep in parameters",
        ),
        pytest.param(
            "  path: contract.yaml", "  path: '{{ var.value.contract }}'", r"contract\.path", id="a path that is no URI"
        ),
        pytest.param(
            "lake/churn", "'{{ conn.s3.password }}'", r"data\.uri: the only template", id="a connection in a URI"
        ),
        pytest.param("lake/churn", "'{{ var.json.lake.uri }}'", r"data\.uri: the only template", id="another object"),
        pytest.param("lake/churn", "'{{ var.value.get(conn.x) }}'", "the only template", id="a call"),
        pytest.param("lake/churn", "'{{ var.value.x | attr(\"y\") }}'", "the only template", id="a filter"),
        pytest.param(
            "lake/churn", "'{{ var.value.lake }}/{{ ti.xcom_pull() }}'", "the only template", id="a second one beside"
        ),
        pytest.param("lake/churn", "'{{ var.value.lake'", "the only template", id="one that is not closed"),
        pytest.param(
            "lake/churn", "'s3://b/{{ var.value.db_password }}'", "'db_password' looks like a secret", id="secret"
        ),
        pytest.param("lake/churn", "'{{ var.value.__class__ }}'", "the only template", id="an inner name"),
        pytest.param(
            "gate:\n",
            "labels: {data: {uri: '{{ ds }}', event_time: at, id_columns: [id]}}\ngate:\n",
            r"line \d+: labels\.data\.uri",
            id="a date in the labels' address",
        ),
        pytest.param(
            "gate:\n",
            "notifications: [{events: [drift], notifier: 'a:B', settings: {text: '{{ conn.x.password }}'}}]\ngate:\n",
            r"notifications\.0\.settings\.text: the only templates",
            id="a connection sent by a notifier",
        ),
        pytest.param(
            "gate:\n",
            "notifications: [{events: [drift], notifier: 'a:B',"
            " settings: {text: '{{ mlops.message | default(conn.slack.password) }}'}}]\ngate:\n",
            "the only templates",
            id="a connection as a filter's argument",
        ),
        pytest.param(
            "gate:\n",
            "notifications: [{events: [drift], notifier: 'a:B', settings: {text: '{{ mlops.__class__ }}'}}]\ngate:\n",
            "the only templates",
            id="an inner name of the message",
        ),
        pytest.param(
            "name: churn\n", 'name: churn\ndescription: "a\\0b"\n', "a character that no database keeps", id="NUL"
        ),
    ],
)
def test_a_template_is_refused_with_place_and_mend(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    path = tmp_path / "churn.yaml"
    path.write_text(GOOD.replace(old, new))

    with pytest.raises(InvalidSpecError, match=told):
        load_spec(path)


def test_a_template_in_a_base_or_in_a_profile_that_is_not_chosen_is_refused_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "_base.yaml").write_text("tags:\n  - '{{ 1 }}'\n")
    path = tmp_path / "churn.yaml"
    path.write_text("extends: _base.yaml\n" + GOOD)
    with pytest.raises(InvalidSpecError, match=r"_base\.yaml, line 2: tags\.0"):
        load_spec(path)

    path.write_text(GOOD + "profiles: {dev: {}, prod: {data: {uri: '{{ conn.a.host }}'}}}\n")
    with pytest.raises(InvalidSpecError, match=r"churn\.yaml, line \d+: data\.uri: .*In the profile prod"):
        load_spec(path, profile="dev", owner="ann")


@pytest.mark.parametrize(
    "data",
    [
        {"data": {"uri": "{{ var.value.lake }}/churn"}},
        {"scoring": {"output_uri": "s3://{{var.value.bucket}}/out", "data": {"uri": "{{ var.value.lake }}"}}},
        {"notifications": [{"settings": {"text": "{{ mlops.title }} of {{ mlops.facts.model }}"}}]},
        {"notifications": [{"settings": {"text": "{{ mlops.message | truncate(200) | upper }}"}}]},
        {"notifications": [{"settings": {"blocks": [{"text": "{{- mlops.facts.how_far | default('none') -}}"}]}}]},
        {"description": "a {single} brace, 100 % and #{this}"},
        {"train": {"parameters": {"json": '{"a": {"b": 1} }', "numbers": [1, None, True]}}},
    ],
)
def test_what_may_stand_there(data: dict[str, Any]) -> None:
    assert list(forbidden_templates(data)) == []


def test_no_field_of_an_operator_reads_a_file_by_its_ending() -> None:
    # A text such as `description: secrets.sql` would be read as a template file where an operator had such endings.
    shells = {
        value
        for package in (operators_package, sensors_package)
        for module in iter_modules(package.__path__)
        for value in vars(import_module(f"{package.__name__}.{module.name}")).values()
        if inspect.isclass(value)
        and hasattr(value, "template_fields")
        and value.__module__.startswith("airflow_mlops.")
    }

    assert len(shells) > 15
    assert {shell.__name__ for shell in shells if shell.template_ext} == set()


def test_a_description_that_ends_like_a_file_stays_text(tmp_path: Path) -> None:
    from airflow_mlops import monitoring_dag, scoring_dag, training_dag

    (tmp_path / "contract.yaml").write_text("expectations: [{type: expect_column_to_exist, kwargs: {column: at}}]\n")
    (tmp_path / "secret.md").write_text("what must not be shown")
    path = tmp_path / "churn.yaml"
    path.write_text(
        GOOD.replace("name: churn\n", f"name: churn\ndescription: {tmp_path}/secret.md\n")
        + f"scoring: {{output_uri: {tmp_path}/secret.md}}\n"
    )
    spec = load_spec(path)

    for make in (training_dag, scoring_dag, monitoring_dag):
        dag = make(spec)
        texts = [dag.doc_md, dag.description, *(task.doc_md for task in dag.tasks)]
        assert not any("must not be shown" in (text or "") for text in texts)
