"""A folder of models in one DAG file: bad ones give one import error each, all others load."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import load_models
from airflow_mlops.compat import AIRFLOW_3, DagBag
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.cache import CACHE_VARIABLE
from tests.support.processes import running

EXAMPLE = Path(__file__).parent / "fleet"
MODEL = """\
name: {name}
data: {{uri: lake, event_time: at, id_columns: [id]}}
contract: {{path: contract.yaml}}
train: {{function: "team:train", serialization: cloudpickle, target: y, window: {{length: 1 month}}}}
evaluation: {{task: binary, metrics: [roc_auc]}}
gate:
  rules:
    - {{rule: at_least, metric: roc_auc, value: 0.6}}
"""
SCORED = "scoring: {output_uri: out, check_contract: false}\n"
CONTRACT = "expectations: [{type: expect_column_to_exist, kwargs: {column: y}}]\n"
GOOD_DAGS = {"train_good1", "score_good1", "monitor_good1", "train_good2", "train_good3"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """A DAG folder with the example's DAG file, a contract and three good models."""
    dags = tmp_path / "dags"
    (dags / "models").mkdir(parents=True)
    shutil.copy(EXAMPLE / "fleet_dag.py", dags)
    (dags / "models" / "contract.yaml").write_text(CONTRACT)
    write(dags, "good1", MODEL + SCORED.replace("{", "{{").replace("}", "}}"))
    write(dags, "good2")
    write(dags, "good3")
    return dags


def write(dags: Path, name: str, text: str = MODEL, *change: str) -> Path:
    path = dags / "models" / f"{name}.yaml"
    written = text.format(name=name)
    if change:
        assert change[0] in written
        written = written.replace(*change)
    path.write_text(written)
    return path


def bag_of(dags: Path, **more: Any) -> Any:
    return DagBag(dag_folder=str(dags), **more)


BAD = [
    pytest.param(
        ("serialization", "serialisation"), "line 4: train.serialisation is not a key here. Did you mean", id="key"
    ),
    pytest.param(
        ("at_least", "at_lest"), "line 8: gate.rules[0]: No gate rule is called 'at_lest'. Did you", id="rule"
    ),
    pytest.param(("contract.yaml", "gone.yaml"), "line 3: contract.path leads to", id="a contract that is not there"),
    pytest.param(
        ("gate:", "schedule: {cron: '61 * * * *', start_date: '2024-01-01'}\ngate:"),
        "line 6: schedule.cron: '61 * * * *' is no cron expression",
        id="a cron expression that Airflow refuses",
    ),
    pytest.param(
        ("gate:", f"{SCORED}monitoring: {{schedule: {{cron: x, start_date: '2024-01-01'}}}}\ngate:"),
        "line 7: monitoring.schedule.cron: 'x' is no cron expression",
        id="another DAG's",
    ),
    pytest.param(
        ("gate:", "runtime: {name: external_pithon}\ngate:"), "line 6: runtime: No runtime is called", id="a runtime"
    ),
    pytest.param(
        ("gate:", "drift: {numeric: {method: psy}}\ngate:"),
        "line 6: drift.numeric",
        id="found by the last DAG's factory",
    ),
    pytest.param(
        ("name: bad", "name: bad\ntags: ['" + "x" * 200 + "']"), "cannot be made into DAGs", id="Airflow's own"
    ),
    pytest.param(("gate:\n", "gate: [\n"), "this is not valid YAML", id="no YAML"),
]


@pytest.mark.parametrize(("change", "told"), BAD)
def test_a_bad_file_is_one_import_error_under_its_own_path(dags: Path, change: tuple[str, str], told: str) -> None:
    bad = write(dags, "bad", MODEL, *change)

    bag = bag_of(dags)

    assert set(bag.dags) == GOOD_DAGS
    assert set(bag.import_errors) == {str(bad)}
    assert str(bad) in bag.import_errors[str(bad)]
    assert told in bag.import_errors[str(bad)]


def test_an_error_holds_nothing_that_a_database_refuses(dags: Path) -> None:
    bad = write(dags, "bad", MODEL, "serialization", "serialisation")
    bad.rename(bad.with_name(os.fsdecode(b"b\xe4d.yaml")))
    write(dags, "nul", MODEL, "name: nul", 'name: nul\nextends: "_\\0.yaml"')

    bag = bag_of(dags)

    assert set(bag.dags) == GOOD_DAGS
    assert sorted(Path(path).name for path in bag.import_errors) == ["b?d.yaml", "nul.yaml"]
    for said in (*bag.import_errors, *bag.import_errors.values()):
        assert "\0" not in said
        said.encode()


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no bundles")
def test_in_a_bundle_the_path_starts_from_its_folder(dags: Path) -> None:
    write(dags, "bad", MODEL, "serialization", "serialisation")

    assert set(bag_of(dags, bundle_path=dags).import_errors) == {"models/bad.yaml"}


def test_of_two_files_with_one_name_neither_loads_and_both_are_told(dags: Path) -> None:
    first = dags / "models" / "good2.yaml"
    second = dags / "models" / "a_copy.yaml"
    shutil.copy(first, second)

    bag = bag_of(dags)

    assert set(bag.dags) == GOOD_DAGS - {"train_good2"}
    assert set(bag.import_errors) == {str(first), str(second)}
    assert f"the DAG 'train_good2' is also made from {first}" in bag.import_errors[str(second)]
    assert f"the DAG 'train_good2' is also made from {second}" in bag.import_errors[str(first)]


def test_one_name_is_fine_where_the_owner_makes_the_ids_differ(dags: Path) -> None:
    for owner in ("ann", "ben"):
        path = dags / "models" / f"of_{owner}.yaml"
        path.write_text(MODEL.format(name="same") + f"owner: {owner}\n")

    models = load_models(dags / "models", profile="dev")

    assert {"train_same__dev__ann", "train_same__dev__ben"} <= set(models)


def test_a_folder_without_models_is_the_dag_files_own_error(dags: Path, tmp_path: Path) -> None:
    for path in (dags / "models").glob("good*"):
        path.unlink()

    with pytest.raises(InvalidSpecError, match=r"models holds no model: no file .* begin with neither"):
        load_models(dags / "models")
    with pytest.raises(InvalidSpecError, match="gone is no folder"):
        load_models(tmp_path / "gone")
    assert "holds no model" in bag_of(dags).import_errors[str(dags / "fleet_dag.py")]


def test_whatever_a_factory_raises_is_one_models_error(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.factories import fleet

    def scoring(spec: Any) -> Any:
        raise RuntimeError("a plug-in that is broken")

    monkeypatch.setitem(fleet.FACTORIES, "scoring", scoring)

    bag = bag_of(dags)

    assert set(bag.dags) == {"train_good2", "train_good3"}, "of a bad model no DAG, though one was made already"
    (text,) = bag.import_errors.values()
    assert "RuntimeError: a plug-in that is broken" in text


def test_outside_a_dag_file_the_mistakes_come_with_the_dags(dags: Path) -> None:
    bad = write(dags, "bad", MODEL, "serialization", "serialisation")

    models = load_models(dags / "models")

    assert set(models) == GOOD_DAGS
    assert "serialisation is not a key" in models.errors[bad]
    assert gc.isenabled(), "the garbage collector rests only while the folder is read"


def test_for_a_task_only_its_own_dag_is_made(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(dags, "bad", MODEL, "serialization", "serialisation")
    write(dags, "good")  # a name that begins like others

    for cached in (False, True):
        if cached:
            monkeypatch.delenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID")
            load_models(dags / "models")
        for wanted, made in (
            ("train_good1", {"train_good1", "score_good1", "monitor_good1"}),
            ("score_good1", {"train_good1", "score_good1", "monitor_good1"}),
            ("train_good", {"train_good"}),
            ("somebody_elses", set()),
        ):
            monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", wanted)
            bag = bag_of(dags)
            assert (set(bag.dags), bag.import_errors) == (made, {})


def test_nothing_that_yaml_names_is_imported_while_a_dag_file_is_parsed(dags: Path) -> None:
    trace = dags / "imported"
    (dags / "evil_module.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    text = MODEL.replace("team:train", "evil_module:train").replace("[roc_auc]", "[roc_auc, 'evil_module:metric']")
    write(
        dags,
        "sly",
        text
        + "runtime: {{name: external_python, python: {python}}}\n".format(python=dags / "evil_module.py")
        .replace("{", "{{")
        .replace("}", "}}")
        + "notifications: [{{events: [drift], notifier: 'evil_module:Notifier', settings: {{a: 1}}}}]\n",
    )

    bag = bag_of(dags)

    assert bag.import_errors == {}
    assert "train_sly" in bag.dags
    assert "evil_module" not in sys.modules
    assert not trace.exists()


@pytest.mark.parametrize(
    "key",
    [
        "runtime: {name: 'evil_module:Runtime'}",
        "drift: {numeric: {method: 'evil_module:method'}}",
        "gate: {rules: [{rule: 'evil_module:Rule'}]}",
    ],
)
def test_a_plug_in_is_named_and_never_a_module(dags: Path, key: str, tmp_path: Path) -> None:
    trace = tmp_path / "imported"
    (dags / "evil_module.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    text = MODEL[: MODEL.index("gate:")] if key.startswith("gate") else MODEL
    write(dags, "sly", text + key.replace("{", "{{").replace("}", "}}") + "\n")

    bag = bag_of(dags)

    assert set(bag.dags) == GOOD_DAGS
    assert "evil_module" in bag.import_errors[str(dags / "models" / "sly.yaml")]
    assert not trace.exists()


@pytest.mark.parametrize(
    ("profile", "made", "uri"),
    [
        ("prod", {"train_long_haul", "train_commuter", "score_commuter", "monitor_commuter"}, "s3://flights/long_haul"),
        (
            "dev",
            {f"{dag}__dev__ann" for dag in ("train_long_haul", "train_commuter", "score_commuter", "monitor_commuter")},
            "lake/flights",
        ),
    ],
)
def test_the_example_loads_in_every_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, made: set[str], uri: str
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "dags")
    shutil.copy(Path("airflow_mlops/templates/flights_contract.yaml"), tmp_path / "dags")
    monkeypatch.setenv("AIRFLOW_MLOPS_PROFILE", profile)
    if profile == "dev":
        monkeypatch.setenv("AIRFLOW_MLOPS_OWNER", "ann")

    bag = bag_of(tmp_path / "dags")

    assert bag.import_errors == {}
    assert set(bag.dags) == made
    train = next(dag for dag_id, dag in bag.dags.items() if dag_id.startswith("train_long_haul"))
    assert train.get_task("training_data.snapshot").data["uri"].endswith(uri)


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2's processor does not run by itself on SQLite")
def test_a_real_processor_keeps_the_good_shows_the_bad_and_forgets_what_was_mended(
    airflow_database: None, dags: Path, tmp_path: Path
) -> None:
    bad1 = write(dags, "bad1", MODEL, "serialization", "serialisation")
    bad2 = write(dags, "bad2", MODEL, "at_least", "at_lest")
    home = tmp_path / "home"
    home.mkdir()
    database = home / "airflow.db"
    # Never as a file: reading it drops the locks that this process holds on it, and the next process to end would then
    # remove the log under this one.
    shared = Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"
    with closing(sqlite3.connect(shared)) as own, closing(sqlite3.connect(database)) as copy:
        own.backup(copy)
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    }

    def seen() -> tuple[dict[str, str], set[str], set[str]]:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
            errors = dict(connection.execute("select filename, stacktrace from import_error"))
            rows = list(
                connection.execute(
                    "select dag_id, is_stale or has_import_errors from dag where fileloc like ?", (f"{dags}%",)
                )
            )
        connection.close()
        return errors, {dag for dag, out in rows if not out}, {dag for dag, out in rows if out}

    def shows(*names: str) -> bool:
        return set(seen()[0]) == {f"models/{name}.yaml" for name in names}

    command = [sys.executable, "-m", "airflow", "dag-processor"]
    with running(
        command, log=tmp_path / "log", ready=lambda: shows("bad1", "bad2"), env=env, cwd=tmp_path, seconds=120
    ):
        errors, active, out = seen()
        assert (active, out) == (GOOD_DAGS, set())
        assert f"{bad1}, line 4: train.serialisation is not a key" in errors["models/bad1.yaml"]
        assert f"{bad2}, line 8: gate.rules[0]: No gate rule is called 'at_lest'" in errors["models/bad2.yaml"]

        write(dags, "bad2")
        wait(lambda: shows("bad1"))
        wait(lambda: seen()[1] == {*GOOD_DAGS, "train_bad2"})

        write(dags, "bad1")
        wait(lambda: shows() and seen()[1] == {*GOOD_DAGS, "train_bad1", "train_bad2"})
        assert seen()[2] == set(), "no DAG went out of service"


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
