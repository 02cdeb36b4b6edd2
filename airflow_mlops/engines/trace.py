"""From a registered version back to everything it was made of. Reads only; what is not known is named.

The version's tags come first: they hold the whole lineage by name, so a version can be traced when the runs that made
it are gone. What the runs still hold (files, sentences, parameters, libraries) is added; where it is gone, that is one
of the blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.ledger import Ledger
from airflow_mlops.core.lineage import (
    Blank,
    Origins,
    blanks_in,
    commit,
    is_blank,
    is_commit,
    lineage_of,
    span,
    training_lineage,
)
from airflow_mlops.core.records import GateDecision, TrainedModel, ValidationReport
from airflow_mlops.engines import versions
from airflow_mlops.engines.approvals import APPROVAL
from airflow_mlops.engines.lineage import ENVIRONMENT_FILE, Pointers, RunReader, read_origins, run_of
from airflow_mlops.engines.logged_models import has_files
from airflow_mlops.engines.runs import DUPLICATE_OF, SUPERSEDED_BY
from airflow_mlops.engines.trace_data import GONE, contract_of, files_of, raw_manifest_uri
from airflow_mlops.engines.trace_ledger import find_version, ledger_lines, read_aliases, read_ledgers, standing
from airflow_mlops.engines.trace_tasks import tasks_of
from airflow_mlops.engines.versions import VersionFacts, facts_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Trace:
    """What is known of one version, as plain JSON values, and what is not.

    :param found: ``name``, ``version``, ``standing``, ``model``, ``training_data``, ``evaluation_data``, ``code``,
        ``parameters``, ``environment``, ``evaluation``, ``gate``, ``serving``, ``approval``, ``ledger``, ``card`` and
        ``tasks``; None or an empty text stands for what is not known.
    """

    found: Mapping[str, Any]
    blanks: tuple[Blank, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything, with ``blank``: a list of name, what stands there, and how to supply it."""
        return {**self.found, "blank": [vars(blank) for blank in self.blanks]}


def trace(client: MlflowClient, name: str, *, version: int | None = None, alias: str = "champion") -> Trace:
    """Return where a version comes from.

    :param version: its number; None: the one that ``alias`` stands for, by the promotion ledger where there is one.
    :raises UnknownNameError: there is no registered model of that name; the nearest name is given.
    :raises InvalidSpecError: there is no such version, or the alias names none; what exists is listed.
    """
    ledgers = read_ledgers(client, name)
    aliases = read_aliases(client, name)
    stored = find_version(client, name, version, alias, ledgers, aliases)
    return _Tracer(client, stored, ledgers, aliases).trace()


class _Tracer:
    """One trace while it is put together."""

    def __init__(
        self, client: MlflowClient, stored: ModelVersion, ledgers: Mapping[str, Ledger], aliases: Mapping[str, int]
    ) -> None:
        self.client = client
        self.stored = stored
        self.tags: Mapping[str, str] = stored.tags
        self.ledgers = ledgers
        self.aliases = aliases
        self.facts: VersionFacts = facts_of(stored)
        self.reader = RunReader(client)
        self.broken: list[Blank] = []
        self.model_id = self.facts.model_id or _logged_model(stored)
        self.train_run = self.tags.get(versions.TRAIN_RUN) or stored.run_id or ""
        gate_run = run_of(self.tags.get(versions.DECISION_URI)) or ""
        trained = self.reader.record(self.train_run, TrainedModel)
        decision = self.reader.record(gate_run, GateDecision)
        self.trained = trained if self._ours(trained) else None
        self.decision = decision if decision is not None and self._ours(decision.model) else None
        self.values = self._values()
        self.pointers = self._pointers()
        self.origins: Origins = read_origins(self.reader, self.pointers)

    def trace(self) -> Trace:
        """Put everything together."""
        version = self.facts.version
        found = {
            "name": self.stored.name,
            "version": version,
            "standing": standing(self.ledgers, self.aliases, version),
            "superseded_by": self.tags.get(SUPERSEDED_BY),
            "duplicate_of": self.tags.get(DUPLICATE_OF),
            "description": self.stored.description or "",
            "model": self._model(),
            "training_data": self._data("training", self._manifest_uri(training=True), self.origins.training_data),
            "evaluation_data": self._data(
                "evaluation", self._manifest_uri(training=False), self.origins.evaluation_data
            ),
            "code": self._code(),
            "parameters": self._parameters(),
            "environment": self._environment(),
            "evaluation": self._evaluation(),
            "gate": self._gate(),
            "serving": self._serving(),
            "approval": _json_or_text(self.tags.get(APPROVAL)),
            "ledger": ledger_lines(self.ledgers, version),
            "card": self._kept("model card", self.tags.get(versions.CARD_URI)),
            "tasks": tasks_of(
                self.reader,
                self.pointers,
                self.origins,
                self.tags,
                [self._manifest_uri(training=True), self._manifest_uri(training=False)],
            ),
            "registered_blank": _json_or_text(self.tags.get(versions.BLANK)) or [],
        }
        missing = blanks_in(self.values)
        named = {blank.name for blank in missing}
        return Trace(found, (*missing, *(blank for blank in self.broken if blank.name not in named)))

    def _pointers(self) -> Pointers:
        def known(name: str) -> str:
            value = self.values[name]
            return "" if is_blank(value) else str(value)

        decision = self.decision
        return Pointers(
            train_run=self.train_run,
            training_validation_run=known("training contract result"),
            evaluation_validation_run=known("evaluation contract result"),
            evidence_uri=known("evaluation evidence"),
            decision_uri=known("gate decision"),
            serving_run=self.tags.get(versions.SERVING_RUN) or (decision.serving_run_id if decision else ""),
        )

    @property
    def record(self) -> TrainedModel | None:
        """Return what training recorded of this very model, where a run still holds it."""
        return self.trained or (self.decision.model if self.decision is not None else None)

    def _count(self, tag: str, recorded: int | None) -> int | None:
        text = self.tags.get(tag, "")
        return int(text) if text.isdigit() else recorded

    def _ours(self, model: TrainedModel | None) -> bool:
        return model is not None and model.model_id == self.model_id

    def _values(self) -> dict[str, Any]:
        """Return the required facts by name: the version's own tags first, then the records where they are left.

        A version that was registered by hand has no tags; MLflow itself then names the run that logged its model.
        """
        tags, facts = self.tags, self.facts
        recorded: dict[str, Any] = {}
        if self.decision is not None:
            recorded = lineage_of(self.decision)
        elif self.trained is not None:
            window = str(self.trained.train_window) if self.trained.train_window else ""
            recorded = {**training_lineage(self.trained), "training window": window}
        ours = not is_blank(tags.get(versions.MODEL_DIGEST))
        told = {
            "model digest": tags.get(versions.MODEL_DIGEST),
            "training run": tags.get(versions.TRAIN_RUN) or self.stored.run_id,
            "training task": tags.get(versions.TRAIN_KEY),
            "training data URI": tags.get(versions.DATA_URI),
            "training data digest": tags.get(versions.DATASET_DIGEST),
            "training data manifest": tags.get(versions.MANIFEST_URI),
            "training contract result": tags.get(versions.VALIDATION_RUN),
            # A version of other making has no window either, but nobody said that its data has none.
            "training window": span(facts.train_window, facts.window) if ours or facts.train_window else "",
            "code commit": commit(tags.get(versions.GIT_COMMIT), tags.get(versions.SOURCE_URI)),
            "code digest": tags.get(versions.CODE_DIGEST),
            "parameters digest": tags.get(versions.PARAMETERS_DIGEST),
            "environment digest": tags.get(versions.ENVIRONMENT_DIGEST),
            "evaluation data manifest": tags.get(versions.EVALUATION_MANIFEST_URI),
            "evaluation contract result": tags.get(versions.EVALUATION_VALIDATION_RUN),
            "evaluation evidence": tags.get(versions.EVIDENCE_URI),
            "gate decision": tags.get(versions.DECISION_URI),
        }
        return {name: recorded.get(name) if is_blank(value) else value for name, value in told.items()}

    def _broken(self, name: str, found: str = GONE) -> None:
        self.broken.append(Blank(name, found))

    def _kept(self, name: str, uri: str | None) -> dict[str, Any]:
        """Return an artifact's URI and whether it is still there; a lost one is a blank."""
        if uri is None or run_of(uri) is None:
            return {"uri": uri or "", "stored": False}
        there = self.reader.has(uri)
        if not there:
            self._broken(name)
        return {"uri": uri, "stored": there}

    def _model(self) -> dict[str, Any]:
        facts, record = self.facts, self.record
        stored = self._model_is_stored()
        if not stored:
            self._broken("model files", "they are gone from the artifact store")
        return {
            "uri": facts.model_uri,
            "model_id": self.model_id,
            "artifact_uri": facts.artifact_uri,
            "stored": stored,
            "digest": self.values["model digest"],
            "flavor": facts.flavor or (record.flavor if record else None),
            "serialization": self.tags.get(versions.SERIALIZATION) or (record.serialization if record else None),
            "size_bytes": self._count(versions.SIZE_BYTES, record.size_bytes if record else None),
            "features": list(facts.features or (record.features if record else ())),
            "feature_count": self._count(versions.FEATURE_COUNT, record.feature_count if record else None),
            "target": self.tags.get(versions.TARGET) or (record.target if record else None),
            "profile_uri": facts.profile_uri or (record.profile_uri if record else None),
        }

    def _model_is_stored(self) -> bool:
        from mlflow.exceptions import MlflowException

        location = self.facts.artifact_uri
        try:
            if self.model_id is not None:
                location = self.client.get_logged_model(self.model_id).artifact_location
            return has_files(self.client, location)
        except MlflowException as exc:
            if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return False

    def _manifest_uri(self, *, training: bool) -> str:
        return str(self.values["training data manifest" if training else "evaluation data manifest"] or "")

    def _data(self, which: str, uri: str, report: ValidationReport | None) -> dict[str, Any]:
        training = which == "training"
        digest = self.values["training data digest"] if training else self._evaluated_digest(report)
        found: dict[str, Any] = {
            "uri": self.values["training data URI"] if training else None,
            "digest": digest,
            "window": self._window(training=training),
            "rows": self._count(versions.ROW_COUNT, self.record.row_count if self.record else None)
            if training
            else None,
            **self._files(f"{which} data manifest", uri, digest),
            "raw": None,
            "contract": self._contract(which, report),
        }
        if not training and report is not None:
            found["uri"] = report.dataset.uri
        if report is not None and report.raw_digest != report.dataset.digest:
            raw_uri = raw_manifest_uri(self.reader, report)
            if not raw_uri:
                self._broken(f"{which} raw data manifest", "the contract's result does not name it")
            found["raw"] = {
                "digest": report.raw_digest,
                **self._files(f"{which} raw data manifest", raw_uri, report.raw_digest),
            }
        return found

    def _evaluated_digest(self, report: ValidationReport | None) -> str | None:
        measured = self.origins.report
        if measured is not None:
            return measured.dataset_digest
        return report.dataset.digest if report is not None else None

    def _window(self, *, training: bool) -> str | None:
        if not training:
            return versions.write_span(self.facts.window)
        return versions.write_span(self.facts.train_window or (self.record.train_window if self.record else None))

    def _files(self, name: str, uri: str, digest: str | None) -> dict[str, Any]:
        found, problem = files_of(self.reader, uri, digest)
        if problem:
            self._broken(name, problem)
        return found

    def _contract(self, which: str, report: ValidationReport | None) -> dict[str, Any] | None:
        name = f"{which} contract result"
        if report is None and not is_blank(self.values[name]):
            self._broken(name)
        return None if report is None else contract_of(report)

    def _code(self) -> dict[str, Any]:
        run = self.reader.run(self.pointers.train_run)
        source = self.tags.get(versions.SOURCE_URI) or (self.record.source_uri if self.record else "")
        kept = self._kept("source archive", source) if source else {"uri": "", "stored": False}
        commit_text = str(self.values["code commit"] or "")
        return {
            "commit": commit_text,
            "is_commit": is_commit(commit_text),
            "digest": self.values["code digest"],
            "function": run.data.tags.get("airflow_mlops.function") if run is not None else None,
            "source_uri": kept["uri"],
            "source_stored": kept["stored"],
        }

    def _parameters(self) -> dict[str, Any]:
        if self.pointers.train_run and self.reader.run(self.pointers.train_run) is None:
            self._broken("training run")
        return {
            "digest": self.values["parameters digest"],
            "seed": self._count(versions.SEED, self.record.seed if self.record else None),
            "values": dict(self.origins.parameters),
        }

    def _environment(self) -> dict[str, Any]:
        found = self.origins.environment
        if found is None and not is_blank(self.values["environment digest"]):
            self._broken("environment libraries")
        kept = found or {}
        return {
            "digest": self.values["environment digest"],
            "python": kept.get("python"),
            "platform": kept.get("platform"),
            "requirements": list(kept.get("requirements") or ()),
            "libraries": dict(kept.get("libraries") or {}),
            "uri": f"runs:/{self.pointers.train_run}/{ENVIRONMENT_FILE}" if found is not None else "",
        }

    def _evaluation(self) -> dict[str, Any] | None:
        report, evidence = self.origins.report, self.origins.evidence
        if evidence is None and not is_blank(self.values["evaluation evidence"]):
            self._broken("evaluation evidence")
        if report is None:
            return None
        return {
            "rows": report.row_count,
            "window": versions.write_span(report.window),
            "dataset_digest": report.dataset_digest,
            "metrics": dict(report.metrics),
            "champion_version": report.champion.version if report.champion is not None else None,
            "champion_metrics": dict(report.champion_metrics),
            "champion_problem": report.champion_problem,
            "notes": dict(report.notes),
            "slice_count": report.slice_count,
            "ledger_entry": report.ledger_entry,
            "evidence_uri": report.evidence_uri,
            "evidence_digest": report.evidence_digest,
            "run_id": report.run_id,
        }

    def _gate(self) -> dict[str, Any] | None:
        decision, whole = self.origins.decision, self.origins.gate
        if decision is None and whole is None:
            if not is_blank(self.values["gate decision"]):
                self._broken("gate decision")
            verdict = self.tags.get(versions.VERDICT)
            return {"verdict": verdict, "mode": self.tags.get(versions.MODE)} if verdict else None
        told = whole if whole is not None else decision
        if told is None:  # unreachable: one of the two is there
            return None
        return {
            "verdict": told.verdict,
            "mode": told.mode,
            "sentence": told.sentence,
            "results": [
                {"status": result.status, "rule": result.rule, "sentence": result.sentence} for result in told.results
            ],
            "decision_uri": self.pointers.decision_uri,
            "run_id": run_of(self.pointers.decision_uri),
        }

    def _serving(self) -> dict[str, Any] | None:
        report, run_id = self.origins.serving, self.pointers.serving_run
        if report is None:
            if run_id:
                self._broken("serving check")
            return None
        return report.model_dump(mode="json")


def _logged_model(stored: ModelVersion) -> str | None:
    """Return the logged model that a version was registered from, where its source names one; MLflow 3.17 keeps it."""
    found = re.fullmatch(r"models:/(m-[0-9a-f]+)", str(stored.source or ""))
    return found[1] if found else None


def _json_or_text(text: str | None) -> Any:
    """Return a tag's JSON value; the text itself where it is none, None where there is no tag."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
