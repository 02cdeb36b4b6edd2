"""The policy over windows, as a pure function: what is remembered of each window in, what follows out.

**What counts.** A rule looks at the last M windows by their end, the judged one included, and is breached where that
one breaches and N of them do. Only windows that were scored by the version that serves now count, so that a promotion
or a rollback starts with a clean record; so do only windows with enough rows and a verdict. An ``insufficient`` window
neither breaches nor clears: it is passed over and takes no place among the M. A gap between windows is none.

**What is judged.** Every window whose last M hold one of the run's windows. So a window that arrives late can complete
a breach of a newer one, and a run that changes nothing judges nothing anew.

**What follows, once.** The strongest action of all breaches that nothing holds back: rollback, retrain, notify; of
equal ones that of the newest window. A breach is held back, in this order, because the run is a backfill; because the
window, or a newer one, has asked already; because a retrain is under way; because the window ends within the cool-down
of one that asked, in event time. A request that nobody answered in time holds nothing back. People are told once of
each breach, also of one that a running retrain or the cool-down holds back; a window that was told of as broken and
drifted once its data was mended is told of again.

**Broken data** (``schema_broken``) is a breach for ``notify`` alone: nothing is retrained on it, and nothing is rolled
back for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from airflow_mlops.core.keys import key_id
from airflow_mlops.core.monitoring_records import PolicyAction, PolicyDecision, Suppressed, WindowState
from airflow_mlops.core.policy_words import (
    drift_words,
    notes_of,
    outcome_words,
    performance_words,
)
from airflow_mlops.core.record import Frozen, Window

if TYPE_CHECKING:
    from airflow_mlops.spec.monitoring import MonitoringSpec, PerformanceRuleSpec, PolicyRuleSpec

RuleName = Literal["drift", "performance"]
_RANK: dict[PolicyAction, int] = {"none": 0, "notify": 1, "retrain": 2, "rollback": 3}
#: Differences of metrics are compared with limits that people write in decimals.
_ROUNDING = 1e-9
MAX_REASON = 1_000


class Request(Frozen):
    """A retrain or a rollback that was asked for.

    :param window: the window that asked.
    :param version: the version that served then; a rollback takes back that one and no other.
    :param by: key of the act that asked; a task tried again finds its own.
    :param answered: a training run took it up, or the rollback was done.
    :param ended: that run came to its end, however.
    :param words: the decision's sentence, and its breaches; of no weight here.
    """

    id: str
    window: Window
    action: Literal["retrain", "rollback"]
    asked_at: datetime
    version: int | None = None
    by: str = ""
    reason: str = ""
    words: tuple[str, ...] = ()
    answered: bool = False
    ended: bool = False

    def is_waited_for(self, now: datetime, timeout_hours: float) -> bool:
        """Say whether it is still under way: not ended, and asked for less than the timeout ago."""
        return not self.ended and now - self.asked_at < timedelta(hours=timeout_hours)

    def has_lapsed(self, now: datetime, timeout_hours: float) -> bool:
        """Say whether nobody took it up in time: then it is as if it had never been asked for."""
        return not self.answered and not self.ended and not self.is_waited_for(now, timeout_hours)


@dataclass(frozen=True)
class Breach:
    """A rule that is breached at a window.

    :param action: what the rule asks for, or ``notify`` where the window's data is broken.
    :param held: what holds the action back.
    """

    rule: RuleName
    action: PolicyAction
    state: WindowState
    sentence: str
    held: Suppressed = ""

    @property
    def window(self) -> Window:
        """Return the window at which the rule is breached."""
        return self.state.window

    @property
    def topic(self) -> str:
        """Return what people are told of once for each window: broken data is another matter than drift."""
        return f"{self.rule}.schema_broken" if self.state.drift_verdict == "schema_broken" else self.rule

    def was_told(self, me: str) -> bool:
        """Say whether another act than ``me`` told people of it."""
        return self.state.told.get(self.topic, me) != me


@dataclass(frozen=True)
class Decided:
    """A decision, the breaches that had their consequence by it, and those that people are told of by it."""

    decision: PolicyDecision
    acted: tuple[Breach, ...] = ()
    told: tuple[Breach, ...] = ()


def request_id(model: str, window: Window) -> str:
    """Return the id of what ``window`` asks for: the same however often, and by whomever, it is decided."""
    return key_id(f"request/{model}/{window.start.isoformat()}/{window.end.isoformat()}")


def decide(
    states: Iterable[WindowState],
    spec: MonitoringSpec,
    *,
    model: str,
    windows: Collection[Window],
    now: datetime,
    requests: Sequence[Request] = (),
    champion: int | None = None,
    me: str = "",
    backfill: bool = False,
) -> Decided:
    """Decide once for all of a run's windows.

    :param states: of every window that is remembered, the run's own included, in any order.
    :param model: the registered model's name.
    :param windows: the run's windows.
    :param now: the reader's clock; only used to tell a retrain that is under way from one that never ended.
    :param requests: what was asked for before, in any order.
    :param champion: the version that serves; None: the one that scored the run's newest window.
    :param me: key of this act: what it did itself in an earlier attempt does not hold it back.
    :param backfill: the run belongs to a backfill.
    """
    mine = set(windows)
    ordered = sorted(states, key=_by_end)
    own = [state for state in ordered if state.window in mine]
    serving = champion if champion is not None or not own else own[-1].version
    asked = [
        one for one in requests if not (me and one.by == me) and not one.has_lapsed(now, spec.retrain_timeout_hours)
    ]
    lapsed = {one.id for one in requests if one.has_lapsed(now, spec.retrain_timeout_hours)}
    breaches = []
    for one in _breaches([state for state in ordered if state.version == serving], spec, mine):
        quiet = spec.act_in_backfill or not backfill
        held: Suppressed = _held(one, asked, lapsed, spec, model, me, now) if quiet else "backfill"
        breaches.append(Breach(one.rule, one.action, one.state, one.sentence, held))
    free = [one for one in breaches if not one.held]
    news = tuple(
        one
        for one in breaches
        if one.held in ("cool_down", "retrain_under_way") or (one.action == "notify" and not one.held)
    )
    # Of what nothing follows from, that which people do not know yet comes first.
    chosen = max(free or news or breaches, key=_weight, default=None)
    notes = notes_of(own, spec, serving)
    if chosen is None:
        newest = own[-1].window if own else None
        sentence = outcome_words(model, "none", "", newest, "", spec)
        return Decided(
            PolicyDecision(action="none", sentence=sentence, window=newest, notes=notes, states=len(ordered))
        )
    action: PolicyAction = "none" if chosen.held else chosen.action
    cause = _cause(chosen, asked, spec, now)
    # Nothing was asked for where people were told before and that is all.
    known = chosen.held == "already_acted" and cause is None and request_id(model, chosen.window) not in lapsed
    asks = action in ("retrain", "rollback") or (chosen.held == "already_acted" and not known)
    decision = PolicyDecision(
        action=action,
        sentence=outcome_words(
            model,
            action,
            chosen.held,
            chosen.window,
            chosen.sentence,
            spec,
            chosen.state.drift_verdict,
            cause,
            known=known,
        ),
        window=chosen.window,
        breaches=_told(breaches, chosen),
        notes=notes,
        suppressed=chosen.held,
        reason=_cut(chosen.sentence),
        request=request_id(model, chosen.window) if asks and chosen.action != "notify" else "",
        states=len(ordered),
    )
    return Decided(decision, tuple(free), news)


def _by_end(state: WindowState) -> tuple[datetime, datetime]:
    return state.window.end, state.window.start


def _weight(breach: Breach) -> tuple[int, datetime, datetime, str]:
    return _RANK[breach.action], *_by_end(breach.state), breach.rule


def _breaches(states: Sequence[WindowState], spec: MonitoringSpec, mine: set[Window]) -> list[Breach]:
    """Return every rule at every window where it is breached.

    :param states: of the version that serves, oldest first.
    """
    found: dict[tuple[RuleName, Window], Breach] = {}
    enough = [state for state in states if state.rows >= spec.min_rows]
    if spec.drift.action != "notify":
        sound = [state for state in enough if state.drift_verdict in ("none", "drift")]
        for place, count in _breached(sound, _drifted, spec.drift, mine):
            words = drift_words(sound, place, count, spec.drift, _since(sound, place, _drifted))
            found["drift", sound[place].window] = Breach("drift", spec.drift.action, sound[place], words)
    judged = [state for state in enough if state.drift_verdict in ("none", "drift", "schema_broken")]
    for place, count in _breached(judged, _not_none, spec.drift, mine):
        words = drift_words(judged, place, count, spec.drift, _since(judged, place, _not_none))
        found.setdefault(("drift", judged[place].window), Breach("drift", "notify", judged[place], words))
    if (rule := spec.performance) is not None:
        measured = [state for state in states if _is_measured(state, rule, spec.min_rows)]

        def worse(state: WindowState) -> bool:
            return shortfall(state, rule.metric) > rule.max_drop + _ROUNDING

        for place, count in _breached(measured, worse, rule, mine):
            state = measured[place]
            action: PolicyAction = "notify" if state.drift_verdict == "schema_broken" else rule.action
            words = performance_words(
                measured, place, count, rule, shortfall(state, rule.metric), _since(measured, place, worse)
            )
            found["performance", state.window] = Breach("performance", action, state, words)
    return list(found.values())


def shortfall(state: WindowState, metric: str) -> float:
    """Return how much worse than promised a metric is, negative where it is better. Both figures must be there."""
    realised, promised = state.performance[metric], state.promised[metric]
    if realised is None or promised is None:
        raise ValueError(f"{metric} of {state.window} has no figure to compare")
    return realised - promised if metric in state.lower_is_better else promised - realised


def _is_measured(state: WindowState, rule: PerformanceRuleSpec, min_rows: int) -> bool:
    settled = state.performance_state == "final" or (state.performance_state == "provisional" and rule.provisional)
    rows = state.rows if state.labelled is None else state.labelled
    figures = (state.performance.get(rule.metric), state.promised.get(rule.metric))
    return settled and rows >= min_rows and None not in figures


def _drifted(state: WindowState) -> bool:
    return state.drift_verdict == "drift"


def _not_none(state: WindowState) -> bool:
    return state.drift_verdict != "none"


def _breached(
    states: Sequence[WindowState], breaches: Callable[[WindowState], bool], rule: PolicyRuleSpec, mine: set[Window]
) -> Iterable[tuple[int, int]]:
    """Yield where the rule is breached, and how many of the last M windows are, wherever the run has a part in it."""
    for place, state in enumerate(states):
        look = states[max(0, place + 1 - rule.of_last) : place + 1]
        count = sum(map(breaches, look))
        if breaches(state) and count >= rule.breaches and any(one.window in mine for one in look):
            yield place, count


def _since(states: Sequence[WindowState], place: int, breaches: Callable[[WindowState], bool]) -> Window:
    """Return the first of the unbroken row of breaching windows that ends at ``place``."""
    first = place
    while first and breaches(states[first - 1]):
        first -= 1
    return states[first].window


def _held(
    breach: Breach,
    asked: Sequence[Request],
    lapsed: Collection[str],
    spec: MonitoringSpec,
    model: str,
    me: str,
    now: datetime,
) -> Suppressed:
    if breach.action == "notify":
        return "already_acted" if breach.was_told(me) else ""
    mine = request_id(model, breach.window)
    if mine in lapsed or any(one.id == mine or one.window.end > breach.window.end for one in asked):
        return "already_acted"
    held: Suppressed = ""
    if any(one.is_waited_for(now, spec.retrain_timeout_hours) for one in asked):
        held = "retrain_under_way"
    elif any(_cools(one, breach.window, spec) for one in asked):
        held = "cool_down"
    return "already_acted" if held and breach.was_told(me) else held


def _cools(request: Request, window: Window, spec: MonitoringSpec) -> bool:
    return request.window.end <= window.end <= spec.cool_down.after(request.window.end)


def _cause(breach: Breach, asked: Sequence[Request], spec: MonitoringSpec, now: datetime) -> Request | None:
    """Return the request that holds a breach back, for the sentence."""
    newest_first = sorted(asked, key=lambda one: (one.window.end, one.asked_at), reverse=True)
    wanted: Callable[[Request], bool] = {
        "already_acted": lambda one: one.window == breach.window or one.window.end > breach.window.end,
        "retrain_under_way": lambda one: one.is_waited_for(now, spec.retrain_timeout_hours),
        "cool_down": lambda one: _cools(one, breach.window, spec),
    }.get(breach.held, lambda one: False)
    return next((one for one in newest_first if wanted(one)), None)


def _told(breaches: Sequence[Breach], chosen: Breach) -> tuple[str, ...]:
    """Return one sentence a breached rule, that of the chosen breach first."""
    strongest = {one.rule: one for one in sorted((b for b in breaches if b.rule != chosen.rule), key=_weight)}
    return tuple(_cut(one.sentence) for one in (chosen, *strongest.values()))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"
