"""Promotion against a real MLflow server: compare-and-swap, history, adoption, override, what a person must settle."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_mlops.core.records import Promotion
from airflow_mlops.engines import alias_moves, promotions
from airflow_mlops.engines.alias_moves import adopt, override, rollback
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.engines.registry import current_champion, history
from airflow_mlops.errors import InvalidSpecError, LedgerError
from tests.support.candidates import Bench, entry_texts, make_bench, month


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("promote"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # No other process promotes these models: a doubtful state need not be watched for long.
    monkeypatch.setattr(promotions, "CONFIRM_SECONDS", 0.01)
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"promote.{name}"[:100].rstrip("-"))


def ledger_statuses(bench: Bench) -> list[str]:
    return [line.status for line in read_ledger(bench.client, bench.name, "champion").lines]


# --- The straight way -------------------------------------------------------------------------------------------------


def test_the_first_model_becomes_champion(bench: Bench) -> None:
    promotion = bench.promote_task(bench.register_task("register", window=month(5)), reason="first of its kind")

    assert (promotion.outcome, promotion.entry, promotion.to_version) == ("promoted", 1, 1)
    assert (promotion.from_version, promotion.champion_version, promotion.window) == (None, 1, month(5))
    assert promotion.sentence.endswith("is version 1 since entry 1 (there was none).")
    assert bench.alias() == 1


def test_the_entry_is_whole_and_chained(bench: Bench) -> None:
    bench.serve(1, 2)

    first, second = entry_texts(bench.client, bench.name)
    assert (second["action"], second["from_version"], second["to_version"]) == ("promote", 1, 2)
    assert (second["author"], second["reason"]) == ("airflow:dag/run/promote", "because")
    assert second["window"] == month(4).model_dump(mode="json")
    assert second["evidence_uri"].endswith("evidence.json")
    assert second["to_digest"] == bench.model.digest
    assert second["expects"]["number"] == 1
    assert first["expects"] == {"number": 0, "digest": ""}
    stored = bench.client.get_model_version(f"{bench.name}.promotions", "1")
    assert second["expects"]["digest"] == stored.tags["airflow_mlops.entry_digest"]
    assert stored.tags["airflow_mlops.applied"] == "owner"
    assert stored.source == f"models:/{bench.name}/1"


def test_the_champion_is_resolved_with_all_an_evaluation_needs(bench: Bench) -> None:
    assert current_champion(bench.client, bench.name, "champion") is None
    bench.serve(1)

    champion = current_champion(bench.client, bench.name, "champion")
    assert (champion.version, champion.entry) == (1, 1)
    assert champion.model_uri == bench.model.model_uri
    assert champion.artifact_uri == bench.model.artifact_uri
    assert (champion.flavor, champion.model_digest) == ("sklearn", bench.model.digest)
    assert champion.features == ("distance", "hour")
    assert (champion.train_window, champion.window) == (month(1, 2), month(3))
    assert champion.lacks == ()


def test_a_retry_adopts_its_record(bench: Bench) -> None:
    version = bench.register("register")

    assert bench.promote_task(version) == bench.promote_task(version)
    assert len(entry_texts(bench.client, bench.name)) == 1


@pytest.mark.parametrize("point", ["after-entry", "before-alias", "after-alias"])
def test_a_task_that_was_killed_finishes_what_it_began(
    bench: Bench, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = bench.register("register")

    def die(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    monkeypatch.setattr(promotions, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        bench.promote_task(version)
    monkeypatch.setattr(promotions, "pause", lambda reached: None)

    promotion = bench.promote_task(version)
    assert (promotion.outcome, promotion.entry) == ("promoted", 1)
    assert bench.alias() == 1
    assert len(entry_texts(bench.client, bench.name)) == 1


def test_readers_go_by_the_ledger_and_later_ones_finish_what_a_killed_task_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve(1)
    version = bench.register("two", entry=1, window=month(5))

    def die(reached: str) -> None:
        if reached == "before-alias":
            raise KeyboardInterrupt

    monkeypatch.setattr(promotions, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        bench.promote(version, key="two")
    monkeypatch.setattr(promotions, "pause", lambda reached: None)

    assert current_champion(bench.client, bench.name, "champion").version == 2
    assert bench.alias() == 1, "its writer has a moment to finish by itself"
    monkeypatch.setattr(promotions, "HELP_AFTER", timedelta(0))
    assert current_champion(bench.client, bench.name, "champion").version == 2
    assert bench.alias() == 2
    assert history(bench.client, bench.name, "champion").lines[-1].applied


def test_a_promotion_follows_an_entry_that_is_not_applied_yet(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.serve(1)
    stalled = bench.register("two", entry=1, window=month(5))
    quick = bench.register("three", entry=2, window=month(6))
    real, promoted = promotions.pause, []

    def overtaken(reached: str) -> None:
        if reached == "before-alias" and not promoted:
            promoted.append(None)
            promoted[0] = bench.promote(quick, key="three")

    monkeypatch.setattr(promotions, "pause", overtaken)
    slow = bench.promote(stalled, key="two")
    monkeypatch.setattr(promotions, "pause", real)

    assert promoted[0].outcome == slow.outcome == "promoted"
    assert "By now entry 3 (promote of version 3 by airflow:dag/run/promote) has followed." in slow.sentence
    assert bench.alias() == 3
    assert [line.applied for line in history(bench.client, bench.name, "champion").lines] == [True] * 3


def test_other_aliases_have_a_history_of_their_own(bench: Bench) -> None:
    bench.serve(1)
    version = bench.register("two", entry=0, window=month(4))
    payload = {"version": version.to_xcom(), "alias": "shadow", "reason": "a second opinion"}
    promotion = bench.step("promote", payload, key="dag/run/shadow/-1")

    assert (promotion.outcome, promotion.entry) == ("promoted", 2)
    assert bench.client.get_registered_model(bench.name).aliases == {"champion": "1", "shadow": "2"}
    assert promotion.author == "task:dag/run/shadow"
    bench.promote(bench.register("three", entry=1, window=month(5)), key="three")
    assert bench.alias() == 3


# --- Who may not ------------------------------------------------------------------------------------------------------


def test_whoever_was_judged_against_an_earlier_champion_is_superseded_and_hears_by_whom(bench: Bench) -> None:
    bench.serve(1)
    slow = bench.register("slow", entry=1, window=month(5))
    bench.promote(bench.register("fast", entry=1, window=month(5)), key="fast")

    promotion = bench.promote(slow, key="slow")
    assert promotion.outcome == "superseded"
    assert "judged against entry 1, but entry 2 (promote of version 3 by airflow:dag/run/promote)" in promotion.sentence
    assert promotion.champion_version == bench.alias() == 3
    assert ledger_statuses(bench) == ["counted", "counted"]


def test_a_lost_race_leaves_its_entry_in_the_history(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found the same head; the other's entry got the lower number."""
    bench.serve(1)
    slow = bench.register("slow", entry=1, window=month(5))
    fast = bench.register("fast", entry=1, window=month(5))
    real, raced = alias_moves.append, []

    def append_late(client: Any, body: Any) -> None:
        if not raced:
            raced.append(True)
            assert bench.promote_task(fast, key="fast").outcome == "promoted"
        real(client, body)

    monkeypatch.setattr(alias_moves, "append", append_late)
    promotion = bench.promote_task(slow, key="slow")

    assert (promotion.outcome, promotion.entry) == ("superseded", 3)
    assert "entry 2 (promote of version 3" in promotion.sentence
    assert ledger_statuses(bench) == ["counted", "counted", "superseded"]
    assert bench.alias() == 3
    assert bench.promote_task(slow, key="slow").outcome == "superseded"
    assert len(entry_texts(bench.client, bench.name)) == 3


def test_an_older_window_never_takes_the_alias(bench: Bench) -> None:
    bench.promote(bench.register("new", window=month(7)), key="new")
    promotion = bench.promote(bench.register("old", entry=1, window=month(5)), key="old")

    assert promotion.outcome == "refused"
    assert "its data window [2013-05-01, 2013-06-01) is older than the champion's" in promotion.sentence
    assert bench.alias() == 1


def test_an_equal_window_may(bench: Bench) -> None:
    bench.promote(bench.register("new", window=month(7)), key="new")
    promotion = bench.promote(bench.register("again", entry=1, window=month(7)), key="again")

    assert promotion.outcome == "promoted"


def test_after_a_rollback_windows_compare_against_the_restored_model(bench: Bench) -> None:
    bench.promote(bench.register("may", window=month(5)), key="may")
    bench.promote(bench.register("july", entry=1, window=month(7)), key="july")
    rollback(bench.client, bench.wish())
    promotion = bench.promote(bench.register("june", entry=3, window=month(6)), key="june")

    assert promotion.outcome == "promoted"
    assert bench.alias() == 3


@pytest.mark.parametrize("order", [(3, 4, 5), (5, 4, 3), (4, 5, 3)], ids=str)
def test_a_backfill_ends_with_the_newest_window_in_any_order(bench: Bench, order: tuple[int, ...]) -> None:
    for number in order:
        entry = read_ledger(bench.client, bench.name, "champion").number
        bench.promote(bench.register(f"m{number}", entry=entry, window=month(number)), key=f"p{number}")

    assert current_champion(bench.client, bench.name, "champion").window == month(5)


def test_a_dry_run_writes_nothing_and_says_what_would_happen(bench: Bench) -> None:
    bench.serve(1)
    would = bench.promote(bench.register("two", entry=1, window=month(5), mode="dry_run"), key="two")
    would_not = bench.promote(bench.register("three", entry=1, window=month(2), mode="dry_run"), key="three")

    assert (would.outcome, would_not.outcome) == ("dry_run", "dry_run")
    assert would.sentence.startswith("Dry run, nothing moves: version 2 would follow entry 1 as champion")
    assert "older than the champion's" in would_not.sentence
    assert bench.alias() == 1
    assert len(entry_texts(bench.client, bench.name)) == 1


def test_a_deleted_candidate_is_refused(bench: Bench) -> None:
    version = bench.register("register")
    bench.client.delete_model_version(bench.name, "1")

    assert "was deleted from MLflow before it could be promoted" in bench.promote(version).sentence


def test_another_model_under_the_same_number_is_refused(bench: Bench) -> None:
    version = bench.register("register").model_copy(update={"digest": "f" * 64})

    promotion = bench.promote(version)
    assert promotion.outcome == "refused"
    assert "is not the model that was judged" in promotion.sentence


def test_a_verdict_that_lets_nothing_through_promotes_nothing(bench: Bench) -> None:
    version = bench.register("register").model_copy(update={"verdict": "hold"})

    assert bench.promote(version).outcome == "refused"


def test_what_is_champion_already_stays_champion_without_a_new_entry(bench: Bench) -> None:
    version = bench.register("register")
    bench.promote(version)
    promotion = bench.promote(version.model_copy(update={"ledger_entry": 1}), key="again")

    assert (promotion.outcome, promotion.entry) == ("promoted", 1)
    assert len(entry_texts(bench.client, bench.name)) == 1


# --- What a person must settle ----------------------------------------------------------------------------------------


def needs_attention(bench: Bench, *words: str) -> None:
    """Readers and writers both stop with the same explanation, and the alias is left alone."""
    before = bench.alias()
    with pytest.raises(LedgerError) as raised:
        current_champion(bench.client, bench.name, "champion")
    entry = read_ledger(bench.client, bench.name, "champion").number
    promotion = bench.promote(bench.register("candidate", entry=entry, window=month(12)), key="candidate")

    assert promotion.outcome == "needs_attention"
    for word in words:
        assert word in str(raised.value)
        assert word in promotion.sentence
    assert bench.alias() == before
    assert history(bench.client, bench.name, "champion").problem is not None


def test_an_alias_without_a_ledger_is_adopted_as_entry_1_with_what_is_missing_named(bench: Bench) -> None:
    bench.client.create_registered_model(bench.name)
    bench.client.create_model_version(bench.name, bench.model.model_uri, model_id=bench.model.model_id)
    bench.client.set_registered_model_alias(bench.name, "champion", "1")
    needs_attention(bench, "there is no promotion ledger", f"airflow-mlops promote {bench.name} --adopt --reason")

    promotion = adopt(bench.client, bench.wish("it has served since May"))

    assert (promotion.outcome, promotion.entry, promotion.to_version) == ("promoted", 1, 1)
    assert "does not say of itself: model digest, flavor, feature list, training window" in promotion.sentence
    champion = current_champion(bench.client, bench.name, "champion")
    assert (champion.model_digest, champion.window, champion.features) == (None, None, None)
    assert "reference profile" in champion.lacks
    assert champion.model_uri in (f"models:/{bench.name}/1", bench.model.model_uri)
    version = bench.register("next", entry=1, window=month(5))
    assert bench.promote(version, key="next").outcome == "promoted"


def test_an_alias_moved_by_hand_is_never_overwritten_and_can_be_recorded(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.client.set_registered_model_alias(bench.name, "champion", "1")
    needs_attention(bench, "somebody moved the alias by hand", "--adopt", "set the alias back to version 2")
    assert override(bench.client, bench.wish(), 2).outcome == "needs_attention"
    assert rollback(bench.client, bench.wish()).outcome == "needs_attention"
    assert bench.alias() == 1

    promotion = adopt(bench.client, bench.wish("the second was bad"))

    assert (promotion.outcome, promotion.from_version, promotion.to_version) == ("promoted", 2, 1)
    assert current_champion(bench.client, bench.name, "champion").version == 1
    assert bench.alias() == 1


def test_setting_the_alias_back_by_hand_settles_it_too(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.client.set_registered_model_alias(bench.name, "champion", "1")
    bench.client.set_registered_model_alias(bench.name, "champion", "2")

    assert current_champion(bench.client, bench.name, "champion").version == 2


def test_an_alias_deleted_by_hand_is_noticed(bench: Bench) -> None:
    bench.serve(1)
    bench.client.delete_registered_model_alias(bench.name, "champion")
    needs_attention(bench, "was deleted by hand", f"airflow-mlops promote {bench.name} 1 --override")

    assert override(bench.client, bench.wish(), 1).outcome == "promoted"
    assert bench.alias() == 1


def test_a_deleted_champion_is_noticed_and_not_taken_for_a_first_model(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.client.delete_model_version(bench.name, "2")
    needs_attention(bench, "that version was deleted from MLflow", f"airflow-mlops rollback {bench.name} --reason")

    assert rollback(bench.client, bench.wish()).to_version == 1
    assert bench.alias() == 1


def test_a_registered_model_made_again_is_noticed(bench: Bench) -> None:
    bench.serve(1)
    bench.client.delete_registered_model(bench.name)
    bench.client.create_registered_model(bench.name)
    bench.client.create_model_version(bench.name, bench.model.model_uri, model_id=bench.model.model_id)
    bench.client.set_registered_model_alias(bench.name, "champion", "1")

    with pytest.raises(LedgerError, match="is not the model that was promoted"):
        current_champion(bench.client, bench.name, "champion")


def test_a_deleted_entry_breaks_the_ledger_until_a_person_mends_it(bench: Bench) -> None:
    bench.serve(1, 2, 3)
    bench.client.delete_model_version(f"{bench.name}.promotions", "2")
    needs_attention(bench, "Entry 2 is missing: it was deleted.", "--adopt")

    promotion = adopt(bench.client, bench.wish("somebody tidied up"))

    assert (promotion.outcome, promotion.entry, promotion.to_version) == ("promoted", 4, 3)
    assert current_champion(bench.client, bench.name, "champion").entry == 4
    version = bench.register("next", entry=4, window=month(12))
    assert bench.promote(version, key="next").outcome == "promoted"


def test_a_deleted_last_entry_shows_as_a_moved_alias_and_is_mended_in_one_go(bench: Bench) -> None:
    """Nothing in the log tells that its last entry is gone; the alias does, and the gap shows with the next entry."""
    bench.serve(1, 2)
    bench.client.delete_model_version(f"{bench.name}.promotions", "2")
    with pytest.raises(LedgerError, match="moved the alias by hand"):
        current_champion(bench.client, bench.name, "champion")

    promotion = adopt(bench.client, bench.wish())

    assert (promotion.outcome, promotion.to_version) == ("promoted", 2)
    assert current_champion(bench.client, bench.name, "champion").version == 2
    assert bench.alias() == 2


def test_an_edited_entry_is_noticed(bench: Bench) -> None:
    bench.serve(1, 2)
    text = json.dumps({**entry_texts(bench.client, bench.name)[1], "author": "somebody else"})
    bench.client.set_model_version_tag(f"{bench.name}.promotions", "2", "airflow_mlops.entry", text)

    needs_attention(bench, "its text was edited", "--adopt")


def test_a_restarted_numbering_is_noticed_by_whoever_was_judged_before(bench: Bench) -> None:
    bench.serve(1, 2)
    late = bench.register("late", entry=2, window=month(12))
    bench.client.delete_registered_model(f"{bench.name}.promotions")
    adopt(bench.client, bench.wish("the ledger is gone"))

    promotion = bench.promote(late, key="late")
    assert promotion.outcome == "needs_attention"
    assert "saw ledger entry 2, but the ledger now ends at entry 1" in promotion.sentence


def test_a_broken_ledger_without_an_alias_is_mended_by_an_override(bench: Bench) -> None:
    bench.serve(1, 2, 3)
    bench.client.delete_model_version(f"{bench.name}.promotions", "1")
    bench.client.delete_registered_model_alias(bench.name, "champion")
    with pytest.raises(LedgerError, match=r"does not exist; to start the chain again: .* VERSION --override"):
        current_champion(bench.client, bench.name, "champion")

    assert override(bench.client, bench.wish(), 3).outcome == "promoted"
    assert bench.alias() == 3


def test_a_needs_attention_is_looked_at_again_when_the_task_is_cleared(bench: Bench) -> None:
    bench.serve(1)
    bench.client.delete_registered_model_alias(bench.name, "champion")
    version = bench.register("two", entry=1, window=month(5))
    assert bench.promote_task(version, key="two").outcome == "needs_attention"
    bench.client.set_registered_model_alias(bench.name, "champion", "1")

    assert bench.promote_task(version, key="two").outcome == "promoted"


# --- Acts of people ---------------------------------------------------------------------------------------------------


def test_an_override_is_audited_and_exempt_from_windows(bench: Bench) -> None:
    bench.promote(bench.register("new", window=month(7)), key="new")
    bench.register("old", entry=1, window=month(2))
    promotion = override(bench.client, bench.wish("the new champion cannot be scored"), 2)

    assert promotion.outcome == "promoted"
    assert promotion.sentence.endswith("Override: the new champion cannot be scored")
    entry = entry_texts(bench.client, bench.name)[-1]
    assert (entry["action"], entry["author"]) == ("override", "ada")
    assert entry["reason"] == "the new champion cannot be scored"


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        pytest.param(lambda b: override(b.client, b.wish(), 9), "There is no version 9", id="override, no version"),
        pytest.param(lambda b: override(b.client, b.wish(), 1), "is champion already", id="override, no change"),
        pytest.param(lambda b: adopt(b.client, b.wish()), "alias and ledger agree on version 1", id="adopt, no need"),
    ],
)
def test_what_a_person_cannot_do_is_refused_and_leaves_no_entry(bench: Bench, act: Any, sentence: str) -> None:
    bench.serve(1)
    promotion = act(bench)

    assert promotion.outcome == "refused"
    assert sentence in promotion.sentence
    assert len(entry_texts(bench.client, bench.name)) == 1


def test_nothing_to_adopt_without_an_alias(bench: Bench) -> None:
    assert "has no champion and no ledger" in adopt(bench.client, bench.wish()).sentence


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2001], ids=["empty", "blank", "an essay"])
def test_an_act_needs_a_reason_of_readable_length(bench: Bench, reason: str) -> None:
    with pytest.raises(InvalidSpecError, match="reason"):
        bench.wish(reason)


# --- The command line -------------------------------------------------------------------------------------------------


def command(bench: Bench, *words: str) -> int:
    from airflow_mlops.cli.registry_verbs import add_verbs

    parser = ArgumentParser()
    add_verbs(parser.add_subparsers())
    args = parser.parse_args([*words, "--tracking-uri", bench.access.server.tracking_uri])
    return int(args.run(args))


def test_history_as_text_and_as_json(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.serve(1, 2)
    rollback(bench.client, bench.wish("it was late too often"))
    bench.client.set_model_version_tag(f"{bench.name}.promotions", "3", "of somebody", "harmless")
    capsys.readouterr()

    assert command(bench, "history", bench.name) == 0
    text = capsys.readouterr().out
    assert f"{bench.name}: champion is version 1, by 3 ledger entries." in text
    assert "rollback version 2 -> version 1, window [2013-03-01, 2013-04-01)" in text
    assert "by ada: it was late too often" in text

    assert command(bench, "history", bench.name, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["champion"], shown["alias_version"], shown["problem"]) == (1, 1, None)
    assert [line["status"] for line in shown["entries"]] == ["counted"] * 3
    assert [line["applied"] for line in shown["entries"]] == [True] * 3
    assert shown["entries"][0]["window"] == "2013-03-01T00:00:00+00:00/2013-04-01T00:00:00+00:00"


def test_history_says_what_needs_attention(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.serve(1, 2)
    bench.client.set_registered_model_alias(bench.name, "champion", "1")

    assert command(bench, "history", bench.name) == 1
    assert "NEEDS ATTENTION: The alias 'champion'" in capsys.readouterr().out


def test_adopt_override_and_rollback_by_command(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.serve(1, 2)
    bench.client.set_registered_model_alias(bench.name, "champion", "1")
    capsys.readouterr()

    assert command(bench, "promote", bench.name, "--adopt", "--reason", "moved at night", "--json") == 0
    assert Promotion.from_xcom(json.loads(capsys.readouterr().out)).to_version == 1
    assert command(bench, "promote", bench.name, "2", "--override", "--reason", "r", "--author", "bob") == 0
    assert command(bench, "rollback", bench.name, "--reason", "r") == 0
    assert command(bench, "promote", bench.name, "7", "--override", "--reason", "r") == 1
    assert bench.alias() == 1
    entries = entry_texts(bench.client, bench.name)
    assert [entry["action"] for entry in entries] == ["promote", "promote", "adopt", "override", "rollback"]
    assert entries[3]["author"] == "bob"


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        pytest.param(["3"], "Say what to do", id="neither"),
        pytest.param(["--override"], "needs either the version's number", id="override of nothing"),
        pytest.param(["3", "--adopt"], "takes no version", id="adopt of a version"),
    ],
)
def test_a_promote_command_that_is_not_clear_is_refused(bench: Bench, words: list[str], mend: str) -> None:
    with pytest.raises(InvalidSpecError, match=mend):
        command(bench, "promote", bench.name, *words, "--reason", "r")
