"""A month of made-up flights and models whose quality is known by construction, for evaluations on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mlops.core.records import (
    DatasetVersion,
    EvaluationReport,
    GateDecision,
    ModelVersionRef,
    Promotion,
    TrainedModel,
    Window,
)
from airflow_mlops.engines.models import model_digest
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform
from tests.support.candidates import log_tiny_model, month

FEATURES = ("distance", "hour")
GATE = {
    "rules": [
        {"rule": "at_least", "metric": "roc_auc", "value": 0.6},
        {"rule": "better_than_champion", "metric": "roc_auc"},
        {
            "rule": "slices_no_worse",
            "metric": "roc_auc",
            "slice": "carrier",
            "margin": 0.01,
            "evidence": "harm",
            "min_rows": 500,
        },
    ]
}


def write_flights(folder: Path, *months: int, rows: int = 4000) -> None:
    """Write one Parquet file a month. Lateness grows with hour, and with distance except for carrier B6."""
    import numpy as np
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    for number in months:
        rng = np.random.default_rng(number)
        window = month(number)
        seconds = int((window.end - window.start).total_seconds())
        carrier = rng.choice(["AA", "B6", "UA", "HA"], rows, p=[0.4, 0.2, 0.39, 0.01])
        distance, hour = rng.normal(size=rows), rng.normal(size=rows)
        score = hour + np.where(carrier == "B6", -1.0, 1.0) * distance
        frame = pd.DataFrame(
            {
                "event_time": pd.Timestamp(window.start).tz_localize(None)
                + pd.to_timedelta(np.sort(rng.integers(0, seconds, rows)), unit="s"),
                "carrier": carrier,
                "distance": distance,
                "hour": hour,
                "late": (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int),
            }
        )
        frame.to_parquet(folder / f"{number:02}.parquet", index=False)


def linear(distance: float, hour: float) -> Any:
    """Return a logistic regression with these weights: ``linear(0, 1)`` knows the hour, ``linear(1, 1)`` both."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame({"distance": [0.0, 1.0, 2.0, 3.0], "hour": [0.0, 3.0, 1.0, 2.0]})
    model = LogisticRegression().fit(rows, [0, 1, 0, 1])
    model.coef_, model.intercept_ = np.array([[distance, hour]]), np.array([0.0])
    return model


@dataclass
class Flights:
    """One registered model's world: its own experiment, data and runs, on a shared server."""

    access: Access
    client: Any
    folder: Path
    name: str = field(default_factory=lambda: f"flights-{uuid.uuid4().hex[:8]}")
    count: int = 0

    def step(self, step: str, payload: dict[str, Any], key: str | None = None, *, force: bool = False) -> Any:
        """Perform a step as a task of its own, or as the task ``key``."""
        self.count += 1
        key = f"dag/{self.name}/{key or f'{step}-{self.count}'}/-1"
        run = RunInfo(key=f"dag/{self.name}", name=self.name, experiment=self.name)
        return perform(StepRequest(step=step, key=key, run=run, payload=payload, force=force), self.access)

    def data(self, window: Window, folder: Path) -> DatasetVersion:
        """Take a snapshot of one window."""
        data = {"uri": str(folder), "event_time": "event_time"}
        return self.step("snapshot", {"data": data, "window": window.model_dump(mode="json")})

    def log(self, model: Any, *, trained_on: Window | None = None, **other: Any) -> TrainedModel:
        """Save and log a model as the train step would."""
        import mlflow.sklearn
        import pandas as pd
        from mlflow.models import infer_signature

        self.count += 1
        folder = self.folder / f"{self.name}-model-{self.count}"
        rows = pd.DataFrame({name: [1.0, 2.0] for name in other.get("features", FEATURES)})
        mlflow.sklearn.save_model(
            model,
            str(folder),
            serialization_format="cloudpickle",
            signature=infer_signature(rows, [0.0, 1.0]),
            pip_requirements=["scikit-learn"],
        )
        experiment = self.client.get_experiment_by_name(self.name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(self.name)
        record = log_tiny_model(self.client, experiment_id, folder, model_digest(folder))
        features = other.get("features", FEATURES)
        return record.model_copy(
            update={"train_window": trained_on or month(1, 2), "feature_count": len(features), **other}
        )

    def evaluate(self, model: TrainedModel, dataset: DatasetVersion, key: str | None = None, **other: Any) -> Any:
        """Evaluate, by carrier, AUC and log loss; ``other`` changes the specification or the payload."""
        payload = {name: other.pop(name) for name in ("seed", "code_path", "alias") if name in other}
        force = bool(other.pop("force", False))
        spec = {
            "task": "binary",
            "metrics": ["roc_auc", "log_loss"],
            "slices": ["carrier"],
            "bootstrap_draws": 400,
            **other,
        }
        report: EvaluationReport = self.step(
            "evaluate",
            {
                "model": model.to_xcom(),
                "dataset": dataset.to_xcom(),
                "evaluation": spec,
                "registered_model": self.name,
                **payload,
            },
            key,
            force=force,
        )
        return report

    def gate(self, report: EvaluationReport, key: str | None = None, **gate: Any) -> GateDecision:
        """Judge a report by :data:`GATE` or by ``gate``."""
        return self.step("gate", {"report": report.to_xcom(), "gate": {**GATE, **gate}}, key)

    def serve(self, model: TrainedModel, window: Window, **decision: Any) -> ModelVersionRef:
        """Make ``model`` champion through the register and promote steps."""
        from tests.support.candidates import decide

        entry = decision.pop("entry", 0)
        verdict = decide(model, window=window, entry=entry, **decision)
        version: ModelVersionRef = self.step("register", {"decision": verdict.to_xcom(), "registered_model": self.name})
        promotion: Promotion = self.step(
            "promote", {"version": version.to_xcom(), "author": "the tests", "reason": "to be compared with"}
        )
        assert promotion.outcome == "promoted", promotion.sentence
        return version

    def files(self, run_id: str) -> set[str]:
        """Return the artifacts of a run."""
        return {item.path for item in self.client.list_artifacts(run_id)}

    def tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of a run."""
        return dict(self.client.get_run(run_id).data.tags)


Worlds = Callable[[], Flights]
