"""The operator that decides what follows from drift and performance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import PolicyDecision
from airflow_mlops.core.record import Record, Window
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.links import MLflowRunLink, ReportLink
from airflow_mlops.operators.asset_events import aliases, emit
from airflow_mlops.operators.base import StepOperator
from airflow_mlops.operators.context import is_backfill
from airflow_mlops.operators.registry import author

if TYPE_CHECKING:
    from airflow_mlops.compat import Context

#: Windows that a message names.
MAX_NAMED = 5


class ApplyPolicyOperator(StepOperator[PolicyDecision]):
    """Remember what was found of the run's windows, decide once for all of them, and act.

    A retrain is an Asset event for every ``AssetAlias`` outlet, with the extra ``{model, window, reason, request}``;
    a task tried again emits it again with the same request, and consumers drop repeats. A rollback is done here, with
    an entry in the promotion ledger, and emits for the outlet ``REGISTERED_MODEL_ALIAS`` alone, as a promotion does.
    The task succeeds whatever is decided; XCom ``reasons`` has the sentences. With ``planned`` and the trigger rule
    ``all_done`` it decides on the windows whose tasks succeeded, and then fails for those that have no report; an event
    goes out only from a task that succeeds, so after a retrain or a rollback it does, and warns.

    :param drift: a ``DriftReport``, a list of them (the output of a mapped task), or None.
    :param performance: a ``PerformanceReport``, a list of them, or None.
    :param registered_model: the registered model's name.
    :param alias: whose champion is watched, and rolled back.
    :param monitoring: the keys of ``MonitoringSpec``; None: the defaults, which notify of every drift.
    :param planned: the windows that must have a report, as ``plan.output`` of a :class:`PlanMonitoringOperator` gives
        them: ``{"window": ..., "monitored": ...}`` each; None: the plan failed, and so does this task. Performance is
        expected of scored windows only. Or the ``PerformanceReport`` of each, and those that are not final must have
        another. Where no window must have one the task is skipped. Nothing is expected by default.
    """

    step = "policy"
    record_type = PolicyDecision
    operator_extra_links = (MLflowRunLink(), ReportLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "drift",
        "performance",
        "registered_model",
        "alias",
        "monitoring",
        "planned",
    )
    #: The planned windows that have no report, in words.
    _missing: str = ""

    def __init__(
        self,
        *,
        registered_model: str,
        drift: Any = None,
        performance: Any = None,
        alias: str = "champion",
        monitoring: Mapping[str, Any] | None = None,
        planned: Any = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.registered_model = registered_model
        self.drift = drift
        self.performance = performance
        self.alias = alias
        self.monitoring = monitoring
        self.planned = planned

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the reports and who decides.

        :raises InvalidSpecError: nothing was planned.
        """
        drift, performance = _reports(self.drift), _reports(self.performance)
        self._missing = self._without_report(drift, performance)
        return {
            "drift": drift,
            "performance": performance,
            "monitoring": self.monitoring or {},
            "registered_model": self.registered_model,
            "alias": self.alias,
            "backfill": is_backfill(context),
            "author": author(context),
        }

    def _without_report(self, drift: Sequence[Any] | None, performance: Sequence[Any] | None) -> str:
        """Say which of the planned windows have no report, and what to do; empty where all have.

        Where no window has one, the task ends: skipped where none was scored, else failed.
        """
        if self.planned is None:
            raise InvalidSpecError(
                "There are no windows to decide on, because the task that plans them did not succeed. Mend what its "
                "log names, and clear it with what follows it."
            )
        found = {_window(one) for one in (*(drift or ()), *(performance or ()))}
        planned = [
            Window.model_validate(one["window"])
            for one in _reports(self.planned) or ()
            if _is_expected(one, drift is not None)
        ]
        if self.planned != () and not planned and not found:
            self.skip("There is no performance to decide on: no window was scored, or the figures of all are final.")
        missing = [str(window) for window in planned if window not in found]
        if not missing:
            return ""
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        what = "drift" if drift is not None else "performance"
        rest = "What was found of the others is remembered and decided on. " if found else ""
        sentence = (
            f"The {what} in {len(missing)} of {len(planned)} windows is not known, because their tasks did not "
            f"succeed: {', '.join(missing[:MAX_NAMED])}{more}. {rest}Mend what the logs of those tasks name, and clear "
            f"them with what follows them."
        )
        if not found:
            self.fail(sentence)
        return sentence

    def announce(self, record: PolicyDecision, context: Context) -> None:
        """Log every sentence, and emit the event of a retrain or a rollback."""
        said = self.log.warning if record.action != "none" else self.log.info
        said("%s", record.sentence)
        for sentence in (*record.breaches, *record.notes):
            if sentence not in record.sentence:
                self.log.info("%s", sentence)
        if self._missing:
            self.log.warning("%s", self._missing)
        reasons = [record.sentence, *record.breaches, *record.notes, *filter(None, [self._missing])]
        context["ti"].xcom_push(key="reasons", value=reasons)
        champion = f"{self.registered_model}_{self.alias}"
        window = record.window.model_dump(mode="json") if record.window else None
        extra: dict[str, Any] = {"model": self.registered_model, "window": window, "reason": record.reason}
        for outlet in aliases(self.outlets):
            if record.action == "retrain" and outlet.name != champion:
                emit(context, outlet, {**extra, "request": record.request})
            elif record.action == "rollback" and outlet.name == champion:
                moved = {"alias": self.alias, "version": record.champion_version, "entry": record.entry}
                emit(context, outlet, {**extra, **moved})

    def judge(self, record: PolicyDecision) -> None:
        """Fail where planned windows have no report, unless that would hold back an event."""
        if self._missing and record.action not in ("retrain", "rollback"):
            self.fail(self._missing)


def _reports(value: Any) -> list[Any] | None:
    """Return what tasks handed on as a list: mapped tasks give a lazy sequence, skipped ones leave gaps."""
    if value is None:
        return None
    found = [value] if isinstance(value, Mapping | Record) else list(value)
    return [one for one in found if one is not None]


def _is_expected(planned: Mapping[str, Any], drift: bool) -> bool:
    """Say whether a planned window must have a report of its drift, or of its performance."""
    if "monitored" not in planned:
        return planned.get("state") != "final"
    return drift or bool(planned["monitored"]["scoring_run_id"])


def _window(report: Any) -> Window | None:
    window = report.get("window") if isinstance(report, Mapping) else getattr(report, "window", None)
    return None if window is None else Window.model_validate(window)
