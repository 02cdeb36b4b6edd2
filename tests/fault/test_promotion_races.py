"""Promotions, rollbacks and registrations by many processes at once, delayed and killed, on MLflow on Postgres."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.ledger import Ledger
from airflow_mlops.engines import promotions
from airflow_mlops.engines.promotions import read_ledger, survey
from airflow_mlops.engines.registry import current_champion
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import TrackingUnavailableError
from tests.support import promotion_worker
from tests.support.candidates import Bench, decide, make_bench, month
from tests.support.mlflow_server import mlflow_server
from tests.support.processes import free_port
from tests.support.promotion_worker import ALIAS, Orders, outcomes

PROCESSES = 8
POINTS = ("after-entry", "before-alias", "after-alias")


@pytest.fixture(scope="module")
def benches(mlflow_on_postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_on_postgres.uri, tmp_path_factory.mktemp("races"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest) -> Bench:
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"races.{name[:60].rstrip('-')}.{uuid.uuid4().hex[:6]}")


@pytest.fixture(scope="module")
def processes() -> Any:
    """Real processes from a server that has imported MLflow once, so that a new life takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.tracking.client", "tests.support.promotion_worker"])
    return context


def run_all(processes: Any, orders: list[Orders], *, revive: bool, seconds: float = 300) -> int:
    """Run one process per order; revive those that were killed, as a scheduler retries. Return how many were."""
    deadline, kills = time.monotonic() + seconds, 0
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
                if revive:
                    # A new life: other delays, and less likely to be killed, so that it all ends.
                    deaths = {point: chance / 2 for point, chance in order.deaths.items()}
                    again = replace(order, seed=order.seed + 1000, deaths=deaths)
                    running[worker] = (again, _start(processes, again))
            else:
                assert process.exitcode == 0, f"{worker} ended with {process.exitcode}"
    return kills


def _start(processes: Any, order: Orders) -> Any:
    process = processes.Process(target=promotion_worker.work, args=(order,), daemon=True)
    process.start()
    return process


def raw_chain(bench: Bench) -> tuple[list[int], list[str]]:
    """Follow the ledger by hand, without the package's fold: the numbers, and the keys that counted in order."""
    found = bench.client.search_model_versions(
        f"name = '{bench.name}.promotions'", order_by=["version_number ASC"], max_results=1000
    )
    numbers, counted, head, head_digest = [], [], 0, ""
    for version in found:
        entry = json.loads(version.tags["airflow_mlops.entry"])
        numbers.append(int(version.version))
        if entry["expects"] == {"number": head, "digest": head_digest} and entry["key"] not in counted:
            counted.append(entry["key"])
            head, head_digest = int(version.version), version.tags["airflow_mlops.entry_digest"]
    return numbers, counted


def assert_one_consistent_order(bench: Bench, folder: Path) -> Ledger:
    """What the log says by hand, what the fold says and what every process was told are one story."""
    ledger = read_ledger(bench.client, bench.name, ALIAS)
    numbers, counted = raw_chain(bench)
    assert numbers == list(range(1, len(numbers) + 1)), "a number is missing or double"
    assert ledger.broken is None
    assert [line.body.key for line in ledger.counted] == counted
    told = outcomes(folder)
    for key, record in told.items():
        line = ledger.by_key(key)
        if record.outcome == "promoted":
            assert line is not None, f"the entry of {key} is lost"
            assert (line.status, line.number, line.body.to_version) == ("counted", record.entry, record.to_version)
        else:
            assert record.outcome == "superseded", record.sentence
            assert line is None or line.status == "superseded"
            assert "entry " in record.sentence
    promoted = {key for key, record in told.items() if record.outcome == "promoted"}
    assert promoted <= set(counted)
    return ledger


def assert_serving_order(ledger: Ledger) -> None:
    """Every counted entry starts from the version of the one before, and a rollback restores the one before that."""
    for earlier, line in zip(ledger.counted, ledger.counted[1:], strict=False):
        assert line.body.from_version == earlier.body.to_version
        if line.body.action == "rollback":
            before = [each.body.to_version for each in ledger.counted if each.number < earlier.number]
            assert line.body.to_version == next(v for v in reversed(before) if v != earlier.body.to_version)


def test_eight_writers_delayed_and_killed_leave_one_order_and_the_alias_at_its_end(
    bench: Bench, processes: Any, tmp_path: Path
) -> None:
    """Promotions and rollbacks mixed; whoever is killed is started again with the same keys."""
    bench.serve(1, 2)
    acts_each = 6
    orders = []
    for worker in range(PROCESSES):
        acts = tuple(
            None if (worker + act) % 3 == 0 else bench.register(f"v-{worker}-{act}", window=month(12))
            for act in range(acts_each)
        )
        deaths = {"after-entry": 0.15, "before-alias": 0.15, "after-alias": 0.1}
        orders.append(
            Orders(
                uri=bench.access.server.tracking_uri,
                name=bench.name,
                folder=tmp_path,
                worker=f"w{worker}",
                seed=worker,
                acts=acts,
                deaths=deaths,
                start_at=time.time() + 4,
            )
        )
    started = time.monotonic()
    kills = run_all(processes, orders, revive=True)

    told = outcomes(tmp_path)
    ledger = assert_one_consistent_order(bench, tmp_path)
    assert_serving_order(ledger)
    statuses = [line.status for line in ledger.lines]
    overtaken = sum("By now entry" in record.sentence for record in told.values())
    print(
        f"\n{len(told)} acts by {PROCESSES} processes in {time.monotonic() - started:.0f} s, {kills} SIGKILLs: "
        f"{statuses.count('counted')} counted, {statuses.count('superseded')} superseded, "
        f"{statuses.count('duplicate')} duplicate entries; {overtaken} were overtaken before they were done"
    )
    assert len(told) == PROCESSES * acts_each
    assert kills > 0
    assert overtaken > 0, "nobody was overtaken: the delays tried nothing"
    assert {"promote", "rollback"} == {line.body.action for line in ledger.counted}
    assert bench.alias() == ledger.head.body.to_version, "all is quiet, and the alias is not the ledger's"
    assert current_champion(bench.client, bench.name, ALIAS).entry == ledger.number


def test_writers_that_die_for_good_leave_their_work_to_the_next_reader(
    bench: Bench, processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process is killed somewhere between its entry and its alias, and nobody tries again."""
    bench.serve(1, 2)
    orders = [
        Orders(
            uri=bench.access.server.tracking_uri,
            name=bench.name,
            folder=tmp_path,
            worker=f"w{worker}",
            seed=worker,
            acts=tuple(bench.register(f"v-{worker}-{act}", window=month(12)) for act in range(4)),
            deaths={POINTS[worker % 3]: 0.5},
            start_at=time.time() + 4,
        )
        for worker in range(PROCESSES)
    ]
    kills = run_all(processes, orders, revive=False)

    ledger = assert_one_consistent_order(bench, tmp_path)
    assert current_champion(bench.client, bench.name, ALIAS).version == ledger.head.body.to_version
    monkeypatch.setattr(promotions, "HELP_AFTER", timedelta(0))
    found = survey(bench.client, bench.name, ALIAS)
    print(
        f"\n{kills} processes died for good; {len(ledger.counted)} entries counted; alias was finished: {found.state}"
    )
    assert kills >= PROCESSES // 2
    assert found.state == "agrees"
    assert bench.alias() == ledger.head.body.to_version


def test_of_eight_that_were_judged_against_one_champion_one_wins(bench: Bench, processes: Any, tmp_path: Path) -> None:
    bench.serve(1)
    orders = [
        Orders(
            uri=bench.access.server.tracking_uri,
            name=bench.name,
            folder=tmp_path,
            worker=f"w{worker}",
            seed=worker,
            acts=(bench.register(f"v-{worker}", window=month(12)),),
            stalls=0.0,
            start_at=time.time() + 4,
        )
        for worker in range(PROCESSES)
    ]
    for order in orders:
        (tmp_path / f"{order.worker}-0.judged").write_text("1")
    run_all(processes, orders, revive=False)

    ledger = assert_one_consistent_order(bench, tmp_path)
    results = [record.outcome for record in outcomes(tmp_path).values()]
    print(f"\n{results.count('promoted')} won, {results.count('superseded')} lost, {len(ledger.lines)} entries in all")
    assert sorted(results) == ["promoted"] + ["superseded"] * (PROCESSES - 1)
    assert len(ledger.counted) == 2
    assert bench.alias() == ledger.head.body.to_version


def test_a_registration_killed_right_after_the_create_call_and_tried_again_is_one_version(
    bench: Bench, processes: Any
) -> None:
    payload = {"decision": decide(bench.model).to_xcom(), "registered_model": bench.name}
    for die in (True, True, False):
        process = processes.Process(
            target=promotion_worker.register,
            args=(bench.access.server.tracking_uri, bench.name, payload, "dag/run/register/-1", die, 0.0),
        )
        process.start()
        process.join(60)
        # The second try finds the version before it would create one, so nothing kills it.
        assert process.exitcode in (0, -signal.SIGKILL)

    found = bench.client.search_model_versions(f"name = '{bench.name}'")
    assert [version.version for version in found] == ["1"]


def test_zombies_that_register_at_once_agree_on_one_version(bench: Bench, processes: Any) -> None:
    payload = {"decision": decide(bench.model).to_xcom(), "registered_model": bench.name}
    started = [
        processes.Process(
            target=promotion_worker.register,
            args=(bench.access.server.tracking_uri, bench.name, payload, "dag/run/register/-1", False, time.time() + 3),
        )
        for _ in range(4)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(90)
    assert [process.exitcode for process in started] == [0] * 4

    ref = bench.step("register", payload, key="dag/run/register/-1")
    found = bench.client.search_model_versions(f"name = '{bench.name}'", order_by=["version_number ASC"])
    print(f"\n4 zombies made {len(found)} versions")
    assert ref.version == 1
    assert [version.tags.get("airflow_mlops.duplicate_of") for version in found] == [None] + ["1"] * (len(found) - 1)


def test_a_server_that_dies_between_entry_and_alias_leaves_no_half_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task fails with an outage, which retries; the retry finds its entry and sets the alias."""
    port = free_port()
    with ExitStack() as rest, ExitStack() as stack:
        server = stack.enter_context(mlflow_server(tmp_path / "server", port=port))
        connection, make = make_bench(server.uri, tmp_path)
        rest.callback(connection.__exit__, None, None, None)
        bench = make("races.outage")
        version = bench.register("register")

        def die(point: str) -> None:
            if point == "after-entry":
                stack.close()

        monkeypatch.setattr(promotions, "pause", die)
        # Errors become ours where a connection closes, so each attempt opens its own, as a task does.
        address = TrackingServer(tracking_uri=server.uri)
        with pytest.raises(TrackingUnavailableError), connected(address) as client:
            replace(bench, client=client).promote(version)
        monkeypatch.undo()

        stack.enter_context(mlflow_server(tmp_path / "server", port=port))
        with connected(address) as client:
            bench = replace(bench, client=client)
            assert bench.alias() is None
            assert bench.promote(version).entry == 1
            assert bench.alias() == 1
            assert [line.status for line in read_ledger(client, bench.name, ALIAS).lines] == ["counted"]
