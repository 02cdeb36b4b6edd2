"""Airflow's own backfill on a real scheduler: twelve months several at a time, four newest first, and some once more.

Two models have the same rows. ``forward`` is backfilled from the oldest month, ``reversed`` from the newest and with
events. Each test builds on the one before it in this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from airflow_mlops import Window
from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.services import Services
from airflow_mlops.core.ledger import Ledger
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.engines.versions import DUPLICATE_OF, SUPERSEDED_BY, TRAIN_WINDOW, WINDOW, read_span
from tests.support.airflow_settings import on_postgres
from tests.support.postgres import Postgres

SPEC = """
name: {name}
data: {{uri: ../rows, event_time: at}}
contract: {{path: contract.yaml}}
train:
  function: monthly_training:train
  serialization: cloudpickle
  target: y
  window: {{length: 2 months}}
evaluation: {{task: binary, metrics: [roc_auc], bootstrap_draws: 100}}
serving: {{check: false}}
gate:
  rules:
    - {{rule: at_least, metric: roc_auc, value: 0.6}}
    - {{rule: no_worse_than_champion, metric: roc_auc, margin: 0.1, evidence: harm}}
schedule: {{cron: "0 0 1 * *", start_date: "2023-01-01", retries: 1, retry_delay_seconds: 1}}
"""

TRAINING = """
def train(data, target, *, weights, parameters, seed):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(data, target)
"""

CONTRACT = "expectations: [{type: expect_column_values_to_not_be_null, kwargs: {column: y}}]\n"

DAGS = """
from pathlib import Path
from airflow_mlops import load_spec, training_dag
from airflow_mlops.compat import DAG, Asset
from airflow.providers.standard.operators.empty import EmptyOperator

forward = training_dag(load_spec(Path(__file__).parent / "forward.yaml"))
reverse = training_dag(load_spec(Path(__file__).parent / "reversed.yaml"))
reverse.get_task("promote").emit_in_backfill = True

for name in ("forward", "reversed"):
    with DAG(f"after_{name}", schedule=[Asset(f"{name}_champion")]):
        EmptyOperator(task_id="nothing")
"""

MONTHS = [Window(start=datetime(2024, n, 1), end=datetime(2024 + n // 12, n % 12 + 1, 1)) for n in range(1, 13)]
MODELS = ("forward", "reversed")
#: Months of the reversed model: one more than run at once, so that one is judged when a newer champion serves.
LAST = 4


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Services]:
    import numpy as np
    import pandas as pd

    home = tmp_path_factory.mktemp("backfill")
    generator = np.random.default_rng(0)
    at = pd.date_range("2023-11-01", "2025-01-01", periods=7_000, inclusive="left", tz="UTC")
    x = generator.normal(size=len(at))
    y = (x + generator.normal(size=len(at)) > 0).astype(int)
    for folder in ("rows", "dags"):
        (home / folder).mkdir()
    pd.DataFrame({"at": at, "x": x, "y": y}).to_parquet(home / "rows" / "rows.parquet")
    for name in MODELS:
        (home / "dags" / f"{name}.yaml").write_text(SPEC.format(name=name))
    (home / "dags" / "contract.yaml").write_text(CONTRACT)
    (home / "dags" / "monthly_training.py").write_text(TRAINING)
    (home / "dags" / "monthly_dags.py").write_text(DAGS)
    with Services(home, home / "dags", env=on_postgres(postgres, "airflow_backfill")) as running:
        yield running


@pytest.fixture(scope="module")
def api(services: Services) -> Iterator[AirflowAPI]:
    with AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
        for name in MODELS:
            for dag in ("train", "after"):
                api.wait_for_dag(f"{dag}_{name}")
                # A paused DAG's backfill waits. Unpaused, it also runs its newest interval, of which there are no rows.
                api.unpause(f"{dag}_{name}")
        yield api


def until(api: AirflowAPI, look: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        api._check()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def backfill(api: AirflowAPI, dag_id: str, months: int = 12, *, reverse: bool = False, again: bool = False) -> None:
    """Backfill the year, or its last months, three runs at a time, and wait for the end."""
    body = {
        "dag_id": dag_id,
        "from_date": f"2024-{13 - months:02d}-01T00:00:00Z",
        "to_date": "2024-12-01T00:00:00Z",
        "run_backwards": reverse,
        "reprocess_behavior": "completed" if again else "none",
        "max_active_runs": 3,
    }

    number = api._send("POST", "/api/v2/backfills", json=body).json()["id"]
    until(api, lambda: api._get(f"/api/v2/backfills/{number}")["completed_at"], seconds=1200)


def runs_of(api: AirflowAPI, dag_id: str) -> dict[str, dict[str, Any]]:
    """Return the backfill's runs by the month that they are about."""
    return {run["data_interval_start"][:7]: run for run in api.runs(dag_id) if run["run_type"] == "backfill"}


def registered(services: Services, name: str) -> tuple[list[Any], Ledger, int]:
    """Return the versions that hold, the ledger, and what MLflow's alias names."""
    with connected(TrackingServer(tracking_uri=services.mlflow_uri)) as client:
        found = client.search_model_versions(f"name = '{name}'", max_results=100)
        alias = int(client.get_registered_model(name).aliases["champion"])
        ledger = read_ledger(client, name, "champion")
    return [one for one in found if not {DUPLICATE_OF, SUPERSEDED_BY} & set(one.tags)], ledger, alias


def months_ending_before(start: datetime, count: int) -> Window:
    first = start.year * 12 + start.month - 1 - count
    return Window(start=datetime(first // 12, first % 12 + 1, 1), end=start)


def assert_a_version_a_month(api: AirflowAPI, services: Services, name: str, months: list[Window]) -> None:
    runs = runs_of(api, f"train_{name}")
    assert sorted(runs) == [month.start.isoformat()[:7] for month in months]
    states = {month: (run["state"], api.task_states(f"train_{name}", run["dag_run_id"])) for month, run in runs.items()}
    assert {state for state, _ in states.values()} == {"success"}, states
    versions, ledger, alias = registered(services, name)
    assert sorted(read_span(one.tags[WINDOW]).start for one in versions) == [month.start for month in months]
    for one in versions:
        window = read_span(one.tags[WINDOW])
        assert read_span(one.tags[TRAIN_WINDOW]) == months_ending_before(window.start, 2)
    assert ledger.broken is None
    assert ledger.head.body.window == MONTHS[-1]
    assert ledger.head.body.to_version == alias
    ends = [line.body.window.end for line in ledger.counted]
    assert ends == sorted(ends), "an older window took the alias from a newer one"


@pytest.mark.timeout(1500)
def test_twelve_months_several_at_a_time_end_with_the_newest_and_in_silence(
    api: AirflowAPI, services: Services
) -> None:
    backfill(api, "train_forward")

    assert_a_version_a_month(api, services, "forward", MONTHS)
    assert api.asset_events("train_forward") == []
    assert api.runs("after_forward") == []


@pytest.mark.timeout(1500)
def test_newest_first_registers_every_month_and_speaks_of_new_champions_only(
    api: AirflowAPI, services: Services
) -> None:
    backfill(api, "train_reversed", LAST, reverse=True)

    assert_a_version_a_month(api, services, "reversed", MONTHS[-LAST:])
    _, ledger, _ = registered(services, "reversed")
    told = [event["extra"]["entry"] for event in api.asset_events("train_reversed")]
    assert len(told) == len(set(told)), "one entry was told twice"
    assert ledger.number in told
    assert set(told) <= {line.number for line in ledger.counted}
    # Three run at a time, so no more than three can have become champion.
    assert len(ledger.counted) <= 3


@pytest.mark.timeout(1500)
def test_months_that_are_run_again_change_nothing(api: AirflowAPI, services: Services) -> None:
    before = registered(services, "forward")
    month = runs_of(api, "train_forward")["2024-05"]["dag_run_id"]
    api.clear("train_forward", month, ["plan"])
    assert api.wait_for_run("train_forward", month)["state"] == "success", api.task_states("train_forward", month)
    backfill(api, "train_forward", 1, again=True)
    backfill(api, "train_forward")

    after = registered(services, "forward")
    assert [one.version for one in after[0]] == [one.version for one in before[0]]
    assert [line.entry.digest for line in after[1].lines] == [line.entry.digest for line in before[1].lines]
    assert after[2] == before[2]
    assert api.asset_events("train_forward") == []
    assert api.runs("after_forward") == []
