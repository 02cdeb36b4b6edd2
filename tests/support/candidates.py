"""Candidates for registration tests: one tiny real model, logged, and gate decisions about it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import GateDecision, ModelVersionRef, Promotion, TrainedModel, Window
from airflow_mlops.engines.alias_moves import Wish, promote
from airflow_mlops.engines.models import DIGEST_TAG, model_digest
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.engines.versions import create_once, ensure_registered_model
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform
from airflow_mlops.steps.register import version_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

FEATURES = ("distance", "hour")


def month(number: int, length: int = 1) -> Window:
    """Return months of 2013: ``month(7)`` is July."""
    end = number + length
    return Window(start=datetime(2013, number, 1), end=datetime(2013 + (end - 1) // 12, (end - 1) % 12 + 1, 1))


def save_tiny_model(folder: Path, *, signature: bool = True) -> str:
    """Save a model of two features to ``folder`` and return its digest."""
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame({"distance": [1.0, 2.0, 3.0, 4.0], "hour": [1.0, 5.0, 2.0, 6.0]})
    model = LogisticRegression().fit(rows, [0, 1, 0, 1])
    mlflow.sklearn.save_model(
        model,
        str(folder),
        serialization_format="cloudpickle",
        signature=infer_signature(rows, model.predict(rows)) if signature else None,
        pip_requirements=["scikit-learn"],
    )
    return model_digest(folder)


def log_tiny_model(
    client: MlflowClient, experiment: str, folder: Path, digest: str, *, finalize: bool = True
) -> TrainedModel:
    """Log the model in ``folder`` as the train step would and return its record."""
    run = client.create_run(experiment)
    logged = client.create_logged_model(
        experiment, name="flights", source_run_id=run.info.run_id, tags={DIGEST_TAG: digest}
    )
    client.log_model_artifacts(logged.model_id, str(folder))
    if finalize:
        client.finalize_logged_model(logged.model_id, "READY")
    client.set_terminated(run.info.run_id, "FINISHED")
    return TrainedModel(
        model_uri=f"models:/{logged.model_id}",
        model_id=logged.model_id,
        artifact_uri=logged.artifact_location,
        run_id=run.info.run_id,
        flavor="sklearn",
        serialization="cloudpickle",
        digest=digest,
        size_bytes=1,
        dataset_digest="d" * 64,
        train_window=month(1, 2),
        features=FEATURES,
        feature_count=2,
        target="late",
        row_count=4,
        seed=0,
        parameters_digest="p",
        code_digest="c",
        git_commit="0123abc",
        environment_digest="e" * 64,
        profile_uri=f"runs:/{run.info.run_id}/profile.json",
        key="train/run/train/-1",
        input_digest="i",
        data_uri="/lake/flights",
        manifest_uri=f"runs:/{run.info.run_id}/manifest.json",
        validation_run_id=run.info.run_id,
        source_uri=f"runs:/{run.info.run_id}/source.zip",
    )


def decide(model: TrainedModel, *, window: Window | None = None, entry: int = 0, **other: Any) -> GateDecision:
    """Return a decision that lets ``model`` through, or what ``other`` says."""
    values: dict[str, Any] = {
        "verdict": "promote" if entry else "first_model",
        "mode": "enforce",
        "sentence": "Every rule passed.",
        "reasons": ("roc_auc is 0.7123; it must be at least 0.6",),
        "model": model,
        "ledger_entry": entry,
        "window": window or month(3),
        "evidence_uri": f"runs:/{model.run_id}/evidence.json",
        "decision_uri": f"runs:/{model.run_id}/decision.html",
        "manifest_uri": f"runs:/{model.run_id}/manifest.json",
        "validation_run_id": model.run_id,
    }
    return GateDecision(**{**values, **other})


@dataclass(frozen=True)
class Bench:
    """A server, one logged model, and a registered model's name nobody else uses."""

    access: Access
    client: MlflowClient
    experiment: str
    folder: Path
    model: TrainedModel
    name: str

    def step(self, step: str, payload: dict[str, Any], *, key: str, force: bool = False) -> Any:
        """Perform a step as the task ``key``."""
        run = RunInfo(key=f"dag/{self.name}", name=self.name, experiment=self.experiment_name)
        return perform(StepRequest(step=step, key=key, run=run, payload=payload, force=force), self.access)

    @property
    def experiment_name(self) -> str:
        """The experiment's name."""
        return f"exp-{self.name}"

    def register_task(self, key: str, *, force: bool = False, **decision: Any) -> ModelVersionRef:
        """Register the model with the step, as the task ``key``, after the decision described."""
        payload = {"decision": decide(self.model, **decision).to_xcom(), "registered_model": self.name}
        return self.step("register", payload, key=f"dag/{self.name}/{key}/-1", force=force)

    def promote_task(self, version: ModelVersionRef, key: str = "promote", reason: str = "because") -> Any:
        """Promote with the step, as the task ``key``."""
        payload = {"version": version.to_xcom(), "author": "airflow:dag/run/promote", "reason": reason}
        return self.step("promote", payload, key=f"dag/{self.name}/{key}/-1")

    def register(self, key: str, **decision: Any) -> ModelVersionRef:
        """Make the version that the step would make, without the step's run: much quicker."""
        decided = decide(self.model, **decision)
        ensure_registered_model(self.client, self.name, description="", tags={})
        version = create_once(
            self.client,
            self.name,
            key=key,
            input_digest="i",
            source=self.model.model_uri,
            run_id=self.model.run_id,
            model_id=self.model.model_id,
            tags=version_tags(decided, None),
            description="",
        )
        return ModelVersionRef(
            name=self.name,
            version=int(version.version),
            model_uri=self.model.model_uri,
            run_id=self.model.run_id,
            digest=self.model.digest,
            window=decided.window,
            train_window=self.model.train_window,
            ledger_entry=decided.ledger_entry,
            evidence_uri=decided.evidence_uri,
            verdict=decided.verdict,
            mode=decided.mode,
            key=key,
            input_digest="i",
        )

    def promote(self, version: ModelVersionRef, key: str = "promote", reason: str = "because") -> Promotion:
        """Promote as the task ``key``, without the step's run."""
        return promote(self.client, Wish(self.name, "champion", "airflow:dag/run/promote", reason, key), version)

    def serve(self, *versions: int) -> None:
        """Make several versions and promote each in turn, so that the ledger has as many entries."""
        for number in versions:
            version = self.register(f"register-{number}", entry=number - 1, window=month(min(number + 2, 12)))
            assert version.version == number
            promotion = self.promote(version, key=f"promote-{number}")
            assert promotion.outcome == "promoted", promotion.sentence

    def wish(self, reason: str = "a person says so", key: str = "") -> Wish:
        """Return a wish of a person."""
        return Wish(self.name, "champion", "ada", reason, key or f"cli/{uuid.uuid4().hex}")

    def alias(self) -> int | None:
        """Return the version that MLflow's alias names."""
        found = self.client.get_registered_model(self.name).aliases.get("champion")
        return None if found is None else int(found)


def make_bench(uri: str, folder: Path) -> tuple[Any, Callable[[str], Bench]]:
    """Log the tiny model to the server at ``uri``; return the open connection and a maker of benches."""
    access = Access(server=TrackingServer(tracking_uri=uri))
    digest = save_tiny_model(folder / "model")
    connection = connected(access.server)
    client = connection.__enter__()
    experiment = client.create_experiment(f"models-{uuid.uuid4().hex[:8]}")
    model = log_tiny_model(client, experiment, folder / "model", digest)

    def make(name: str) -> Bench:
        return Bench(access, client, experiment, folder, model, name)

    return connection, make


def entry_texts(client: MlflowClient, name: str) -> list[dict[str, Any]]:
    """Return what the ledger of ``name`` holds, read without any of the package's code."""
    versions = client.search_model_versions(f"name = '{name}.promotions'", order_by=["version_number ASC"])
    return [json.loads(version.tags["airflow_mlops.entry"]) for version in versions]
