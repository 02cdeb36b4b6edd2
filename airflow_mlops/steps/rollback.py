"""Give the alias back to the version that served before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.records import Promotion
from airflow_mlops.engines.alias_moves import Wish, rollback
from airflow_mlops.engines.promotions import DEFAULT_ALIAS
from airflow_mlops.steps.base import Access, Step, Work
from airflow_mlops.steps.promote import act_key, default_author, is_final, tag_outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RollbackPayload(BaseModel):
    """Which model and alias to roll back, and who wants it why. The reason must be given.

    :param author: empty: the task's own key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    registered_model: str = Field(min_length=1)
    alias: str = DEFAULT_ALIAS
    author: str = ""
    reason: str = Field(min_length=1)


class RollbackStep(Step[RollbackPayload, Promotion]):
    """Roll back by compare-and-swap. The same task tried again is the same rollback, never a second one."""

    name = "rollback"
    payload_type = RollbackPayload
    record_type = Promotion

    def run(self, payload: RollbackPayload, work: Work) -> Promotion:
        """Write the entry and set the alias, or finish what an earlier attempt with this key began."""
        record = rollback(
            work.client,
            Wish(
                name=payload.registered_model,
                alias=payload.alias,
                author=payload.author.strip() or default_author(work.request),
                reason=payload.reason,
                key=act_key(work),
            ),
        )
        tag_outcome(work, record)
        return record.model_copy(update={"run_id": work.run_id})

    def recheck(self, record: Promotion, payload: RollbackPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt the earlier record only where it is final."""
        return is_final(record, client)
