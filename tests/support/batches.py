"""Batches to score and versions that answer, for tests of scoring on a real MLflow server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ScoringPlan, ScoringReport, ServedModel
from airflow_mlops.core.record import Window
from airflow_mlops.core.records import DatasetVersion
from airflow_mlops.engines.models import save_model
from airflow_mlops.engines.signatures import input_schema
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform
from tests.support.candidates import log_tiny_model

if TYPE_CHECKING:
    import pandas as pd

WINDOW = Window.model_validate({"start": "2024-01-01", "end": "2024-02-01"})
NUMBERS, TEXTS = ("n0", "n1", "n2"), ("t0", "t1")
FEATURES = (*NUMBERS, *TEXTS)


def rows(count: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return rows of January and half of February 2024: id, time, three numbers (one with gaps), two texts."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(count),
            "at": pd.date_range("2024-01-01", periods=count, freq=pd.Timedelta(days=45) / count).astype(
                "datetime64[us]"
            ),
            "n0": rng.normal(size=count).round(3),
            "n1": rng.integers(0, 50, count),
            "n2": rng.normal(size=count),
            "t0": rng.choice(["AA", "B6", "UA"], count),
            "t1": rng.choice([f"N{number:03}" for number in range(40)], count),
        }
    )
    frame.loc[rng.random(count) < 0.1, "n2"] = float("nan")
    frame.loc[rng.random(count) < 0.05, "t1"] = None
    return frame


def january(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of :data:`WINDOW`."""
    return frame[frame["at"] < "2024-02-01"].reset_index(drop=True)


def truth(frame: pd.DataFrame, task: str) -> Any:
    """Return a target that the features tell something of."""
    score = frame["n0"] + frame["n1"] / 25 + (frame["t0"] == "AA")
    if task == "regression":
        return score
    if task == "binary":
        return (score > score.median()).astype(int)
    return score.rank(pct=True).map(lambda share: "early" if share < 0.3 else "late" if share > 0.7 else "on time")


def mixed_pipeline(
    task: str = "binary", *, unknown: str = "use_encoded_value", seed: int = 0, scale: bool = False
) -> Any:
    """Train what people train: text through an ``OrdinalEncoder``, numbers as they are, gradient boosting."""
    import pyarrow as pa
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    from airflow_mlops.engines.schemas import to_frame

    frame = rows(3000, seed=99)
    data = to_frame(pa.Table.from_pandas(frame[list(FEATURES)], preserve_index=False))
    settings = {"unknown_value": -1} if unknown == "use_encoded_value" else {}
    parts: list[Any] = [(OrdinalEncoder(handle_unknown=unknown, **settings), list(TEXTS))]
    if scale:
        parts.append((StandardScaler(), ["n0"]))
    boosting = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    model = make_pipeline(make_column_transformer(*parts, remainder="passthrough"), boosting(max_iter=10 + seed))
    return model.fit(data, truth(frame, task))


@dataclass
class Batches:
    """One registered model's world: its experiment, its folder, and an own run for every task that is not named."""

    access: Access
    client: Any
    folder: Path
    name: str = field(default_factory=lambda: f"batches-{uuid.uuid4().hex[:8]}")
    count: int = 0

    def log(
        self, model: Any, version: int = 1, *, task: str = "binary", flavor: str = "sklearn", **other: Any
    ) -> ServedModel:
        """Save and log a model as the train step would; it counts as version ``version``."""
        import pyarrow as pa

        from airflow_mlops.engines.schemas import to_frame

        self.count += 1
        frame = other.pop("sample", None)
        if frame is None:
            frame = to_frame(pa.Table.from_pandas(rows(50, seed=5)[list(FEATURES)], preserve_index=False))
        saved = save_model(
            model,
            self.folder / f"model-{self.name}-{self.count}",
            flavor=flavor,
            serialization=other.pop("serialization", "cloudpickle"),
            inputs=input_schema(frame),
            sample=frame,
            example=frame.head(3),
            classifier=task != "regression",
            requirements=["scikit-learn"],
        )
        logged = log_tiny_model(self.client, self.experiment, saved.folder, saved.digest)
        fields = {
            "name": self.name,
            "alias": "champion",
            "version": version,
            "entry": version,
            "model_uri": logged.model_uri,
            "artifact_uri": logged.artifact_uri,
            "digest": saved.digest,
            "flavor": flavor,
            "features": tuple(frame.columns),
            "run_id": logged.run_id,
        }
        return ServedModel(**{**fields, **other})

    @property
    def experiment(self) -> str:
        """The experiment's id."""
        found = self.client.get_experiment_by_name(self.name)
        return str(found.experiment_id if found else self.client.create_experiment(self.name))

    def write(self, frame: pd.DataFrame, name: str = "", *, form: str = "parquet") -> dict[str, Any]:
        """Write rows below a folder of their own and return the specification that reads them."""
        self.count += 1
        folder = self.folder / f"lake-{self.name}-{name or self.count}"
        folder.mkdir(parents=True, exist_ok=True)
        if form == "csv":
            frame.to_csv(folder / "rows.csv", index=False)
        else:
            frame.to_parquet(folder / "rows.parquet", index=False, row_group_size=300)
        return {"uri": str(folder), "format": form, "event_time": "at", "id_columns": ["id"]}

    def step(self, step: str, payload: dict[str, Any], key: str | None = None, *, force: bool = False) -> Any:
        """Perform a step as a task of its own, or as the task ``key``."""
        self.count += 1
        run = RunInfo(key=f"dag/{self.name}", name=self.name, experiment=self.name)
        request = StepRequest(
            step=step, key=f"dag/{self.name}/{key or f'{step}-{self.count}'}/-1", run=run, payload=payload, force=force
        )
        return perform(request, self.access)

    def snapshot(self, data: dict[str, Any], window: Window | None = WINDOW) -> DatasetVersion:
        """Take a dataset version."""
        snapped = {name: value for name, value in data.items() if window is not None or name != "event_time"}
        found: DatasetVersion = self.step(
            "snapshot", {"data": snapped, "window": window.model_dump(mode="json") if window else None}
        )
        return found

    def payload(
        self,
        model: ServedModel,
        dataset: DatasetVersion,
        data: dict[str, Any],
        *,
        other: ServedModel | None = None,
        task: str = "binary",
        **scoring: Any,
    ) -> dict[str, Any]:
        """Return what the score step is given."""
        plan = ScoringPlan(
            windows=(WINDOW,), model=model, other=other, reason="a test", experiment_id="1", parent_run_id="p"
        )
        return {
            "dataset": dataset.to_xcom(),
            "plan": plan.to_xcom(),
            "scoring": {"output_uri": str(self.folder / f"out-{self.name}"), **scoring},
            "data": data,
            "task": task,
        }

    def score(self, model: ServedModel, frame: pd.DataFrame, key: str | None = None, **other: Any) -> ScoringReport:
        """Write rows, take their snapshot, score them."""
        data = self.write(frame, form=other.pop("form", "parquet"))
        window = other.pop("window", WINDOW)
        dataset = self.snapshot(data, window)
        if window is None:
            data = {**data, "event_time": None}
        other.setdefault("output_uri", str(self.folder / f"out-{self.name}-{self.count}"))
        report: ScoringReport = self.step("score", self.payload(model, dataset, data, **other), key)
        return report


def read(report: ScoringReport) -> pd.DataFrame:
    """Return what was published."""
    return read_file(report.output_uri)


def read_file(path: str | Path | None) -> pd.DataFrame:
    """Return the rows of one Parquet file, without the column that its folder's name would add."""
    from pyarrow import parquet

    assert path is not None
    frame: pd.DataFrame = parquet.read_table(str(path), partitioning=None).to_pandas()
    return frame
