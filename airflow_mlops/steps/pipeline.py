"""The training loop without a scheduler: the same steps, in the same order, for a notebook or a shell."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.records import (
    DatasetVersion,
    EvaluationReport,
    GateDecision,
    ModelVersionRef,
    Promotion,
    Record,
    RunPlan,
    ServingReport,
    TrainedModel,
    ValidationReport,
    Window,
)
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import code_folder, contract_file, data_settings
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What one pass of the loop made. What it did not get to is None; ``ended`` says in words where it stopped."""

    plan: RunPlan
    training_data: ValidationReport | None = None
    evaluation_data: ValidationReport | None = None
    model: TrainedModel | None = None
    report: EvaluationReport | None = None
    serving: ServingReport | None = None
    decision: GateDecision | None = None
    version: ModelVersionRef | None = None
    promotion: Promotion | None = None
    ended: str = ""
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return every record as a plain JSON object, with ``ended`` and ``failed``."""
        return {name: value.to_xcom() if isinstance(value, Record) else value for name, value in vars(self).items()}


def run_training(
    spec: ModelSpec,
    *,
    window: Window,
    access: Access,
    train_length: str | None = None,
    reason: str = "run outside Airflow",
    author: str = "",
    promote: bool = True,
    force: bool = False,
    progress: Callable[[str, Record], None] = lambda name, record: None,
) -> TrainingOutcome:
    """Plan, snapshot, validate, train, evaluate, check serving, gate, register and promote ``spec`` for one window.

    Where the gate asks for a person's approval the run ends with the candidate registered; ``ended`` says how to
    approve it. Every step runs in this process, whatever runtime the specification names.

    The run's key is the model and the window, so asking again adopts what exists; the inputs are the DAG's, so the
    model is the DAG's.

    :param window: the anchor window, on which the candidate is evaluated.
    :param train_length: replaces the specification's training length, such as ``"1 month"``.
    :param author: who runs it, for the promotion ledger.
    :param promote: False stops after the gate: nothing is registered and no alias moves.
    :param force: make everything anew.
    :param progress: called with each step's name and record as soon as it is there.
    :raises VerdictError: the specification, data or model is wrong; the message says what to mend.
    :raises OutageError: MLflow or the store did not answer.
    """
    run = RunInfo(
        key=f"run/{spec.name}/{window.start.isoformat()}/{window.end.isoformat()}/{train_length or ''}",
        name=f"{spec.name} {window}",
        experiment=spec.experiment_name,
        tags={"airflow_mlops.model": spec.name, "airflow_mlops.author": author},
    )

    def step(step_name: str, task_id: str, /, **payload: Any) -> Any:
        key = f"{run.key}/{task_id}/-1"
        record = perform(StepRequest(step=step_name, key=key, run=run, payload=_plain(payload), force=force), access)
        progress(task_id, record)
        return record

    data = data_settings(spec)
    code_path = str(code_folder(spec))
    train = spec.train.model_dump(mode="json")
    plan: RunPlan = step(
        "plan",
        "plan",
        window=window,
        train=spec.train.window.model_dump(mode="json"),
        train_length=train_length,
        reason=reason,
        summary=spec.description,
    )
    made: dict[str, Any] = {"plan": plan}
    for group, part in (("training_data", plan.train_window), ("evaluation_data", plan.evaluate_window)):
        dataset: DatasetVersion = step("snapshot", f"{group}.snapshot", data=data, window=part)
        checked: ValidationReport = step(
            "validate", f"{group}.validate", dataset=dataset, contract=contract_file(spec), data=data
        )
        made[group] = checked
        if checked.is_failure:
            return TrainingOutcome(**made, ended=checked.said, failed=True)
    made["model"] = step(
        "train",
        "train",
        dataset=made["training_data"].dataset,
        validation_run_id=made["training_data"].run_id,
        train=train,
        code_path=code_path,
        data=data,
        task=spec.evaluation.task,
        model_name=spec.name,
    )
    made["report"] = step(
        "evaluate",
        "evaluate",
        model=made["model"],
        dataset=made["evaluation_data"].dataset,
        validation_run_id=made["evaluation_data"].run_id,
        evaluation=spec.evaluation.model_dump(mode="json"),
        registered_model=spec.registered_model,
        alias=spec.promotion.alias,
        seed=spec.train.seed,
        code_path=code_path,
    )
    if spec.serving.check:
        served: ServingReport = step(
            "serving", "check_serving", model=made["model"], serving=spec.serving.model_dump(mode="json")
        )
        made["serving"] = served
        if served.is_failure:
            return TrainingOutcome(**made, ended=served.sentence, failed=True)
    decision: GateDecision = step(
        "gate",
        "gate",
        report=made["report"],
        gate=spec.gate.model_dump(mode="json"),
        serving=made.get("serving"),
    )
    made["decision"] = decision
    if not decision.lets_through or not promote:
        return TrainingOutcome(**made, ended=f"{decision.verdict}: {decision.sentence}", failed=decision.is_failure)
    made["version"] = step("register", "register", decision=decision, registered_model=spec.registered_model)
    version: ModelVersionRef = made["version"]
    if decision.verdict == "needs_approval":
        approve = f"airflow-mlops promote {version.name} {version.version} --approve --reason 'WHY'"
        alias = "" if spec.promotion.alias == "champion" else f" --alias {spec.promotion.alias}"
        return TrainingOutcome(**made, ended=f"needs_approval: {decision.sentence} To approve it: {approve}{alias}")
    promotion: Promotion = step(
        "promote", "promote", version=made["version"], alias=spec.promotion.alias, author=author, reason=reason
    )
    return TrainingOutcome(
        **made, promotion=promotion, ended=f"{promotion.outcome}: {promotion.sentence}", failed=promotion.is_failure
    )


def _plain(payload: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.to_xcom()
        if isinstance(value, Record)
        else value.model_dump(mode="json")
        if isinstance(value, Window)
        else value
        for name, value in payload.items()
    }
