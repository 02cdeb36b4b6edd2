"""What a task may know of its run, read the same way on Airflow 2.11 and 3."""

from __future__ import annotations

import re
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
    ti = context["ti"]
    return _page(ti.dag_id, ti.run_id)


def task_page(key: str) -> str | None:
    """Return the address of the page of the task that a key names.

    :param key: as :class:`airflow_mlops.core.keys.TaskKey` writes it. None comes back for a key of another form, such
        as that of a run on the command line, and where Airflow does not know its own address.
    """
    dag_id, _, rest = key.partition("/")
    run_id, task_id, map_index = rest.rsplit("/", 2) if rest.count("/") >= 2 else ("", "", "")
    if not run_id or not re.fullmatch(r"-?\d+", map_index):
        return None
    return _page(dag_id, run_id, task_id, int(map_index))


def _page(dag_id: str, run_id: str, task_id: str = "", map_index: int = -1) -> str | None:
    from airflow_mlops.compat import AIRFLOW_3, conf

    base = conf.get("api", "base_url", fallback="") if AIRFLOW_3 else conf.get("webserver", "base_url", fallback="")
    if not base:
        return None
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    if not AIRFLOW_3:
        chosen = (f"&task_id={task}" if task else "") + (f"&map_index={map_index}" if map_index >= 0 else "")
        return f"{base.rstrip('/')}/dags/{dag}/grid?dag_run_id={run}{chosen}"
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"{base.rstrip('/')}/dags/{dag}/runs/{run}" + (f"/tasks/{task}{mapped}" if task else "")


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
