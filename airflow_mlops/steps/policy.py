"""Remember what was found of a run's windows, decide once for all of them, and do what follows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from airflow_mlops.core.ledger import DECISIONS
from airflow_mlops.core.monitoring_records import DriftReport, PerformanceReport, PolicyDecision, WindowState
from airflow_mlops.core.policy import Decided, Request, decide
from airflow_mlops.core.record import Window
from airflow_mlops.core.records import Promotion
from airflow_mlops.engines import request_log
from airflow_mlops.engines.alias_moves import Wish, rollback
from airflow_mlops.engines.monitoring_state import (
    MAX_STATES,
    read_states,
    write_request,
    write_state,
    write_told,
)
from airflow_mlops.engines.promotions import DEFAULT_ALIAS, read_ledger
from airflow_mlops.engines.registry import History, history
from airflow_mlops.engines.versions import check_name
from airflow_mlops.errors import InvalidSpecError, OutageError
from airflow_mlops.spec.monitoring import MonitoringSpec
from airflow_mlops.steps.base import Access, Step, Work
from airflow_mlops.steps.promote import act_key, default_author

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

PICTURES = "airflow_mlops.engines.pictures"
#: How often a decision is made anew because somebody else asked for something meanwhile.
MAX_ATTEMPTS = 20


class PolicyPayload(BaseModel):
    """What was found, and what is to follow.

    :param backfill: the run belongs to a backfill.
    :param author: who rolls back, for the ledger; empty: the task's own key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    drift: tuple[DriftReport, ...] | None = None
    performance: tuple[PerformanceReport, ...] | None = None
    monitoring: MonitoringSpec = MonitoringSpec()
    registered_model: str = Field(min_length=1)
    alias: str = DEFAULT_ALIAS
    backfill: bool = False
    author: str = ""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return {**value, **{key: _listed(value[key]) for key in ("drift", "performance") if key in value}}


class PolicyStep(Step[PolicyPayload, PolicyDecision]):
    """Decide what follows from drift and performance, exactly once however many decide.

    The same task tried again finishes what it began: the same request, the same rollback.
    """

    name = "policy"
    payload_type = PolicyPayload
    record_type = PolicyDecision

    def run(self, payload: PolicyPayload, work: Work) -> PolicyDecision:
        """Write the states, decide, ask or roll back, and draw the pictures.

        :raises InvalidSpecError: a report has no window.
        :raises OutageError: other tasks kept asking for something at the same time.
        """
        name = check_name(payload.registered_model)
        past = history(work.client, name, payload.alias)
        windows = _remember(payload, past.champion, work)
        record = self._settled(payload, windows, past, work)
        if record.action == "rollback" and record.entry is not None:
            past = history(work.client, name, payload.alias)
        now = datetime.now(UTC)
        states = read_states(work.client, work.experiment_id, name)
        record = record.model_copy(
            update={
                "states": len(states),
                "champion_version": past.champion,
                "champion_age_days": _age_days(past, now),
                "pictures_uri": _pictures(work, states, past),
                "run_id": work.run_id,
            }
        )
        _describe(work, record)
        return record

    def recheck(self, record: PolicyDecision, payload: PolicyPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt what was done. Where nothing followed, a later look may find a cool-down or a retrain over."""
        return record.action != "none"

    def _settled(self, payload: PolicyPayload, windows: Sequence[Window], past: History, work: Work) -> PolicyDecision:
        name, me = payload.registered_model, act_key(work)
        back_to = min((window.end for window in windows), default=None)
        for _ in range(MAX_ATTEMPTS):
            asked = request_log.read_log(work.client, work.experiment_id, name)
            mine = next((one for one in asked.requests if one.by == me), None)
            if mine is not None:
                return self._carried_out(mine, payload, work)
            # What this task asked for before its inputs changed, and what nobody has heard of: it may have died before
            # it could say so, and nothing holds back what it says now.
            unheard = [one for one in asked.requests if _is_unheard(one, work)]
            states = read_states(work.client, work.experiment_id, name, most=MAX_STATES, back_to=back_to)
            now = datetime.now(UTC)
            decided = decide(
                states,
                payload.monitoring,
                model=name,
                windows=windows,
                now=now,
                requests=[one for one in asked.requests if one not in unheard],
                champion=past.champion,
                me=me,
                backfill=payload.backfill,
            )
            decision = decided.decision
            if decision.action in ("none", "notify"):
                self._tell(decided, payload, work)
                return decision
            wanted = _request(decision, now, me, past.champion)
            same = (wanted.id, wanted.action, wanted.version)
            again = next((one for one in unheard if (one.id, one.action, one.version) == same), None)
            if again is not None:
                return self._carried_out(again, payload, work)
            if request_log.ask(work.client, asked, wanted):
                self._tell(decided, payload, work)
                return self._carried_out(wanted, payload, work)
            log.info("Somebody else asked for something meanwhile; deciding again.")
        raise OutageError(
            f"Other tasks kept asking for retrains or rollbacks of {name!r} while this one decided, {MAX_ATTEMPTS} "
            f"times in a row. Run this task again."
        )

    def _tell(self, decided: Decided, payload: PolicyPayload, work: Work) -> None:
        for breach in decided.told:
            write_told(
                work.client,
                work.experiment_id,
                payload.registered_model,
                breach.window,
                breach.topic,
                act_key(work),
            )

    def _carried_out(self, request: Request, payload: PolicyPayload, work: Work) -> PolicyDecision:
        """Return the decision behind a request of this task, after doing what is to be done here."""
        request_log.pause("after-request")
        name = payload.registered_model
        write_request(
            work.client,
            work.experiment_id,
            name,
            request.window,
            action=request.action,
            request=request.id,
            asked_at=request.asked_at,
        )
        sentence, *breaches = request.words or (f"{name}: {request.reason}",)
        decision = PolicyDecision(
            action=request.action,
            sentence=sentence,
            window=request.window,
            breaches=tuple(breaches),
            reason=request.reason,
            request=request.id,
        )
        return self._rolled_back(decision, request, payload, work) if request.action == "rollback" else decision

    def _rolled_back(
        self, decision: PolicyDecision, request: Request, payload: PolicyPayload, work: Work
    ) -> PolicyDecision:
        name, key = payload.registered_model, f"policy/{payload.registered_model}/{request.id}"
        ledger = read_ledger(work.client, name, payload.alias)
        head = ledger.head
        promotion: Promotion | None = None
        if ledger.by_key(key) is None and head is not None and head.body.to_version != request.version:
            problem = (
                f"version {request.version} was judged, and version {head.body.to_version} serves by now (entry "
                f"{head.number})"
            )
        else:
            author = payload.author.strip() or default_author(work.request)
            promotion = rollback(
                work.client,
                Wish(name, payload.alias, author, decision.reason or decision.sentence, key),
                # Somebody may have moved the alias since the look above.
                only_from=request.version,
            )
            problem = "" if promotion.outcome == "promoted" else f"{promotion.outcome}: {promotion.sentence}"
        request_log.close(work.client, work.experiment_id, name, request.id, problem or "rolled back")
        if promotion is None or problem:
            # People have to know, and nothing else follows.
            sentence = f"{name}: {decision.reason} A rollback was due and did not happen: {problem.rstrip('.')}."
            return decision.model_copy(update={"action": "notify", "sentence": sentence})
        return decision.model_copy(
            update={"sentence": f"{name}: {decision.reason} {promotion.sentence}", "entry": promotion.entry}
        )


def _is_unheard(request: Request, work: Work) -> bool:
    """Say whether this task made a request, with whatever inputs, that nobody has taken up."""
    return request.by.rpartition("/")[0] == work.request.key and not request.answered and not request.ended


def _listed(value: Any) -> Any:
    """Return one report as a list of one, without what skipped tasks left."""
    if value is None:
        return None
    found = [value] if isinstance(value, Mapping | BaseModel) else list(value)
    return [one for one in found if one is not None]


def _remember(payload: PolicyPayload, champion: int | None, work: Work) -> list[Window]:
    """Write what was found of each window; return the windows."""
    windows: dict[Window, None] = {}
    name = payload.registered_model
    for drift in payload.drift or ():
        write_state(work.client, work.experiment_id, name, drift=drift, version=champion)
        windows |= dict.fromkeys([drift.window] if drift.window else [])
    for performance in payload.performance or ():
        write_state(work.client, work.experiment_id, name, performance=performance)
        windows |= dict.fromkeys([performance.window] if performance.window else [])
    return list(windows)


def _request(decision: PolicyDecision, now: datetime, me: str, champion: int | None) -> Request:
    if decision.window is None or decision.action not in ("retrain", "rollback"):
        raise InvalidSpecError(f"The decision {decision.action!r} asks for nothing.")
    return request_log.entry(
        Request(
            id=decision.request,
            window=decision.window,
            action=decision.action,
            asked_at=now,
            version=champion,
            by=me,
            reason=decision.reason,
            words=(decision.sentence, *decision.breaches),
        )
    )


def _age_days(past: History, now: datetime) -> float | None:
    """Return how long ago the ledger's last entry that counted made the champion, in days."""
    moves = [one for one in past.lines if one.status == "counted" and one.action not in DECISIONS]
    since = moves[-1].time if moves else None
    return None if since is None else round((now - since).total_seconds() / 86_400, 3)


def _pictures(work: Work, states: Sequence[WindowState], past: History) -> str:
    """Draw what people look at first. A picture that fails is a warning: the decision stands without it."""
    try:
        if find_spec(PICTURES) is None:
            return ""
        draw = import_module(PICTURES).log_pictures
        return str(draw(work.client, work.run_id, work.folder, states, past.lines))
    except Exception as exc:  # noqa: BLE001  # whatever the drawing library or the store raise
        log.warning("The pictures could not be made: %s: %s. The decision stands.", type(exc).__name__, exc)
        return ""


def _describe(work: Work, record: PolicyDecision) -> None:
    """Put the decision onto the task's MLflow run, where people look for it."""
    from mlflow.entities import RunTag

    from airflow_mlops.engines.runs import cut

    values = {
        "airflow_mlops.action": record.action,
        "airflow_mlops.suppressed": record.suppressed,
        "airflow_mlops.request": record.request,
        "mlflow.note.content": "\n\n".join((record.sentence, *record.notes)),
    }
    work.client.log_batch(work.run_id, tags=[RunTag(key, cut(value)) for key, value in values.items() if value])
