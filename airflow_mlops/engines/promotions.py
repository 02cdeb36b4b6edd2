"""The promotion ledger in MLflow: stored as versions of ``NAME.promotions``, and the alias brought to agree with it.

MLflow's alias is set by whoever comes last and keeps no history. Version numbers of one registered model, though, are
handed out in order without gap or double, so they make a log: an entry is one version, written whole in one create
call. Its text is a tag, the digest of that text is another, and its ``source`` is the version it promotes. The only
later write is the ``applied`` mark, set once alias and ledger were seen to agree.

The writer of the last entry brings the alias to agree: it sets it to the ledger's answer, reads both again, and stops
when they agree. One that was overtaken may set an old version for a moment, and mends that itself, because it reads
again. One that is killed leaves its work to whoever reads a little later; until then every reader of ours goes by the
ledger. To tell such late writes from a person's, an entry is marked by its own writer only when that writer is done.
"""

from __future__ import annotations

import logging
import shlex
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

from airflow_mlops.core.keys import key_id
from airflow_mlops.core.ledger import (
    Body,
    Entry,
    Hand,
    Judged,
    Ledger,
    alias_state,
    describe,
    fold,
    read_entry,
    text_digest,
)
from airflow_mlops.engines.runs import KEY, KEY_ID, cut
from airflow_mlops.engines.versions import (
    LEDGER_ENDING,
    MAX_DESCRIPTION,
    alias_version,
    check_name,
    ensure_registered_model,
    get_version,
    search,
    set_version_tag,
)
from airflow_mlops.errors import LedgerError, TrackingUnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

ENTRY = "airflow_mlops.entry"
ENTRY_DIGEST = "airflow_mlops.entry_digest"
APPLIED = "airflow_mlops.applied"
LEDGER_OF = "airflow_mlops.ledger_of"
DEFAULT_ALIAS = "champion"
#: A state that would need a person must be seen this often in a row before it is believed: between reading the ledger
#: and reading the alias another process may have promoted.
CONFIRMATIONS = 3
CONFIRM_SECONDS = 0.5
#: The writer of an entry has this long to set the alias before others do it: help that comes too early would be one
#: more writer that can be late.
HELP_AFTER = timedelta(seconds=10)
#: How long alias and ledger may keep changing under other promotions before the task is left to a retry.
SETTLE_SECONDS = 60.0

State = Literal["empty", "agrees", "pending", "unadopted", "gone", "deleted", "moved", "broken"]


@dataclass(frozen=True)
class Survey:
    """Ledger and alias as they were found, once what was ours to finish was finished.

    ``pending``: the ledger's answer holds, and the writer of its last entry is about to set the alias.

    :param version: what the alias names.
    """

    ledger: Ledger
    state: State
    version: int | None

    def problem(self) -> str | None:
        """Say what a person must settle, with the command that does it; None when there is nothing."""
        return None if self.state in ("empty", "agrees", "pending") else _problem(self)


def pause(point: str) -> None:
    """Do nothing. Fault tests put a delay or a kill here; ``point`` says which place was reached."""


def ledger_name(name: str) -> str:
    """Return the registered model that holds the ledger of ``name``.

    :raises InvalidSpecError: ``name`` cannot have one.
    """
    return f"{check_name(name)}{LEDGER_ENDING}"


def read_ledger(client: MlflowClient, name: str, alias: str) -> Ledger:
    """Read every entry of ``name`` and fold those of ``alias``."""
    return fold(name, alias, [_entry(version) for version in search(client, ledger_name(name))])


def aliases_of(client: MlflowClient, name: str) -> list[str]:
    """Return the aliases that the ledger of ``name`` speaks of, sorted."""
    entries = [_entry(version) for version in search(client, ledger_name(name))]
    return sorted({entry.body.alias for entry in entries if entry.body is not None})


def append(client: MlflowClient, body: Body) -> None:
    """Write an entry: whole, in one create call. What becomes of it is for :func:`read_ledger` to say.

    A reply that is lost leaves an entry behind; the same key written again is a duplicate that does not count.
    """
    from mlflow.exceptions import MlflowException

    text = body.to_text()
    ledger = ledger_name(body.model)
    if body.expects.number == 0:
        ensure_registered_model(
            client,
            ledger,
            description=f"The promotion ledger of {body.model}: one version is one entry, in order. Written by "
            f"airflow-mlops; show it with `airflow-mlops history {body.model}`. Do not edit or delete versions.",
            tags={LEDGER_OF: body.model},
        )
    try:
        client.create_model_version(
            ledger,
            f"models:/{body.model}/{body.to_version}",
            tags={ENTRY: text, ENTRY_DIGEST: text_digest(text), KEY: cut(body.key), KEY_ID: key_id(body.key)},
            description=_description(body),
            await_creation_for=None,  # do not wait: there is nothing to copy
        )
    except MlflowException as exc:
        if get_version(client, body.model, body.to_version) is None:
            raise LedgerError(
                f"Version {body.to_version} of {body.model!r} was deleted while it was being promoted. Nothing moved."
            ) from None
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise LedgerError(
                f"The promotion ledger {ledger!r} was deleted from MLflow while an entry was being written. Nothing "
                f"moved. See what the alias names and record it: "
                f"{command('promote', body.model, body.alias, '--adopt')}"
            ) from exc
        raise
    pause("after-entry")


def survey(client: MlflowClient, name: str, alias: str, *, owner: str | None = None) -> Survey:
    """Bring the alias to agree with the ledger where that is ours to do, and say how both were found.

    :param owner: the key of the caller's own entry. It is marked as applied by its writer once alias and ledger agree
        or another entry has followed: from then on its writer does not touch the alias.
    :raises TrackingUnavailableError: other promotions kept changing both for a minute.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    doubtful: tuple[State, int, int | None] | None = None
    seen, touched = 0, False
    while time.monotonic() < deadline:
        ledger = read_ledger(client, name, alias)
        version = alias_version(client, name, alias)
        state = _state(client, ledger, version)
        own = ledger.by_key(owner) if owner is not None else None
        if state in ("empty", "agrees"):
            _mark(client, ledger, own)
            return Survey(ledger, state, version)
        if state == "unfinished":
            if not touched and not _is_ours(ledger, own, version):
                _mark_own(client, ledger, own)
                return Survey(ledger, "pending", version)
            touched = True
            if _set_alias(client, ledger, version):
                doubtful, seen = None, 0
                continue
            state = "deleted"
        finding = (state, ledger.last.number, version)
        seen = seen + 1 if finding == doubtful else 1
        doubtful = finding
        if seen >= CONFIRMATIONS:
            return Survey(ledger, state, version)
        time.sleep(CONFIRM_SECONDS)
    raise TrackingUnavailableError(
        f"The alias {alias!r} of {name!r} and its promotion ledger kept changing for {SETTLE_SECONDS:.0f} seconds, "
        f"because other promotions run at the same time. Run this again: what it wrote will be found."
    )


def settle(client: MlflowClient, name: str, alias: str, *, owner: str | None = None) -> Ledger:
    """Return the ledger, sound and agreeing with the alias.

    :raises LedgerError: only a person can make them agree; the message has the command.
    :raises TrackingUnavailableError: other promotions kept changing both for a minute.
    """
    found = survey(client, name, alias, owner=owner)
    if (problem := found.problem()) is not None:
        raise LedgerError(problem)
    return found.ledger


def command(verb: str, name: str, alias: str, *options: str) -> str:
    """Return an ``airflow-mlops`` command, quoted for a shell."""
    chosen = () if alias == DEFAULT_ALIAS else ("--alias", alias)
    return shlex.join(["airflow-mlops", verb, name, *options, *chosen]) + " --reason 'WHY'"


def _state(client: MlflowClient, ledger: Ledger, version: int | None) -> State | Literal["unfinished"]:
    if ledger.broken is not None:
        return "broken"
    state = alias_state(ledger, version, now=datetime.now(UTC))
    if state != "gone" or ledger.head is None:
        return state
    exists = get_version(client, ledger.model, ledger.head.body.to_version) is not None
    return "gone" if exists else "deleted"


def _set_alias(client: MlflowClient, ledger: Ledger, version: int | None) -> bool:
    """Set the alias to the ledger's answer; False where that version is gone."""
    from mlflow.exceptions import MlflowException

    if ledger.head is None:
        raise ValueError("an empty ledger has no answer to set the alias to")
    target = ledger.head.body.to_version
    log.info(
        "Entry %s of %s says %s is version %s, the alias says %s: setting it.",
        ledger.number,
        ledger.model,
        ledger.alias,
        target,
        version,
    )
    pause("before-alias")
    try:
        client.set_registered_model_alias(ledger.model, ledger.alias, str(target))
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        # Two first writers of one alias collide in the database; what became of it shows when both are read again.
        if exc.error_code != "BAD_REQUEST":
            raise
        time.sleep(CONFIRM_SECONDS)
    pause("after-alias")
    return True


def _is_ours(ledger: Ledger, own: Judged | None, version: int | None) -> bool:
    """Say whether setting the alias falls to the caller.

    It does if the caller wrote the last entry, or may be the one that set the alias too late (in this life or before it
    was killed and tried again), or if the last entry's writer had its time.
    """
    head = ledger.head
    if head is None:
        return False
    if own is not None and own.status == "counted":
        late = head.entry.applied is not None or own.body.to_version == version
        if own.number == head.number or late:
            return True
    return head.entry.created_at is None or datetime.now(UTC) - head.entry.created_at >= HELP_AFTER


def _mark(client: MlflowClient, ledger: Ledger, own: Judged | None) -> None:
    _mark_own(client, ledger, own)
    head = ledger.head
    if head is not None and head.entry.applied is None and (own is None or own.number != head.number):
        _set_mark(client, ledger, head, "helper")


def _mark_own(client: MlflowClient, ledger: Ledger, own: Judged | None) -> None:
    if own is not None and own.status == "counted" and own.entry.applied != "owner":
        _set_mark(client, ledger, own, "owner")


def _set_mark(client: MlflowClient, ledger: Ledger, line: Judged, hand: Hand) -> None:
    set_version_tag(client, ledger_name(ledger.model), line.number, APPLIED, hand)


def _entry(version: ModelVersion) -> Entry:
    mark = version.tags.get(APPLIED)
    created = version.creation_timestamp
    return read_entry(
        int(version.version),
        version.tags.get(ENTRY),
        version.tags.get(ENTRY_DIGEST),
        applied=next((hand for hand in get_args(Hand) if hand == mark), None),
        created_at=None if created is None else datetime.fromtimestamp(created / 1000, UTC),
    )


def _description(body: Body) -> str:
    moved = f"{body.alias}: version {body.from_version or 'none'} to version {body.to_version}"
    return f"{body.action}, {moved}, by {body.author}. {body.reason}"[:MAX_DESCRIPTION]


def _problem(found: Survey) -> str:
    ledger, name, alias = found.ledger, found.ledger.model, found.ledger.alias
    adopt = command("promote", name, alias, "--adopt")
    override = command("promote", name, alias, "VERSION", "--override")
    rollback = command("rollback", name, alias)
    head = ledger.head
    now = "" if head is None else f"version {head.body.to_version} (entry {head.number}, {describe(head)})"
    if found.state == "unadopted":
        return (
            f"The alias {alias!r} of {name!r} names version {found.version}, but there is no promotion ledger, so "
            f"nothing says who promoted it and why. Record it as entry 1: {adopt}"
        )
    if found.state == "moved":
        return (
            f"The alias {alias!r} of {name!r} names version {found.version}, but the promotion ledger says {now}, and "
            f"that was applied: somebody moved the alias by hand. It is not overwritten. To record the move: {adopt}. "
            f"To undo it, set the alias back to version {head.body.to_version if head else '?'} in MLflow."
        )
    if found.state == "gone":
        return (
            f"The alias {alias!r} of {name!r} was deleted by hand; the promotion ledger says {now}. To set it again: "
            f"{override.replace('VERSION', str(head.body.to_version) if head else 'VERSION')}"
        )
    if found.state == "deleted":
        return (
            f"The champion of {name!r} is gone: the promotion ledger says {alias!r} is {now}, and that version was "
            f"deleted from MLflow. To restore the version that served before: {rollback}. To choose another: {override}"
        )
    here = f"names version {found.version}" if found.version is not None else "does not exist"
    mend = adopt if found.version is not None else override
    return (
        f"The promotion ledger of {name!r} ({ledger_name(name)!r} in MLflow) is broken. {ledger.broken} No entry "
        f"counts until a person says what holds. The alias {alias!r} {here}; to start the chain again: {mend}"
    )
