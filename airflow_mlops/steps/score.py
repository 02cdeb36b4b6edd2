"""Score: a frozen batch and a version that was resolved before, one published file of predictions."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from airflow_mlops.core.metrics import Task
from airflow_mlops.core.monitoring_records import ScoringPlan, ScoringReport, ServedModel
from airflow_mlops.core.records import DatasetVersion, ValidationReport
from airflow_mlops.engines import runs
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.environment import describe_environment, versions_of
from airflow_mlops.engines.flavors import libraries
from airflow_mlops.engines.manifests import encode_schema
from airflow_mlops.engines.models import fetch_model, load_predictor
from airflow_mlops.engines.published import (
    digest_at,
    predictions_uri,
    publish,
    quarantine_uri,
    withdraw,
)
from airflow_mlops.engines.storage import absolute
from airflow_mlops.errors import DataReadError, InvalidSpecError, MissingEngineError, ModelRefusedError
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.scoring import ScoringSpec
from airflow_mlops.steps.base import Access, Step, Work, window_tags
from airflow_mlops.steps.comparison import short, signature_columns
from airflow_mlops.steps.datasets import load_manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.engines.batch_answers import Predictor
    from airflow_mlops.engines.batch_scoring import BatchScorer
    from airflow_mlops.engines.manifests import Manifest

log = logging.getLogger(__name__)

#: Tags of the step's run, by which monitoring finds what scored a window.
#: Distributions whose release may change a prediction or the bytes of the file.
SCORED_WITH = ("airflow-mlops", "mlflow", "numpy", "scikit-learn", "pyarrow")
#: Bytes that lists of column names may take in the record.
MAX_NAME_BYTES = 3_000


class ScorePayload(BaseModel):
    """A batch, the versions that answer, and where the predictions go.

    :param validation: what the contract said of the batch; its accepted rows are scored.
    :param dataset: the batch, where there is no contract. Exactly one of the two.
    :param plan: the versions as they were when the run began.
    :param scoring: with an absolute ``output_uri``.
    :param data: whose ids and event time go beside the predictions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: ValidationReport | None = None
    dataset: DatasetVersion | None = None
    plan: ScoringPlan
    scoring: ScoringSpec
    data: DataSpec
    task: Task

    @model_validator(mode="after")
    def _one_batch(self) -> Self:
        if (self.validation is None) == (self.dataset is None):
            raise ValueError("give exactly one of validation (its accepted rows are scored) and dataset")
        if self.validation is not None and self.validation.is_failure:
            raise ValueError(f"the batch does not meet its contract, so it is not scored. {self.validation.said}")
        if self.mode == "split" and not self.entity:
            raise ValueError("scoring.split needs columns that name an entity: set its by, or data.id_columns")
        return self

    @property
    def batch(self) -> DatasetVersion:
        """Return the rows to score."""
        found = self.validation.dataset if self.validation is not None else self.dataset
        assert found is not None  # noqa: S101  # one of the two is there
        return found

    @property
    def mode(self) -> Literal["", "shadow", "split"]:
        """Return how the plan's second version takes part."""
        if self.plan.other is None:
            return ""
        return "split" if self.scoring.split else "shadow"

    @property
    def entity(self) -> tuple[str, ...]:
        """Return the columns that name an entity in a split."""
        return (self.scoring.split.by if self.scoring.split else ()) or self.data.id_columns

    @property
    def copied(self) -> tuple[str, ...]:
        """Return the data's columns that stand before the prediction."""
        time_column = self.batch.event_time or self.data.event_time
        return tuple(dict.fromkeys([*self.data.id_columns, *filter(None, [time_column]), *self.scoring.keep]))


class ScoreStep(Step[ScorePayload, ScoringReport]):
    """Stream the batch through the model into one local file and publish that whole, or not at all."""

    name = "score"
    payload_type = ScorePayload
    record_type = ScoringReport

    def inputs(self, payload: ScorePayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover the rows, the versions, where and how predictions are written, and the libraries that make them."""
        spec = payload.scoring
        models = [one for one in (payload.plan.model, payload.plan.other) if one is not None]
        used = {name for one in models if one.flavor for name in libraries(one.flavor, "")} | set(SCORED_WITH)
        return {
            "dataset": payload.batch.digest,
            "models": [[one.name, one.version, one.entry, one.model_uri, one.digest, one.features] for one in models],
            "mode": payload.mode,
            "split": spec.split.model_dump(mode="json") if spec.split else None,
            "entity": payload.entity,
            "copied": payload.copied,
            "ids": payload.data.id_columns,
            "output": [absolute(spec.output_uri), spec.output_conn_id],
            "chunk_rows": spec.chunk_rows,
            "max_quarantined_share": spec.max_quarantined_share,
            "task": payload.task,
            "package": versions_of("airflow-mlops"),
            "environment": describe_environment(distributions=sorted(used)).digest,
        }

    def recheck(self, record: ScoringReport, payload: ScorePayload, client: MlflowClient, access: Access) -> bool:
        """Adopt only while the published file is the one that the record describes."""
        found = digest_at(record.output_uri, access.storage(record.output_conn_id))
        if found == record.output_digest:
            return True
        state = "is gone" if found is None else "was replaced by another run's"
        log.info("The file %s %s since it was published; the batch is scored again.", record.output_uri, state)
        return False

    def run(self, payload: ScorePayload, work: Work) -> ScoringReport:
        """Score and publish.

        :raises ModelRefusedError: the model is not there, not the one that was registered, or cannot be loaded.
        :raises DataReadError: the batch lacks columns that the model needs, or too many rows cannot be scored.
        :raises DataChangedError: a file of the batch is not the one that was snapshotted.
        :raises StorageUnavailableError: a store does not answer.
        """
        started = time.monotonic()
        _mark(payload, work)
        manifest = load_manifest(payload.batch, work)
        scoring = _Scoring(payload, work, manifest)
        with closing(scoring.scorer):
            return scoring.publish(started)


class _Scoring:
    """One batch while it is scored."""

    def __init__(self, payload: ScorePayload, work: Work, manifest: Manifest) -> None:
        from airflow_mlops.engines.batch_scoring import Arm, BatchScorer, Layout, Share

        self.payload = payload
        self.work = work
        self.manifest = manifest
        self.window = payload.batch.window
        self.notes: list[str] = []
        plan, spec = payload.plan, payload.scoring
        _refuse_clashes(payload)
        champion = self._predictor(plan.model, "model", "the champion" if plan.other else "the model")
        other = self._other(plan.other) if plan.other is not None else None
        if plan.other is None and (spec.shadow or spec.split):
            self.notes.append("scoring names a second version, and there was none when the run began: one answered.")
        self._check_columns(
            {"data.id_columns": payload.data.id_columns, "scoring.keep": spec.keep, "scoring.split.by": payload.entity}
        )
        features = [*champion.features, *(other.features if other else ())]
        self.columns = list(dict.fromkeys([*payload.copied, *(payload.entity if spec.split else ()), *features]))
        self.scorer: BatchScorer = BatchScorer(
            Arm(predictor=champion, version=plan.model.version),
            Layout(
                copied=payload.copied,
                ids=payload.data.id_columns,
                model_name=plan.model.name,
                run_key=work.request.run.key,
                window=self.window,
            ),
            work.folder,
            other=Arm(predictor=other, version=plan.other.version) if other and plan.other else None,
            mode=payload.mode,
            share=Share(by=payload.entity, share=spec.split.share, salt=spec.split.salt)
            if spec.split and payload.mode == "split"
            else None,
            expected_rows=manifest.row_count,
            max_share=spec.max_quarantined_share,
        )

    def publish(self, started: float) -> ScoringReport:
        """Score every chunk, publish both files, and say what became of the batch."""
        from airflow_mlops.engines.batch_rows import read_chunks
        from airflow_mlops.engines.batch_scoring import TooManyRefused

        payload, work, spec, window = self.payload, self.work, self.payload.scoring, self.window
        access = work.access.storage(spec.output_conn_id)
        root = absolute(spec.output_uri)
        target, aside = predictions_uri(root, window), quarantine_uri(root, window)
        scratch = work.folder / "batch"
        scratch.mkdir()
        files = checked_files(self.manifest, scratch, work.access.storage(payload.batch.conn_id), fetch=work.read_file)
        chunks = read_chunks(files, self.manifest, self.columns, spec.chunk_rows)
        try:
            predictions, refused = self.scorer.score(chunks, self._schema())
        except TooManyRefused as exc:
            kept = self.scorer.quarantined_so_far()
            if kept is not None:
                publish(kept, root, aside, access, key=work.request.key)
            raise TooManyRefused(
                f"{exc} Nothing was published. The rows and their reasons are in {aside}. Mend the data or the model, "
                f"or raise the limit."
            ) from exc
        if refused is not None:
            publish(refused, root, aside, access, key=work.request.key)
        digest, size = publish(predictions, root, target, access, key=work.request.key)
        if refused is None:
            withdraw(aside, access)
        return self._report(target, digest, size, aside if refused is not None else None, started)

    def _report(self, target: str, digest: str, size: int, aside: str | None, started: float) -> ScoringReport:
        payload, tally, plan = self.payload, self.scorer.tally, self.payload.plan
        if self.scorer.other_problem and payload.mode == "shadow" and plan.other is not None:
            self.notes.append(
                f"Version {plan.other.version} beside the champion did not answer {tally.unanswered:,} rows: "
                f"{short(self.scorer.other_problem)}"
            )
        names = self.scorer.columns
        fits = len(json.dumps(names)) <= MAX_NAME_BYTES
        if not fits:
            self.notes.append(f"The predictions have {len(names)} columns, too many to list here.")
        report = ScoringReport(
            sentence=self._sentence(target),
            window=self.window,
            model=plan.model,
            # Its features are in the plan; both lists together may be more than a record takes.
            other=plan.other.model_copy(update={"features": None}) if plan.other is not None else None,
            other_mode=payload.mode,
            dataset_digest=payload.batch.digest,
            manifest_uri=payload.batch.manifest_uri,
            task=payload.task,
            output_uri=target,
            output_conn_id=payload.scoring.output_conn_id,
            output_digest=digest,
            byte_count=size,
            row_count=tally.rows,
            scored_count=tally.scored,
            quarantined_count=tally.quarantined,
            quarantine_uri=aside,
            reasons=tally.shown(),
            scored_by={str(version): count for version, count in sorted(tally.by_version.items())},
            id_columns=payload.data.id_columns,
            event_time=payload.batch.event_time or payload.data.event_time,
            columns=names if fits else (),
            notes=tuple(self.notes),
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            key=self.work.request.key,
            input_digest=self.work.input_digest,
            run_id=self.work.run_id,
        )
        _log(report, time.monotonic() - started, self.work)
        return report

    def _sentence(self, target: str) -> str:
        tally = self.scorer.tally
        where = f" of {self.window}" if self.window else ""
        if not tally.rows:
            return f"The batch{where} holds no row: {target} was published without any."
        aside = f" {tally.quarantined:,} rows were set aside." if tally.quarantined else ""
        return f"Scored {tally.scored:,} of {tally.rows:,} rows{where} with {self.payload.plan.model}.{aside}"

    # --- Models and columns ---------------------------------------------------------------------------------------

    def _predictor(self, served: ServedModel, folder: str, who: str) -> Predictor:
        """Fetch a version, check its files, load it, and check that the batch has its features."""
        from airflow_mlops.engines.batch_answers import Predictor, declared_types

        path = fetch_model(
            self.work.client,
            self.work.access.server,
            served.artifact_uri or served.model_uri,
            served.digest,
            self.work.folder / folder,
        )
        if served.digest is None:
            self.notes.append(f"The digest of {served} was never recorded, so its files were not checked.")
        features = served.features or signature_columns(path)
        if not features:
            raise ModelRefusedError(
                f"{str(served).capitalize()} names no features and has no signature, so nobody knows which columns to "
                f"give it. Log it with a signature, or train it again."
            )
        self._require_features(features, served)
        self._keep_text(declared_types(path), features, served)
        return Predictor(load_predictor(path, served.flavor), path, features, self.payload.task, who)

    def _other(self, served: ServedModel) -> Predictor | None:
        """Load the second version. Beside the champion its failure is a note; in a split its rows need an answer."""
        if self.payload.mode == "split":
            return self._predictor(served, "other", "the second version")
        try:
            return self._predictor(served, "other", "the second version")
        except (ModelRefusedError, DataReadError, InvalidSpecError, MissingEngineError) as exc:
            log.warning("The version beside the champion does not score: %s", exc)
            self.notes.append(f"Version {served.version} beside the champion did not score: {short(str(exc))}")
            return None

    def _require_features(self, features: Sequence[str], served: ServedModel) -> None:
        available = [name for name, _ in self.manifest.columns]
        missing = [name for name in features if name not in available]
        if missing:
            raise DataReadError(
                f"The batch {self.payload.batch.uri} lacks {len(missing)} of the {len(features)} columns that {served} "
                f"needs: {', '.join(map(repr, missing[:20]))}{' and more' if len(missing) > 20 else ''}. It has: "
                f"{', '.join(available[:40])}. Deliver the columns, or score data that has them (scoring.data)."
            )

    def _keep_text(self, declared: Mapping[str, str], features: Sequence[str], served: ServedModel) -> None:
        """Read what is text to the model as text, or refuse the batch: no encoder of text knows a number.

        CSV has no types: a column of codes is whole numbers in every window that happens to hold numerals only.

        :raises DataReadError: a column has another type in the files themselves.
        """
        import pyarrow

        from airflow_mlops.engines.batch_answers import unlike_text

        full = self.manifest.schema
        wrong = unlike_text(declared, features, full)
        held = self.manifest
        untyped = set() if held.exported else set(held.partitions if held.format != "csv" else full.names)
        for name in wrong:
            if name in untyped - {held.event_time}:
                full = full.set(full.get_field_index(name), pyarrow.field(name, pyarrow.string()))
        if left := unlike_text(declared, features, full):
            shown = ", ".join(f"{name!r} is {full.field(name).type} and was text" for name in left[:10])
            raise DataReadError(
                f"The batch {self.payload.batch.uri} has columns of another type than {served} was trained with: "
                f"{shown}{' and more' if len(left) > 10 else ''}. The model knows none of these values. Write them as "
                f"text, spelled as in training."
            )
        if wrong:
            self.manifest = self.manifest.model_copy(update={"arrow_schema": encode_schema(full)})

    def _check_columns(self, named: Mapping[str, Sequence[str]]) -> None:
        available = [name for name, _ in self.manifest.columns]
        for place, names in named.items():
            unknown = [name for name in names if name not in available]
            if unknown:
                raise InvalidSpecError(
                    f"{place} names {', '.join(map(repr, unknown))}, which the batch does not have: "
                    f"{', '.join(available[:40])}."
                )
        time_column = self.payload.data.event_time
        if time_column is not None and time_column not in available:
            raise InvalidSpecError(f"data.event_time names {time_column!r}, which the batch does not have.")

    def _schema(self) -> Any:
        import pyarrow

        full = self.manifest.schema
        return pyarrow.schema([full.field(name) for name in self.columns])


def _mark(payload: ScorePayload, work: Work) -> None:
    """Say on the step's run what it scores with, so that monitoring finds it."""
    from mlflow.entities import RunTag

    model = payload.plan.model
    tags = {
        **window_tags(payload.batch.window),
        runs.REGISTERED_MODEL: model.name,
        runs.MODEL_VERSION: str(model.version),
        "airflow_mlops.dataset_digest": payload.batch.digest,
    }
    work.client.log_batch(work.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _log(report: ScoringReport, seconds: float, work: Work) -> None:
    from mlflow.entities import Metric, RunTag

    figures = {
        "rows": report.row_count,
        "scored_rows": report.scored_count,
        "quarantined_rows": report.quarantined_count,
        "seconds": seconds,
        "bytes": report.byte_count,
    }
    now = int(time.time() * 1000)
    work.client.log_batch(
        work.run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in figures.items()],
        tags=[
            RunTag("airflow_mlops.output_uri", report.output_uri),
            RunTag("airflow_mlops.output_digest", report.output_digest),
            RunTag("mlflow.note.content", " ".join([report.sentence, *report.notes])),
        ],
    )


def _refuse_clashes(payload: ScorePayload) -> None:
    from airflow_mlops.engines.batch_answers import PREDICTION, PROBABILITY
    from airflow_mlops.engines.batch_scoring import OTHER, STAMPS

    ours = {*STAMPS, *(f"{prefix}{name}" for prefix in ("", OTHER) for name in (PREDICTION, PROBABILITY))}
    several = (f"{PROBABILITY}_", f"{OTHER}{PROBABILITY}_") if payload.task == "multiclass" else ()
    taken = [name for name in payload.copied if name in ours or name.startswith(several)]
    if taken:
        raise InvalidSpecError(
            f"The columns {', '.join(map(repr, taken))} of the data cannot be copied beside the predictions, which "
            f"have columns of these names. Rename them, or take them out of scoring.keep, data.id_columns or "
            f"data.event_time."
        )
