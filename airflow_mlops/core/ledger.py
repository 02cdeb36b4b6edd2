"""The promotion ledger as a pure fold: a numbered list of entries in, who is champion and why out.

An entry is written whole, under a number the registry hands out in order, and is never edited. It names the entry it
expects to follow. Reading the list from the front, an entry **counts** only when the entry it expects is the last one
that counted, so of any number of writers who saw the same state exactly one counts and the rest are **superseded**.
What an entry became depends on lower numbers alone: once read, it never changes. Entry numbers are compared, not model
versions, because after a rollback the same version serves again.

What a person **decided** of a candidate that waits for approval stands in the same numbered list. Such an entry moves
nothing and nothing follows it; of several about one version the first holds, so two people who answer at the same
moment get one answer.

Whatever no honest writer can produce (a missing number, an entry whose text no longer has its digest, an entry that
expects one which cannot have existed) **breaks** the chain. Nothing counts after a break until a person's entry says
that it mends it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field, ValidationError

from airflow_mlops.core.records import Frozen, Window

SCHEMA = "promotion-entry/1"
#: An overtaken writer that is still alive may set the alias once more. After this long it is taken to be gone, and an
#: alias that differs was moved by a person. Much longer than any request's budget, so that clocks may disagree.
LATE_WRITER = timedelta(hours=1)

Action = Literal["promote", "rollback", "adopt", "override", "approve", "reject"]
#: The actions that say what a person decided of a candidate; they move no alias.
DECISIONS = ("approve", "reject")
EntryStatus = Literal["counted", "superseded", "duplicate", "broken"]
AliasState = Literal["empty", "unadopted", "agrees", "unfinished", "gone", "moved"]
Hand = Literal["owner", "helper"]


class Link(Frozen):
    """The entry another one expects to follow. Number 0 with no digest stands for the start of the ledger."""

    number: int = Field(default=0, ge=0)
    digest: str = ""

    def __str__(self) -> str:
        return f"entry {self.number}" if self.number else "the start of the ledger"


START = Link()


class Body(Frozen):
    """What an entry says.

    :param via: through what the author acted, where that is not the author: an Airflow task or the command line.
    :param mends: set where a person's entry restarts a broken chain.
    """

    action: Action
    model: str
    alias: str
    from_version: int | None
    to_version: int
    to_digest: str | None = None
    window: Window | None = None
    train_window: Window | None = None
    author: str
    via: str = ""
    reason: str
    evidence_uri: str | None = None
    key: str
    expects: Link = START
    mends: bool = False
    lacks: tuple[str, ...] = ()
    written_at: datetime

    def to_text(self) -> str:
        """Return the entry's text: canonical JSON with the schema, over which its digest is taken."""
        value = {"schema": SCHEMA, **self.model_dump(mode="json")}
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def text_digest(text: str) -> str:
    """Return the SHA-256 of an entry's text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One numbered line of the ledger as it was read.

    :param body: what it says, or None where it cannot be read; ``problem`` then says why.
    :param applied: who saw alias and ledger agree after it: its own writer, or a helper that finished it.
    """

    number: int
    digest: str
    body: Body | None
    problem: str | None = None
    applied: Hand | None = None
    created_at: datetime | None = None

    @property
    def link(self) -> Link:
        """Return how the next entry names this one."""
        return Link(number=self.number, digest=self.digest)


def read_entry(
    number: int,
    text: str | None,
    claimed_digest: str | None,
    *,
    applied: Hand | None = None,
    created_at: datetime | None = None,
) -> Entry:
    """Rebuild an entry from what the registry holds. What cannot be trusted becomes a ``problem``, not an error.

    :param text: the text as stored; None where it is missing.
    :param claimed_digest: the digest that was stored beside it.
    """
    digest = text_digest(text or "")
    body: Body | None = None
    problem: str | None = None
    if text is None:
        problem = "it holds no entry text"
    elif digest != claimed_digest:
        problem = "its text was edited: it no longer has the digest it was written with"
    else:
        try:
            value = json.loads(text)
            schema = value.get("schema") if isinstance(value, dict) else None
            if schema == SCHEMA:
                body = Body.model_validate(value)
            else:
                problem = f"it has schema {schema!r}, this version of the package reads {SCHEMA!r}; upgrade it"
        except (json.JSONDecodeError, ValidationError) as exc:
            problem = f"its text is not an entry ({type(exc).__name__})"
    return Entry(number, digest, body, problem, applied, created_at)


@dataclass(frozen=True)
class Judged:
    """An entry and what became of it, in a sentence."""

    entry: Entry
    status: EntryStatus
    sentence: str

    @property
    def body(self) -> Body:
        """Return what the entry says.

        :raises ValueError: it cannot be read.
        """
        if self.entry.body is None:
            raise ValueError(f"entry {self.entry.number} cannot be read: {self.entry.problem}")
        return self.entry.body

    @property
    def number(self) -> int:
        """Return the entry's number."""
        return self.entry.number


@dataclass(frozen=True)
class Ledger:
    """The state of one alias after all entries.

    :param lines: every entry of this alias, and every unreadable one, in order.
    :param last: the entry with the highest number, of whatever alias and fate: what a mending entry must follow.
    :param broken: what broke the chain, in a sentence, or None while it is sound.
    """

    model: str
    alias: str
    lines: tuple[Judged, ...] = ()
    last: Link = START
    broken: str | None = None
    _counted: tuple[Judged, ...] = field(default=(), repr=False)
    _decisions: tuple[Judged, ...] = field(default=(), repr=False)

    @property
    def head(self) -> Judged | None:
        """Return the last entry that counted: it says who is champion."""
        return self._counted[-1] if self._counted else None

    @property
    def number(self) -> int:
        """Return the number of the last entry that counted, 0 before the first."""
        return self._counted[-1].number if self._counted else 0

    @property
    def tail(self) -> Link:
        """Return what the next entry must expect to follow."""
        return self._counted[-1].entry.link if self._counted else START

    @property
    def counted(self) -> tuple[Judged, ...]:
        """Return the entries that counted, in order."""
        return self._counted

    def by_key(self, key: str) -> Judged | None:
        """Return the entry that decides for this key: the first that a break did not void, however many there are."""
        return next((line for line in self.lines if line.status != "broken" and line.body.key == key), None)

    def at(self, number: int) -> Judged | None:
        """Return the entry with this number, where this alias has one."""
        return next((line for line in self.lines if line.number == number), None)

    def decision(self, version: int, digest: str) -> Judged | None:
        """Return what a person decided of this version of this model: the first such entry that holds, or None."""
        return next((line for line in self._decisions if _about(line.body) == (version, digest)), None)

    def follower(self, number: int) -> Judged | None:
        """Return the entry that counted next after entry ``number`` (0: the first that counted)."""
        return next((line for line in self._counted if line.number > number), None)

    def previous(self) -> Judged | None:
        """Return the entry whose version served before the present champion, or None where none did.

        Serving order comes from the entries, never from version numbers: it is the last counted entry before the head
        that names another version. Rolling back a rollback therefore brings back what was rolled back.
        """
        if self.head is None:
            return None
        now = self.head.body.to_version
        return next((line for line in reversed(self._counted[:-1]) if line.body.to_version != now), None)


def fold(model: str, alias: str, entries: Iterable[Entry]) -> Ledger:
    """Read a ledger from its first entry to its last and say what each entry became.

    :param entries: all entries of the model in any order; those of other aliases only prove that no number is missing.
    """
    lines: list[Judged] = []
    counted: list[Judged] = []
    decisions: list[Judged] = []
    keys: set[str] = set()
    last, broken = START, None
    for entry in sorted(entries, key=lambda each: each.number):
        if entry.number != last.number + 1:
            broken = broken or _missing(last.number + 1, entry.number - 1)
        previous, last = last, entry.link
        if entry.body is None:
            broken = broken or f"Entry {entry.number} cannot be trusted: {entry.problem}."
            lines.append(Judged(entry, "broken", f"It breaks the ledger: {entry.problem}."))
            continue
        if entry.body.alias != alias:
            continue
        if broken is not None and entry.body.mends and entry.body.expects == previous:
            broken = None
            line = Judged(entry, "counted", "It counts: a person's entry that mends the chain.")
        elif broken is not None:
            line = Judged(entry, "broken", f"It does not count, because the chain is broken before it: {broken}")
        else:
            line = _judge(entry, entry.body, counted, keys, decisions)
            if line.status == "broken":
                broken = line.sentence
        lines.append(line)
        if line.status != "broken":
            keys.add(entry.body.key)
        if line.status == "counted":
            (decisions if entry.body.action in DECISIONS else counted).append(line)
    return Ledger(model, alias, tuple(lines), last, broken, tuple(counted), tuple(decisions))


def _judge(entry: Entry, body: Body, counted: Sequence[Judged], keys: set[str], decisions: Sequence[Judged]) -> Judged:
    tail = counted[-1].entry.link if counted else START
    expects = body.expects
    if body.key in keys:
        return Judged(entry, "duplicate", "It does not count: an earlier entry has the same key.")
    if body.mends:
        return Judged(entry, "superseded", "It does not count: the chain it was to mend was mended before it.")
    decision = body.action in DECISIONS
    if expects == tail and not decision:
        return Judged(entry, "counted", f"It counts: it follows {tail}, the last that counted.")
    if expects.number >= entry.number:
        return Judged(
            entry,
            "broken",
            f"Entry {entry.number} expects {expects}, which cannot have existed before it: the numbering was restarted "
            f"(the ledger's registered model was deleted and made again).",
        )
    known = expects == START or any(line.entry.link == expects for line in counted)
    if not known:
        return Judged(
            entry,
            "broken",
            f"Entry {entry.number} expects {expects} with digest {expects.digest[:12]}, and no entry that counted is "
            f"that one: the ledger was changed or made again.",
        )
    if decision:
        first = next((line for line in decisions if _about(line.body) == _about(body)), None)
        if first is None:
            return Judged(entry, "counted", f"It holds: nobody decided of version {body.to_version} before.")
        said = f"It does not hold: entry {first.number} ({describe(first)}) decided that before."
        return Judged(entry, "superseded", said)
    winner = next(line for line in counted if line.number > expects.number)
    return Judged(
        entry,
        "superseded",
        f"It does not count: it expects {expects}, but entry {winner.number} ({describe(winner)}) followed that first.",
    )


def _about(body: Body) -> tuple[int, str | None]:
    return body.to_version, body.to_digest


def _missing(first: int, last: int) -> str:
    if first == last:
        return f"Entry {first} is missing: it was deleted."
    return f"Entries {first} to {last} are missing: they were deleted."


def describe(line: Judged) -> str:
    """Return an entry's act in a few words: ``promote of version 4 by airflow:...``."""
    return f"{line.body.action} of version {line.body.to_version} by {line.body.author}"


def alias_state(ledger: Ledger, version: int | None, *, now: datetime) -> AliasState:
    """Say how the alias stands to the ledger.

    :param version: the version the alias names, None where there is no such alias.
    :param now: the reader's clock; only used to tell a late writer from a person (see :data:`LATE_WRITER`).
    :return: ``empty``: neither knows a champion. ``unadopted``: an alias without a ledger. ``agrees``.
        ``unfinished``: the ledger's answer holds and the alias is still to be set, or was set back by a writer that
        was overtaken. ``gone``: it was applied and the alias no longer exists. ``moved``: it was applied and a person
        set the alias to another version.
    """
    head = ledger.head
    if head is None:
        return "empty" if version is None else "unadopted"
    if version == head.body.to_version:
        return "agrees"
    if head.entry.applied is None:
        return "unfinished"
    if version is None:
        return "gone"
    late = next((line.number for line in ledger.counted[:-1] if _may_write_late(line.entry, now)), head.number)
    if any(line.number >= late and line.body.to_version == version for line in ledger.counted):
        return "unfinished"
    return "moved"


def _may_write_late(entry: Entry, now: datetime) -> bool:
    """Say whether this entry's writer may still set the alias, to its own version or to that of any later entry."""
    young = entry.created_at is None or now - entry.created_at < LATE_WRITER
    return young and entry.applied != "owner"


def is_older(candidate: Window | None, champion: Window | None) -> bool:
    """Say whether the candidate's window is known to be older than the champion's: it ends before."""
    return candidate is not None and champion is not None and candidate.end < champion.end


def window_objection(candidate: Window | None, champion: Window | None) -> str | None:
    """Say why a candidate's window may not take the alias from the champion's, or None where it may.

    The later end is the newer window; an equal end may. A champion without a window (adopted, or of data without
    event time) is no hindrance; a candidate without one is, because nothing shows that it is not older.
    """
    if champion is None:
        return None
    if candidate is None:
        return (
            f"its data window is unknown while the champion's is {champion}, so nothing shows that it is not older; a "
            f"person may override this"
        )
    if is_older(candidate, champion):
        return (
            f"its data window {candidate} is older than the champion's {champion}: a run over an older window never "
            f"takes the alias from a newer one"
        )
    return None
