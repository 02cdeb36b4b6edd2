"""What a task tells the world of its record: numbers to Airflow's stats, messages to people. Each is told once.

What was told is marked on the MLflow run that holds the record, after it was told. So a task that is tried again, or
cleared, and adopts the record is silent; one that died in between, or whose mark could not be written, tells again: at
least once. A notifier that failed is asked again the next time. A result made anew is a new record and is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.measures import Measure, measures_of
from airflow_mlops.core.monitoring_records import ServedModel
from airflow_mlops.core.notices import Notice, Place, is_another_s, notice_of
from airflow_mlops.core.records import Promotion, Record
from airflow_mlops.engines.marks import read_marks, set_mark
from airflow_mlops.links.addresses import addresses_of
from airflow_mlops.notifications import read_notifications, send
from airflow_mlops.operators.context import dag_run_url, is_backfill
from airflow_mlops.operators.own_stats import emit, stats_style

if TYPE_CHECKING:
    from airflow_mlops.compat import Context
    from airflow_mlops.hooks.mlflow import MLflowHook
    from airflow_mlops.operators.base import StepOperator
    from airflow_mlops.spec.monitoring import NotificationSpec


def spread(
    operator: StepOperator[Any],
    record: Record,
    hook: MLflowHook,
    context: Context,
) -> None:
    """Send the record's numbers and messages. Whatever goes wrong is logged; the task's result stands."""
    try:
        wanted, problems = read_notifications(operator.notifications)
        for problem in problems:
            operator.log.error("%s", problem)
        style = stats_style()
        if style == "off" and not wanted:
            return
        place = place_of(operator, record, addresses_of(record, hook.server()), context)
        if isinstance(record, Promotion) and record.outcome == "promoted":
            record = _with_its_entry(operator, record, hook)
            if is_another_s(record, place):
                return
        measures: tuple[Measure, ...] = ()
        if style != "off":
            measures = measures_of(record, model=place.model, step=operator.step, backfill=place.backfill)
        notice = notice_of(record, place) if wanted else None
        listeners = [one for one in wanted if notice is not None and set(one.events) & set(notice.events)]
        if not measures and not listeners:
            return
        marks = _Marks(operator, hook, getattr(record, "run_id", ""))
        numbers = f"measured.{digest_of([[one.kind, one.full_name, one.value] for one in measures])[:12]}"
        if measures and marks.missing(numbers):
            emit(measures)
            marks.put(numbers, "sent to Airflow's stats")
        for one in listeners:
            if notice is not None:
                _tell(operator, notice, one, marks, context)
    except Exception:
        operator.log.exception("The outcome could not be told. The task's result stands.")


def place_of(operator: Any, record: Record, addresses: Mapping[str, str], context: Context) -> Place:
    """Return where the record was made.

    :param addresses: its pages in MLflow, by ``run``, ``version`` and ``report``, as far as there are any.
    """
    ti = context["ti"]
    return Place(
        model=_model_name(operator, record) or ti.dag_id,
        step=operator.step,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        backfill=is_backfill(context),
        dag_run_url=dag_run_url(context) or "",
        task_url=getattr(ti, "log_url", None) or "",
        mlflow_url=addresses.get("run", ""),
        report_url=addresses.get("report", ""),
        version_url=addresses.get("version", ""),
    )


def _with_its_entry(operator: Any, record: Promotion, hook: MLflowHook) -> Promotion:
    """Return the record with the entry's own words where the version was champion already, and this task wrote none."""
    if record.entry is None or record.from_version != record.to_version:
        return record
    from airflow_mlops.engines.promotions import read_ledger

    try:
        with hook.client() as client:
            line = read_ledger(client, record.name, record.alias).at(record.entry)
    except Exception as exc:  # noqa: BLE001  # rather told twice than never
        operator.log.warning("Who made version %s champion cannot be read: %s", record.to_version, exc)
        return record
    if line is None:
        return record
    said = {"author": line.body.author, "from_version": line.body.from_version, "reason": line.body.reason}
    return record.model_copy(update=said)


def _model_name(operator: Any, record: Record) -> str:
    model = getattr(record, "model", None)
    if isinstance(model, ServedModel):
        return model.name
    if isinstance(record, Promotion):
        return record.name
    return operator.about or getattr(operator, "registered_model", None) or getattr(operator, "model_name", None) or ""


def _tell(operator: Any, notice: Notice, spec: NotificationSpec, marks: _Marks, context: Context) -> None:
    # What makes it another message. A figure that moves with the clock, such as the champion's age, does not.
    same = {key: notice.facts[key] for key in ("what", "how_far", "follows", "window", "verdict")}
    mark = f"told.{notice.event}.{digest_of({'to': spec.model_dump(mode='json'), 'said': same})[:16]}"
    if not marks.missing(mark):
        operator.log.info("%s was told of this %s before.", spec.notifier, notice.event)
        return
    try:
        send(notice, spec, context)
    except Exception as exc:  # noqa: BLE001  # any notifier's any error
        operator.log.error(
            "Nobody was told of %r by %s: %s: %s The task's result stands; mend the notification, and clear this task "
            "to tell again. The message was:\n%s",
            notice.event,
            spec.notifier,
            type(exc).__name__,
            exc,
            notice.message,
        )
        return
    operator.log.info("Told of %r by %s: %s", notice.event, spec.notifier, notice.title)
    marks.put(mark, spec.notifier)


class _Marks:
    """What was told of one record. A server that does not answer means: nothing is known, so it is told."""

    def __init__(self, operator: Any, hook: MLflowHook, run_id: str) -> None:
        self._log = operator.log
        self._hook = hook
        self._run_id = run_id
        self._known: Mapping[str, str] | None = None

    def missing(self, name: str) -> bool:
        if self._known is None:
            self._known = {}
            if self._run_id:
                try:
                    with self._hook.client() as client:
                        self._known = read_marks(client, self._run_id)
                except Exception as exc:  # noqa: BLE001  # the step's work is done: nothing may end the task now
                    self._log.warning("Whether this was told before cannot be read, so it is told: %s", exc)
        return name not in self._known

    def put(self, name: str, value: str) -> None:
        if not self._run_id:
            return
        try:
            with self._hook.client() as client:
                set_mark(client, self._run_id, name, value)
        except Exception as exc:  # noqa: BLE001  # as above
            self._log.warning("That this was told cannot be marked, so a retry tells again: %s", exc)
