"""The first task of a monitoring run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import MonitoringPlan
from airflow_mlops.core.record import MAX_RECORD_BYTES
from airflow_mlops.operators.plan_windows import PlanWindowsOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class PlanMonitoringOperator(PlanWindowsOperator[MonitoringPlan]):
    """Settle the windows of a monitoring run and which version scored each.

    What it returns is a list of ``{"window": ..., "monitored": ...}``, oldest first, so that tasks and task groups are
    mapped over it with ``expand_kwargs(plan.output)``; ``monitored`` is a ``MonitoredWindow``: window, version, and the
    scoring step's MLflow run. The ``MonitoringPlan`` is under the XCom key ``plan``; the two lists are under
    ``windows`` and ``monitored``.

    :param registered_model: the registered model's name.
    :param alias: whose champion a window is watched for that nobody scored.
    :param scoring_experiment: MLflow experiment with the scoring runs; default: this task's own.
    :param window_start: ISO time of the window's start; empty: every distinct window of the Asset events, else the
        data interval.
    :param window_end: ISO time of its end, not included.
    :param reason: why the run was started; empty: in Airflow's words.
    :param manual_schedule: ``{"cron": ..., "timezone": ...}`` lets a manual run without window take that schedule's
        last complete interval; None: such a run is an error that asks for the parameters.
    :param summary: text for the parent MLflow run's description.
    """

    step = "plan_monitoring"
    record_type = MonitoringPlan
    template_fields: Sequence[str] = (*PlanWindowsOperator.template_fields, "scoring_experiment")

    def __init__(self, *, scoring_experiment: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scoring_experiment = scoring_experiment

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Resolve the windows from the run."""
        return {
            **super().payload(context),
            "scoring_experiment": self.scoring_experiment or self.experiment or context["ti"].dag_id,
        }

    def execute(self, context: Context) -> Any:
        """Run the step and return what other tasks are mapped over."""
        plan = MonitoringPlan.from_xcom(super().execute(context))
        return [{"window": one["window"], "monitored": one} for one in _plain(plan)]

    def announce(self, record: MonitoringPlan, context: Context) -> None:
        """Say which version is watched where, and push the plan for other operators."""
        monitored = _plain(record)
        context["ti"].xcom_push(key="plan", value=record.to_xcom())
        context["ti"].xcom_push(key="windows", value=[one["window"] for one in monitored])
        context["ti"].xcom_push(key="monitored", value=monitored)
        for one in record.windows:
            scored = f"scored by {one.model}" if one.scoring_run_id else f"on behalf of {one.model}"
            self.log.info("Watching %s, %s.", one.window, scored)
        for note in record.notes:
            self.log.warning("%s", note)


def _plain(plan: MonitoringPlan) -> list[dict[str, Any]]:
    plain = [one.model_dump(mode="json") for one in plan.windows]
    if len(json.dumps(plain)) > MAX_RECORD_BYTES:
        # Each window has its version whole here; the features, by far its largest part, are in the signature too.
        for one in plain:
            one["model"]["features"] = None
    return plain
