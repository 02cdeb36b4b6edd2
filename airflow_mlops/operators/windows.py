"""Which window a run is about, and why it runs, read from what Airflow knows. Never from the clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import parse_window, partition_window
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.operators.asset_events import read_extra
from airflow_mlops.operators.context import is_backfill, run_type

if TYPE_CHECKING:
    from airflow_mlops.compat import Context

#: Reasons of different events that are told; equal ones are told once.
MAX_REASONS = 5


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
    if not (start or end) and (events := triggering_events(context)):
        return newest_window(events)
    return _own_window(context, start, end, last_complete)


def all_windows(
    context: Context,
    *,
    start: str | None = None,
    end: str | None = None,
    last_complete: Window | None = None,
) -> tuple[list[Window], str]:
    """Return every distinct window that the run is about, oldest first, and the reason it was started, in words.

    As :func:`anchor_window`, but of Asset events that collapsed into one run each window counts, not only the newest.

    :raises InvalidSpecError: as there.
    """
    if not (start or end) and (events := triggering_events(context)):
        return distinct_windows(events)
    window, reason = _own_window(context, start, end, last_complete)
    return [window], reason


def triggering_events(context: Context) -> list[Any]:
    """Return every Asset event that started the run, of all Assets."""
    # Airflow 2 calls them datasets.
    triggers: Any = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
    return [event for group in triggers.values() for event in group]


def _own_window(
    context: Context, start: str | None, end: str | None, last_complete: Window | None
) -> tuple[Window, str]:
    dag_run: Any = context["dag_run"]
    if start or end:
        return parse_window(start, end, "The run's parameters window_start and window_end"), "started by hand"
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
    found, _ = _windows(events)
    window, reason = max(found, key=lambda pair: (pair[0].end, pair[0].start))
    others = len({other for other, _ in found}) - 1
    return window, reason + (f" (the newest of {others + 1} windows)" if others else "")


def distinct_windows(events: Iterable[Any]) -> tuple[list[Window], str]:
    """Return every distinct window of the Asset events, oldest first, and the reason in words.

    :raises InvalidSpecError: no event names a window.
    """
    found, without = _windows(events)
    windows = sorted({window for window, _ in found}, key=lambda window: (window.start, window.end))
    reasons = list(dict.fromkeys(reason for _, reason in found))
    told = "; ".join(reasons[:MAX_REASONS])
    if len(reasons) > MAX_REASONS:
        told += f"; and {len(reasons) - MAX_REASONS} more reasons"
    if len(windows) > 1:
        told += f" ({len(windows)} windows of {len(found)} events)"
    if without:
        told += f" ({without} further event{'s' if without > 1 else ''} named no window)"
    return windows, told


def _windows(events: Iterable[Any]) -> tuple[list[tuple[Window, str]], int]:
    """Return the window and reason of each event that names one, and how many name none."""
    found: list[tuple[Window, str]] = []
    names = []
    for event in events:
        extra = read_extra(event)
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
    return found, len(names) - len(found)


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
