"""What a task may know of its run, read the same way on Airflow 2.11 and 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_mlops.core.records import Window
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


def is_backfill(context: Context) -> bool:
    """Say whether the run belongs to a backfill."""
    return run_type(context["dag_run"]) == "backfill"


def run_type(dag_run: Any) -> str:
    """Return ``scheduled``, ``manual``, ``backfill`` or ``asset_triggered``."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def dag_run_url(context: Context) -> str | None:
    """Return the address of the run's page, or None where Airflow does not know its own address."""
    from airflow_mlops.compat import AIRFLOW_3, conf

    ti = context["ti"]
    base = conf.get("api", "base_url", fallback="") if AIRFLOW_3 else conf.get("webserver", "base_url", fallback="")
    if not base:
        return None
    page = f"dags/{quote(ti.dag_id, safe='')}"
    run = quote(ti.run_id, safe="")
    return f"{base.rstrip('/')}/{page}/runs/{run}" if AIRFLOW_3 else f"{base.rstrip('/')}/{page}/grid?dag_run_id={run}"


def last_complete_interval(context: Context, *, cron: str, timezone: str) -> Window:
    """Return the last interval of ``cron`` that was over when the run was asked for.

    :raises InvalidSpecError: the cron expression has no interval before that.
    """
    # Not airflow.sdk's class: that one is only a description for the scheduler and cannot compute.
    from airflow.timetables.interval import CronDataIntervalTimetable
    from pendulum import instance

    dag_run: Any = context["dag_run"]
    asked = getattr(dag_run, "run_after", None) or dag_run.logical_date or dag_run.start_date
    interval = CronDataIntervalTimetable(cron, timezone).infer_manual_data_interval(run_after=instance(asked))
    if interval.start >= interval.end:
        raise InvalidSpecError(f"The schedule {cron!r} has no complete interval before {asked}.")
    return Window(start=interval.start, end=interval.end)
