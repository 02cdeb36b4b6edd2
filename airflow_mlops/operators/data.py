"""Operators that fix what data a run uses and check it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import DatasetVersion, ValidationReport
from airflow_mlops.links import MLflowRunLink, ReportLink
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class SnapshotDataOperator(StepOperator[DatasetVersion]):
    """Fix the rows of a window as an immutable dataset version.

    :param data: where the rows are: the keys of ``DataSpec`` (``uri``, ``format``, ``conn_id``, ``event_time`` ...).
    :param window: ``{"start": ISO, "end": ISO}``, half-open in UTC; None takes every row.
    """

    step = "snapshot"
    record_type = DatasetVersion
    template_fields: Sequence[str] = (*StepOperator.template_fields, "data", "window")

    def __init__(self, *, data: Mapping[str, Any], window: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.window = window

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the data's place and the window."""
        return {"data": self.data, "window": self.window}

    def announce(self, record: DatasetVersion, context: Context) -> None:
        """Say how much was found and what it is called."""
        self.log.info(
            "Dataset version %s: %d rows in %d files (%d bytes) of %s, window %s.",
            record.digest[:12],
            record.row_count,
            record.file_count,
            record.byte_count,
            record.uri,
            record.window or "everything",
        )


class ValidateDataOperator(StepOperator[ValidationReport]):
    """Check a dataset version against its contract; hand on the rows that were accepted.

    A failed contract fails the task, without a retry. Quarantined rows are written aside and the rest goes on.

    :param dataset: a ``DatasetVersion``, usually ``snapshot.output``.
    :param contract: path of the contract file, or the contract itself as a mapping.
    :param data: the keys of ``DataSpec``, for the store's connection and where accepted rows are written.
    :param purpose: ``training``, or ``scoring``: expectations about columns that the contract marks ``train_only`` are
        left out, and the report says which.
    :param inputs: for scoring, the columns the model reads; one that is train-only fails the task. None: not checked.
    :param target: for scoring, the model's target: train-only whether the contract marks it or not.
    """

    step = "validate"
    record_type = ValidationReport
    operator_extra_links = (MLflowRunLink(), ReportLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "dataset",
        "contract",
        "data",
        "purpose",
        "inputs",
        "target",
    )

    def __init__(
        self,
        *,
        dataset: Any,
        contract: Any,
        data: Mapping[str, Any],
        purpose: str = "training",
        inputs: Any = None,
        target: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.contract = contract
        self.data = data
        self.purpose = purpose
        self.inputs = inputs
        self.target = target

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return dataset and contract, and what of it counts."""
        return {
            "dataset": self.dataset,
            "contract": self.contract,
            "data": self.data,
            "purpose": self.purpose,
            "inputs": self.inputs or None,
            "target": self.target or None,
        }

    def announce(self, record: ValidationReport, context: Context) -> None:
        """Log the verdict and each finding."""
        self.log.log(logging.ERROR if record.is_failure else logging.INFO, "%s", record.sentence)
        for finding in record.findings:
            self.log.warning("[%s] %s", finding.on_failure, finding.sentence)

    def judge(self, record: ValidationReport) -> None:
        """Fail on a failed contract."""
        if record.verdict == "fail":
            self.fail(record.said)
