"""Which files of a folder are models, and what each says, with and without the cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec import cache, fleet
from airflow_mlops.spec.fleet import dag_kinds, is_contract, model_files, read_models
from airflow_mlops.spec.model import ModelSpec

MODEL = """\
name: {name}
data: {{uri: lake, event_time: at}}
contract: {{path: contract.yaml}}
train: {{function: "t:train", target: y, window: {{length: 1 month}}}}
evaluation: {{task: binary, metrics: [roc_auc]}}
gate: {{rules: [{{rule: at_least, metric: roc_auc, value: 0.6}}]}}
"""
CONTRACT = "min_rows: 10\nexpectations:\n  - {type: expect_column_to_exist, kwargs: {column: y}}\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def named(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.yaml").write_text(MODEL.format(name=name))


def read(folder: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the model's name, or the mistake, by file."""
    return {
        str(path.relative_to(folder)): spec.name if isinstance(spec, ModelSpec) else str(spec)
        for path, spec in read_models(folder, given or {})
    }


def test_models_are_found_below_and_what_is_none_is_left_out(folder: Path, tmp_path: Path) -> None:
    named(folder, "b", "a", "_base", ".hidden")
    for below in ("team", "_drafts", ".git", "__pycache__"):
        (folder / below).mkdir()
        named(folder / below, "c")
    (folder / "contract.yaml").write_text(CONTRACT)
    (folder / "model.schema.json").write_text(
        '{"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {}}'
    )
    (folder / "contract.json").write_text('{"expectations": [{"type": "expect_column_to_exist"}]}')
    (folder / "flow.yml").write_text("{min_rows: 1, expectations: []}")
    (folder / "e.YML").write_text(MODEL.format(name="e"))
    (folder / "d.json").write_text("{}")
    for leftover in ("a.yaml~", "#a.yaml#", ".#a.yaml", "a.yaml.swp", "a.yaml.bak", "README.md", "train.py"):
        (folder / leftover).write_text("name: x")
    (tmp_path / "elsewhere.yaml").write_text(MODEL.format(name="linked"))
    (folder / "linked.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    (folder / "nowhere.yaml").symlink_to(tmp_path / "gone.yaml")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.yaml")

    found = [str(path.relative_to(folder)) for path in model_files(folder)]

    assert found == ["a.yaml", "b.yaml", "d.json", "e.YML", "linked.yaml", "nowhere.yaml", "team/c.yaml"]


@pytest.mark.parametrize(
    ("text", "contract"),
    [
        (CONTRACT, True),
        ("expectations: [\n", True),
        ('{\n\t"expectations": []\n}', True),
        ("name: a\nexpectations: []\n", False),
        ("expectations: []\ntrain: [\n", False),
        ("description: 'my expectations: high'\n", False),
        ("train:\n  expectations: 1\n", False),
        ("# expectations: none\n", False),
        ("", False),
        ("[1]", False),
    ],
)
def test_a_contract_is_known_by_its_content(folder: Path, text: str, contract: bool) -> None:
    (folder / "x.yaml").write_text(text)

    assert is_contract(folder / "x.yaml") is contract


def test_a_folder_that_is_none_is_named(folder: Path) -> None:
    named(folder, "a")

    with pytest.raises(InvalidSpecError, match=r"gone is no folder\. Give the folder"):
        model_files(folder / "gone")
    with pytest.raises(InvalidSpecError, match=r"a\.yaml is a file.*load_spec reads one file"):
        model_files(folder / "a.yaml")


def test_bad_files_are_told_and_the_others_read(folder: Path) -> None:
    named(folder, "a", "b")
    (folder / "c.yaml").write_text("name: [\n")
    (folder / "d.yaml").write_bytes(b"name: caf\xe9")
    (folder / "e.yaml").symlink_to(folder / "gone.yaml")
    (folder / "f.yaml").write_text("")

    for _ in range(2):
        found = read(folder)
        assert (found["a.yaml"], found["b.yaml"]) == ("a", "b")
        assert "c.yaml, line 2: this is not valid YAML" in found["c.yaml"]
        assert "d.yaml is not UTF-8" in found["d.yaml"]
        assert "e.yaml does not exist" in found["e.yaml"]
        assert "f.yaml: a model specification is a mapping" in found["f.yaml"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.json", "[" * 100_000),
        ("number.json", '{"name": ' + "1" * 5_000 + "}"),
        ("tag.yaml", "name: !!bool maybe\n"),
        ("base.yaml", 'extends: "_b\\0.yaml"\n'),
        ("long.yaml", f"extends: {'a' * 5_000}.yaml\n"),
    ],
)
def test_no_content_of_a_file_takes_the_others_with_it(folder: Path, name: str, text: str) -> None:
    named(folder, "a")
    (folder / name).write_text(text)

    found = dict(read_models(folder, {}))

    assert isinstance(found[folder / "a.yaml"], ModelSpec)
    assert isinstance(found[folder / name], InvalidSpecError)


def test_no_entry_of_the_folder_takes_the_others_with_it(folder: Path) -> None:
    named(folder, "a")
    (folder / "itself").symlink_to("itself")
    (folder / "itself.yaml").symlink_to("itself.yaml")
    (folder / os.fsdecode(b"b\xff.yaml")).write_text(MODEL.format(name="b"))

    for _ in range(2):  # the second time from the cache
        found = read(folder)
        assert found.pop("itself.yaml").endswith("cannot be read: Too many levels of symbolic links.")
        assert list(found.values()) == ["a", "b"]


def test_a_folder_that_goes_while_it_is_looked_at_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(folder, "a")
    (folder / "team").mkdir()
    real = Path.stat

    def stat(path: Path, **more: bool) -> os.stat_result:
        if path.name == "team":
            raise FileNotFoundError(2, "No such file or directory")
        return real(path, **more)

    monkeypatch.setattr(Path, "stat", stat)

    assert read(folder) == {"a.yaml": "a"}


def test_a_file_that_goes_after_it_was_listed_is_no_mistake(folder: Path) -> None:
    named(folder, "a", "b")
    reading = read_models(folder, {})

    assert next(reading)[0].name == "a.yaml"
    (folder / "b.yaml").unlink()
    assert list(reading) == []


def test_a_base_that_changes_after_it_was_read_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "_base.yaml").write_text("owner: one\n")
    (folder / "a.yaml").write_text(f"extends: _base.yaml\n{MODEL.format(name='a')}")
    real = fleet.resolve_spec

    def resolve(path: Path, given: Mapping[str, str]) -> object:
        result = real(path, given)
        (folder / "_base.yaml").write_text("owner: another\n")
        return result

    monkeypatch.setattr(fleet, "resolve_spec", resolve)
    list(read_models(folder, {}))

    ((_, spec),) = read_models(folder, {})
    assert isinstance(spec, ModelSpec)
    assert spec.owner == "another"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were really read."""
    seen: list[str] = []
    real = fleet.resolve_spec

    def resolve(path: Path, given: Mapping[str, str]) -> object:
        seen.append(path.name)
        return real(path, given)

    monkeypatch.setattr(fleet, "resolve_spec", resolve)
    return seen


def test_a_file_is_read_again_when_it_or_its_base_changes(folder: Path, counted: list[str]) -> None:
    named(folder, "a", "b")
    (folder / "contract.yaml").write_text(CONTRACT)
    (folder / "_base.yaml").write_text("owner: one\n")
    (folder / "c.yaml").write_text(f"extends: _base.yaml\n{MODEL.format(name='c')}")

    def round_() -> list[str]:
        counted.clear()
        read(folder)
        return list(counted)

    assert round_() == ["a.yaml", "b.yaml", "c.yaml"]
    assert round_() == []
    (folder / "b.yaml").write_text(MODEL.format(name="x"))  # the same size
    assert round_() == ["b.yaml"]
    (folder / "_base.yaml").write_text("owner: two\n")
    assert round_() == ["c.yaml"]
    assert {spec.owner for _, spec in read_models(folder, {}) if isinstance(spec, ModelSpec)} == {"airflow", "two"}
    (folder / "a.yaml").unlink()
    assert round_() == []
    assert "a.yaml" not in read(folder)
    (folder / "_base.yaml").unlink()
    assert "there is no file" in read(folder)["c.yaml"]


def test_another_profile_and_another_owner_have_entries_of_their_own(folder: Path) -> None:
    (folder / "a.yaml").write_text(MODEL.format(name="a") + "profiles: {dev: {data: {uri: small}}, prod: {}}\n")

    for _ in range(2):
        for given, wanted in (
            ({}, ("lake", "a")),
            ({"profile": "dev", "owner": "ann"}, ("small", "dev.ann.a")),
            ({"profile": "dev", "owner": "ben"}, ("small", "dev.ben.a")),
            ({"profile": "prod"}, ("lake", "a")),
        ):
            ((_, spec),) = read_models(folder, given)
            assert isinstance(spec, ModelSpec)
            assert (spec.data.uri, spec.registered_model) == wanted


def test_what_was_kept_is_the_same_specification(folder: Path) -> None:
    (folder / "a.yaml").write_text(MODEL.format(name="a") + "schedule: {retries: 1}\n")

    ((_, cold),) = read_models(folder, {})
    ((_, warm),) = read_models(folder, {})

    assert isinstance(cold, ModelSpec)
    assert isinstance(warm, ModelSpec)
    assert (warm, warm.folder, warm.model_fields_set) == (cold, folder, cold.model_fields_set)
    assert warm.schedule.model_fields_set == {"retries"}


def test_a_task_waits_for_its_own_model_only(folder: Path, counted: list[str]) -> None:
    named(folder, "a", "b")
    (folder / "bad.yaml").write_text("name: bad\n")
    (folder / "_base.yaml").write_text("name: based\n")
    (folder / "c.yaml").write_text("extends: _base.yaml\n" + MODEL.format(name="c").split("\n", 1)[1])

    found = [spec.name for _, spec in read_models(folder, {}, only="based".__eq__) if isinstance(spec, ModelSpec)]

    assert found == ["based"]
    assert counted == ["c.yaml"], "others are not even parsed"
    read(folder)
    counted.clear()
    assert len(list(read_models(folder, {}, only="a".__eq__))) == 1
    assert counted == []


def test_a_model_that_no_longer_fits_what_is_installed_is_told_in_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(folder, "a")
    assert read(folder) == {"a.yaml": "a"}
    monkeypatch.setattr("airflow_mlops.core.metrics.BUILT_IN", {"binary": {"log_loss": False}})

    assert "a.yaml, line 5: evaluation: " in read(folder)["a.yaml"]


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ("", ("training",)),
        ("scoring: {output_uri: out}\n", ("training", "scoring", "monitoring")),
        ("scoring: null\n", ("training",)),
        ("drift: {min_columns: 2}\n", ("training", "monitoring")),
        ("monitoring: {}\n", ("training", "monitoring")),
    ],
)
def test_which_dags_a_model_has(folder: Path, more: str, kinds: tuple[str, ...]) -> None:
    (folder / "a.yaml").write_text(MODEL.format(name="a") + more)

    ((_, spec),) = read_models(folder, {})

    assert isinstance(spec, ModelSpec)
    assert dag_kinds(spec) == kinds


def test_paths_are_told_as_the_folder_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(folder, "a")
    monkeypatch.chdir(folder.parent)

    assert [path for path, _ in read_models("models", {})] == list(model_files("models")) == [Path("models/a.yaml")]
    assert [path for path, _ in read_models("models", {})] == [Path("models/a.yaml")]
