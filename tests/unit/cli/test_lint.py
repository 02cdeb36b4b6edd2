from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import load_spec
from airflow_mlops.cli import lint as verb
from airflow_mlops.cli import lint_contract, main
from airflow_mlops.cli.lint import Options, lint
from airflow_mlops.cli.lint_contract import check_expectations, known_names
from airflow_mlops.cli.lint_findings import CODES, Finding
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.contract import load_contract

ROOT = Path(__file__).parents[3]
SPEC = """\
name: churn
data:
  uri: lake/churn
  event_time: at
contract: {path: churn_contract.yaml}
train:
  function: churn_training:train
  serialization: skops
  target: left
  features: [age, plan]
  window: {length: 2 months}
evaluation:
  task: binary
  metrics: [roc_auc, "churn_training:gain"]
  slices: [region]
gate:
  rules:
    - {rule: at_least, metric: roc_auc, value: 0.7}
    - {rule: slices_no_worse, metric: roc_auc, slice: region, margin: 0.1, evidence: harm}
schedule: {on_retrain: true}
scoring:
  output_uri: lake/predictions
labels: {data: {uri: lake/labels, event_time: at}, entity: [customer]}
monitoring:
  drift: {action: retrain}
  performance: {metric: roc_auc, max_drop: 0.1}
"""
CONTRACT = """\
train_only: [left]
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: at}}
"""
CODE = """\
import pandas as pd


def train(data, target, *, weights, parameters, seed):
    pass


def gain(y_true, y_pred):
    return 1.0
"""
#: The DAGs are made by few tests, because Airflow takes seconds to load.
FAST = Options(dags=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one model that has nothing wrong with it; it is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "churn.yaml").write_text(SPEC)
    (tmp_path / "churn_contract.yaml").write_text(CONTRACT)
    (tmp_path / "churn_training.py").write_text(CODE)
    return tmp_path


def found(path: Path, options: Options = FAST, **more: Any) -> list[Finding]:
    return lint([path], options, **more).findings


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_good_model_has_no_finding_and_tells_its_connections(folder: Path) -> None:
    report = lint([folder], FAST)

    assert report.findings == []
    assert report.files == 1
    assert report.connections == {"mlflow_default": ["churn.yaml"]}


def test_the_models_of_the_repository_are_clean() -> None:
    assert lint([ROOT / "dags"], Options()).findings == []


CASES: list[tuple[str, str, str, str, str, str, str]] = [
    # what, file, old, new, code and line, key, words
    ("a typo in a key", "churn.yaml", "  target:", "  targt:", "MLOPS102:9", "train.targt", "Did you mean 'target'"),
    ("a wrong length", "churn.yaml", "2 months", "two", "MLOPS102:11", "train.window.length", "'2 months'"),
    (
        "two parts that disagree",
        "churn.yaml",
        "{rule: at_least, metric: roc_auc",
        "{rule: at_least, metric: f1",
        "MLOPS102:18",
        "gate.rules[0]",
        "does not list",
    ),
    ("broken YAML", "churn.yaml", "data:\n", "data: [\n", "MLOPS101:4", "", "Check indentation"),
    (
        "no such base",
        "churn.yaml",
        "name: churn",
        "extends: _b.yaml\nname: churn",
        "MLOPS102:1",
        "extends",
        "Create it",
    ),
    (
        "a profile that changes the training",
        "churn.yaml",
        "name: churn",
        "name: churn\nprofiles: {dev: {train: {seed: 1}}}",
        "MLOPS103:2",
        "profiles.dev.train",
        "Move it out of profiles",
    ),
    (
        "a wrong value in a profile that is not asked for",
        "churn.yaml",
        "name: churn",
        "name: churn\nprofiles: {dev: {schedule: {retries: -1}}}",
        "MLOPS102:2",
        "schedule.retries",
        "greater than or equal to 0",
    ),
    (
        "no cron",
        "churn.yaml",
        "{on_retrain: true}",
        '{cron: "0 25 * * *", start_date: "2024-01-01"}',
        "MLOPS104:20",
        "schedule.cron",
        "five fields",
    ),
    ("no contract", "churn.yaml", "churn_contract", "gone", "MLOPS201:5", "contract.path", "Create it"),
    ("a key of the contract", "churn_contract.yaml", "kwargs", "kwarg", "MLOPS202:3", "expectations.0.kwarg", "kwargs"),
    (
        "an expectation that does not exist",
        "churn_contract.yaml",
        "to_not_be_null",
        "not_null",
        "MLOPS203:3",
        "expectations[0].type",
        "snake case|Did you mean",
    ),
    (
        "an argument that the expectation lacks",
        "churn_contract.yaml",
        "{column: at}",
        "{column: at, mostli: 0.9}",
        "MLOPS202:3",
        "expectations[0].kwargs",
        "It takes column, mostly",
    ),
    (
        "an argument that is missing",
        "churn_contract.yaml",
        "{column: at}",
        "{}",
        "MLOPS202:3",
        "expectations[0].kwargs",
        "expect_column_values_to_not_be_null: column is missing",
    ),
    (
        "an argument of the wrong type",
        "churn_contract.yaml",
        "{column: at}",
        "{column: at, mostly: most}",
        "MLOPS202:3",
        "expectations[0].kwargs",
        "mostly is no number",
    ),
    (
        "rows set aside by what judges none",
        "churn_contract.yaml",
        "{type: expect_column_values_to_not_be_null, kwargs: {column: at}}",
        "{type: expect_column_to_exist, kwargs: {column: at}, on_failure: quarantine}",
        "MLOPS202:3",
        "expectations[0].on_failure",
        "Use fail or warn",
    ),
    (
        "the answer among the features",
        "churn_contract.yaml",
        "[left]",
        "[plan]",
        "MLOPS204:10",
        "train.features",
        "plan",
    ),
    (
        "no such module",
        "churn.yaml",
        "churn_training:train",
        "chrun:train",
        "MLOPS301:7",
        "train.function",
        "code_path",
    ),
    (
        "no such folder",
        "churn.yaml",
        "  target",
        "  code_path: gone\n  target",
        "MLOPS301:9",
        "train.code_path",
        "create",
    ),
    ("no Python", "churn_training.py", "def gain(", "def gain((", "MLOPS301:8", "train.function", "not valid Python"),
    ("no such function", "churn.yaml", "training:train", "training:trian", "MLOPS302:7", "train.function", "'train'"),
    (
        "no such metric",
        "churn.yaml",
        "training:gain",
        "training:gian",
        "MLOPS302:14",
        "evaluation.metrics[1]",
        "'gain'",
    ),
    ("other arguments", "churn_training.py", "weights", "weight", "MLOPS303:7", "train.function", "write def train"),
    ("a coroutine", "churn_training.py", "def gain", "async def gain", "MLOPS303:14", "evaluation.metrics[1]", "plain"),
    ("a generator", "churn_training.py", "    pass", "    yield 1", "MLOPS303:7", "train.function", "plain"),
    (
        "a rule's setting",
        "churn.yaml",
        "value: 0.7",
        "valu: 0.7",
        "MLOPS401:18",
        "gate.rules[0]",
        "Did you mean 'value'",
    ),
    ("no such rule", "churn.yaml", "rule: at_least", "rule: atleast", "MLOPS401:18", "gate.rules[0]", "at_least"),
    (
        "no such drift method",
        "churn.yaml",
        "labels:",
        "drift: {numeric: {method: pssi}}\nlabels:",
        "MLOPS402:23",
        "drift.numeric",
        "Did you mean 'psi'",
    ),
    ("no such runtime", "churn.yaml", "labels:", "runtime: inlin\nlabels:", "MLOPS403:23", "runtime", "inline"),
    (
        "a step's runtime without its interpreter",
        "churn.yaml",
        "labels:",
        "step_runtimes: {train: external_python}\nlabels:",
        "MLOPS403:23",
        "step_runtimes.train",
        "python",
    ),
    (
        "no such notifier class",
        "churn.yaml",
        "labels:",
        "notifications: [{events: [drift], notifier: 'churn_training:Mail'}]\nlabels:",
        "MLOPS302:23",
        "notifications[0].notifier",
        "no class",
    ),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "where", "key", "words"), [one[1:] for one in CASES], ids=[one[0] for one in CASES]
)
def test_a_mistake_is_one_error_with_line_key_and_mend(
    folder: Path, file: str, old: str, new: str, where: str, key: str, words: str
) -> None:
    edit(folder / file, old, new)

    errors = [one for one in found(folder) if one.level == "error"]

    code, line = where.split(":")
    assert (code, int(line), key) in [(one.code, one.line, one.key) for one in errors], errors
    said = " ".join(f"{one.message} {one.mend}" for one in errors)
    assert any(word in said for word in words.split("|")), said
    assert {one.code for one in errors} == {code}


ADVICE: list[tuple[str, str, str, str]] = [
    ("nothing is compared", "    - {rule: slices_no_worse", "    # - {rule: slices_no_worse", "MLOPS901"),
    ("nothing is proven", "slices_no_worse, metric: roc_auc, slice: region, margin: 0.1, evidence: harm",
     "better_than_champion, metric: roc_auc", "MLOPS902"),
    ("performance is not judged", "  performance: {metric: roc_auc, max_drop: 0.1}\n", "", "MLOPS903"),
    ("nobody is told", "  drift: {action: retrain}\n", "", "MLOPS904"),
    ("a retrain that nobody hears", "schedule: {on_retrain: true}\n", "", "MLOPS905"),
    ("a threshold that chance reaches", "labels:", "drift: {min_rows: 60}\nlabels:", "MLOPS906"),
    ("a notifier that is not here", "labels:",
     "notifications: [{events: [drift], notifier: 'acme_mail.notify:Mail'}]\nlabels:", "MLOPS305"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code"), [one[1:] for one in ADVICE], ids=[one[0] for one in ADVICE])
def test_what_is_rarely_meant_is_a_warning(folder: Path, old: str, new: str, code: str) -> None:
    edit(folder / "churn.yaml", old, new)

    assert {(one.code, one.level) for one in found(folder)} == {(code, "warning")}
    assert main(["lint", str(folder), "--no-dags"]) == 0
    assert main(["lint", str(folder), "--no-dags", "--strict"]) == 1
    assert main(["lint", str(folder), "--no-dags", "--strict", "--ignore", code]) == 0


def test_an_own_rule_or_a_person_who_approves_needs_no_comparison(folder: Path) -> None:
    edit(folder / "churn.yaml", "    - {rule: slices_no_worse", "    # - {rule: slices_no_worse")
    edit(folder / "churn.yaml", "gate:\n", "gate:\n  approval: {when: always}\n")

    assert found(folder) == []


@pytest.mark.parametrize(
    "code",
    [
        "from functools import partial\n\ntrain = partial(print)\n",
        "from os import path as train\n",
        "try:\n    import fast\nexcept ImportError:\n    def train(data, target, *, weights, parameters, seed): ...\n",
        "if True:\n    def train(data, target, **settings): ...\n",
        "import functools\n@functools.cache\ndef train(everything): ...\n",
        "from os.path import *\n",
        "def train(data, target, weights=None, parameters=None, seed=0, extra=1): ...\n",
        "def train(*args, **kwargs):\n    def rows():\n        yield 1\n    return rows\n",
    ],
)
def test_what_cannot_be_told_from_the_source_or_is_fine_passes(folder: Path, code: str) -> None:
    (folder / "churn_training.py").write_text(f"{code}\ndef gain(y_true, y_pred): ...\n")

    assert found(folder) == []


# Several models


def test_names_that_two_models_share_are_errors_once(folder: Path) -> None:
    (folder / "a.yaml").write_text(SPEC.replace("name: churn\n", "name: other\n"))
    (folder / "deep").mkdir()
    for name in ("churn.yaml", "churn_contract.yaml", "churn_training.py"):
        shutil.copy(folder / name, folder / "deep" / name)
    edit(folder / "deep" / "churn.yaml", "lake/pred", "../lake/elsewhere/pred")

    findings = found(folder)

    assert [(one.file, one.code) for one in findings] == [("churn.yaml", "MLOPS504"), ("deep/churn.yaml", "MLOPS501")]
    assert "a.yaml" in findings[0].message


def test_one_registered_model_may_not_have_two_writers(folder: Path) -> None:
    other = SPEC.replace("name: churn\n", "name: other\npromotion: {registered_model: churn}\n")
    (folder / "other.yaml").write_text(other.replace("lake/predictions", "lake/others"))

    assert [(one.file, one.line, one.code) for one in found(folder)] == [("other.yaml", 2, "MLOPS503")]


@pytest.mark.parametrize("names", [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")])
def test_a_file_without_profiles_collides_with_what_others_are_under_one(folder: Path, names: tuple[str, str]) -> None:
    (folder / "churn.yaml").unlink()
    (folder / names[0]).write_text(SPEC + "profiles: {dev: {scoring: {output_uri: scratch}}, prod: {}}\n")
    (folder / names[1]).write_text(SPEC.replace("name: churn\n", "name: other\n"))
    every = Options(every_profile=True, dags=False)

    assert [(one.file, one.code) for one in found(folder, every)] == [("b.yaml", "MLOPS504")]

    (folder / names[1]).write_text(SPEC.replace("lake/pred", "lake/more"))
    assert [(one.file, one.code) for one in found(folder, every)] == [("b.yaml", "MLOPS501")]


def shares(name: str, more: str = "") -> str:
    """Return a model that writes the registered model `shared`, its predictions to a place of its own."""
    own = SPEC.replace("name: churn\n", f"name: {name}\npromotion: {{registered_model: shared}}\n")
    return own.replace("lake/predictions", f"lake/{name}") + more


def registered(file: Path, profile: str) -> str:
    return load_spec(file, profile=profile).registered_model


DEV_AND_STAGING = "profiles: {dev: {scoring: {output_uri: d}}, staging: {scoring: {output_uri: s}}}\n"


@pytest.mark.parametrize("names", [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")])
def test_a_file_without_profiles_is_what_loading_makes_of_it_under_each_profile(
    folder: Path, names: tuple[str, str]
) -> None:
    (folder / names[0]).write_text(shares("one", DEV_AND_STAGING))
    (folder / names[1]).write_text(shares("other"))
    assert {registered(folder / name, "dev") for name in names} == {"dev.airflow.shared"}

    report = lint([folder], Options(every_profile=True, dags=False))

    told = [(one.file, one.code, one.profiles) for one in report.findings if one.level == "error"]
    assert told == [("b.yaml", "MLOPS503", ("dev",)), ("b.yaml", "MLOPS503", ("staging",))]
    # What it would be elsewhere is looked at for names alone: it needs no connections there.
    assert report.connections["mlflow_default"] == sorted({names[1], "churn.yaml"})
    assert report.connections["mlflow_dev_airflow"] == [names[0]]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        pytest.param("owner: ann\n", "owner: bob\n", False, id="another owner"),
        pytest.param("", "profile: prod\n", True, id="a profile of the file's own, which another is asked for over"),
        pytest.param("", "profiles: {prod: {}}\n", False, id="no such profile there"),
        pytest.param("", "profiles: {}\n", False, id="no profile there at all"),
        pytest.param("", "owner: my team\n", False, id="an owner that loading refuses under a profile"),
    ],
)
def test_what_loading_keeps_apart_is_no_collision(folder: Path, one: str, other: str, alike: bool) -> None:
    (folder / "churn.yaml").unlink()
    (folder / "one.yaml").write_text(shares("one", one + DEV_AND_STAGING))
    (folder / "other.yaml").write_text(shares("other", other))
    try:
        assert (registered(folder / "one.yaml", "dev") == registered(folder / "other.yaml", "dev")) is alike
    except InvalidSpecError:
        assert not alike

    codes = {one.code for one in found(folder, Options(every_profile=True, dags=False)) if one.level == "error"}

    assert codes == ({"MLOPS503"} if alike else set())


@pytest.mark.parametrize(
    ("first", "second", "under"),
    [
        ("profiles: {dev: {}, prod: {}}\n", "profiles: {}\n", ()),
        ("profiles: {dev: {}}\n", "profiles: {prod: {}}\n", ("prod",)),
        ("profiles: {dev: {}}\n", "profiles: {dev: {}, prod: {}}\n", ("dev", "prod")),
        ("profiles: {}\n", "profiles: {dev: {}, prod: {}}\n", ("dev", "prod")),
        ("profiles: {dev: {}}\n", "", ()),
        ("", "", ()),
    ],
)
def test_two_models_of_one_name_collide_whatever_their_profiles(
    folder: Path, first: str, second: str, under: tuple[str, ...]
) -> None:
    """Loading the folder without a profile takes both."""
    (folder / "churn.yaml").unlink()
    (folder / "a.yaml").write_text(SPEC + first)
    (folder / "b.yaml").write_text(SPEC + second)

    told = [one for one in found(folder, Options(every_profile=True, dags=False)) if one.level == "error"]

    assert [(one.file, one.code, one.profiles) for one in told] == [("b.yaml", "MLOPS501", under)]


def test_two_files_without_profiles_collide_once(folder: Path) -> None:
    (folder / "churn.yaml").write_text(SPEC + DEV_AND_STAGING)
    (folder / "one.yaml").write_text(shares("one"))
    (folder / "other.yaml").write_text(shares("other"))

    told = [one for one in found(folder, Options(every_profile=True, dags=False)) if one.level == "error"]

    assert [(one.file, one.code, one.profiles) for one in told] == [("other.yaml", "MLOPS503", ())]


def test_files_without_profiles_that_only_a_profile_brings_together_are_told(folder: Path) -> None:
    """Without one asked for, each takes its own, and their names differ."""
    (folder / "churn.yaml").write_text(SPEC + DEV_AND_STAGING)
    (folder / "one.yaml").write_text(shares("one", "profile: nightly\n"))
    (folder / "other.yaml").write_text(shares("other"))

    told = [one for one in found(folder, Options(every_profile=True, dags=False)) if one.level == "error"]

    assert [one.profiles for one in told] == [("dev",), ("staging",)]
    assert [one for one in found(folder) if one.code == "MLOPS503"] == []


PROFILES = """\
profiles:
  dev: {data: {uri: lake/small}, scoring: {output_uri: scratch}}
  prod: {mlflow_conn_id: mlflow_main, schedule: {cron: "99 * * * *", start_date: "2024-01-01", on_retrain: false}}
"""


def test_every_profile_is_looked_at_and_named(folder: Path) -> None:
    (folder / "churn.yaml").write_text(SPEC + PROFILES)

    report = lint([folder], Options(every_profile=True, dags=False))

    wrong = next(one for one in report.findings if one.code == "MLOPS104")
    assert wrong.profiles == ("prod",)
    assert wrong.line == len(SPEC.splitlines()) + 3
    assert report.connections == {"mlflow_dev_airflow": ["churn.yaml"], "mlflow_main": ["churn.yaml"]}
    assert [one.code for one in found(folder, Options(profiles=("dev",), dags=False))] == []
    assert "MLOPS104" in [one.code for one in found(folder, Options(profiles=("prod",), dags=False))]


def test_a_mistake_under_every_profile_names_none(folder: Path) -> None:
    (folder / "churn.yaml").write_text(SPEC.replace("training:train", "training:fit") + PROFILES)

    wrong = [one for one in found(folder, Options(every_profile=True, dags=False)) if one.code == "MLOPS302"]

    assert [one.profiles for one in wrong] == [()]


def test_a_profile_that_the_file_does_not_have_is_an_error(folder: Path) -> None:
    (folder / "churn.yaml").write_text(SPEC + PROFILES)

    (wrong,) = found(folder, Options(profiles=("staging",), dags=False))

    assert wrong.code == "MLOPS103"
    assert "staging" in wrong.message


def test_two_profiles_with_one_place_for_predictions_are_a_warning(folder: Path) -> None:
    (folder / "churn.yaml").write_text(SPEC + "profiles: {dev: {}, prod: {}}\n")

    (wrong,) = found(folder, Options(every_profile=True, dags=False))

    assert (wrong.code, wrong.profiles, wrong.line) == ("MLOPS907", ("prod",), 22)


def test_a_mistake_in_a_base_is_told_with_the_bases_line(folder: Path) -> None:
    (folder / "_base.yaml").write_text("owner: ann\nschedule: {retries: -1}\n")
    (folder / "churn.yaml").write_text("extends: _base.yaml\n" + SPEC.replace("schedule: {on_retrain: true}\n", ""))

    (wrong,) = found(folder)

    assert (wrong.file, wrong.line, wrong.key) == ("_base.yaml", 2, "schedule.retries")
    assert found(folder / "_base.yaml") == []


# Files as they come


def test_files_that_cannot_be_read_are_findings_and_others_are_still_looked_at(folder: Path) -> None:
    (folder / "latin.yaml").write_bytes(b"\xff\xfe")
    (folder / "void.yaml").touch()
    (folder / "list.json").write_text("[1]")
    (folder / "nowhere.yaml").symlink_to(folder / "gone")
    (folder / "_base.yaml").write_text("broken: [")

    report = lint([folder], FAST)

    assert report.files == 5
    assert [(one.file, one.code) for one in report.findings] == [
        ("latin.yaml", "MLOPS101"),
        ("list.json", "MLOPS102"),
        ("nowhere.yaml", "MLOPS101"),
        ("void.yaml", "MLOPS102"),
    ]


@pytest.mark.parametrize("words", [["gone.yaml"], ["empty"], [".", "--ignore", "E501"]], ids=str)
def test_wrong_arguments_are_exit_code_2(folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").mkdir()

    assert main(["lint", *words, "--no-dags"]) == 2
    assert capsys.readouterr().out == ""


def test_a_contract_may_be_named_by_itself(folder: Path) -> None:
    assert found(folder / "churn_contract.yaml") == []
    edit(folder / "churn_contract.yaml", "type", "tpye")

    assert {one.code for one in found(folder / "churn_contract.yaml")} == {"MLOPS202"}


def test_every_expectation_that_cannot_be_used_is_told_on_its_line(folder: Path) -> None:
    (folder / "churn_contract.yaml").write_text(
        CONTRACT
        + """\
  - {type: expect_column_values_to_be_in_set, kwargs: {column: plan, value_set: basic}}
  - {type: expect_column_values_to_be_between, kwargs: {column: age, min_value: {$PARAMETER: least}}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: region, value_set: {$PARAMETER: regions}}}
  - {type: expect_column_values_to_be_betwen, kwargs: {column: age, min: 1}}
  - {type: unexpected_rows_expectation, kwargs: {unexpected_rows_query: "SELECT * FROM {batch} WHERE age < 0"}}
"""
    )

    told = [(one.line, one.code, one.key) for one in found(folder / "churn.yaml")]

    assert told == [
        (4, "MLOPS202", "expectations[1].kwargs"),
        (7, "MLOPS203", "expectations[4].type"),
    ]


def core_expectations() -> list[str]:
    return sorted(known_names())


def in_file(tmp_path: Path, *expectations: dict[str, Any]) -> Any:
    file = tmp_path / "a_contract.json"
    file.write_text(json.dumps({"expectations": expectations}))
    return load_contract(file)


ARGUMENTS: dict[str, Any] = {
    "column": "a", "column_A": "a", "column_B": "b", "column_list": ["a", "b"], "value": 3, "value_set": [1, 2],
    "value_pairs_set": [[1, 2]], "type_": "int", "regex": "a", "regex_list": ["a"], "like_pattern": "a",
    "like_pattern_list": ["a"], "strftime_format": "%Y", "threshold": 1, "double_sided": True, "sum_total": 3,
    "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, None]]}, "base_query": "select 1",
    "comparison_query": "select 1", "comparison_data_source_name": "x", "other_table_name": "t",
    "unexpected_rows_query": "select * from {batch}", "json_schema": {"type": "object"},
}  # fmt: skip
MORE: list[dict[str, Any]] = [{}, {"min_value": 1, "max_value": 2}, {"regex": "a"}]
WRONG: list[Any] = [[1], ["a", 1], {"a": 1}, "soon", 7, -1, 1.5, True, "2024-01-01", [], "", [[1, 2]], [[1]], None]
PARAMETER = {"$PARAMETER": "given"}


@pytest.mark.parametrize("name", core_expectations())
def test_lint_refuses_no_argument_that_great_expectations_takes(tmp_path: Path, name: str) -> None:
    """Its own schemas and its own reader, side by side."""
    from great_expectations.expectations import registry

    from airflow_mlops.engines.expectations import mistakes_in

    fields = registry.get_expectation_impl(name).__fields__
    needed = {key: ARGUMENTS[key] for key, one in fields.items() if one.required}
    least = next(
        least
        for more in MORE
        if not list(mistakes_in(in_file(tmp_path, {"type": name, "kwargs": (least := {**needed, **more})})))
    )
    own = [key for key in fields if key in ARGUMENTS or key in ("min_value", "max_value", "mostly", "strict_min")]
    given = {**least, **{key: PARAMETER for key in own if not key.startswith("column")}}
    tried: list[dict[str, Any]] = []
    for kwargs in (least, given, *({**least, key: value} for key in own for value in WRONG)):
        if kwargs not in tried:
            tried.append(kwargs)
    contract = in_file(tmp_path, *({"type": name, "kwargs": kwargs} for kwargs in tried))

    told = {int(one.key.split("]")[0].split("[")[1]) for one in check_expectations(contract)}
    refused = {one.number for one in mistakes_in(contract)}

    assert told.isdisjoint({tried.index(least), tried.index(given)})
    assert told - refused == set(), [contract.expectations[number].kwargs for number in told - refused]
    # What lint cannot see is where it says less: a text that is no time, an argument that may not be null.
    missed = [contract.expectations[number].kwargs for number in refused - told]
    assert len(missed) <= len(told) or not has_schema(name), missed
    aside = in_file(tmp_path, {"type": name, "kwargs": least, "on_failure": "quarantine"})
    assert bool(list(check_expectations(aside))) == bool(list(mistakes_in(aside)))
    without = [{"type": name, "kwargs": {k: v for k, v in least.items() if k != key}} for key in needed]
    extra = {"type": name, "kwargs": {**least, "nonsense": 1}}
    if has_schema(name):
        assert len(list(check_expectations(in_file(tmp_path, *without, extra)))) == len(without) + 1


def has_schema(name: str) -> bool:
    import great_expectations

    schemas = Path(great_expectations.__file__).parent / "expectations" / "core" / "schemas"
    return name.replace("_", "") in {file.stem.lower() for file in schemas.glob("*.json")}


def test_lint_knows_the_names_that_great_expectations_has() -> None:
    from airflow_mlops.engines.expectations import known_names as registered

    assert len([name for name in core_expectations() if has_schema(name)]) > 50
    assert set(core_expectations()) <= set(registered())
    assert "unexpected_rows_expectation" in known_names()


def test_without_great_expectations_a_contract_is_looked_at_as_far_as_it_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "churn_contract.yaml", "column: at", "colum: at")
    assert {one.code for one in found(folder / "churn_contract.yaml")} == {"MLOPS202"}

    monkeypatch.setattr(lint_contract.importlib.util, "find_spec", lambda name: None)
    known_names.cache_clear()
    try:
        edit(folder / "churn_contract.yaml", "colum: at", "colums: at")
        assert found(folder / "churn_contract.yaml") == []
    finally:
        known_names.cache_clear()


IMPORTED = "import sys; from airflow_mlops.cli import main; main({}); print('great_expectations' in sys.modules)"


def test_lint_imports_great_expectations_only_where_it_is_asked_to_import(folder: Path) -> None:
    edit(folder / "churn_contract.yaml", "column: at", "colum: at")

    code = IMPORTED.format(["lint", str(folder), "--no-dags"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert "colum is no argument of it" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def write_contract(folder: Path, *expectations: str) -> None:
    lines = "".join(f"  - {one}\n" for one in expectations)
    (folder / "churn_contract.yaml").write_text(f"{CONTRACT}{lines}")


BOUNDLESS = "{type: expect_column_values_to_be_between, kwargs: {column: age}}"


def test_with_import_great_expectations_itself_looks_at_the_contract(folder: Path) -> None:
    """It tells what its schemas do not, and what they told already is told once."""
    write_contract(folder, BOUNDLESS, "{type: expect_column_to_exist, kwargs: {colum: a}}")
    assert [(one.code, one.line) for one in found(folder)] == [("MLOPS202", 5)]

    findings = found(folder, imports=True)

    assert [(one.file, one.code, one.line, one.key) for one in findings] == [
        ("churn_contract.yaml", "MLOPS202", 4, "expectations[1].kwargs"),
        ("churn_contract.yaml", "MLOPS202", 5, "expectations[2].kwargs"),
    ]
    assert "cannot both be None" in findings[0].message
    assert "It takes column, mostly" in findings[0].mend
    assert found(folder / "churn_contract.yaml", imports=True) == findings


def test_expectations_on_one_line_are_told_apart_and_a_contract_reached_twice_once(folder: Path) -> None:
    huge = "1" + "0" * 400
    wrong = ("{column: age, min_value: 1, mostly: 7}", "{column: age}", f"{{column: age, max_value: {huge}}}")
    listed = ", ".join(f"{{type: expect_column_values_to_be_between, kwargs: {one}}}" for one in wrong)
    contract = folder / "churn_contract.yaml"
    contract.write_text(f"expectations: [{listed}]\n")

    report = lint([folder / "churn.yaml", Path("churn_contract.yaml")], FAST, imports=True)

    keys = [one.key for one in report.findings]
    assert keys == [f"expectations[{number}].kwargs" for number in range(3)]


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("raise AttributeError('a library moved')", "AttributeError: a library moved"),
        ("raise SystemExit(3)", "ended its process (exit code 3)"),
        ("raise ModuleNotFoundError('no', name='marshmallow')", "ModuleNotFoundError: no"),
    ],
)
def test_a_great_expectations_that_cannot_be_imported_hides_no_finding(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, says: str
) -> None:
    library = folder / "library"
    library.mkdir()
    (library / "great_expectations.py").write_text(f"{module}\n")
    monkeypatch.setenv("PYTHONPATH", str(library))
    monkeypatch.syspath_prepend(str(library))
    edit(folder / "churn_contract.yaml", "train_only: [left]", "train_only: [left, plan]")
    code = "import sys; from airflow_mlops.cli import main; sys.exit(main(sys.argv[1:]))"

    def told(*words: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-c", code, "lint", str(folder), "--no-dags", "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return found

    assert [one["code"] for one in told()] == ["MLOPS204"]
    warned = {one["code"]: one for one in told("--import")}
    assert (warned["MLOPS205"]["level"], warned["MLOPS205"]["key"]) == ("warning", "contract.path")
    assert says in warned["MLOPS205"]["message"]
    assert "MLOPS204" in warned


def test_an_expectation_of_the_teams_own_is_taken_with_its_own_arguments(tmp_path: Path) -> None:
    from great_expectations.expectations import ExpectColumnValuesToBeBetween
    from great_expectations.expectations.registry import _registered_expectations

    from airflow_mlops.engines.expectations import mistakes_in

    class ExpectColumnValuesToBeAges(ExpectColumnValuesToBeBetween):
        """Stands in for what a plug-in brings: it is known from the moment that its class is."""

        unit: str

    ages = "expect_column_values_to_be_ages"
    kwargs = {"column": "age", "min_value": 0}
    try:
        assert list(mistakes_in(in_file(tmp_path, {"type": ages, "kwargs": {**kwargs, "unit": "years"}}))) == []
        (one,) = mistakes_in(in_file(tmp_path, {"type": ages, "kwargs": {**kwargs, "units": "years"}}))
    finally:
        _registered_expectations.pop(ages)

    assert "unit is missing; units is no argument of it" in one.what


def test_many_files_give_the_same_as_few(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        (folder / f"m{number}.yaml").write_text(
            SPEC.replace("name: churn\n", f"name: m{number}\n").replace("lake/pred", f"lake{number % 5}/pred")
        )
    few = lint([folder], FAST)
    monkeypatch.setattr(verb, "_SHARED", 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)

    assert lint([folder], FAST) == few
    assert [one.code for one in few.findings] == ["MLOPS504"]


# Output


def test_json_is_stable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder / "churn.yaml", "2 months", "two")

    assert main(["lint", ".", "--no-dags", "--json"]) == 1

    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["files", "findings", "connections"]
    assert told["files"] == 1
    (one,) = told["findings"]
    assert one == {
        "file": "churn.yaml",
        "line": 11,
        "code": "MLOPS102",
        "key": "train.window.length",
        "level": "error",
        "message": "'two' is not a length",
        "mend": one["mend"],
        "profiles": [],
    }


def test_text_names_place_code_and_mend(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder / "churn.yaml", "training:train", "training:trian")

    assert main(["lint", ".", "--no-dags"]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "churn.yaml:7: error MLOPS302: train.function: churn_training.py has no function 'trian'"
    )
    assert lines[2:] == ["1 file: 1 error.", "Airflow connections they need: mlflow_default (churn.yaml)."]


def test_names_and_words_that_the_terminal_cannot_show_do_not_end_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(folder / "churn.yaml", folder / os.fsdecode(b"ch\xffrn.yaml"))
    edit(folder / os.fsdecode(b"ch\xffrn.yaml"), "churn_contract", "b\N{LATIN SMALL LETTER U WITH DIAERESIS}")
    with (folder / "told.txt").open("w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert main(["lint", ".", "--no-dags"]) == 1

    assert r"ch\udcffrn.yaml:5: error MLOPS201" in (folder / "told.txt").read_text()
    assert r"b\xfc.yaml" in (folder / "told.txt").read_text()


def test_github_gets_annotations_that_no_text_can_break(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(folder / "churn.yaml", folder / "a,b:c.yaml")
    edit(folder / "a,b:c.yaml", "churn_contract.yaml", '"50%\\nx.yaml"')

    assert main(["lint", ".", "--no-dags", "--format", "github"]) == 1

    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("::error file=a%2Cb%3Ac.yaml,line=5,title=MLOPS201 contract.path::contract.path leads to")
    assert "50%25%0Ax.yaml" in line


def test_every_code_is_explained_on_its_page() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()

    assert [code for code, (level, _) in CODES.items() if f"| {code} | {level} |" not in page] == []


# With Airflow, and with the team's code


def test_dags_that_cannot_be_made_are_errors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder / "churn.yaml", "name: churn\n", f"name: {'c' * 100}\nowner: ann\nprofile: dev\n")
    assert found(folder, Options()) == []

    def unserialisable(dag: Any) -> dict[str, Any]:
        raise TypeError("Object of type set is not JSON serializable")

    from airflow_mlops import compat
    from airflow_mlops.cli import lint_dags

    monkeypatch.setattr(compat.DagSerialization, "to_dict", unserialisable)
    assert {(one.code, one.level) for one in found(folder, Options())} == {("MLOPS602", "error")}

    def broken(spec: Any, kind: str) -> Any:
        raise RuntimeError(f"no {kind}")

    monkeypatch.setattr(lint_dags, "make_dag", broken)
    assert [one.code for one in found(folder, Options())] == ["MLOPS601"] * 3


def test_without_airflow_all_else_is_checked_and_it_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.cli import model_dags

    monkeypatch.setattr(model_dags, "has_airflow", lambda: False)
    edit(folder / "churn.yaml", "churn_contract", "gone")

    assert main(["lint", "."]) == 1
    told = capsys.readouterr()
    assert "MLOPS201" in told.out
    assert "no DAG was made" in told.err


def test_lint_runs_nothing_of_the_team_unless_asked(folder: Path) -> None:
    (folder / "churn_training.py").write_text("open('ran', 'w').close()\n" + CODE)
    # Where a step runs elsewhere, only its source is looked at: what is installed there is not known here.
    elsewhere = "step_runtimes: {train: {name: external_python, python: /opt/gone/python}}\n"
    (folder / "churn.yaml").write_text(SPEC + elsewhere)

    assert found(folder) == []
    assert not (folder / "ran").exists()
    assert found(folder, imports=True) == []
    assert (folder / "ran").exists()


def test_what_importing_finds_is_told_and_harms_no_other(folder: Path) -> None:
    (folder / "churn_training.py").write_text("import not_installed_anywhere\n" + CODE)
    (folder / "ends.py").write_text("import os\nos._exit(3)\n" + CODE)
    (folder / "b.yaml").write_text(
        SPEC.replace("name: churn\n", "name: b\n").replace("churn_training", "ends").replace("lake/pred", "lake/b")
    )
    edit(folder / "churn.yaml", "serialization: skops", "serialization: parquet")

    findings = found(folder, imports=True)

    told = {(one.file, one.key): one for one in findings}
    assert told["b.yaml", "train.function"].code == "MLOPS304"
    assert "ended its process (exit code 3)" in told["b.yaml", "train.function"].message
    assert "not_installed_anywhere" in told["churn_training.py", "train.function"].message
    assert told["churn.yaml", "train.flavor"].code == "MLOPS404"
    assert ("b.yaml", "train.flavor") not in told
