from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from airflow_mlops.core.records import DatasetVersion, RunPlan, Window, finite
from airflow_mlops.errors import InvalidSpecError, RecordTooLargeError

MARCH = Window(start="2013-03-01", end="2013-04-01")


def plan(**changes: object) -> RunPlan:
    values = {
        "window": MARCH,
        "train_window": Window(start="2013-01-01", end="2013-03-01"),
        "evaluate_window": MARCH,
        "reason": "a test",
        "experiment_id": "1",
        "parent_run_id": "abc",
    }
    return RunPlan(**(values | changes))


def test_a_record_survives_xcom() -> None:
    sent = json.loads(json.dumps(plan().to_xcom(), allow_nan=False))

    assert sent["schema"] == "plan/1"
    assert RunPlan.from_xcom(sent) == plan()


def test_a_key_from_a_newer_version_is_ignored() -> None:
    assert RunPlan.from_xcom({**plan().to_xcom(), "added_later": 1}) == plan()


def test_a_missing_key_is_named() -> None:
    payload = plan().to_xcom()
    del payload["reason"]

    with pytest.raises(InvalidSpecError, match="reason: Field required"):
        RunPlan.from_xcom(payload)


def test_the_wrong_records_are_told_apart() -> None:
    with pytest.raises(InvalidSpecError, match=r"dataset/1.*plan/1.*which task's output"):
        DatasetVersion.from_xcom(plan().to_xcom())


def test_something_that_is_no_record_is_named() -> None:
    with pytest.raises(InvalidSpecError, match="got NoneType"):
        RunPlan.from_xcom(None)  # type: ignore[arg-type]  # what a skipped upstream task hands on


def test_a_record_larger_than_xcom_names_its_largest_field() -> None:
    with pytest.raises(RecordTooLargeError, match=r"RunPlan takes \d+ bytes.*'notes'"):
        plan(notes=("x" * 20_000,)).to_xcom()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_numbers_that_are_not_finite_become_null(value: float | None) -> None:
    assert finite(value) is None


def test_a_record_refuses_infinities() -> None:
    with pytest.raises(ValidationError):
        DatasetVersion(
            digest="d", uri="u", format="csv", row_count=float("inf"), file_count=1, byte_count=1, column_count=1,
            manifest_uri="runs:/r/m.json",
        )  # fmt: skip


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        plan().reason = "another"  # type: ignore[misc]  # the point of the test
