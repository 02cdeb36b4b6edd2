"""The operator that compares a window with what the model was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.monitoring_records import DriftReport, MonitoredWindow, MonitoringPlan
from airflow_mlops.core.records import DatasetVersion
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.links import EvidentlyLink, MLflowRunLink, ModelVersionLink, ReportLink
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context

#: Drifted columns, and findings, that the log lists.
_LISTED = 30


class DetectDriftOperator(StepOperator[DriftReport]):
    """Compare a window with the reference profile of the model that scored it, or with any other rows.

    The verdict is ``none``, ``drift``, ``insufficient`` or ``schema_broken`` (a column vanished, changed its type, lost
    its values, or is new). It is a result and not a failure: the policy decides what follows. The model and its scoring
    run are found, in this order: ``monitored``, the ``plan``'s window that is the dataset's, ``model`` and
    ``scoring_run_id``.

    :param dataset: a ``DatasetVersion``, the window's rows.
    :param plan: a ``MonitoringPlan``.
    :param monitored: one ``MonitoredWindow`` of a plan.
    :param model: a ``ServedModel``, where there is no plan.
    :param reference: a ``DatasetVersion`` to compare with instead of the model's profile.
    :param scoring_run_id: MLflow run of the scoring step whose predictions are compared; empty: none.
    :param drift: the keys of ``DriftSpec``.
    :param data: the keys of ``DataSpec``: ids, personal columns and the event time are never compared.
    :param columns: columns to compare; None: ``drift.columns``, else the model's features.
    :param exclude: further columns that are not looked at, such as the target.
    :param on_broken: ``fail`` fails the task where the verdict is ``schema_broken``; ``continue`` hands it on.
    """

    step = "drift"
    record_type = DriftReport
    operator_extra_links = (MLflowRunLink(), ModelVersionLink(), ReportLink(), EvidentlyLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "dataset",
        "plan",
        "monitored",
        "model",
        "reference",
        "scoring_run_id",
        "drift",
        "data",
        "columns",
        "exclude",
        "on_broken",
    )

    def __init__(
        self,
        *,
        dataset: Any,
        plan: Any = None,
        monitored: Any = None,
        model: Any = None,
        reference: Any = None,
        scoring_run_id: str = "",
        drift: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        columns: Any = None,
        exclude: Any = (),
        on_broken: Literal["continue", "fail"] | str = "continue",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.plan = plan
        self.monitored = monitored
        self.model = model
        self.reference = reference
        self.scoring_run_id = scoring_run_id
        self.drift = drift
        self.data = data
        self.columns = columns
        self.exclude = exclude
        self.on_broken = on_broken

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the window's rows and what to compare them with.

        :raises InvalidSpecError: the plan has no such window, or ``on_broken`` is neither of its words.
        """
        if self.on_broken not in ("continue", "fail"):
            raise InvalidSpecError(f"on_broken is {self.on_broken!r}; it must be 'continue' or 'fail'.")
        found = self._monitored()
        data = dict(self.data or {"uri": DatasetVersion.from_xcom(self.dataset).uri})
        return {
            "dataset": self.dataset,
            "data": data,
            "model": self.model if found is None else found.model.model_dump(mode="json"),
            "reference": self.reference or None,
            "scoring_run_id": (self.scoring_run_id or "") if found is None else found.scoring_run_id,
            "drift": dict(self.drift or {}),
            "columns": list(self.columns) if self.columns else None,
            "exclude": list(self.exclude or ()),
        }

    def _monitored(self) -> MonitoredWindow | None:
        if self.monitored:
            return MonitoredWindow.model_validate(self.monitored)
        if not self.plan:
            return None
        plan, window = MonitoringPlan.from_xcom(self.plan), DatasetVersion.from_xcom(self.dataset).window
        for one in plan.windows:
            if one.window == window:
                return one
        raise InvalidSpecError(
            f"The plan has no window {window or '(the dataset has none: take a snapshot of a window)'}. It has "
            f"{', '.join(str(one.window) for one in plan.windows[:10]) or 'none'}. Pass the plan and the snapshot of "
            f"the same run."
        )

    def announce(self, record: DriftReport, context: Context) -> None:
        """Log the verdict, every drifted column and every finding, and push them under their own XCom key."""
        calm = logging.INFO if record.verdict == "none" else logging.WARNING
        self.log.log(calm, "Verdict: %s. %s", record.verdict, record.sentence)
        reasons = [record.sentence]
        for finding in record.findings[:_LISTED]:
            self.log.warning("[%s] %s", finding.kind, finding.sentence)
            reasons.append(finding.sentence)
        for one in record.columns[:_LISTED]:
            if one.drifted:
                self.log.warning("Drifted: %s.", _said(one))
                reasons.append(f"{_said(one)}.")
        listed = sum(one.drifted for one in record.columns)
        if record.drifted_count > listed:
            self.log.warning("%d more drifted; the report has them all.", record.drifted_count - listed)
        if record.prediction is not None:
            drifted = record.prediction.drifted or record.prediction.value is None
            self.log.log(logging.WARNING if drifted else logging.INFO, "Predictions: %s.", _said(record.prediction))
        for note in record.notes:
            self.log.info("%s", note)
        context["ti"].xcom_push(key="reasons", value=reasons)

    def judge(self, record: DriftReport) -> None:
        """Fail on a broken schema, where that was asked for."""
        if record.verdict == "schema_broken" and self.on_broken == "fail":
            self.fail(f"schema_broken: {record.sentence}")


def _said(one: Any) -> str:
    if one.value is None:
        return f"{one.column}: {one.sentence or 'not compared'}".rstrip(".")
    limit = "" if one.threshold is None else f", threshold {one.threshold:.4g}"
    return f"{one.column} by {one.method}: {one.value:.4g}{limit}"
