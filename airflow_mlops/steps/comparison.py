"""One comparison of candidate and champion: which rows are fair, what each model says of them, what that measures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.ledger import is_older
from airflow_mlops.core.records import ChampionRef, DatasetVersion, TrainedModel
from airflow_mlops.core.windows import without
from airflow_mlops.engines.code import check_signature, team_code
from airflow_mlops.engines.models import fetch_model, load_predictor
from airflow_mlops.engines.outages import looks_like_outage
from airflow_mlops.errors import DataReadError, InvalidSpecError, ModelRefusedError, OutageError
from airflow_mlops.spec.model import EvaluationSpec
from airflow_mlops.steps.datasets import load_frame, load_manifest

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.engines.predictions import Outputs, Raw, Truth
    from airflow_mlops.engines.registry import Champion
    from airflow_mlops.steps.base import Work

log = logging.getLogger(__name__)

#: Characters of another library's error that a sentence repeats.
MAX_CAUSE = 300


class EvaluatePayload(BaseModel):
    """The candidate, the validated rows to score, and whose champion to compare with.

    :param target: the column to predict; None: the one the candidate was trained for.
    :param alias: the champion's alias.
    :param seed: of the bootstrap.
    :param code_path: absolute folder of the team's code; needed where a metric is ``module:function``.
    :param validation_run_id: the MLflow run that checked the rows against their contract, for the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: TrainedModel
    dataset: DatasetVersion
    evaluation: EvaluationSpec
    registered_model: str = Field(min_length=1)
    alias: str = Field(default="champion", min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    target: str | None = None
    code_path: str | None = None
    validation_run_id: str = ""

    @property
    def own_metrics(self) -> list[str]:
        """Return the metrics that are functions of the team's own."""
        return [name for name in self.evaluation.metrics if ":" in name]


class Comparison:
    """One evaluation while it is made: what is known of the champion so far, and the notes that go with the figures."""

    def __init__(self, payload: EvaluatePayload, work: Work, champion: Champion | None) -> None:
        self.payload = payload
        self.spec = payload.evaluation
        self.work = work
        self.champion = champion
        self.window = payload.dataset.window
        self.problem: str | None = None
        self.not_compared = ""
        self.notes: dict[str, str] = {}
        self.target = payload.target or payload.model.target
        #: The candidate's predictions as a profile, once :meth:`evidence` has asked for them.
        self.predictions: dict[str, Any] = {}

    def evidence(self) -> Evidence:
        """Predict and measure."""
        from airflow_mlops.engines.metrics import load_metrics
        from airflow_mlops.engines.prediction_profile import prediction_profile
        from airflow_mlops.engines.predictions import ask, read_outputs, read_truth
        from airflow_mlops.engines.scoring import groups_of, measure

        candidate, features = self._candidate()
        available = [name for name, _ in load_manifest(self.payload.dataset, self.work).columns]
        champion = self._champion(available)
        frame = self._rows(available, features, champion[1] if champion else ())
        started = time.monotonic()
        with _candidates_fault(self.payload.model):
            ours = ask(candidate, frame[list(features)], self.spec.task)
        theirs = self._ask_champion(champion, frame)
        log.info("Scored %d rows with %s in %.1f s.", len(frame), self._who(theirs), time.monotonic() - started)
        truth = read_truth(frame[self.target], self.spec.task, ours.classes)
        with _candidates_fault(self.payload.model):
            candidate_outputs = read_outputs(ours, truth)
        champion_outputs = None
        if theirs is not None:
            # The champion may know a label that neither the rows nor the candidate have; it changes no figure.
            widened = read_truth(frame[self.target], self.spec.task, ours.classes, theirs.classes)
            if (outputs := self._read_champion(theirs, widened)) is not None:
                truth, champion_outputs = widened, outputs
                candidate_outputs = read_outputs(ours, truth)
        self.predictions = prediction_profile(candidate_outputs, truth)
        with self._own_functions() as functions:
            metrics = load_metrics(self.spec.task, self.spec.metrics, self.spec.lower_is_better, functions)
            measurements = measure(
                truth,
                candidate_outputs,
                champion_outputs,
                metrics=metrics,
                groups=groups_of(frame, self.spec.slices, self.spec.max_slices),
                draws=self.spec.bootstrap_draws,
                seed=self.payload.seed,
                confidence=self.spec.confidence,
            )
        return Evidence(
            task=self.spec.task,
            registered_model=self.payload.registered_model,
            alias=self.payload.alias,
            model_uri=self.payload.model.model_uri,
            model_digest=self.payload.model.digest,
            champion=_reference(self.champion, self.payload.model),
            champion_problem=self.problem,
            not_compared=self.not_compared,
            dataset_digest=self.payload.dataset.digest,
            window=self.window,
            rows=len(frame),
            metrics={metric.name: metric.higher_is_better for metric in metrics},
            measurements=measurements,
            draws=self.spec.bootstrap_draws if champion_outputs is not None else 0,
            seed=self.payload.seed,
            confidence=self.spec.confidence,
            notes=self.notes,
        )

    def _candidate(self) -> tuple[Any, tuple[str, ...]]:
        model = self.payload.model
        path = fetch_model(
            self.work.client, self.work.access.server, model.artifact_uri, model.digest, self.work.folder / "candidate"
        )
        features = model.features or signature_columns(path)
        if not features:
            raise ModelRefusedError(f"The model {model.model_uri} names no features and has no signature; train again.")
        return load_predictor(path, model.flavor), features

    def _champion(self, available: Sequence[str]) -> tuple[Any, tuple[str, ...]] | None:
        """Load the champion, or note why it cannot be compared."""
        champion = self.champion
        if champion is None:
            return None
        if is_older(self.payload.dataset.window, champion.window):
            # It can never take the alias, and a champion of a newer window may have been trained on these very rows.
            self.not_compared = (
                f"Not compared with champion version {champion.version}, whose window {champion.window} is newer: an "
                f"older window never takes its alias"
            )
            self.notes["champion"] = f"{self.not_compared}."
            return None
        if champion.lacks:
            self.notes["champion"] = (
                f"Champion version {champion.version} was not made by this package: {', '.join(champion.lacks)} "
                f"not recorded."
            )
        self._cut(champion)
        if self.problem is not None:
            return None
        with self._champions_fault("cannot be loaded", outages=True):
            path = fetch_model(
                self.work.client,
                self.work.access.server,
                champion.artifact_uri,
                champion.model_digest,
                self.work.folder / "champion",
            )
        if self.problem is not None:
            return None
        with self._champions_fault("cannot be loaded"):
            model = load_predictor(path, champion.flavor)
            features = champion.features or signature_columns(path) or self.payload.model.features
            missing = [name for name in features if name not in available]
            if not missing:
                return model, tuple(features)
            self.problem = (
                f"Champion version {champion.version} needs {', '.join(map(repr, missing[:10]))}, which the evaluation "
                f"rows do not have"
            )
        return None

    def _cut(self, champion: Champion) -> None:
        """Narrow the window to what the champion was not trained on, or note why that leaves nothing to compare."""
        seen, window = champion.train_window, self.payload.dataset.window
        if seen is None or window is None:
            which = "the champion's training window" if seen is None else "the window of the evaluation rows"
            self.notes["overlap"] = (
                f"Rows that the champion was trained on could not be looked for: {which} is unknown."
            )
            return
        if not window.overlaps(seen):
            return
        left = without(window, seen)
        said = f"The champion was trained on {seen}, which overlaps the evaluation window {window}"
        if self.spec.on_overlap == "needs_attention":
            self.problem = f"{said}, and evaluation.on_overlap is needs_attention"
        elif left is None:
            self.problem = f"{said}: every evaluation row was in its training, so nothing fair is left to compare on"
        elif self.payload.dataset.event_time is None:
            self.problem = f"{said}, and without an event-time column its rows cannot be cut away"
        else:
            self.window = left
            self.notes["overlap"] = f"{said}; both models are measured on {left} alone."

    def _rows(self, available: Sequence[str], *features: Sequence[str]) -> pandas.DataFrame:
        """Read the columns that are needed and keep the rows that can be measured."""
        missing = [name for name in dict.fromkeys((*features[0], self.target)) if name not in available]
        if missing:
            raise DataReadError(
                f"The evaluation rows have no column {', '.join(map(repr, missing[:10]))}, which the candidate "
                f"{self.payload.model.model_uri} needs. They have: {', '.join(available[:40])}."
            )
        unknown = [name for name in self.spec.slices if name not in available]
        if unknown:
            raise InvalidSpecError(
                f"evaluation.slices names {', '.join(map(repr, unknown))}, which the data does not have: "
                f"{', '.join(available[:40])}."
            )
        time_column = self.payload.dataset.event_time
        wanted = dict.fromkeys([*(name for group in features for name in group), self.target, *self.spec.slices])
        if time_column is not None:
            wanted[time_column] = None
        frame: pandas.DataFrame = load_frame(self.payload.dataset, self.work, list(wanted))
        labelled = frame[frame[self.target].notna()]
        if len(labelled) < len(frame):
            self.notes["target"] = (
                f"{len(frame) - len(labelled):,} of {len(frame):,} rows have no {self.target} and were left out."
            )
        if labelled.empty:
            raise DataReadError(
                f"There is no row with a {self.target} in {self.payload.dataset.uri}"
                f"{f' for {self.window}' if self.window else ''}, so nothing can be evaluated."
            )
        kept = self._inside(labelled, time_column)
        return kept.reset_index(drop=True)

    def _inside(self, rows: pandas.DataFrame, time_column: str | None) -> pandas.DataFrame:
        if time_column is None or self.window is None or self.window == self.payload.dataset.window:
            return rows
        times = rows[time_column]
        start, end = (moment.replace(tzinfo=None) for moment in (self.window.start, self.window.end))
        kept = rows[(times >= start) & (times < end)]
        if not kept.empty:
            return kept
        self.problem = (
            f"After rows of the champion's training window were cut away, {self.window} was left and holds no row"
        )
        self.window = self.payload.dataset.window
        self.notes.pop("overlap", None)
        return rows

    def _ask_champion(self, champion: tuple[Any, tuple[str, ...]] | None, frame: pandas.DataFrame) -> Raw | None:
        from airflow_mlops.engines.predictions import ask

        if champion is None or self.problem is not None:
            return None
        model, features = champion
        with self._champions_fault("does not predict"):
            return ask(model, frame[list(features)], self.spec.task)
        return None

    def _read_champion(self, raw: Raw, truth: Truth) -> Outputs | None:
        from airflow_mlops.engines.predictions import read_outputs

        with self._champions_fault("does not predict"):
            outputs = read_outputs(raw, truth)
            if outputs.unusable_rows:
                raise ModelRefusedError(f"NaN or infinity on {outputs.unusable_rows:,} of {len(truth):,} rows.")
            return outputs
        return None

    @contextmanager
    def _champions_fault(self, what: str, *, outages: bool = False) -> Iterator[None]:
        """Turn whatever the champion raises into a problem; an outage stays one, because a retry may help.

        :param outages: MLflow is asked inside, so its errors may be about the way there and not about the model.
        """
        try:
            yield
        except (OutageError, MemoryError):
            raise
        except Exception as exc:
            if outages and _is_outage(exc):
                raise
            log.warning("The champion %s.", what, exc_info=True)
            version = self.champion.version if self.champion else "?"
            self.problem = f"Champion version {version} {what}: {_cause(exc)}"

    @contextmanager
    def _own_functions(self) -> Iterator[dict[str, Callable[..., Any]]]:
        from airflow_mlops.engines.own_metrics import EXPECTED

        if not self.payload.own_metrics:
            yield {}
            return
        with team_code(code_folder(self.payload)) as team:
            functions = {path: team.function(path) for path in self.payload.own_metrics}
            for path, function in functions.items():
                check_signature(function, path, EXPECTED, None, None)
            yield functions

    def _who(self, theirs: Raw | None) -> str:
        return "the candidate" if theirs is None or self.champion is None else "the candidate and the champion"


def signature_columns(path: Path) -> tuple[str, ...]:
    """Return the input columns that the model's own signature names; empty where it has none."""
    from mlflow.models import Model

    schema = Model.load(str(path)).get_input_schema()
    return tuple(schema.input_names()) if schema is not None and schema.has_input_names() else ()


def code_folder(payload: EvaluatePayload) -> Path:
    """Return the folder that metrics of the team's own are imported from.

    :raises InvalidSpecError: none was given.
    """
    if payload.code_path is None:
        raise InvalidSpecError(
            f"The metric {payload.own_metrics[0]!r} is a function of your own: give code_path, the absolute folder it "
            f"is imported from."
        )
    return Path(payload.code_path)


@contextmanager
def _candidates_fault(model: TrainedModel) -> Iterator[None]:
    try:
        yield
    except (OutageError, MemoryError, InvalidSpecError):
        raise
    except Exception as exc:
        raise ModelRefusedError(
            f"The candidate {model.model_uri} does not predict the evaluation rows: {_cause(exc)}. It was trained on "
            f"{model.feature_count} features; compare their types with those of the evaluation rows."
        ) from exc


def _is_outage(exc: Exception) -> bool:
    """Say whether an error of fetching is about the way to the files and not about the model."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(exc, RequestException) or looks_like_outage(exc):
        return True
    return isinstance(exc, MlflowException) and exc.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


def _cause(exc: Exception) -> str:
    text = str(exc) if isinstance(exc, ModelRefusedError) else f"{type(exc).__name__}: {exc}"
    return short(text).rstrip(".")


def short(text: str) -> str:
    """Return a note on one line, cut to what a record may repeat of it."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_CAUSE else f"{line[: MAX_CAUSE - 1]}…"


def _reference(champion: Champion | None, candidate: TrainedModel) -> ChampionRef | None:
    if champion is None:
        return None
    return ChampionRef(
        version=champion.version,
        entry=champion.entry,
        model_digest=champion.model_digest,
        train_window=champion.train_window,
        window=champion.window,
        is_candidate=champion.model_id is not None and champion.model_id == candidate.model_id,
    )
