"""Small lakes and the data steps on them, as an operator would run them but without Airflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mlops.core.records import DatasetVersion, ValidationReport, Window
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, Work, perform


def window(start: str, end: str) -> Window:
    """Return a window from two ISO dates."""
    return Window(start=datetime.fromisoformat(start), end=datetime.fromisoformat(end))


def day(number: int, month: int = 1) -> datetime:
    """Return midnight UTC of a day of 2013."""
    return datetime(2013, month, number, tzinfo=UTC)


def write_parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """Write columns as one Parquet file, making its folder."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(dict(columns)), path, **options)
    return path


def parquet_bytes(columns: Mapping[str, Any]) -> bytes:
    """Return columns as the bytes of a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(dict(columns)), sink)
    return bytes(sink.getvalue())


class DataSteps:
    """The snapshot and validate steps of one run against a real MLflow server."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        storage: Callable[[str | None], StorageAccess | None] = lambda conn_id: None,
        run: str = "run-1",
    ) -> None:
        self.access = Access(server=TrackingServer(tracking_uri=uri), storage=storage)
        self.experiment = experiment
        self.info = RunInfo(key=f"{experiment}/{run}", name=run, experiment=experiment)

    def request(self, step: str, payload: Mapping[str, Any], task: str = "") -> StepRequest:
        """Return the request of one task."""
        return StepRequest(step=step, key=f"{self.info.key}/{task or step}/-1", run=self.info, payload=dict(payload))

    def snapshot(self, data: Mapping[str, Any], part: Window | None = None, task: str = "") -> DatasetVersion:
        """Run the snapshot task."""
        payload = {"data": dict(data), "window": part.model_dump(mode="json") if part else None}
        record = perform(self.request("snapshot", payload, task), self.access)
        assert isinstance(record, DatasetVersion)
        return DatasetVersion.from_xcom(record.to_xcom())

    def validate(
        self, dataset: DatasetVersion, contract: Any, data: Mapping[str, Any] | None = None, task: str = ""
    ) -> ValidationReport:
        """Run the validate task."""
        payload = {"dataset": dataset.to_xcom(), "contract": contract, "data": dict(data) if data else None}
        record = perform(self.request("validate", payload, task), self.access)
        assert isinstance(record, ValidationReport)
        return ValidationReport.from_xcom(record.to_xcom())

    @contextmanager
    def work(self) -> Iterator[Work]:
        """Yield what a later step would read datasets with."""
        with connected(self.access.server, self.access.login) as client, tempfile.TemporaryDirectory() as folder:
            yield Work(
                request=self.request("train", {}),
                access=self.access,
                client=client,
                experiment_id="0",
                parent_run_id="",
                run_id="",
                input_digest="",
                folder=Path(folder),
            )
