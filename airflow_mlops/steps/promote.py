"""Move the alias to a registered version, if the ledger still stands where its evaluation saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from airflow_mlops.core.records import Approval, ModelVersionRef, Promotion
from airflow_mlops.engines.alias_moves import Wish, promote
from airflow_mlops.engines.promotions import DEFAULT_ALIAS, read_ledger
from airflow_mlops.steps.base import Access, Step, StepRequest, Work

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
    """Promote by compare-and-swap. The outcome says what happened; only outages are errors."""

    name = "promote"
    payload_type = PromotePayload
    record_type = Promotion

    def run(self, payload: PromotePayload, work: Work) -> Promotion:
        """Write the entry and set the alias, or finish what an earlier attempt with this key began."""
        version = payload.version
        record = promote(
            work.client,
            Wish(
                name=version.name,
                alias=payload.alias,
                author=payload.author.strip() or default_author(work.request),
                reason=payload.reason.strip() or version.reason or f"the gate's verdict was {version.verdict!r}",
                key=act_key(work),
            ),
            version,
            payload.approval,
        )
        tag_outcome(work, record)
        return record.model_copy(update={"run_id": work.run_id})

    def recheck(self, record: Promotion, payload: PromotePayload, client: MlflowClient, access: Access) -> bool:
        """Adopt the earlier record only where it is final."""
        return is_final(record, client)


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
