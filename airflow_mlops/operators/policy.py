"""The operator that decides what follows from drift and performance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.compat import Asset, AssetAlias
from airflow_mlops.core.monitoring_records import PolicyDecision
from airflow_mlops.core.record import Record
from airflow_mlops.links import MLflowRunLink, ReportLink
from airflow_mlops.operators.base import StepOperator
from airflow_mlops.operators.context import is_backfill
from airflow_mlops.operators.registry import author

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class ApplyPolicyOperator(StepOperator[PolicyDecision]):
    """Remember what was found of the run's windows, decide once for all of them, and act.

    A retrain is an Asset event for every ``AssetAlias`` outlet, with the extra ``{model, window, reason, request}``;
    a task tried again emits it again with the same request, and consumers drop repeats. A rollback is done here, with
    an entry in the promotion ledger, and emits for the outlet ``REGISTERED_MODEL_ALIAS`` alone, as a promotion does.
    The task succeeds whatever is decided; XCom ``reasons`` has the sentences.

    :param drift: a ``DriftReport``, a list of them (the output of a mapped task), or None.
    :param performance: a ``PerformanceReport``, a list of them, or None.
    :param registered_model: the registered model's name.
    :param alias: whose champion is watched, and rolled back.
    :param monitoring: the keys of ``MonitoringSpec``; None: the defaults, which notify of every drift.
    """

    step = "policy"
    record_type = PolicyDecision
    operator_extra_links = (MLflowRunLink(), ReportLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "drift",
        "performance",
        "registered_model",
        "alias",
        "monitoring",
    )

    def __init__(
        self,
        *,
        registered_model: str,
        drift: Any = None,
        performance: Any = None,
        alias: str = "champion",
        monitoring: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.registered_model = registered_model
        self.drift = drift
        self.performance = performance
        self.alias = alias
        self.monitoring = monitoring

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the reports and who decides."""
        return {
            "drift": _reports(self.drift),
            "performance": _reports(self.performance),
            "monitoring": self.monitoring or {},
            "registered_model": self.registered_model,
            "alias": self.alias,
            "backfill": is_backfill(context),
            "author": author(context),
        }

    def announce(self, record: PolicyDecision, context: Context) -> None:
        """Log every sentence, and emit the event of a retrain or a rollback."""
        said = self.log.warning if record.action != "none" else self.log.info
        said("%s", record.sentence)
        for sentence in (*record.breaches, *record.notes):
            if sentence not in record.sentence:
                self.log.info("%s", sentence)
        context["ti"].xcom_push(key="reasons", value=[record.sentence, *record.breaches, *record.notes])
        champion = f"{self.registered_model}_{self.alias}"
        window = record.window.model_dump(mode="json") if record.window else None
        extra: dict[str, Any] = {"model": self.registered_model, "window": window, "reason": record.reason}
        for outlet in self.outlets:
            if not isinstance(outlet, AssetAlias):
                continue
            if record.action == "retrain" and outlet.name != champion:
                context["outlet_events"][outlet].add(Asset(outlet.name), extra={**extra, "request": record.request})
            elif record.action == "rollback" and outlet.name == champion:
                moved = {"alias": self.alias, "version": record.champion_version, "entry": record.entry}
                context["outlet_events"][outlet].add(Asset(outlet.name), extra={**extra, **moved})


def _reports(value: Any) -> list[Any] | None:
    """Return what tasks handed on as a list: mapped tasks give a lazy sequence, skipped ones leave gaps."""
    if value is None:
        return None
    found = [value] if isinstance(value, Mapping | Record) else list(value)
    return [one for one in found if one is not None]
