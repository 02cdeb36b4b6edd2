"""An Airflow DAG written by hand, with operators only: two parameter sets are trained side by side, the best is judged.

The same steps as ``training_dag`` composes from a specification, for whoever needs another shape: every month of the
training window is checked on its own (``expand`` over windows), and ``train`` and ``evaluate`` are mapped over
parameter sets. Choosing the best on the very rows that then judge it flatters it a little; with many sets keep a window
apart.
"""

from datetime import timedelta
from pathlib import Path

from airflow_mlops import (
    CheckServingOperator,
    EvaluateModelOperator,
    GateModelOperator,
    PlanRunOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    SnapshotDataOperator,
    TrainModelOperator,
    ValidateDataOperator,
)
from airflow_mlops.compat import DAG, AssetAlias, Param, task

HERE = Path(__file__).parent
DATA = {
    "uri": str(HERE.parent / "lake" / "flights"),
    "event_time": "event_time",
    "id_columns": ["flight", "tailnum"],
}
CONTRACT = str(HERE / "flights_contract.yaml")
TRAIN = {
    "function": "flights_training:train",
    "flavor": "sklearn",
    "serialization": "cloudpickle",
    "target": "late",
    "features": ["carrier", "origin", "dest", "scheduled_minute", "weekday", "distance", "precip", "visib"],
    "seed": 7,
    "window": {"length": "2 months"},
}
PARAMETERS = [
    {"max_iter": 30, "learning_rate": 0.1, "min_samples_leaf": 100},
    {"max_iter": 60, "learning_rate": 0.05, "min_samples_leaf": 100},
]
EVALUATION = {"task": "binary", "metrics": ["roc_auc", "log_loss"], "bootstrap_draws": 1000}
GATE = {
    "rules": [
        {"rule": "at_least", "metric": "roc_auc", "value": 0.6},
        {"rule": "better_than_champion", "metric": "roc_auc"},
    ]
}


@task
def months(window):
    """Return the calendar months of a window, as windows."""
    from airflow_mlops import Window

    whole = Window.model_validate(window)
    found, start = [], whole.start
    while start < whole.end:
        after = (start.replace(day=1) + timedelta(days=32)).replace(day=1)
        found.append(Window(start=start, end=min(after, whole.end)).model_dump(mode="json"))
        start = after
    return found


@task(multiple_outputs=True)
def best(reports):
    """Return the report of the candidate with the largest AUC; one without an AUC comes last.

    ``multiple_outputs``: other tasks can then take the whole report, or a part of it such as ``chosen["model"]``.
    """
    return max(reports, key=lambda report: report["metrics"]["roc_auc"] or 0.0)


with DAG(
    dag_id="flights_by_hand",
    description="Train two parameter sets on the flights and judge the better one",
    schedule=None,
    catchup=False,
    tags=["airflow_mlops", "flights", "by_hand"],
    params={
        "window_start": Param(type="string", description="First instant of the evaluation window, ISO, UTC."),
        "window_end": Param(type="string", description="Its end, not included."),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5), "experiment": "flights_by_hand"},
    doc_md=__doc__,
):
    plan = PlanRunOperator(
        task_id="plan",
        train=TRAIN["window"],
        window_start="{{ params.window_start }}",
        window_end="{{ params.window_end }}",
    )
    monthly = SnapshotDataOperator.partial(task_id="snapshot_month", data=DATA).expand(
        window=months(plan.output["train_window"])
    )
    checked = ValidateDataOperator.partial(task_id="validate_month", contract=CONTRACT, data=DATA).expand(
        dataset=monthly.output
    )
    accepted = {}
    for name in ("train_window", "evaluate_window"):
        rows = SnapshotDataOperator(task_id=f"snapshot_{name}", data=DATA, window=plan.output[name])
        accepted[name] = ValidateDataOperator(
            task_id=f"validate_{name}", dataset=rows.output, contract=CONTRACT, data=DATA
        )
    candidates = TrainModelOperator.partial(
        task_id="train",
        validation=accepted["train_window"].output,
        code_path=str(HERE),
        data=DATA,
        task="binary",
        model_name="flights_by_hand",
    ).expand(train=[{**TRAIN, "parameters": parameters} for parameters in PARAMETERS])
    checked >> candidates
    reports = EvaluateModelOperator.partial(
        task_id="evaluate",
        validation=accepted["evaluate_window"].output,
        evaluation=EVALUATION,
        registered_model="flights_by_hand",
    ).expand(model=candidates.output)
    chosen = best(reports.output)
    serving = CheckServingOperator(task_id="check_serving", model=chosen["model"])
    decision = GateModelOperator(task_id="gate", report=chosen, serving=serving.output, gate=GATE)
    version = RegisterModelOperator(task_id="register", decision=decision.output, registered_model="flights_by_hand")
    PromoteModelOperator(
        task_id="promote",
        version=version.output,
        reason="the better of two parameter sets",
        outlets=[AssetAlias("flights_by_hand_champion")],
    )
