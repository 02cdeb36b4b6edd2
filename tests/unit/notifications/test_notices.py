"""What people are told: every outcome that matters, nothing else, and each message with what one needs to act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import (
    ColumnDrift,
    DriftReport,
    PerformanceReport,
    PolicyDecision,
    SchemaFinding,
    ServedModel,
    WindowState,
)
from airflow_mlops.core.notices import MAX_TITLE, Notice, Place, is_another_s, notice_of
from airflow_mlops.core.policy import Request, decide
from airflow_mlops.core.record import Record, Window
from airflow_mlops.core.records import (
    ChampionRef,
    ContractFinding,
    DatasetVersion,
    GateDecision,
    Promotion,
    TrainedModel,
    ValidationReport,
)
from airflow_mlops.spec.monitoring import MonitoringSpec

PLACE = Place(
    model="flights", step="drift", dag_id="monitor_flights", run_id="scheduled__2013-08-01", task_id="decide",
    map_index=2, dag_run_url="http://airflow/run", task_url="http://airflow/task", mlflow_url="http://mlflow/run",
    report_url="http://mlflow/report", version_url="http://mlflow/version",
)  # fmt: skip
FACTS = {
    "what", "how_far", "since", "follows", "to_do", "model", "version", "window", "dag_id", "run_id", "task_id",
    "dag_run", "dag_run_url", "task_url", "mlflow_url", "report_url", "version_url", "verdict", "share", "rows",
}  # fmt: skip


def month(number: int) -> Window:
    return Window(start=datetime(2013, number, 1, tzinfo=UTC), end=datetime(2013, number + 1, 1, tzinfo=UTC))


JULY = month(7)
SERVED = ServedModel(name="flights", alias="champion", version=3, model_uri="m", artifact_uri="a")
DATASET = DatasetVersion(
    digest="d", uri="s3://lake/flights", format="parquet", window=JULY, row_count=9, file_count=1, byte_count=1,
    column_count=1, manifest_uri="runs:/r/m",
)  # fmt: skip


def drift(verdict: Any = "drift", **more: Any) -> DriftReport:
    known: dict[str, Any] = {
        "sentence": "5 of 15 columns drifted.",
        "window": JULY,
        "model": SERVED,
        "reference": "the profile of version 3",
        "row_count": 29425,
        "compared_count": 15,
        "drifted_count": 5,
        "share": 1 / 3,
        "columns": [
            ColumnDrift(column="temp", kind="numeric", method="psi", value=1.5, threshold=0.25, drifted=True),
            ColumnDrift(column="dewp", kind="numeric", method="psi", value=0.9, threshold=0.25, drifted=True),
            ColumnDrift(column="calm", kind="numeric", method="psi", value=0.1, threshold=0.25),
        ],
        "prediction": ColumnDrift(
            column="prediction", kind="categorical", method="psi", value=0.3, threshold=0.25, drifted=True
        ),
    }
    return DriftReport(verdict=verdict, **{**known, **more})


def broken() -> DriftReport:
    finding = SchemaFinding(kind="missing_column", column="temp", sentence="The column temp is gone.")
    return drift("schema_broken", sentence="temp vanished.", findings=[finding], columns=[], share=None)


def decision(verdict: Any = "hold", **more: Any) -> GateDecision:
    model = TrainedModel(
        model_uri="models:/m-1", model_id="m-1", artifact_uri="mlflow-artifacts:/1/models/m-1", run_id="r",
        flavor="sklearn", serialization="cloudpickle", digest="d", size_bytes=1, dataset_digest="d", feature_count=1,
        target="y", row_count=1, seed=0, parameters_digest="p", code_digest="c", git_commit="unknown",
        environment_digest="e", profile_uri="runs:/r/profile.json", key="k", input_digest="i",
    )  # fmt: skip
    champion = ChampionRef(version=2, entry=4, train_window=month(3))
    known: dict[str, Any] = {
        "mode": "enforce", "sentence": "B6 is worse.", "reasons": ("roc_auc of B6 fell by 0.03.",), "model": model,
        "champion": champion, "window": JULY, "evidence_uri": "runs:/r/e", "decision_uri": "runs:/r/d",
    }  # fmt: skip
    return GateDecision(verdict=verdict, **{**known, **more})


def promotion(outcome: Any = "promoted", **more: Any) -> Promotion:
    known: dict[str, Any] = {
        "name": "flights", "alias": "champion", "sentence": "Version 3 is champion.", "entry": 7, "from_version": 2,
        "to_version": 3, "champion_version": 3, "reason": "the gate let it through", "window": JULY,
        "author": "airflow:monitor_flights/scheduled__2013-08-01/promote",
    }  # fmt: skip
    return Promotion(outcome=outcome, **{**known, **more})


def validation(verdict: Any = "fail") -> ValidationReport:
    findings = [
        ContractFinding(expectation="e", column="temp", on_failure="fail", sentence="temp is null in 3 % of rows."),
        ContractFinding(expectation="e", column="wind", on_failure="warn", sentence="wind is odd."),
    ]
    return ValidationReport(
        verdict=verdict, sentence="1 of 25 expectations failed.", dataset=DATASET, raw_digest="d", contract_digest="c",
        expectation_count=25, findings=findings, finding_count=2, row_count=27110,
    )  # fmt: skip


def decided(
    action: str = "retrain", *, drifted: tuple[int, ...] = (6, 7), requests: Any = (), **more: Any
) -> PolicyDecision:
    """What the real policy makes of March to July with two of the last three windows as the limit."""
    states = [
        WindowState(
            window=month(number),
            version=3,
            rows=27000,
            drift_verdict="drift" if number in drifted else "none",
            drift_share=0.3,
            drifted_columns={"temp": 1.5} if number in drifted else {},
            drifted_count=5,
            compared_count=15,
        )
        for number in range(3, 8)
    ]
    spec = MonitoringSpec.model_validate({"drift": {"breaches": 2, "of_last": 3, "action": action}})
    return decide(
        states, spec, model="flights", windows=[JULY], now=JULY.end + timedelta(hours=1), requests=requests, champion=3,
        **more,
    ).decision  # fmt: skip


def policy(action: str = "retrain", **more: Any) -> PolicyDecision:
    later = {"champion_version": 3, "champion_age_days": 34.6, "pictures_uri": "runs:/r/pictures"}
    keys = {name: more.pop(name) for name in list(more) if name not in ("drifted", "requests", "backfill", "me")}
    return decided(action, **more).model_copy(update={**later, **keys})


def told(record: Record, **place: Any) -> Notice:
    notice = notice_of(record, PLACE.model_copy(update=place))
    assert notice is not None
    return notice


@pytest.mark.parametrize(
    ("record", "step", "events", "words"),
    [
        pytest.param(
            drift(), "drift", ("drift",),
            ["5 of 15 columns drifted", "the prediction: prediction psi 0.3000 (limit 0.2500)",
             "temp psi 1.5000 (limit 0.2500)", "and 2 more", "version 3 of flights", "the profile of version 3"],
            id="drift",
        ),
        pytest.param(
            broken(),
            "drift",
            ("drift",),
            ["Broken data", "The column temp is gone", "Mend the feed, then clear the snapshot task"],
            id="broken data",
        ),
        pytest.param(
            decision(), "gate", ("hold",),
            ["B6 is worse", "roc_auc of B6 fell by 0.03", "version 2 goes on serving", "entry 4"],
            id="a held candidate",
        ),
        pytest.param(
            decision(champion=None), "gate", ("hold",), ["no champion yet"], id="a first candidate held",
        ),
        pytest.param(
            promotion(), "promote", ("promoted",),
            ["version 3 of flights is champion", "version 2 served before", "the gate let it through",
             "airflow-mlops rollback flights --reason WHY", "Entry 7"],
            id="a promotion",
        ),
        pytest.param(
            promotion(alias="live", from_version=None), "promote", ("promoted",),
            ["nothing served before", "--alias live"], id="a first promotion of another alias",
        ),
        pytest.param(
            promotion(to_version=2), "rollback", ("rolled_back",), ["Rolled back: version 2"], id="a rollback",
        ),
        pytest.param(
            validation(), "validate", ("contract_failed",),
            ["Contract failed", "temp is null in 3 % of rows", "s3://lake/flights", "mend the data"],
            id="a failed contract",
        ),
        pytest.param(
            policy(), "policy", ("drift",),
            ["a retrain was asked for", "5 of 15 columns", "temp 1.5000", "2 of the last 3 windows",
             "Since: Every window that counts since [2013-06-01, 2013-07-01)", "the training DAG's gate decides",
             "flights, version 3, champion for 35 days", "Request "],
            id="a policy that retrains",
        ),
        pytest.param(
            policy("notify"), "policy", ("drift",), ["past its limit", "look at the report and decide"],
            id="a policy that only tells",
        ),
        pytest.param(
            policy("rollback", entry=9, champion_version=2), "policy", ("drift", "rolled_back"),
            ["the champion was rolled back", "flights, version 2"], id="a policy that rolled back",
        ),
        pytest.param(
            policy("notify", sentence=f"flights: {decided().reason} A rollback was due and did not happen: race."),
            "policy", ("drift",), ["What follows: A rollback was due and did not happen: race"],
            id="a rollback that did not happen",
        ),
    ],
)  # fmt: skip
def test_a_message_says_what_one_needs_to_act(record: Record, step: str, events: Any, words: list[str]) -> None:
    notice = told(record, step=step)

    assert notice.events == events
    assert notice.event == events[-1]
    text = notice.message
    assert [word for word in words if word not in text] == []
    assert text.startswith(notice.title)
    assert str(JULY) in text
    for address in ("http://airflow/run", "http://airflow/task", "http://mlflow/run", "http://mlflow/report"):
        assert address in text
    assert "monitor_flights scheduled__2013-08-01, task decide[2]" in text
    for part in ("What:", "What follows:", "What to do:", *(() if step == "policy" else ("How far:", "Since:"))):
        assert part in text
    assert notice.facts.keys() == FACTS
    assert "wind is odd" not in text


@pytest.mark.parametrize(
    ("record", "place"),
    [
        pytest.param(drift("none"), {}, id="no drift"),
        pytest.param(drift("insufficient"), {}, id="too few rows"),
        pytest.param(decision("promote"), {}, id="a candidate let through"),
        pytest.param(decision("needs_attention"), {}, id="a gate that fails its task"),
        pytest.param(promotion("superseded"), {}, id="a lost race"),
        pytest.param(promotion("dry_run"), {}, id="a dry run"),
        pytest.param(validation("warn"), {}, id="a contract that warns"),
        pytest.param(validation("quarantine"), {}, id="a contract that quarantines"),
        pytest.param(policy(drifted=(7,)), {}, id="one window of the two"),
        pytest.param(policy(backfill=True), {"backfill": True}, id="a policy in a backfill"),
        pytest.param(drift(), {"backfill": True}, id="drift in a backfill"),
        pytest.param(decision(), {"backfill": True}, id="a hold in a backfill"),
        pytest.param(DATASET, {}, id="a record that is no outcome"),
    ],
)
def test_nobody_is_woken_for_anything_else(record: Record, place: dict[str, Any]) -> None:
    assert notice_of(record, PLACE.model_copy(update=place)) is None


def test_performance_alone_wakes_nobody_because_the_policy_knows_more() -> None:
    report = PerformanceReport(
        state="final", sentence="worse", window=JULY, model=SERVED, row_count=9, labelled_count=9, coverage=1.0
    )

    assert notice_of(report, PLACE) is None


def asked(number: int, **more: Any) -> Request:
    from airflow_mlops.core.policy import request_id

    known: dict[str, Any] = {
        "id": request_id("flights", month(number)), "window": month(number), "action": "retrain",
        "asked_at": JULY.end, "by": "another",
    }  # fmt: skip
    return Request.model_validate({**known, **more})


def test_a_breach_during_the_retrain_says_that_it_is_under_way() -> None:
    notice = told(policy(requests=[asked(6)]))

    assert "nothing follows" in notice.title
    assert "is under way" in notice.facts["follows"]


def test_a_decision_that_was_made_before_is_not_told_again() -> None:
    assert notice_of(policy(requests=[asked(7)]), PLACE) is None


def test_a_task_that_finds_its_own_request_tells() -> None:
    """The task died after it had asked and before it could tell."""
    assert "a retrain was asked for" in told(policy(requests=[asked(7, by="me")], me="me")).title


def test_the_policy_may_speak_in_a_backfill_that_it_acts_in() -> None:
    assert told(policy(), backfill=True).event == "drift"


@pytest.mark.parametrize(
    ("author", "another"),
    [
        pytest.param("airflow:monitor_flights/scheduled__2013-08-01/promote", False, id="this task"),
        pytest.param("ann (airflow:monitor_flights/scheduled__2013-08-01/approve)", False, id="approved in this run"),
        pytest.param("bob", False, id="a person on the command line, who told nobody"),
        pytest.param("airflow:monitor_flights/another/promote", True, id="another run"),
        pytest.param("ann (airflow:train_flights/scheduled__2013-08-01/approve)", True, id="another DAG"),
    ],
)
def test_whose_promotion_it_is(author: str, another: bool) -> None:
    assert is_another_s(promotion(author=author), PLACE) is another
    assert not is_another_s(promotion("superseded", author=author), PLACE)


def test_addresses_that_are_not_known_take_no_line() -> None:
    empty = dict.fromkeys(("dag_run_url", "task_url", "mlflow_url", "report_url", "version_url"), "")
    notice = told(drift(), **empty)

    assert "http" not in notice.message
    assert "Report" not in notice.message
    assert notice.facts["report_url"] == ""


def test_a_title_is_one_short_line_and_parts_are_bounded() -> None:
    notice = told(drift(sentence="x" * 5000), model="a\nname\r\n" + "n" * 500)

    assert len(notice.title) == MAX_TITLE
    assert "\n" not in notice.title
    assert "\r" not in notice.title
    assert len(notice.message) < 3000


def test_html_holds_no_markup_of_the_data() -> None:
    notice = told(drift(sentence="<script>alert(1)</script> & more"))

    assert "<script>" not in notice.html
    assert "&lt;script&gt;" in notice.html
    assert "<script>" in notice.message


def test_a_column_that_could_not_be_compared_says_so() -> None:
    column = ColumnDrift(column="x", kind="unsupported", method="psi", drifted=True, sentence="x is a list.")

    assert "x is a list" in told(drift(columns=[column], drifted_count=1, prediction=None)).message
