"""What is remembered of each window: one MLflow run per registered model and window, so that any machine can decide.

Drift and performance of a window are found by different tasks, weeks apart or at once. Each half is one tag, written
whole, so neither can lose the other; what was done about the window stands in tags of its own. A re-run of a window
writes its half again. Where two processes made a run for one window at the same moment, readers take the newer half of
both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import DriftReport, PerformanceReport, WindowState
from airflow_mlops.core.record import Window
from airflow_mlops.engines import runs
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KIND = "airflow_mlops.kind"
DRIFT = "airflow_mlops.drift_state"
PERFORMANCE = "airflow_mlops.performance_state"
#: Followed by what people were told of: the rule's name, and whether the data was broken.
TOLD = "airflow_mlops.told."
ACTION = "airflow_mlops.action"
REQUEST = "airflow_mlops.request"
ASKED_AT = "airflow_mlops.asked_at"
MONITORING = "monitoring"
#: Windows that policy and pictures look at.
MAX_STATES = 200
#: Drifted columns that are remembered, the farthest first; the drift report has all.
MAX_COLUMNS = 20
_PAGE = 200
_DRIFT_FIELDS = ("rows", "drift_verdict", "drift_share", "drifted_columns", "drifted_count", "compared_count")
_PERFORMANCE_FIELDS = (
    "performance",
    "promised",
    "other_performance",
    "performance_state",
    "lower_is_better",
    "coverage",
    "labelled",
)


def write_state(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    *,
    drift: DriftReport | None = None,
    performance: PerformanceReport | None = None,
    version: int | None = None,
) -> str:
    """Remember what was found of one window, in place of what was found before; return the id of the window's run.

    :param name: the registered model.
    :param version: the version that counts as having scored the window where the drift report names none.
    :raises InvalidSpecError: a report has no window, or both are about different ones.
    """
    from mlflow.entities import Metric, RunTag

    windows = {report.window for report in (drift, performance) if report is not None}
    if len(windows) != 1 or None in windows:
        raise InvalidSpecError(
            f"The policy remembers {name!r} window by window, and these reports are about "
            f"{' and '.join(sorted(str(window or 'no window') for window in windows)) or 'nothing'}. Monitor data with "
            f"an event time: data.event_time."
        )
    window = next(iter(windows))
    assert window is not None  # noqa: S101  # as just checked
    run = window_run(client, experiment_id, name, window)
    now = datetime.now(UTC).isoformat()
    tags: dict[str, str] = {}
    figures: dict[str, float | None] = {}
    if drift is not None:
        half = _drift_half(drift, version)
        tags[DRIFT] = _text({**half, "at": now}, "drifted_columns")
        figures |= {"drift_share": half["drift_share"], "drifted_columns": half["drifted_count"], "rows": half["rows"]}
    if performance is not None:
        half = _performance_half(performance)
        tags[PERFORMANCE] = _text({**half, "at": now}, "other_performance", "promised", "performance")
        figures["coverage"] = half["coverage"]
        for kind, values in (("realised", half["performance"]), ("promised", half["promised"])):
            # MLflow allows no colon in a metric's name on every platform.
            figures |= {f"{kind}.{metric.replace(':', '.')}": value for metric, value in values.items()}
    stamp = int(time.time() * 1000)
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, float(value), stamp, 0) for key, value in figures.items() if value is not None],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def window_run(client: MlflowClient, experiment_id: str, name: str, window: Window) -> Run:
    """Return the run that remembers a window of ``name``; it is made where there is none."""
    start, end = window.start.isoformat(), window.end.isoformat()
    run, _ = runs.get_or_create_run(
        client,
        experiment_id,
        key=f"{MONITORING}/{name}/{start}/{end}",
        name=f"{name} {window}",
        tags={
            KIND: MONITORING,
            runs.REGISTERED_MODEL: name,
            runs.WINDOW_START: start,
            runs.WINDOW_END: end,
            "mlflow.note.content": f"What monitoring remembers of {name} on {window}: the newest verdicts, and what "
            f"was done about them. Written by airflow-mlops; the policy reads it.",
        },
    )
    return run


def write_told(client: MlflowClient, experiment_id: str, name: str, window: Window, topic: str, by: str) -> None:
    """Remember that people were told of a rule's breach.

    :param topic: :attr:`airflow_mlops.core.policy.Breach.topic`.
    :param by: key of the act that told them.
    """
    run = window_run(client, experiment_id, name, window)
    client.set_tag(run.info.run_id, TOLD + topic, runs.cut(by))


def write_request(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    window: Window,
    *,
    action: str,
    request: str,
    asked_at: datetime,
) -> None:
    """Remember, for people and pictures, that a window asked for something; the request log is what decides."""
    from mlflow.entities import RunTag

    run = window_run(client, experiment_id, name, window)
    values = {ACTION: action, REQUEST: request, ASKED_AT: asked_at.isoformat()}
    client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in values.items()])


def read_states(
    client: MlflowClient, experiment_id: str, name: str, *, most: int = MAX_STATES, back_to: datetime | None = None
) -> list[WindowState]:
    """Return what is remembered of the newest windows of ``name``, oldest first.

    A window of which neither half can be read is left out.

    :param most: windows at most, by their end.
    :param back_to: so many of those that end by this moment, and every newer one: labels may come so late that their
        window is no longer among the newest.
    """
    found: dict[Window, list[Run]] = {}
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string=f"tags.`{KIND}` = '{MONITORING}' AND tags.`{runs.REGISTERED_MODEL}` = '{name}'",
            # ISO times in UTC sort as text.
            order_by=[f"tags.`{runs.WINDOW_END}` DESC", f"tags.`{runs.WINDOW_START}` DESC"],
            max_results=_PAGE,
            page_token=token,
        )
        for run in page:
            window = _window(run)
            if window is not None:
                found.setdefault(window, []).append(run)
        token = page.token
        if not token or sum(back_to is None or window.end <= back_to for window in found) > most:
            break
    ordered = sorted(found, key=lambda window: (window.end, window.start))
    newer = sum(back_to is not None and window.end > back_to for window in ordered)
    newest = ordered[-(most + newer) :]
    states = (_state(window, found[window]) for window in newest)
    return [state for state in states if state is not None]


def _window(run: Run) -> Window | None:
    try:
        return Window.model_validate(
            {"start": run.data.tags.get(runs.WINDOW_START), "end": run.data.tags.get(runs.WINDOW_END)}
        )
    except ValueError:
        return None


def _state(window: Window, found: list[Run]) -> WindowState | None:
    found = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
    drift = _newest(_half(run, DRIFT) for run in found)
    performance = _newest(_half(run, PERFORMANCE) for run in found)
    if drift and performance and drift["version"] != performance["version"]:
        # The window was scored again by another version: what was found of the first does not describe it.
        older = min(drift, performance, key=lambda half: str(half.get("at", "")))
        drift, performance = ({}, performance) if older is drift else (drift, {})
    if not drift and not performance:
        return None
    tags: dict[str, str] = {}
    for run in found:
        tags |= run.data.tags
    try:
        return WindowState.model_validate(
            {
                "window": window,
                "version": (drift or performance)["version"],
                "rows": (drift or performance)["rows"],
                **{field: drift[field] for field in _DRIFT_FIELDS if field in drift},
                **{field: performance[field] for field in _PERFORMANCE_FIELDS if field in performance},
                "told": {tag.removeprefix(TOLD): value for tag, value in tags.items() if tag.startswith(TOLD)},
                "action": tags.get(ACTION, "none"),
                "request": tags.get(REQUEST, ""),
                "asked_at": tags.get(ASKED_AT, ""),
                "run_id": found[0].info.run_id,
            }
        )
    except (ValueError, KeyError):
        # Somebody edited the tags: what they say is no evidence.
        return None


def _newest(halves: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return max(halves, key=lambda half: str(half.get("at", "")), default={})


def _half(run: Run, tag: str) -> dict[str, Any]:
    try:
        value = json.loads(run.data.tags.get(tag, "{}"))
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) and "version" in value and "rows" in value else {}


def _drift_half(report: DriftReport, version: int | None) -> dict[str, Any]:
    drifted = [one for one in report.columns if one.drifted]
    if report.prediction is not None and report.prediction.drifted:
        drifted.append(report.prediction)
    farthest = sorted(drifted, key=lambda one: -(one.value or 0.0))[:MAX_COLUMNS]
    return {
        "version": report.model.version if report.model is not None else version or 0,
        "rows": report.row_count,
        "drift_verdict": report.verdict,
        "drift_share": report.share,
        "drifted_columns": {one.column: _short(one.value) for one in farthest},
        "drifted_count": report.drifted_count,
        "compared_count": report.compared_count,
    }


def _performance_half(report: PerformanceReport) -> dict[str, Any]:
    return {
        "version": report.model.version,
        "rows": report.row_count,
        "performance": {name: _short(value) for name, value in report.metrics.items()},
        "promised": {name: _short(value) for name, value in report.promised.items()},
        "other_performance": {name: _short(value) for name, value in report.other_metrics.items()},
        "performance_state": report.state,
        "lower_is_better": list(report.lower_is_better),
        "coverage": report.coverage,
        "labelled": report.labelled_count,
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


def _text(half: Mapping[str, Any], *shortened: str) -> str:
    """Return a half as JSON that fits into a tag: the last entries of the named parts go first."""
    kept = dict(half)
    for field in shortened:
        while len(text := _json(kept)) > runs.MAX_TAG and kept[field]:
            kept[field] = dict(list(kept[field].items())[:-1])
    if len(text := _json(kept)) > runs.MAX_TAG:
        raise InvalidSpecError(
            f"What is remembered of a window takes {len(text)} characters, and {runs.MAX_TAG} fit: list fewer names "
            f"under evaluation.lower_is_better."
        )
    return text


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
