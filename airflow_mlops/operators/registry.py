"""Operators that register a model version and move the champion's alias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import ModelVersionRef, Promotion
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.links import MLflowRunLink, ModelVersionLink, ReportLink
from airflow_mlops.operators.asset_events import aliases, emit, is_silent
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class RegisterModelOperator(StepOperator[ModelVersionRef]):
    """Register a candidate that the gate let through: exactly one version per task and input, retried or not.

    :param decision: a ``GateDecision``.
    :param registered_model: the registered model's name.
    """

    step = "register"
    record_type = ModelVersionRef
    operator_extra_links = (MLflowRunLink(), ModelVersionLink(), ReportLink())
    template_fields: Sequence[str] = (*StepOperator.template_fields, "decision", "registered_model")

    def __init__(self, *, decision: Any, registered_model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decision = decision
        self.registered_model = registered_model

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the decision and the name."""
        return {"decision": self.decision, "registered_model": self.registered_model}

    def announce(self, record: ModelVersionRef, context: Context) -> None:
        """Say which version it became."""
        self.log.info("Registered as version %d of %s (%s).", record.version, record.name, record.model_uri)


class _AliasOperator(StepOperator[Promotion]):
    """What promotion and rollback share: verdicts, and one Asset event per ledger entry."""

    record_type = Promotion
    operator_extra_links = (MLflowRunLink(), ModelVersionLink())

    def __init__(self, *, alias: str = "champion", emit_in_backfill: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alias = alias
        self.emit_in_backfill = emit_in_backfill

    def announce(self, record: Promotion, context: Context) -> None:
        """Log the outcome; on a promotion emit an Asset event whose extra carries the ledger entry's number."""
        self.log.info("%s: %s", record.outcome, record.sentence)
        context["ti"].xcom_push(key="reasons", value=[record.sentence])
        if record.outcome != "promoted" or not self.outlets:
            return
        if (stale := self._old_news(record, context)) is not None:
            self.log.info("No Asset event: %s.", stale)
            return
        if is_silent(context, self.emit_in_backfill):
            return
        for outlet in aliases(self.outlets):
            extra = {
                "model": record.name,
                "alias": record.alias,
                "version": record.to_version,
                "entry": record.entry,
                "reason": record.reason,
                "window": record.window.model_dump(mode="json") if record.window else None,
            }
            emit(context, outlet, extra)

    def _old_news(self, record: Promotion, context: Context) -> str | None:
        """Say why nobody must act on the entry: it was overtaken, or another task announced it; None when it is news.

        A cleared task adopts an old record, and a run whose model was reused finds it champion already. An entry that a
        person wrote on the command line was announced by nobody.
        """
        from airflow_mlops.engines.promotions import read_ledger

        with MLflowHook(self.mlflow_conn_id).client() as client:
            head = read_ledger(client, record.name, record.alias).head
        if head is None or head.number != record.entry:
            return f"entry {record.entry} is not the ledger's last any more"
        if "airflow:" in head.body.author and author(context) not in head.body.author:
            return f"entry {record.entry} was announced by {head.body.author}"
        return None

    def judge(self, record: Promotion) -> None:
        """Skip where another run won or the alias may not move; fail where a person has to look."""
        if record.outcome == "needs_attention":
            self.fail(record.sentence)
        if record.outcome != "promoted":
            self.skip(f"{record.outcome}: {record.sentence}")


class PromoteModelOperator(_AliasOperator):
    """Make a registered version the champion, by compare-and-swap over the promotion ledger.

    :param version: a ``ModelVersionRef``.
    :param approval: an ``Approval``, the output of ``ApproveModelOperator``; None where nobody is asked. A version
        whose verdict is ``needs_approval`` is promoted only if the promotion ledger says that a person approved it.
    :param alias: the alias to move.
    :param reason: why, for the ledger.
    :param emit_in_backfill: emit the Asset event in backfill runs too.
    """

    step = "promote"
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "version",
        "approval",
        "alias",
        "reason",
        "emit_in_backfill",
    )

    def __init__(self, *, version: Any, approval: Any = None, reason: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version
        self.approval = approval
        self.reason = reason

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the version, what was decided of it, and who promotes it."""
        return {
            "version": self.version,
            "approval": self.approval,
            "alias": self.alias,
            "author": author(context),
            "reason": self.reason,
        }


class RollbackModelOperator(_AliasOperator):
    """Make the version that served before the champion again. A rollback can itself be rolled back.

    :param registered_model: the registered model's name.
    :param reason: why; it must not be empty.
    """

    step = "rollback"
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "registered_model",
        "alias",
        "reason",
        "emit_in_backfill",
    )

    def __init__(self, *, registered_model: str, reason: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.registered_model = registered_model
        self.reason = reason

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the model and who rolls it back."""
        return {
            "registered_model": self.registered_model,
            "alias": self.alias,
            "author": author(context),
            "reason": self.reason,
        }


def author(context: Context) -> str:
    """Return who acts, for the ledger: the task, as ``airflow:DAG/RUN/TASK``."""
    ti = context["ti"]
    return f"airflow:{ti.dag_id}/{ti.run_id}/{ti.task_id}"
