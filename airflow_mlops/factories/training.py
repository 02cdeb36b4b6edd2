"""From a model specification to its training DAG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_mlops.compat import DAG, AssetAlias, Param, TaskGroup
from airflow_mlops.core.gate import check_rules
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.factories.parts import (
    TEXT,
    champion_asset_name,
    check_runtimes,
    dag_with,
    manual_schedule,
    notifications,
    start_date,
    task_defaults,
    timetable,
    window_params,
)
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.model import EvaluateModelOperator, GateModelOperator, TrainModelOperator
from airflow_mlops.operators.plan import PlanRunOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.serving import CheckServingOperator
from airflow_mlops.spec import naming
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import code_folder, contract_file, data_settings


def training_dag(spec: ModelSpec, *, dag_id: str | None = None) -> DAG:
    """Plan, snapshot, validate, train, evaluate, check serving, gate, register, approve, promote: one DAG, one model.

    ``check_serving`` and ``approve`` are there where the specification asks for them.

    :param spec: the model's specification.
    :param dag_id: default ``train_NAME``, with profile and owner outside production.
    :raises InvalidSpecError: a gate rule, a runtime or a file that the specification names does not exist.
    """
    try:
        check_rules(spec.gate.rules)
    except InvalidSpecError as exc:
        raise type(exc)(f"Model {spec.name!r}: {exc}") from exc
    check_runtimes(spec)
    contract = contract_file(spec)
    if not Path(contract).is_file():
        raise InvalidSpecError(
            f"Model {spec.name!r}: contract.path leads to {contract}, which is no file. Create it, or correct the path "
            f"(it starts from the specification's folder)."
        )
    data = data_settings(spec)
    train = spec.train.model_dump(mode="json")
    code_path = str(code_folder(spec))
    told = notifications(spec)
    with dag_with(
        _params(spec),
        dag_id=dag_id or naming.dag_id(f"train_{spec.name}", spec.profile, spec.owner),
        description=spec.description or f"Train, gate and promote {spec.name}",
        doc_md=describe(spec),
        schedule=timetable(spec, spec.schedule),
        start_date=start_date(spec.schedule),
        catchup=spec.schedule.catchup,
        max_active_runs=spec.schedule.max_active_runs,
        tags=sorted({"airflow_mlops", "training", spec.name, *spec.tags}),
        default_args=task_defaults(spec, spec.schedule),
    ) as dag:
        plan = PlanRunOperator(
            task_id="plan",
            runtime=spec.runtime_of("plan").written,
            train=spec.train.window.model_dump(mode="json"),
            window_start="{{ params.window_start or '' }}",
            window_end="{{ params.window_end or '' }}",
            train_length="{{ params.train_length or '' }}",
            reason="{{ params.reason or '' }}",
            manual_schedule=manual_schedule(spec.schedule),
            summary=spec.description,
            doc_md="Settles the windows and the reason of this run and opens its parent MLflow run.",
        )
        accepted = {}
        for group, window in (("training_data", "train_window"), ("evaluation_data", "evaluate_window")):
            with TaskGroup(group):
                snapshot = SnapshotDataOperator(
                    task_id="snapshot",
                    runtime=spec.runtime_of("snapshot").written,
                    data=data,
                    window=plan.output[window],
                    doc_md="Fixes the rows of the window as an immutable dataset version.",
                )
                accepted[group] = ValidateDataOperator(
                    task_id="validate",
                    runtime=spec.runtime_of("validate").written,
                    dataset=snapshot.output,
                    contract=contract,
                    data=data,
                    notifications=told,
                    doc_md=f"Checks the rows against `{spec.contract.path}`; the report is linked.",
                )
        candidate = TrainModelOperator(
            task_id="train",
            runtime=spec.runtime_of("train").written,
            validation=accepted["training_data"].output,
            train=train,
            code_path=code_path,
            data=data,
            task=spec.evaluation.task,
            model_name=spec.name,
            doc_md=f"Calls `{spec.train.function}` on the accepted rows and logs the model.",
        )
        # Training costs most, so rows that the model could not be evaluated on stop the run before it.
        accepted["evaluation_data"] >> candidate
        report = EvaluateModelOperator(
            task_id="evaluate",
            runtime=spec.runtime_of("evaluate").written,
            model=candidate.output,
            validation=accepted["evaluation_data"].output,
            evaluation=spec.evaluation.model_dump(mode="json"),
            registered_model=spec.registered_model,
            alias=spec.promotion.alias,
            seed=spec.train.seed,
            code_path=code_path,
            doc_md="Scores candidate and champion on the same frozen rows.",
        )
        serving = None
        if spec.serving.check:
            serving = CheckServingOperator(
                task_id="check_serving",
                runtime=spec.runtime_of("serving").written,
                model=candidate.output,
                serving=spec.serving.model_dump(mode="json"),
                doc_md="Loads the logged model in a fresh interpreter and scores its input example, within limits.",
            )
        decision = GateModelOperator(
            task_id="gate",
            runtime=spec.runtime_of("gate").written,
            report=report.output,
            serving=None if serving is None else serving.output,
            gate=spec.gate.model_dump(mode="json"),
            notifications=told,
            doc_md="Decides; XCom `reasons` and the linked report say why.",
        )
        # From here on the registered model is written to, which may be another login's right.
        writes: dict[str, Any] = {"mlflow_conn_id": spec.promotion_connection_id}
        version = RegisterModelOperator(
            task_id="register",
            runtime=spec.runtime_of("register").written,
            decision=decision.output,
            registered_model=spec.registered_model,
            doc_md="Registers the candidate: one version per task and input, however often it is retried.",
            **writes,
        )
        approval = None
        if spec.gate.approval.when != "never":
            # Imported here: what Airflow asks people with is paid for only where somebody is asked.
            from airflow_mlops.operators.approval import ApproveModelOperator

            approval = ApproveModelOperator(
                task_id="approve",
                version=version.output,
                alias=spec.promotion.alias,
                timeout_hours=spec.gate.approval.timeout_hours,
                assignees=spec.gate.approval.assignees,
                doc_md="Waits for a person where the gate asks for one: in Airflow's Required Actions, or through "
                f"`airflow-mlops promote {spec.registered_model} --approve --reason WHY`.",
                **writes,
            )
        PromoteModelOperator(
            task_id="promote",
            runtime=spec.runtime_of("promote").written,
            version=version.output,
            approval=None if approval is None else approval.output,
            alias=spec.promotion.alias,
            reason="{{ params.reason or 'the gate let it through' }}",
            outlets=[AssetAlias(name=champion_asset_name(spec))],
            notifications=told,
            doc_md=f"Moves the alias `{spec.promotion.alias}` by compare-and-swap over the promotion ledger.",
            **writes,
        )
    return dag


def describe(spec: ModelSpec) -> str:
    """Return the DAG's documentation, made from the specification."""
    rules = "\n".join(
        f"| {rule.rule} | {', '.join(f'{key} {value}' for key, value in rule.settings.items())} |"
        for rule in spec.gate.rules
    )
    window = spec.train.window
    return f"""### {spec.name}

{spec.description}

| | |
|---|---|
| Owner | {spec.owner} |
| Data | `{spec.data.uri}` ({spec.data.format}), windows over `{spec.data.event_time or "no column: every row"}` |
| Contract | `{spec.contract.path}` |
| Training | `{spec.train.function}` ({spec.train.flavor}), on {window.length} ending {window.gap} before the window |
| Evaluation | {spec.evaluation.task}: {", ".join(spec.evaluation.metrics)} |
| Registered model | `{spec.registered_model}`, alias `{spec.promotion.alias}` |
| Serving check | {_serving_words(spec)} |
| Gate | {spec.gate.mode}, on hold: {spec.gate.on_hold} |
| Approval | {_approval_words(spec)} |
| Runs | {spec.runtime.name}{_other_runtimes(spec)} |

**Gate rules**

| Rule | Settings |
|---|---|
{rules}

Trigger by hand with `window_start` and `window_end` (the end is not included); `train_length` overrides the training
window's length for one run.
"""


def _serving_words(spec: ModelSpec) -> str:
    serving = spec.serving
    if not serving.check:
        return "none"
    return f"{serving.env} environment, {serving.timeout_seconds:g} s, {serving.memory_mb} MiB"


def _approval_words(spec: ModelSpec) -> str:
    approval = spec.gate.approval
    if approval.when == "never":
        return "no person is asked"
    return f"{approval.when.replace('_', ' ')}, a hold after {approval.timeout_hours:g} hours"


def _other_runtimes(spec: ModelSpec) -> str:
    return "".join(f", {step}: {runtime.name}" for step, runtime in spec.step_runtimes.items())


def _params(spec: ModelSpec) -> dict[str, Param]:
    return {
        **window_params("evaluation window"),
        "train_length": Param(
            None, type=TEXT, description=f"Training window's length; empty: {spec.train.window.length}."
        ),
        "reason": Param(None, type=TEXT, description="Why this run is started; kept in MLflow and in the ledger."),
        "force": Param(False, type="boolean", description="Make everything anew though the inputs are the same."),
    }
