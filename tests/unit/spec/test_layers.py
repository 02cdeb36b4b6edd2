"""A model's file, its base and its profiles: what counts, and where a mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.layers import PROFILE_KEYS, fields_at, merged, read_layers
from airflow_mlops.spec.resolve import contract_file, data_settings

BASE = """\
owner: churn-team
contract: {path: contract.yaml}
evaluation:
  task: binary
  metrics: [roc_auc, log_loss]
gate:
  rules:
    - {rule: at_least, metric: roc_auc, value: 0.7}
    - {rule: better_than_champion, metric: roc_auc}
train:
  serialization: cloudpickle
  window: {length: 2 months}
profiles:
  dev:
    data: {uri: sample}
    schedule: {retries: 0}
"""
OWN = """\
extends: _base.yaml
name: churn
data: {uri: lake/churn, event_time: at}
train:
  function: churn:train
  target: left
schedule: {retries: 3, retry_delay_seconds: 5}
profiles:
  dev:
    data: {uri: small_sample}
  prod: {}
"""


def written(folder: Path, own: str = OWN, base: str = BASE) -> Path:
    (folder / "_base.yaml").write_text(base)
    path = folder / "churn.yaml"
    path.write_text(own)
    return path


def test_a_base_is_filled_in_by_key(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path), profile="prod")

    assert (spec.owner, spec.train.function, spec.train.serialization) == ("churn-team", "churn:train", "cloudpickle")
    assert len(spec.gate.rules) == 2
    assert data_settings(spec)["uri"] == str(tmp_path / "lake/churn")


def test_a_list_replaces_a_list_and_null_takes_a_part_away(tmp_path: Path) -> None:
    base = BASE + "scoring: {output_uri: out}\n"
    own = OWN + "evaluation: {metrics: [roc_auc]}\nscoring: null\n"

    spec = load_spec(written(tmp_path, own, base), profile="prod")

    assert spec.evaluation.metrics == ("roc_auc",)
    assert spec.scoring is None


def test_the_files_own_profile_is_laid_over_the_bases_and_both_over_the_bodies(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path), profile="dev", owner="ann")

    assert spec.data.uri == "small_sample"
    assert (spec.schedule.retries, spec.schedule.retry_delay_seconds) == (0, 5)
    assert spec.registered_model == "dev.ann.churn"


def test_without_a_profile_the_bodies_count(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path))

    assert (spec.data.uri, spec.schedule.retries, spec.profile) == ("lake/churn", 3, None)


def test_a_profile_that_the_file_names_itself_is_laid_over_it(tmp_path: Path) -> None:
    path = written(tmp_path, OWN + "profile: dev\nowner: ann\n")

    assert load_spec(path).data.uri == "small_sample"
    assert load_spec(path, profile="prod").data.uri == "lake/churn"


def test_paths_of_a_base_elsewhere_start_from_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "shared" / "_base.yaml").write_text(BASE)
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(OWN.replace("_base.yaml", "../shared/_base.yaml"))

    assert contract_file(load_spec(path)) == str(tmp_path / "models" / "contract.yaml")


def test_a_linked_file_finds_the_base_beside_the_file_it_leads_to(tmp_path: Path) -> None:
    # Kubernetes mounts configuration so.
    real = tmp_path / "..2026"
    real.mkdir()
    written(real)
    link = tmp_path / "churn.yaml"
    link.symlink_to(real / "churn.yaml")

    assert load_spec(link).owner == "churn-team"


@pytest.mark.parametrize(
    ("base", "own", "profile", "told"),
    [
        pytest.param(
            ("  task: binary", "  task: ranking"), ("", ""), None, r"_base\.yaml, line 4: evaluation\.task", id="base"
        ),
        pytest.param(
            ("  serialization:", "  serialisation:"),
            ("", ""),
            None,
            r"_base\.yaml, line 11: train\.serialisation is not a key here\. Did you mean 'serialization'\?",
            id="a typo in the base, beside keys of the file",
        ),
        pytest.param(
            ("", ""), ("  target: left", "  target: 7"), None, r"churn\.yaml, line 6: train\.target", id="own file"
        ),
        pytest.param(
            ("", ""),
            ("  function: churn:train\n", ""),
            None,
            r"churn\.yaml, line 4: train\.function is missing",
            id="none",
        ),
        pytest.param(
            ("retries: 0", "retries: -1"),
            ("", ""),
            "dev",
            r"_base\.yaml, line 16: schedule\.retries",
            id="the base's profile",
        ),
        pytest.param(
            ("", ""),
            ("uri: small_sample", "uri: [a]"),
            "dev",
            r"churn\.yaml, line 10: data\.uri",
            id="the file's profile",
        ),
        pytest.param(
            ("", ""),
            ("  prod: {}", "  prod: {schedule: {cron: '0 6 * * *'}}"),
            "dev",
            r"churn\.yaml, line 11: schedule: cron needs start_date.*\(In the profile prod\.\)",
            id="a profile that is not chosen",
        ),
        pytest.param(
            ("metric: roc_auc, value", "metric: accuracy, value"),
            ("", ""),
            None,
            r"reads metric 'accuracy'",
            id="parts that do not fit together",
        ),
    ],
)
def test_a_mistake_is_told_where_it_was_written(
    tmp_path: Path, base: tuple[str, str], own: tuple[str, str], profile: str | None, told: str
) -> None:
    assert base[0] in BASE
    assert own[0] in OWN
    path = written(tmp_path, OWN.replace(*own, 1), BASE.replace(*base, 1))

    with pytest.raises(InvalidSpecError, match=told):
        load_spec(path, profile=profile, owner="ann")


@pytest.mark.parametrize("profile", [None, "dev", "prod"])
def test_a_mistake_that_all_profiles_share_is_told_once(tmp_path: Path, profile: str | None) -> None:
    path = written(tmp_path, OWN.replace("target: left", "target: 7"))

    with pytest.raises(InvalidSpecError) as caught:
        load_spec(path, profile=profile, owner="ann")

    assert len(str(caught.value).splitlines()) == 1


def test_what_only_a_profile_gives_is_asked_for_with_the_profiles_names(tmp_path: Path) -> None:
    own = OWN.replace("uri: lake/churn, ", "").replace("prod: {}", "prod: {data: {uri: lake/churn}}")

    assert load_spec(written(tmp_path, own), profile="prod").data.uri == "lake/churn"
    with pytest.raises(InvalidSpecError, match=r"data\.uri is missing; add it\. Or choose a profile.*: dev, prod"):
        load_spec(written(tmp_path, own))


@pytest.mark.parametrize(
    ("own", "told"),
    [
        pytest.param(
            "extends: _bsae.yaml", r"line 1: extends is '_bsae\.yaml'.*Did you mean '_base\.yaml'\?", id="typo"
        ),
        pytest.param("extends: churn.yaml", "line 1: extends names this file itself", id="itself"),
        pytest.param("extends: ./../{folder}/churn.yaml", "names this file itself", id="itself, by another path"),
        pytest.param("extends: [a.yaml, b.yaml]", "it names one file", id="two"),
        pytest.param("extends: ''", "it names one file", id="nothing"),
        pytest.param("extends: s3://bucket/_base.yaml", "a YAML or JSON file beside the models", id="elsewhere"),
        pytest.param("extends: /etc/passwd", "a YAML or JSON file beside the models", id="another kind of file"),
        pytest.param("extends: /etc/_base.yaml", "write the path from this file's folder", id="an absolute path"),
        pytest.param("extends: folder.yaml", "there is no file", id="a folder"),
        pytest.param("extends: list.yaml", r"list\.yaml: a base is a mapping", id="a list"),
        pytest.param("extends: broken.yaml", r"broken\.yaml, line 3: this is not valid YAML", id="broken"),
        pytest.param(
            "extends: second.yaml",
            r"second\.yaml, line 2: second\.yaml is the base of churn\.yaml.*extends nothing",
            id="two levels",
        ),
        pytest.param("extends: circle.yaml", r"circle\.yaml, line 1: .*extends it in turn, a circle", id="a circle"),
        pytest.param(
            "extends: folded.yaml", r"folded\.yaml, line 1: 'folder' is set by the loader", id="a folder's key"
        ),
    ],
)
def test_a_base_that_cannot_be_one_is_told_with_the_mend(tmp_path: Path, own: str, told: str) -> None:
    path = written(tmp_path, OWN.replace("extends: _base.yaml", own.format(folder=tmp_path.name)))
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "broken.yaml").write_text("a: 1\nb: [\n")
    (tmp_path / "second.yaml").write_text("owner: a\nextends: _base.yaml\n")
    (tmp_path / "circle.yaml").write_text("extends: churn.yaml\n")
    (tmp_path / "folded.yaml").write_text("folder: /etc\n")

    with pytest.raises(InvalidSpecError, match=told):
        load_spec(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param(
            "{gate: {rules: []}}", r"profiles\.dev\.gate cannot be changed by a profile.*gate rules", id="gate"
        ),
        pytest.param("{train: {parameters: {a: 1}}}", r"profiles\.dev\.train cannot be changed", id="training"),
        pytest.param("{contract: {path: x.yaml}}", r"profiles\.dev\.contract cannot be changed", id="contract"),
        pytest.param("{data: {format: csv}}", r"data\.format cannot be changed", id="below a part that may change"),
        pytest.param(
            "{scoring: {check_contract: false}}", r"scoring\.check_contract cannot be changed", id="no check in dev"
        ),
        pytest.param(
            "{scoring: null}", r"profiles\.dev\.scoring cannot be changed.*below it only scoring\.", id="a part"
        ),
        pytest.param("{monitoring: {drift: {action: retrain}}}", r"monitoring\.drift cannot", id="the policy"),
        pytest.param("{promotion: {alias: other}}", r"promotion\.alias cannot", id="the alias"),
        pytest.param("{name: other}", r"profiles\.dev\.name cannot", id="the name"),
        pytest.param("{shedule: {}}", r"shedule is not a key here\. Did you mean 'schedule'\?", id="a typo"),
        pytest.param("{data: {urii: x}}", r"data\.urii is not a key here\. Did you mean 'uri'\?", id="a typo below"),
        pytest.param("{profile: prod}", "does not choose a profile", id="a profile in a profile"),
        pytest.param("{extends: _base.yaml}", r"profiles\.dev\.extends cannot", id="a base in a profile"),
        pytest.param("{profiles: {}}", r"profiles\.dev\.profiles cannot", id="profiles in a profile"),
        pytest.param("{folder: /etc}", r"profiles\.dev\.folder cannot", id="the folder"),
        pytest.param("[a]", "is a mapping of keys to change, not list", id="a list"),
    ],
)
@pytest.mark.parametrize("chosen", ["dev", "prod"])
def test_a_profile_changes_what_it_may_and_nothing_else(tmp_path: Path, chosen: str, changes: str, told: str) -> None:
    path = written(tmp_path, OWN.replace("  dev:\n    data: {uri: small_sample}", f"  dev: {changes}"))

    with pytest.raises(InvalidSpecError, match=rf"churn\.yaml, line 9: .*{told}"):
        load_spec(path, profile=chosen, owner="ann")


@pytest.mark.parametrize(
    ("profiles", "told"),
    [
        pytest.param("profiles: [dev]", "line 8: profiles is a mapping from a profile's name", id="a list"),
        pytest.param("profiles: {Dev: {}}", "'Dev' cannot be a profile's name", id="a capital"),
        pytest.param("profiles: {1: {}}", "1 cannot be a profile's name", id="a number"),
        pytest.param("profiles: {dev_eu: {}}", "'dev_eu' cannot be a profile's name", id="an underscore"),
    ],
)
def test_profiles_are_named_like_profiles(tmp_path: Path, profiles: str, told: str) -> None:
    own = OWN[: OWN.index("profiles:")] + profiles + "\n"

    with pytest.raises(InvalidSpecError, match=told):
        load_spec(written(tmp_path, own))


@pytest.mark.parametrize("empty", ["profiles:", "profiles: {}", "profiles: {dev: , prod: }"])
def test_profiles_may_be_empty(tmp_path: Path, empty: str) -> None:
    own = OWN[: OWN.index("profiles:")] + empty + "\n"

    assert load_spec(written(tmp_path, own), profile="dev", owner="ann").data.uri == "sample", "the base's own"


def test_a_profile_that_the_file_does_not_define_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path)

    with pytest.raises(InvalidSpecError, match=r"churn\.yaml, line 8: .*no profile 'prd' here\. Did you mean 'prod'\?"):
        load_spec(path, profile="prd")
    with pytest.raises(InvalidSpecError, match=r"add `staging: \{\}` under profiles"):
        load_spec(path, profile="staging", owner="ann")


def test_any_profile_is_fine_where_none_is_defined(tmp_path: Path) -> None:
    path = written(tmp_path, OWN[: OWN.index("profiles:")], BASE[: BASE.index("profiles:")])

    assert load_spec(path, profile="staging", owner="ann").registered_model == "staging.ann.churn"


def test_an_owner_that_does_not_fit_another_profiles_names_is_told_there_only(tmp_path: Path) -> None:
    path = written(tmp_path, OWN + "owner: Churn Team\n")

    assert load_spec(path, profile="prod").owner == "Churn Team"
    with pytest.raises(InvalidSpecError, match="owner 'Churn Team' becomes part of names"):
        load_spec(path, profile="dev")


def test_every_key_that_a_profile_may_change_exists() -> None:
    for key in PROFILE_KEYS:
        *parents, last = key.split(".")
        assert last in fields_at(parents), key


@pytest.mark.parametrize(
    ("below", "above", "result"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({}, {"a": 1}, {"a": 1}),
    ],
)
def test_mappings_are_merged_and_all_else_replaced(below: Any, above: Any, result: Any) -> None:
    assert merged(below, above) == result


def test_the_place_of_an_item_is_in_the_layer_whose_list_counts(tmp_path: Path) -> None:
    own = OWN + "gate:\n  rules:\n    - {rule: at_least, metric: roc_auc, value: 0.6}\n"
    layered = read_layers(written(tmp_path, own))

    assert layered.place(("gate", "rules", 0, "value")).endswith("churn.yaml, line 14")
    assert layered.place(("gate", "rules", 1)).endswith("churn.yaml, line 13"), "the base's second rule is gone"
    assert layered.place(("evaluation", "metrics", 1)).endswith("_base.yaml, line 5")
    assert layered.place(()).endswith("churn.yaml, line 1")


def test_json_has_layers_too(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "churn.json"
    path.write_text(
        '{"extends": "_base.yaml", "name": "churn",\n "data": {"uri": "lake", "event_time": "at"},\n'
        ' "train": {"function": "churn:train",\n  "target": 7}}'
    )

    with pytest.raises(InvalidSpecError, match=r"churn\.json, line 4: train\.target"):
        load_spec(path)
