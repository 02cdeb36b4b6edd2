from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops import load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.resolve import code_folder, contract_file, data_settings

GOOD = """\
name: churn
data:
  uri: lake/churn
  event_time: at
contract:
  path: contract.yaml
train:
  function: churn:train
  target: left
  window:
    length: 2 months
evaluation:
  task: binary
  metrics: [roc_auc]
  slices: [region]
gate:
  rules:
    - rule: at_least
      metric: roc_auc
      value: 0.7
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "churn.yaml"
    path.write_text(text)
    return path


def test_a_specification_loads_and_its_paths_start_from_its_folder(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, GOOD))

    assert spec.registered_model == spec.experiment_name == "churn"
    assert data_settings(spec)["uri"] == str(tmp_path / "lake/churn")
    assert contract_file(spec) == str(tmp_path / "contract.yaml")
    assert code_folder(spec) == tmp_path
    assert spec.gate.rules[0].settings == {"metric": "roc_auc", "value": 0.7}


@pytest.mark.parametrize("uri", ["s3://bucket/churn", "gs://bucket/churn", "/lake/churn", "{{ var.value.lake }}/churn"])
def test_an_absolute_or_templated_uri_stays_as_written(tmp_path: Path, uri: str) -> None:
    spec = load_spec(written(tmp_path, GOOD.replace("lake/churn", f'"{uri}"')))

    assert data_settings(spec)["uri"] == uri


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param(
            "  event_time:", "  event_tme:", r"line 4: data\.event_tme .*Did you mean 'event_time'", id="a typo"
        ),
        pytest.param("name: churn\n", "", r"name is missing; add it", id="a missing key"),
        pytest.param(
            "  target: left\n",
            "  target: left\n  parameters: {missing: .nan}\n",
            r"train\.parameters: parameters\.missing is nan.*write it as text",
            id="a parameter that JSON loses",
        ),
        pytest.param(
            "  target: left\n",
            "  target: left\n  parameters: {class_weight: {0: 1}}\n",
            r"parameters\.class_weight has the key 0.*write '0' yourself",
            id="a key that JSON turns into text",
        ),
        pytest.param("name: churn", "name: Churn-1", r"line 1: name", id="a wrong name"),
        pytest.param("[roc_auc]", "[roc_acu]", r"line \d+: evaluation: .*Did you mean 'roc_auc'", id="a metric's typo"),
        pytest.param("2 months", "two months", r"line \d+: train\.window\.length.*'2 months'", id="a wrong length"),
        pytest.param(
            "2 months", "99999999 years", r"train\.window\.length: .* is longer than 100 years; write", id="too long"
        ),
        pytest.param("2 months", "0 days", r"train\.window\.length: .*needs a length.*'1 month'", id="no length"),
        pytest.param(
            "name: churn\n",
            "name: churn\nschedule: {task_timeout_minutes: 999999999999}\n",
            r"schedule\.task_timeout_minutes: Input should be less than or equal to 52596000",
            id="a limit in minutes that Airflow cannot count",
        ),
        pytest.param("task: binary", "task: ranking", r"line 13: evaluation\.task", id="an unknown task"),
        pytest.param("churn:train", "churn.train", r"line 8: train\.function", id="no function"),
        pytest.param("[roc_auc]", "[roc_acu]", r"line \d+: evaluation: .*mean .roc_auc.", id="a wrong metric"),
        pytest.param(
            "metric: roc_auc\n",
            "metric: roc_auc\n      slice: city\n",
            r"reads slice 'city'.*: region",
            id="an uncut slice",
        ),
        pytest.param(
            "  rules:\n    - rule: at_least\n      metric: roc_auc\n      value: 0.7\n",
            "  rules: []\n",
            r"gate\.rules",
            id="no rule",
        ),
        pytest.param(
            "name: churn\n",
            "name: churn\nmonitoring:\n  performance: {metric: roc_auc, max_drop: 0.1}\n",
            r"line 3: the specification: monitoring\.performance needs labels",
            id="two parts that disagree",
        ),
        pytest.param("name: churn", "name: churn\nname: again", "a second time", id="a key twice"),
        pytest.param("name: churn", "name: churn\nProfiles: {}", "Did you mean 'profiles'", id="a key of the file"),
        pytest.param("name: churn", "name: churn\ntags: x", r"tags: Input should be a list \(got 'x'", id="text"),
        pytest.param(
            "name: churn",
            "name: churn\nstep_runtimes: {trian: inline}",
            r"line 2: step_runtimes\.trian: .* Did you mean 'train'\?",
            id="a step's typo",
        ),
        pytest.param("name: churn", "name: churn\nfolder: /etc", "line 2: 'folder' is set by", id="the folder"),
        pytest.param("name: churn", "name: !!python/object:os.system churn", "line 1", id="code in YAML"),
        pytest.param("slices: [region]", "slices: [region", "line", id="broken YAML"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_mend(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD

    with pytest.raises(InvalidSpecError, match=says) as caught:
        load_spec(written(tmp_path, GOOD.replace(old, new)))

    assert "churn.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "services: {web: {image: x}}\n"])
def test_a_file_that_holds_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"churn\.yaml"):
        load_spec(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match=r"gone\.yaml"):
        load_spec(tmp_path / "gone.yaml")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("task: binary", "task: ranking").replace("  event_time:", "  event_tme:")

    with pytest.raises(InvalidSpecError) as caught:
        load_spec(written(tmp_path, text))

    assert len(str(caught.value).splitlines()) == 2
