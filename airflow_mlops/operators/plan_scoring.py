"""The first task of a scoring run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ScoringPlan
from airflow_mlops.links import MLflowRunLink, ModelVersionLink
from airflow_mlops.operators.plan_windows import PlanWindowsOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class PlanScoringOperator(PlanWindowsOperator[ScoringPlan]):
    """Settle the windows of a scoring run and which version answers, once for the whole run.

    What it returns is the list of windows, oldest first, so that tasks are mapped over ``plan.output``; the
    ``ScoringPlan`` is under the XCom key ``plan`` (``plan.output["plan"]``), the windows once more under ``windows``.

    :param registered_model: the registered model's name.
    :param alias: resolved through the promotion ledger. A model without one fails the task with the way to get one.
    :param other: alias of a version that takes part beside it, or ``previous_champion``; where there is no such
        version, the log says so and the champion scores alone. None or empty: none.
    :param window_start: ISO time of the window's start; empty: every distinct window of the Asset events, else the
        data interval.
    :param window_end: ISO time of its end, not included.
    :param reason: why the run was started; empty: in Airflow's words.
    :param manual_schedule: ``{"cron": ..., "timezone": ...}`` lets a manual run without window take that schedule's
        last complete interval; None: such a run is an error that asks for the parameters.
    :param summary: text for the parent MLflow run's description.
    """

    step = "plan_scoring"
    record_type = ScoringPlan
    operator_extra_links = (MLflowRunLink(), ModelVersionLink())
    template_fields: Sequence[str] = (*PlanWindowsOperator.template_fields, "other")

    def __init__(self, *, other: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.other = other

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Resolve the windows from the run."""
        return {**super().payload(context), "other": self.other or None}

    def execute(self, context: Context) -> Any:
        """Run the step and return the windows."""
        return super().execute(context)["windows"]

    def announce(self, record: ScoringPlan, context: Context) -> None:
        """Say windows and version, and push the plan for other operators."""
        plan = record.to_xcom()
        context["ti"].xcom_push(key="plan", value=plan)
        context["ti"].xcom_push(key="windows", value=plan["windows"])
        beside = "" if record.other is None else f", version {record.other.version} beside it"
        self.log.info("%s (%s) scores%s: %s.", record.model, self.alias, beside, ", ".join(map(str, record.windows)))
        for note in record.notes:
            self.log.warning("%s", note)
