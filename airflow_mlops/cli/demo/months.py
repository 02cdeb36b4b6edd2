"""The demo's second half: months are scored one after the other, watched, and answered by a retrain when they drift.

Nothing here starts a monitoring or a retraining run. A published batch starts the one, a drift verdict the other,
through Airflow's Asset events; the demo triggers scoring, delivers labels late, and looks on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.cli.demo.airflow_api import FINISHED, AirflowAPI
from airflow_mlops.cli.demo.lake import LabelFeed
from airflow_mlops.cli.demo.story import TRAIN, Row
from airflow_mlops.core.windows import partition_window
from airflow_mlops.errors import OutageError

SCORE = "score_flights"
MONITOR = "monitor_flights"
MONTHS = ("2013-03", "2013-04", "2013-05", "2013-06", "2013-07", "2013-08")
#: The month whose drift asks for a retrain, and the one that the retrained model scores first.
DRIFTS, AFTER = "2013-07", "2013-08"
#: Labels of the first two thirds of a month arrive before the rest.
EARLY_SHARE = 0.66
_POLL_SECONDS = 1.0


@dataclass(kw_only=True)
class Month:
    """What became of one month: records as the tasks left them, empty where they left none."""

    month: str
    seconds: float = 0.0
    scoring: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    decision: Mapping[str, Any] = field(default_factory=dict)
    retrain: Mapping[str, Any] = field(default_factory=dict)
    performance: Mapping[str, Any] = field(default_factory=dict)
    early_state: str = ""

    @property
    def version(self) -> int | None:
        """Return the version that scored the month."""
        return (self.scoring.get("model") or {}).get("version")


class Service:
    """A model in service for some months.

    :param say: called with one line of progress.
    :param run_seconds: how long a run may take.
    """

    def __init__(self, api: AirflowAPI, labels: LabelFeed, say: Callable[[str], None], run_seconds: float = 600.0):
        self.api = api
        self.labels = labels
        self.say = say
        self.run_seconds = run_seconds

    def play(self, months: Sequence[str] = MONTHS) -> list[Month]:
        """Score, watch and answer every month; return what became of each.

        :raises OutageError: a run that should have started or finished did not, in time.
        """
        for dag_id in (SCORE, MONITOR):
            self.api.wait_for_dag(dag_id)
            self.api.unpause(dag_id)
        found: list[Month] = []
        for name in months:
            self.say(f"--- {_title(name)}: a batch to score")
            begin = time.monotonic()
            month = Month(month=name, scoring=self._score(name))
            found.append(month)
            self.labels.deliver(name, EARLY_SHARE)
            self._watch_drift(month)
            if month.decision.get("action") == "retrain":
                self._await_retrain(month)
            self.labels.deliver(name)
            month.seconds = time.monotonic() - begin
        for month in found:
            begin = time.monotonic()
            self._await_performance(month)
            month.seconds += time.monotonic() - begin
        return found

    def _score(self, month: str) -> Mapping[str, Any]:
        window = _window(month)
        run_id = self.api.trigger(SCORE, {**window, "reason": f"the flights of {month}"})
        self.say(f"    {self.api.url_of(SCORE, run_id)}")
        run = self.api.wait_for_run(SCORE, run_id, seconds=self.run_seconds)
        report = self.api.xcom(SCORE, run_id, "batch.score", map_index=0) or {}
        self.say(f"    {report.get('sentence') or run['state']}")
        return report

    def _watch_drift(self, month: Month) -> None:
        run_id, place = self._monitoring_run(month.month)
        self.say(f"    {self.api.url_of(MONITOR, run_id)}")
        self._await_task(MONITOR, run_id, "act_on_drift")
        month.drift = self.api.xcom(MONITOR, run_id, "inputs.detect_drift", map_index=place) or {}
        month.decision = self.api.xcom(MONITOR, run_id, "act_on_drift") or {}
        states = self.api.task_states(MONITOR, run_id)
        month.early_state = str(states.get(f"outcomes.label_coverage[{place}]") or "")
        self.say(f"    {month.drift.get('sentence', 'no drift verdict')}")
        self.say(f"    {month.decision.get('sentence', 'no decision')}")

    def _await_retrain(self, month: Month) -> None:
        request = month.decision.get("request")

        def asked() -> tuple[str, int] | None:
            for event in self.api.asset_events(MONITOR):
                if (event.get("extra") or {}).get("request") == request:
                    for run in event.get("created_dagruns") or []:
                        if run["dag_id"] == TRAIN:
                            return str(run["run_id"]), 0
            return None

        run_id, _ = self._until(asked, f"no run of {TRAIN} was started by the event of request {request}")
        self.say(f"    the Asset event started {self.api.url_of(TRAIN, run_id)}")
        run = self.api.wait_for_run(TRAIN, run_id, seconds=self.run_seconds)
        records = {task: self.api.xcom(TRAIN, run_id, task) or {} for task in ("plan", "evaluate", "gate", "promote")}
        month.retrain = {"state": run["state"], **records}
        self.say(f"    {records['promote'].get('sentence') or records['gate'].get('sentence') or run['state']}")

    def _await_performance(self, month: Month) -> None:
        run_id, place = self._monitoring_run(month.month)
        self.api.wait_for_run(MONITOR, run_id, seconds=self.run_seconds)
        month.performance = self.api.xcom(MONITOR, run_id, "outcomes.evaluate_predictions", map_index=place) or {}
        self.say(f"    {month.performance.get('sentence', f'{month.month}: no performance')}")

    def _monitoring_run(self, month: str) -> tuple[str, int]:
        """Return the run that watches the month, and the month's place among its windows."""
        window = partition_window(month)
        assert window is not None  # noqa: S101  # months are ours
        wanted = window.model_dump(mode="json")["start"]

        def watching() -> tuple[str, int] | None:
            for run in self.api.runs(MONITOR):
                planned = self.api.xcom(MONITOR, run["dag_run_id"], "plan", key="windows") or []
                for place, one in enumerate(planned):
                    if one["start"] == wanted:
                        return str(run["dag_run_id"]), place
                if run["state"] == "failed" and not planned:
                    raise OutageError(f"Run {run['dag_run_id']} of {MONITOR} failed before it had a plan.")
            return None

        return self._until(watching, f"the batch of {month} started no run of {MONITOR}")

    def _await_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        def ended() -> tuple[str, int] | None:
            state = self.api.task_states(dag_id, run_id).get(task_id)
            return (str(state), 0) if state in (*FINISHED, "skipped", "upstream_failed") else None

        self._until(ended, f"{task_id} of {dag_id} {run_id} did not end")

    def _until(self, look: Callable[[], tuple[str, int] | None], matter: str) -> tuple[str, int]:
        deadline = time.monotonic() + self.run_seconds
        while True:
            if (found := look()) is not None:
                return found
            if time.monotonic() > deadline:
                raise OutageError(f"{matter}, in {self.run_seconds:.0f} s.")
            time.sleep(_POLL_SECONDS)


def rows(months: Iterable[Month]) -> list[Row]:
    """Return one line of the closing table for each month, with what came out otherwise than told."""
    return [
        Row(
            title=f"{_title(month.month)}: scored, watched{', retrained' if month.retrain else ''}",
            happened=_happened(month),
            why=_why(month),
            seconds=month.seconds,
            wrong=tuple(_wrong(month)),
        )
        for month in months
    ]


def realised(months: Sequence[Month]) -> str:
    """Return the table of promised and realised AUC, and what would have been without the retrain."""
    lines = [
        "",
        "Realised performance, from labels that came later",
        f"{'month':<10}{'scored by':<12}{'drift':<14}{'columns':<10}{'promised':<10}{'realised':<10}without retraining",
    ]
    for month in months:
        report = month.performance
        promised, met, other = (_auc(report.get(key)) for key in ("promised", "metrics", "other_metrics"))
        shadow = report.get("other") or {}
        lines.append(
            f"{month.month:<10}{f'version {month.version}':<12}{month.drift.get('verdict', '?'):<14}"
            f"{month.drift.get('drifted_count', '?')!s:<10}{promised:<10}{met:<10}"
            + (f"{other} (version {shadow.get('version')}, in shadow)" if shadow else "")
        )
    return "\n".join(lines)


def _auc(figures: Mapping[str, Any] | None) -> str:
    value = (figures or {}).get("roc_auc")
    return "-" if value is None else f"{value:.4f}"


def _happened(month: Month) -> str:
    verdict = (
        f"verdict {month.drift.get('verdict', 'not judged')}, {month.drift.get('drifted_count', 0)} drifted columns"
    )
    said = f"scored by version {month.version}, {verdict}"
    if month.retrain:
        promoted = month.retrain.get("promote", {})
        said += f"; retrained: {promoted.get('outcome', month.retrain.get('state'))}"
    return said


def _why(month: Month) -> str:
    return " ".join(
        str(part.get("sentence", "")) for part in (month.decision, month.performance) if part.get("sentence")
    )


def _wrong(month: Month) -> Iterable[str]:
    late = month.month >= AFTER
    expected: dict[str, tuple[object, object]] = {
        "version": (month.version, 2 if late else 1),
        "state of the performance": (month.performance.get("state"), "final"),
        "waiting for labels": (month.early_state != "success", True),
    }
    if month.month < DRIFTS:
        expected["drift verdict"] = (month.drift.get("verdict"), "none")
        expected["action"] = (month.decision.get("action"), "none")
    elif month.month == DRIFTS:
        expected["drift verdict"] = (month.drift.get("verdict"), "drift")
        expected["action"] = (month.decision.get("action"), "retrain")
        expected["promotion"] = (month.retrain.get("promote", {}).get("outcome"), "promoted")
        expected["training window's end"] = (
            str(month.retrain.get("plan", {}).get("train_window", {}).get("end", ""))[:10],
            "2013-07-01",
        )
    else:
        expected["action"] = (month.decision.get("action") == "retrain", False)
    for what, (found, wanted) in expected.items():
        if found != wanted:
            yield f"{what} of {month.month} is {found!r}, it should be {wanted!r}"
    if late:
        met, other = (month.performance.get(key, {}).get("roc_auc") for key in ("metrics", "other_metrics"))
        if met is None or other is None or met <= other:
            yield f"the retrained model should do better in {month.month}: {met} against {other}"


def _window(month: str) -> dict[str, str]:
    window = partition_window(month)
    assert window is not None  # noqa: S101  # months are ours
    return {"window_start": window.start.isoformat(), "window_end": window.end.isoformat()}


def _title(month: str) -> str:
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).strftime("%B")
