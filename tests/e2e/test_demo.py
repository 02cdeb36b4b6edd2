"""The demo's own story under a real scheduler, and what happens when a worker is killed in the middle of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.lake import LabelFeed, prepare_lake
from airflow_mlops.cli.demo.months import MONITOR, SCORE, Service, realised
from airflow_mlops.cli.demo.months import rows as months_told
from airflow_mlops.cli.demo.services import Services, free_port
from airflow_mlops.cli.demo.story import ROLLBACK, TRAIN, closing_acts, play, training_acts, write_dags
from airflow_mlops.cli.demo.verb import champion_of
from tests.support.airflow_settings import READ_ONCE
from tests.support.killing_proxy import KillingProxy, killing_proxy

SMALL_SPEC = """
name: {name}
mlflow_conn_id: {conn}
data: {{uri: ../small/{name}, event_time: at}}
contract: {{path: small_contract.yaml}}
train:
  function: small_training:train
  flavor: sklearn
  serialization: cloudpickle
  target: y
  window: {{length: 1 month}}
evaluation: {{task: binary, metrics: [roc_auc], bootstrap_draws: 200}}
gate: {{rules: [{{rule: at_least, metric: roc_auc, value: 0.5}}]}}
schedule: {{retries: 2, retry_delay_seconds: 1}}
"""

SMALL_TRAINING = '''
"""A training function that marks where it is."""


def train(data, target, *, weights, parameters, seed):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(data, target)
'''

SMALL_DAG = """
from pathlib import Path
from airflow_mlops import load_spec, training_dag

for name in {names}:
    training_dag(load_spec(Path(__file__).parent / f"{{name}}.yaml"))  # an Airflow dag
"""


def write_rows(folder: Path, seed: int = 0) -> None:
    import numpy as np
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    at = pd.date_range("2024-01-01", "2024-03-01", periods=2000, inclusive="left", tz="UTC")
    x = generator.normal(size=len(at))
    y = (x + generator.normal(size=len(at)) > 0).astype(int)
    pd.DataFrame({"at": at, "x": x, "z": generator.normal(size=len(at)), "y": y}).to_parquet(folder / "rows.parquet")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("demo")
    prepare_lake(home / "lake" / "flights")
    dags = home / "dags"
    write_dags(dags)
    connections = {"killed": "mlflow_killing", "cleared": "mlflow_default"}
    names = tuple(connections)
    for name, conn in connections.items():
        write_rows(home / "small" / name)
        (dags / f"{name}.yaml").write_text(SMALL_SPEC.format(name=name, conn=conn))
    (dags / "small_contract.yaml").write_text(
        json.dumps(
            {
                "min_rows": 10,
                "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "y"}}],
            }
        )
    )
    (dags / "small_training.py").write_text(SMALL_TRAINING)
    (dags / "small_dag.py").write_text(SMALL_DAG.format(names=names))
    return home


@pytest.fixture(scope="module")
def proxy() -> Iterator[KillingProxy]:
    port = free_port()
    with killing_proxy(f"http://127.0.0.1:{port}") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def services(home: Path, proxy: KillingProxy) -> Iterator[Services]:
    env = {**READ_ONCE, "AIRFLOW_CONN_MLFLOW_KILLING": json.dumps({"conn_type": "mlflow", "host": proxy.uri})}
    with Services(home, home / "dags", env=env, mlflow_port=proxy.upstream_port) as running:
        yield running


@pytest.fixture(scope="module")
def api(services: Services) -> Iterator[AirflowAPI]:
    with AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
        yield api


@pytest.mark.timeout(1200)
def test_every_act_of_the_demo_comes_out_as_told(api: AirflowAPI, services: Services, home: Path) -> None:
    def champion() -> int | None:
        return champion_of(services.mlflow_uri)

    lake = prepare_lake(home / "lake" / "flights")
    rows = play(api, champion, print, training_acts())
    # Two months suffice here: one that drifts, and one that the retrained model scores. `make demo` plays six.
    months = Service(api, LabelFeed(lake=lake, folder=home / "lake" / "labels"), print).play(("2013-07", "2013-08"))
    rows += months_told(months)
    rows += play(api, champion, print, closing_acts())

    assert [mistake for row in rows for mistake in row.wrong] == []
    assert len(rows) == 7
    print(realised(months))
    # One published batch, one event; one breach, one event; and the retrain was started by exactly that one.
    assert len(api.asset_events(SCORE)) == 2
    asked = [event for event in api.asset_events(MONITOR) if event["extra"].get("request")]
    assert [event["extra"]["request"] for event in asked] == [months[0].decision["request"]]
    assert [run["run_type"] for run in api.runs(TRAIN)].count("asset_triggered") == 1
    # One Asset event per ledger entry, and none for what was held or failed.
    entries = {dag: [event["extra"]["entry"] for event in api.asset_events(dag)] for dag in (TRAIN, ROLLBACK)}
    assert entries == {TRAIN: [1, 2], ROLLBACK: [3, 4]}


WINDOW = {"window_start": "2024-02-01", "window_end": "2024-03-01"}


def versions(uri: str, name: str) -> dict[int, dict[str, Any]]:
    from mlflow import MlflowClient

    return {int(v.version): dict(v.tags) for v in MlflowClient(uri).search_model_versions(f"name = '{name}'")}


def step_runs(uri: str, name: str, step: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id], f"tags.`airflow_mlops.step` = '{step}'")


def test_a_worker_killed_right_after_registration_leaves_one_version(
    api: AirflowAPI, services: Services, proxy: KillingProxy
) -> None:
    api.wait_for_dag("train_killed")
    api.unpause("train_killed")
    proxy.arm("/model-versions/create")

    run_id = api.trigger("train_killed", WINDOW)
    run = api.wait_for_run("train_killed", run_id)

    assert len(proxy.killed) == 1
    assert run["state"] == "success", api.task_states("train_killed", run_id)
    tries = {task["task_id"]: task["try_number"] for task in api.tasks("train_killed", run_id)}
    assert tries["register"] == 2
    assert list(versions(services.mlflow_uri, "killed")) == [1]
    assert champion_of(services.mlflow_uri, "killed") == 1
    assert len(step_runs(services.mlflow_uri, "killed", "register")) == 1


def test_clearing_after_a_redelivery_makes_a_new_version_and_marks_the_old(
    api: AirflowAPI, services: Services, home: Path
) -> None:
    api.wait_for_dag("train_cleared")
    api.unpause("train_cleared")
    run_id = api.trigger("train_cleared", WINDOW)
    assert api.wait_for_run("train_cleared", run_id)["state"] == "success"
    first = api.xcom("train_cleared", run_id, "training_data.snapshot")

    # Nothing changed: clearing everything does nothing twice.
    api.clear("train_cleared", run_id, ["plan"])
    assert api.wait_for_run("train_cleared", run_id)["state"] == "success"
    assert list(versions(services.mlflow_uri, "cleared")) == [1]
    assert len(step_runs(services.mlflow_uri, "cleared", "train")) == 1

    write_rows(home / "small" / "cleared", seed=1)
    api.clear("train_cleared", run_id, ["training_data.snapshot", "evaluation_data.snapshot"])
    assert api.wait_for_run("train_cleared", run_id)["state"] == "success"

    assert api.xcom("train_cleared", run_id, "training_data.snapshot")["digest"] != first["digest"]
    found = versions(services.mlflow_uri, "cleared")
    assert sorted(found) == [1, 2]
    assert found[1]["airflow_mlops.superseded_by"] == "2"
    assert champion_of(services.mlflow_uri, "cleared") == 2
    snapshots = step_runs(services.mlflow_uri, "cleared", "snapshot")
    assert len(snapshots) == 4
    assert sum("airflow_mlops.superseded_by" in run.data.tags for run in snapshots) == 2
