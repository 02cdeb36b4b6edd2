"""Whole DAGs in this process: every task with its real step, against a real MLflow server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_mlops.cli.demo.lake import Lake
    from tests.support.mlflow_server import MLflowServer


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The real flights, one Parquet file a month, under ``.../lake/flights``."""
    from airflow_mlops.cli.demo.lake import prepare_lake

    return prepare_lake(tmp_path_factory.mktemp("flights") / "lake" / "flights")


@pytest.fixture
def mlflow_connection(mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default connection leads to the test's MLflow server."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server.uri}))
    return mlflow_server.uri


@pytest.fixture
def run_dag(airflow_database: None, mlflow_connection: str) -> Iterator[Callable[..., Any]]:
    """Run a DAG to its end with ``dag.test()``; returns task states and records by task id."""

    from tests.support.airflow_versions import run_to_its_end

    def run(dag: Any, **conf: Any) -> Ran:
        return Ran(dag, run_to_its_end(dag, conf))

    return run


class Ran:
    """A finished run: its state, its tasks' states, and what each pushed."""

    def __init__(self, dag: Any, dag_run: Any) -> None:
        from tests.support.airflow_versions import pushed_in

        self.state = str(getattr(dag_run.state, "value", dag_run.state))
        self.run_id = dag_run.run_id
        self.tasks = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
        found = pushed_in(dag.dag_id, dag_run.run_id)
        self.xcoms = {(task, key): value for task, key, _, value in found}
        self._by_index = sorted(
            (((task, key, index), value) for task, key, index, value in found if index >= 0), key=lambda pair: pair[0]
        )

    def record(self, task_id: str, key: str = "return_value") -> Any:
        """Return what a task pushed, or None."""
        return self.xcoms.get((task_id, key))

    def mapped(self, task_id: str, key: str = "return_value") -> list[Any]:
        """Return what the copies of a mapped task pushed, in the order of their index."""
        return [value for (task, name, _), value in self._by_index if (task, name) == (task_id, key)]


@pytest.fixture
def flights_folder(lake: Lake) -> Path:
    """A DAG folder with the flights template beside the lake."""
    from airflow_mlops.cli.demo.story import write_dags

    folder = lake.folder.parent.parent / "dags"
    write_dags(folder)
    return folder
