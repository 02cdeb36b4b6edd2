"""Performance: the labels of a published batch joined to its predictions, and measured against what was promised."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.metrics import metric_names
from airflow_mlops.core.monitoring_records import MonitoredWindow, PerformanceReport, ScoringReport
from airflow_mlops.core.performance_page import performance_page
from airflow_mlops.core.realised import Realised, RealisedFigure, fitted, sentence_of
from airflow_mlops.core.record import finite
from airflow_mlops.engines import runs
from airflow_mlops.engines.code import check_signature, team_code
from airflow_mlops.engines.environment import versions_of
from airflow_mlops.engines.label_rows import JoinKey, join_key
from airflow_mlops.engines.labels import Joined, join_labels, labels_fingerprint, predictions_file
from airflow_mlops.engines.realised_history import (
    RESULT_FILE,
    SCORING_RUN,
    STATE,
    Published,
    latest_final,
    published,
    read_result,
    supersede,
    tags_of,
    twin_of,
)
from airflow_mlops.engines.realised_labels import keep_labels, what_changed
from airflow_mlops.engines.realised_promise import Promise, read_promise
from airflow_mlops.engines.scored_batches import deadline_of, moment, not_scored, scored_batch
from airflow_mlops.engines.source import code_version
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import EvaluationSpec
from airflow_mlops.spec.monitoring import LabelSpec
from airflow_mlops.steps.base import Access, Step, Work, window_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE_FILE = "performance.html"
#: So often a result takes another number because somebody took its own at the same moment.
_TRIES = 5

State = Literal["waiting", "provisional", "final"]

log = logging.getLogger(__name__)


class PerformancePayload(BaseModel):
    """The published batch, where its labels arrive, and how it is measured.

    :param label: the label's column; None: ``labels.label``.
    :param entity: columns that name the entity; none: ``labels.entity``, else the batch's id columns.
    :param seed: of the bootstrap.
    :param code_path: absolute folder of the team's code; needed where a metric is ``module:function``.
    :param as_of: the moment of evaluation, ISO; None: now. It decides whether the deadline has passed and which labels
        are from the future, nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    monitored: MonitoredWindow
    labels: LabelSpec
    evaluation: EvaluationSpec
    label: str | None = None
    entity: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**32)
    code_path: str | None = None
    as_of: str | None = None

    @property
    def own_metrics(self) -> list[str]:
        """Return the metrics that are functions of the team's own."""
        return [name for name in self.evaluation.metrics if ":" in name]

    @property
    def code_folder(self) -> Path:
        """Return the folder that metrics of the team's own are imported from.

        :raises InvalidSpecError: none was given.
        """
        if self.code_path is None:
            raise InvalidSpecError(
                f"The metric {self.own_metrics[0]!r} is a function of your own: give code_path, the absolute folder it "
                f"is imported from."
            )
        return Path(self.code_path)

    @property
    def measured_digest(self) -> str:
        """Return a digest of what is measured and how: two results that share it differ by their labels alone."""
        own = {path: code_version(path, self.code_folder).digest for path in sorted(self.own_metrics)}
        return digest_of({"evaluation": self.evaluation, "seed": self.seed, "own": own})


class PerformanceStep(Step[PerformancePayload, PerformanceReport]):
    """Measure a published batch once its labels are there: ``waiting``, ``provisional``, then ``final`` once.

    ``waiting``: fewer labels than ``labels.coverage``, before the deadline; nothing is measured. ``provisional``:
    enough labels, and more may come. ``final``: every prediction has one, or the deadline has passed. What is final
    stays so; labels that change afterwards make revision 2, 3 and so on, which say what changed. The same labels never
    make a second result: whichever run asks, it hands on the one that is there.
    """

    name = "performance"
    payload_type = PerformancePayload
    record_type = PerformanceReport

    def inputs(self, payload: PerformancePayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover batch, label files (names, sizes, times), whether the deadline has passed, and how it is measured."""
        batch = self._batch(client, payload)
        as_of = moment(payload.as_of, "as_of")
        return {
            "batch": [batch.run_id, batch.output_digest],
            "model": [payload.monitored.model.name, payload.monitored.model.version],
            "labels": payload.labels.model_dump(mode="json", exclude={"poll_seconds"}),
            "label": payload.label,
            "entity": payload.entity,
            "seen": labels_fingerprint(payload.labels.data, access.storage(payload.labels.data.conn_id)),
            "late": as_of >= deadline_of(batch, payload.labels),
            "measured": payload.measured_digest,
            "package": versions_of("airflow-mlops"),
        }

    def recheck(
        self, record: PerformanceReport, payload: PerformancePayload, client: MlflowClient, access: Access
    ) -> bool:
        """Adopt unless time itself may have changed the answer, or somebody has published a later revision since."""
        if record.future_count:
            return False
        if read_result(client, record.run_id) is None:
            return False
        if record.state == "waiting":
            return True
        run = client.get_run(record.run_id)
        last = latest_final(published(client, run.info.experiment_id, record.scoring_run_id))
        return last is None or (record.state == "final" and record.revision >= last.revision)

    def run(self, payload: PerformancePayload, work: Work) -> PerformanceReport:
        """Join, measure, and publish; or hand on what was published of the same labels.

        :raises InvalidSpecError: the window was never scored, a column is missing, or ids or labels do not fit.
        :raises DataChangedError: the predictions are gone or were replaced.
        :raises DataReadError: the labels cannot be read.
        :raises ModelRefusedError: the predictions do not fit the task.
        """
        batch = self._batch(work.client, payload)
        _log(work, _about(batch))
        return _Evaluation(payload, work, batch).report()

    _found: ScoringReport | None = None

    def _batch(self, client: MlflowClient, payload: PerformancePayload) -> ScoringReport:
        if self._found is None:  # a step's object serves one request
            if not payload.monitored.scoring_run_id:
                raise InvalidSpecError(not_scored(payload.monitored))
            self._found = scored_batch(client, payload.monitored.scoring_run_id)
        return self._found


class _Evaluation:
    """One evaluation while it is made."""

    def __init__(self, payload: PerformancePayload, work: Work, batch: ScoringReport) -> None:
        self.payload = payload
        self.spec = payload.evaluation
        self.work = work
        self.batch = batch
        self.as_of = moment(payload.as_of, "as_of")
        self.key: JoinKey = join_key(payload.labels, batch, payload.label, payload.entity)
        names = metric_names(self.spec.task, self.spec.metrics, self.spec.lower_is_better)
        self.metrics = {one.name: one.higher_is_better for one in names}
        self.notes: dict[str, str] = {}
        if batch.task != self.spec.task:
            raise InvalidSpecError(
                f"evaluation.task is {self.spec.task}, and the batch {batch.output_uri} was scored as {batch.task}. "
                f"Score the window again, or evaluate with its own task."
            )

    def report(self) -> PerformanceReport:
        """Return the report of what is, or was already, published."""
        payload, work, batch = self.payload, self.work, self.batch
        output_store = work.access.storage(batch.output_conn_id)
        with predictions_file(batch, work.folder, output_store) as predictions:
            joined = join_labels(
                batch,
                payload.labels,
                self.key,
                predictions,
                as_of=self.as_of,
                scratch=work.folder,
                access=work.access.storage(payload.labels.data.conn_id),
            )
            self.notes |= joined.notes(self.key)
            history = self._history()
            mine = self._mine(joined, history)
            if (adopted := self._handed_on(mine, joined, history)) is not None:
                return adopted
            figures = self._figures(predictions, joined, mine.state)
        promise = read_promise(work.client, batch.model, self.spec.metrics)
        beside = read_promise(work.client, batch.other, self.spec.metrics) if batch.other is not None else Promise()
        self.notes |= promise.notes
        found = self._result(mine, joined, promise, beside, figures)
        return self._published(found, mine, joined)

    def _mine(self, joined: Joined, history: list[Published]) -> Published:
        """Say what this result is, the number apart."""
        run = self.work.client.get_run(self.work.run_id)
        return Published(
            run_id=self.work.run_id,
            began=run.info.start_time,
            state=self._state(joined, history),
            revision=1,
            labels=joined.digest,
            measured=self.payload.measured_digest,
        )

    def _state(self, joined: Joined, history: list[Published]) -> State:
        complete = joined.labelled == joined.rows
        if latest_final(history) is not None or complete or self.as_of >= deadline_of(self.batch, self.payload.labels):
            return "final"
        return "provisional" if joined.coverage >= self.payload.labels.coverage else "waiting"

    def _handed_on(self, mine: Published, joined: Joined, history: list[Published]) -> PerformanceReport | None:
        """Return what was published of the same labels, with the counts as they are now."""
        if mine.state == "waiting" or self.work.request.force:
            return None
        twin = twin_of(mine, history)
        stored = read_result(self.work.client, twin.run_id) if twin is not None else None
        if twin is None or stored is None:
            return None
        if twin.run_id != self.work.run_id:
            log.info("The same labels were evaluated before: handing on MLflow run %s.", twin.run_id)
            _log(self.work, tags_of(twin))
            runs.mark_reused(self.work.client, self.work.client.get_run(self.work.run_id), twin.key)
        counts = {
            "duplicate_count": joined.ambiguous,
            "unknown_count": joined.unknown,
            "future_count": joined.future,
            "notes": {
                **{name: text for name, text in stored.report.notes.items() if not name.startswith("labels.")},
                **joined.notes(self.key),
            },
        }
        return fitted(stored.report.model_copy(update=counts))

    def _figures(self, predictions: Path, joined: Joined, state: str) -> list[RealisedFigure]:
        from airflow_mlops.engines.metrics import load_metrics
        from airflow_mlops.engines.realised import labelled_rows, measure_realised, undefined

        if state == "waiting":
            return []
        spec = self.spec
        with self._own_functions() as functions:
            metrics = load_metrics(spec.task, spec.metrics, spec.lower_is_better, functions)
            if not joined.labelled:
                what = "has no row" if not joined.rows else "got no label that can be used"
                note = f"the batch {what}, so nothing was measured"
                return undefined(metrics, 0, note, beside=self.batch.other is not None)
            started = time.monotonic()
            rows = labelled_rows(predictions, joined.table, self.batch, spec.slices)
            figures, notes = measure_realised(rows, self.batch, spec, metrics, seed=self.payload.seed)
            self.notes |= notes
            log.info("Measured %d labelled predictions in %.1f s.", joined.labelled, time.monotonic() - started)
        return figures

    def _result(
        self, mine: Published, joined: Joined, promise: Promise, beside: Promise, figures: list[RealisedFigure]
    ) -> Realised:
        from airflow_mlops.engines.realised import with_promises

        payload, batch = self.payload, self.batch
        told = with_promises(figures, promise.groups, beside.groups)
        overall = [one for one in told if one.slice is None]
        self.notes |= {one.metric: one.note for one in overall if one.note}
        report = PerformanceReport(
            state=mine.state,
            sentence="",
            window=batch.window or payload.monitored.window,
            model=batch.model,
            other=batch.other,
            row_count=joined.rows,
            labelled_count=joined.labelled,
            coverage=joined.coverage,
            metrics={one.metric: finite(one.realised) for one in overall},
            other_metrics={one.metric: finite(one.other) for one in overall} if batch.other is not None else {},
            promised=promise.overall,
            lower_is_better=tuple(name for name, higher in self.metrics.items() if not higher),
            duplicate_count=joined.ambiguous,
            unknown_count=joined.unknown,
            future_count=joined.future,
            notes=self.notes,
            evidence_uri=f"runs:/{self.work.run_id}/{RESULT_FILE}",
            report_uri=f"runs:/{self.work.run_id}/{PAGE_FILE}",
            labels_digest=joined.digest,
            scoring_run_id=batch.run_id,
            run_id=self.work.run_id,
        )
        return Realised(
            report=report,
            task=self.spec.task,
            metrics=self.metrics,
            figures=told,
            other_promised=beside.overall,
            draws=self.spec.bootstrap_draws,
            seed=payload.seed,
            confidence=self.spec.confidence,
            measured_digest=mine.measured,
        )

    def _published(self, found: Realised, mine: Published, joined: Joined) -> PerformanceReport:
        """Number the result, store it, publish it, and look whether somebody else did at the same moment."""
        work = self.work
        if mine.state == "waiting":
            return self._stored(found, 1, "", {STATE: mine.state})
        store = work.access.storage(self.batch.output_conn_id)
        # A run that goes on where an earlier attempt stopped may have published other labels already.
        history = self._history()
        own = [one for one in history if one.run_id == work.run_id]
        results: dict[str, Realised | None] = {}
        for _ in range(_TRIES):
            others = [one for one in history if one.run_id != work.run_id]
            if (adopted := self._handed_on(mine, joined, others)) is not None:
                return adopted
            before = latest_final([*own, *others]) if mine.state == "final" else None
            if before is not None and before.run_id not in results:
                results[before.run_id] = read_result(work.client, before.run_id)
            earlier = results.get(before.run_id) if before is not None else None
            changes = what_changed(earlier, found, joined, self.batch, store) if earlier is not None else ""
            mine = replace(mine, revision=_next(mine, before))
            if mine.state == "final":
                keep_labels(self.batch, joined, store)
            report = self._stored(found, mine.revision, changes, tags_of(mine))
            history = self._history()
            rivals = [
                one
                for one in history
                if one.run_id != work.run_id and (one.state, one.revision) == (mine.state, mine.revision)
            ]
            first = [one for one in rivals if one.same_as(mine) and one.order < mine.order]
            if first and (adopted := self._handed_on(mine, joined, first)) is not None:
                return adopted
            if mine.state != "final" or all(one.same_as(mine) for one in rivals):
                break
            # Somebody with other labels took the number at the same moment. Not both at once a second time.
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311  # nothing secret about it
        supersede(work.client, others, work.run_id)
        return report

    def _history(self) -> list[Published]:
        return published(self.work.client, self.work.experiment_id, self.batch.run_id)

    def _stored(self, found: Realised, revision: int, changes: str, tags: Mapping[str, str]) -> PerformanceReport:
        """Write result and page to the step's run; then, in one request, its metrics and what publishes it."""
        notes = {**found.report.notes, **({"changes": changes} if changes else {})}
        report = found.report.model_copy(update={"revision": revision, "notes": notes})
        report = report.model_copy(update={"sentence": sentence_of(report, changes)})
        whole = found.model_copy(update={"report": report, "changes": changes})
        self.work.log_json(whole.model_dump(mode="json"), RESULT_FILE)
        self.work.log_text(
            performance_page(whole, [text for name, text in notes.items() if name != "changes"]), PAGE_FILE
        )
        _log(self.work, tags, whole.metrics_for_mlflow())
        return fitted(report)

    @contextmanager
    def _own_functions(self) -> Iterator[dict[str, Callable[..., Any]]]:
        from airflow_mlops.engines.own_metrics import EXPECTED

        if not self.payload.own_metrics:
            yield {}
            return
        with team_code(self.payload.code_folder) as team:
            functions = {path: team.function(path) for path in self.payload.own_metrics}
            for path, function in functions.items():
                check_signature(function, path, EXPECTED, None, None)
            yield functions


def _about(batch: ScoringReport) -> dict[str, str]:
    return {
        **window_tags(batch.window),
        runs.REGISTERED_MODEL: batch.model.name,
        runs.MODEL_VERSION: str(batch.model.version),
        SCORING_RUN: batch.run_id,
    }


def _next(mine: Published, before: Published | None) -> int:
    """Return the number: that of the same figures made again, else the next one."""
    if before is None:
        return 1
    return before.revision if before.same_as(mine) else before.revision + 1


def _log(work: Work, tags: Mapping[str, str], metrics: Mapping[str, float] | None = None) -> None:
    """Write tags and metrics to the step's run in one request."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    work.client.log_batch(
        work.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in (metrics or {}).items()],
        tags=[RunTag(name, runs.cut(value)) for name, value in tags.items()],
    )
