"""The window's predictions as drift reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_mlops.errors import DataReadError
from airflow_mlops.steps.drift_predictions import _published


def published(folder: Path, versions: list[int]) -> tuple[Any, Any]:
    """Publish a split batch of version 3; return its report, and the work that reads it."""
    path = folder / "predictions.parquet"
    numbers = pa.array(versions, pa.int64())
    parquet.write_table(
        pa.table({"prediction": numbers, "probability": numbers.cast(pa.float64()), "model_version": numbers}), path
    )
    report = SimpleNamespace(
        model=SimpleNamespace(version=3),
        other_mode="split",
        output_uri=str(path),
        output_conn_id=None,
        output_digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        byte_count=path.stat().st_size,
        row_count=len(versions),
    )
    work = SimpleNamespace(
        folder=folder, access=SimpleNamespace(storage=lambda conn_id: None), read_file=lambda uri: Path(uri)
    )
    return report, work


def test_of_a_split_only_the_versions_own_rows_are_read(tmp_path: Path) -> None:
    file = _published(*_with_reference(tmp_path, [3, 4, 3]))

    assert parquet.read_table(file.path)["prediction"].to_pylist() == [3.0, 3.0]
    assert file.entry.row_count == 2


def test_a_version_that_answered_no_row_has_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(DataReadError, match="version 3 answered no row of the predictions"):
        _published(*_with_reference(tmp_path, [4, 4]))


def _with_reference(folder: Path, versions: list[int]) -> tuple[Any, dict[str, Any], Any]:
    report, work = published(folder, versions)
    return report, {"predicted": "probability"}, work
