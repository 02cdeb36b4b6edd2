"""Labels and predictions brought into the same terms before anything is measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from airflow_mlops.engines.metrics import load_metrics
from airflow_mlops.engines.realised import LabelledRows, measure_realised
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import EvaluationSpec


def measured(labels: list[Any], known: tuple[Any, ...]) -> dict[str, float | None]:
    """Return the figures of a binary batch that predicted ``known`` in turn, with chances that fit."""
    spec = EvaluationSpec(task="binary", metrics=("roc_auc", "accuracy"), bootstrap_draws=100)
    columns = pa.table({"prediction": list(known) * 2, "probability": [0.2, 0.8, 0.3, 0.7]})
    report: Any = SimpleNamespace(
        task="binary", model=SimpleNamespace(version=1), other=None, other_mode="", output_uri="out"
    )
    rows = LabelledRows(columns, pd.Series(labels), known)
    metrics = load_metrics("binary", spec.metrics, spec.lower_is_better, {})
    figures, _ = measure_realised(rows, report, spec, metrics, seed=0)
    return {one.metric: one.realised for one in figures}


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        pytest.param([False, True, False, True], (0, 1), id="labels are bools, predictions numbers"),
        pytest.param([0.0, 1.0, 0.0, 1.0], (False, True), id="labels are floats, predictions bools"),
        pytest.param(["no", "yes", "no", "yes"], ("no", "yes"), id="text"),
    ],
)
def test_labels_of_another_type_mean_the_same_classes(labels: list[Any], known: tuple[Any, ...]) -> None:
    assert measured(labels, known) == {"roc_auc": 1.0, "accuracy": 1.0}


def test_labels_of_another_coding_are_refused_with_both_codings() -> None:
    with pytest.raises(InvalidSpecError, match=r"3 values: labels -1, 1, predictions 0, 1\. Deliver labels as"):
        measured([-1, 1, -1, 1], (0, 1))
