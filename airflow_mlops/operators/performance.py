"""The operator that measures published predictions once their labels came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import MonitoredWindow, PerformanceReport
from airflow_mlops.links import MLflowRunLink, ModelVersionLink, ReportLink
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class EvaluatePredictionsOperator(StepOperator[PerformanceReport]):
    """Join labels to a published batch and measure it as the evaluation did: realised beside promised.

    The report's state is ``waiting`` (too few labels, nothing measured), ``provisional``, or ``final``: every
    prediction has a label, or ``labels.deadline`` has passed. Labels that change later make revision 2, 3 and so on;
    the same labels give the same result, whichever run asks. Labels that contradict each other, labels about nothing
    that was predicted and labels from the future are counted and left out.

    A window that was never scored skips the task.

    :param monitored: a ``MonitoredWindow``: the window and the scoring step's MLflow run.
    :param labels: the keys of ``LabelSpec``: ``data``, ``label``, ``entity``, ``known_at``, ``coverage``, ``deadline``.
    :param label_column: the label's column; default: that of ``labels``.
    :param entity: columns that name the entity; default: those of ``labels``, else the batch's id columns.
    :param evaluation: the keys of ``EvaluationSpec``; metrics and slices are measured as there.
    :param seed: of the bootstrap.
    :param code_path: absolute folder of the team's code, where a metric is ``module:function``.
    :param as_of: the moment of evaluation, ISO; default: when the task runs. For the deadline, and for labels that are
        dated later.
    """

    step = "performance"
    record_type = PerformanceReport
    operator_extra_links = (MLflowRunLink(), ModelVersionLink(), ReportLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "monitored",
        "labels",
        "label_column",
        "entity",
        "evaluation",
        "seed",
        "code_path",
        "as_of",
    )

    def __init__(
        self,
        *,
        monitored: Any,
        labels: Mapping[str, Any] | str,
        evaluation: Mapping[str, Any] | str,
        label_column: str | None = None,
        entity: Sequence[str] | str = (),
        seed: int | str = 0,
        code_path: str | None = None,
        as_of: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.monitored = monitored
        self.labels = labels
        self.evaluation = evaluation
        self.label_column = label_column
        self.entity = entity
        self.seed = seed
        self.code_path = code_path
        self.as_of = as_of

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the step; skip where nothing was scored."""
        from airflow_mlops.engines.scored_batches import not_scored

        monitored = self._monitored()
        if monitored is not None and not monitored.scoring_run_id:
            self.skip(not_scored(monitored))
        return super().execute(context)

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return batch, labels, what to measure, and the moment: retries of one task may see different ones."""
        from datetime import UTC, datetime

        return {
            "monitored": self.monitored,
            "labels": self.labels,
            "evaluation": self.evaluation,
            "label": self.label_column or None,
            "entity": [self.entity] if isinstance(self.entity, str) and self.entity else list(self.entity),
            "seed": self.seed,
            "code_path": self.code_path or None,
            "as_of": self.as_of or datetime.now(UTC).isoformat(),
        }

    def announce(self, record: PerformanceReport, context: Context) -> None:
        """Log the outcome, and everything that a person should know of the labels."""
        super().announce(record, context)
        for text in record.notes.values():
            self.log.warning("%s", text)

    def _monitored(self) -> MonitoredWindow | None:
        """Read the window; one that does not fit is the step's to refuse, with every wrong place named."""
        from pydantic import ValidationError

        try:
            return MonitoredWindow.model_validate(self.monitored)
        except ValidationError:
            return None
