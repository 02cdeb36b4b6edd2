"""A served model with a reference profile, and windows that drifted from it in known ways, on a real server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.monitoring_records import DriftReport, ScoringReport, ServedModel
from airflow_mlops.core.records import DatasetVersion, Window
from airflow_mlops.engines.profile import build_profile
from tests.support.candidates import Bench, month
from tests.support.data_steps import write_parquet

FEATURES = ("distance", "hour", "carrier")
#: What every window's files have: an id, the time, the features, and a column that no model uses.
DATA = {"event_time": "at", "id_columns": ["flight"]}
JULY = month(7)


def columns(rows: int, seed: int = 0, *, window: Window = JULY, **other: Any) -> dict[str, Any]:
    """Return rows of a window that have not drifted; ``other`` replaces columns, None drops one."""
    import numpy as np

    rng = np.random.default_rng(seed)
    start = np.datetime64(window.start.replace(tzinfo=None), "s")
    seconds = int((window.end - window.start).total_seconds())
    found: dict[str, Any] = {
        "at": start + np.sort(rng.integers(0, seconds, rows)).astype("timedelta64[s]"),
        "flight": [f"f{number}" for number in range(rows)],
        "distance": rng.normal(size=rows),
        "hour": rng.integers(0, 24, rows),
        "carrier": rng.choice(["AA", "B6", "UA"], rows, p=[0.5, 0.3, 0.2]),
        "note": rng.choice(["x", "y"], rows),
    }
    return {name: value for name, value in (found | other).items() if value is not None}


@dataclass
class DriftWorld:
    """A bench whose version has a reference profile, a list of its training files, and predictions of its evaluation.

    :param served: version 1.
    """

    bench: Bench
    folder: Path
    served: ServedModel
    count: int = 0
    storage: Any = field(default=lambda conn_id: None)

    @classmethod
    def make(cls, bench: Bench, folder: Path, *, features: tuple[str, ...] = FEATURES, **reference: Any) -> DriftWorld:
        """Log the reference of 4,000 rows, or of the columns given, with the bench's model, and register it."""
        import numpy as np
        import pyarrow

        from airflow_mlops.engines.prediction_profile import PREDICTION_PROFILE_FILE, prediction_profile
        from airflow_mlops.engines.predictions import Outputs, Truth

        # A run of its own: the benches share one model.
        run_id = bench.client.create_run(bench.experiment).info.run_id
        own = {"run_id": run_id, "profile_uri": f"runs:/{run_id}/profile.json"}
        model = bench.model.model_copy(update={**own, "manifest_uri": f"runs:/{run_id}/manifest.json"})
        bench = replace(bench, model=model)
        rows = reference or columns(4000, 1, window=month(1, 2))
        path = write_parquet(folder / "reference" / "rows.parquet", rows)
        world = cls(bench, folder, ServedModel(name=bench.name, version=1, model_uri="", artifact_uri=""))
        dataset = world.snapshot(path.parent, None)
        profile = build_profile(pyarrow.table({name: rows[name] for name in features}))
        world.log(run_id, "profile.json", profile)
        stored = world.read(dataset.manifest_uri)
        world.log(run_id, "manifest.json", stored)
        probabilities = np.random.default_rng(5).beta(2, 2, 3000)
        truth = Truth("binary", np.zeros(3000), classes=(0, 1))
        world.log(
            run_id,
            PREDICTION_PROFILE_FILE,
            prediction_profile(Outputs(own=probabilities, probabilities=probabilities), truth),
        )
        version = bench.register("register")
        world.served = ServedModel(
            name=bench.name,
            alias="champion",
            version=version.version,
            entry=1,
            model_uri=bench.model.model_uri,
            artifact_uri=bench.model.artifact_uri,
            digest=bench.model.digest,
            features=features if len(features) < 100 else None,
            train_window=month(1, 2),
            run_id=run_id,
            profile_uri=f"runs:/{run_id}/profile.json",
            evidence_uri=f"runs:/{run_id}/evidence.json",
        )
        return world

    def log(self, run_id: str, name: str, value: Any) -> None:
        """Store a JSON artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(json.dumps(value))
            self.bench.client.log_artifact(run_id, str(path))

    def read(self, uri: str) -> Any:
        """Fetch a JSON artifact."""
        return json.loads(self.text(uri))

    def text(self, uri: str) -> str:
        """Fetch a text artifact."""
        run_id, _, name = uri.removeprefix("runs:/").partition("/")
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.bench.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")

    def files(self, run_id: str) -> set[str]:
        """Return the artifacts of a run."""
        return {item.path for item in self.bench.client.list_artifacts(run_id)}

    def write(self, rows: Mapping[str, Any], name: str = "") -> Path:
        """Write a window's rows; returns the folder."""
        self.count += 1
        folder = self.folder / (name or f"window-{self.count}")
        write_parquet(folder / "rows.parquet", rows)
        return folder

    def snapshot(self, uri: Any, window: Window | None = JULY, **data: Any) -> DatasetVersion:
        """Take a snapshot."""
        self.count += 1
        payload = {
            "data": {"uri": str(uri), **DATA, **data},
            "window": window.model_dump(mode="json") if window else None,
        }
        found: DatasetVersion = self.bench.step(
            "snapshot", payload, key=f"dag/{self.bench.name}/snapshot-{self.count}/-1"
        )
        return found

    def detect(self, dataset: DatasetVersion, key: str = "", *, force: bool = False, **payload: Any) -> DriftReport:
        """Run the drift step as a task of its own, or as the task ``key``; without Evidently unless asked."""
        self.count += 1
        drift = {"report": False, **payload.pop("drift", {})}
        request = {
            "dataset": dataset.to_xcom(),
            "data": {"uri": dataset.uri, **DATA},
            "model": self.served.model_dump(mode="json"),
            "exclude": ["late"],
            "drift": drift,
            **payload,
        }
        key = f"dag/{self.bench.name}/{key or f'drift-{self.count}'}/-1"
        report: DriftReport = self.bench.step("drift", request, key=key, force=force)
        assert len(json.dumps(report.to_xcom())) <= 16_000
        return report

    def score(self, dataset: DatasetVersion, probabilities: Any, **other: Any) -> tuple[str, Path]:
        """Publish predictions as the score step does; returns its run and the file."""
        import numpy as np

        self.count += 1
        path = self.folder / f"predictions-{self.count}.parquet"
        values = {
            "prediction": np.asarray(probabilities) > 0.5,
            "probability": probabilities,
            **other.pop("columns", {}),
        }
        write_parquet(path, values)
        run = self.bench.client.create_run(self.bench.experiment)
        content = path.read_bytes()
        report = ScoringReport(
            sentence="Scored.",
            window=dataset.window,
            model=self.served,
            dataset_digest=dataset.digest,
            task="binary",
            output_uri=str(path),
            output_digest=sha256(content),
            byte_count=len(content),
            row_count=len(probabilities),
            scored_count=len(probabilities),
            key="score",
            input_digest=digest_of("score"),
            run_id=run.info.run_id,
            **other,
        )
        self.log(run.info.run_id, "record.json", report.to_xcom())
        self.bench.client.set_terminated(run.info.run_id, "FINISHED")
        return run.info.run_id, path


def sha256(content: bytes) -> str:
    """Return the digest of bytes."""
    import hashlib

    return hashlib.sha256(content).hexdigest()
