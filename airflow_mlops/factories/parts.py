"""What the DAGs of one specification share: their schedule, parameters, task settings and the Assets between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow_mlops.compat import AIRFLOW_3, DAG, Asset, AssetAny, CronDataIntervalTimetable, Param
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import ModelSpec, RuntimeSpec, ScheduleSpec

TEXT = ["null", "string"]
#: Airflow 2.11 wants a start of every DAG with a schedule, also of one that only Assets start.
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@contextmanager
def dag_with(params: Mapping[str, Param], **settings: Any) -> Iterator[DAG]:
    """Open a DAG as ``with DAG(...)`` does, and give it its run parameters when its tasks are there.

    The DAG and its runs are the same either way. But Airflow would check the parameters' own schemas at once and copy
    them again into every task, which is half of what making a DAG costs, each time its file is parsed.

    :param params: with defaults that fit; those of a scheduled DAG need one each.
    :param settings: what ``DAG`` takes.
    """
    with DAG(**settings) as dag:
        yield dag
    dag.params.update(params)


class AnyAsset(AssetAny):  # type: ignore[misc]  # its type differs between the versions of Airflow
    """The schedule "whenever one of these Assets has an event", by their names.

    Airflow asks for a DAG's hash at every edge between its tasks, and so for the schedule's, which it makes by writing
    each Asset as JSON. It cannot change, so here it is made once: a third of what making the DAG's tasks costs.
    """

    def __init__(self, *names: str) -> None:
        super().__init__(*(Asset(name) for name in names))
        self._hash: int = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def champion_asset_name(spec: ModelSpec) -> str:
    """Return the name of the Asset that gets an event whenever ``spec``'s alias moves."""
    return f"{spec.registered_model}_{spec.promotion.alias}"


def predictions_asset_name(spec: ModelSpec) -> str:
    """Return the name of the Asset that gets an event whenever a batch of predictions was published."""
    return f"{spec.registered_model}_predictions"


def retrain_asset_name(spec: ModelSpec) -> str:
    """Return the name of the Asset that gets an event when the monitoring policy wants the model trained again."""
    return f"{spec.registered_model}_retrain"


def timetable(spec: ModelSpec, schedule: ScheduleSpec) -> Any:
    """Return what Airflow's ``schedule`` takes."""
    if schedule.cron:
        # A bare cron string gives Airflow 3 an interval of no length.
        return CronDataIntervalTimetable(schedule.cron, timezone=schedule.timezone)
    own = (retrain_asset_name(spec),) if schedule.on_retrain else ()
    names = dict.fromkeys((*own, *schedule.on_assets))
    return AnyAsset(*names) if names else None


def start_date(schedule: ScheduleSpec) -> datetime | None:
    """Return the first interval's start, in the schedule's zone where none is written."""
    if schedule.start_date is None:
        return None if AIRFLOW_3 else LONG_AGO
    written = datetime.fromisoformat(schedule.start_date)
    return written if written.tzinfo else written.replace(tzinfo=ZoneInfo(schedule.timezone))


def manual_schedule(schedule: ScheduleSpec) -> dict[str, str] | None:
    """Return the schedule whose last complete interval a run by hand takes, or None where such a run must say."""
    if schedule.cron and schedule.manual_window == "last_complete_interval":
        return {"cron": schedule.cron, "timezone": schedule.timezone}
    return None


def window_params(what: str) -> dict[str, Param]:
    """Return the run parameters that name a window.

    :param what: the window's name in their descriptions.
    """
    return {
        "window_start": Param(
            None, type=TEXT, description=f"First instant of the {what}, ISO, UTC; empty: from the schedule."
        ),
        "window_end": Param(None, type=TEXT, description=f"End of the {what}, not included."),
    }


def run_params(what: str) -> dict[str, Param]:
    """Return the parameters of a run over windows: the window, the reason, and whether to make everything anew."""
    return {
        **window_params(what),
        "reason": Param(None, type=TEXT, description="Why this run is started; kept in MLflow."),
        "force": Param(False, type="boolean", description="Make everything anew though the inputs are the same."),
    }


def notifications(spec: ModelSpec) -> list[dict[str, Any]]:
    """Return whom to tell, as operators take it."""
    return [one.model_dump(mode="json") for one in spec.notifications]


def task_defaults(spec: ModelSpec, schedule: ScheduleSpec) -> Mapping[str, Any]:
    """Return the ``default_args`` of a DAG's tasks.

    :param schedule: whose retries, time limit and pool they take.
    """
    defaults: dict[str, Any] = {
        "owner": spec.owner,
        "retries": schedule.retries,
        "retry_delay": timedelta(seconds=schedule.retry_delay_seconds),
        "execution_timeout": timedelta(minutes=schedule.task_timeout_minutes),
        "mlflow_conn_id": spec.connection_id,
        "experiment": spec.experiment_name,
        "about": spec.registered_model,
        "force": "{{ params.force }}",
    }
    if schedule.pool:
        defaults["pool"] = schedule.pool
    return defaults


def check_runtimes(spec: ModelSpec) -> None:
    """Refuse a runtime that does not exist or does not take its settings.

    :raises InvalidSpecError: with the model and the key.
    """
    for place, runtime in (
        ("runtime", spec.runtime),
        *((f"step_runtimes.{k}", v) for k, v in spec.step_runtimes.items()),
    ):
        if runtime == RuntimeSpec(name="inline"):
            continue
        # Imported here: what nobody uses is not paid for while a DAG file is parsed.
        from airflow_mlops.runtimes import make_runtime

        try:
            make_runtime(runtime.name, runtime.settings)
        except InvalidSpecError as exc:
            raise type(exc)(f"Model {spec.name!r}: {place}: {exc}") from exc
