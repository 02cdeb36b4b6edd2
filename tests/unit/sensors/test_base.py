"""Where a sensor waits, what ends the wait, and that no answer from outside is no end."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from airflow_mlops.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
    conf,
)
from airflow_mlops.errors import DataReadError, InvalidSpecError, StorageUnavailableError
from airflow_mlops.sensors.base import WaitingSensor, whole_number
from airflow_mlops.triggers.base import Look, PollTrigger, Question
from tests.support.airflow_versions import LOAD_AIRFLOW

NOT_YET = Look("Nothing is there.")
FOUND = Look("There it is.", {"schema": "thing/1", "number": 7})


class Scripted(Question):
    """Answers one after the other from a list; the last one again and again."""

    answers: ClassVar[list[Any]] = []

    def __init__(self, *, name: str, count: int = 0) -> None:
        self.name = name
        self.count = count

    def look(self) -> Look:
        answer = self.answers[min(self.count, len(self.answers) - 1)]
        self.count += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def memory(self) -> dict[str, Any]:
        return {"count": self.count}


class ScriptedTrigger(PollTrigger):
    question_type = Scripted


class ScriptedSensor(WaitingSensor):
    def trigger_type(self) -> type[PollTrigger]:
        return ScriptedTrigger

    def question(self) -> dict[str, Any]:
        return {"name": "thing"}


@pytest.fixture
def sensor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a sensor whose looks give these answers."""

    def sensor(*answers: Any, **settings: Any) -> ScriptedSensor:
        monkeypatch.setattr(Scripted, "answers", list(answers))
        # Airflow's own logger writes past pytest.
        monkeypatch.setattr(ScriptedSensor, "log", logging.getLogger("the task's log"))
        return ScriptedSensor(task_id="wait", **{"poke_interval": 0.01, "timeout": 5, **settings})

    return sensor


def test_it_looks_until_it_finds_and_says_what_it_sees(sensor: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert sensor(NOT_YET, NOT_YET, FOUND).execute({}) == FOUND.found

    assert caplog.text.count("Nothing is there.") == 2


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(StorageUnavailableError("s3://lake did not answer."), id="ours"),
        pytest.param(ConnectionResetError("peer"), id="a library's"),
    ],
)
def test_no_answer_is_asked_again(sensor: Any, outage: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert sensor(outage, FOUND).execute({}) == FOUND.found

    assert "No answer this time" in caplog.text


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_verdict_ends_the_wait_at_once(sensor: Any, deferrable: bool) -> None:
    waiting = sensor(DataReadError("The store refuses."), FOUND, deferrable=deferrable)

    with pytest.raises(AirflowFailException, match=r"^The store refuses\.$"):
        waiting.execute({})


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_soft_failure_is_a_skip(sensor: Any, deferrable: bool) -> None:
    with pytest.raises(AirflowSkipException):
        sensor(DataReadError("no"), deferrable=deferrable, soft_fail=True).execute({})


def test_an_error_nobody_foresaw_is_not_swallowed(sensor: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        sensor(ZeroDivisionError("a bug"), FOUND).execute({})


def test_a_library_that_is_missing_is_named_with_its_extra(sensor: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"airflow-mlops\[steps\]"):
        sensor(ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")).execute({})


def test_out_of_time_it_says_what_it_saw_last(sensor: Any) -> None:
    with pytest.raises(AirflowSensorTimeout, match=r"timed out.*Nothing is there"):
        sensor(NOT_YET, timeout=0.05).execute({})


def test_deferred_it_takes_along_what_it_remembers_and_when_to_end(sensor: Any) -> None:
    waiting = sensor(NOT_YET, deferrable=True, timeout=3600, poke_interval=30)

    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute({})

    trigger = deferred.value.trigger
    assert deferred.value.method_name == "execute_complete"
    assert (trigger.question, trigger.poll_seconds) == ({"name": "thing", "count": 1}, 30)
    left = datetime.fromisoformat(trigger.ends_at) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert deferred.value.timeout > timedelta(hours=1)


def test_what_is_there_already_is_not_deferred(sensor: Any) -> None:
    assert sensor(FOUND, deferrable=True).execute({}) == FOUND.found


def test_how_the_wait_off_the_worker_ended(sensor: Any) -> None:
    waiting = sensor(NOT_YET)

    assert waiting.execute_complete({}, {"status": "found", "said": "There.", "found": {"a": 1}}) == {"a": 1}
    with pytest.raises(AirflowSensorTimeout, match=r"within 5 seconds\. Still nothing\."):
        waiting.execute_complete({}, {"status": "timeout", "said": "Still nothing.", "found": None})
    with pytest.raises(AirflowFailException, match=r"^Refused\.$"):
        waiting.execute_complete({}, {"status": "refused", "said": "Refused.", "found": None})
    with pytest.raises(RuntimeError, match="without an answer"):
        waiting.execute_complete({}, None)


def test_where_it_waits_is_for_airflow_to_say_unless_the_task_does(
    sensor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sensor(FOUND).deferrable is False
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert conf.getboolean("operators", "default_deferrable") is True
    assert sensor(FOUND).deferrable is True
    assert sensor(FOUND, deferrable=False).deferrable is False


@pytest.mark.parametrize(
    ("given", "read"), [(None, None), ("", None), ("None", None), ("3", 3), (4, 4), (" 5 ", 5), (6.0, 6)]
)
def test_a_number_may_come_through_a_template(given: Any, read: int | None) -> None:
    assert whole_number(given, "version") == read


@pytest.mark.parametrize("given", ["champion", 1.5, True, [1], "nan"])
def test_what_is_no_number_is_named(given: Any) -> None:
    with pytest.raises(InvalidSpecError, match=r"version is .*; it must be a whole number"):
        whole_number(given, "version")


def test_a_dag_file_with_sensors_loads_no_heavy_library() -> None:
    code = (
        f"{LOAD_AIRFLOW}; import sys; before = set(sys.modules);"
        "import airflow_mlops.sensors.data, airflow_mlops.sensors.model;"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    added = {name.partition(".")[0] for name in done.stdout.split()}

    assert "airflow_mlops" in added
    assert not added & {"mlflow", "pandas", "numpy", "pyarrow", "duckdb", "fsspec", "boto3", "botocore"}
