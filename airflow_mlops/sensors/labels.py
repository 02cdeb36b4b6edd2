"""The sensor that waits for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_mlops.compat import AirflowFailException, AirflowSkipException
from airflow_mlops.core.monitoring_records import MonitoredWindow, PerformanceReport
from airflow_mlops.errors import InvalidSpecError, VerdictError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.sensors.base import WaitingSensor
from airflow_mlops.spec.monitoring import LabelSpec

if TYPE_CHECKING:
    from airflow_mlops.compat import Context
    from airflow_mlops.triggers.base import Answer, Look
    from airflow_mlops.triggers.labels import LabelChangeTrigger

ModelT = TypeVar("ModelT", bound=BaseModel)

#: Longer than any deadline that labels are waited for; the deadline itself ends the wait.
_A_YEAR = 366 * 24 * 3600.0


class LabelCoverageSensor(WaitingSensor):
    """Wait until enough of a published batch's predictions have a label, or the deadline has passed.

    Returns ``{"coverage", "labelled", "rows", "deadline_passed"}``: the share of the predictions with a label that
    counts by the rules of :mod:`airflow_mlops.engines.labels`. Done at ``labels.coverage`` or more, or once
    ``labels.deadline`` after the batch was published is over. While there is no label file it waits. A window that was
    never scored skips the task. Labels that can never fit (ids of another type, a missing column) fail it.

    Counting joins the labels, on a worker. Deferred, the triggerer only lists the label files; a worker counts again
    when they changed, when a label from the future comes of age, and at the deadline. On the worker every look lists
    the files, and in ``mode="reschedule"``, the default there, it also counts.

    :param monitored: a ``MonitoredWindow``: the window and the scoring step's MLflow run.
    :param labels: the keys of ``LabelSpec``. Its ``poll_seconds`` is the default of ``poke_interval``.
    :param label_column: the label's column; default: that of ``labels``.
    :param entity: columns that name the entity; default: those of ``labels``, else the batch's id columns.
    :param report: a ``PerformanceReport`` of the batch; where it is final there is nothing to wait for, and the task is
        skipped.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    :param as_of: the moment that counts as now, ISO; default: now. With a fixed one, files alone end the wait.
    """

    template_fields: Sequence[str] = (
        "monitored",
        "labels",
        "label_column",
        "entity",
        "report",
        "mlflow_conn_id",
        "as_of",
    )

    def __init__(
        self,
        *,
        monitored: Any,
        labels: Mapping[str, Any] | str,
        label_column: str | None = None,
        entity: Sequence[str] | str = (),
        report: Any = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        as_of: str | None = None,
        **kwargs: Any,
    ) -> None:
        poll = labels.get("poll_seconds") if isinstance(labels, Mapping) else None
        kwargs.setdefault("poke_interval", poll if isinstance(poll, int | float) else 300.0)
        kwargs.setdefault("timeout", _A_YEAR)
        kwargs.setdefault("mode", "reschedule")
        super().__init__(**kwargs)
        self.monitored = monitored
        self.labels = labels
        self.label_column = label_column
        self.entity = entity
        self.report = report
        self.mlflow_conn_id = mlflow_conn_id
        self.as_of = as_of

    def trigger_type(self) -> type[LabelChangeTrigger]:
        """Return the trigger that notices new labels."""
        from airflow_mlops.triggers.labels import LabelChangeTrigger

        return LabelChangeTrigger

    def question(self) -> dict[str, Any]:
        """Return where labels arrive; what was seen there is added when the wait begins."""
        labels = _checked(LabelSpec, self.labels, "labels")
        return {"data": labels.data.model_dump(mode="json", exclude_defaults=True)}

    def execute_complete(self, context: Context, event: Answer | None = None) -> Any:
        """Count again once labels changed; wait on where there are still too few."""
        if event is None or event["status"] != "found":
            return super().execute_complete(context, event)
        self.log.info("%s", event["said"])
        try:
            look = self._look()
        except VerdictError as exc:
            self._end(AirflowFailException(str(exc)), exc)
        if look.found is None:
            self._wait_off_the_worker()
        return look.found

    def _look(self) -> Look:
        """Join and count, on this worker."""
        from airflow_mlops.engines.scored_batches import not_scored
        from airflow_mlops.triggers.base import ask
        from airflow_mlops.triggers.labels import LabelCoverageQuestion

        monitored = _checked(MonitoredWindow, self.monitored, "monitored")
        if not monitored.scoring_run_id:
            raise AirflowSkipException(not_scored(monitored))
        if self.report and (known := _checked(PerformanceReport, self.report, "report")).state == "final":
            raise AirflowSkipException(f"The figures of {monitored.window} are final, revision {known.revision}.")
        if self._question is None:
            labels = _checked(LabelSpec, self.labels, "labels")
            self._question = LabelCoverageQuestion(
                monitored=monitored.model_dump(mode="json"),
                labels=labels.model_dump(mode="json"),
                label=self.label_column or None,
                entity=[self.entity] if isinstance(self.entity, str) and self.entity else list(self.entity),
                mlflow_conn_id=self.mlflow_conn_id,
                as_of=self.as_of or None,
            )
        look = ask(self._question)
        self._last_said = look.said
        self.log.info("%s", look.said)
        return look


def _checked(kind: type[ModelT], value: Any, name: str) -> ModelT:
    try:
        return kind.model_validate(value)
    except ValidationError as exc:
        places = "; ".join(f"{'.'.join(map(str, (name, *e['loc'])))}: {e['msg']}" for e in exc.errors())
        raise InvalidSpecError(f"The sensor cannot use what it was given. {places}.") from exc
