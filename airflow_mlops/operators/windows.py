"""Which window a run is about, and why it runs, read from what Airflow knows. Never from the clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import parse_window, partition_window
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.operators.context import is_backfill, run_type

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


def anchor_window(
    context: Context,
    *,
    start: str | None = None,
    end: str | None = None,
    last_complete: Window | None = None,
) -> tuple[Window, str]:
    """Return the run's anchor window and the reason it was started, in words.

    In this order: window parameters of the run; the newest window of all Asset events that triggered it; its data
    interval (a schedule's, or a backfill's own); ``last_complete`` for a manual run whose specification allows it.

    :param start: ISO time from the run's parameters; empty for none. ``end`` likewise, not included in the window.
    :raises InvalidSpecError: none of these gives a window; the message says what to pass.
    """
    dag_run: Any = context["dag_run"]
    if start or end:
        return parse_window(start, end, "The run's parameters window_start and window_end"), "started by hand"
    # Airflow 2 calls them datasets.
    triggers = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
    events = [event for group in triggers.values() for event in group]
    if events:
        return newest_window(events)
    begins, ends = dag_run.data_interval_start, dag_run.data_interval_end
    # A triggered run may carry an interval that Airflow inferred from the moment it was triggered: nobody asked for it.
    timed = run_type(dag_run) in ("scheduled", "backfill")
    if timed and begins is not None and ends is not None and begins < ends:
        kind = "backfill" if is_backfill(context) else "schedule"
        return Window(start=begins, end=ends), f"{kind}, data interval {Window(start=begins, end=ends)}"
    if last_complete is not None:
        return last_complete, "started by hand, for the last complete interval"
    raise InvalidSpecError(
        "This run has no data window: it was started by hand without window parameters and its specification does not "
        "say what to take. Trigger it with window_start and window_end (ISO times, the end not included), or set "
        "schedule.manual_window: last_complete_interval."
    )


def newest_window(events: Iterable[Any]) -> tuple[Window, str]:
    """Return the newest window of all Asset events, by end and then by start, and the reason in words.

    An event's window is in its extra (``{"window": {"start", "end"}}``), else its time partition, else its source
    run's data interval.

    :raises InvalidSpecError: no event names a window.
    """
    found: list[tuple[Window, str]] = []
    names = []
    for event in events:
        extra: Mapping[str, Any] = getattr(event, "extra", None) or {}
        asset = getattr(getattr(event, "asset", None), "name", None) or getattr(event, "uri", "an Asset")
        names.append(str(asset))
        reason = f"Asset event of {asset}" + (f": {extra['reason']}" if extra.get("reason") else "")
        window = _window_of(event, extra, str(asset))
        if window is not None:
            found.append((window, reason))
    if not found:
        raise InvalidSpecError(
            f"The Asset events that started this run ({', '.join(sorted(set(names)))}) carry no data window. Emit them "
            f'with extra={{"window": {{"start": ISO, "end": ISO}}}}, or from a DAG whose runs have a data interval.'
        )
    window, reason = max(found, key=lambda pair: (pair[0].end, pair[0].start))
    others = len({str(other) for other, _ in found}) - 1
    return window, reason + (f" (the newest of {others + 1} windows)" if others else "")


def _window_of(event: Any, extra: Mapping[str, Any], asset: str) -> Window | None:
    written = extra.get("window")
    if isinstance(written, Mapping):
        return parse_window(written.get("start"), written.get("end"), f"The window in the event of Asset {asset}")
    if (key := getattr(event, "partition_key", None)) and (named := partition_window(str(key))) is not None:
        return named
    source = getattr(event, "source_dag_run", None)
    begins = getattr(source, "data_interval_start", None)
    ends = getattr(source, "data_interval_end", None)
    return Window(start=begins, end=ends) if begins and ends and begins < ends else None
