"""Plan, mapped tasks and policy as Airflow hands them on: the lists that tasks are mapped over, and the events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops import (
    ApplyPolicyOperator,
    DriftReport,
    PlanMonitoringOperator,
    PlanScoringOperator,
    PolicyDecision,
    ScoringPlan,
)
from airflow_mlops.compat import DAG, AirflowFailException, AirflowSkipException, AssetAlias, task
from airflow_mlops.core.monitoring_records import MonitoredWindow, ServedModel
from airflow_mlops.core.policy import request_id
from tests.support.airflow_versions import events_of
from tests.support.candidates import make_bench, month

NAME = "plan_and_policy"


def circle() -> DAG:
    """A DAG whose drift verdicts are told, so that only plans, mapping and policy are tried."""
    window = {"window_start": "{{ params.window_start }}", "window_end": "{{ params.window_end }}"}
    with DAG(NAME, schedule=None, params={"window_start": None, "window_end": None}) as dag:
        scoring = PlanScoringOperator(task_id="plan_scoring", registered_model=NAME, **window)
        monitoring = PlanMonitoringOperator(task_id="plan_monitoring", registered_model=NAME, **window)

        @task
        def score(window: Any, plan: Any) -> str:
            return f"{ScoringPlan.from_xcom(plan).model.version} on {window['start']}"

        # Else Airflow pushes each value by itself, and 3.0 cannot push None.
        @task(multiple_outputs=False)
        def detect(window: Any, monitored: Any) -> dict[str, Any]:
            report = DriftReport(
                verdict="drift", sentence="s", window=window, model=monitored["model"], reference="r", row_count=900
            )
            return report.to_xcom()

        score.partial(plan=scoring.output["plan"]).expand(window=scoring.output)
        ApplyPolicyOperator(
            task_id="act",
            drift=detect.expand_kwargs(monitoring.output),
            registered_model=NAME,
            monitoring={"drift": {"action": "retrain"}},
            outlets=[AssetAlias(name=f"{NAME}_retrain"), AssetAlias(name=f"{NAME}_champion")],
        )
        scoring >> monitoring
    return dag


def test_tasks_are_mapped_over_the_plans_and_the_policy_reads_what_they_found(
    run_dag: Callable[..., Any], mlflow_connection: str, tmp_path: Path
) -> None:
    connection, make = make_bench(mlflow_connection, tmp_path)
    bench = make(NAME)
    bench.serve(1)
    connection.__exit__(None, None, None)

    ran = run_dag(circle(), window_start="2013-03-01", window_end="2013-04-01")

    assert ran.state == "success", ran.tasks
    window = month(3).model_dump(mode="json")
    assert ran.record("plan_scoring") == [window]
    assert ran.mapped("score") == [f"1 on {window['start']}"]
    assert [one["window"] for one in ran.record("plan_monitoring")] == [window]
    decision = PolicyDecision.from_xcom(ran.record("act"))
    assert (decision.action, decision.request) == ("retrain", request_id(NAME, month(3)))
    assert ran.record("act", "reasons")[0] == decision.sentence
    assert events_of(NAME) == [
        (f"{NAME}_retrain", {"model": NAME, "window": window, "reason": decision.reason, "request": decision.request})
    ]


def run_of_three() -> DAG:
    """A DAG over three windows, of which the drift task of the second fails for good."""
    with DAG(f"{NAME}_of_three", schedule=None) as dag:

        @task
        def plan() -> list[dict[str, Any]]:
            model = ServedModel(name=f"{NAME}.three", version=1, model_uri="models:/m", artifact_uri="a")
            monitored = [MonitoredWindow(window=month(number), model=model) for number in (3, 4, 5)]
            return [
                {"window": one.window.model_dump(mode="json"), "monitored": one.model_dump(mode="json")}
                for one in monitored
            ]

        # Else Airflow pushes each value by itself, and 3.0 cannot push None.
        @task(multiple_outputs=False)
        def detect(window: Any, monitored: Any) -> dict[str, Any]:
            if monitored["window"] == month(4).model_dump(mode="json"):
                raise AirflowFailException("a file of April is gone")
            report = DriftReport(
                verdict="none", sentence="s", window=window, model=monitored["model"], reference="r", row_count=900
            )
            return report.to_xcom()

        planned = plan()
        ApplyPolicyOperator(
            task_id="act",
            drift=detect.expand_kwargs(planned),
            planned=planned,
            registered_model=f"{NAME}.three",
            trigger_rule="all_done",
        )

        @task
        def figures(window: Any, monitored: Any) -> dict[str, Any]:
            return {"window": window, "state": "final"}

        @task
        def final(window: Any, monitored: Any) -> None:
            raise AirflowSkipException("they are final already")

        ApplyPolicyOperator(
            task_id="act_on_final",
            performance=final.expand_kwargs(planned),
            planned=figures.expand_kwargs(planned),
            registered_model=f"{NAME}.three",
            trigger_rule="all_done",
        )
    return dag


def test_what_was_found_of_two_windows_is_remembered_though_the_third_failed(run_dag: Callable[..., Any]) -> None:
    ran = run_dag(run_of_three())

    assert (ran.state, ran.tasks["act"]) == ("failed", "failed")
    assert PolicyDecision.from_xcom(ran.record("act")).states == 2
    assert ran.tasks["act_on_final"] == "skipped", "there was nothing left to measure"
    assert "1 of 3 windows" in ran.record("act", "reasons")[-1]
    assert str(month(4)) in ran.record("act", "reasons")[-1]
