"""Evaluate: candidate and champion on the same frozen rows, everything measured, nothing remembered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.lineage import is_blank
from airflow_mlops.core.metrics import metric_names
from airflow_mlops.core.pages import evaluation_page
from airflow_mlops.core.records import EvaluationReport
from airflow_mlops.core.windows import require_apart
from airflow_mlops.engines.artifacts import stored_json
from airflow_mlops.engines.environment import describe_environment, loose_modules, versions_of
from airflow_mlops.engines.flavors import libraries
from airflow_mlops.engines.prediction_profile import PREDICTION_PROFILE_FILE
from airflow_mlops.engines.registry import current_champion
from airflow_mlops.engines.source import code_version
from airflow_mlops.errors import LeakageError
from airflow_mlops.steps.base import Access, Step, Work, window_tags
from airflow_mlops.steps.comparison import Comparison, EvaluatePayload, code_folder, short

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVIDENCE_FILE = "evidence.json"
#: What the step was given, beside what it found: promotion may have to ask again.
REQUEST_FILE = "request.json"
PAGE_FILE = "evaluation.html"
#: Distributions whose release may change what is measured or decided, or whether a stored model loads at all.
MEASURED_WITH = ("airflow-mlops", "mlflow", "numpy", "scikit-learn")


class EvaluateStep(Step[EvaluatePayload, EvaluationReport]):
    """Measure both models on the same rows and write the evidence that the gate reads."""

    name = "evaluate"
    reusable = True
    payload_type = EvaluatePayload
    record_type = EvaluationReport

    def inputs(self, payload: EvaluatePayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover model, rows, specification, own metrics' source, the champion's ledger entry, and the libraries."""
        champion = current_champion(client, payload.registered_model, payload.alias)
        model = payload.model
        own = {path: code_version(path, code_folder(payload)) for path in sorted(payload.own_metrics)}
        imported = {module for code in own.values() for module in code.imports}
        used = (*MEASURED_WITH, *libraries(model.flavor, model.serialization))
        return {
            # Nothing that only says which run made it or where it lies: the same inputs give the same evidence.
            "dataset": payload.dataset.digest,
            "model": {
                "id": model.model_id,
                "digest": model.digest,
                "flavor": model.flavor,
                "features": model.features,
                "train_window": model.train_window,
            },
            "target": payload.target or model.target,
            "evaluation": payload.evaluation.model_dump(mode="json"),
            "registered_model": payload.registered_model,
            "alias": payload.alias,
            "seed": payload.seed,
            "champion": None if champion is None else [champion.entry, champion.version, champion.model_digest],
            "own_metrics": {path: code.digest for path, code in own.items()},
            "loose_modules": loose_modules(imported),
            # Of this package the version alone: what else it depends on does not measure.
            "package": versions_of("airflow-mlops"),
            "environment": describe_environment(distributions=used, modules=imported).digest,
        }

    def adopted(self, record: EvaluationReport, payload: EvaluatePayload) -> EvaluationReport:
        """Name this run's candidate, rows and contract result: the figures are the same, their origin may not be."""
        return record.model_copy(
            update={
                "model": payload.model,
                "manifest_uri": payload.dataset.manifest_uri,
                "validation_run_id": payload.validation_run_id or record.validation_run_id,
            }
        )

    def recheck(self, record: EvaluationReport, payload: EvaluatePayload, client: MlflowClient, access: Access) -> bool:
        """Adopt only a whole comparison whose evidence is still what it was: a mended champion is measured anew."""
        if record.champion_problem is not None:
            return False
        # An earlier release's record lacks what registration needs and this run would write.
        if is_blank(record.manifest_uri) or (payload.validation_run_id and not record.validation_run_id):
            return False
        stored = stored_json(client, record.evidence_uri)
        return stored is not None and digest_of(stored) == record.evidence_digest

    def run(self, payload: EvaluatePayload, work: Work) -> EvaluationReport:
        """Predict once per model, then measure; a champion that cannot be measured is a finding, not an error.

        :raises LeakageError: the candidate was trained on rows of the evaluation window, or nobody can tell.
        :raises ModelRefusedError: the candidate cannot be loaded or does not predict.
        :raises DataReadError: there is no row to evaluate on.
        :raises LedgerError: nobody can say who is champion.
        """
        spec = payload.evaluation
        metric_names(spec.task, spec.metrics, spec.lower_is_better)
        _require_unseen(payload)
        champion = current_champion(work.client, payload.registered_model, payload.alias)
        comparison = Comparison(payload, work, champion)
        evidence = comparison.evidence()
        stored = evidence.model_dump(mode="json")
        work.log_json(payload.model_dump(mode="json"), REQUEST_FILE)
        evidence_uri = work.log_json(stored, EVIDENCE_FILE)
        # Drift of later predictions is measured against those on these rows.
        work.log_json(comparison.predictions, PREDICTION_PROFILE_FILE)
        work.log_text(evaluation_page(evidence), PAGE_FILE)
        _log_metrics(evidence, payload, work)
        overall = {name: evidence.overall(name) for name in evidence.metrics}
        compared = champion is not None and evidence.champion_problem is None and not evidence.not_compared
        return EvaluationReport(
            model=payload.model,
            alias=payload.alias,
            champion=evidence.champion,
            champion_problem=evidence.champion_problem,
            ledger_entry=0 if champion is None else champion.entry,
            dataset_digest=payload.dataset.digest,
            window=payload.dataset.window,
            row_count=evidence.rows,
            task=spec.task,
            metrics={name: one.candidate if one else None for name, one in overall.items()},
            champion_metrics={name: one.champion if one else None for name, one in overall.items()} if compared else {},
            notes={
                **{name: short(note) for name, note in evidence.notes.items()},
                **{name: short(one.note) for name, one in overall.items() if one and one.note},
            },
            slice_count=len({(one.slice, one.value) for one in evidence.measurements if one.slice is not None}),
            evidence_uri=evidence_uri,
            evidence_digest=digest_of(stored),
            manifest_uri=payload.dataset.manifest_uri,
            validation_run_id=payload.validation_run_id,
            run_id=work.run_id,
        )


def _require_unseen(payload: EvaluatePayload) -> None:
    trained, rows = payload.model.train_window, payload.dataset
    if trained is None:
        return
    if rows.event_time is None or rows.window is None:
        lacks = "no event-time column" if rows.event_time is None else "no window"
        raise LeakageError(
            f"The model was trained on {trained}, and the evaluation rows of {rows.uri} have {lacks}, so rows that it "
            f"has seen cannot be told from others. Set data.event_time, and take the snapshot of a window."
        )
    require_apart(trained, rows.window)


def _log_metrics(evidence: Evidence, payload: EvaluatePayload, work: Work) -> None:
    """Write the figures on all rows, and the window, to the step's MLflow run in one request."""
    from mlflow.entities import Metric, RunTag

    figures: dict[str, float | None] = {"evaluation_rows": float(evidence.rows)}
    for name in evidence.metrics:
        one = evidence.overall(name)
        if one is not None:
            # MLflow allows no colon in a metric's name on every platform.
            plain = name.replace(":", ".")
            figures[plain] = one.candidate
            figures[f"champion.{plain}"] = one.champion
            figures[f"difference.{plain}"] = one.difference
    tags = {**window_tags(payload.dataset.window), "airflow_mlops.dataset_digest": payload.dataset.digest}
    now = int(time.time() * 1000)
    work.client.log_batch(
        work.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in figures.items() if value is not None],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
