"""The gate's bootstrap and the train step's traffic, beside scikit-learn and MLflow called one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchmarks.entries import entry


def measure() -> list[dict[str, Any]]:
    """Return the entries of both."""
    return [bootstrap_auc(), training_requests()]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds and the result."""
    begin = process_time()
    result = work()
    return process_time() - begin, result


def bootstrap_auc(rows: int = 28_000, draws: int = 300) -> dict[str, Any]:
    """Resample the AUC of one model: our sampler against scikit-learn once a draw, on the same draws."""
    from sklearn.metrics import roc_auc_score

    from airflow_mlops.engines.bootstrap import group_generator, resampled
    from airflow_mlops.engines.samplers import auc_sampler

    generator = np.random.default_rng(0)
    truth = generator.random(rows) < 0.25
    scores = np.round(generator.normal(size=rows) + truth, 3)

    def ours() -> np.ndarray:
        sample = auc_sampler(truth, scores)
        return np.concatenate([sample(weights) for weights in resampled(rows, draws, group_generator(7, "all"))])

    def peer() -> np.ndarray:
        return np.array(
            [
                roc_auc_score(truth, scores, sample_weight=weights)
                for chunk in resampled(rows, draws, group_generator(7, "all"))
                for weights in chunk
            ]
        )

    fast, ours_values = timed(ours)
    slow, peer_values = timed(peer)
    np.testing.assert_allclose(ours_values, peer_values, atol=1e-9)
    return entry(f"gate-bootstrap-auc-{rows}x{draws}", fast, slow, 0.5, "CPU seconds")


@contextmanager
def counted() -> Iterator[list[str]]:
    """Count this process's HTTP requests."""
    import requests

    seen: list[str] = []
    send = requests.Session.send

    def counting(self: requests.Session, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        seen.append(f"{request.method} {request.url}")
        return send(self, request, **settings)

    requests.Session.send = counting  # type: ignore[method-assign]  # put back below
    try:
        yield seen
    finally:
        requests.Session.send = send  # type: ignore[method-assign]  # as it was


def training_requests(metrics: int = 50, parameters: int = 20) -> dict[str, Any]:
    """Log one training with its metrics and parameters: the train step against MLflow's calls one by one."""
    import mlflow
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    from airflow_mlops import Access, TrackingServer
    from airflow_mlops.steps.base import RunInfo, StepRequest, perform
    from tests.support.mlflow_server import mlflow_server

    with tempfile.TemporaryDirectory() as name, mlflow_server(Path(name) / "mlflow") as server:
        folder = Path(name)
        generator = np.random.default_rng(0)
        frame = pd.DataFrame(generator.normal(size=(500, 3)), columns=["a", "b", "c"])
        frame["y"] = (frame["a"] + generator.normal(size=500) > 0).astype(int)
        frame.to_parquet(folder / "rows.parquet")
        (folder / "team.py").write_text(
            "from airflow_mlops import TrainingResult\n"
            "def train(data, target, *, weights, parameters, seed):\n"
            "    from sklearn.linear_model import LogisticRegression\n"
            "    metrics = {f'm{i}': float(i) for i in range(parameters['metrics'])}\n"
            "    return TrainingResult(model=LogisticRegression().fit(data, target), metrics=metrics)\n"
        )
        access = Access(server=TrackingServer(tracking_uri=server.uri))
        run = RunInfo(key="bench", name="bench", experiment="bench")
        data = {"uri": str(folder / "rows.parquet")}
        snapshot = perform(StepRequest(step="snapshot", key="bench/s", run=run, payload={"data": data}), access)
        train = {
            "function": "team:train",
            "serialization": "cloudpickle",
            "target": "y",
            "window": {"length": "1 month"},
            "parameters": {"metrics": metrics, **{f"p{i}": i for i in range(parameters)}},
        }
        payload = {
            "dataset": snapshot.to_xcom(),
            "train": train,
            "code_path": str(folder),
            "data": data,
            "task": "binary",
            "model_name": "bench",
        }
        with counted() as ours:
            record = perform(StepRequest(step="train", key="bench/t", run=run, payload=payload), access)
        mlflow.set_tracking_uri(server.uri)
        mlflow.set_experiment("naive")
        with counted() as naive, mlflow.start_run():
            for number in range(parameters):
                mlflow.log_param(f"p{number}", number)
            for number in range(metrics):
                mlflow.log_metric(f"m{number}", float(number))
            model = LogisticRegression().fit(frame[["a", "b", "c"]], frame["y"])
            mlflow.sklearn.log_model(model, name="model", serialization_format="cloudpickle", pip_requirements=[])
        assert record.to_xcom()["metric_count"] == metrics
        return entry(f"training-requests-{metrics}-metrics", len(ours), len(naive), 0.5, "HTTP requests")
