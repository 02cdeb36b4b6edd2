"""A DAG by hand, whole: the snapshot of a window, and its drift from the profile of the model that serves."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from airflow_mlops import SnapshotDataOperator
from airflow_mlops.compat import DAG
from airflow_mlops.operators.drift import DetectDriftOperator
from tests.support.candidates import make_bench
from tests.support.drift import DATA, JULY, DriftWorld, columns


def test_snapshot_then_drift(run_dag: Callable[..., Any], mlflow_connection: str, tmp_path: Path) -> None:
    connection, make = make_bench(mlflow_connection, tmp_path)
    name = f"drift-{uuid.uuid4().hex[:8]}"
    try:
        world = DriftWorld.make(make(name), tmp_path)
        shifted = np.random.default_rng(3).normal(1.5, 1, 3000)
        folder = world.write(columns(3000, 2, distance=shifted))
        broken = world.write(columns(3000, 2, hour=None))
    finally:
        connection.__exit__(None, None, None)
    data = {"uri": str(folder), **DATA}
    model = world.served.model_dump(mode="json")
    with DAG(dag_id=f"{name}_by_hand", schedule=None) as dag:
        snapshot = SnapshotDataOperator(task_id="snapshot", data=data, window=JULY.model_dump(mode="json"))
        DetectDriftOperator(
            task_id="detect_drift", dataset=snapshot.output, model=model, data=data, drift={"report": False}
        )
        without = SnapshotDataOperator(
            task_id="broken", data={**data, "uri": str(broken)}, window=JULY.model_dump(mode="json")
        )
        DetectDriftOperator(
            task_id="guard",
            dataset=without.output,
            model=model,
            data=data,
            drift={"report": False},
            on_broken="fail",
        )

    ran = run_dag(dag)

    assert ran.tasks == {"snapshot": "success", "detect_drift": "success", "broken": "success", "guard": "failed"}
    report = ran.record("detect_drift")
    assert (report["verdict"], report["columns"][0]["column"]) == ("drift", "distance")
    assert report["dataset_digest"] == ran.record("snapshot")["digest"]
    reasons = ran.record("detect_drift", "reasons")
    assert reasons[0] == report["sentence"]
    assert reasons[1].startswith("distance by psi: ")
    assert ran.record("detect_drift", "report_link").endswith(f"{report['run_id']}/artifacts/drift.html")
    assert ran.record("guard")["verdict"] == "schema_broken"
