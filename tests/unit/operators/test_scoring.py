"""What the scoring operator asks for, says, and announces to those who wait for predictions."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.compat import AssetAlias
from airflow_mlops.core.monitoring_records import ScoringReport, ServedModel
from airflow_mlops.core.record import Window
from airflow_mlops.operators.scoring import BatchScoreOperator
from tests.support.airflow_versions import OutletEvents, told

WINDOW = Window.model_validate({"start": "2024-01-01", "end": "2024-02-01"})
VERSION = ServedModel(name="m", version=4, entry=7, model_uri="models:/m-1", artifact_uri="/m")
GIVEN: dict[str, Any] = {
    "plan": {"schema": "scoring_plan/1"},
    "scoring": {"output_uri": "/out"},
    "data": {"uri": "/lake"},
    "task": "binary",
}


def report(**other: Any) -> ScoringReport:
    fields: dict[str, Any] = {
        "sentence": "Scored 9 of 10 rows.", "window": WINDOW, "model": VERSION, "dataset_digest": "d", "task": "binary",
        "output_uri": "/out/predictions.parquet", "output_digest": "o", "byte_count": 5, "row_count": 10,
        "scored_count": 9, "key": "k", "input_digest": "i", "run_id": "r1",
    }  # fmt: skip
    return ScoringReport(**{**fields, **other})


def announce(operator: Any, record: ScoringReport, run_type: str = "scheduled") -> list[Any]:
    """Announce a record; return the emitted events."""
    emitted: list[Any] = []
    outlet = SimpleNamespace(add=lambda asset, extra: emitted.append(told(asset, extra)))
    operator.announce(
        record,
        {
            "dag_run": SimpleNamespace(run_type=run_type),
            "outlet_events": OutletEvents(lambda: outlet),
        },
    )
    return emitted


@pytest.mark.parametrize(
    ("run_type", "ask", "events"),
    [("scheduled", False, 1), ("asset_triggered", False, 1), ("backfill", False, 0), ("backfill", "true", 1)],
)
def test_a_published_batch_is_an_event_that_says_which(run_type: str, ask: Any, events: int) -> None:
    operator = BatchScoreOperator(
        task_id="t", **GIVEN, dataset={}, outlets=[AssetAlias(name="m_predictions")], emit_in_backfill=ask
    )
    wanted = {
        "model": "m",
        "version": 4,
        "entry": 7,
        "window": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
        "scoring_run_id": "r1",
        "output_uri": "/out/predictions.parquet",
    }

    assert announce(operator, report(), run_type) == [("m_predictions", wanted)] * events


def test_counts_place_reasons_and_notes_are_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchScoreOperator, "log", logging.getLogger("the task's log"))
    operator = BatchScoreOperator(task_id="t", **GIVEN, dataset={})
    record = report(
        quarantined_count=1, quarantine_uri="/out/_quarantine/q.parquet", reasons={"the id column 'id' is null": 1},
        notes=("Version 5 beside the champion did not score.",), other=VERSION, other_mode="split",
        scored_by={"4": 6, "5": 3},
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        announce(operator, record)

    for said in (
        "Scored 9 of 10 rows.", "/out/predictions.parquet", "/out/_quarantine/q.parquet", "the id column 'id' is null",
        "Version 5 beside the champion", "version 4: 6 rows, version 5: 3 rows",
    ):  # fmt: skip
        assert said in caplog.text


def test_the_step_gets_what_the_operator_was_given() -> None:
    operator = BatchScoreOperator(task_id="t", **GIVEN, validation={"schema": "validation/1"})

    assert operator.payload({}) == {**GIVEN, "validation": {"schema": "validation/1"}, "dataset": None}
