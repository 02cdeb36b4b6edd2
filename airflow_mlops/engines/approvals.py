"""What people decided of candidates that wait for approval, and which candidates wait.

A decision is an entry of the promotion ledger: written whole in one create call, numbered by the registry, never
edited. Of several about one version the lowest number holds, so two people who answer at the same moment, one on
Airflow's page and one on the command line, get one answer. The tag :data:`APPROVAL` of the model version shows the
state where people look (waiting, timed out, approved, rejected); nobody decides by it. Whoever writes the tag while
there is no decision reads the ledger once more afterwards, so a decision that came in between is not hidden.

A time-out is nobody's decision: it is shown in the tag only, and the candidate can be asked about again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.ledger import Body, Judged, Ledger
from airflow_mlops.core.records import Approval, ModelVersionRef, Promotion
from airflow_mlops.engines import versions
from airflow_mlops.engines.alias_moves import Wish, promote, refusal
from airflow_mlops.engines.promotions import DEFAULT_ALIAS, append, command, read_ledger, settle
from airflow_mlops.engines.runs import DUPLICATE_OF, INPUT_DIGEST, KEY, SUPERSEDED_BY
from airflow_mlops.errors import InvalidSpecError, LedgerError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

APPROVAL = "airflow_mlops.approval"
COMMAND_LINE = "command line"
NO_REASON = "no reason given"
MAX_AUTHOR = 200
MAX_REASON = 1_000

Said = Literal["approve", "reject"]


@dataclass(frozen=True)
class Answer:
    """What one person says of a candidate.

    :param via: where it was said: ``airflow:DAG/RUN/TASK`` or ``command line``.
    """

    said: Said
    author: str
    reason: str
    via: str


@dataclass(frozen=True)
class Waiting:
    """A candidate that a person must decide on.

    :param since: when somebody was first asked, or the version was registered.
    :param until: when the task that asks gives up; None where no task asks.
    :param timed_out: a task asked and got no answer in time; it can still be answered.
    """

    name: str
    version: int
    since: datetime | None
    until: datetime | None
    timed_out: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; times are ISO 8601 in UTC."""
        return {
            "model": self.name,
            "version": self.version,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "timed_out": self.timed_out,
        }


def pause(point: str) -> None:
    """Do nothing. Fault tests put a delay or a kill here; ``point`` says which place was reached."""


# What was decided -----------------------------------------------------------------------------------------------------


def read_approval(client: MlflowClient, version: ModelVersionRef, alias: str) -> Approval | None:
    """Return what a person decided of this version, as the ledger has it, or None."""
    line = _decision(client, version, alias)
    return None if line is None else _approval(version, line)


def record_approval(client: MlflowClient, version: ModelVersionRef, alias: str, answer: Answer) -> Approval:
    """Write a person's decision, unless there is one, and return the decision that holds: it may be another's.

    :raises LedgerError: the ledger is broken, or the version was deleted or replaced by another model.
    """
    _require(client, version)
    ledger = read_ledger(client, version.name, alias)
    if ledger.broken is not None:
        ledger = settle(client, version.name, alias)  # raises with the command that mends it
    if ledger.decision(version.version, version.digest) is None:
        pause("before-decision")
        append(client, _body(version, ledger, answer))
    line = _show(client, version, alias, {})
    if line is None:
        raise LedgerError(
            f"The decision on version {version.version} of {version.name!r} was written, but the promotion ledger does "
            f"not hold it: the ledger was changed meanwhile. See: airflow-mlops history {version.name}"
        )
    return _approval(version, line)


def ask(client: MlflowClient, version: ModelVersionRef, alias: str, *, by: str, attempt: int, hours: float) -> datetime:
    """Mark the version as waiting for an answer and return until when.

    A task that is tried again or cleared while it waits goes on with its first clock as long as that runs. Later it
    starts anew, so that nobody's time is over before the question is read: a try that failed to note the time-out asks
    once more. Only the try that set the clock is told that it has run out.

    :param by: the key of the task that asks.
    :param attempt: the task's try number; the same one may ask again and again.
    :raises LedgerError: the version was deleted or replaced by another model.
    """
    known = _state(_require(client, version))
    now, length = datetime.now(UTC), timedelta(hours=hours)
    asked = _time(known.get("asked_at")) if (known.get("outcome"), known.get("asked_by")) == ("waiting", by) else None
    if asked is None or (asked + length <= now and known.get("attempt") != attempt):
        asked = now
    until = asked + length
    state = {
        "outcome": "waiting",
        "asked_by": by,
        "attempt": attempt,
        "asked_at": asked.isoformat(),
        "until": until.isoformat(),
    }
    if known != state:
        _show(client, version, alias, state)
    return until


def time_out(client: MlflowClient, version: ModelVersionRef, alias: str, *, hours: float) -> Approval:
    """Mark the version as unanswered, unless somebody decided after all: then that decision is returned."""
    known = _state(_require(client, version))
    now = datetime.now(UTC).isoformat()
    line = _show(client, version, alias, {**known, "outcome": "timed_out", "timed_out_at": now})
    if line is not None:
        return _approval(version, line)
    approve_it = command("promote", version.name, alias, str(version.version), "--approve")
    return Approval(
        outcome="timed_out",
        sentence=f"Nobody answered for version {version.version} of {version.name!r} within {hours:g} hours, so it is "
        f"on hold. To ask again, clear the approve task; to approve it without: {approve_it}",
        name=version.name,
        version=version.version,
        decided_at=now,
    )


# Acts of the command line ---------------------------------------------------------------------------------------------


def approve(client: MlflowClient, wish: Wish, number: int) -> tuple[Approval | None, Promotion]:
    """Approve a candidate that waits, then promote it by compare-and-swap.

    Said again after a kill it finishes what was begun. Where somebody approved before, that approval is used.

    :return: the approval that holds, None where the candidate cannot become champion whoever approves; and what became
        of the promotion.
    :raises InvalidSpecError: there is no such version, or it does not wait for approval.
    :raises LedgerError: it was rejected, or only a person can settle the ledger.
    """
    version = candidate(client, wish.name, number, wish.alias)
    act = Wish(wish.name, wish.alias, COMMAND_LINE, wish.reason, f"approve/{wish.name}/{number}/{version.digest[:12]}")
    ledger = read_ledger(client, wish.name, wish.alias)
    undecided = ledger.decision(number, version.digest) is None and ledger.by_key(act.key) is None
    if undecided and (refused := refusal(client, act, version)) is not None:
        return None, refused
    answer = Answer("approve", wish.author, wish.reason, COMMAND_LINE)
    approval = record_approval(client, version, wish.alias, answer)
    if approval.outcome != "approved":
        override = command("promote", wish.name, wish.alias, str(number), "--override")
        raise LedgerError(
            f"{approval.sentence} The first decision holds, so it is not approved. Train a new candidate, or make this "
            f"one champion on your own account: {override}"
        )
    return approval, promote(client, act, version, approval)


def reject(client: MlflowClient, wish: Wish, number: int) -> Approval:
    """Reject a candidate that waits: nothing moves, now or later.

    :raises InvalidSpecError: there is no such version, or it does not wait for approval.
    :raises LedgerError: it was approved.
    """
    version = candidate(client, wish.name, number, wish.alias)
    answer = Answer("reject", wish.author, wish.reason, COMMAND_LINE)
    approval = record_approval(client, version, wish.alias, answer)
    if approval.outcome != "rejected":
        back = command("rollback", wish.name, wish.alias)
        raise LedgerError(
            f"{approval.sentence} The first decision holds, so it is not rejected. If it is {wish.alias} already and "
            f"should not be: {back}"
        )
    return approval


def candidate(client: MlflowClient, name: str, number: int, alias: str) -> ModelVersionRef:
    """Rebuild, from a version's own tags, what the register task handed on of a candidate that needs approval.

    :raises InvalidSpecError: there is no such version, nobody is asked about it, or it was judged for another alias.
    """
    found = versions.get_version(client, versions.check_name(name), number)
    if found is None:
        raise InvalidSpecError(
            f"There is no version {number} of {name!r}: it was deleted or never registered. What waits: "
            f"airflow-mlops history {name}"
        )
    facts, tags = versions.facts_of(found), found.tags
    if (why := _not_asked(found)) is not None:
        raise InvalidSpecError(f"Version {number} of {name!r} does not wait for approval: {why}")
    if (why := _not_for(found, read_ledger(client, name, alias))) is not None:
        raise InvalidSpecError(f"Version {number} of {name!r} does not wait for approval as {alias!r}: {why}")
    return ModelVersionRef(
        name=name,
        version=number,
        model_uri=facts.model_uri,
        run_id=facts.run_id or "",
        digest=facts.model_digest or "",
        window=facts.window,
        train_window=facts.train_window,
        ledger_entry=int(tags[versions.LEDGER_ENTRY]),
        evidence_uri=facts.evidence_uri,
        verdict="needs_approval",
        key=tags.get(KEY, ""),
        input_digest=tags.get(INPUT_DIGEST, ""),
    )


def waiting(client: MlflowClient, ledger: Ledger) -> tuple[Waiting, ...]:
    """Return the versions that a person could approve now: undecided, and judged against the present champion."""
    name = ledger.model
    found = versions.search(client, name, f" AND tags.`{versions.VERDICT}` = 'needs_approval'")
    return tuple(
        _waiting(name, version)
        for version in found
        if _not_asked(version) is None
        and _not_for(version, ledger) is None
        and int(version.tags[versions.LEDGER_ENTRY]) == ledger.number
        and ledger.decision(int(version.version), version.tags[versions.MODEL_DIGEST]) is None
    )


def the_one_waiting(client: MlflowClient, name: str, alias: str) -> int:
    """Return the only version that waits.

    :raises InvalidSpecError: none waits, or several do; they are listed.
    """
    found = waiting(client, read_ledger(client, versions.check_name(name), alias))
    if len(found) == 1:
        return found[0].version
    if not found:
        raise InvalidSpecError(
            f"No version of {name!r} waits for approval as {alias!r}. What was decided: airflow-mlops history {name}"
        )
    listed = ", ".join(str(one.version) for one in found)
    raise InvalidSpecError(f"Several versions of {name!r} wait for approval: {listed}. Write which one after the name.")


# Parts ----------------------------------------------------------------------------------------------------------------


def _not_asked(version: ModelVersion) -> str | None:
    """Say why nobody is asked about a version, or None where a person is."""
    tags = version.tags
    verdict, override = tags.get(versions.VERDICT), "promote it with --override, which is audited too."
    if verdict is None or not tags.get(versions.MODEL_DIGEST) or not tags.get(versions.LEDGER_ENTRY, "").isdigit():
        return f"it carries no gate verdict, model digest and ledger entry of ours. To make it champion, {override}"
    if verdict != "needs_approval":
        return f"its gate verdict is {verdict!r}. To make it champion whatever its run does, {override}"
    if tags.get(versions.MODE) == "dry_run":
        return f"its gate ran as a dry run, so nothing moves. To make it champion, {override}"
    for tag, what in ((SUPERSEDED_BY, "superseded by"), (DUPLICATE_OF, "a duplicate of")):
        if tag in tags:
            return f"it is {what} version {tags[tag]}, which its task registered. Decide on that one."
    return None


def _not_for(version: ModelVersion, ledger: Ledger) -> str | None:
    """Say why the gate's verdict is not about the ledger's alias, or None where it is.

    A version of an earlier release does not say which alias it was judged for. It passes where the alias is in use
    already, or is the one that everybody gets who names none.
    """
    judged = version.tags.get(versions.JUDGED_ALIAS)
    if judged == ledger.alias:
        return None
    if judged is not None:
        mend = "Leave --alias out" if judged == DEFAULT_ALIAS else f"Write --alias {judged}"
        return f"its gate judged it for the alias {judged!r}. {mend}, or train it for {ledger.alias!r}."
    if ledger.lines or ledger.alias == DEFAULT_ALIAS:
        return None
    return (
        f"nothing was ever {ledger.alias!r}, and the version does not say which alias its gate judged it for. Check "
        f"--alias; without it the command means {DEFAULT_ALIAS!r}. To start {ledger.alias!r} with this version all the "
        f"same, promote it with --override."
    )


def _waiting(name: str, version: ModelVersion) -> Waiting:
    state = _state(version)
    created = version.creation_timestamp
    registered = None if created is None else datetime.fromtimestamp(created / 1000, UTC)
    timed_out = state.get("outcome") == "timed_out"
    return Waiting(
        name=name,
        version=int(version.version),
        since=_time(state.get("asked_at")) or registered,
        until=None if timed_out else _time(state.get("until")),
        timed_out=timed_out,
    )


def _require(client: MlflowClient, version: ModelVersionRef) -> ModelVersion:
    """Return MLflow's version, if it is still the model that was judged."""
    found = versions.get_version(client, version.name, version.version)
    if found is None:
        raise LedgerError(f"Version {version.version} of {version.name!r} was deleted from MLflow: nothing to decide.")
    digest = found.tags.get(versions.MODEL_DIGEST)
    if digest != version.digest:
        raise LedgerError(
            f"Version {version.version} of {version.name!r} is not the model that was judged: its digest is "
            f"{(digest or 'not known')[:12]}, the judged one's {version.digest[:12]}. The registered model was deleted "
            f"and made again; register anew."
        )
    return found


def _decision(client: MlflowClient, version: ModelVersionRef, alias: str) -> Judged | None:
    return read_ledger(client, version.name, alias).decision(version.version, version.digest)


def _body(version: ModelVersionRef, ledger: Ledger, answer: Answer) -> Body:
    author = _line(answer.author, MAX_AUTHOR) or "somebody without a name"
    return Body(
        action=answer.said,
        model=version.name,
        alias=ledger.alias,
        from_version=ledger.head.body.to_version if ledger.head is not None else None,
        to_version=version.version,
        to_digest=version.digest,
        window=version.window,
        train_window=version.train_window,
        author=author,
        via=answer.via,
        reason=_line(answer.reason, MAX_REASON) or NO_REASON,
        evidence_uri=version.evidence_uri,
        key=f"{answer.said}/{version.name}/{version.version}/{version.digest[:12]}/{author}",
        expects=ledger.tail,
        written_at=datetime.now(UTC),
    )


def _show(client: MlflowClient, version: ModelVersionRef, alias: str, otherwise: Mapping[str, Any]) -> Judged | None:
    """Set the tag to what the ledger says, or to ``otherwise`` while it says nothing; return the decision."""
    line = _decision(client, version, alias)
    if line is None and otherwise:
        _set_tag(client, version, otherwise)
        pause("after-tag")
        line = _decision(client, version, alias)
    if line is not None:
        _set_tag(client, version, _told(line))
    return line


def _set_tag(client: MlflowClient, version: ModelVersionRef, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    versions.set_version_tag(client, version.name, version.version, APPROVAL, text)


def _told(line: Judged) -> dict[str, Any]:
    body = line.body
    return {
        "outcome": _outcome(line),
        "author": body.author,
        "reason": body.reason,
        "decided_at": body.written_at.isoformat(),
        "how": body.via,
        "entry": line.number,
    }


def _approval(version: ModelVersionRef, line: Judged) -> Approval:
    body = line.body
    return Approval(
        outcome=_outcome(line),
        sentence=f"Version {version.version} of {version.name!r} was {_outcome(line)} by {body.author} ({body.via}, "
        f"entry {line.number}): {body.reason}",
        name=version.name,
        version=version.version,
        author=body.author,
        reason=body.reason,
        decided_at=body.written_at.isoformat(),
    )


def _outcome(line: Judged) -> Literal["approved", "rejected"]:
    return "approved" if line.body.action == "approve" else "rejected"


def _state(version: ModelVersion) -> dict[str, Any]:
    """Read the tag; nothing where it is missing or was edited into something else."""
    try:
        value = json.loads(version.tags.get(APPROVAL, "{}"))
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _line(text: str, most: int) -> str:
    """Return text on one line, cut to a length that the ledger carries."""
    said = " ".join(text.split())
    return said if len(said) <= most else f"{said[: most - 1]}…"
