"""Real flights, month by month, against January and February: what the demo's drift settings were chosen from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_mlops.cli.demo.lake import prepare_lake
from airflow_mlops.core.drift import DriftJudgement, judge_drift
from airflow_mlops.core.record import Window
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.tables import take_manifest
from airflow_mlops.engines.window_profile import reference_profile, window_profile
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.monitoring import DriftSpec

FEATURES = (
    *("carrier", "origin", "dest", "scheduled_minute", "weekday", "distance", "aircraft_year", "seats"),
    *("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"),
)


def months(first: int, last: int) -> Window:
    return Window(start=datetime(2013, first, 1, tzinfo=UTC), end=datetime(2013, last + 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[int, DriftJudgement]:
    """Return the judgement of each month from March to August."""
    scratch = tmp_path_factory.mktemp("scratch")
    lake = prepare_lake(tmp_path_factory.mktemp("lake") / "flights")
    data = DataSpec.model_validate({"uri": str(lake.folder), "format": "parquet", "event_time": "event_time"})
    before = take_manifest(data, months(1, 2))
    reference = reference_profile(lambda: checked_files(before, Path(scratch)), columns=FEATURES)
    found = {}
    for month in range(3, 9):
        now = take_manifest(data, months(month, month))
        profile = window_profile(checked_files(now, Path(scratch)), reference)
        found[month] = judge_drift(reference, profile, DriftSpec(min_columns=4), known=set(profile["available"]))
    return found


def test_july_and_august_stand_out(judged: dict[int, DriftJudgement]) -> None:
    """The wind's direction is left out: an angle has no tenths. Four of fifteen columns alarm in summer only."""
    drifted = {month: one.drifted_count for month, one in judged.items()}

    assert drifted == {3: 3, 4: 3, 5: 2, 6: 3, 7: 5, 8: 4}
    assert [month for month, one in judged.items() if one.verdict == "drift"] == [7, 8]
    assert {one.compared_count for one in judged.values()} == {15}
    assert {one.column for one in judged[7].columns if one.drifted} == {
        "temp",
        "dewp",
        "humid",
        "pressure",
        "wind_speed",
    }


def test_the_months_have_no_other_fault(judged: dict[int, DriftJudgement]) -> None:
    assert [finding.sentence for one in judged.values() for finding in one.findings] == []
