"""Several people on one MLflow server that asks for a login: names stay apart, and so do rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import Login, TrackingServer, load_spec, training_dag
from airflow_mlops.engines.tracking import connected
from tests.support.mlflow_server import ADMIN, MLflowServer, mlflow_server
from tests.support.small_model import write_small_model

FEBRUARY = {"window_start": "2024-02-01", "window_end": "2024-03-01"}
MARCH = {"window_start": "2024-03-01", "window_end": "2024-04-01"}
PEOPLE = ("ann", "ben", "trainer", "promoter")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A server where everybody may read everything and change only what they made."""
    with mlflow_server(tmp_path_factory.mktemp("shared"), basic_auth=True) as server:
        from mlflow.server.auth.client import AuthServiceClient

        with connected(TrackingServer(server.uri), Login(*ADMIN)):
            for name in PEOPLE:
                AuthServiceClient(server.uri).create_user(name, f"password-of-{name}")
        yield server


@pytest.fixture
def connections(shared: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def connect(**people: str) -> None:
        for conn_id, person in people.items():
            fields = {"conn_type": "mlflow", "host": shared.uri, "login": person, "password": f"password-of-{person}"}
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return connect


def as_person(server: MLflowServer, name: str) -> Any:
    return connected(TrackingServer(server.uri), Login(name, f"password-of-{name}"))


def test_two_people_run_the_same_specification_side_by_side(
    tmp_path: Path, shared: MLflowServer, connections: Callable[..., None], run_dag: Callable[..., Any]
) -> None:
    connections(mlflow_dev_ann="ann", mlflow_dev_ben="ben")
    path = write_small_model(tmp_path, "small")

    for owner in ("ann", "ben"):
        ran = run_dag(training_dag(load_spec(path, profile="dev", owner=owner)), **FEBRUARY)

        assert ran.state == "success", ran.tasks
        promoted = ran.record("promote")
        assert (promoted["name"], promoted["to_version"]) == (f"dev.{owner}.small", 1)

    from mlflow.exceptions import MlflowException

    with as_person(shared, "ben") as client:
        assert client.get_model_version_by_alias("dev.ann.small", "champion").version in ("1", 1)
        with pytest.raises(MlflowException, match="Permission denied"):
            client.delete_registered_model_alias("dev.ann.small", "champion")


def test_only_the_promotion_s_connection_moves_the_champion(
    tmp_path: Path, shared: MLflowServer, connections: Callable[..., None], run_dag: Callable[..., Any]
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient

    connections(mlflow_prod="trainer", mlflow_promotion="promoter")
    with as_person(shared, "trainer") as client:
        experiment = client.create_experiment("guarded")
    with connected(TrackingServer(shared.uri), Login(*ADMIN)):
        AuthServiceClient(shared.uri).grant_user_permission("promoter", "experiment", experiment, "EDIT")
    path = write_small_model(tmp_path, "guarded", "promotion: {mlflow_conn_id: mlflow_promotion}\n")

    ran = run_dag(training_dag(load_spec(path, profile="prod")), **FEBRUARY)

    assert ran.state == "success", ran.tasks
    assert ran.record("promote")["outcome"] == "promoted"
    with as_person(shared, "trainer") as client:
        for attempt in (
            lambda: client.set_registered_model_alias("guarded", "champion", "1"),
            lambda: client.create_model_version("guarded", "models:/guarded/1"),
        ):
            with pytest.raises(MlflowException, match="Permission denied"):
                attempt()

    # Without the line that names the promotion's connection the training's login is asked to promote.
    plain = load_spec(write_small_model(tmp_path, "guarded"), profile="prod")
    refused = run_dag(training_dag(plain, dag_id="train_guarded_without_the_right"), **MARCH)

    assert refused.tasks["gate"] == "success"
    assert refused.tasks["register"] == "failed"
    assert refused.tasks["promote"] == "upstream_failed"
