"""What the approve task asks, what it makes of an answer, and how it waits where Airflow itself cannot ask."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.version import Version

from airflow_mlops import TrackingServer, compat
from airflow_mlops.compat import AirflowFailException, AirflowSkipException, BaseSensorOperator
from airflow_mlops.core.records import Approval, ModelVersionRef
from airflow_mlops.engines import approvals
from airflow_mlops.errors import TrackingUnavailableError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators import approval
from airflow_mlops.operators.approval import ApproveModelOperator

VERSION = ModelVersionRef(
    name="flights", version=4, model_uri="models:/m-1", run_id="r", digest="d" * 64, ledger_entry=3,
    window={"start": "2013-05-01", "end": "2013-06-01"}, verdict="needs_approval", key="k", input_digest="i",
    sentence="All 3 checks passed.\nA person must approve it.", reason="monthly | retraining",
    card_uri="runs:/r/card.html",
)  # fmt: skip
#: From 3.3 on Airflow itself keeps a task that waits for a person, before that the triggerer does.
PARKED = "TaskAwaitingInput" if compat.AIRFLOW_VERSION.release >= (3, 3) else "TaskDeferred"
NOON = datetime(2013, 8, 1, 12, tzinfo=UTC)
DOWN = TrackingUnavailableError("MLflow at http://mlflow:5000 does not answer")


class Pushed(dict[str, Any]):
    """Stands in for the task instance."""

    dag_id, run_id, task_id, map_index, id, try_number = "d", "r", "approve", -1, "ti-1", 2
    max_tries, raw, is_mapped = 3, True, False

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value

    def get_first_reschedule_date(self, context: Any) -> None:
        return None


class Registry:
    """Stands in for MLflow: one decision, and what the operator wrote."""

    def __init__(self) -> None:
        self.decision: Approval | None = None
        self.until = datetime.now(UTC) + timedelta(hours=5)
        self.down = 0
        self.answers: list[Any] = []
        self.asked: list[Any] = []

    def read_approval(self, client: Any, version: Any, alias: str) -> Approval | None:
        self._up()
        return self.decision

    def ask(self, client: Any, version: Any, alias: str, *, by: str, attempt: int, hours: float) -> datetime:
        self.asked.append((by, attempt, hours))
        return self.until

    def record_approval(self, client: Any, version: Any, alias: str, answer: Any) -> Approval:
        self._up()
        self.answers.append(answer)
        said = "approved" if answer.said == "approve" else "rejected"
        self.decision = self.decision or decided(said, answer.author, answer.reason)
        return self.decision

    def time_out(self, client: Any, version: Any, alias: str, *, hours: float) -> Approval:
        return self.decision or decided("timed_out", "", "")

    def _up(self) -> None:
        if self.down:
            self.down -= 1
            raise DOWN


def decided(outcome: Any, author: str = "ada", reason: str = "odd") -> Approval:
    sentence = f"{outcome} by {author}: {reason}"
    return Approval(outcome=outcome, sentence=sentence, name="flights", version=4, author=author, reason=reason)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    for name in ("read_approval", "ask", "record_approval", "time_out"):
        monkeypatch.setattr(approvals, name, getattr(found, name))
    monkeypatch.setattr(MLflowHook, "server", lambda self: TrackingServer(tracking_uri="http://mlflow:5000"))
    monkeypatch.setattr(MLflowHook, "client", lambda self: nullcontext(None))
    monkeypatch.setattr("airflow_mlops.operators.approval.time", SimpleNamespace(sleep=lambda seconds: None))
    return found


@pytest.fixture
def question(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Airflow was asked to show."""
    if not approval.AIRFLOW_ASKS:
        pytest.skip("before Airflow 3.1 there is no page on which a person is asked")
    shown: dict[str, Any] = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **given: shown.update(given)
    )
    return shown


def operator(version: Any = VERSION, made_by: Any = ApproveModelOperator, **other: Any) -> Any:
    return made_by(task_id="approve", version=version.to_xcom(), **other)


def context() -> Any:
    ti = Pushed()
    return {"ti": ti, "task_instance": ti}


def event(*chosen: str, **other: Any) -> dict[str, Any]:
    given = {"chosen_options": list(chosen), "params_input": {"reason": "looks right"}, "responded_at": NOON}
    return {**given, "responded_by_user": {"id": "bob", "name": "bob"}, **other}


# --- Where Airflow asks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(VERSION.model_copy(update={"verdict": "promote"}), id="promoted anyway"),
        pytest.param(VERSION.model_copy(update={"mode": "dry_run"}), id="a dry run moves nothing"),
    ],
)
def test_nobody_is_asked_without_need(registry: Registry, question: dict[str, Any], version: Any) -> None:
    given = context()
    record = operator(version).execute(given)

    assert (record["outcome"], record["schema"]) == ("not_needed", "approval/1")
    assert given["ti"]["model_version_link"].startswith("http://mlflow:5000/")
    assert (question, registry.asked) == ({}, [])


def test_the_question_holds_all_that_is_needed_to_decide(registry: Registry, question: dict[str, Any]) -> None:
    task = operator(timeout_hours="5", assignees="ada, bob")

    with pytest.raises(BaseException) as parked:  # Airflow's own sign, not an Exception
        task.execute(context())

    assert type(parked.value).__name__ == PARKED
    assert registry.asked == [("d/r/approve", 2, 5.0)]
    assert question["subject"] == "May version 4 of flights become champion?"
    assert question["options"] == ["Approve version 4", "Reject version 4"]
    assert question["defaults"] == ["Reject version 4"]
    assert [user["id"] for user in question["assigned_users"]] == ["ada", "bob"]
    assert list(question["params"]) == ["reason"]
    for part in (
        "> All 3 checks passed. A person must approve it.",
        "[flights, version 4](http://mlflow:5000/",
        "card.html",
        "| Judged on | [2013-05-01, 2013-06-01) |",
        r"monthly \| retraining",
        "airflow-mlops promote flights 4 --approve --reason",
    ):
        assert part in question["body"]
    assert timedelta(hours=4.9) < task.response_timeout <= timedelta(hours=5)


@pytest.mark.parametrize(
    ("said", "outcome"), [pytest.param("Approve", "approved", id="yes"), pytest.param("Reject", "rejected", id="no")]
)
def test_who_answered_and_why_is_written_down(registry: Registry, said: str, outcome: str) -> None:
    given = context()
    with nullcontext() if said == "Approve" else pytest.raises(AirflowSkipException, match="hold: rejected by bob"):
        operator().execute_complete(given, event(f"{said} version 4"))

    (answer,) = registry.answers
    assert (answer.author, answer.reason, answer.via) == ("bob", "looks right", "airflow:d/r/approve")
    assert given["ti"]["return_value"]["outcome"] == outcome


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(event("Reject version 4", timedout=True, responded_by_user=None), id="the default was taken"),
        pytest.param(event("Reject version 4", responded_by_user=None), id="nobody is named"),
        pytest.param({"error": "too late", "error_type": "timeout"}, id="told as an error"),
    ],
)
def test_a_time_out_is_told_apart_from_a_rejection(registry: Registry, late: dict[str, Any]) -> None:
    given = context()
    with pytest.raises(AirflowSkipException, match="hold: timed_out"):
        operator().execute_complete(given, late)

    assert given["ti"]["return_value"]["outcome"] == "timed_out"
    assert registry.answers == []


def test_a_decision_from_the_command_line_holds_over_the_answer_on_the_page(registry: Registry) -> None:
    registry.decision = decided("approved", "ada", "urgent")

    assert operator().execute_complete(context(), event("Reject version 4"))["author"] == "ada"
    late = event("Reject version 4", timedout=True, responded_by_user=None)
    assert operator().execute_complete(context(), late)["outcome"] == "approved"


STALE = [
    pytest.param(["Approve version 3"], r"was about version 3 \(", id="approve an earlier one"),
    pytest.param(["Reject version 40"], r"was about version 40 \(", id="reject one whose number begins alike"),
    pytest.param(["Approve"], "that it does not name", id="asked by an earlier release"),
    pytest.param([], "the answer is nothing", id="nothing"),
    pytest.param(["Approve version 4", "Reject version 4"], "that it does not name", id="both"),
]


@pytest.mark.parametrize(("chosen", "said"), STALE)
def test_an_answer_to_the_question_about_another_version_is_not_recorded(
    registry: Registry, chosen: list[str], said: str
) -> None:
    given = context()
    with pytest.raises(AirflowFailException, match=said) as told:
        operator().execute_complete(given, event(*chosen))

    for part in (
        "now asks about version 4 of 'flights'",
        "keeps the first question",
        "airflow-mlops promote flights 4 --approve --reason 'WHY'",
        "airflow-mlops promote flights 4 --reject --reason 'WHY'",
    ):
        assert part in str(told.value)
    assert (registry.answers, registry.decision) == ([], None)
    assert "return_value" not in given["ti"]


@pytest.mark.parametrize(("chosen", "said"), STALE)
def test_after_a_decision_by_command_any_answer_lets_the_task_go_by_it(
    registry: Registry, chosen: list[str], said: str
) -> None:
    registry.decision = decided("approved", "ada", "urgent")

    assert operator().execute_complete(context(), event(*chosen))["author"] == "ada"
    assert registry.answers == []


def test_a_cleared_task_returns_the_decision_without_asking(registry: Registry, question: dict[str, Any]) -> None:
    registry.decision = decided("rejected")

    with pytest.raises(AirflowSkipException, match="hold: rejected by ada"):
        operator().execute(context())
    assert question == {}


def test_an_answer_survives_a_short_outage_and_is_told_after_a_long_one(registry: Registry) -> None:
    registry.down = len(approval.PATIENCE_SECONDS)
    assert operator().execute_complete(context(), event("Approve version 4"))["outcome"] == "approved"

    registry.down, registry.decision = 100, None
    with pytest.raises(TrackingUnavailableError, match=r"bob said 'approve'.*promote flights 4 --approve"):
        operator().execute_complete(context(), event("Approve version 4"))


def test_two_users_of_one_name_are_told_apart(registry: Registry) -> None:
    operator().execute_complete(context(), event("Approve version 4", responded_by_user={"id": "7", "name": "Ada L."}))

    assert registry.answers[0].author == "Ada L. (id 7)"


@pytest.mark.parametrize("hours", [0, -1, "soon", float("nan"), float("inf"), None])
def test_a_wrong_time_out_fails_without_a_retry(registry: Registry, hours: Any) -> None:
    with pytest.raises(AirflowFailException, match="timeout_hours is"):
        operator(timeout_hours=hours).execute(context())


def test_an_older_standard_provider_bounds_the_wait_by_the_execution_time_out(
    registry: Registry, question: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older(compat.HITLOperator):  # type: ignore[misc]  # Airflow's classes come in as Any
        def __init__(
            self, *, subject: str, options: list[str], defaults: str, params: Any = None, **kwargs: Any
        ) -> None:
            assert "response_timeout" not in kwargs
            super().__init__(
                subject=subject,
                options=options,
                defaults=defaults,
                params=params,
                response_timeout=timedelta(days=9),
                **kwargs,
            )

    monkeypatch.setattr(compat, "HITLOperator", Older)
    task = operator(made_by=reloaded(monkeypatch).ApproveModelOperator)
    with pytest.raises(BaseException) as parked:
        task.execute(context())

    assert type(parked.value).__name__ == PARKED
    assert timedelta(hours=4.9) < task.execution_timeout <= timedelta(hours=5)


# --- Where it cannot --------------------------------------------------------------------------------------------------


@pytest.fixture
def before_3_1(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The module as Airflow 2.11 would load it."""
    if not compat.AIRFLOW_3:  # there a task that waits looks into Airflow's database itself
        request.getfixturevalue("airflow_database")
    monkeypatch.setattr(compat, "AIRFLOW_VERSION", Version("2.11.2"))
    return reloaded(monkeypatch)


def reloaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("approval_elsewhere", approval.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "approval_elsewhere", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
    return module


def test_without_the_standard_providers_question_the_module_still_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(compat), "HITLOperator", raising=False)
    monkeypatch.setitem(compat._PATHS, "HITLOperator", ("airflow.providers.nowhere.hitl:HITLOperator",))

    module = reloaded(monkeypatch)

    assert issubclass(module.ApproveModelOperator, BaseSensorOperator)
    assert not module.AIRFLOW_ASKS


def test_before_3_1_the_task_looks_every_minute_for_an_answer(registry: Registry, before_3_1: ModuleType) -> None:
    task = operator(made_by=before_3_1.ApproveModelOperator)

    with pytest.raises(compat.AirflowException) as again:
        task.execute(context())
    wait = again.value.reschedule_date - datetime.now(UTC)  # type: ignore[attr-defined]  # AirflowRescheduleException
    assert timedelta(seconds=30) < wait <= timedelta(seconds=60)
    assert task.reschedule

    registry.decision = decided("approved")
    assert task.execute(context())["outcome"] == "approved"
    registry.decision = decided("rejected")
    with pytest.raises(AirflowSkipException, match="hold: rejected by ada"):
        task.execute(context())


def test_before_3_1_an_outage_waits_on_and_the_clock_ends_it(registry: Registry, before_3_1: ModuleType) -> None:
    task = operator(made_by=before_3_1.ApproveModelOperator)

    registry.down = 1
    assert task.poke(context()) is False
    registry.until = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(AirflowSkipException, match="hold: timed_out"):
        task.execute(context())


def test_before_3_1_nobody_is_asked_without_need(registry: Registry, before_3_1: ModuleType) -> None:
    first = VERSION.model_copy(update={"verdict": "first_model"})

    assert operator(first, before_3_1.ApproveModelOperator).execute(context())["outcome"] == "not_needed"
