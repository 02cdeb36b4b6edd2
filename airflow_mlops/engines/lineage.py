"""Reading back what the MLflow runs behind a version hold. Whatever is gone is None; an outage stays an error."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.gate import Decision
from airflow_mlops.core.lineage import Origins, is_blank
from airflow_mlops.core.records import (
    EvaluationReport,
    GateDecision,
    Record,
    ServingReport,
    TrainedModel,
    ValidationReport,
)
from airflow_mlops.engines.runs import RECORD_FILE
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

ENVIRONMENT_FILE = "environment.json"
DECISION_FILE = "decision.json"
RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Pointers:
    """Where to look: MLflow run ids and ``runs:/`` URIs. An empty one is not looked for."""

    train_run: str = ""
    training_validation_run: str = ""
    evaluation_validation_run: str = ""
    evidence_uri: str = ""
    decision_uri: str = ""
    serving_run: str = ""


class RunReader:
    """Runs, the names of their artifacts, and their JSON artifacts: each asked for once."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self._runs: dict[str, Run | None] = {}
        self._files: dict[str, Any] = {}
        self._names: dict[str, frozenset[str]] = {}

    def run(self, run_id: str) -> Run | None:
        """Return a run, or None where there is none of that id. One in MLflow's bin is still returned."""
        from mlflow.exceptions import MlflowException

        if is_blank(run_id):
            return None
        if run_id not in self._runs:
            try:
                self._runs[run_id] = self.client.get_run(run_id)
            except MlflowException as exc:
                # What is written by hand may be no id at all.
                if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                self._runs[run_id] = None
        return self._runs[run_id]

    def json(self, uri: str) -> Any | None:
        """Return the JSON artifact ``runs:/RUN/PATH``, or None where it or its run is gone, or it is no JSON."""
        if uri not in self._files:
            self._files[uri] = self._fetched(uri) if self.has(uri) else None
        return self._files[uri]

    def has(self, uri: str) -> bool:
        """Say whether the artifact ``runs:/RUN/PATH`` is there."""
        run_id = run_of(uri)
        if run_id is None or self.run(run_id) is None:
            return False
        folder = uri.rpartition("/")[0]
        if folder not in self._names:
            found = self._store(run_id).list_artifacts(folder.removeprefix(f"runs:/{run_id}").strip("/") or None)
            self._names[folder] = frozenset(item.path for item in found if not item.is_dir)
        return uri.removeprefix(f"runs:/{run_id}/") in self._names[folder]

    def _fetched(self, uri: str) -> Any | None:
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        with tempfile.TemporaryDirectory() as folder:
            try:
                return json.loads(Path(self._store(run_id).download_artifacts(path, folder)).read_text("utf-8"))
            except ValueError:
                return None

    def _store(self, run_id: str) -> ArtifactRepository:
        # Not the client's own calls: each of those asks for the run again, and for the run's models.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        run = self.run(run_id)
        if run is None:
            raise ValueError(f"there is no run {run_id!r}")
        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self.client.tracking_uri)

    def record(self, run_id: str, record_type: type[RecordT]) -> RecordT | None:
        """Return the record that a step's run holds, or None where there is none of that type."""
        found = None if is_blank(run_id) else self.json(f"runs:/{run_id}/{RECORD_FILE}")
        if not isinstance(found, Mapping) or found.get("schema") != record_type.schema_name:
            return None
        try:
            return record_type.from_xcom(found)
        except InvalidSpecError:
            return None


def run_of(uri: str | None) -> str | None:
    """Return the run of a ``runs:/RUN/PATH`` URI, or None for a URI of another form."""
    run_id, slash, path = (uri or "").removeprefix("runs:/").partition("/")
    return run_id if uri and uri.startswith("runs:/") and slash and run_id and path else None


def pointers_of(decision: GateDecision) -> Pointers:
    """Return where to look, as a decision tells it."""
    return Pointers(
        train_run=decision.model.run_id,
        training_validation_run=decision.model.validation_run_id,
        evaluation_validation_run=decision.validation_run_id,
        evidence_uri=decision.evidence_uri,
        decision_uri=decision.decision_uri,
        serving_run=decision.serving_run_id,
    )


def read_origins(reader: RunReader, pointers: Pointers) -> Origins:
    """Read everything that ``pointers`` lead to."""
    gate_run = run_of(pointers.decision_uri) or ""
    training = reader.run(pointers.train_run)
    environment = reader.json(f"runs:/{pointers.train_run}/{ENVIRONMENT_FILE}") if pointers.train_run else None
    return Origins(
        decision=reader.record(gate_run, GateDecision),
        gate=_parsed(reader.json(f"runs:/{gate_run}/{DECISION_FILE}"), Decision) if gate_run else None,
        report=reader.record(run_of(pointers.evidence_uri) or "", EvaluationReport),
        evidence=_parsed(reader.json(pointers.evidence_uri), Evidence),
        trained=reader.record(pointers.train_run, TrainedModel),
        training_data=reader.record(pointers.training_validation_run, ValidationReport),
        evaluation_data=reader.record(pointers.evaluation_validation_run, ValidationReport),
        serving=reader.record(pointers.serving_run, ServingReport),
        environment=environment if isinstance(environment, Mapping) else None,
        parameters=dict(sorted(training.data.params.items())) if training is not None else {},
    )


def _parsed(value: Any, kind: Any) -> Any:
    if not isinstance(value, Mapping):
        return None
    try:
        return kind.model_validate(value)
    except ValidationError:
        return None
