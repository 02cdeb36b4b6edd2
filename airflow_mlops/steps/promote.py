"""Move the alias to a registered version, if the ledger still stands where its evaluation saw it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from airflow_mlops.core.records import Approval, ModelVersionRef, Promotion
from airflow_mlops.engines.alias_moves import Wish, promote
from airflow_mlops.engines.promotions import DEFAULT_ALIAS, read_ledger
from airflow_mlops.errors import LedgerError, VerdictError
from airflow_mlops.steps.base import Access, Step, StepRequest, Work

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Between an act's key and the number of the entry that its candidate was judged against once more.
AGAIN = "/judged-"
#: How often a candidate is judged again before the task is left to a person: each time another window came before it.
MOST_JUDGEMENTS = 12


class PromotePayload(BaseModel):
    """Which version, which alias, and who wants it why.

    :param approval: what the approve task handed on; it must be about this version. Whether a version that needs
        approval was approved is read from the promotion ledger.
    :param author: empty: the task's own key.
    :param reason: empty: the version's reason, else the gate's verdict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ModelVersionRef
    approval: Approval | None = None
    alias: str = DEFAULT_ALIAS
    author: str = ""
    reason: str = ""


class PromoteStep(Step[PromotePayload, Promotion]):
    """Promote by compare-and-swap. The outcome says what happened; only outages are errors.

    A candidate that lost its race to older windows alone is judged again against the new champion, and promoted if the
    gate lets it through once more: of several windows at once the newest that passes serves in the end.
    """

    name = "promote"
    payload_type = PromotePayload
    record_type = Promotion

    def run(self, payload: PromotePayload, work: Work) -> Promotion:
        """Write the entry and set the alias, or finish what an earlier attempt with this key began."""
        version = payload.version
        wish = Wish(
            name=version.name,
            alias=payload.alias,
            author=payload.author.strip() or default_author(work.request),
            reason=payload.reason.strip() or version.reason or f"the gate's verdict was {version.verdict!r}",
            key=act_key(work),
        )
        record = promote(work.client, _begun(work.client, wish), version, payload.approval)
        if record.outcome == "superseded":
            record = _once_more(work, payload, wish, record)
        tag_outcome(work, record)
        return record.model_copy(update={"run_id": work.run_id})

    def recheck(self, record: Promotion, payload: PromotePayload, client: MlflowClient, access: Access) -> bool:
        """Adopt the earlier record only where it is final."""
        return is_final(record, client)


def _once_more(work: Work, payload: PromotePayload, wish: Wish, lost: Promotion) -> Promotion:
    """Judge again as long as promotions of older windows came before; return the last answer."""
    # Imported here: who was first, which is nearly everybody, evaluates nothing.
    from airflow_mlops.steps.judge_again import judge_again, lost_to_an_older_window

    record, version = lost, payload.version
    for _ in range(MOST_JUDGEMENTS):
        champion = lost_to_an_older_window(work.client, version, payload.alias)
        if champion is None:
            return record
        against = f"version {champion.body.to_version} (entry {champion.number}), whose window is older"
        try:
            decision = judge_again(work, version, champion)
        except LedgerError as exc:
            return _told(record.model_copy(update={"outcome": "needs_attention"}), str(exc))
        except (VerdictError, ImportError) as exc:
            return _told(record, f"It could not be judged again here against {against}: {exc}")
        if decision is None:
            return record
        if decision.ledger_entry != champion.number:
            # Somebody acted while it was measured: whether that was one more older window is looked at anew.
            continue
        if decision.verdict == "needs_approval":
            said = f"Judged again against {against}, it passed every rule, but no person was shown that comparison."
            return _told(record, f"{said} Clear the run's evaluate task to be asked anew.")
        if not decision.lets_through:
            outcome = "needs_attention" if decision.is_failure else "superseded"
            said = f"Judged again against {against}: {decision.verdict}. {decision.sentence}"
            return _told(record.model_copy(update={"outcome": outcome}), said)
        version = version.model_copy(
            update={
                "ledger_entry": decision.ledger_entry,
                "evidence_uri": decision.evidence_uri,
                "decision_uri": decision.decision_uri,
                "verdict": decision.verdict,
                "sentence": decision.sentence,
            }
        )
        act = replace(wish, key=f"{wish.key}{AGAIN}{decision.ledger_entry}")
        record = _told(promote(work.client, act, version, payload.approval), f"It was judged again against {against}.")
        if record.outcome != "superseded":
            break
    return record


def _begun(client: MlflowClient, wish: Wish) -> Wish:
    """Return the wish with the key under which an earlier attempt of the same act has promoted already."""
    ledger = read_ledger(client, wish.name, wish.alias)
    mine = next((line.body.key for line in ledger.counted if line.body.key.startswith(f"{wish.key}{AGAIN}")), None)
    return wish if mine is None else replace(wish, key=mine)


def _told(record: Promotion, more: str) -> Promotion:
    return record.model_copy(update={"sentence": f"{record.sentence} {more}"})


def act_key(work: Work) -> str:
    """Return the ledger key of this task's act: the task and its inputs.

    ``force`` makes no second act of it: a retried rollback would undo itself.
    """
    return f"{work.request.key}/{work.input_digest}"


def default_author(request: StepRequest) -> str:
    """Return who acts when nobody is named: the task, without the map index."""
    return f"task:{request.key.rpartition('/')[0] or request.key}"


def is_final(record: Promotion, client: MlflowClient) -> bool:
    """Say whether a record needs no second look: a dry run, or an entry the ledger still counts.

    Whatever was refused or needed a person is looked at again, because that may have changed.
    """
    if record.outcome == "dry_run":
        return True
    if record.outcome != "promoted" or record.entry is None:
        return False
    line = read_ledger(client, record.name, record.alias).at(record.entry)
    return line is not None and line.status == "counted" and line.body.to_version == record.to_version


def tag_outcome(work: Work, record: Promotion) -> None:
    """Put the outcome onto the task's MLflow run, where people look for it."""
    work.client.set_tag(work.run_id, "airflow_mlops.outcome", record.outcome)
    work.client.set_tag(work.run_id, "mlflow.note.content", record.sentence)
