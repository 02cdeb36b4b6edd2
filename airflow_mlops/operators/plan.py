"""The first task of a training run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import RunPlan
from airflow_mlops.operators.asset_events import read_extra
from airflow_mlops.operators.base import StepOperator
from airflow_mlops.operators.context import last_complete_interval
from airflow_mlops.operators.windows import anchor_window, triggering_events

if TYPE_CHECKING:
    from airflow_mlops.compat import Context

#: An id as :func:`airflow_mlops.core.keys.key_id` makes them.
_REQUEST = re.compile(r"[0-9a-f]{32}")


class PlanRunOperator(StepOperator[RunPlan]):
    """Settle the run's windows and reason, and open its parent MLflow run.

    Of the Asset events that started the run the newest window counts, and every request for a retrain that they carry
    is recorded. A run whose every event repeats a request that another run has taken up is skipped; one that was
    started by hand never is.

    Pushes, beside the whole plan, ``train_window`` and ``evaluate_window`` under their own XCom keys, so that other
    operators take ``plan.output["train_window"]``.

    :param train: ``{"length": "2 months", "gap": "0 days"}``.
    :param window_start: ISO time of the anchor window's start; empty: from Asset events or the data interval.
    :param window_end: ISO time of its end, not included.
    :param train_length: replaces the length for this run; empty: as the specification says.
    :param reason: why the run was started; empty: in Airflow's words.
    :param manual_schedule: ``{"cron": ..., "timezone": ...}`` lets a manual run without window take that schedule's
        last complete interval; None: such a run is an error that asks for the parameters.
    :param summary: text for the parent MLflow run's description.
    """

    step = "plan"
    record_type = RunPlan
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "train",
        "window_start",
        "window_end",
        "train_length",
        "reason",
    )

    def __init__(
        self,
        *,
        train: Mapping[str, Any],
        window_start: str | None = None,
        window_end: str | None = None,
        train_length: str | None = None,
        reason: str | None = None,
        manual_schedule: Mapping[str, str] | None = None,
        summary: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.train = train
        self.window_start = window_start
        self.window_end = window_end
        self.train_length = train_length
        self.reason = reason
        self.manual_schedule = manual_schedule
        self.summary = summary

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Resolve the anchor window from the run."""
        last = last_complete_interval(context, **self.manual_schedule) if self.manual_schedule else None
        window, reason = anchor_window(context, start=self.window_start, end=self.window_end, last_complete=last)
        return {
            "window": window.model_dump(mode="json"),
            "train": self.train,
            "train_length": self.train_length or None,
            "reason": self.reason or reason,
            "summary": self.summary,
            **self._requests(context),
        }

    def _requests(self, context: Context) -> Mapping[str, Any]:
        """Return the retrains that the run's events ask for, and whether every event asks for one."""
        if self.window_start or self.window_end:
            return {}
        extras = [read_extra(event) for event in triggering_events(context)]
        # What other DAGs call a request is theirs; ours are ids.
        asked = [extra["request"] for extra in extras if _REQUEST.fullmatch(str(extra.get("request") or ""))]
        return {"requests": list(dict.fromkeys(asked)), "only_requests": len(asked) == len(extras)} if asked else {}

    def announce(self, record: RunPlan, context: Context) -> None:
        """Say the windows, and push them for other operators."""
        plan = record.to_xcom()
        for part in ("window", "train_window", "evaluate_window"):
            context["ti"].xcom_push(key=part, value=plan[part])
        if not record.repeat:
            self.log.info("Training on %s, evaluating on %s.", record.train_window, record.evaluate_window)
        if record.requests:
            self.log.info("Answering request %s.", ", ".join(record.requests))
        for note in record.notes:
            self.log.info("%s", note)

    def judge(self, record: RunPlan) -> None:
        """Skip a run that only repeats what another one does."""
        if record.repeat:
            self.skip(record.repeat)
