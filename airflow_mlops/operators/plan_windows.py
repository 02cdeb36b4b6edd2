"""What the first task of every run over windows shares: the model, the windows, and how they are settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.operators.base import RecordT, StepOperator
from airflow_mlops.operators.context import last_complete_interval
from airflow_mlops.operators.windows import all_windows

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class PlanWindowsOperator(StepOperator[RecordT]):
    """Settle the windows of a run, for a step that says what is done with them.

    Its parameters are described where they are used, in the operators made from it.
    """

    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "registered_model",
        "alias",
        "window_start",
        "window_end",
        "reason",
    )

    def __init__(
        self,
        *,
        registered_model: str,
        alias: str = "champion",
        window_start: str | None = None,
        window_end: str | None = None,
        reason: str | None = None,
        manual_schedule: Mapping[str, str] | None = None,
        summary: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.registered_model = registered_model
        self.alias = alias
        self.window_start = window_start
        self.window_end = window_end
        self.reason = reason
        self.manual_schedule = manual_schedule
        self.summary = summary

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Resolve the windows from the run."""
        last = last_complete_interval(context, **self.manual_schedule) if self.manual_schedule else None
        windows, reason = all_windows(context, start=self.window_start, end=self.window_end, last_complete=last)
        return {
            "windows": [window.model_dump(mode="json") for window in windows],
            "registered_model": self.registered_model,
            "alias": self.alias,
            "reason": self.reason or reason,
            "summary": self.summary,
        }
