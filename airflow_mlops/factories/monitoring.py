"""From a model specification to the DAG that watches it in service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.compat import DAG, AssetAlias, task_group
from airflow_mlops.core.drift import check_methods
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.factories.parts import (
    AnyAsset,
    champion_asset_name,
    check_runtimes,
    dag_with,
    manual_schedule,
    notifications,
    predictions_asset_name,
    retrain_asset_name,
    run_params,
    start_date,
    task_defaults,
    timetable,
)
from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.drift import DetectDriftOperator
from airflow_mlops.operators.performance import EvaluatePredictionsOperator
from airflow_mlops.operators.plan_monitoring import PlanMonitoringOperator
from airflow_mlops.operators.policy import ApplyPolicyOperator
from airflow_mlops.sensors.labels import LabelCoverageSensor
from airflow_mlops.spec import naming
from airflow_mlops.spec.model import ModelSpec, ScheduleSpec
from airflow_mlops.spec.resolve import code_folder, data_settings, label_settings, scored_data

#: Runs wait for labels side by side; each keeps the window it watches. More where labels are waited for longer.
RUNS_THAT_WAIT = 16


def monitoring_dag(spec: ModelSpec, *, dag_id: str | None = None) -> DAG:
    """For every window of the run: drift, then the policy; labels, performance, then the policy again.

    Drift is judged and acted on at once. Performance follows when enough labels are there, which may be weeks later;
    both decisions read the same memory, one MLflow run a window, so one breach has one consequence.

    :param spec: the model's specification; without ``labels`` performance is not watched.
    :param dag_id: default ``monitor_NAME``, with profile and owner outside production.
    :raises InvalidSpecError: the specification names a runtime or a drift method that does not exist.
    """
    check_runtimes(spec)
    if spec.drift.engine == "statistics":
        try:
            check_methods(spec.drift)
        except InvalidSpecError as exc:
            raise type(exc)(f"Model {spec.name!r}: {exc}") from exc
    schedule = spec.monitoring.schedule
    settings = schedule or ScheduleSpec()
    clock = timetable(spec, settings)
    data = data_settings(spec, scored_data(spec))
    policy: dict[str, Any] = {
        "runtime": spec.runtime_of("policy").written,
        "monitoring": spec.monitoring.model_dump(mode="json", exclude={"schedule"}),
        "registered_model": spec.registered_model,
        "alias": spec.promotion.alias,
        # What was found of the other windows is remembered and acted on though one window's task failed.
        "trigger_rule": "all_done",
        "outlets": [
            AssetAlias(name=retrain_asset_name(spec)),
            AssetAlias(name=champion_asset_name(spec)),
        ],
        "notifications": notifications(spec),
    }
    with dag_with(
        run_params("window to watch"),
        dag_id=dag_id or naming.dag_id(f"monitor_{spec.name}", spec.profile, spec.owner),
        description=f"Watch {spec.registered_model} in service",
        doc_md=describe(spec),
        # A schedule that only says how tasks are treated leaves the default.
        schedule=AnyAsset(predictions_asset_name(spec)) if clock is None else clock,
        start_date=start_date(settings),
        catchup=settings.catchup,
        max_active_runs=_runs_at_a_time(spec),
        tags=sorted({"airflow_mlops", "monitoring", spec.name, *spec.tags}),
        default_args=task_defaults(spec, settings),
    ) as dag:
        plan = PlanMonitoringOperator(
            task_id="plan",
            runtime=spec.runtime_of("plan_monitoring").written,
            registered_model=spec.registered_model,
            alias=spec.promotion.alias,
            window_start="{{ params.window_start or '' }}",
            window_end="{{ params.window_end or '' }}",
            reason="{{ params.reason or '' }}",
            manual_schedule=manual_schedule(settings),
            summary=spec.description,
            doc_md="Settles the windows, and which version scored each of them.",
        )

        def inputs(window: Any, monitored: Any) -> Any:
            snapshot = SnapshotDataOperator(
                task_id="snapshot",
                runtime=spec.runtime_of("snapshot").written,
                data=data,
                window=window,
                doc_md="Fixes the rows of the window as an immutable dataset version.",
            )
            return DetectDriftOperator(
                task_id="detect_drift",
                runtime=spec.runtime_of("drift").written,
                dataset=snapshot.output,
                monitored=monitored,
                drift=spec.drift.model_dump(mode="json"),
                data=data,
                columns=list(spec.drift.columns or spec.train.features or []) or None,
                exclude=[spec.train.target, *([spec.train.weights] if spec.train.weights else [])],
                doc_md="Compares the window with the reference profile of the version that scored it.",
            ).output

        drift = task_group(group_id="inputs")(inputs).expand_kwargs(plan.output)
        ApplyPolicyOperator(
            task_id="act_on_drift",
            drift=drift,
            planned=plan.output,
            doc_md="Remembers the verdicts and decides what follows from them.",
            **policy,
        )
        if spec.labels is not None:
            labels = label_settings(spec)
            limit = timedelta(days=1) + timedelta(seconds=_seconds(spec))

            def outcomes(window: Any, monitored: Any) -> tuple[Any, Any]:  # noqa: ARG001  # the plan gives both
                def await_labels(task_id: str, doc_md: str, **settings: Any) -> LabelCoverageSensor:
                    return LabelCoverageSensor(
                        task_id=task_id,
                        monitored=monitored,
                        # The deadline ends the waiting; Airflow's own limits only catch what hangs.
                        timeout=limit.total_seconds(),
                        execution_timeout=limit,
                        mode="reschedule",
                        doc_md=doc_md,
                        **settings,
                    )

                def evaluate(task_id: str, doc_md: str) -> EvaluatePredictionsOperator:
                    return EvaluatePredictionsOperator(
                        task_id=task_id,
                        runtime=spec.runtime_of("performance").written,
                        monitored=monitored,
                        labels=labels,
                        evaluation=spec.evaluation.model_dump(mode="json"),
                        code_path=str(code_folder(spec)),
                        seed=spec.train.seed,
                        doc_md=doc_md,
                    )

                covered = await_labels(
                    "label_coverage", "Waits until enough predictions have a label, or the deadline.", labels=labels
                )
                realised = evaluate(
                    "evaluate_predictions", "Realised performance, beside what the evaluation promised."
                )
                complete = await_labels(
                    "labels_complete",
                    "Waits until every prediction has a label, or the deadline; skipped where figures are final.",
                    labels={**labels, "coverage": 1.0},
                    report=realised.output,
                )
                final = evaluate("evaluate_final", "The figures that stay, unless labels are corrected.")
                covered >> realised >> complete >> final
                return realised.output, final.output

            first, last = task_group(group_id="outcomes")(outcomes).expand_kwargs(plan.output)
            ApplyPolicyOperator(
                task_id="act_on_performance",
                performance=first,
                planned=plan.output,
                doc_md="Remembers the figures and decides what follows from them.",
                **policy,
            )
            ApplyPolicyOperator(
                task_id="act_on_final",
                performance=last,
                # Skipped where all of these were final.
                planned=first,
                doc_md="The same for windows whose first figures were provisional.",
                **policy,
            )
    return dag


def _runs_at_a_time(spec: ModelSpec) -> int:
    """Return what the schedule says, else enough for one run a day to wait until its deadline for labels.

    One run more than that would be queued, and the drift in its window be seen only when an older run is over.
    """
    schedule = spec.monitoring.schedule
    if schedule is not None and (spec.labels is None or "max_active_runs" in schedule.model_fields_set):
        return schedule.max_active_runs
    return RUNS_THAT_WAIT if spec.labels is None else max(RUNS_THAT_WAIT, int(_seconds(spec) // 86_400) + 2)


def _started_by(spec: ModelSpec) -> str:
    schedule = spec.monitoring.schedule
    if schedule is None or timetable(spec, schedule) is None:
        return f"Asset `{predictions_asset_name(spec)}`"
    return "its schedule"


def _seconds(spec: ModelSpec) -> float:
    assert spec.labels is not None  # noqa: S101  # callers have some
    begin = datetime(2001, 1, 1, tzinfo=UTC)
    return (spec.labels.deadline.after(begin) - begin).total_seconds()


def describe(spec: ModelSpec) -> str:
    """Return the DAG's documentation, made from the specification."""
    drift, monitoring = spec.drift, spec.monitoring
    share = f", and {drift.min_share:.0%} of them," if drift.min_share else ""
    rule = monitoring.performance
    performance = (
        "not watched"
        if rule is None
        else f"{rule.metric} worse than promised by more than {rule.max_drop:g}, {rule.breaches} of the last "
        f"{rule.of_last} windows: {rule.action}"
    )
    labels = (
        f"`{spec.labels.data.uri}`, {spec.labels.coverage:.0%} or {spec.labels.deadline}" if spec.labels else "none"
    )
    return f"""### Watching {spec.name}

{spec.description}

| | |
|---|---|
| Owner | {spec.owner} |
| Started by | {_started_by(spec)} |
| Reference | the profile logged with the version that scored the window |
| Drift | {drift.min_columns} or more columns{share} beyond their threshold ({drift.engine}) |
| On drift | {monitoring.drift.breaches} of the last {monitoring.drift.of_last} windows: {monitoring.drift.action} |
| Performance | {performance} |
| Labels | {labels} |
| Cool-down | {monitoring.cool_down} |
| Event | Asset `{retrain_asset_name(spec)}`, one for each retrain that is asked for |
"""
