"""Batch scoring beside what people would do without us: whole processes, imports included, on the same files.

The model is a scikit-learn pipeline, ``OrdinalEncoder`` on 6 text columns and gradient boosting of 100 trees, on 14
numbers more; the rows carry an id and a time. Three ways score them and write id, time, label and probability:

* ours: the ``score`` step against a real MLflow server, everything it does included (digests of the batch and of the
  model, its run, publishing);
* whole-frame pyfunc: ``pandas.read_parquet``, ``mlflow.pyfunc`` on all rows, ``to_parquet``;
* ready matrices: the boosted trees alone on matrices that were made beforehand, beside a scan of the same file and the
  same writing: the least that any of them must do.

The sum of the probabilities must be the same before a time counts. Peak memory is the process's largest resident set.
The largest batch takes about four minutes of CPU in all, and 11 GB for pyfunc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 10_000_000
SMALL = 1_000_000
NUMBERS, WORDS = 14, (8, 20, 50, 100, 300, 12)
CHUNK = 100_000
FEATURES = [*(f"n{n}" for n in range(NUMBERS)), *(f"t{n}" for n in range(len(WORDS)))]


def measure(rows: int = ROWS, small: int = SMALL) -> list[dict[str, Any]]:
    """Run every way on ``rows`` and ours on ``small`` too; return the entries of ``results.json``.

    :raises RuntimeError: a way failed, or its scores are not those of the others.
    """
    from tests.support.mlflow_server import mlflow_server

    with tempfile.TemporaryDirectory() as name, mlflow_server(Path(name) / "mlflow") as server:
        folder = Path(name)
        _alone("prepare", folder, str(rows), str(small))
        _alone("snapshots", folder, server.uri)
        _alone("ours", folder, "small", server.uri, "warm-up")  # bytecode and the server's own caches
        small_run = _alone("ours", folder, "small", server.uri, "timed")
        ours = _alone("ours", folder, "large", server.uri, "timed")
        ready = _alone("ready", folder)
        pyfunc = _alone("pyfunc", folder)
    for other in (ready, pyfunc):
        if not np.isclose(other["sum"], ours["sum"], rtol=1e-12, atol=0) or other["rows"] != ours["rows"]:
            raise RuntimeError(f"the scores differ: {ours} against {other}")
    label = f"{rows // 1_000_000}m" if rows >= 1_000_000 else str(rows)
    return [
        _entry(f"scoring_{label}_cpu_vs_whole_frame_pyfunc", ours["cpu"], pyfunc["cpu"], 0.6, "CPU seconds"),
        _entry(f"scoring_{label}_cpu_vs_ready_matrices", ours["cpu"], ready["cpu"], 1.3, "CPU seconds"),
        _entry(f"scoring_{label}_peak_memory_vs_limit", ours["peak"], 1000, 1.0, "MB"),
        _entry(f"scoring_{label}_peak_memory_vs_small_batch", ours["peak"], small_run["peak"], 1.2, "MB"),
    ]


def _entry(name: str, ours: float, peer: float, bound: float, unit: str) -> dict[str, Any]:
    rounded = {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 4)}
    return {"name": name, **rounded, "bound": bound, "unit": unit}


def _alone(part: str, *arguments: Any) -> dict[str, Any]:
    """Run one part in a process of its own; return what it printed last, with its CPU seconds and peak memory in MB."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "benchmarks.scoring", part, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode().strip().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"the part {part} of the benchmark ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said[-1]) if said else {}
    # Linux counts in kilobytes.
    return found | {"cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1000}


# --- Data and model -----------------------------------------------------------------------------------------------


def _blocks(rows: int) -> Iterator[Any]:
    """Yield the rows, a million at a time: integers, floats, some with gaps, and words."""
    import pyarrow as pa

    for number, start in enumerate(range(0, rows, 1_000_000)):
        count, rng = min(1_000_000, rows - start), np.random.default_rng(number)
        columns: dict[str, Any] = {
            "id": np.arange(start, start + count),
            "at": pa.array(
                1_704_067_200_000_000 + 100_000 * np.arange(start, start + count), pa.timestamp("us", "UTC")
            ),
        }
        for n in range(NUMBERS):
            values = rng.normal(size=count).round(4) if n % 3 else rng.integers(0, 1000, count)
            columns[f"n{n}"] = pa.array(values, mask=None if n % 5 else rng.random(count) < 0.03)
        for n, size in enumerate(WORDS):
            words = pa.array([f"value-{word}" for word in range(size)])
            codes = pa.array(rng.integers(0, size, count).astype(np.int32))
            columns[f"t{n}"] = pa.DictionaryArray.from_arrays(codes, words).cast(pa.string())
        yield pa.table(columns)


def prepare(folder: Path, rows: int, small: int) -> None:
    """Write both batches, train and save the model, and make the matrices of the large batch."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from pyarrow import parquet
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    from airflow_mlops.engines.schemas import to_frame

    for name, count in (("large", rows), ("small", small)):
        writer = None
        for block in _blocks(count):
            writer = writer or parquet.ParquetWriter(folder / f"{name}.parquet", block.schema)
            writer.write_table(block)
        assert writer is not None
        writer.close()
    frame = to_frame(next(_blocks(100_000)).select(FEATURES))
    chance = 1 / (1 + np.exp(-(frame["n1"] + frame["n2"] * frame["n4"] + frame["n3"] / 500 - 1)))
    chance = np.where(frame["t1"].str.endswith("3"), 1 - chance, chance)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(
        make_column_transformer((encoder, [name for name in FEATURES if name[0] == "t"]), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=100, learning_rate=0.1, early_stopping=False, random_state=0),
    ).fit(frame, np.random.default_rng(0).random(len(frame)) < np.nan_to_num(chance, nan=0.5))
    mlflow.sklearn.save_model(
        model,
        str(folder / "model"),
        serialization_format="cloudpickle",
        signature=infer_signature(frame, model.predict_proba(frame.head())),
        pip_requirements=[],
        pyfunc_predict_fn="predict_proba",
    )
    matrix = np.lib.format.open_memmap(folder / "matrix.npy", mode="w+", dtype=float, shape=(rows, len(FEATURES)))
    at = 0
    for block in _blocks(rows):
        for start in range(0, block.num_rows, CHUNK):
            part = to_frame(block.slice(start, CHUNK).select(FEATURES))
            matrix[at : at + len(part)] = model[0].transform(part)
            at += len(part)


def _request(step: str, key: str, payload: dict[str, Any]) -> Any:
    from airflow_mlops.steps.base import RunInfo, StepRequest

    return StepRequest(step=step, key=key, run=RunInfo(key="bench", name="bench", experiment="bench"), payload=payload)


def _data(folder: Path, batch: str) -> dict[str, Any]:
    return {"uri": str(folder / f"{batch}.parquet"), "id_columns": ["id"]}


def snapshots(folder: Path, uri: str) -> None:
    """Take both batches' dataset versions, which a scoring run has before it scores."""
    from airflow_mlops import Access, TrackingServer
    from airflow_mlops.steps.base import perform

    for batch in ("large", "small"):
        record = perform(
            _request("snapshot", f"bench/{batch}", {"data": _data(folder, batch)}),
            Access(server=TrackingServer(tracking_uri=uri)),
        )
        (folder / f"{batch}.json").write_text(json.dumps(record.to_xcom()))


# --- The ways -----------------------------------------------------------------------------------------------------


def ours(folder: Path, batch: str, uri: str, label: str) -> None:
    """Score a batch with the step."""
    from airflow_mlops import Access, TrackingServer
    from airflow_mlops.engines.models import model_digest
    from airflow_mlops.steps.base import perform

    model = {
        "name": "bench",
        "version": 1,
        "model_uri": str(folder / "model"),
        "artifact_uri": str(folder / "model"),
        "digest": model_digest(folder / "model"),
        "flavor": "sklearn",
        "features": FEATURES,
    }
    plan = {"windows": [], "model": model, "reason": "bench", "experiment_id": "", "parent_run_id": ""}
    payload = {
        "dataset": json.loads((folder / f"{batch}.json").read_text()),
        "plan": plan,
        "scoring": {"output_uri": str(folder / "out"), "keep": ["at"], "chunk_rows": CHUNK},
        "data": _data(folder, batch),
        "task": "binary",
    }
    record = perform(
        _request("score", f"bench/{label}/{batch}", payload), Access(server=TrackingServer(tracking_uri=uri))
    )
    _say(Path(record.to_xcom()["output_uri"]))


def pyfunc(folder: Path) -> None:
    """Score the large batch as MLflow's documentation does."""
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(folder / "model"))
    frame = pd.read_parquet(folder / "large.parquet")
    chance = np.asarray(model.predict(frame[FEATURES]))[:, 1]
    frame[["id", "at"]].assign(prediction=chance >= 0.5, probability=chance).to_parquet(folder / "pyfunc.parquet")
    _say(folder / "pyfunc.parquet")


def ready(folder: Path) -> None:
    """Ask the boosted trees alone, beside a scan of the file and the writing."""
    import mlflow.sklearn
    import pyarrow as pa
    from pyarrow import parquet

    trees = mlflow.sklearn.load_model(str(folder / "model"))[-1]
    matrix, at, writer = np.load(folder / "matrix.npy", mmap_mode="r"), 0, None
    with parquet.ParquetFile(folder / "large.parquet", pre_buffer=False, buffer_size=1 << 20) as file:
        for rows in file.iter_batches(CHUNK, use_threads=False):
            chance = trees.predict_proba(np.asarray(matrix[at : at + rows.num_rows]))[:, 1]
            at += rows.num_rows
            written = pa.table({"id": rows["id"], "at": rows["at"], "prediction": chance >= 0.5, "probability": chance})
            writer = writer or parquet.ParquetWriter(folder / "ready.parquet", written.schema)
            writer.write_table(written)
    assert writer is not None
    writer.close()
    _say(folder / "ready.parquet")


def _say(path: Path) -> None:
    """Print how many rows were written and the sum of their probabilities, read a part at a time by every way alike."""
    from pyarrow import compute, parquet

    total = []
    with parquet.ParquetFile(path, pre_buffer=False) as file:
        for part in file.iter_batches(CHUNK, columns=["probability"]):
            total.append(compute.sum(part["probability"]).as_py())
        print(json.dumps({"rows": file.metadata.num_rows, "sum": float(np.sum(total))}))


if __name__ == "__main__":
    part, folder, *rest = sys.argv[1:]
    if part == "prepare":
        prepare(Path(folder), *map(int, rest))
    else:
        {"snapshots": snapshots, "ours": ours, "pyfunc": pyfunc, "ready": ready}[part](Path(folder), *rest)
