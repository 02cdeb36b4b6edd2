from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from airflow_mlops.cli import main
from airflow_mlops.core.drift import check_methods
from airflow_mlops.core.gate import check_rules
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.file_schema import file_schema
from airflow_mlops.spec.fleet import model_files
from airflow_mlops.spec.layers import read_layers
from airflow_mlops.spec.load import load_spec, spec_of
from airflow_mlops.spec.yaml_lines import load_yaml

ROOT = Path(__file__).parents[3]
FLIGHTS = ROOT / "dags" / "flights.yaml"
FILES = [*model_files(ROOT / "dags"), *model_files(ROOT / "airflow_mlops" / "templates")]
SCHEMA = jsonschema.Draft202012Validator(file_schema())
CLOSED = jsonschema.Draft202012Validator(file_schema(closed=True))


def flights() -> dict[str, Any]:
    return copy.deepcopy(load_yaml(FLIGHTS)[0])


def loads(data: dict[str, Any]) -> bool:
    """Whether load_spec, and the factories' own checks of names, take the keys."""
    try:
        spec = spec_of(data, {}, ROOT)
        check_rules(spec.gate.rules)
        if spec.drift.engine == "statistics":
            check_methods(spec.drift)
    except (ValidationError, InvalidSpecError):
        return False
    return True


def changed(data: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    part: Any = data
    for key in place[:-1]:
        part = part.setdefault(key, {}) if isinstance(part, dict) else part[key]
    part[place[-1]] = value
    return data


@pytest.mark.parametrize("options", [{}, {"base": True}, {"closed": True, "runtimes": ("inline",)}])
def test_it_is_a_valid_schema_of_its_draft(options: dict[str, Any]) -> None:
    schema = file_schema(**options)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_model_of_ours_is_accepted_by_schema_and_loader(file: Path) -> None:
    data, _ = load_yaml(file)

    assert [error.message for error in CLOSED.iter_errors(data)] == []
    assert load_spec(file).name == data["name"]


WRONG: list[tuple[str, tuple[Any, ...], Any]] = [
    ("an unknown key", ("train", "targt"), "late"),
    ("an unknown key at the top", ("tain",), {}),
    ("a number as name", ("name",), 2013),
    ("capitals and blanks in the name", ("name",), "My Flights"),
    ("no event time", ("data", "event_time"), None),
    ("no URI", ("data",), {"event_time": "event_time"}),
    ("an unknown task", ("evaluation", "task"), "ranking"),
    ("a metric of another task", ("evaluation", "metrics"), ["rmse"]),
    ("an unknown metric", ("evaluation", "metrics"), ["roc_acu"]),
    ("a metric twice", ("evaluation", "metrics"), ["roc_auc", "roc_auc"]),
    ("no metric", ("evaluation", "metrics"), []),
    ("too few draws", ("evaluation", "bootstrap_draws"), 10),
    ("fortnights", ("train", "window", "length"), "1 fortnight"),
    ("a bare number as length", ("monitoring", "cool_down"), 60),
    ("a function without a module", ("train", "function"), "train"),
    ("no rules", ("gate", "rules"), []),
    ("a rule's setting misspelled", ("gate", "rules", 0), {"rule": "at_least", "metric": "roc_auc", "valu": 0.5}),
    ("a rule's setting missing", ("gate", "rules", 0), {"rule": "at_least", "metric": "roc_auc"}),
    ("a rule's setting as text", ("gate", "rules", 0), {"rule": "at_least", "metric": "roc_auc", "value": "0.5"}),
    ("a rule without a name", ("gate", "rules", 0), {"metric": "roc_auc", "value": 0.5}),
    ("an unknown kind of proof", ("gate", "rules", 1, "evidence"), "hope"),
    ("a share above one", ("labels", "coverage"), 1.5),
    ("an unknown action", ("monitoring", "drift", "action"), "shout"),
    ("negative retries", ("schedule", "retries"), -1),
    ("cron without a start", ("scoring", "schedule"), {"cron": "0 0 * * *"}),
    ("cron and a retrain", ("schedule",), {"cron": "0 0 * * *", "start_date": "2013-01-01", "on_retrain": True}),
    ("a runtime that is a list", ("runtime",), ["inline"]),
    ("a step that is none", ("step_runtimes",), {"traning": "inline"}),
    ("an event that is none", ("notifications",), [{"events": ["lunch"], "notifier": "a:B"}]),
    ("a notifier without events", ("notifications",), [{"notifier": "a:B"}]),
    ("a method without a name", ("drift", "numeric"), {"threshold": 0.2}),
]


@pytest.mark.parametrize(("place", "value"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_what_can_be_seen_in_the_file_is_refused_by_schema_and_loader(place: tuple[Any, ...], value: Any) -> None:
    data = changed(flights(), place, value)

    assert not SCHEMA.is_valid(data)
    assert not loads(data)


NAMES: list[tuple[tuple[Any, ...], Any]] = [
    (("gate", "rules", 0), {"rule": "atleast", "metric": "roc_auc", "value": 0.5}),
    (("drift", "numeric", "method"), "pssi"),
    (("data", "format"), "parket"),
]


@pytest.mark.parametrize(("place", "value"), NAMES, ids=["rule", "method", "source"])
def test_a_name_that_is_not_installed_is_refused_by_the_closed_schema_only(place: tuple[Any, ...], value: Any) -> None:
    data = changed(flights(), place, value)

    assert SCHEMA.is_valid(data)
    assert not CLOSED.is_valid(data)
    assert not loads(data)


def leaves(part: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield (*place, key)
        yield from leaves(value, (*place, key))


@pytest.mark.parametrize("wrong", [{"x": 1}, ["x"], "no such thing", -(10**12), 0.5, None, ""], ids=repr)
def test_whatever_stands_in_a_place_the_schema_refuses_nothing_that_loads(wrong: Any) -> None:
    data = flights()
    tried = refused = 0
    for place in leaves(data):
        other = changed(data, place, wrong)
        tried += 1
        if not SCHEMA.is_valid(other):
            refused += 1
            assert not loads(other), place

    assert tried > 100
    assert refused > 20


def test_text_that_reads_as_a_number_is_the_one_exception() -> None:
    data = changed(flights(), ("schedule", "retries"), "2")

    assert loads(data)
    assert not SCHEMA.is_valid(data)


def known_keys() -> list[tuple[str, ...]]:
    schema = file_schema()

    def keys(part: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, one in part.get("properties", {}).items():
            yield (*place, key)
            for inner in (one, *one.get("anyOf", ())):
                if "$ref" in inner:
                    yield from keys(schema["$defs"][inner["$ref"].rpartition("/")[2]], (*place, key))

    return [place for place in keys(schema, ()) if place[0] not in ("extends", "profiles")]


def offered(part: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a profile's schema; a part that is only partly open has its own keys written out."""
    for key, one in part["properties"].items():
        if "properties" in one:
            yield from offered(one, (*place, key))
        else:
            yield (*place, key)


def test_a_profile_may_change_in_the_schema_exactly_what_it_may_when_loaded(tmp_path: Path) -> None:
    file = tmp_path / "flights.json"
    profile_schema = file_schema()["$defs"]["profile"]
    open_keys = set(offered(profile_schema))
    for place in known_keys():
        profile: Any = "x"  # of no matter: only the key is asked about
        for key in reversed(place):
            profile = {key: profile}
        file.write_text(json.dumps({**flights(), "profiles": {"dev": profile}}))
        try:
            read_layers(file)
            may = True
        except InvalidSpecError:
            may = False
        assert may == any(place[: len(one)] == one for one in open_keys), place
    assert len(open_keys) > 20
    assert profile_schema["additionalProperties"] is False
    assert not SCHEMA.is_valid({**flights(), "profiles": {"dev": {"train": {"seed": 3}}}})
    assert not SCHEMA.is_valid({**flights(), "profiles": {"dev": {"data": {"format": "csv"}}}})
    assert SCHEMA.is_valid({**flights(), "profiles": {"dev": {"data": {"uri": "lake"}, "schedule": {"retries": 0}}}})


def test_a_file_on_a_base_and_a_base_may_be_incomplete() -> None:
    part = {"name": "late", "extends": "_base.yaml", "train": {"seed": 3}, "schedule": {"cron": "0 0 * * *"}}

    assert SCHEMA.is_valid(part)
    assert not SCHEMA.is_valid({key: value for key, value in part.items() if key != "extends"})
    base = jsonschema.Draft202012Validator(file_schema(base=True))
    assert base.is_valid({"owner": "ann", "train": {"seed": 3}})
    assert not base.is_valid(part)
    assert not base.is_valid({"train": {"sead": 3}})


def test_what_every_profile_gives_need_not_stand_in_the_file() -> None:
    data = flights()
    del data["data"]["uri"]

    assert not SCHEMA.is_valid(data)
    assert SCHEMA.is_valid({**data, "profiles": {"dev": {"data": {"uri": "lake"}}, "prod": None}})


def test_keys_tell_what_they_are_and_their_defaults() -> None:
    schema = file_schema(runtimes=("external_python", "inline"))
    parts = schema["$defs"]

    assert parts["LabelSpec"]["properties"]["coverage"]["default"] == 0.9
    assert parts["LabelSpec"]["properties"]["deadline"]["default"] == "30 days"
    assert "must have a label" in parts["LabelSpec"]["properties"]["coverage"]["description"]
    assert parts["RuntimeSpec"]["anyOf"][0]["anyOf"][0]["enum"] == ["external_python", "inline"]
    assert "folder" not in schema["properties"]
    assert schema["properties"]["runtime"]["default"] == "inline"


# The verb


def test_the_verb_prints_the_schema_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["$schema"].endswith("2020-12/schema")
    assert jsonschema.Draft202012Validator(printed).is_valid(flights())


def test_an_earlier_schema_is_replaced_and_another_file_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.schema.json"

    assert main(["schema", "--output", str(file)]) == 0
    assert main(["schema", "--closed", "--output", str(file)]) == 0
    assert json.loads(file.read_text()) == file_schema(closed=True, runtimes=("external_python", "inline"))
    assert "yaml-language-server: $schema=model.schema.json" in capsys.readouterr().out

    model = tmp_path / "flights.yaml"
    model.write_text("name: flights\n")
    assert main(["schema", "--output", str(model)]) == 2
    assert model.read_text() == "name: flights\n"
    assert "left alone" in capsys.readouterr().err
    assert main(["schema", "--output", str(tmp_path / "gone" / "x.json")]) == 2
