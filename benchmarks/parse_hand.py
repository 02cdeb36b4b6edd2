"""The DAGs that the factories make, written by hand: one function a DAG, called with a plain dict for every model.

As an engineer would write them with our operators and without our specifications: what is the same for every model is
a constant, what is not comes ready from the dict. The benchmark checks that Airflow stores the same of both.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow_mlops import (
    ApplyPolicyOperator,
    BatchScoreOperator,
    CheckServingOperator,
    DetectDriftOperator,
    EvaluateModelOperator,
    EvaluatePredictionsOperator,
    GateModelOperator,
    LabelCoverageSensor,
    PlanMonitoringOperator,
    PlanRunOperator,
    PlanScoringOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    SnapshotDataOperator,
    TrainModelOperator,
    ValidateDataOperator,
)
from airflow_mlops.compat import (
    DAG,
    Asset,
    AssetAlias,
    AssetAny,
    CronDataIntervalTimetable,
    Param,
    TaskGroup,
    task_group,
)

START = "{{ params.window_start or '' }}"
END = "{{ params.window_end or '' }}"
REASON = "{{ params.reason or '' }}"
TEXT = ["null", "string"]
SNAPSHOT_DOC = "Fixes the rows of the window as an immutable dataset version."
WAIT = timedelta(days=46)


def params(window: str, reason: str, **more: Param) -> dict[str, Param]:
    """Return the run's parameters."""
    return {
        "window_start": Param(
            None, type=TEXT, description=f"First instant of the {window}, ISO, UTC; empty: from the schedule."
        ),
        "window_end": Param(None, type=TEXT, description=f"End of the {window}, not included."),
        **more,
        "reason": Param(None, type=TEXT, description=reason),
        "force": Param(False, type="boolean", description="Make everything anew though the inputs are the same."),
    }


def defaults(model: dict[str, Any], minutes: int = 120) -> dict[str, Any]:
    """Return what all tasks of a model share."""
    return {
        "owner": model["owner"],
        "retries": 2,
        "retry_delay": timedelta(seconds=60),
        "execution_timeout": timedelta(minutes=minutes),
        "mlflow_conn_id": "mlflow_default",
        "experiment": model["name"],
        "about": model["name"],
        "force": "{{ params.force }}",
    }


def train(model: dict[str, Any]) -> DAG:
    """Train, gate and promote."""
    name = model["name"]
    with DAG(
        dag_id=f"train_{name}",
        description=model["description"],
        doc_md=model["training_doc"],
        schedule=AssetAny(Asset(name=f"{name}_retrain")),
        catchup=False,
        max_active_runs=1,
        tags=["airflow_mlops", "training", name, *model["tags"]],
        params=params(
            "evaluation window",
            "Why this run is started; kept in MLflow and in the ledger.",
            train_length=Param(None, type=TEXT, description="Training window's length; empty: 6 months."),
        ),
        default_args=defaults(model, 90),
    ) as dag:
        plan = PlanRunOperator(
            task_id="plan",
            train=model["train"]["window"],
            window_start=START,
            window_end=END,
            train_length="{{ params.train_length or '' }}",
            reason=REASON,
            summary=model["description"],
            doc_md="Settles the windows and the reason of this run and opens its parent MLflow run.",
        )
        rows = {}
        for group, window in (("training_data", "train_window"), ("evaluation_data", "evaluate_window")):
            with TaskGroup(group):
                snapshot = SnapshotDataOperator(
                    task_id="snapshot", data=model["data"], window=plan.output[window], doc_md=SNAPSHOT_DOC
                )
                rows[group] = ValidateDataOperator(
                    task_id="validate",
                    dataset=snapshot.output,
                    contract=model["contract"],
                    data=model["data"],
                    doc_md="Checks the rows against `orders_contract.yaml`; the report is linked.",
                )
        candidate = TrainModelOperator(
            task_id="train",
            validation=rows["training_data"].output,
            train=model["train"],
            code_path=model["code_path"],
            data=model["data"],
            task="binary",
            model_name=name,
            doc_md="Calls `returns_training:train` on the accepted rows and logs the model.",
        )
        rows["evaluation_data"] >> candidate
        report = EvaluateModelOperator(
            task_id="evaluate",
            model=candidate.output,
            validation=rows["evaluation_data"].output,
            evaluation=model["evaluation"],
            registered_model=name,
            seed=model["train"]["seed"],
            code_path=model["code_path"],
            doc_md="Scores candidate and champion on the same frozen rows.",
        )
        serving = CheckServingOperator(
            task_id="check_serving",
            model=candidate.output,
            serving=model["serving"],
            doc_md="Loads the logged model in a fresh interpreter and scores its input example, within limits.",
        )
        decision = GateModelOperator(
            task_id="gate",
            report=report.output,
            serving=serving.output,
            gate=model["gate"],
            doc_md="Decides; XCom `reasons` and the linked report say why.",
        )
        version = RegisterModelOperator(
            task_id="register",
            decision=decision.output,
            registered_model=name,
            doc_md="Registers the candidate: one version per task and input, however often it is retried.",
        )
        PromoteModelOperator(
            task_id="promote",
            version=version.output,
            reason="{{ params.reason or 'the gate let it through' }}",
            outlets=[AssetAlias(name=f"{name}_champion")],
            doc_md="Moves the alias `champion` by compare-and-swap over the promotion ledger.",
        )
    return dag


def score(model: dict[str, Any]) -> DAG:
    """Score batches."""
    name = model["name"]
    with DAG(
        dag_id=f"score_{name}",
        description=f"Score batches with {name}",
        doc_md=model["scoring_doc"],
        schedule=CronDataIntervalTimetable(model["scoring_cron"], timezone="Europe/Brussels"),
        start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Brussels")),
        catchup=False,
        max_active_runs=1,
        tags=["airflow_mlops", "scoring", name, *model["tags"]],
        params=params("window to score", "Why this run is started; kept in MLflow."),
        default_args=defaults(model),
    ) as dag:
        plan = PlanScoringOperator(
            task_id="plan",
            registered_model=name,
            other="previous_champion",
            window_start=START,
            window_end=END,
            reason=REASON,
            summary=model["description"],
            doc_md="Settles the windows and which version the alias `champion` stands for.",
        )

        output = model["scoring"]["output_uri"]

        @task_group
        def batch(window: Any) -> None:
            snapshot = SnapshotDataOperator(task_id="snapshot", data=model["data"], window=window, doc_md=SNAPSHOT_DOC)
            accepted = ValidateDataOperator(
                task_id="validate",
                dataset=snapshot.output,
                contract=model["contract"],
                data=model["data"],
                purpose="scoring",
                inputs=model["train"]["features"],
                target="returned",
                doc_md="Checks the rows against `orders_contract.yaml`, train-only columns left out.",
            )
            BatchScoreOperator(
                task_id="score",
                plan=plan.output["plan"],
                validation=accepted.output,
                scoring=model["scoring"],
                data=model["data"],
                task="binary",
                outlets=[AssetAlias(name=f"{name}_predictions")],
                doc_md=f"Writes the window's predictions below `{output}`, whole or not at all.",
            )

        batch.expand(window=plan.output)
    return dag


def monitor(model: dict[str, Any]) -> DAG:
    """Watch drift and performance, and act on them."""
    name = model["name"]
    with DAG(
        dag_id=f"monitor_{name}",
        description=f"Watch {name} in service",
        doc_md=model["monitoring_doc"],
        schedule=AssetAny(Asset(name=f"{name}_predictions")),
        catchup=False,
        max_active_runs=47,
        tags=["airflow_mlops", "monitoring", name, *model["tags"]],
        params=params("window to watch", "Why this run is started; kept in MLflow."),
        default_args=defaults(model),
    ) as dag:
        plan = PlanMonitoringOperator(
            task_id="plan",
            registered_model=name,
            window_start=START,
            window_end=END,
            reason=REASON,
            summary=model["description"],
            doc_md="Settles the windows, and which version scored each of them.",
        )

        def act(task_id: str, doc_md: str, **inputs: Any) -> None:
            ApplyPolicyOperator(
                task_id=task_id,
                registered_model=name,
                monitoring=model["monitoring"],
                trigger_rule="all_done",
                outlets=[AssetAlias(name=f"{name}_retrain"), AssetAlias(name=f"{name}_champion")],
                doc_md=doc_md,
                **inputs,
            )

        @task_group
        def inputs(window: Any, monitored: Any) -> Any:
            snapshot = SnapshotDataOperator(task_id="snapshot", data=model["data"], window=window, doc_md=SNAPSHOT_DOC)
            return DetectDriftOperator(
                task_id="detect_drift",
                dataset=snapshot.output,
                monitored=monitored,
                drift=model["drift"],
                data=model["data"],
                columns=model["train"]["features"],
                exclude=["returned"],
                doc_md="Compares the window with the reference profile of the version that scored it.",
            ).output

        drift = inputs.expand_kwargs(plan.output)
        act(
            "act_on_drift",
            "Remembers the verdicts and decides what follows from them.",
            drift=drift,
            planned=plan.output,
        )

        @task_group
        def outcomes(window: Any, monitored: Any) -> Any:  # noqa: ARG001  # the plan gives both
            waiting: dict[str, Any] = {
                "monitored": monitored,
                "timeout": WAIT.total_seconds(),
                "execution_timeout": WAIT,
                "mode": "reschedule",
            }
            evaluation: dict[str, Any] = {
                "monitored": monitored,
                "labels": model["labels"],
                "evaluation": model["evaluation"],
                "code_path": model["code_path"],
                "seed": model["train"]["seed"],
            }
            covered = LabelCoverageSensor(
                task_id="label_coverage",
                labels=model["labels"],
                doc_md="Waits until enough predictions have a label, or the deadline.",
                **waiting,
            )
            realised = EvaluatePredictionsOperator(
                task_id="evaluate_predictions",
                doc_md="Realised performance, beside what the evaluation promised.",
                **evaluation,
            )
            complete = LabelCoverageSensor(
                task_id="labels_complete",
                labels={**model["labels"], "coverage": 1.0},
                report=realised.output,
                doc_md="Waits until every prediction has a label, or the deadline; skipped where figures are final.",
                **waiting,
            )
            final = EvaluatePredictionsOperator(
                task_id="evaluate_final", doc_md="The figures that stay, unless labels are corrected.", **evaluation
            )
            covered >> realised >> complete >> final
            return realised.output, final.output

        first, last = outcomes.expand_kwargs(plan.output)
        act(
            "act_on_performance",
            "Remembers the figures and decides what follows from them.",
            performance=first,
            planned=plan.output,
        )
        act(
            "act_on_final",
            "The same for windows whose first figures were provisional.",
            performance=last,
            planned=first,
        )
    return dag


def all_dags(models: list[dict[str, Any]]) -> dict[str, DAG]:
    """Return every DAG of every model, by its id."""
    made = [make(model) for model in models for make in (train, score, monitor) if make is train or "scoring" in model]
    return {dag.dag_id: dag for dag in made}
