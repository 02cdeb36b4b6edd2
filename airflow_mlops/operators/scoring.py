"""The operator that scores one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.links import MLflowRunLink, ModelVersionLink
from airflow_mlops.operators.asset_events import aliases, emit, is_silent
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class BatchScoreOperator(StepOperator[ScoringReport]):
    """Score one window's rows with the version that the run began with, and publish one Parquet file, or none.

    Readers of ``output_uri`` see a window's old file or its new one, never a part of it; a retry replaces. Rows that
    cannot be scored go to ``_quarantine`` below it with a reason each; more of them than
    ``scoring.max_quarantined_share`` fail the task, without a retry, and nothing is published. Every published batch
    emits an event through each ``AssetAlias`` among the outlets, with ``model``, ``version``, ``entry``, ``window``,
    ``scoring_run_id`` and ``output_uri``; a retry may emit it again, and consumers drop repeats.

    :param plan: a ``ScoringPlan``: the versions, resolved once for the whole run.
    :param validation: a ``ValidationReport``; its accepted rows are scored.
    :param dataset: a ``DatasetVersion``, where there is no contract. Exactly one of the two.
    :param scoring: the keys of ``ScoringSpec``, ``output_uri`` absolute.
    :param data: the keys of ``DataSpec``: which columns are ids and which is the event time.
    :param task: ``binary``, ``multiclass`` or ``regression``.
    :param emit_in_backfill: emit the Asset event in backfill runs too.
    """

    step = "score"
    record_type = ScoringReport
    operator_extra_links = (MLflowRunLink(), ModelVersionLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "plan",
        "validation",
        "dataset",
        "scoring",
        "data",
        "task",
        "emit_in_backfill",
    )

    def __init__(
        self,
        *,
        plan: Any,
        scoring: Mapping[str, Any],
        data: Mapping[str, Any],
        task: str,
        validation: Any = None,
        dataset: Any = None,
        emit_in_backfill: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.validation = validation
        self.dataset = dataset
        self.scoring = scoring
        self.data = data
        self.task = task
        self.emit_in_backfill = emit_in_backfill

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the batch, the versions and where the predictions go."""
        return {
            "plan": self.plan,
            "validation": self.validation,
            "dataset": self.dataset,
            "scoring": self.scoring,
            "data": self.data,
            "task": self.task,
        }

    def announce(self, record: ScoringReport, context: Context) -> None:
        """Log counts, place and version, and emit the event of the published batch."""
        self.log.info("%s", record.sentence)
        self.log.info("Predictions: %s (%s bytes).", record.output_uri, f"{record.byte_count:,}")
        if record.other is not None and record.other_mode == "split":
            shares = ", ".join(f"version {version}: {count:,} rows" for version, count in record.scored_by.items())
            self.log.info("Answered by %s.", shares or "nobody")
        if record.quarantined_count:
            self.log.warning("%d rows were set aside: %s.", record.quarantined_count, record.quarantine_uri)
            for reason, count in record.reasons.items():
                self.log.warning("%s rows: %s", f"{count:,}", reason)
        for note in record.notes:
            self.log.warning("%s", note)
        if not self.outlets:
            return
        if is_silent(context, self.emit_in_backfill):
            return
        for outlet in aliases(self.outlets):
            extra = {
                "model": record.model.name,
                "version": record.model.version,
                "entry": record.model.entry,
                "window": record.window.model_dump(mode="json") if record.window else None,
                "scoring_run_id": record.run_id,
                "output_uri": record.output_uri,
            }
            emit(context, outlet, extra)
