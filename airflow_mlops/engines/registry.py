"""The champion and its history, as the promotion ledger tells them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.ledger import EntryStatus, Judged
from airflow_mlops.core.records import Window
from airflow_mlops.engines.approvals import Waiting, waiting
from airflow_mlops.engines.promotions import command, ledger_name, survey
from airflow_mlops.engines.versions import facts_of, get_version, write_span
from airflow_mlops.errors import LedgerError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Champion:
    """The version the alias stands for, and all that an evaluation needs of it without the run that made it.

    :param entry: number of the ledger entry that made it champion; a promotion must follow that one.
    :param model_uri: ``models:/MODEL_ID``, or ``models:/NAME/VERSION`` for a version of other making.
    :param artifact_uri: where its files are.
    :param lacks: what a version of other making does not say of itself; the fields are None then.
    """

    name: str
    alias: str
    version: int
    entry: int
    model_uri: str
    artifact_uri: str
    flavor: str | None
    model_digest: str | None
    features: tuple[str, ...] | None
    train_window: Window | None
    window: Window | None
    model_id: str | None = None
    run_id: str | None = None
    profile_uri: str | None = None
    dataset_digest: str | None = None
    lacks: tuple[str, ...] = ()


def current_champion(client: MlflowClient, name: str, alias: str) -> Champion | None:
    """Return who is champion, or None for a model that never had one.

    The ledger answers, not the alias. Where the last promotion was interrupted, the alias is set on the way.

    :raises LedgerError: ledger and registry disagree in a way that only a person can settle: an alias without a
        ledger, an alias that was moved or deleted by hand, a champion that was deleted or replaced, a broken or
        restarted ledger. The message has the command that mends it.
    :raises TrackingUnavailableError: other promotions kept changing both for a minute.
    """
    found = survey(client, name, alias)
    if (problem := found.problem()) is not None:
        raise LedgerError(problem)
    head = found.ledger.head
    if head is None:
        return None
    version = get_version(client, name, head.body.to_version)
    override = command("promote", name, alias, "VERSION", "--override")
    if version is None:
        raise LedgerError(
            f"The champion of {name!r}, version {head.body.to_version} (entry {head.number}), was deleted from MLflow. "
            f"To restore the version that served before: {command('rollback', name, alias)}. To choose another: "
            f"{override}"
        )
    facts = facts_of(version)
    if head.body.to_digest is not None and facts.model_digest != head.body.to_digest:
        raise LedgerError(
            f"Version {facts.version} of {name!r} is not the model that was promoted: entry {head.number} names digest "
            f"{head.body.to_digest[:12]}, the version's is {(facts.model_digest or 'missing')[:12]}. The registered "
            f"model was deleted and made again, or the version's tags were edited. To choose a version: {override}"
        )
    return Champion(
        name=name,
        alias=alias,
        version=facts.version,
        entry=head.number,
        model_uri=facts.model_uri,
        artifact_uri=facts.artifact_uri,
        flavor=facts.flavor,
        model_digest=facts.model_digest,
        features=facts.features,
        train_window=facts.train_window,
        # The entry's alone, as promotion compares it: a tag that was set later says nothing of what serves.
        window=head.body.window,
        model_id=facts.model_id,
        run_id=facts.run_id,
        profile_uri=facts.profile_uri,
        dataset_digest=facts.dataset_digest,
        lacks=facts.lacks,
    )


@dataclass(frozen=True)
class HistoryLine:
    """One ledger entry for a reader. ``status`` is ``counted``, ``superseded``, ``duplicate`` or ``broken``."""

    entry: int
    status: EntryStatus
    sentence: str
    applied: bool
    time: datetime | None
    action: str | None = None
    from_version: int | None = None
    to_version: int | None = None
    author: str | None = None
    via: str | None = None
    reason: str | None = None
    window: Window | None = None
    evidence_uri: str | None = None
    lacks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; times are ISO 8601 in UTC, the window is ``start/end``."""
        value = dict(vars(self))
        value["time"] = None if self.time is None else self.time.isoformat()
        value["window"] = write_span(self.window)
        value["lacks"] = list(self.lacks)
        return value


@dataclass(frozen=True)
class History:
    """What was champion when, by whom and why, and which candidates wait for a person's approval.

    :param problem: what a person must settle, or None.
    """

    name: str
    alias: str
    champion: int | None
    alias_version: int | None
    lines: tuple[HistoryLine, ...]
    problem: str | None
    waiting: tuple[Waiting, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "model": self.name,
            "alias": self.alias,
            "ledger": ledger_name(self.name),
            "champion": self.champion,
            "alias_version": self.alias_version,
            "problem": self.problem,
            "waiting": [one.to_json() for one in self.waiting],
            "entries": [line.to_json() for line in self.lines],
        }


def history(client: MlflowClient, name: str, alias: str) -> History:
    """Return every entry of the ledger, first to last, with what became of it."""
    found = survey(client, name, alias)
    head = found.ledger.head
    return History(
        name=name,
        alias=alias,
        champion=head.body.to_version if head is not None else None,
        alias_version=found.version,
        lines=tuple(_line(line) for line in found.ledger.lines),
        problem=found.problem(),
        waiting=waiting(client, found.ledger),
    )


def _line(line: Judged) -> HistoryLine:
    entry, body = line.entry, line.entry.body
    common = {
        "entry": entry.number,
        "status": line.status,
        "sentence": line.sentence,
        "applied": entry.applied is not None,
        "time": entry.created_at,
    }
    if body is None:
        return HistoryLine(**common)  # type: ignore[arg-type]  # a dict literal of mixed types
    return HistoryLine(
        **common,  # type: ignore[arg-type]  # as above
        action=body.action,
        from_version=body.from_version,
        to_version=body.to_version,
        author=body.author,
        via=body.via or None,
        reason=body.reason,
        window=body.window,
        evidence_uri=body.evidence_uri,
        lacks=body.lacks,
    )
