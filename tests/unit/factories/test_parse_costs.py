"""What keeps parsing cheap changes nothing, and the benchmark compares with DAGs that are the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_models, load_spec, monitoring_dag, scoring_dag, training_dag
from airflow_mlops.compat import DAG, Asset, AssetAny, DagSerialization
from airflow_mlops.factories.parts import AnyAsset, dag_with, run_params
from benchmarks import parse_hand
from benchmarks.parse_fleet import write_hand, write_models
from benchmarks.parse_page import BEGIN, END, MEANINGS, PAGE, as_table, write_page
from tests.support.airflow_versions import only_airflow_3

TEMPLATES = Path(__file__).parents[3] / "airflow_mlops" / "templates"
RESULTS = Path(parse_hand.__file__).with_name("results.json")


@pytest.fixture(scope="module")
def flights() -> ModelSpec:
    return load_spec(TEMPLATES / "flights.yaml")


@pytest.mark.parametrize("factory", [training_dag, scoring_dag, monitoring_dag])
def test_a_dag_has_run_parameters_with_valid_defaults_and_its_tasks_no_copies(factory: Any, flights: ModelSpec) -> None:
    dag = factory(flights)

    values = dag.params.validate()
    assert values["force"] is False
    assert {"window_start", "window_end", "reason"} <= set(values)
    assert [task.task_id for task in dag.tasks if task.params] == []


def test_an_error_among_the_tasks_leaves_no_open_dag() -> None:
    with pytest.raises(RuntimeError, match="half way"), dag_with(run_params("window"), dag_id="broken", schedule=None):
        raise RuntimeError("half way")

    with dag_with(run_params("window"), dag_id="next", schedule=None) as dag:
        pass
    assert dag.dag_id == "next"
    assert set(dag.params) == {"window_start", "window_end", "reason", "force"}


def test_a_schedule_of_assets_is_what_airflow_makes_of_the_same_names() -> None:
    ours, theirs = AnyAsset("a", "b"), AssetAny(Asset("a"), Asset("b"))

    assert isinstance(ours, AssetAny)
    assert list(ours.objects) == list(theirs.objects)
    # Airflow 2.11 does not compare schedules by what is in them.
    assert (AnyAsset("a", "b") == ours) is (AssetAny(Asset("a"), Asset("b")) == theirs)
    assert AnyAsset("a", "c") != ours
    assert len({hash(ours), hash(ours), hash(DAG("one", schedule=None))}) == 2


@only_airflow_3
def test_the_benchmark_s_dags_by_hand_are_those_of_the_factories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(dag: Any) -> Any:
        found = json.loads(json.dumps(DagSerialization.to_dict(dag)))["dag"]
        found.pop("fileloc")
        for task in found["tasks"]:
            task["__var"].pop("params", None)
        return found

    monkeypatch.setenv("AIRFLOW_MLOPS_CACHE", "off")
    write_models(tmp_path, 2, watched=True)
    write_hand(tmp_path)
    place = importlib.util.spec_from_file_location("hand_models", tmp_path / "hand_models.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)

    ours = load_models(tmp_path / "models")
    by_hand = parse_hand.all_dags(module.MODELS)

    assert len(ours) == 6
    assert {dag_id: stored(dag) for dag_id, dag in ours.items()} == {
        dag_id: stored(dag) for dag_id, dag in by_hand.items()
    }


def test_the_page_has_the_figures_that_were_measured() -> None:
    entries = [one for one in json.loads(RESULTS.read_text()) if one["name"].startswith("parse")]

    assert {one["name"] for one in entries} <= set(MEANINGS), "give it a line in MEANINGS"
    written = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert written.strip() == as_table(entries).strip(), "write both anew: python -m benchmarks parse"


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    one = {"name": "parse-cold", "ours": 4.25, "peer": 8.5, "ratio": 0.5, "bound": 2.0, "unit": "CPU milliseconds"}

    write_page([one], page)

    text = page.read_text()
    assert "| Making a DAG, no cache yet | 4.25 CPU milliseconds | 8.5 | the same DAG by hand | 0.50 | 2 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
