"""From a model specification to its scoring DAG."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow_mlops.compat import DAG, AssetAlias, task_group
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.factories.parts import (
    check_runtimes,
    dag_with,
    manual_schedule,
    notifications,
    predictions_asset_name,
    run_params,
    start_date,
    task_defaults,
    timetable,
)
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.plan_scoring import PlanScoringOperator
from airflow_mlops.operators.scoring import BatchScoreOperator
from airflow_mlops.sensors.data import DataArrivalSensor
from airflow_mlops.spec import naming
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import contract_file, data_settings, scored_data, scoring_settings


def scoring_dag(spec: ModelSpec, *, dag_id: str | None = None) -> DAG:
    """Plan, then for every window of the run: wait for data, snapshot, check the contract, score. One DAG, one model.

    The plan resolves the alias to a version, once, for all of the run's windows. ``wait`` and ``validate`` are there
    where the specification asks for them. Every window goes through by itself: one that is held up holds up no other.

    :param spec: the model's specification, with ``scoring``.
    :param dag_id: default ``score_NAME``, with profile and owner outside production.
    :raises InvalidSpecError: the specification has no ``scoring``, or names a file or runtime that does not exist.
    """
    settings = scoring_settings(spec)
    scoring = spec.scoring
    assert scoring is not None  # noqa: S101  # scoring_settings has refused it
    check_runtimes(spec)
    contract = contract_file(spec)
    if scoring.check_contract and not Path(contract).is_file():
        raise InvalidSpecError(
            f"Model {spec.name!r}: contract.path leads to {contract}, which is no file. Create it, correct the path "
            f"(it starts from the specification's folder), or set scoring.check_contract to false."
        )
    data = data_settings(spec, scored_data(spec))
    with dag_with(
        run_params("window to score"),
        dag_id=dag_id or naming.dag_id(f"score_{spec.name}", spec.profile, spec.owner),
        description=f"Score batches with {spec.registered_model}",
        doc_md=describe(spec),
        schedule=timetable(spec, scoring.schedule),
        start_date=start_date(scoring.schedule),
        catchup=scoring.schedule.catchup,
        max_active_runs=scoring.schedule.max_active_runs,
        tags=sorted({"airflow_mlops", "scoring", spec.name, *spec.tags}),
        default_args=task_defaults(spec, scoring.schedule),
    ) as dag:
        plan = PlanScoringOperator(
            task_id="plan",
            runtime=spec.runtime_of("plan_scoring").written,
            registered_model=spec.registered_model,
            alias=spec.promotion.alias,
            other=scoring.shadow or (scoring.split.alias if scoring.split else None),
            window_start="{{ params.window_start or '' }}",
            window_end="{{ params.window_end or '' }}",
            reason="{{ params.reason or '' }}",
            manual_schedule=manual_schedule(scoring.schedule),
            summary=spec.description,
            doc_md=f"Settles the windows and which version the alias `{spec.promotion.alias}` stands for.",
        )

        def batch(window: Any) -> None:
            snapshot = SnapshotDataOperator(
                task_id="snapshot",
                runtime=spec.runtime_of("snapshot").written,
                data=data,
                window=window,
                doc_md="Fixes the rows of the window as an immutable dataset version.",
            )
            if scoring.wait is not None:
                arrived = DataArrivalSensor(
                    task_id="wait_for_data",
                    data=data,
                    window=window,
                    settle_minutes=scoring.wait.settle_minutes,
                    every=None if scoring.wait.every is None else str(scoring.wait.every),
                    poke_interval=scoring.wait.poll_seconds,
                    timeout=scoring.wait.timeout_hours * 3600,
                    # Waiting has its own limit, which is longer than a working task's.
                    execution_timeout=timedelta(hours=scoring.wait.timeout_hours + 1),
                    mode="reschedule",
                    doc_md="Waits until the window's data is there and has stopped changing.",
                )
                arrived >> snapshot
            accepted = None
            if scoring.check_contract:
                accepted = ValidateDataOperator(
                    task_id="validate",
                    runtime=spec.runtime_of("validate").written,
                    dataset=snapshot.output,
                    contract=contract,
                    data=data,
                    purpose="scoring",
                    inputs=list(spec.train.features) if spec.train.features else None,
                    target=spec.train.target,
                    notifications=notifications(spec),
                    doc_md=f"Checks the rows against `{spec.contract.path}`, train-only columns left out.",
                )
            BatchScoreOperator(
                task_id="score",
                runtime=spec.runtime_of("score").written,
                plan=plan.output["plan"],
                validation=None if accepted is None else accepted.output,
                dataset=snapshot.output if accepted is None else None,
                scoring=settings,
                data=data,
                task=spec.evaluation.task,
                outlets=[AssetAlias(name=predictions_asset_name(spec))],
                doc_md=f"Writes the window's predictions below `{settings['output_uri']}`, whole or not at all.",
            )

        task_group(group_id="batch")(batch).expand(window=plan.output)
    return dag


def describe(spec: ModelSpec) -> str:
    """Return the DAG's documentation, made from the specification."""
    scoring = spec.scoring
    assert scoring is not None  # noqa: S101  # callers have one
    return f"""### Scoring with {spec.name}

{spec.description}

| | |
|---|---|
| Owner | {spec.owner} |
| Model | `{spec.registered_model}`, alias `{spec.promotion.alias}`, resolved once a run |
| Rows | `{scored_data(spec).uri}` ({scored_data(spec).format}) |
| Contract | {f"`{spec.contract.path}`, train-only columns left out" if scoring.check_contract else "not checked"} |
| Predictions | one Parquet file a window below `{scoring.output_uri}` |
| Second version | {_second(spec)} |
| Event | Asset `{predictions_asset_name(spec)}`, one for each published batch; none in backfills |

Trigger by hand with `window_start` and `window_end` (the end is not included).
"""


def _second(spec: ModelSpec) -> str:
    scoring = spec.scoring
    if scoring is not None and scoring.shadow:
        return f"`{scoring.shadow}` scores every row in shadow"
    if scoring is not None and scoring.split:
        return f"alias `{scoring.split.alias}` answers {scoring.split.share:.0%} of the entities"
    return "none"
