"""One model specification becomes production machine learning on Airflow and MLflow.

The public names load when they are asked for, so that importing the package costs nothing while a DAG file is parsed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.core.monitoring_records import (
        DriftReport,
        MonitoringPlan,
        PerformanceReport,
        PolicyDecision,
        ScoringPlan,
        ScoringReport,
    )
    from airflow_mlops.core.records import (
        Approval,
        DatasetVersion,
        EvaluationReport,
        GateDecision,
        ModelVersionRef,
        Promotion,
        RuleResult,
        RunPlan,
        TrainedModel,
        ValidationReport,
        Window,
    )
    from airflow_mlops.core.training import TrainingFunction, TrainingResult
    from airflow_mlops.engines.login import Login
    from airflow_mlops.engines.tracking import TrackingServer
    from airflow_mlops.factories.fleet import load_models
    from airflow_mlops.factories.monitoring import monitoring_dag
    from airflow_mlops.factories.scoring import scoring_dag
    from airflow_mlops.factories.training import training_dag
    from airflow_mlops.hooks.mlflow import MLflowHook
    from airflow_mlops.operators.approval import ApproveModelOperator
    from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
    from airflow_mlops.operators.drift import DetectDriftOperator
    from airflow_mlops.operators.model import EvaluateModelOperator, GateModelOperator, TrainModelOperator
    from airflow_mlops.operators.performance import EvaluatePredictionsOperator
    from airflow_mlops.operators.plan import PlanRunOperator
    from airflow_mlops.operators.plan_monitoring import PlanMonitoringOperator
    from airflow_mlops.operators.plan_scoring import PlanScoringOperator
    from airflow_mlops.operators.policy import ApplyPolicyOperator
    from airflow_mlops.operators.registry import (
        PromoteModelOperator,
        RegisterModelOperator,
        RollbackModelOperator,
    )
    from airflow_mlops.operators.scoring import BatchScoreOperator
    from airflow_mlops.operators.serving import CheckServingOperator
    from airflow_mlops.sensors.data import DataArrivalSensor
    from airflow_mlops.sensors.labels import LabelCoverageSensor
    from airflow_mlops.sensors.model import ModelAliasSensor
    from airflow_mlops.spec.load import load_spec
    from airflow_mlops.spec.model import (
        ContractSpec,
        DataSpec,
        DriftSpec,
        EvaluationSpec,
        GateSpec,
        LabelSpec,
        ModelSpec,
        MonitoringSpec,
        NotificationSpec,
        PromotionSpec,
        RuleSpec,
        ScheduleSpec,
        ScoringSpec,
        TrainSpec,
        TrainWindowSpec,
    )
    from airflow_mlops.steps.base import Access
    from airflow_mlops.steps.pipeline import TrainingOutcome, run_training

__version__ = "0.1.0"

_HOMES = {
    "core.records": (
        "Approval",
        "DatasetVersion",
        "EvaluationReport",
        "GateDecision",
        "ModelVersionRef",
        "Promotion",
        "RuleResult",
        "RunPlan",
        "TrainedModel",
        "ValidationReport",
        "Window",
    ),
    "core.monitoring_records": (
        "DriftReport",
        "MonitoringPlan",
        "PerformanceReport",
        "PolicyDecision",
        "ScoringPlan",
        "ScoringReport",
    ),
    "factories.fleet": ("load_models",),
    "factories.monitoring": ("monitoring_dag",),
    "factories.scoring": ("scoring_dag",),
    "operators.drift": ("DetectDriftOperator",),
    "operators.performance": ("EvaluatePredictionsOperator",),
    "operators.plan_monitoring": ("PlanMonitoringOperator",),
    "operators.plan_scoring": ("PlanScoringOperator",),
    "operators.policy": ("ApplyPolicyOperator",),
    "operators.scoring": ("BatchScoreOperator",),
    "sensors.data": ("DataArrivalSensor",),
    "sensors.labels": ("LabelCoverageSensor",),
    "sensors.model": ("ModelAliasSensor",),
    "core.training": ("TrainingFunction", "TrainingResult"),
    "engines.login": ("Login",),
    "engines.tracking": ("TrackingServer",),
    "factories.training": ("training_dag",),
    "hooks.mlflow": ("MLflowHook",),
    "operators.approval": ("ApproveModelOperator",),
    "operators.data": ("SnapshotDataOperator", "ValidateDataOperator"),
    "operators.model": ("EvaluateModelOperator", "GateModelOperator", "TrainModelOperator"),
    "operators.plan": ("PlanRunOperator",),
    "operators.registry": ("PromoteModelOperator", "RegisterModelOperator", "RollbackModelOperator"),
    "operators.serving": ("CheckServingOperator",),
    "spec.load": ("load_spec",),
    "spec.model": (
        "ContractSpec",
        "DataSpec",
        "DriftSpec",
        "EvaluationSpec",
        "GateSpec",
        "LabelSpec",
        "ModelSpec",
        "MonitoringSpec",
        "NotificationSpec",
        "PromotionSpec",
        "RuleSpec",
        "ScheduleSpec",
        "ScoringSpec",
        "TrainSpec",
        "TrainWindowSpec",
    ),
    "steps.base": ("Access",),
    "steps.pipeline": ("TrainingOutcome", "run_training"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Access",
    "ApplyPolicyOperator",
    "Approval",
    "ApproveModelOperator",
    "BatchScoreOperator",
    "CheckServingOperator",
    "ContractSpec",
    "DataArrivalSensor",
    "DataSpec",
    "DatasetVersion",
    "DetectDriftOperator",
    "DriftReport",
    "DriftSpec",
    "EvaluateModelOperator",
    "EvaluatePredictionsOperator",
    "EvaluationReport",
    "EvaluationSpec",
    "GateDecision",
    "GateModelOperator",
    "GateSpec",
    "LabelCoverageSensor",
    "LabelSpec",
    "Login",
    "MLflowHook",
    "ModelAliasSensor",
    "ModelSpec",
    "ModelVersionRef",
    "MonitoringPlan",
    "MonitoringSpec",
    "NotificationSpec",
    "PerformanceReport",
    "PlanMonitoringOperator",
    "PlanRunOperator",
    "PlanScoringOperator",
    "PolicyDecision",
    "PromoteModelOperator",
    "Promotion",
    "PromotionSpec",
    "RegisterModelOperator",
    "RollbackModelOperator",
    "RuleResult",
    "RuleSpec",
    "RunPlan",
    "ScheduleSpec",
    "ScoringPlan",
    "ScoringReport",
    "ScoringSpec",
    "SnapshotDataOperator",
    "TrackingServer",
    "TrainModelOperator",
    "TrainSpec",
    "TrainWindowSpec",
    "TrainedModel",
    "TrainingFunction",
    "TrainingOutcome",
    "TrainingResult",
    "ValidateDataOperator",
    "ValidationReport",
    "Window",
    "load_models",
    "load_spec",
    "monitoring_dag",
    "run_training",
    "scoring_dag",
    "training_dag",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(f"airflow_mlops.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'airflow_mlops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
