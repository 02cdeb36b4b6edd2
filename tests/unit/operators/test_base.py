from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops import (
    GateModelOperator,
    PromoteModelOperator,
    TrackingServer,
    TrainModelOperator,
    ValidateDataOperator,
)
from airflow_mlops.compat import AIRFLOW_3, AirflowFailException, AirflowSkipException, AssetAlias
from airflow_mlops.core.records import DatasetVersion, GateDecision, Promotion, TrainedModel, ValidationReport
from airflow_mlops.errors import InvalidSpecError, TrackingUnavailableError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.base import as_bool
from airflow_mlops.operators.context import task_page
from airflow_mlops.runtimes import RUNTIMES
from airflow_mlops.runtimes.inline import InlineRuntime
from tests.support.airflow_versions import OutletEvents, told

#: The ledger's last entry, and who wrote it: the task of these tests.
OURS = (7, "airflow:d/r/t")

DATASET = DatasetVersion(
    digest="d", uri="u", format="csv", row_count=1, file_count=1, byte_count=1, column_count=1, manifest_uri="runs:/r/m"
)


def promotion(outcome: Any) -> Promotion:
    return Promotion(outcome=outcome, name="m", alias="champion", sentence=f"it was {outcome}", champion_version=2)


def report(verdict: Any) -> ValidationReport:
    return ValidationReport(
        verdict=verdict, sentence=f"contract: {verdict}", dataset=DATASET, raw_digest="d", contract_digest="c",
        expectation_count=1, row_count=1, run_id="r", report_uri="runs:/r/report.html",
    )  # fmt: skip


def decision(verdict: Any) -> GateDecision:
    model = TrainedModel(
        model_uri="models:/m-1", model_id="m-1", artifact_uri="mlflow-artifacts:/1/models/m-1", run_id="r",
        flavor="sklearn", serialization="cloudpickle", digest="d", size_bytes=1, dataset_digest="d", feature_count=1,
        target="y", row_count=1, seed=0, parameters_digest="p", code_digest="c", git_commit="unknown",
        environment_digest="e", profile_uri="runs:/r/profile.json", key="k", input_digest="i",
    )  # fmt: skip
    return GateDecision(
        verdict=verdict, mode="enforce", sentence=f"it is {verdict}", reasons=("auc is 0.5",), model=model, window=None,
        evidence_uri="runs:/r/evidence.json", decision_uri="runs:/r/decision.html", run_id="r",
    )  # fmt: skip


class Pushed(dict[str, Any]):
    """Stands in for the task instance: what the operator pushes."""

    dag_id, run_id, task_id, map_index, log_url = "d", "r", "t", -1, "http://airflow/log"

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute an operator whose step gives, or raises, what it is told; returns its XComs and the request."""

    def run(operator: Any, result: Any) -> tuple[Pushed, Any]:
        asked = []

        def step(self: InlineRuntime, request: Any, access: Any) -> Any:
            asked.append(request)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(InlineRuntime, "run", step)
        monkeypatch.setattr(MLflowHook, "server", lambda self: TrackingServer(tracking_uri="http://mlflow:5000"))
        monkeypatch.setattr(MLflowHook, "login", lambda self: None)
        ti = Pushed()
        run.ti = ti  # type: ignore[attr-defined]  # for tests that expect an exception
        operator.execute({"ti": ti, "dag_run": SimpleNamespace(run_type="manual")})
        return ti, asked[0]

    return run


def validate() -> ValidateDataOperator:
    return ValidateDataOperator(task_id="t", dataset={}, contract="c.yaml", data={"uri": "u"})


def promote() -> PromoteModelOperator:
    return PromoteModelOperator(task_id="t", version={})


def test_the_record_and_its_links_are_pushed(run: Any) -> None:
    pushed, request = run(validate(), report("warn"))

    assert pushed["return_value"]["schema"] == "validation/1"
    assert pushed["mlflow_run_link"].startswith("http://mlflow:5000/")
    assert "report.html" in pushed["report_link"]
    assert (request.key, request.run.key, request.run.experiment) == ("d/r/t/-1", "d/r", "d")


@pytest.mark.parametrize(
    ("operator", "record", "raises"),
    [
        pytest.param(validate, report("fail"), AirflowFailException, id="a failed contract fails for good"),
        pytest.param(promote, promotion("superseded"), AirflowSkipException, id="a lost race is skipped"),
        pytest.param(promote, promotion("refused"), AirflowSkipException, id="an older window is skipped"),
        pytest.param(promote, promotion("dry_run"), AirflowSkipException, id="a dry run is skipped"),
        pytest.param(promote, promotion("needs_attention"), AirflowFailException, id="a broken ledger fails"),
    ],
)
def test_a_verdict_ends_the_task_and_its_record_is_there(run: Any, operator: Any, record: Any, raises: Any) -> None:
    with pytest.raises(raises, match=record.sentence):
        run(operator(), record)

    assert run.ti["return_value"] == record.to_xcom()


@pytest.mark.parametrize(
    ("verdict", "on_hold", "raises"),
    [
        pytest.param("hold", "skip", AirflowSkipException, id="a hold is skipped"),
        pytest.param("hold", "fail", AirflowFailException, id="or fails, as configured"),
        pytest.param("needs_attention", "skip", AirflowFailException, id="what needs a person always fails"),
    ],
)
def test_the_gate_ends_with_its_reasons(run: Any, verdict: Any, on_hold: str, raises: Any) -> None:
    gate = GateModelOperator(task_id="t", report={}, gate={"rules": [], "on_hold": on_hold})

    with pytest.raises(raises, match=r"auc is 0\.5"):
        run(gate, decision(verdict))

    assert run.ti["reasons"] == [f"it is {verdict}", "auc is 0.5"]
    assert "decision.html" in run.ti["report_link"]


@pytest.mark.parametrize("verdict", ["promote", "first_model"])
def test_the_gate_lets_through(run: Any, verdict: Any) -> None:
    pushed, _ = run(GateModelOperator(task_id="t", report={}, gate={"rules": []}), decision(verdict))

    assert pushed["return_value"]["verdict"] == verdict


def test_a_verdict_of_the_step_does_not_retry(run: Any) -> None:
    with pytest.raises(AirflowFailException, match="mend it"):
        run(validate(), InvalidSpecError("mend it"))


def test_an_outage_retries(run: Any) -> None:
    with pytest.raises(TrackingUnavailableError):
        run(validate(), TrackingUnavailableError("no answer"))


def test_the_payload_can_be_templated() -> None:
    for operator, fields in (
        (validate(), {"dataset", "contract", "data"}),
        (promote(), {"version", "reason", "alias"}),
    ):
        assert fields | {"experiment", "force"} <= set(operator.template_fields)
    assert {"report", "gate"} <= set(GateModelOperator.template_fields)


@pytest.mark.parametrize(
    ("value", "expected"), [("True", True), ("true", True), ("False", False), ("", False), (True, True), (None, False)]
)
def test_flags_from_templates(value: Any, expected: bool) -> None:
    assert as_bool(value) is expected


@pytest.mark.parametrize(
    ("outcome", "run_type", "ask", "head", "events"),
    [
        pytest.param("promoted", "scheduled", False, OURS, 1, id="a promotion is news"),
        pytest.param("promoted", "backfill", False, OURS, 0, id="a backfill is silent"),
        pytest.param("promoted", "backfill", "True", OURS, 1, id="unless asked"),
        pytest.param(
            "promoted", "scheduled", False, (8, "bob"), 0, id="an entry that another has followed is old news"
        ),
        pytest.param("promoted", "scheduled", False, (7, "airflow:d/q/t"), 0, id="another run announced it"),
        pytest.param(
            "promoted", "scheduled", False, (7, "bob"), 1, id="a person on the command line announced nothing"
        ),
        pytest.param("promoted", "scheduled", False, (7, "ann (airflow:d/r/t)"), 1, id="a person approved ours"),
        pytest.param("superseded", "scheduled", False, OURS, 0, id="a lost race is no news"),
    ],
)
def test_asset_events_say_something_new(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, run_type: str, ask: Any, head: tuple[int, str], events: int
) -> None:
    alias = AssetAlias("m_champion")
    operator = PromoteModelOperator(task_id="t", version={}, outlets=[alias], emit_in_backfill=ask)
    line = SimpleNamespace(number=head[0], body=SimpleNamespace(author=head[1]))
    monkeypatch.setattr("airflow_mlops.engines.promotions.read_ledger", lambda *_: SimpleNamespace(head=line))
    monkeypatch.setattr(MLflowHook, "client", lambda self: nullcontext())
    emitted: list[Any] = []
    outlet = SimpleNamespace(add=lambda asset, extra: emitted.append(told(asset, extra)))
    record = promotion(outcome).model_copy(update={"entry": 7, "to_version": 2})

    operator.announce(
        record,
        {"ti": Pushed(), "dag_run": SimpleNamespace(run_type=run_type), "outlet_events": OutletEvents(lambda: outlet)},
    )

    assert len(emitted) == events
    for name, extra in emitted:
        assert name == "m_champion"
        assert (extra["model"], extra["version"], extra["entry"]) == ("m", 2, 7)


def test_a_reused_result_is_shown_with_the_task_that_made_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow:8080")
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL", "http://airflow:8080")  # Airflow 2.11's place for it
    train = TrainModelOperator(
        task_id="t", validation={"dataset": {}}, train={}, code_path="/c", data={}, task="binary", model_name="m"
    )
    model = decision("promote").model.model_copy(
        update={"reused_from": "train_m/manual__2013-07-01T00:00:00+00:00/train/-1"}
    )

    pushed, _ = run(train, model)

    page = "http://airflow:8080/dags/train_m/runs/manual__2013-07-01T00%3A00%3A00%2B00%3A00/tasks/train"
    if not AIRFLOW_3:
        page = (
            "http://airflow:8080/dags/train_m/grid?dag_run_id=manual__2013-07-01T00%3A00%3A00%2B00%3A00&task_id=train"
        )
    assert pushed["reused_from"] == "train_m/manual__2013-07-01T00:00:00+00:00/train/-1"
    assert pushed["reused_from_link"] == page
    fresh, _ = run(train, decision("promote").model)
    assert "reused_from" not in fresh


@pytest.mark.parametrize(
    ("key", "on_3", "on_2"),
    [
        pytest.param("d/r/t/-1", "d/runs/r/tasks/t", "d/grid?dag_run_id=r&task_id=t", id="plain"),
        pytest.param("d/r/t/3", "d/runs/r/tasks/t/mapped/3", "d/grid?dag_run_id=r&task_id=t&map_index=3", id="mapped"),
        pytest.param(
            "d/a/b/g.t/-1",
            "d/runs/a%2Fb/tasks/g.t",
            "d/grid?dag_run_id=a%2Fb&task_id=g.t",
            id="a slash in the run's id",
        ),
        pytest.param("override/m/abc", None, None, id="not a task's key"),
        pytest.param("", None, None, id="empty"),
    ],
)
@pytest.mark.parametrize("airflow_3", [True, False], ids=["Airflow 3", "Airflow 2"])
def test_a_key_leads_to_its_task_s_page(
    monkeypatch: pytest.MonkeyPatch, key: str, on_3: str | None, on_2: str | None, airflow_3: bool
) -> None:
    monkeypatch.setattr("airflow_mlops.compat.AIRFLOW_3", airflow_3, raising=False)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow:8080")
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL", "http://airflow:8080")
    page = on_3 if airflow_3 else on_2

    assert task_page(key) == (page and f"http://airflow:8080/dags/{page}")


class StuckRuntime:
    """Runs until it is stopped, and remembers that it was."""

    stopped = 0

    def run(self, request: Any, access: Any) -> Any:
        raise KeyboardInterrupt

    def stop(self) -> None:
        StuckRuntime.stopped += 1


def test_killing_the_task_stops_what_its_runtime_started(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES.builtins, "stuck", f"{__name__}:StuckRuntime")
    monkeypatch.setattr("airflow_mlops.runtimes.make_runtime", lambda name, settings: StuckRuntime())
    operator = ValidateDataOperator(task_id="t", dataset={}, contract="c.yaml", data={"uri": "u"}, runtime="stuck")
    operator.on_kill()  # nothing runs yet

    with pytest.raises(KeyboardInterrupt):
        run(operator, None)
    operator.on_kill()

    assert StuckRuntime.stopped == 1


@pytest.mark.parametrize("runtime", [{"python": "/x"}, "", None, 3], ids=str)
def test_a_runtime_that_is_none_ends_the_task_with_the_mend(run: Any, runtime: Any) -> None:
    operator = ValidateDataOperator(task_id="t", dataset={}, contract="c.yaml", data={"uri": "u"}, runtime=runtime)

    with pytest.raises(AirflowFailException, match="external_python"):
        run(operator, None)
