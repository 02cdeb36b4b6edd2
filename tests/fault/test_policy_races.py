"""Many processes that decide at once, about one window and about several, killed and tried again: one asks."""

from __future__ import annotations

import multiprocessing
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import DriftReport, PerformanceReport, ServedModel
from airflow_mlops.core.policy import request_id
from airflow_mlops.engines import request_log, runs
from airflow_mlops.engines.monitoring_state import read_states
from airflow_mlops.engines.tracking import TrackingServer, connected
from tests.support import policy_worker
from tests.support.candidates import month
from tests.support.policy_worker import Orders, left

MONITORING = {"drift": {"action": "retrain"}, "cool_down": "1 year"}


@dataclass(frozen=True)
class Place:
    """A model and an experiment that nobody else uses."""

    uri: str
    client: Any
    name: str
    experiment_id: str

    def drift(self, number: int) -> dict[str, Any]:
        model = ServedModel(name=self.name, version=1, model_uri="models:/m", artifact_uri="a")
        return DriftReport(
            verdict="drift", sentence="s", window=month(number), model=model, reference="r", row_count=1_000
        ).to_xcom()

    def performance(self, number: int) -> dict[str, Any]:
        model = ServedModel(name=self.name, version=1, model_uri="models:/m", artifact_uri="a")
        return PerformanceReport(
            state="final", sentence="s", window=month(number), model=model, row_count=1_000, labelled_count=900,
            coverage=0.9, metrics={"auc": 0.6}, promised={"auc": 0.7},
        ).to_xcom()  # fmt: skip

    def orders(self, worker: str, folder: Path, **payload: Any) -> Orders:
        values = {"registered_model": self.name, "monitoring": MONITORING, **payload}
        return Orders(self.uri, self.name, folder, worker, values, start_at=time.time() + 4)

    def asked(self) -> list[request_log.Request]:
        return list(request_log.read_log(self.client, self.experiment_id, self.name).requests)


@pytest.fixture(scope="module")
def client(mlflow_on_postgres: Any) -> Iterator[Any]:
    with ExitStack() as stack:
        server = TrackingServer(tracking_uri=mlflow_on_postgres.uri, timeout_seconds=30)
        yield stack.enter_context(connected(server)), mlflow_on_postgres.uri


@pytest.fixture
def place(client: Any) -> Place:
    connection, uri = client
    name = f"policy-race-{uuid.uuid4().hex[:8]}"
    return Place(uri, connection, name, runs.experiment_id(connection, name))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Real processes from a server that has imported MLflow once, so that a new life takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.tracking.client", "tests.support.policy_worker"])
    return context


def run_all(processes: Any, orders: list[Orders]) -> int:
    """Run one process per task, and those that were killed again, as a scheduler retries. Return how many were."""
    deadline, kills = time.monotonic() + 200, 0
    running = {order.worker: (order, _start(processes, order)) for order in orders}
    while running:
        assert time.monotonic() < deadline, f"still running: {sorted(running)}"
        for worker, (order, process) in list(running.items()):
            process.join(0.02)
            if process.is_alive():
                continue
            del running[worker]
            if process.exitcode == -signal.SIGKILL:
                kills += 1
                again = replace(order, seed=order.seed + 100, deaths={}, start_at=0.0)
                running[worker] = (again, _start(processes, again))
            else:
                assert process.exitcode == 0, f"{worker} ended with {process.exitcode}"
    return kills


def _start(processes: Any, order: Orders) -> Any:
    process = processes.Process(target=policy_worker.decide, args=(order,), daemon=True)
    process.start()
    return process


def test_of_many_that_decide_at_once_and_are_killed_one_asks(place: Place, processes: Any, tmp_path: Path) -> None:
    """Six runs over three windows, two of them over each; there is no log yet that they could agree on."""
    orders = [
        replace(
            place.orders(f"w{worker}", tmp_path, drift=[place.drift(5 + worker % 3)]),
            seed=worker,
            deaths={"before-request": 0.3, "after-request": 0.7},
        )
        for worker in range(6)
    ]
    kills = run_all(processes, orders)

    (request,) = place.asked()
    found = left(tmp_path)
    retrains = {worker: record for worker, record in found.items() if record["action"] == "retrain"}
    held = {record["suppressed"] for record in found.values() if record["action"] == "none"}
    print(f"\n{kills} were killed; {', '.join(retrains)} asked, the others were held back: {held}")
    assert len(found) == 6
    assert [record["request"] for record in retrains.values()] == [request.id]
    assert request.by.startswith(f"monitor/{next(iter(retrains))}/act/-1/")
    assert held <= {"already_acted", "retrain_under_way"}
    (asker,) = [state for state in read_states(place.client, place.experiment_id, place.name) if state.request]
    assert (asker.window, asker.request) == (request.window, request.id)


def test_the_two_policies_of_one_window_lose_nothing_of_each_other(
    place: Place, processes: Any, tmp_path: Path
) -> None:
    rule = {"metric": "auc", "max_drop": 0.05, "action": "retrain"}
    both = {"drift": {"action": "retrain"}, "performance": rule, "cool_down": "1 year"}
    orders = [
        place.orders("drift", tmp_path, monitoring=both, drift=[place.drift(n) for n in (5, 6)]),
        place.orders("performance", tmp_path, monitoring=both, performance=[place.performance(n) for n in (5, 6)]),
    ]
    run_all(processes, orders)

    states = read_states(place.client, place.experiment_id, place.name)
    assert [(state.drift_verdict, state.performance) for state in states] == [("drift", {"auc": 0.6})] * 2
    assert [request.window for request in place.asked()] == [month(6)]
    assert sorted(record["action"] for record in left(tmp_path).values()) == ["none", "retrain"]


def test_of_many_training_runs_one_answers_a_request(place: Place, processes: Any, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    run_all(processes, [replace(place.orders("asks", tmp_path / "asked", drift=[place.drift(5)]), start_at=0.0)])
    request = request_id(place.name, month(5))
    start_at = time.time() + 3
    started = [
        processes.Process(
            target=policy_worker.take_up,
            args=(place.uri, place.experiment_id, request, f"run{number}", tmp_path, start_at),
        )
        for number in range(6)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(90)

    answers = {record["answers"] for record in left(tmp_path).values()}
    assert len(left(tmp_path)) == 6
    assert len(answers) == 1
