"""A training on a sample: to its end on rows that are given or on the real ones, and what is refused before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, Window, load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.testing import broken, made_up, run_on_sample, write_sample
from airflow_mlops.testing.rows import WINDOW
from airflow_mlops.testing.sample_run import _window


def test_given_rows_go_through_the_whole_loop_and_nothing_stays(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))

    outcome = run_on_sample(spec, data=made_up(spec, rows=600), rows=200)

    assert outcome.promotion is not None, outcome.ended
    assert outcome.promotion.outcome == "promoted"
    assert outcome.training_data is not None
    assert (outcome.training_data.row_count, outcome.evaluation_data.row_count) == (200, 200)
    assert outcome.report.metrics["roc_auc"] > 0.6
    assert [*(tmp_path / "elsewhere").iterdir(), *(tmp_path / "tmp").iterdir()] == []


def test_real_rows_are_sampled_and_the_store_can_be_kept(spec: ModelSpec, tmp_path: Path) -> None:
    write_sample(spec, rows=600)

    # The contract asks for 100 rows of a window, and not for so many of a sample.
    outcome = run_on_sample(spec, rows=60, window=WINDOW, keep=tmp_path / "trial", promote=False)

    assert outcome.decision is not None, outcome.ended
    assert outcome.promotion is None
    assert outcome.training_data.row_count == 60
    assert {"mlflow.db", "artifacts", "sample.parquet"} <= {path.name for path in (tmp_path / "trial").iterdir()}
    with pytest.raises(InvalidSpecError, match="empty folder"):
        run_on_sample(spec, window=WINDOW, keep=tmp_path / "trial")


def test_bad_rows_end_it_as_in_production(spec: ModelSpec) -> None:
    rows = broken(made_up(spec, rows=600), spec, kind="new_category")

    outcome = run_on_sample(spec, data=rows)

    assert outcome.failed
    assert outcome.model is None
    assert "contract failed" in outcome.ended


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({}, "Which rows to evaluate on", id="real data without a window"),
        pytest.param({"window": Window(start="1999-01-01", end="1999-02-01")}, "No row lies in", id="an empty window"),
        pytest.param({"rows": 0, "window": WINDOW}, "at least 1", id="no rows"),
    ],
)
def test_wrong_use_is_told_with_its_mend(arguments: Any, says: str, spec: ModelSpec) -> None:
    write_sample(spec, rows=600)

    with pytest.raises(InvalidSpecError, match=says):
        run_on_sample(spec, **arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda rows: rows.drop(columns="at"), "no column 'at'", id="no event time"),
        pytest.param(lambda rows: rows[:300], "leave nothing to evaluate on", id="one window of rows"),
    ],
)
def test_rows_that_make_no_two_windows_are_refused(change: Any, says: str, spec: ModelSpec) -> None:
    with pytest.raises(InvalidSpecError, match=says):
        run_on_sample(spec, data=change(made_up(spec, rows=600)))


def test_the_windows_of_made_up_rows_are_found_again(write: Any) -> None:
    spec = load_spec(write(("length: 1 month", "length: 7 days")))
    found = _window(spec, made_up(spec, rows=600))

    assert found.start == WINDOW.start
    assert WINDOW.end > found.end
