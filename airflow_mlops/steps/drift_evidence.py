"""Putting a drift verdict where people look: the record that fits XCom, and the step's MLflow run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import MAX_COLUMNS, ColumnDrift, DriftReport
from airflow_mlops.engines import runs
from airflow_mlops.steps.base import Work, window_tags

if TYPE_CHECKING:
    from airflow_mlops.core.records import Window

FINDINGS_FILE = "drift.json"
PROFILE_FILE = "window_profile.json"
PAGE_FILE = "drift.html"
VERDICT_TAG = "airflow_mlops.drift_verdict"
#: Bytes that a report may take: some less than XCom allows, because the operator's own words go with it.
MAX_BYTES = 14_000
#: What is tried, one after the other, until a report fits: columns, findings, notes, characters of a text.
_SIZES = ((MAX_COLUMNS, 20, 10, 400), (20, 12, 8, 240), (12, 8, 5, 160), (8, 5, 4, 100), (5, 3, 3, 60), (3, 2, 2, 30))
#: One request carries at most 1,000 metrics, and a name at most 250 characters.
_METRICS_AT_ONCE, _METRIC_NAME = 900, 230
_UNUSABLE = re.compile(r"[^A-Za-z0-9_\-. /]")


def fitted(report: DriftReport) -> DriftReport:
    """Return the report cut to what XCom may carry: fewer columns, findings and notes, then shorter texts."""
    smaller = report
    for columns, findings, notes, letters in _SIZES:
        smaller = report.model_copy(
            update={
                "sentence": _cut(report.sentence, 2 * letters),
                "reference": _cut(report.reference, letters),
                "columns": tuple(_short(one, letters) for one in report.columns[:columns]),
                "prediction": report.prediction and _short(report.prediction, letters),
                "findings": tuple(
                    one.model_copy(
                        update={
                            "column": one.column and _cut(one.column, letters),
                            "sentence": _cut(one.sentence, letters),
                        }
                    )
                    for one in report.findings[:findings]
                ),
                "notes": tuple(_cut(note, letters) for note in report.notes[:notes]),
            }
        )
        for candidate in (smaller, _without_features(smaller)):
            if len(json.dumps({"schema": candidate.schema_name, **candidate.model_dump(mode="json")})) <= MAX_BYTES:
                return candidate
    return _without_features(smaller)


def _without_features(report: DriftReport) -> DriftReport:
    if report.model is None or not report.model.features:
        return report
    return report.model_copy(update={"model": report.model.model_copy(update={"features": None})})


def _short(one: ColumnDrift, letters: int) -> ColumnDrift:
    return one.model_copy(
        update={
            "column": _cut(one.column, letters),
            "method": _cut(one.method, letters),
            "sentence": _cut(one.sentence, letters),
        }
    )


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def store_findings(work: Work, report: DriftReport, window_profile: Mapping[str, Any], **more: Any) -> None:
    """Write everything that was found as ``drift.json``, and the window's profile.

    :param report: uncut, with every column and finding.
    :param more: further keys: the specification, what Evidently was shown.
    """
    work.log_json({**report.model_dump(mode="json"), **more}, FINDINGS_FILE)
    work.log_json(dict(window_profile), PROFILE_FILE)


def log_figures(work: Work, report: DriftReport, columns: Sequence[ColumnDrift], window: Window | None) -> None:
    """Write the figures and tags by which later looks find this verdict to the step's MLflow run."""
    from mlflow.entities import Metric, RunTag

    figures: dict[str, float | None] = {
        "window_rows": float(report.row_count),
        "compared_columns": float(report.compared_count),
        "drifted_columns": float(report.drifted_count),
        "drift_share": report.share,
        "prediction_drift": None if report.prediction is None else report.prediction.value,
    }
    for one in columns:
        name = f"drift.{_UNUSABLE.sub('_', one.column)}"[:_METRIC_NAME]
        # Names that differ only in what MLflow does not take: the first keeps its name, the others get a number.
        count, base = 2, name
        while name in figures:
            name, count = f"{base}_{count}", count + 1
        figures[name] = one.value
    tags = {
        **window_tags(window),
        VERDICT_TAG: report.verdict,
        "airflow_mlops.dataset_digest": report.dataset_digest,
        "mlflow.note.content": report.sentence,
    }
    if report.model is not None:
        tags[runs.REGISTERED_MODEL] = report.model.name
        tags[runs.MODEL_VERSION] = str(report.model.version)
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in figures.items() if value is not None]
    work.client.log_batch(
        work.run_id, metrics=metrics[:_METRICS_AT_ONCE], tags=[RunTag(name, value) for name, value in tags.items()]
    )
    for start in range(_METRICS_AT_ONCE, len(metrics), _METRICS_AT_ONCE):
        work.client.log_batch(work.run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])
