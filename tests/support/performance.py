"""Published batches of predictions, their labels, and the evaluation of both, without scoring anything."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mlops.core.evidence import Evidence, Measurement
from airflow_mlops.core.monitoring_records import MonitoredWindow, PerformanceReport, ScoringReport, ServedModel
from airflow_mlops.core.record import Window
from airflow_mlops.engines import runs
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform, window_tags
from tests.support.candidates import month

PUBLISHED = datetime(2013, 4, 1, 6, tzinfo=UTC)
#: Before and after the deadline of 30 days.
EARLY, LATE = "2013-04-10T00:00:00Z", "2013-05-02T00:00:00Z"


def at(hours: float) -> datetime:
    """Return an event time of March 2013, naive as files hold it."""
    return datetime.fromtimestamp(datetime(2013, 3, 1, tzinfo=UTC).timestamp() + hours * 3600, UTC).replace(tzinfo=None)


def write(path: Path, columns: Mapping[str, Any]) -> Path:
    """Write columns as one Parquet file, whole."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    parquet.write_table(pyarrow.table(dict(columns)), scratch)
    scratch.replace(path)
    return path


def served(name: str = "flights", version: int = 3, **other: Any) -> ServedModel:
    """Return a version that serves."""
    return ServedModel(
        **{"name": name, "version": version, "model_uri": f"models:/{name}/{version}", "artifact_uri": "a", **other}
    )


def batch(path: Path, *, task: str = "binary", window: Window | None = None, **other: Any) -> ScoringReport:
    """Return the report of a batch that lies at ``path``."""
    from pyarrow import parquet

    data, described = path.read_bytes(), parquet.read_schema(path)
    count = parquet.read_metadata(path).num_rows
    fields: dict[str, Any] = {
        "sentence": "Scored.",
        "window": window or month(3),
        "model": served(),
        "dataset_digest": "d" * 64,
        "task": task,
        "output_uri": str(path),
        "output_digest": hashlib.sha256(data).hexdigest(),
        "byte_count": len(data),
        "row_count": count,
        "scored_count": count,
        "id_columns": ("id",),
        "event_time": "event_time",
        "columns": tuple(described.names),
        "published_at": PUBLISHED.isoformat(),
        "key": "score/run/score/-1",
        "input_digest": "i",
        "run_id": "run-of-the-batch",
    }
    return ScoringReport(**{**fields, **other})


@dataclass
class Watched:
    """One scored batch on a server, with a folder of labels beside it."""

    access: Access
    client: Any
    folder: Path
    name: str = field(default_factory=lambda: f"watched-{uuid.uuid4().hex[:8]}")
    count: int = 0
    report: Any = None

    @property
    def experiment(self) -> str:
        """Return the experiment's id, made when it is first asked for."""
        return runs.experiment_id(self.client, self.name)

    def promise(self, task: str, metrics: Mapping[str, float | None], **slices: Mapping[str, float]) -> str:
        """Log evidence of an evaluation; ``slices`` is ``carrier={"AA": 0.7}`` of the first metric."""
        first = next(iter(metrics))
        found = [Measurement(metric=name, rows=100, candidate=value) for name, value in metrics.items()]
        for column, values in slices.items():
            found += [
                Measurement(metric=first, slice=column, value=value, rows=10, candidate=figure)
                for value, figure in values.items()
            ]
        evidence = Evidence(
            task=task,  # type: ignore[arg-type]
            registered_model=self.name,
            model_uri="models:/m-1",
            model_digest="m" * 64,
            champion=None,
            dataset_digest="d" * 64,
            window=month(2),
            rows=100,
            metrics=dict.fromkeys(metrics, True),
            measurements=tuple(found),
            draws=0,
        )
        return self._artifact(evidence.model_dump(mode="json"), "evidence.json")

    def publish(self, columns: Mapping[str, Any], *, task: str = "binary", **other: Any) -> MonitoredWindow:
        """Write the predictions, and the scoring step's run as it leaves it."""
        self.count += 1
        path = write(self.folder / self.name / "predictions" / f"batch-{self.count}" / "predictions.parquet", columns)
        report = batch(path, task=task, **{"model": served(self.name), **other})
        tags = {runs.STEP: "score", "airflow_mlops.registered_model": self.name, **window_tags(report.window)}
        run = self.client.create_run(self.experiment, run_name="score", tags=tags)
        self.report = report.model_copy(update={"run_id": run.info.run_id})
        self._log(run.info.run_id, self.report.to_xcom(), runs.RECORD_FILE)
        self.client.set_terminated(run.info.run_id, "FINISHED")
        return MonitoredWindow(window=self.report.window, model=self.report.model, scoring_run_id=run.info.run_id)

    @property
    def lake(self) -> Path:
        """Return the folder that labels arrive in."""
        return self.folder / self.name / "labels"

    def deliver(self, name: str, ids: Sequence[Any], labels: Sequence[Any], **other: Any) -> Path:
        """Write one file of labels; event times follow from whole ids unless given."""
        times = other.pop("event_time", None) or [at(one) for one in ids]
        return write(self.lake / f"{name}.parquet", {"id": ids, "event_time": times, "late": labels, **other})

    def labels(self, **other: Any) -> dict[str, Any]:
        """Return the keys of LabelSpec."""
        data = {"uri": str(self.lake), "event_time": "event_time", **other.pop("data", {})}
        return {"data": data, "label": "late", "poll_seconds": 0.05, **other}

    def request(self, monitored: MonitoredWindow, by: str = "evaluate", **other: Any) -> StepRequest:
        """Return the request of the task ``by``; ``other`` changes labels, evaluation or payload."""
        payload = {name: other.pop(name) for name in ("seed", "code_path", "label", "entity") if name in other}
        labels = other.pop("labels", None) or self.labels()
        as_of = other.pop("as_of", EARLY)
        force = bool(other.pop("force", False))
        evaluation = {"task": "binary", "metrics": ["roc_auc", "accuracy"], "bootstrap_draws": 100, **other}
        return StepRequest(
            step="performance",
            key=f"monitor/{by}/evaluate/-1",
            run=RunInfo(key=f"monitor/{by}", name=by, experiment=self.name),
            payload={
                "monitored": monitored.model_dump(mode="json"),
                "labels": labels,
                "evaluation": evaluation,
                "as_of": as_of,
                **payload,
            },
            force=force,
        )

    def evaluate(self, monitored: MonitoredWindow, by: str = "evaluate", **other: Any) -> PerformanceReport:
        """Evaluate as the task ``by``; the record has been through XCom."""
        record = perform(self.request(monitored, by, **other), self.access)
        return PerformanceReport.from_xcom(json.loads(json.dumps(record.to_xcom())))

    def result(self, report: PerformanceReport) -> Any:
        """Return what ``performance.json`` holds."""
        with tempfile.TemporaryDirectory() as folder:
            run_id, _, name = report.evidence_uri.removeprefix("runs:/").partition("/")
            return json.loads(Path(self.client.download_artifacts(run_id, name, folder)).read_text())

    def page(self, report: PerformanceReport) -> str:
        """Return the page."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(report.run_id, "performance.html", folder)).read_text()

    def tags(self, run_id: str) -> dict[str, str]:
        """Return a run's tags."""
        return dict(self.client.get_run(run_id).data.tags)

    def _artifact(self, value: Any, name: str) -> str:
        run = self.client.create_run(self.experiment)
        self._log(run.info.run_id, value, name)
        self.client.set_terminated(run.info.run_id, "FINISHED")
        return f"runs:/{run.info.run_id}/{name}"

    def _log(self, run_id: str, value: Any, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(json.dumps(value))
            self.client.log_artifact(run_id, str(path))
