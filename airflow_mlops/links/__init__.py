"""Buttons on a task's page that lead to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.compat import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow_mlops.compat import BaseOperator, Context


class _StoredLink(BaseOperatorLink):
    """A link whose address the task itself pushed to XCom while it ran.

    When a task ends, Airflow 3 asks every link for its address in the task's own process. The operator still knows,
    and an address that was never stored need not be asked for, which Airflow logs as an error.
    """

    name: ClassVar[str]
    key: ClassVar[str]

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the stored address, or an empty string (no button) where the task did not get that far."""
        known: dict[str, str] | None = getattr(operator, "link_addresses", None)
        if known is not None:
            return known.get(self.key, "")
        return XCom.get_value(key=self.key, ti_key=ti_key) or ""

    @classmethod
    def store(cls, context: Context, address: str | None) -> None:
        """Push the address; nothing for an empty one."""
        if not address:
            return
        context["ti"].xcom_push(key=cls.key, value=address)
        known = getattr(context.get("task"), "link_addresses", None)
        if known is not None:
            known[cls.key] = address


class MLflowRunLink(_StoredLink):
    """The MLflow run that holds what this task logged."""

    name = "MLflow run"
    key = "mlflow_run_link"


class ModelVersionLink(_StoredLink):
    """The registered model version this task made or moved."""

    name = "Model version"
    key = "model_version_link"


class ReportLink(_StoredLink):
    """The page this task wrote: validation report, evaluation table or gate decision."""

    name = "Report"
    key = "report_link"


class EvidentlyLink(_StoredLink):
    """Evidently's page on a window."""

    name = "Evidently report"
    key = "evidently_link"


class ReusedFromLink(_StoredLink):
    """The Airflow task whose result this one took over instead of making it again."""

    name = "Reused from"
    key = "reused_from_link"
