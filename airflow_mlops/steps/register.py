"""Register a candidate that the gate let through: one version, however often the task is tried."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.card import CardFacts, model_card
from airflow_mlops.core.keys import digest_of, key_id
from airflow_mlops.core.ledger import is_older
from airflow_mlops.core.lineage import Blank, Origins, blank_facts
from airflow_mlops.core.records import GateDecision, ModelVersionRef, TrainedModel
from airflow_mlops.engines import versions
from airflow_mlops.engines.lineage import RunReader, pointers_of, read_origins
from airflow_mlops.engines.logged_models import require_registrable
from airflow_mlops.engines.runs import INPUT_DIGEST, KEY_ID, MODEL_VERSION, SUPERSEDED_BY, cut
from airflow_mlops.engines.tracking import artifact_page
from airflow_mlops.errors import ModelRefusedError
from airflow_mlops.steps.base import Access, Step, Work

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

MAX_REASONS = 20
CARD_TEXT = "model_card.md"
CARD_PAGE = "model_card.html"


class RegisterPayload(BaseModel):
    """What to register and under which name.

    :param description: put before the gate's sentences in the version's description.
    :param reason: why the run was made; promotion puts it into the ledger when it is given none of its own.
    :param override: register whatever the gate's verdict, because a person answers for it (``promote --override``).
        What is blank in the lineage is then named in the version instead of refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: GateDecision
    registered_model: str = Field(min_length=1)
    description: str = ""
    reason: str = ""
    override: bool = False


class RegisterStep(Step[RegisterPayload, ModelVersionRef]):
    """Make exactly one version per task key and input digest; another digest makes a new one and marks the old.

    The model card is written before the version is created, whose tags name it, and once more with the version's
    number: so no version is without one, wherever the task is killed.
    """

    name = "register"
    payload_type = RegisterPayload
    record_type = ModelVersionRef

    def run(self, payload: RegisterPayload, work: Work) -> ModelVersionRef:
        """Register the candidate, or find the version that an earlier attempt registered.

        :raises ModelRefusedError: the gate did not let it through, the model lacks what a version needs, or a fact of
            its lineage is blank; each is named.
        :raises InvalidSpecError: the registered model's name is not usable.
        """
        decision, model, name = payload.decision, payload.decision.model, versions.check_name(payload.registered_model)
        if not decision.lets_through and not payload.override:
            raise ModelRefusedError(
                f"The model {model.model_uri} is not registered: the gate's verdict is {decision.verdict!r}. "
                f"{decision.sentence} Only 'promote', 'first_model' and 'needs_approval' go on."
            )
        blanks = blank_facts(decision)
        if blanks and not payload.override:
            raise ModelRefusedError(refusal(decision, blanks, name))
        require_registrable(work.client, model, work.folder)
        versions.ensure_registered_model(
            work.client,
            name,
            description=f"Versions are registered by airflow-mlops. Who was champion when, and why: the promotion "
            f"ledger, `airflow-mlops history {name}`.",
            tags={},
        )
        input_digest = identity(work, decision)
        champion = decision.champion
        if champion is not None and champion.is_candidate and not work.request.force:
            serving = versions.get_version(work.client, name, champion.version)
            if serving is not None and serving.tags.get(versions.MODEL_DIGEST) == model.digest:
                log.info("The candidate is champion already: version %s of %s.", champion.version, name)
                return _reference(payload, work, serving, input_digest, None)
        if (made := _made_before(work, decision, name)) is not None:
            log.info("Version %s of %s is this model; the champion's window is newer than its own.", made.version, name)
            return _reference(payload, work, made, input_digest, None)
        origins = read_origins(RunReader(work.client), pointers_of(decision))
        card_uri = f"runs:/{work.run_id}/{CARD_PAGE}"
        known = versions.find_version(work.client, name, key=work.request.key, input_digest=input_digest)
        if known is None:
            _write_card(payload, origins, blanks, work, None)
        version = versions.create_once(
            work.client,
            name,
            key=work.request.key,
            input_digest=input_digest,
            source=model.model_uri,
            run_id=model.run_id,
            model_id=model.model_id,
            tags=version_tags(decision, work.request.task_url, card_uri=card_uri, blanks=blanks),
            description=describe(payload, work.request.task_url, blanks, _card_link(work, card_uri)),
        )
        # A version that a run of this task with another decision made has a card of its own already.
        if version.tags.get(versions.CARD_URI, card_uri) == card_uri:
            _write_card(payload, origins, blanks, work, int(version.version))
            if versions.CARD_URI not in version.tags:
                versions.set_version_tag(work.client, name, version.version, versions.CARD_URI, card_uri)
        return _reference(payload, work, version, input_digest, card_uri)

    def recheck(self, record: ModelVersionRef, payload: RegisterPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt the earlier record only while its version exists and is still this model."""
        version = versions.get_version(client, record.name, record.version)
        if version is None or version.tags.get(versions.MODEL_DIGEST) != record.digest:
            return False
        # Inputs that were changed and changed back: this version is the current one again. A champion that was judged
        # once more is another task's version, whose order is that task's affair.
        if version.tags.get(KEY_ID) == key_id(record.key):
            versions.settle_key(client, record.name, key=record.key, input_digest=version.tags[INPUT_DIGEST])
        return True


def _made_before(work: Work, decision: GateDecision, name: str) -> ModelVersion | None:
    """Return this task's version of this very model where judging it once more changes nothing that it says.

    Against a champion of a newer window it is judged by itself and takes no alias, whoever that champion is. So a month
    of a backfill that is cleared later makes no further version.
    """
    newer = decision.champion is not None and is_older(decision.window, decision.champion.window)
    if not newer or work.request.force:
        return None
    wanted = {
        versions.MODEL_ID: decision.model.model_id,
        versions.MODEL_DIGEST: decision.model.digest,
        versions.WINDOW: versions.write_span(decision.window),
        versions.MODE: decision.mode,
    }
    for version in versions.versions_of_key(work.client, name, work.request.key):
        same = all(version.tags.get(tag) == value for tag, value in wanted.items())
        if same and SUPERSEDED_BY not in version.tags:
            return version
    return None


def _reference(
    payload: RegisterPayload, work: Work, version: ModelVersion, input_digest: str, card_uri: str | None
) -> ModelVersionRef:
    decision, model, name = payload.decision, payload.decision.model, payload.registered_model
    work.client.set_tag(work.run_id, MODEL_VERSION, f"{name}/{version.version}")
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
        decision_uri=decision.decision_uri,
        verdict=decision.verdict,
        mode=decision.mode,
        reason=payload.reason,
        sentence=decision.sentence,
        card_uri=version.tags.get(versions.CARD_URI, card_uri),
        key=work.request.key,
        input_digest=input_digest,
    )


def identity(work: Work, decision: GateDecision) -> str:
    """Return what names this act beside the key: the logged model, the judgement, and when forced the run forcing it.

    The judgement, because the version's tags say it and a person's approval is given on it: what was judged anew, in
    earnest after a dry run or against a later champion, is a version of its own that supersedes the earlier one.
    """
    judged = {"verdict": decision.verdict, "mode": decision.mode, "ledger_entry": decision.ledger_entry}
    act = digest_of({"model": decision.model.model_id, "window": decision.window, **judged})
    return f"{act}:{work.run_id}" if work.request.force else act


def refusal(decision: GateDecision, blanks: Sequence[Blank], name: str) -> str:
    """Return why a candidate with blank facts is not registered: each by name, and how to supply it."""
    facts = "1 fact of its lineage is" if len(blanks) == 1 else f"{len(blanks)} facts of its lineage are"
    run = decision.run_id or "RUN"
    return (
        f"The model {decision.model.model_uri} cannot be registered, because {facts} blank. "
        + " ".join(f"{blank}." for blank in blanks)
        + f" Empty, 'unknown', 'n/a', 'none', 'null' and '-' count as blank. A person may answer for it all the same: "
        f"airflow-mlops promote {name} --override --candidate {run} --reason 'WHY'"
    )


def _write_card(
    payload: RegisterPayload, origins: Origins, blanks: Sequence[Blank], work: Work, version: int | None
) -> None:
    card = model_card(
        CardFacts(
            name=payload.registered_model,
            version=version,
            decision=payload.decision,
            origins=origins,
            description=payload.description,
            reason=payload.reason,
            task_key=work.request.key,
            blanks=blanks,
        )
    )
    work.log_text(card.to_markdown(), CARD_TEXT)
    work.log_text(card.to_html(), CARD_PAGE)


def _card_link(work: Work, card_uri: str) -> str:
    page = artifact_page(work.access.server, work.run_id, CARD_PAGE, work.experiment_id)
    return f"[Model card]({page})" if page else f"Model card: `{card_uri}`"


def version_tags(
    decision: GateDecision, task_url: str | None, *, card_uri: str = "", blanks: Sequence[Blank] = ()
) -> dict[str, str]:
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
        versions.JUDGED_ALIAS: decision.alias,
        versions.TASK_URL: task_url,
        versions.SIZE_BYTES: model.size_bytes,
        versions.ROW_COUNT: model.row_count,
        versions.SEED: model.seed,
        versions.CODE_DIGEST: model.code_digest,
        versions.PARAMETERS_DIGEST: model.parameters_digest,
        versions.SOURCE_URI: model.source_uri,
        versions.TRAIN_RUN: model.run_id,
        versions.TRAIN_KEY: cut(model.key),
        versions.DATA_URI: model.data_uri,
        versions.MANIFEST_URI: model.manifest_uri,
        versions.VALIDATION_RUN: model.validation_run_id,
        versions.EVALUATION_MANIFEST_URI: decision.manifest_uri,
        versions.EVALUATION_VALIDATION_RUN: decision.validation_run_id,
        versions.SERVING_RUN: decision.serving_run_id,
        versions.CARD_URI: card_uri,
        versions.BLANK: json.dumps([blank.name for blank in blanks]) if blanks else "",
    }
    return {name: str(value) for name, value in tags.items() if value not in (None, "")}


def describe(payload: RegisterPayload, task_url: str | None, blanks: Sequence[Blank], card: str) -> str:
    """Return the version's description: the verdict, the gate's sentences, the windows and where the evidence is.

    :param card: a link to the model card, in Markdown.
    """
    decision, model = payload.decision, payload.decision.model
    mode = " (dry run: it will not be promoted)" if decision.mode == "dry_run" else ""
    reasons = [f"- {reason}" for reason in decision.reasons[:MAX_REASONS]]
    if len(decision.reasons) > MAX_REASONS:
        reasons.append(f"- and {len(decision.reasons) - MAX_REASONS} more, in the decision")
    parts = [
        payload.description,
        f"**{decision.verdict}**{mode}: {decision.sentence}",
        f"Not known of it, and registered by a person all the same: {', '.join(blank.name for blank in blanks)}."
        if blanks
        else "",
        card,
        "\n".join(reasons),
        f"Trained on {model.row_count:,} rows of {model.train_window or 'data without a window'}, judged on "
        f"{decision.window or 'data without a window'}.",
        f"Evidence: `{decision.evidence_uri}`. Decision: `{decision.decision_uri}`.",
        f"[The Airflow task that registered it]({task_url})" if task_url else "",
    ]
    return "\n\n".join(part for part in parts if part)
