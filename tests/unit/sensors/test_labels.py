"""The label sensor: what it counts, what it waits for, where, and what ends the wait."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.compat import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.sensors.labels import LabelCoverageSensor
from airflow_mlops.steps.base import Access
from airflow_mlops.triggers.labels import LabelChangeQuestion, LabelChangeTrigger
from tests.support.performance import EARLY, LATE, Watched, at, write

ROWS = 10


@pytest.fixture(scope="module")
def client(mlflow_server: Any) -> Iterator[Any]:
    with connected(TrackingServer(tracking_uri=mlflow_server.uri)) as client:
        yield client


@pytest.fixture
def watched(mlflow_server: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A batch of ten predictions, scored on 1 April; its labels are due on 1 May."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server.uri}))
    return Watched(Access(server=TrackingServer(tracking_uri=mlflow_server.uri)), client, tmp_path)


@pytest.fixture
def sensor(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LabelCoverageSensor]:
    """Make a sensor of that batch."""
    # Airflow's own logger writes past pytest.
    monkeypatch.setattr(LabelCoverageSensor, "log", logging.getLogger("the task's log"))
    columns = {"id": list(range(ROWS)), "event_time": [at(n) for n in range(ROWS)], "prediction": [0] * ROWS}
    monitored = watched.publish(columns)

    def sensor(**other: Any) -> LabelCoverageSensor:
        labels = other.pop("labels", None) or watched.labels(coverage=0.8)
        settings = {"mode": "poke", "poke_interval": 0.05, "timeout": 0.2, "as_of": EARLY, **other}
        given = settings.pop("monitored", monitored.model_dump(mode="json"))
        return LabelCoverageSensor(task_id="wait", monitored=given, labels=labels, **settings)

    return sensor


def deliver(watched: Watched, count: int) -> None:
    watched.deliver("a", list(range(count)), [1] * count)


def test_enough_labels_end_the_wait(watched: Watched, sensor: Any) -> None:
    deliver(watched, 8)

    assert sensor().execute({}) == {"coverage": 0.8, "labelled": 8, "rows": 10, "deadline_passed": False}


def test_the_deadline_ends_the_wait_whatever_is_there(sensor: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert sensor(as_of=LATE).execute({}) == {
            "coverage": 0.0,
            "labelled": 0,
            "rows": 10,
            "deadline_passed": True,
        }

    assert "no label file is there yet; the deadline 2013-05-01 06:00 UTC has passed" in caplog.text


def test_it_waits_while_no_file_is_there_and_while_there_are_too_few(
    watched: Watched, sensor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_mlops.compat import AirflowSensorTimeout

    waiting = sensor()
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(AirflowSensorTimeout, match="80% are waited for until 2013-05-01"),
    ):
        waiting.execute({})
    assert "no label file is there yet" in caplog.text

    deliver(watched, 7)
    assert not waiting.poke({})
    # The listing changed, so it counted again; now it is as it was, and still too few.
    assert not waiting.poke({})
    deliver(watched, 9)
    assert waiting.poke({}).xcom_value["labelled"] == 9


def test_a_window_that_was_never_scored_skips(watched: Watched, sensor: Any) -> None:
    monitored = watched.publish({"id": [1], "event_time": [at(1)], "prediction": [1]})
    unscored = monitored.model_copy(update={"scoring_run_id": ""}).model_dump(mode="json")

    for deferrable in (False, True):
        with pytest.raises(AirflowSkipException, match=r"\[2013-03-01, 2013-04-01\) was never scored"):
            sensor(monitored=unscored, deferrable=deferrable).execute({})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param({"known_at": "seen"}, "labels.known_at names 'seen'", id="a column that is not there"),
        pytest.param({"label": None}, "which column holds the label", id="no label named"),
        pytest.param({"coverage": 2}, r"labels.coverage: .*less than or equal to 1", id="not a specification"),
    ],
)
def test_what_can_never_be_counted_fails_at_once(
    watched: Watched, sensor: Any, labels: dict[str, Any], message: str
) -> None:
    deliver(watched, 3)

    with pytest.raises(AirflowFailException, match=message):
        sensor(labels={**watched.labels(), **labels}).execute({})


def test_ids_of_another_type_fail_and_are_no_empty_join(watched: Watched, sensor: Any) -> None:
    write(watched.lake / "a.parquet", {"id": ["0", "1"], "event_time": [at(0), at(1)], "late": [0, 1]})

    with pytest.raises(AirflowFailException, match=r"holds whole numbers .* and text"):
        sensor().execute({})


def test_deferred_only_ids_and_places_are_stored_and_a_worker_counts(watched: Watched, sensor: Any) -> None:
    labels = watched.labels(coverage=0.8, known_at="known_at")
    labels["data"]["conn_id"] = None
    watched.deliver("a", [0], [1], known_at=[at(24 * 45)])
    waiting = sensor(labels=labels, deferrable=True, as_of=None, poke_interval=30, timeout=3600)
    waiting.labels["deadline"] = "100 years"

    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute({})

    trigger = deferred.value.trigger
    path, stored = trigger.serialize()
    assert path == "airflow_mlops.triggers.labels.LabelChangeTrigger"
    assert type(json.loads(json.dumps(stored))["question"]["seen"]) is str
    assert stored["question"]["due"].startswith("2113-04-01")
    assert set(stored["question"]) == {"data", "seen", "due"}
    assert LabelChangeTrigger(**json.loads(json.dumps(stored))).serialize() == (path, stored)

    changed = {"status": "found", "said": "The labels have changed.", "found": {"changed": "files"}}
    with pytest.raises(TaskDeferred):
        waiting.execute_complete({}, changed)
    watched.deliver("a", list(range(8)), [1] * 8, known_at=[at(20)] * 8)
    assert waiting.execute_complete({}, changed)["labelled"] == 8


def test_the_triggers_question_notices_files_and_moments_without_reading_a_row(tmp_path: Path) -> None:
    data = {"uri": str(tmp_path / "labels")}
    assert LabelChangeQuestion(data=data, seen="").look().found is None

    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.parquet").write_bytes(b"no Parquet at all")
    assert LabelChangeQuestion(data=data, seen="").look().found == {"changed": "files"}

    now = datetime.now(UTC)
    due = LabelChangeQuestion(data={"uri": "s3://nobody/asks"}, seen="", due=(now - timedelta(hours=1)).isoformat())
    assert due.look().found == {"changed": "time"}


def test_a_first_count_that_got_no_answer_is_repeated_after_an_interval(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"whatever")
    question = LabelChangeQuestion(data={"uri": str(tmp_path)})

    assert question.look().found is None
    assert question.look().found == {"changed": "files"}


def test_no_answer_from_outside_is_no_end(
    watched: Watched, sensor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.support.mlflow_server import refusing_server

    deliver(watched, 9)
    waiting = sensor()
    with refusing_server() as nowhere, monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": nowhere}))
        assert not waiting.poke({})
    assert "No answer this time, asking again" in caplog.text

    assert waiting.poke({}).xcom_value["labelled"] == 9


def test_it_waits_as_long_as_labels_take_unless_told_otherwise(watched: Watched) -> None:
    sensor = LabelCoverageSensor(task_id="t", monitored={}, labels=watched.labels(poll_seconds=60))

    assert (sensor.mode, sensor.poke_interval, sensor.timeout) == ("reschedule", 60, 366 * 24 * 3600)
    given = {"monitored", "labels", "label_column", "entity", "report", "mlflow_conn_id", "as_of"}
    assert given == set(sensor.template_fields)
