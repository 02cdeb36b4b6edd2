"""Windows that are trained at once: whichever finishes last, the newest that passes the gate serves."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import Access, TrackingServer, Window, load_spec, run_training
from airflow_mlops.core.ledger import Ledger
from airflow_mlops.engines import promotions
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.engines.tracking import connected
from airflow_mlops.steps import pipeline
from airflow_mlops.steps.base import StepRequest
from tests.support.small_model import write_small_model

#: Fortnights of 2024, each with the fortnight before it to train on.
STARTS = ("2024-01-15", "2024-01-29", "2024-02-12", "2024-02-26")


def window(number: int) -> Window:
    start = datetime.fromisoformat(STARTS[number])
    return Window(start=start, end=start + timedelta(days=14))


def train(spec: Any, uri: str, number: int, before_promotion: Callable[[], None] = lambda: None) -> Any:
    """Run one window as its tasks would, and something else between its registration and its promotion."""

    def progress(task: str, _record: Any) -> None:
        if task == "register":
            before_promotion()

    return run_training(
        spec,
        window=window(number),
        train_length="14 days",
        access=Access(server=TrackingServer(tracking_uri=uri, timeout_seconds=30)),
        author=f"airflow:dag/{number}/promote",
        progress=progress,
    )


def state(uri: str, name: str) -> tuple[Ledger, int, int]:
    """Return the ledger, how many versions there are, and what the alias names."""
    with connected(TrackingServer(tracking_uri=uri)) as client:
        versions = list(client.search_model_versions(f"name = '{name}'"))
        alias = int(client.get_registered_model(name).aliases["champion"])
        return read_ledger(client, name, "champion"), len(versions), alias


def fetch(uri: str, artifact: str, folder: Path) -> Any:
    run_id, _, file = artifact.removeprefix("runs:/").partition("/")
    with connected(TrackingServer(tracking_uri=uri)) as client:
        return json.loads(Path(client.download_artifacts(run_id, file, str(folder))).read_text())


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    return load_spec(write_small_model(tmp_path, f"windows_{uuid.uuid4().hex[:8]}"))


def test_a_newer_window_that_lost_its_race_to_an_older_one_is_judged_again_and_takes_the_alias(
    spec: Any, mlflow_server: Any, tmp_path: Path
) -> None:
    """Both are judged while there is no champion; the older one promotes first."""
    others: list[Any] = []
    newer = train(spec, mlflow_server.uri, 2, lambda: others.append(train(spec, mlflow_server.uri, 0)))

    assert [one.decision.verdict for one in (newer, *others)] == ["first_model", "first_model"]
    assert (newer.promotion.outcome, newer.promotion.entry) == ("promoted", 2), newer.promotion.sentence
    assert "It was judged again against version 2 (entry 1), whose window is older." in newer.promotion.sentence
    ledger, versions, alias = state(mlflow_server.uri, spec.name)
    assert (versions, alias) == (2, newer.version.version)
    assert ledger.head.body.window == window(2)
    # What the entry points to is the comparison with the champion that it replaced.
    evidence = fetch(mlflow_server.uri, ledger.head.body.evidence_uri, tmp_path)
    assert (evidence["champion"]["entry"], evidence["dataset_digest"]) == (1, newer.report.dataset_digest)
    assert evidence["measurements"][0]["difference"] is not None

    # Run again, the older window is judged by itself; it is still the version that it was.
    again = train(spec, mlflow_server.uri, 0)
    assert (again.decision.verdict, again.promotion.outcome) == ("promote", "refused")
    assert f"Not compared with champion version {alias}" in again.decision.sentence
    assert again.version.version == others[0].version.version
    assert state(mlflow_server.uri, spec.name) == (ledger, 2, alias)


def test_a_newer_window_that_the_gate_holds_the_second_time_leaves_the_older_champion(
    spec: Any, mlflow_server: Any
) -> None:
    # Only a first model can pass: none is better than another by a whole AUC.
    strict = [{"rule": "better_than_champion", "metric": "roc_auc", "by": 1.0}]
    spec = spec.model_validate({**spec.model_dump(), "gate": {"rules": strict}, "folder": spec.folder})
    newer = train(spec, mlflow_server.uri, 2, lambda: train(spec, mlflow_server.uri, 0) and None)

    assert newer.promotion.outcome == "superseded"
    assert "Judged again against version 2 (entry 1), whose window is older: hold." in newer.promotion.sentence
    ledger, versions, alias = state(mlflow_server.uri, spec.name)
    assert (len(ledger.lines), versions, alias) == (1, 2, 2)


def test_a_task_killed_after_it_was_judged_again_finishes_what_it_began(
    spec: Any, mlflow_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing catches it."""

    asked: list[StepRequest] = []
    real = pipeline.perform

    def die(_point: str) -> None:
        if len(asked) == 2:
            raise Killed

    def perform(request: StepRequest, access: Access) -> Any:
        if request.step == "promote":
            asked.append(request)
        return real(request, access)

    monkeypatch.setattr(promotions, "pause", die)
    monkeypatch.setattr(pipeline, "perform", perform)
    with pytest.raises(Killed):
        train(spec, mlflow_server.uri, 2, lambda: train(spec, mlflow_server.uri, 0) and None)
    monkeypatch.undo()
    retried = real(asked[1], Access(server=TrackingServer(tracking_uri=mlflow_server.uri)))

    assert (retried.outcome, retried.entry) == ("promoted", 2)
    ledger, versions, alias = state(mlflow_server.uri, spec.name)
    assert ([line.status for line in ledger.lines], versions) == (["counted", "counted"], 2)
    assert alias == retried.to_version == ledger.head.body.to_version


def in_a_process(path: str, uri: str, number: int, delay: float, there: Any, answer: str) -> None:
    def stand_still() -> None:
        there.wait(120)
        time.sleep(delay)

    outcome = train(load_spec(path), uri, number, stand_still)
    Path(answer).write_text(json.dumps(outcome.to_json()["promotion"]))


def test_of_four_windows_at_once_the_newest_serves_in_the_end(
    spec: Any, mlflow_on_postgres: Any, tmp_path: Path
) -> None:
    """Real processes: all are judged while there is no champion, and then promote with delays of their own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "sklearn.linear_model", "pandas", "tests.fault.test_window_races"])
    chance, there = random.Random(3), context.Barrier(len(STARTS))
    answers = {number: tmp_path / f"{number}.json" for number in range(len(STARTS))}
    path, uri = str(spec.folder / f"{spec.name}.yaml"), mlflow_on_postgres.uri
    started = [
        context.Process(target=in_a_process, args=(path, uri, number, chance.uniform(0, 1.0), there, str(answer)))
        for number, answer in answers.items()
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
    assert [process.exitcode for process in started] == [0] * len(started)

    said = {number: json.loads(answer.read_text())["outcome"] for number, answer in answers.items()}
    print(f"\n{said}")
    ledger, versions, alias = state(uri, spec.name)
    assert versions == len(STARTS)
    assert said[3] == "promoted"
    assert ledger.broken is None
    assert (ledger.head.body.window, ledger.head.body.to_version) == (window(3), alias)
    ends = [line.body.window.end for line in ledger.counted]
    assert ends == sorted(ends), "an older window took the alias from a newer one"
