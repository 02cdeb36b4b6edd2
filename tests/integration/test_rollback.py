"""Rolling back against a real MLflow server: the version that served before, from the ledger's order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.records import Promotion
from airflow_mlops.engines import alias_moves, promotions
from airflow_mlops.engines.alias_moves import override, rollback
from airflow_mlops.engines.registry import current_champion
from airflow_mlops.errors import InvalidSpecError
from tests.support.candidates import Bench, entry_texts, make_bench, month


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("rollback"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(promotions, "CONFIRM_SECONDS", 0.01)
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"rollback.{name}"[:100].rstrip("-"))


def roll(bench: Bench, key: str = "rollback", reason: str = "it was late too often") -> Promotion:
    return rollback(bench.client, bench.wish(reason, key))


def roll_task(bench: Bench, key: str = "rollback", reason: str = "it was late too often") -> Any:
    payload = {"registered_model": bench.name, "reason": reason, "author": "airflow:dag/run/rollback"}
    return bench.step("rollback", payload, key=f"dag/{bench.name}/{key}/-1")


def test_it_restores_the_version_that_served_before_not_the_one_registered_before(bench: Bench) -> None:
    bench.promote(bench.register("one"), key="one")
    bench.register("never promoted", entry=1)
    bench.promote(bench.register("three", entry=1, window=month(5)), key="three")

    promotion = roll_task(bench)

    assert (promotion.outcome, promotion.from_version, promotion.to_version) == ("promoted", 3, 1)
    assert promotion.window == month(3)
    assert promotion.sentence.endswith("Rollback: it was late too often")
    assert bench.alias() == 1
    champion = current_champion(bench.client, bench.name, "champion")
    assert (champion.version, champion.entry, champion.window) == (1, 3, month(3))


def test_a_rollback_can_be_rolled_back(bench: Bench) -> None:
    bench.serve(1, 2)

    assert [roll(bench, key).to_version for key in ("first", "second", "third")] == [1, 2, 1]
    assert bench.alias() == 1
    assert [entry["action"] for entry in entry_texts(bench.client, bench.name)] == ["promote"] * 2 + ["rollback"] * 3


def test_the_same_task_tried_again_is_the_same_rollback(bench: Bench) -> None:
    bench.serve(1, 2)

    assert roll_task(bench) == roll_task(bench)
    assert bench.alias() == 1
    assert len(entry_texts(bench.client, bench.name)) == 3


def test_a_killed_rollback_is_finished_not_repeated(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.serve(1, 2)

    def die(reached: str) -> None:
        raise KeyboardInterrupt(reached)

    monkeypatch.setattr(promotions, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        roll_task(bench)
    monkeypatch.setattr(promotions, "pause", lambda reached: None)

    assert roll_task(bench).to_version == 1
    assert bench.alias() == 1
    assert len(entry_texts(bench.client, bench.name)) == 3


def test_of_two_rollbacks_at_once_one_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, two people who roll back the same bad champion would bring it back."""
    bench.serve(1, 2)
    real, raced = alias_moves.append, []

    def append_late(client: Any, body: Any) -> None:
        if not raced:
            raced.append(True)
            assert rollback(bench.client, bench.wish("first")).outcome == "promoted"
        real(client, body)

    monkeypatch.setattr(alias_moves, "append", append_late)
    late = roll(bench)

    assert late.outcome == "superseded"
    assert "entry 3 (rollback of version 1 by ada) followed entry 2 before this one, entry 4." in late.sentence
    assert bench.alias() == 1


def test_a_promotion_judged_before_the_rollback_is_superseded(bench: Bench) -> None:
    """Version 1 serves again, but not under the entry that the evaluation saw."""
    bench.serve(1)
    late = bench.register("late", entry=1, window=month(9))
    bench.promote(bench.register("three", entry=1, window=month(5)), key="three")
    roll(bench)

    assert bench.promote(late, key="late").outcome == "superseded"
    assert bench.alias() == 1


def test_a_deleted_target_is_refused_and_what_is_left_is_named(bench: Bench) -> None:
    bench.serve(1, 2, 3)
    bench.client.delete_model_version(bench.name, "2")

    promotion = roll(bench)

    assert promotion.outcome == "refused"
    assert "Version 2" in promotion.sentence
    assert "was deleted from MLflow: it cannot be restored. Nothing moved." in promotion.sentence
    assert "Served before and still there: 1." in promotion.sentence
    assert f"airflow-mlops promote {bench.name} VERSION --override --reason" in promotion.sentence
    assert bench.alias() == 3
    assert override(bench.client, bench.wish(), 1).outcome == "promoted"


def test_a_refused_rollback_is_tried_again_when_the_task_is_cleared(bench: Bench) -> None:
    bench.serve(1)
    assert roll_task(bench).outcome == "refused"
    bench.promote(bench.register("two", entry=1, window=month(5)), key="two")

    assert roll_task(bench).to_version == 1


def test_a_model_that_took_the_targets_number_is_not_restored(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.client.set_model_version_tag(bench.name, "1", "airflow_mlops.model_digest", "f" * 64)

    promotion = roll(bench)
    assert promotion.outcome == "refused"
    assert "is another model now" in promotion.sentence


@pytest.mark.parametrize(
    ("versions", "sentence"),
    [
        pytest.param((), "there is nothing to roll back", id="no champion"),
        pytest.param((1,), "is the first that was champion; no version served before it", id="the first champion"),
    ],
)
def test_nothing_to_roll_back_to_is_refused(bench: Bench, versions: tuple[int, ...], sentence: str) -> None:
    bench.serve(*versions)

    promotion = roll(bench)
    assert promotion.outcome == "refused"
    assert sentence in promotion.sentence


def test_a_rollback_needs_a_reason(bench: Bench) -> None:
    with pytest.raises(InvalidSpecError, match="reason"):
        roll_task(bench, reason="")
