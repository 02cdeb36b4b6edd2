"""Approval against a real MLflow server: who may be asked about, what holds, and what a kill or a race leaves."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.cli import main
from airflow_mlops.core.records import Approval, ModelVersionRef, Promotion
from airflow_mlops.engines import promotions
from airflow_mlops.engines.alias_moves import Wish, promote
from airflow_mlops.engines.approvals import (
    APPROVAL,
    Answer,
    approve,
    ask,
    candidate,
    read_approval,
    record_approval,
    reject,
    time_out,
    waiting,
)
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.engines.versions import JUDGED_ALIAS
from airflow_mlops.errors import InvalidSpecError, LedgerError
from tests.support import approval_worker
from tests.support.candidates import Bench, entry_texts, make_bench, month

TASK = "airflow:dag/run/promote"


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("approvals"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(promotions, "CONFIRM_SECONDS", 0.01)
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"approve.{name}"[:100].rstrip("-"))


def waits(bench: Bench, key: str = "register-waits", **other: Any) -> ModelVersionRef:
    return bench.register(key, verdict="needs_approval", **other)


def says(bench: Bench, version: ModelVersionRef, said: Any, author: str = "bob") -> Approval:
    answer = Answer(said, author, f"{author} thinks so", "airflow:dag/run/approve")
    return record_approval(bench.client, version, "champion", answer)


def asks(
    bench: Bench, version: ModelVersionRef, *, hours: float, attempt: int = 1, by: str = "dag/run/approve"
) -> datetime:
    return ask(bench.client, version, "champion", by=by, attempt=attempt, hours=hours)


def task_promotes(bench: Bench, version: ModelVersionRef, approval: Approval | None = None) -> Promotion:
    return promote(
        bench.client, Wish(bench.name, "champion", TASK, "the gate let it through", "promote"), version, approval
    )


def command(bench: Bench, *words: str) -> int:
    return main(["promote", bench.name, *words, "--tracking-uri", bench.access.server.tracking_uri])


def tag(bench: Bench, version: int = 1) -> Any:
    return json.loads(bench.client.get_model_version(bench.name, str(version)).tags[APPROVAL])


def ledger(bench: Bench) -> list[tuple[str, str]]:
    lines = read_ledger(bench.client, bench.name, "champion").lines
    return [(line.body.action, line.status) for line in lines]


# --- Who decided goes into the ledger ---------------------------------------------------------------------------------


def test_a_candidate_that_waits_is_promoted_only_once_a_person_approved(bench: Bench) -> None:
    version = waits(bench)
    before = task_promotes(bench, version)
    approval = says(bench, version, "approve")
    after = task_promotes(bench, version, approval)

    assert before.outcome == "refused"
    assert f"airflow-mlops promote {bench.name} 1 --approve --reason" in before.sentence
    assert (after.outcome, after.entry, bench.alias()) == ("promoted", 2, 1)
    decision, entry = entry_texts(bench.client, bench.name)
    assert (decision["action"], decision["author"], decision["via"]) == ("approve", "bob", "airflow:dag/run/approve")
    assert (entry["action"], entry["author"]) == ("promote", f"bob ({TASK})")
    assert entry["reason"] == "approved by bob: bob thinks so"
    assert (tag(bench)["outcome"], tag(bench)["author"], tag(bench)["entry"]) == ("approved", "bob", 1)


def test_an_approval_in_xcom_that_nobody_gave_does_not_pass(bench: Bench) -> None:
    version = waits(bench)
    forged = Approval(outcome="approved", sentence="bob", name=bench.name, version=1, author="bob", reason="x")
    bench.client.set_model_version_tag(bench.name, "1", APPROVAL, json.dumps({"outcome": "approved", "author": "bob"}))
    of_another = forged.model_copy(update={"version": 7})

    assert task_promotes(bench, version, forged).outcome == "refused"
    assert task_promotes(bench, version, of_another).outcome == "refused"
    assert "version 7" in task_promotes(bench, version, of_another).sentence
    assert (bench.alias(), ledger(bench)) == (None, [])


def test_a_rejected_candidate_is_never_promoted(bench: Bench) -> None:
    version = waits(bench)
    approval = says(bench, version, "reject")
    promotion = task_promotes(bench, version, approval)

    assert approval.outcome == "rejected"
    assert promotion.outcome == "refused"
    assert "rejected by bob" in promotion.sentence
    assert (bench.alias(), ledger(bench)) == (None, [("reject", "counted")])
    with pytest.raises(LedgerError, match=r"rejected by bob .*first decision holds.*--override"):
        approve(bench.client, bench.wish(), 1)
    assert tag(bench)["outcome"] == "rejected"


def test_an_approval_without_a_reason_or_with_a_huge_one_is_kept_within_bounds(bench: Bench) -> None:
    version, other = waits(bench), waits(bench, "register-other")
    record_approval(bench.client, version, "champion", Answer("approve", "x" * 5_000, "y\n" * 5_000, "airflow:t"))
    record_approval(bench.client, other, "champion", Answer("reject", "bob", "  ", "airflow:t"))
    promoted = task_promotes(bench, version)

    assert promoted.outcome == "promoted"
    huge, blank, _ = entry_texts(bench.client, bench.name)
    assert (len(huge["author"]), len(huge["reason"]), "\n" in huge["reason"]) == (200, 1_000, False)
    assert blank["reason"] == "no reason given"


# --- The command line -------------------------------------------------------------------------------------------------


def test_approve_by_command_promotes_and_says_who(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    version = waits(bench)
    assert command(bench, "--approve", "--reason", "looks right", "--author", "ada", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert command(bench, "1", "--approve", "--reason", "me too", "--author", "eve") == 0
    again = capsys.readouterr().out

    assert "Press either button on the task's page in Airflow to let the run go on" in again
    assert (answer["outcome"], answer["to_version"], answer["approval"]["author"]) == ("promoted", 1, "ada")
    assert (answer["author"], answer["reason"]) == ("ada (command line)", "approved by ada: looks right")
    assert "approved by ada" in again
    assert ledger(bench) == [("approve", "counted"), ("promote", "counted")]
    # The Airflow task comes later: what it wants is so already.
    late = task_promotes(bench, version, read_approval(bench.client, version, "champion"))
    assert (late.outcome, late.entry) == ("promoted", 2)
    assert "already" in late.sentence
    assert len(entry_texts(bench.client, bench.name)) == 2


def test_reject_by_command_moves_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    waits(bench)
    assert command(bench, "1", "--reject", "--reason", "odd slices", "--author", "ada", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert command(bench, "1", "--reject", "--reason", "odd slices", "--author", "ada") == 0
    assert command(bench, "1", "--approve", "--reason", "no", "--author", "eve") == 2

    assert (record["schema"], record["outcome"], record["author"]) == ("approval/1", "rejected", "ada")
    assert "rejected by ada" in capsys.readouterr().err
    assert (bench.alias(), ledger(bench)) == (None, [("reject", "counted")])


def test_what_cannot_become_champion_is_not_approved(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.serve(1, 2)
    waits(bench, "late", entry=1, window=month(11))
    waits(bench, "old", entry=2, window=month(1))

    assert command(bench, "3", "--approve", "--reason", "x") == 1
    assert capsys.readouterr().out.startswith("superseded: Version 3")
    assert command(bench, "4", "--approve", "--reason", "x", "--json") == 1
    refused = json.loads(capsys.readouterr().out)
    assert (refused["outcome"], refused["approval"]) == ("refused", None)
    assert "older window" in refused["sentence"]
    assert [action for action, _ in ledger(bench)] == ["promote", "promote"]


def test_a_version_that_nobody_is_asked_about_is_refused_with_the_way_out(bench: Bench) -> None:
    bench.register("passed")
    waits(bench, "dry", mode="dry_run")
    waits(bench, "first")
    bench.client.set_model_version_tag(bench.name, "3", "airflow_mlops.superseded_by", "9")
    bench.client.create_model_version(
        bench.name, bench.model.model_uri, model_id=bench.model.model_id, await_creation_for=None
    )
    wrong = {1: "'first_model'", 2: "dry run", 3: "superseded by version 9", 4: "no gate verdict", 5: "no version 5"}

    for number, said in wrong.items():
        for act in (approve, reject):
            with pytest.raises(InvalidSpecError, match=said):
                act(bench.client, bench.wish(), number)
    assert ledger(bench) == []
    assert waiting(bench.client, read_ledger(bench.client, bench.name, "champion")) == ()


def test_a_version_that_was_judged_for_another_alias_is_not_decided_on(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    waits(bench)
    bench.client.set_model_version_tag(bench.name, "1", JUDGED_ALIAS, "champion")
    reason = ("--reason", "x")

    for act in ("--approve", "--reject"):
        assert command(bench, "1", act, "--alias", "champoin", *reason) == 2
        told = capsys.readouterr().err
        assert "as 'champoin': its gate judged it for the alias 'champion'. Leave --alias out" in told
    assert command(bench, "--approve", "--alias", "champoin", *reason) == 2
    assert "No version" in capsys.readouterr().err
    bench.client.set_model_version_tag(bench.name, "1", JUDGED_ALIAS, "challenger")
    assert command(bench, "1", "--approve", *reason) == 2
    assert "as 'champion': its gate judged it for the alias 'challenger'. Write --alias" in capsys.readouterr().err
    assert ledger(bench) == []

    assert command(bench, "--approve", "--alias", "challenger", *reason) == 0
    assert bench.client.get_registered_model(bench.name).aliases == {"challenger": "1"}


def test_a_version_that_names_no_alias_does_not_start_one(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a", "b"):
        version = waits(bench, key)
        bench.client.delete_model_version_tag(bench.name, str(version.version), JUDGED_ALIAS)
    reason = ("--reason", "x")

    assert command(bench, "1", "--approve", "--alias", "champoin", *reason) == 2
    assert "nothing was ever 'champoin'" in capsys.readouterr().err
    assert waiting(bench.client, read_ledger(bench.client, bench.name, "champoin")) == ()
    assert command(bench, "1", "--approve", *reason) == 0
    assert command(bench, "2", "--override", "--alias", "challenger", *reason) == 0
    assert command(bench, "1", "--reject", "--alias", "challenger", *reason) == 0  # an alias in use may be decided for
    assert bench.client.get_registered_model(bench.name).aliases == {"champion": "1", "challenger": "2"}


def test_history_lists_what_waits_and_the_one_is_found_by_itself(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ("--tracking-uri", bench.access.server.tracking_uri)
    assert command(bench, "--approve", "--reason", "x") == 2
    assert "No version" in capsys.readouterr().err
    waits(bench, "a"), waits(bench, "b"), waits(bench, "c", entry=7)
    asks(bench, candidate(bench.client, bench.name, 1, "champion"), hours=2)
    assert command(bench, "--reject", "--reason", "x") == 2
    assert "wait for approval: 1, 2." in capsys.readouterr().err

    assert main(["history", bench.name, "--json", *server]) == 0
    found = json.loads(capsys.readouterr().out)["waiting"]
    assert [(one["model"], one["version"], one["timed_out"]) for one in found] == [
        (bench.name, 1, False),
        (bench.name, 2, False),
    ]
    assert found[0]["since"] < found[0]["until"]
    assert found[1]["until"] is None

    assert command(bench, "1", "--reject", "--reason", "odd", "--author", "ada") == 0
    assert main(["history", bench.name, *server]) == 0
    shown = capsys.readouterr().out
    assert "WAITS FOR APPROVAL: version 2 since" in shown
    assert "version 1 since" not in shown
    assert "reject version 1" in shown
    assert "by ada (command line): odd" in shown
    assert "not applied" not in shown


# --- Time-out ---------------------------------------------------------------------------------------------------------


def test_a_time_out_is_nobodys_decision(bench: Bench) -> None:
    version = waits(bench)
    first = asks(bench, version, hours=1)
    again = asks(bench, version, hours=2, attempt=2)
    record = time_out(bench.client, version, "champion", hours=2)

    assert (again - first).total_seconds() == 3600  # a retry goes on with the first try's clock
    assert (record.outcome, record.author) == ("timed_out", "")
    assert (tag(bench)["outcome"], ledger(bench)) == ("timed_out", [])
    assert task_promotes(bench, version, record).outcome == "refused"
    assert waiting(bench.client, read_ledger(bench.client, bench.name, "champion"))[0].timed_out
    # Cleared, the task asks anew; and a person may still answer.
    assert asks(bench, version, hours=1) > first
    assert tag(bench)["outcome"] == "waiting"
    assert approve(bench.client, bench.wish(), 1)[1].outcome == "promoted"


def test_a_task_cleared_when_its_clock_has_run_out_starts_anew(bench: Bench) -> None:
    version = waits(bench)
    long_ago = datetime.now(UTC) - timedelta(hours=80)
    asked = {"outcome": "waiting", "asked_by": "dag/run/approve", "attempt": 1, "asked_at": long_ago.isoformat()}
    bench.client.set_model_version_tag(bench.name, "1", APPROVAL, json.dumps(asked))

    # The try that set the clock is told that it has run out: where Airflow cannot ask, it looks again and again.
    assert asks(bench, version, hours=72) == long_ago + timedelta(hours=72)
    # A longer time that is not over yet goes on; another task has its own clock.
    assert asks(bench, version, hours=100, attempt=2) == long_ago + timedelta(hours=100)
    before = datetime.now(UTC)
    anew = asks(bench, version, hours=72, attempt=3)
    assert anew >= before + timedelta(hours=72)
    assert (tag(bench)["outcome"], tag(bench)["attempt"]) == ("waiting", 3)
    assert asks(bench, version, hours=72, attempt=4) == anew
    assert asks(bench, version, hours=72, by="dag/other/approve") > anew


def test_a_decision_that_comes_with_the_time_out_holds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.engines import approvals

    version = waits(bench)
    monkeypatch.setattr(
        approvals, "pause", lambda point: says(bench, version, "approve") if point == "after-tag" else None
    )

    record = time_out(bench.client, version, "champion", hours=1)

    assert (record.outcome, record.author) == ("approved", "bob")
    assert tag(bench)["outcome"] == "approved"


def test_a_version_that_became_another_model_is_not_decided_on(bench: Bench) -> None:
    version = waits(bench)
    for other in (version.model_copy(update={"digest": "f" * 64}), version.model_copy(update={"version": 9})):
        with pytest.raises(LedgerError, match=r"not the model that was judged|was deleted"):
            says(bench, other, "approve")
    assert ledger(bench) == []


# --- Kills and races --------------------------------------------------------------------------------------------------


def test_killed_between_decision_and_promotion_the_same_command_finishes(bench: Bench) -> None:
    waits(bench)
    uri = bench.access.server.tracking_uri
    process = multiprocessing.get_context("spawn").Process(
        target=approval_worker.approve_and_die, args=(uri, bench.name, "ada")
    )
    process.start()
    process.join(120)

    assert process.exitcode == -signal.SIGKILL
    assert (ledger(bench), bench.alias()) == ([("approve", "counted")], None)
    assert command(bench, "1", "--approve", "--reason", "it is good", "--author", "ada") == 0
    assert ledger(bench) == [("approve", "counted"), ("promote", "counted")]
    assert (bench.alias(), tag(bench)["author"]) == (1, "ada")


def test_of_two_who_answer_at_the_same_moment_one_holds_for_both(bench: Bench, tmp_path: Path) -> None:
    version = waits(bench)
    uri, start = bench.access.server.tracking_uri, multiprocessing.get_context("spawn").Process
    orders = {"ada": "approve", "bob": "reject"}
    running = [
        start(target=approval_worker.decide, args=(uri, bench.name, said, author, tmp_path))
        for author, said in orders.items()
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(120)

    assert [process.exitcode for process in running] == [0, 0]
    outcomes = {author: (tmp_path / f"{author}.outcome").read_text() for author in orders}
    decisions = [(a, s) for a, s in ledger(bench) if a != "promote"]
    assert sorted(action for action, _ in decisions) == ["approve", "reject"]
    assert [status for _, status in decisions] == ["counted", "superseded"]
    held = read_approval(bench.client, version, "champion")
    assert held is not None
    won = {"approved": "ada", "rejected": "bob"}[held.outcome]
    lost = "bob" if won == "ada" else "ada"
    assert outcomes[won] == ("promoted" if won == "ada" else "rejected")
    assert outcomes[lost].startswith("refused: ")
    assert f"by {won}" in outcomes[lost]
    assert tag(bench)["author"] == won
    assert bench.alias() == (1 if won == "ada" else None)


def test_a_promotion_by_the_task_and_one_by_command_at_once_are_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = waits(bench)
    says(bench, version, "approve")
    real, done = promotions.append, []

    def late(client: Any, body: Any) -> None:
        if not done:  # the command promotes while the task is about to write its entry
            done.append(True)
            assert approve(bench.client, bench.wish(), 1)[1].outcome == "promoted"
        real(client, body)

    monkeypatch.setattr("airflow_mlops.engines.alias_moves.append", late)
    record = task_promotes(bench, version)

    assert (record.outcome, record.entry) == ("promoted", 2)
    assert ledger(bench) == [("approve", "counted"), ("promote", "counted"), ("promote", "superseded")]
