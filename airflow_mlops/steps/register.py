"""Register a candidate that the gate let through: one version, however often the task is tried."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import GateDecision, ModelVersionRef, TrainedModel
from airflow_mlops.engines import versions
from airflow_mlops.engines.logged_models import require_registrable
from airflow_mlops.engines.runs import INPUT_DIGEST
from airflow_mlops.errors import ModelRefusedError
from airflow_mlops.steps.base import Access, Step, Work

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MAX_REASONS = 20


class RegisterPayload(BaseModel):
    """What to register and under which name.

    :param description: put before the gate's sentences in the version's description.
    :param reason: why the run was made; promotion puts it into the ledger when it is given none of its own.
    :param override: register whatever the gate's verdict, because a person answers for it (``promote --override``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: GateDecision
    registered_model: str = Field(min_length=1)
    description: str = ""
    reason: str = ""
    override: bool = False


class RegisterStep(Step[RegisterPayload, ModelVersionRef]):
    """Make exactly one version per task key and input digest; another digest makes a new one and marks the old."""

    name = "register"
    payload_type = RegisterPayload
    record_type = ModelVersionRef

    def run(self, payload: RegisterPayload, work: Work) -> ModelVersionRef:
        """Register the candidate, or find the version that an earlier attempt registered.

        :raises ModelRefusedError: the gate did not let it through, or the model lacks what a version needs.
        :raises InvalidSpecError: the registered model's name is not usable.
        """
        decision, model, name = payload.decision, payload.decision.model, versions.check_name(payload.registered_model)
        if not decision.lets_through and not payload.override:
            raise ModelRefusedError(
                f"The model {model.model_uri} is not registered: the gate's verdict is {decision.verdict!r}. "
                f"{decision.sentence} Only 'promote' and 'first_model' go on."
            )
        require_registrable(work.client, model, work.folder)
        versions.ensure_registered_model(
            work.client,
            name,
            description=f"Versions are registered by airflow-mlops. Who was champion when, and why: the promotion "
            f"ledger, `airflow-mlops history {name}`.",
            tags={},
        )
        version = versions.create_once(
            work.client,
            name,
            key=work.request.key,
            input_digest=identity(work, decision),
            source=model.model_uri,
            run_id=model.run_id,
            model_id=model.model_id,
            tags=version_tags(decision, work.request.task_url),
            description=describe(payload, work.request.task_url),
        )
        work.client.set_tag(work.run_id, "airflow_mlops.model_version", f"{name}/{version.version}")
        return ModelVersionRef(
            name=name,
            version=int(version.version),
            model_uri=model.model_uri,
            run_id=model.run_id,
            digest=model.digest,
            window=decision.window,
            train_window=model.train_window,
            ledger_entry=decision.ledger_entry,
            evidence_uri=decision.evidence_uri,
            verdict=decision.verdict,
            mode=decision.mode,
            reason=payload.reason,
            key=work.request.key,
            input_digest=identity(work, decision),
        )

    def recheck(self, record: ModelVersionRef, payload: RegisterPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt the earlier record only while its version exists and is still this model."""
        version = versions.get_version(client, record.name, record.version)
        if version is None or version.tags.get(versions.MODEL_DIGEST) != record.digest:
            return False
        # Inputs that were changed and changed back: this version is the current one again.
        versions.settle_key(client, record.name, key=record.key, input_digest=version.tags[INPUT_DIGEST])
        return True


def identity(work: Work, decision: GateDecision) -> str:
    """Return what names this act beside the key: the logged model and its window, and when forced the run forcing it.

    Not the whole decision: judged anew against a later champion, the same model is still the same version.
    """
    act = digest_of({"model": decision.model.model_id, "window": decision.window})
    return f"{act}:{work.run_id}" if work.request.force else act


def version_tags(decision: GateDecision, task_url: str | None) -> dict[str, str]:
    """Return the tags with which a version can be resolved and trusted without the run that made it."""
    model: TrainedModel = decision.model
    tags: Mapping[str, Any] = {
        versions.MODEL_ID: model.model_id,
        versions.MODEL_DIGEST: model.digest,
        versions.ARTIFACT_URI: model.artifact_uri,
        versions.FLAVOR: model.flavor,
        versions.SERIALIZATION: model.serialization,
        versions.FEATURES: versions.write_features(model.features, model.feature_count),
        versions.FEATURE_COUNT: model.feature_count,
        versions.TARGET: model.target,
        versions.DATASET_DIGEST: model.dataset_digest,
        versions.WINDOW: versions.write_span(decision.window),
        versions.TRAIN_WINDOW: versions.write_span(model.train_window),
        versions.GIT_COMMIT: model.git_commit,
        versions.ENVIRONMENT_DIGEST: model.environment_digest,
        versions.PROFILE_URI: model.profile_uri,
        versions.EVIDENCE_URI: decision.evidence_uri,
        versions.DECISION_URI: decision.decision_uri,
        versions.VERDICT: decision.verdict,
        versions.MODE: decision.mode,
        versions.LEDGER_ENTRY: decision.ledger_entry,
        versions.TASK_URL: task_url,
    }
    return {name: str(value) for name, value in tags.items() if value not in (None, "")}


def describe(payload: RegisterPayload, task_url: str | None) -> str:
    """Return the version's description: the verdict, the gate's sentences, the windows and where the evidence is."""
    decision, model = payload.decision, payload.decision.model
    mode = " (dry run: it will not be promoted)" if decision.mode == "dry_run" else ""
    reasons = [f"- {reason}" for reason in decision.reasons[:MAX_REASONS]]
    if len(decision.reasons) > MAX_REASONS:
        reasons.append(f"- and {len(decision.reasons) - MAX_REASONS} more, in the decision")
    parts = [
        payload.description,
        f"**{decision.verdict}**{mode}: {decision.sentence}",
        "\n".join(reasons),
        f"Trained on {model.row_count} rows of {model.train_window or 'data without a window'}, judged on "
        f"{decision.window or 'data without a window'}.",
        f"Evidence: `{decision.evidence_uri}`. Decision: `{decision.decision_uri}`.",
        f"[The Airflow task that registered it]({task_url})" if task_url else "",
    ]
    return "\n\n".join(part for part in parts if part)
