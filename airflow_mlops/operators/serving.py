"""The operator that tries a model before it can be promoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import ServingReport
from airflow_mlops.links import MLflowRunLink, ReportLink
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class CheckServingOperator(StepOperator[ServingReport]):
    """Load the logged model in a fresh interpreter and score its input example, within limits of time and memory.

    The task fails, without a retry, when the model cannot be served; the message says why and what to mend. Its report
    goes to ``GateModelOperator(serving=...)``, whose rules ``latency_at_most`` and ``model_size_at_most`` read it.

    :param model: a ``TrainedModel``, the candidate.
    :param serving: the keys of ``ServingSpec``: ``env``, ``timeout_seconds``, ``memory_mb``, ``repeats``,
        ``build_timeout_seconds``. None: the defaults.
    """

    step = "serving"
    record_type = ServingReport
    operator_extra_links = (MLflowRunLink(), ReportLink())
    template_fields: Sequence[str] = (*StepOperator.template_fields, "model", "serving")

    def __init__(self, *, model: Any, serving: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.serving = serving

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the candidate and how to try it."""
        return {"model": self.model, "serving": self.serving or {}}

    def announce(self, record: ServingReport, context: Context) -> None:
        """Log the finding, and every library whose version is not the one it was trained with."""
        if record.ok:
            self.log.info("%s", record.sentence)
        else:
            self.log.error("%s %s", record.sentence, record.problem)
        for one in record.differences:
            self.log.warning(
                "%s: trained with %s, here %s.", one.name, one.recorded or "any version", one.installed or "none"
            )
        if record.difference_count > len(record.differences):
            self.log.warning("%d more differ; the report has them.", record.difference_count - len(record.differences))

    def judge(self, record: ServingReport) -> None:
        """Fail where the model cannot be served."""
        if not record.ok:
            self.fail(f"This model cannot be served. {record.problem or record.sentence}")
