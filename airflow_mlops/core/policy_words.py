"""What the policy says: what breached, how far, since when, which window, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_mlops.core.monitoring_records import DriftVerdict, PolicyAction, Suppressed, WindowState
from airflow_mlops.core.record import Window
from airflow_mlops.core.rules import number

if TYPE_CHECKING:
    from airflow_mlops.core.policy import Request
    from airflow_mlops.spec.monitoring import MonitoringSpec, PerformanceRuleSpec, PolicyRuleSpec

#: Columns that a sentence names.
MAX_NAMED = 5
MAX_NOTES = 10


def drift_words(states: Sequence[WindowState], place: int, count: int, rule: PolicyRuleSpec, since: Window) -> str:
    """Say what drifted in the window at ``place``, how far, and how many of the last windows did."""
    state = states[place]
    if state.drift_verdict == "schema_broken":
        what = f"The data of {state.window} is not what version {state.version} was trained on (schema_broken)"
    else:
        counted = f"{state.drifted_count} of {state.compared_count} columns" if state.compared_count else "Columns"
        farthest = sorted(state.drifted_columns.items(), key=lambda pair: -(pair[1] or 0.0))
        named = ", ".join(
            f"{name} {number(value)}" if value is not None else name for name, value in farthest[:MAX_NAMED]
        )
        more = ", ..." if len(farthest) > MAX_NAMED else ""
        what = f"{counted} drifted in {state.window}" + (f": {named}{more}" if named else "")
    return f"{what}. {_counted(count, min(place + 1, rule.of_last), rule)}{_since(since, state.window)}."


def performance_words(
    states: Sequence[WindowState], place: int, count: int, rule: PerformanceRuleSpec, worse_by: float, since: Window
) -> str:
    """Say how much worse than promised the window at ``place`` is, and how many of the last windows are."""
    state = states[place]
    realised, promised = state.performance[rule.metric], state.promised[rule.metric]
    figures = f"{number(realised or 0.0)} where {number(promised or 0.0)} was promised"
    settled = "" if state.performance_state == "final" else f" ({state.performance_state})"
    return (
        f"{rule.metric} of version {state.version} on {state.window} is {figures}{settled}: worse by "
        f"{number(worse_by)}, and {rule.max_drop:g} is allowed. "
        f"{_counted(count, min(place + 1, rule.of_last), rule)}{_since(since, state.window)}."
    )


def _counted(count: int, looked: int, rule: PolicyRuleSpec) -> str:
    if rule.of_last == 1:
        return "One such window is a breach"
    return (
        f"That is {count} of the last {looked} windows that count, and {rule.breaches} of {rule.of_last} are a breach"
    )


def _since(since: Window, window: Window) -> str:
    return "" if since == window else f", every one since {since}"


def outcome_words(
    model: str,
    action: PolicyAction,
    held: Suppressed,
    window: Window | None,
    breach: str,
    spec: MonitoringSpec,
    verdict: DriftVerdict | None = None,
    cause: Request | None = None,
    *,
    known: bool = False,
) -> str:
    """Say what follows from a breach, or that there is none.

    :param known: people were told of it before, and nothing was asked for.
    """
    if not breach:
        where = "" if window is None else f" up to {window}"
        return f"{model}: no rule is breached{where}. Nothing follows."
    if action == "retrain":
        return f"{model}: {breach} A retrain over {window} is asked for; the training DAG's gate decides of it."
    if action == "rollback":
        return f"{model}: {breach} The version that served before is to be restored."
    if action == "notify":
        mend = (
            " Nothing is retrained on broken data, and nothing rolled back for it: mend the feed, then clear the tasks "
            "of this window."
            if verdict == "schema_broken"
            else " Nothing is started: look at the report and decide."
        )
        return f"{model}: {breach}{mend}"
    why = "people were told of it before." if known else _held_words(held, window, spec, cause)
    return f"{model}: {breach} Nothing follows: {why}"


def _held_words(held: Suppressed, window: Window | None, spec: MonitoringSpec, cause: Request | None) -> str:
    if held == "backfill":
        return "backfills are silent (monitoring.act_in_backfill)."
    asked = (
        ""
        if cause is None
        else f"a {cause.action} was asked for by {cause.window} at {cause.asked_at:%Y-%m-%d %H:%M} UTC"
    )
    if held == "retrain_under_way":
        return f"{asked} and is under way. To ask again after it, clear this task."
    if held == "cool_down" and cause is not None:
        until = spec.cool_down.after(cause.window.end)
        return (
            f"{asked}, and windows that end up to {until:%Y-%m-%d %H:%M} UTC are in its cool-down of {spec.cool_down}."
        )
    if cause is not None and cause.window != window:
        return f"{asked}, which is newer."
    return f"{asked or 'this window was acted on before'}; one window asks once."


def notes_of(own: Sequence[WindowState], spec: MonitoringSpec, serving: int | None) -> tuple[str, ...]:
    """Say which of the run's windows could not be judged by which rule, and why."""
    notes: list[str] = []
    for state in own:
        notes.extend(_notes_of(state, spec, serving))
    if len(notes) > MAX_NOTES:
        return (*notes[-MAX_NOTES:], f"{len(notes) - MAX_NOTES} more notes, on older windows, are left out.")
    return tuple(notes)


def _notes_of(state: WindowState, spec: MonitoringSpec, serving: int | None) -> list[str]:
    window = state.window
    if state.version != serving:
        return [f"{window} was scored by version {state.version}, and version {serving} serves now: it does not count."]
    notes = []
    if state.drift_verdict is not None and state.rows < spec.min_rows:
        notes.append(f"{window} has {state.rows} rows, and {spec.min_rows} are needed to count (monitoring.min_rows).")
    elif state.drift_verdict == "insufficient":
        notes.append(f"The drift of {window} could not be judged (insufficient): it neither breaches nor clears.")
    rule = spec.performance
    if rule is None or not state.performance_state:
        return notes
    if state.performance_state == "waiting":
        notes.append(f"The performance on {window} was not measured yet: too few labels.")
    elif state.performance_state == "provisional" and not rule.provisional:
        notes.append(f"The performance on {window} is provisional, and monitoring.performance waits for final figures.")
    elif state.labelled is not None and state.labelled < spec.min_rows:
        notes.append(
            f"The performance on {window} rests on {state.labelled} labels, and {spec.min_rows} are needed to count "
            f"(monitoring.min_rows)."
        )
    else:
        for what, figures in (
            ("was not measured", state.performance),
            ("was promised by no evaluation", state.promised),
        ):
            if figures.get(rule.metric) is None:
                notes.append(f"The performance on {window} could not be judged: {rule.metric} {what}.")
    return notes
