"""Drift: one window against the reference profile of the model that scored it, or against any other rows."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from airflow_mlops.core.drift_page import drift_page
from airflow_mlops.core.monitoring_records import ColumnDrift, DriftReport, DriftVerdict, ServedModel
from airflow_mlops.core.records import DatasetVersion, Window
from airflow_mlops.engines.artifacts import stored_sizes
from airflow_mlops.engines.checked_files import CheckedFile, checked_files
from airflow_mlops.engines.environment import versions_of
from airflow_mlops.engines.prediction_profile import PREDICTION
from airflow_mlops.engines.tracking import artifact_page
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.monitoring import DriftSpec
from airflow_mlops.steps.base import Access, Step, Work
from airflow_mlops.steps.datasets import load_manifest
from airflow_mlops.steps.drift_evidence import (
    FINDINGS_FILE,
    PAGE_FILE,
    PROFILE_FILE,
    fitted,
    log_figures,
    store_findings,
)
from airflow_mlops.steps.drift_predictions import Predictions, find_predictions, without_value
from airflow_mlops.steps.drift_reference import Compared, compared, stored_profile

if TYPE_CHECKING:
    import pyarrow
    from mlflow import MlflowClient

    from airflow_mlops.core.drift import DriftJudgement
    from airflow_mlops.engines.evidently_sample import Sampler
    from airflow_mlops.engines.manifests import Manifest
    from airflow_mlops.steps.drift_evidently import Looked, Side

log = logging.getLogger(__name__)


class DriftPayload(BaseModel):
    """A window's rows, and what to compare them with.

    :param data: whose ids, personal columns and event time are never compared.
    :param model: the version whose reference profile is compared with, and whose features and predictions count.
    :param reference: rows to compare with instead of the model's profile.
    :param scoring_run_id: MLflow run of the scoring step that scored this window; empty: predictions are not compared.
    :param columns: columns to compare; None: ``drift.columns``, else the model's features, else all of the reference.
    :param exclude: columns of the window that are no surprise and are not looked at, such as the target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetVersion
    data: DataSpec
    model: ServedModel | None = None
    reference: DatasetVersion | None = None
    scoring_run_id: str = ""
    drift: DriftSpec = DriftSpec()
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> Self:
        if self.model is None and self.reference is None:
            raise ValueError("there is nothing to compare with: give model, a served version, or reference, a dataset")
        return self


@dataclass(frozen=True)
class _Reference:
    """What is compared with: its profile, what people call it, and the time it covers."""

    profile: Mapping[str, Any]
    name: str
    window: Window | None
    manifest: Manifest | None = None


class DriftStep(Step[DriftPayload, DriftReport]):
    """Stream the window once, compare its profile with the reference's, and say how far which columns are."""

    name = "drift"
    payload_type = DriftPayload
    record_type = DriftReport

    def inputs(self, payload: DriftPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover the rows, the reference, the specification, and the libraries that count."""
        model = payload.model
        seen = payload.drift.report or payload.drift.engine == "evidently"
        return {
            "dataset": payload.dataset.digest,
            "model": None
            if model is None
            else [model.name, model.version, model.digest, model.features, model.profile_uri, model.evidence_uri],
            "reference": None if payload.reference is None else payload.reference.digest,
            "scoring_run_id": payload.scoring_run_id,
            "drift": payload.drift.model_dump(mode="json"),
            "hidden": sorted({*payload.data.id_columns, *payload.data.personal_columns, *payload.exclude}),
            "event_time": payload.data.event_time,
            "columns": payload.columns,
            "versions": versions_of("airflow-mlops", "duckdb", "pyarrow", *(["evidently"] if seen else [])),
        }

    def recheck(self, record: DriftReport, payload: DriftPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt while the findings are there; predictions that could not be had are looked for again."""
        if record.prediction is not None and record.prediction.value is None:
            return False
        folder, _, name = record.findings_uri.rpartition("/")
        return name in stored_sizes(client, folder)

    def run(self, payload: DriftPayload, work: Work) -> DriftReport:
        """Count, judge, ask Evidently where that is wanted, and write it all to the step's MLflow run.

        :raises ModelRefusedError: the model version has no reference profile.
        :raises InvalidSpecError: a named column or method is unknown, or Evidently was to decide and could not.
        :raises DataChangedError: a file of the window is not the one that was snapshotted.
        :raises MissingEngineError: Evidently was to decide and is not installed.
        """
        return _Comparison(payload, work).report()


class _Comparison:
    """One comparison while it is made."""

    def __init__(self, payload: DriftPayload, work: Work) -> None:
        self.payload = payload
        self.spec = payload.drift
        self.work = work
        self.samples = self.spec.report or self.spec.engine == "evidently"
        self.notes: list[str] = []

    def report(self) -> DriftReport:
        """Make the report."""
        from airflow_mlops.core.drift import judge_drift
        from airflow_mlops.steps.drift_evidently import guards_only

        manifest = load_manifest(self.payload.dataset, self.work)
        predictions = find_predictions(self.payload, self.work)
        reference = self._reference()
        what = compared(self.payload, reference.profile, self.work)
        profile, sample = self._count(manifest, what.profile, what.columns)
        judgement = judge_drift(
            what.profile,
            profile,
            self.spec if self.spec.engine == "statistics" else guards_only(self.spec),
            columns=what.columns,
            known=what.known,
            reference_window=reference.window,
            current_window=self.payload.dataset.window,
        )
        self.notes += [*what.notes, *judgement.notes, *([predictions.note] if predictions.note else [])]
        name, before, now, predicted = self._predicted(predictions, what)
        result = _Result.of(judgement)
        looked = None
        if self.samples and judgement.verdict in ("none", "drift") and sample is not None:
            looked = self._look(judgement, what, reference, profile, sample, (name, before, now, predicted))
            self.notes += looked.notes
            if self.spec.engine == "evidently":
                result = _Result.by_evidently(judgement, looked, self.spec)
        elif self.spec.report:
            self.notes.append(f"Evidently was not asked, because the verdict is {judgement.verdict}.")
        prediction = self._prediction(predictions, name, before, now, looked)
        return self._stored(result, prediction, reference, what, profile, looked, (before, now))

    def _reference(self) -> _Reference:
        from airflow_mlops.engines.window_profile import reference_profile

        model, rows = self.payload.model, self.payload.reference
        if rows is None:
            if model is None:
                raise InvalidSpecError("There is nothing to compare with.")  # the payload was checked for it
            span = f", trained on {model.train_window}" if model.train_window else ""
            return _Reference(
                stored_profile(model, self.work), f"the reference profile of {model}{span}", model.train_window
            )
        manifest = load_manifest(rows, self.work)
        hidden = {*self.payload.data.id_columns, *self.payload.data.personal_columns}
        with self._scratch() as scratch:
            access = self.work.access.storage(rows.conn_id)
            profile = reference_profile(
                lambda: checked_files(manifest, scratch, access, fetch=self.work.read_file), exclude=hidden
            )
        span = f" of {rows.window}" if rows.window else ""
        return _Reference(profile, f"dataset {rows.digest[:12]}{span}, {rows.uri}", rows.window, manifest)

    def _count(
        self, manifest: Manifest, reference: Mapping[str, Any], columns: Sequence[str]
    ) -> tuple[dict[str, Any], pyarrow.Table | None]:
        """Stream the window once: its profile, and the sample that Evidently may be shown."""
        from airflow_mlops.engines.window_profile import window_profile

        sampler = self._sampler(manifest, columns)
        with self._scratch() as scratch:
            access = self.work.access.storage(self.payload.dataset.conn_id)
            files: Iterator[CheckedFile] = checked_files(manifest, scratch, access, fetch=self.work.read_file)
            profile = window_profile(files if sampler is None else sampler.watch(files), reference, columns=columns)
        return profile, None if sampler is None else sampler.table()

    def _sampler(self, manifest: Manifest, columns: Sequence[str]) -> Sampler | None:
        from airflow_mlops.engines.evidently_sample import Sampler

        if not self.samples:
            return None
        return Sampler(columns, total=manifest.row_count, rows=self.spec.report_rows, seed=self.spec.seed)

    def _predicted(
        self, predictions: Predictions, what: Compared
    ) -> tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None, pyarrow.Table | None]:
        """Count the predictions; returns the name they go by, both profiles, and the window's sample."""
        from airflow_mlops.engines.window_profile import window_profile

        # A feature may be called the same.
        name = PREDICTION if PREDICTION not in what.columns else f"{PREDICTION} of the model"
        if predictions.file is None or predictions.reference is None:
            return name, None, None, None
        file = predictions.file
        sampler = self._sampler(file.manifest, [PREDICTION])
        files = iter([file])
        profile = window_profile(files if sampler is None else sampler.watch(files), predictions.reference)
        sample = None if sampler is None else sampler.table().rename_columns([name])
        return name, _renamed(predictions.reference, name), _renamed(profile, name), sample

    def _look(
        self,
        judgement: DriftJudgement,
        what: Compared,
        reference: _Reference,
        profile: Mapping[str, Any],
        sample: pyarrow.Table,
        predicted: tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None, pyarrow.Table | None],
    ) -> Looked:
        from airflow_mlops.steps.drift_evidently import Side, look

        window = Side(what.profile, profile, sample, self._reference_sample(reference, what.columns))
        name, before, now, rows = predicted
        beside: tuple[str, Side] | None = None
        if before is not None and now is not None and rows is not None and rows.num_rows:
            beside = (name, Side(before, now, rows))
        return look(self.spec, judgement, window, beside, self.work)

    def _reference_sample(self, reference: _Reference, columns: Sequence[str]) -> pyarrow.Table | None:
        """Draw from the reference's rows, where there are any; a model's were not kept."""
        if reference.manifest is None or self.payload.reference is None:
            return None
        sampler = self._sampler(reference.manifest, columns)
        if sampler is None:
            return None
        with self._scratch() as scratch:
            access = self.work.access.storage(self.payload.reference.conn_id)
            for _ in sampler.watch(checked_files(reference.manifest, scratch, access, fetch=self.work.read_file)):
                pass
        return sampler.table()

    def _prediction(
        self,
        predictions: Predictions,
        name: str,
        before: Mapping[str, Any] | None,
        now: Mapping[str, Any] | None,
        looked: Looked | None,
    ) -> ColumnDrift | None:
        from airflow_mlops.core.drift import measure_column

        if predictions.problem:
            return without_value(self.payload, predictions.problem)
        if before is None or now is None or self.spec.prediction is None:
            return None
        if self.spec.engine == "statistics":
            found = measure_column(name, before, now, self.spec.prediction)
        elif looked is not None and name in looked.columns:
            found = looked.columns[name]
        else:
            return without_value(self.payload, "Evidently did not compare them")
        return found.model_copy(update={"column": PREDICTION})

    def _stored(
        self,
        result: _Result,
        prediction: ColumnDrift | None,
        reference: _Reference,
        what: Compared,
        profile: Mapping[str, Any],
        looked: Looked | None,
        predicted: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    ) -> DriftReport:
        work, payload = self.work, self.payload
        uri = f"runs:/{work.run_id}"
        sentence = result.sentence
        if prediction is not None and prediction.drifted:
            sentence = f"{sentence} The predictions drifted: {prediction.sentence}"
        report = DriftReport(
            verdict=result.verdict,
            sentence=sentence,
            window=payload.dataset.window,
            model=payload.model,
            reference=reference.name,
            engine=self.spec.engine,
            row_count=int(profile["row_count"]),
            compared_count=result.compared,
            drifted_count=result.drifted,
            share=result.drifted / result.compared if result.compared else None,
            columns=result.columns,
            prediction=prediction,
            findings=result.judgement.findings,
            findings_uri=f"{uri}/{FINDINGS_FILE}",
            profile_uri=f"{uri}/{PROFILE_FILE}",
            report_uri=f"{uri}/{PAGE_FILE}",
            evidently_uri=None if looked is None else looked.uri,
            dataset_digest=payload.dataset.digest,
            notes=tuple(self.notes),
            run_id=work.run_id,
        )
        store_findings(
            work,
            report,
            profile,
            drift_spec=self.spec.model_dump(mode="json"),
            evidently=dict(looked.sample) if looked is not None else None,
        )
        both = [one if one is None else _renamed(one, PREDICTION) for one in predicted]
        page = drift_page(
            report,
            result.columns,
            result.judgement.findings,
            reference=what.profile,
            current=profile,
            predictions=None if both[0] is None or both[1] is None else (both[0], both[1]),
            evidently=artifact_page(work.access.server, work.run_id, report.evidently_uri.rpartition("/")[2])
            if report.evidently_uri
            else "",
        )
        work.log_text(page, PAGE_FILE)
        small = fitted(report)
        log_figures(work, small, result.columns, payload.dataset.window)
        return small

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.work.folder) as folder:
            yield Path(folder)


@dataclass(frozen=True)
class _Result:
    """The verdict and its columns, whoever measured them."""

    judgement: DriftJudgement
    verdict: DriftVerdict
    sentence: str
    columns: tuple[ColumnDrift, ...]

    @property
    def compared(self) -> int:
        return sum(one.value is not None for one in self.columns)

    @property
    def drifted(self) -> int:
        return sum(one.drifted for one in self.columns)

    @classmethod
    def of(cls, judgement: DriftJudgement) -> Self:
        return cls(judgement, judgement.verdict, judgement.sentence, judgement.columns)

    @classmethod
    def by_evidently(cls, judgement: DriftJudgement, looked: Looked, spec: DriftSpec) -> Self:
        """Replace the distances by Evidently's, and count the drifted columns by the same rule."""
        columns = [
            looked.columns.get(
                one.column,
                one
                if one.value is None
                else one.model_copy(
                    update={
                        "value": None,
                        "drifted": False,
                        "error": None,
                        "p_value": None,
                        "method": "evidently",
                        "sentence": "Evidently was not shown this column: its values are withheld.",
                    }
                ),
            )
            for one in judgement.columns
        ]
        columns.sort(key=lambda one: (not one.drifted, one.value is None))
        drifted, known = [one for one in columns if one.drifted], [one for one in columns if one.value is not None]
        verdict: DriftVerdict = "none"
        if not known:
            verdict = "insufficient"
        elif len(drifted) >= spec.min_columns and len(drifted) / len(known) >= (spec.min_share or 0.0):
            verdict = "drift"
        named = ", ".join(f"{one.column} ({one.method} {one.value:.3g})" for one in drifted[:5])
        said = (
            f"By Evidently's methods on a sample, {len(drifted)} of {len(known)} columns drifted; {spec.min_columns} "
            f"{'is' if spec.min_columns == 1 else 'are'} a drift{f': {named}' if named else ''}."
        )
        return cls(judgement, verdict, said, tuple(columns))


def _renamed(profile: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**profile, "columns": {name: next(iter(profile["columns"].values()))}}
