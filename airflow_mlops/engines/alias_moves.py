"""The acts that move an alias: promote, roll back, adopt, override. Each writes one ledger entry.

All compare and swap: the entry names the one it expects to follow, and only the ledger's order decides. An act that
finds its own key in the ledger adopts that entry instead of writing another, so a retry after a kill finishes what was
begun.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mlops.core.ledger import Action, Body, Judged, Ledger, Link, describe, window_objection
from airflow_mlops.core.records import Approval, ModelVersionRef, Promotion, PromotionOutcome, Window
from airflow_mlops.engines.promotions import Survey, append, command, settle, survey
from airflow_mlops.engines.versions import VersionFacts, check_name, facts_of, get_version
from airflow_mlops.errors import InvalidSpecError, LedgerError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MAX_REASON = 2_000
#: Verdicts with which a version may become champion, the last one once a person approved.
PROMOTABLE = ("promote", "first_model", "needs_approval")


@dataclass(frozen=True)
class Wish:
    """Who wants to move which alias, and why.

    :param key: names the act; the same key again is the same act, however often it is tried.
    :raises InvalidSpecError: author or reason is blank, or the reason is longer than 2,000 characters.
    """

    name: str
    alias: str
    author: str
    reason: str
    key: str

    def __post_init__(self) -> None:
        check_name(self.name)
        for what, value in (("author", self.author), ("reason", self.reason), ("key", self.key)):
            if not value.strip():
                raise InvalidSpecError(f"Moving {self.alias!r} of {self.name!r} needs a {what}: it is kept for good.")
        if len(self.reason) > MAX_REASON:
            raise InvalidSpecError(
                f"The reason for moving {self.alias!r} of {self.name!r} has {len(self.reason)} characters; at most "
                f"{MAX_REASON} are kept. Shorten it and point to the rest."
            )


def promote(client: MlflowClient, wish: Wish, version: ModelVersionRef, approval: Approval | None = None) -> Promotion:
    """Make ``version`` champion if the ledger still stands where its evaluation saw it.

    Whether a version that needs approval was approved is read from the ledger, never from what is handed in; the entry
    names who approved it.

    :param approval: what the approve task handed on; it must be about this version.
    :return: ``promoted``; ``superseded``: another entry followed the one the evaluation saw, it is named; ``refused``:
        an older window, a deleted version, a verdict that lets nothing through, no approval; ``needs_attention``: a
        person must settle something first; ``dry_run``: nothing was written, the sentence says what would have
        happened.
    """
    dry = version.mode == "dry_run"
    try:
        ledger = settle(client, wish.name, wish.alias)
        wish = _signed(wish, version, ledger)
        if not dry and ledger.by_key(wish.key) is not None:
            return _conclude(client, wish)
        facts = _found(client, wish.name, version.version)
        objection = (
            _wrong_approval(version, approval) or _objection(version, facts, ledger) or _unapproved(version, ledger)
        )
    except LedgerError as exc:
        sentence = _dry(str(exc)) if dry else str(exc)
        return _answer(wish, None, "dry_run" if dry else "needs_attention", sentence, version)
    if objection is not None or facts is None:
        outcome, sentence = objection or ("refused", "")
        return _answer(wish, ledger, "dry_run" if dry else outcome, _dry(sentence) if dry else sentence, version)
    head = ledger.head
    if head is not None and head.body.to_version == version.version:
        sentence = f"Version {version.version} of {wish.name!r} is {wish.alias} already, since entry {head.number}."
        return _answer(wish, ledger, "dry_run" if dry else "promoted", sentence, version, entry=head.number)
    if dry:
        sentence = _dry(f"version {version.version} would follow {ledger.tail} as {wish.alias} of {wish.name!r}.")
        return _answer(wish, ledger, "dry_run", sentence, version)
    window = version.window or facts.window
    return _act(client, wish, ledger, "promote", facts, window=window, evidence=version.evidence_uri)


def refusal(client: MlflowClient, wish: Wish, version: ModelVersionRef) -> Promotion | None:
    """Return what :func:`promote` would answer even if a person approved, or None where an approval would suffice."""
    try:
        ledger = settle(client, wish.name, wish.alias)
    except LedgerError as exc:
        return _answer(wish, None, "needs_attention", str(exc), version)
    objection = _objection(version, _found(client, version.name, version.version), ledger)
    return None if objection is None else _answer(wish, ledger, *objection, version)


def rollback(client: MlflowClient, wish: Wish, *, only_from: int | None = None) -> Promotion:
    """Restore the version that served before the present champion.

    Which one that is comes from the ledger's order, so a rollback can be rolled back. Windows do not matter here.

    :param only_from: refuse unless this version is the champion still; what was found out about it is not of another.
    :return: ``promoted``; ``superseded``: another entry came first, it is named; ``refused``: nothing served before, or
        that version was deleted; ``needs_attention``.
    """
    found = survey(client, wish.name, wish.alias)
    ledger = found.ledger
    if ledger.by_key(wish.key) is not None:
        return _conclude(client, wish)
    if found.state in ("moved", "unadopted", "broken"):
        return _answer(wish, ledger, "needs_attention", str(found.problem()))
    if ledger.head is None:
        sentence = f"{wish.name!r} has no {wish.alias}, so there is nothing to roll back."
        return _answer(wish, ledger, "refused", sentence)
    if only_from is not None and ledger.head.body.to_version != only_from:
        sentence = (
            f"Version {ledger.head.body.to_version} of {wish.name!r} is {wish.alias} now, not version {only_from}, "
            f"which was to be rolled back; nothing was moved."
        )
        return _answer(wish, ledger, "refused", sentence)
    target = ledger.previous()
    if target is None:
        sentence = (
            f"Version {ledger.head.body.to_version} of {wish.name!r} is the first that was {wish.alias}; no version "
            f"served before it. To choose one: {_override(wish)}"
        )
        return _answer(wish, ledger, "refused", sentence)
    facts = _found(client, wish.name, target.body.to_version)
    if facts is None or facts.model_digest != (target.body.to_digest or facts.model_digest):
        return _answer(wish, ledger, "refused", _lost_target(client, wish, ledger, target, replaced=facts is not None))
    body = target.body
    return _act(client, wish, ledger, "rollback", facts, window=body.window, evidence=body.evidence_uri)


def adopt(client: MlflowClient, wish: Wish) -> Promotion:
    """Record where the alias stands: as entry 1 without a ledger, as a move by hand, or to mend a broken chain.

    What the adopted version does not say of itself is named in the entry and the sentence, never made up.
    """
    for attempt in (1, 2):
        act = wish if attempt == 1 else _again(wish)
        found = survey(client, act.name, act.alias)
        if found.ledger.by_key(act.key) is not None:
            return _conclude(client, act)
        if found.state in ("agrees", "pending", "empty", "gone", "deleted") or found.version is None:
            return _answer(act, found.ledger, "refused", _nothing_to_adopt(act, found))
        facts = _found(client, act.name, found.version)
        if facts is None:
            continue
        answer = _by_hand(client, act, found, "adopt", facts)
        # The last entry of a ledger can be deleted without a trace; the gap shows once the next entry is written.
        if answer.outcome != "needs_attention":
            return answer
    return answer


def override(client: MlflowClient, wish: Wish, version: int) -> Promotion:
    """Make ``version`` champion because a person says so, without evidence and whatever its window: audited.

    An alias moved by hand is not overwritten by this either: it is adopted first.
    """
    for attempt in (1, 2):
        act = wish if attempt == 1 else _again(wish)
        found = survey(client, act.name, act.alias)
        if found.ledger.by_key(act.key) is not None:
            return _conclude(client, act)
        if found.state in ("moved", "unadopted"):
            return _answer(act, found.ledger, "needs_attention", str(found.problem()))
        facts = _found(client, act.name, version)
        if facts is None:
            sentence = f"There is no version {version} of {act.name!r}: it was deleted or never registered."
            return _answer(act, found.ledger, "refused", sentence)
        head = found.ledger.head
        if found.state in ("agrees", "pending") and head is not None and head.body.to_version == version:
            sentence = f"Version {version} of {act.name!r} is {act.alias} already, since entry {head.number}."
            return _answer(act, found.ledger, "refused", sentence)
        answer = _by_hand(client, act, found, "override", facts)
        if answer.outcome != "needs_attention":
            return answer
    return answer


def _objection(
    version: ModelVersionRef, facts: VersionFacts | None, ledger: Ledger
) -> tuple[PromotionOutcome, str] | None:
    name, number = version.name, version.version
    if version.verdict not in PROMOTABLE:
        return "refused", f"Version {number} of {name!r} has the gate verdict {version.verdict!r}: it is not promoted."
    if version.ledger_entry > ledger.number:
        return "needs_attention", (
            f"The evaluation of version {number} of {name!r} saw ledger entry {version.ledger_entry}, but the ledger "
            f"now ends at entry {ledger.number}: it was deleted or made again. Evaluate the candidate again."
        )
    head = ledger.head
    if version.ledger_entry < ledger.number and not (head is not None and _made_champion(head, version)):
        winner = ledger.follower(version.ledger_entry)
        by = f"entry {winner.number} ({describe(winner)})" if winner is not None else f"entry {ledger.number}"
        seen = Link(number=version.ledger_entry)
        return "superseded", (
            f"Version {number} of {name!r} was judged against {seen}, but {by} followed that first. Its evidence is "
            f"out of date; the next run judges against the new champion."
        )
    if facts is None:
        return "refused", f"Version {number} of {name!r} was deleted from MLflow before it could be promoted."
    if facts.model_digest != version.digest:
        found = facts.model_digest[:12] if facts.model_digest else "not known"
        return "refused", (
            f"Version {number} of {name!r} is not the model that was judged: its digest is {found}, "
            f"the judged one's {version.digest[:12]}. The registered model was deleted and made again; register anew."
        )
    blame = window_objection(version.window, head.body.window if head is not None else None)
    if head is not None and blame is not None:
        return "refused", (
            f"Version {number} of {name!r} does not replace version {head.body.to_version} (entry {head.number}): "
            f"{blame}."
        )
    return None


def _made_champion(head: Judged, version: ModelVersionRef) -> bool:
    """Say whether another act with the same evidence promoted this version: the task's or the command line's."""
    body = head.body
    same = (body.to_version, body.to_digest) == (version.version, version.digest)
    return same and body.action == "promote" and body.expects.number == version.ledger_entry


def _wrong_approval(version: ModelVersionRef, approval: Approval | None) -> tuple[PromotionOutcome, str] | None:
    if approval is None:
        return None
    if (approval.name, approval.version) != (version.name, version.version):
        return "refused", (
            f"The approval handed in is about version {approval.version} of {approval.name!r}, not about version "
            f"{version.version} of {version.name!r}. Give promote and approve the same version."
        )
    if approval.outcome in ("rejected", "timed_out") and version.verdict != "needs_approval":
        return "refused", f"Version {version.version} of {version.name!r} is not promoted: {approval.sentence}"
    return None


def _unapproved(version: ModelVersionRef, ledger: Ledger) -> tuple[PromotionOutcome, str] | None:
    if version.verdict != "needs_approval":
        return None
    decision = ledger.decision(version.version, version.digest)
    if decision is None:
        approve = command("promote", version.name, ledger.alias, str(version.version), "--approve")
        return "refused", (
            f"Version {version.version} of {version.name!r} waits for a person: every rule passed, and nobody has "
            f"approved it yet. To approve and promote it: {approve}"
        )
    if decision.body.action == "reject":
        return "refused", (
            f"Version {version.version} of {version.name!r} was rejected by {decision.body.author} (entry "
            f"{decision.number}): {decision.body.reason}"
        )
    return None


def _signed(wish: Wish, version: ModelVersionRef, ledger: Ledger) -> Wish:
    """Return the wish with the name and reason of who approved the version, where its verdict asked for that."""
    decision = ledger.decision(version.version, version.digest) if version.verdict == "needs_approval" else None
    if decision is None or decision.body.action != "approve":
        return wish
    who = decision.body.author
    reason = f"approved by {who}: {decision.body.reason}"
    return replace(wish, author=f"{who} ({wish.author})", reason=reason[:MAX_REASON])


def _by_hand(client: MlflowClient, wish: Wish, found: Survey, action: Action, facts: VersionFacts) -> Promotion:
    mends = found.state == "broken"
    window, evidence = facts.window, facts.evidence_uri
    return _act(
        client, wish, found.ledger, action, facts, window=window, evidence=evidence, mends=mends, lacks=facts.lacks
    )


def _act(
    client: MlflowClient,
    wish: Wish,
    ledger: Ledger,
    action: Action,
    facts: VersionFacts,
    *,
    window: Window | None,
    evidence: str | None,
    mends: bool = False,
    lacks: tuple[str, ...] = (),
) -> Promotion:
    """Write the entry and say what became of it."""
    body = Body(
        action=action,
        model=wish.name,
        alias=wish.alias,
        from_version=ledger.head.body.to_version if ledger.head is not None else None,
        to_version=facts.version,
        to_digest=facts.model_digest,
        window=window,
        train_window=facts.train_window,
        author=wish.author,
        reason=wish.reason,
        evidence_uri=evidence,
        key=wish.key,
        expects=ledger.last if mends else ledger.tail,
        mends=mends,
        lacks=lacks,
        written_at=datetime.now(UTC),
    )
    try:
        append(client, body)
    except LedgerError as exc:
        return _answer(wish, ledger, "needs_attention", str(exc))
    return _conclude(client, wish)


def _conclude(client: MlflowClient, wish: Wish) -> Promotion:
    """Bring the alias to agree and say what became of the entry with the wish's key."""
    try:
        ledger = settle(client, wish.name, wish.alias, owner=wish.key)
    except LedgerError as exc:
        return _answer(wish, None, "needs_attention", str(exc))
    line = ledger.by_key(wish.key)
    head = ledger.head
    if line is None or head is None:
        sentence = f"The entry that was written for {wish.key} is not in the ledger of {wish.name!r} any more."
        return _answer(wish, ledger, "needs_attention", sentence)
    body = line.body
    if line.status != "counted":
        winner = ledger.follower(body.expects.number) or head
        if (winner.number, winner.body.action, body.action) == (head.number, "promote", "promote") and (
            winner.body.to_version,
            winner.body.to_digest,
        ) == (body.to_version, body.to_digest):
            # The task and the command line promoted one version at once: both wanted what now holds.
            sentence = f"Version {body.to_version} of {wish.name!r} is {wish.alias} already, since entry {head.number}."
            return _answer(wish, ledger, "promoted", sentence, line=winner)
        sentence = (
            f"Version {body.to_version} of {wish.name!r} did not become {wish.alias}: entry {winner.number} "
            f"({describe(winner)}) followed {body.expects} before this one, entry {line.number}."
        )
        return _answer(wish, ledger, "superseded", sentence, line=line)
    was = f"was version {body.from_version}" if body.from_version is not None else "there was none"
    sentence = f"{wish.alias} of {wish.name!r} is version {body.to_version} since entry {line.number} ({was})."
    if body.action != "promote":
        sentence = f"{sentence} {body.action.capitalize()}: {body.reason}"
    if body.lacks:
        sentence = f"{sentence} What version {body.to_version} does not say of itself: {', '.join(body.lacks)}."
    if head.number != line.number:
        sentence = f"{sentence} By now entry {head.number} ({describe(head)}) has followed."
    return _answer(wish, ledger, "promoted", sentence, line=line)


def _answer(
    wish: Wish,
    ledger: Ledger | None,
    outcome: PromotionOutcome,
    sentence: str,
    version: ModelVersionRef | None = None,
    *,
    line: Judged | None = None,
    entry: int | None = None,
) -> Promotion:
    head = ledger.head if ledger is not None else None
    body = line.body if line is not None else None
    return Promotion(
        outcome=outcome,
        name=wish.name,
        alias=wish.alias,
        sentence=sentence,
        entry=line.number if line is not None else entry,
        from_version=body.from_version if body is not None else (head.body.to_version if head is not None else None),
        to_version=body.to_version if body is not None else (version.version if version is not None else None),
        champion_version=head.body.to_version if head is not None else None,
        author=wish.author,
        reason=wish.reason,
        window=body.window if body is not None else (version.window if version is not None else None),
    )


def _found(client: MlflowClient, name: str, version: int) -> VersionFacts | None:
    found = get_version(client, name, version)
    return None if found is None else facts_of(found)


def _lost_target(client: MlflowClient, wish: Wish, ledger: Ledger, target: Judged, *, replaced: bool) -> str:
    fate = "is another model now (its digest differs from the entry's)" if replaced else "was deleted from MLflow"
    others: list[int] = []
    for line in reversed(ledger.counted):
        version = line.body.to_version
        known = {target.body.to_version, ledger.head.body.to_version if ledger.head else None, *others}
        if version not in known and _found(client, wish.name, version) is not None:
            others.append(version)
    left = f"Served before and still there: {', '.join(map(str, others[:5]))}." if others else "No other one is left."
    return (
        f"Version {target.body.to_version} of {wish.name!r}, which served before (entry {target.number}), {fate}: it "
        f"cannot be restored. Nothing moved. {left} To choose one: {_override(wish)}"
    )


def _nothing_to_adopt(wish: Wish, found: Survey) -> str:
    head = found.ledger.head
    if found.state in ("agrees", "pending") and head is not None:
        return f"Nothing to adopt: alias and ledger agree on version {head.body.to_version} (entry {head.number})."
    if found.state == "empty":
        return f"Nothing to adopt: {wish.name!r} has no {wish.alias} and no ledger. To set one: {_override(wish)}"
    return f"Nothing to adopt, because the alias does not exist. {found.problem()}"


def _override(wish: Wish) -> str:
    return command("promote", wish.name, wish.alias, "VERSION", "--override")


def _again(wish: Wish) -> Wish:
    return Wish(wish.name, wish.alias, wish.author, wish.reason, f"{wish.key}#again")


def _dry(sentence: str) -> str:
    return f"Dry run, nothing moves: {sentence}"
