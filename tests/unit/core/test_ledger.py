"""The promotion ledger's fold: which entries count, what breaks the chain, and how the alias stands to it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mlops.core.ledger import (
    LATE_WRITER,
    START,
    Body,
    Entry,
    Ledger,
    Link,
    alias_state,
    fold,
    read_entry,
    text_digest,
    window_objection,
)
from airflow_mlops.core.records import Window

NOW = datetime(2013, 8, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=30)
JUNE = Window(start=datetime(2013, 6, 1), end=datetime(2013, 7, 1))
JULY = Window(start=datetime(2013, 7, 1), end=datetime(2013, 8, 1))


def body(key: str, to: int, expects: Link = START, **other: Any) -> Body:
    values: dict[str, Any] = {
        "action": "promote",
        "model": "flights",
        "alias": "champion",
        "from_version": None,
        "to_version": to,
        "author": "ada",
        "reason": "better",
        "key": key,
        "expects": expects,
        "written_at": NOW,
    }
    return Body(**{**values, **other})


def entry(number: int, content: Body, *, applied: Any = "owner", created_at: datetime = LONG_AGO) -> Entry:
    text = content.to_text()
    return read_entry(number, text, text_digest(text), applied=applied, created_at=created_at)


class Log:
    """A ledger being written: numbers are handed out in order, as the registry does."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, content: Body, **marks: Any) -> Entry:
        number = self.entries[-1].number + 1 if self.entries else 1
        self.entries.append(entry(number, content, **marks))
        return self.entries[-1]

    def follow(self, key: str, to: int, **other: Any) -> Entry:
        marks = {name: other.pop(name) for name in ("applied", "created_at") if name in other}
        return self.add(body(key, to, self.fold().tail, **other), **marks)

    def fold(self, alias: str = "champion") -> Ledger:
        return fold("flights", alias, self.entries)

    def statuses(self) -> list[str]:
        return [line.status for line in self.fold().lines]


def served(*versions: int) -> Log:
    log = Log()
    for version in versions:
        log.follow(f"run-{len(log.entries)}", version)
    return log


# --- What counts ------------------------------------------------------------------------------------------------------


def test_a_new_ledger_has_no_head_and_expects_its_start() -> None:
    ledger = fold("flights", "champion", [])

    assert (ledger.head, ledger.number, ledger.tail, ledger.broken) == (None, 0, START, None)


def test_entries_that_follow_each_other_all_count() -> None:
    log = served(1, 2, 3)

    assert log.statuses() == ["counted"] * 3
    assert log.fold().head.body.to_version == 3


def test_of_two_that_expect_the_same_entry_the_first_counts_and_is_named() -> None:
    log = served(1)
    seen = log.fold().tail
    log.add(body("fast", 2, seen))
    log.add(body("slow", 3, seen))

    ledger = log.fold()
    assert log.statuses() == ["counted", "counted", "superseded"]
    assert "entry 2 (promote of version 2 by ada) followed that first" in ledger.lines[2].sentence


def test_the_first_of_several_with_one_key_counts() -> None:
    log = served(1)
    seen = log.fold().tail
    log.add(body("task", 2, seen))
    log.add(body("task", 2, seen, written_at=NOW + timedelta(seconds=1)))
    log.follow("task", 2)

    ledger = log.fold()
    assert log.statuses() == ["counted", "counted", "duplicate", "duplicate"]
    assert ledger.by_key("task").number == 2


def test_a_key_that_lost_its_race_does_not_win_by_trying_again() -> None:
    log = served(1)
    log.add(body("late", 9, START))
    log.follow("late", 9)

    assert log.statuses() == ["counted", "superseded", "duplicate"]


def test_the_same_version_serving_again_is_told_apart_by_entry_numbers() -> None:
    """A-B-A: after a rollback to version 1 an evaluation that saw entry 1 is as late as ever."""
    log = served(1)
    first = log.fold().tail
    log.follow("promote", 2)
    log.follow("back", 1, action="rollback")
    log.add(body("judged against entry 1", 3, first))

    assert log.statuses()[-1] == "superseded"
    assert log.fold().head.body.to_version == 1


def test_aliases_of_one_model_have_ledgers_of_their_own_in_one_numbering() -> None:
    log = Log()
    log.add(body("a", 1))
    log.add(body("b", 1, alias="shadow"))
    log.add(body("c", 2, log.fold().tail))

    assert [line.number for line in log.fold().lines] == [1, 3]
    assert log.fold("shadow").number == 2
    assert log.fold().broken is None


@pytest.mark.parametrize("seed", range(200))
def test_any_interleaving_gives_every_entry_at_most_one_successor(seed: int) -> None:
    """Writers read at some moment and write at a later one, in whatever order; some write twice, some roll back."""
    chance = random.Random(seed)
    log = Log()
    waiting: list[Body] = []
    prefix_fates: list[str] = []
    for number in range(chance.randint(5, 60)):
        if chance.random() < 0.6 or not waiting:
            ledger = log.fold()
            previous = ledger.previous()
            back = previous is not None and chance.random() < 0.3
            to = previous.body.to_version if back else number + 1
            waiting.append(body(f"k{number}", to, ledger.tail, action="rollback" if back else "promote"))
        else:
            writer = waiting.pop(chance.randrange(len(waiting)))
            for _ in range(chance.choice((1, 1, 1, 2))):
                log.add(writer)
                fates = log.statuses()
                assert fates[: len(prefix_fates)] == prefix_fates, "what an entry became must never change"
                prefix_fates = fates

    ledger = log.fold()
    successors = [line.body.expects.number for line in ledger.counted]
    assert ledger.broken is None
    assert len(successors) == len(set(successors))
    assert successors == [0, *(line.number for line in ledger.counted[:-1])][: len(successors)]
    assert len(ledger.lines) == len(log.entries)
    keys = [line.body.key for line in ledger.counted]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_entries_are_read_does_not_matter(seed: int) -> None:
    log = served(1, 2, 3)
    log.add(body("late", 9, START))
    shuffled = random.Random(seed).sample(log.entries, len(log.entries))

    assert fold("flights", "champion", shuffled) == log.fold()


# --- What breaks it ---------------------------------------------------------------------------------------------------


def test_a_deleted_entry_breaks_the_chain_and_nothing_counts_after_it() -> None:
    log = served(1, 2, 3)
    del log.entries[1]

    ledger = log.fold()
    assert ledger.broken == "Entry 2 is missing: it was deleted."
    assert [line.status for line in ledger.lines] == ["counted", "broken"]
    assert ledger.number == 1


def test_several_deleted_entries_are_named() -> None:
    log = served(1, 2, 3, 4)
    del log.entries[:3]

    assert log.fold().broken == "Entries 1 to 3 are missing: they were deleted."


def test_an_edited_entry_breaks_the_chain() -> None:
    log = served(1, 2)
    text = body("run-1", 99, log.entries[0].link).to_text()
    log.entries[1] = read_entry(2, text, log.entries[1].digest)

    assert "Entry 2 cannot be trusted: its text was edited" in log.fold().broken


@pytest.mark.parametrize(
    ("text", "digest", "problem"),
    [
        pytest.param(None, None, "no entry text", id="a version somebody registered there by hand"),
        pytest.param("{}", text_digest("{}"), "upgrade", id="an object of another schema"),
        pytest.param("[1]", text_digest("[1]"), "upgrade", id="no object"),
        pytest.param("no json", text_digest("no json"), "not an entry", id="no JSON"),
        pytest.param(
            '{"schema":"promotion-entry/1"}',
            text_digest('{"schema":"promotion-entry/1"}'),
            "not an entry",
            id="an entry without its fields",
        ),
    ],
)
def test_what_cannot_be_read_breaks_the_chain_for_every_alias(text: Any, digest: Any, problem: str) -> None:
    log = served(1)
    log.entries.append(read_entry(2, text, digest))

    assert problem in log.fold().broken
    assert problem in log.fold("shadow").broken
    assert log.fold().number == 1


def test_an_entry_that_expects_a_later_one_shows_a_restarted_numbering() -> None:
    old = served(1, 2, 3, 4)
    log = Log()
    log.add(body("written against the old ledger", 5, old.fold().tail))

    assert "the numbering was restarted" in log.fold().broken


def test_an_entry_that_expects_another_text_under_the_same_number_breaks_the_chain() -> None:
    old = served(1, 2)
    log = served(7)
    log.add(body("x", 8, Link(number=1, digest=old.entries[0].digest)))

    assert "no entry that counted is that one" in log.fold().broken


def test_an_entry_that_expects_one_that_never_counted_breaks_the_chain() -> None:
    log = served(1)
    loser = log.add(body("loser", 2, START))
    log.add(body("x", 3, loser.link))

    assert "Entry 3 expects entry 2" in log.fold().broken


def test_a_persons_entry_mends_the_chain_and_the_next_follows_it() -> None:
    log = served(1, 2, 3)
    del log.entries[1]
    log.add(body("mend", 3, log.fold().last, action="adopt", mends=True))
    log.follow("next", 4)

    ledger = log.fold()
    assert ledger.broken is None
    assert [line.number for line in ledger.counted] == [1, 4, 5]


def test_of_two_that_mend_the_first_does() -> None:
    log = served(1, 2, 3)
    del log.entries[1]
    last = log.fold().last
    log.add(body("mend", 3, last, action="adopt", mends=True))
    log.add(body("mend too", 2, last, action="override", mends=True))

    assert log.statuses()[-2:] == ["counted", "superseded"]
    assert log.fold().broken is None


def test_a_mend_that_saw_an_older_state_does_not_count() -> None:
    log = served(1, 2, 3)
    del log.entries[1]
    log.add(body("mend", 3, log.entries[0].link, action="adopt", mends=True))

    assert log.statuses()[-1] == "broken"
    assert log.fold().broken is not None


def test_a_key_voided_by_a_break_may_be_written_again() -> None:
    log = served(1, 2, 3)
    del log.entries[1]
    log.add(body("task", 4, log.entries[-1].link))
    log.add(body("mend", 3, log.fold().last, action="adopt", mends=True))
    assert log.fold().by_key("task") is None

    log.follow("task", 4)
    assert log.fold().by_key("task").status == "counted"


# --- Who served before ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "previous"),
    [
        pytest.param((), None, id="no champion"),
        pytest.param((1,), None, id="the first champion"),
        pytest.param((1, 2), 1, id="the one before"),
        pytest.param((5, 3), 5, id="order of serving, not of numbers"),
        pytest.param((1, 2, 1), 2, id="a rollback is rolled back"),
        pytest.param((1, 2, 2), 1, id="the same version again is not another"),
        pytest.param((1, 2, 3, 2), 3, id="what was rolled back comes back"),
    ],
)
def test_previous(versions: tuple[int, ...], previous: int | None) -> None:
    line = served(*versions).fold().previous()

    assert (line.body.to_version if line else None) == previous


def test_follower_is_the_next_that_counted() -> None:
    log = served(1)
    log.add(body("loser", 9, START))
    log.follow("winner", 2)

    assert log.fold().follower(1).number == 3
    assert log.fold().follower(0).number == 1
    assert log.fold().follower(3) is None


# --- The alias --------------------------------------------------------------------------------------------------------


def marked(*marks: tuple[int, Any, datetime]) -> Ledger:
    log = Log()
    for number, (version, applied, created_at) in enumerate(marks):
        log.follow(f"k{number}", version, applied=applied, created_at=created_at)
    return log.fold()


OLD = (1, "owner", LONG_AGO)


@pytest.mark.parametrize(
    ("ledger", "version", "state"),
    [
        pytest.param(marked(), None, "empty", id="nothing yet"),
        pytest.param(marked(), 3, "unadopted", id="an alias without a ledger"),
        pytest.param(marked(OLD), 1, "agrees", id="agrees"),
        pytest.param(marked((1, None, NOW)), 1, "agrees", id="agrees, the mark is missing"),
        pytest.param(marked((1, None, NOW)), None, "unfinished", id="the first alias is not set yet"),
        pytest.param(marked(OLD, (2, None, NOW)), 1, "unfinished", id="the alias is not set yet"),
        pytest.param(marked(OLD, (2, None, LONG_AGO)), 1, "unfinished", id="an unfinished one is finished however old"),
        pytest.param(marked(OLD, (2, "owner", LONG_AGO)), 1, "moved", id="a person moved it back"),
        pytest.param(marked(OLD, (2, "owner", NOW)), 1, "moved", id="a person moved it back at once"),
        pytest.param(marked(OLD, (2, "helper", LONG_AGO)), 7, "moved", id="a person moved it to a stranger"),
        pytest.param(marked(OLD, (2, "owner", LONG_AGO)), None, "gone", id="the alias was deleted"),
        pytest.param(
            marked(OLD, (2, None, NOW), (3, "owner", NOW)), 2, "unfinished", id="an overtaken writer set it too late"
        ),
        pytest.param(
            marked(OLD, (2, "helper", NOW), (3, "owner", NOW)), 2, "unfinished", id="so did one that was helped"
        ),
        pytest.param(
            marked(OLD, (2, None, NOW), (3, "owner", NOW), (4, "owner", NOW)),
            3,
            "unfinished",
            id="an overtaken writer mends by the head it sees, which may be overtaken too",
        ),
        pytest.param(
            marked(OLD, (2, None, LONG_AGO), (3, "owner", LONG_AGO)), 2, "moved", id="no writer is that late: a person"
        ),
        pytest.param(marked(OLD, (2, "owner", NOW), (3, "owner", NOW)), 2, "moved", id="its writer was done: a person"),
        pytest.param(
            marked(OLD, (2, "owner", NOW), (3, None, NOW), (4, "owner", NOW)),
            2,
            "moved",
            id="a late writer sets no version older than its own",
        ),
    ],
)
def test_alias_state(ledger: Ledger, version: int | None, state: str) -> None:
    assert alias_state(ledger, version, now=NOW) == state


def test_late_writers_are_believed_for_a_while_only() -> None:
    ledger = marked(OLD, (2, None, NOW), (3, "owner", NOW))

    assert alias_state(ledger, 2, now=NOW + LATE_WRITER - timedelta(seconds=1)) == "unfinished"
    assert alias_state(ledger, 2, now=NOW + LATE_WRITER) == "moved"


# --- Windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "champion", "objects"),
    [
        pytest.param(JULY, JUNE, False, id="newer"),
        pytest.param(JULY, JULY, False, id="equal"),
        pytest.param(JUNE, JULY, True, id="older never takes the alias"),
        pytest.param(Window(start=JUNE.start, end=JULY.end), JULY, False, id="longer with the same end"),
        pytest.param(None, JULY, True, id="unknown is not newer"),
        pytest.param(JUNE, None, False, id="an adopted champion without a window is no hindrance"),
        pytest.param(None, None, False, id="data without event time"),
    ],
)
def test_window_objection(candidate: Window | None, champion: Window | None, objects: bool) -> None:
    assert (window_objection(candidate, champion) is not None) is objects


def test_the_objection_names_both_windows() -> None:
    assert "[2013-06-01, 2013-07-01) is older than the champion's [2013-07-01, 2013-08-01)" in str(
        window_objection(JUNE, JULY)
    )


# --- Text -------------------------------------------------------------------------------------------------------------


def test_an_entry_survives_its_text() -> None:
    content = body("k", 3, Link(number=2, digest="d"), window=JULY, reason="größer — \N{SNOWMAN}", lacks=("flavor",))
    text = content.to_text()

    assert read_entry(3, text, text_digest(text)).body == content


def test_a_key_that_a_later_version_adds_does_not_spoil_the_digest() -> None:
    text = body("k", 3).to_text().replace('"action"', '"a_new_key":1,"action"')

    assert read_entry(1, text, text_digest(text)).problem is None


# --- What people decided of candidates --------------------------------------------------------------------------------


def decided(log: Log, said: Any, to: int, author: str = "ada", digest: str = "a") -> Entry:
    return log.follow(f"{said}/{to}/{author}", to, action=said, author=author, to_digest=digest)


def test_a_decision_holds_and_moves_nothing() -> None:
    log = served(1)
    decided(log, "approve", 2)

    ledger = log.fold()
    decision = ledger.decision(2, "a")
    assert decision is not None
    assert (decision.number, decision.body.author, decision.status) == (2, "ada", "counted")
    assert (ledger.number, ledger.head.body.to_version if ledger.head else None) == (1, 1)
    assert alias_state(ledger, 1, now=NOW) == "agrees"
    assert ledger.decision(2, "another model under that number") is None
    assert ledger.decision(3, "a") is None


def test_a_promotion_follows_over_a_decision() -> None:
    log = Log()
    decided(log, "approve", 1)
    log.follow("promote", 1)
    decided(log, "reject", 2)
    log.follow("promote again", 3)

    assert log.statuses() == ["counted"] * 4
    assert [line.number for line in log.fold().counted] == [2, 4]
    assert log.fold().previous() is not None


def test_of_two_who_decide_at_once_the_first_holds_and_is_named() -> None:
    log = served(1)
    seen = log.fold().tail
    log.add(body("reject/2/ada", 2, seen, action="reject", to_digest="a"))
    log.add(body("approve/2/bob", 2, seen, action="approve", to_digest="a", author="bob"))
    log.add(body("approve/3/bob", 3, seen, action="approve", to_digest="a", author="bob"))

    assert log.statuses() == ["counted", "counted", "superseded", "counted"]
    ledger = log.fold()
    first, other = ledger.decision(2, "a"), ledger.decision(3, "a")
    assert first is not None
    assert (first.body.action, first.body.author) == ("reject", "ada")
    assert other is not None
    assert other.body.action == "approve"
    assert "entry 2 (reject of version 2 by ada)" in ledger.lines[2].sentence


def test_a_decision_written_while_another_promoted_still_holds() -> None:
    log = served(1)
    seen = log.fold().tail
    log.follow("b", 2)
    log.add(body("approve/3/ada", 3, seen, action="approve", to_digest="a"))

    assert log.fold().decision(3, "a") is not None
    assert log.fold().number == 2


def test_a_decision_in_a_restarted_ledger_breaks_it() -> None:
    log = Log()
    log.add(body("approve/3/ada", 3, Link(number=7, digest="f" * 64), action="approve", to_digest="a"))

    assert log.fold().broken is not None
    assert log.fold().decision(3, "a") is None
