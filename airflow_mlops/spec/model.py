"""What a team writes for one model: strict, frozen, with units in names. Python and YAML share it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from airflow_mlops.core.metrics import metric_names
from airflow_mlops.core.serving_rules import NEEDS_SERVING
from airflow_mlops.core.windows import MOST_HOURS, Length, WrittenLength
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec import naming
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.monitoring import DriftSpec, LabelSpec, MonitoringSpec, NotificationSpec
from airflow_mlops.spec.schedule import ScheduleSpec
from airflow_mlops.spec.scoring import ScoringSpec
from airflow_mlops.spec.strict import Column, FunctionPath, Name, Strict

__all__ = [
    "ApprovalSpec",
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
    "RuntimeSpec",
    "ScheduleSpec",
    "ScoringSpec",
    "ServingSpec",
    "StepName",
    "Strict",
    "TrainSpec",
    "TrainWindowSpec",
]

# No underscore: it joins profile and owner in names.
Profile = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$", max_length=30)]
StepName = Literal[
    "plan",
    "snapshot",
    "validate",
    "train",
    "evaluate",
    "serving",
    "gate",
    "register",
    "promote",
    "plan_scoring",
    "score",
    "plan_monitoring",
    "drift",
    "performance",
    "policy",
]


def _plain_json(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{place} is {value}, which does not survive JSON; write it as text and read it in the function"
        )
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                raise ValueError(
                    f"{place} has the key {key!r}, which JSON turns into text; write {str(key)!r} yourself"
                )
            _plain_json(one, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            _plain_json(one, f"{place}[{number}]")


class ContractSpec(Strict):
    """The data contract: a YAML or JSON file of Great Expectations expectations."""

    path: str = Field(min_length=1, description="Contract file, relative to the specification's folder.")


class TrainWindowSpec(Strict):
    """The window to train on, derived from the run's anchor window."""

    length: WrittenLength = Field(description="How long the training window is.")
    gap: WrittenLength = Field(default=Length(count=0, unit="days"), description="How long before the anchor it ends.")

    @field_validator("length")
    @classmethod
    def _some_time(cls, value: Length) -> Length:
        if value.count == 0:
            raise ValueError("the training window needs a length above zero; write '1 month', for example")
        return value


class TrainSpec(Strict):
    """The team's training function and what it is given."""

    function: FunctionPath = Field(description="module:function, importable from code_path.")
    code_path: str = Field(default=".", description="Folder put first on the import path, relative to the spec's.")
    flavor: Name = Field(default="sklearn", description="MLflow flavour that saves and loads the model.")
    serialization: str | None = Field(
        default=None, description="The flavour's own format name; None only for flavours with a single format."
    )
    target: Column = Field(description="Column to predict.")
    weights: Column | None = Field(default=None, description="Column with one weight per row.")
    features: tuple[Column, ...] | None = Field(
        default=None, description="Columns the model gets; None: all but target, weights, ids, personal, event time."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="What the function gets as `parameters`.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seeds the generators; the function gets it, too.")
    window: TrainWindowSpec
    requirements: tuple[str, ...] | None = Field(
        default=None, description="pip requirements of the model; None: the installed versions of what it uses."
    )

    @field_validator("parameters")
    @classmethod
    def _survive_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        # They travel as JSON, which would turn NaN into null and the key 0 into "0" without a word.
        _plain_json(value, "parameters")
        return value

    @field_validator("features")
    @classmethod
    def _some_features(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError("features needs at least one column and no column twice; leave it out to take all")
        return value

    @model_validator(mode="after")
    def _target_is_no_feature(self) -> Self:
        for role, column in (("target", self.target), ("weights", self.weights)):
            if self.features and column in self.features:
                raise ValueError(f"the {role} column {column!r} is also listed under features; remove it there")
        return self


class EvaluationSpec(Strict):
    """How candidate and champion are measured on the same rows."""

    task: Literal["binary", "multiclass", "regression"] = Field(description="What is predicted.")
    metrics: tuple[str, ...] = Field(
        min_length=1, description="Built-in names such as roc_auc, or module:function for a callable of your own."
    )
    lower_is_better: tuple[str, ...] = Field(default=(), description="Your own metrics where less is better.")
    slices: tuple[Column, ...] = Field(default=(), description="Columns by whose values rows are measured apart.")
    max_slices: int = Field(default=200, gt=0, description="Distinct values per slice column; more is refused.")
    bootstrap_draws: int = Field(default=1000, ge=100, le=100_000, description="More slices need more draws.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="A proof's p is at most 1 - this.")
    on_overlap: Literal["cut", "needs_attention"] = Field(
        default="cut", description="Evaluation rows inside the champion's training window: cut away, or stop."
    )

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        metric_names(self.task, self.metrics, self.lower_is_better)
        return self


class RuleSpec(BaseModel):
    """One gate rule: its name under ``rule`` and the rule's own settings beside it."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    rule: str = Field(min_length=1, description="The rule's name; its own settings stand beside it.")

    @property
    def settings(self) -> dict[str, Any]:
        """Return what is written beside ``rule``."""
        return dict(self.model_extra or {})


class ApprovalSpec(Strict):
    """Whether a person must say yes to a candidate that passed every rule."""

    when: Literal["never", "first_model", "always"] = Field(default="never", description="Which candidates wait.")
    timeout_hours: float = Field(
        default=72.0, gt=0, le=MOST_HOURS, description="After this long without an answer it is a hold."
    )
    assignees: tuple[str, ...] = Field(
        default=(), description="Airflow user names who may answer in Airflow's page; none: whoever may."
    )


class GateSpec(Strict):
    """When a candidate may become champion."""

    rules: tuple[RuleSpec, ...] = Field(min_length=1)
    approval: ApprovalSpec = ApprovalSpec()
    mode: Literal["enforce", "dry_run"] = Field(
        default="enforce", description="dry_run: decide, register and say, but never move the alias."
    )
    on_hold: Literal["skip", "fail"] = Field(default="skip", description="What becomes of a held gate's task.")


class ServingSpec(Strict):
    """How the logged model is tried in a fresh interpreter before it can be promoted."""

    check: bool = Field(default=True, description="Whether it is tried at all.")
    env: Literal["installed", "build"] = Field(
        default="installed",
        description="installed: the worker's own libraries, compared with the recorded ones; build: an environment "
        "made from the model's requirements, which takes minutes and downloads them.",
    )
    timeout_seconds: float = Field(
        default=120.0, gt=0, le=MOST_HOURS * 3_600, description="For loading and scoring, not for building."
    )
    memory_mb: int = Field(default=4096, gt=0, description="Largest resident memory of the interpreter, in MiB.")
    repeats: int = Field(default=20, ge=1, le=10_000, description="Calls that are timed after a first one.")
    build_timeout_seconds: float = Field(
        default=1800.0, gt=0, le=MOST_HOURS * 3_600, description="For making the environment."
    )


class RuntimeSpec(BaseModel):
    """Where a step's body runs: a runtime's name and, beside it, the runtime's own settings."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    name: str = Field(min_length=1, description="The runtime's name, such as inline or external_python.")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @classmethod
    def of(cls, value: Any) -> RuntimeSpec:
        """Read what an operator was given.

        :raises InvalidSpecError: it is neither a name nor a mapping with one.
        """
        try:
            return cls.model_validate(value)
        except ValidationError:
            raise InvalidSpecError(
                f"runtime is {value!r}; write a name such as inline, or a mapping with the runtime's settings such as "
                f"{{name: external_python, python: /opt/steps/bin/python}}."
            ) from None

    @property
    def written(self) -> str | dict[str, Any]:
        """Return the shortest form that reads as the same: the name alone where there are no settings."""
        return {"name": self.name, **self.settings} if self.settings else self.name

    @property
    def settings(self) -> dict[str, Any]:
        """Return what is written beside ``name``."""
        return dict(self.model_extra or {})


class PromotionSpec(Strict):
    """What moves when a candidate is let through."""

    registered_model: str | None = Field(default=None, min_length=1, description="Default: the model's name.")
    alias: Name = Field(default="champion", description="The alias that moves.")
    mlflow_conn_id: str | None = Field(
        default=None,
        description="Connection of the tasks that register and promote; default: the model's own. Give only its user "
        "write access to the registered model, and nobody else can move the alias.",
    )


class ModelSpec(Strict):
    """One model, from its data to its schedule."""

    name: Name = Field(description="The model's name; DAG, experiment and registered model are named after it.")
    description: str = Field(default="", description="For people: on the DAG, the MLflow run and the version.")
    owner: str = Field(default="airflow", description="Who answers for it; the DAG's owner.")
    profile: Profile | None = Field(
        default=None,
        description="Where this runs, such as dev or prod. Outside prod, names carry profile and owner.",
    )
    tags: tuple[str, ...] = Field(default=(), description="Further tags of the DAG.")
    experiment: str | None = Field(default=None, min_length=1, description="MLflow experiment; default: the name.")
    mlflow_conn_id: str | None = Field(
        default=None, min_length=1, description="Airflow connection; default: mlflow_default, or one by profile."
    )
    runtime: RuntimeSpec = RuntimeSpec(name="inline")
    step_runtimes: dict[StepName, RuntimeSpec] = Field(
        default_factory=dict, description="Another runtime for single steps, by the step's name."
    )
    data: DataSpec
    contract: ContractSpec
    train: TrainSpec
    evaluation: EvaluationSpec
    serving: ServingSpec = ServingSpec()
    gate: GateSpec
    promotion: PromotionSpec = PromotionSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    scoring: ScoringSpec | None = Field(default=None, description="How batches are scored; needed by scoring_dag.")
    labels: LabelSpec | None = Field(default=None, description="Where labels arrive; None: performance is not watched.")
    drift: DriftSpec = DriftSpec()
    monitoring: MonitoringSpec = MonitoringSpec()
    notifications: tuple[NotificationSpec, ...] = ()
    folder: Path = Field(
        default=Path(), exclude=True, description="Folder that relative paths start from; set by the loader."
    )

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.data.event_time is None:
            raise ValueError(
                "data.event_time is missing: without it the rows to train on and those to evaluate on are the same"
            )
        unknown = sorted(set(self.evaluation.lower_is_better) - set(self.evaluation.metrics))
        if unknown:
            raise ValueError(f"evaluation.lower_is_better names {unknown}, which evaluation.metrics does not list")
        for number, rule in enumerate(self.gate.rules):
            if rule.rule in NEEDS_SERVING and not self.serving.check:
                raise ValueError(
                    f"gate.rules[{number}] ({rule.rule}) reads the serving check, and serving.check is false: set it "
                    f"to true, or drop the rule"
                )
            metric = rule.settings.get("metric")
            if isinstance(metric, str) and metric not in self.evaluation.metrics:
                raise ValueError(
                    f"gate.rules[{number}] ({rule.rule}) reads metric {metric!r}, which evaluation.metrics does not "
                    f"list: {', '.join(self.evaluation.metrics)}"
                )
            column = rule.settings.get("slice")
            if isinstance(column, str) and column not in self.evaluation.slices:
                raise ValueError(
                    f"gate.rules[{number}] ({rule.rule}) reads slice {column!r}, which evaluation.slices does not "
                    f"list: {', '.join(self.evaluation.slices) or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _monitoring_agrees(self) -> Self:
        rule = self.monitoring.performance
        if rule is not None and rule.metric not in self.evaluation.metrics:
            raise ValueError(
                f"monitoring.performance reads metric {rule.metric!r}, which evaluation.metrics does not list: "
                f"{', '.join(self.evaluation.metrics)}"
            )
        if rule is not None and self.labels is None:
            raise ValueError("monitoring.performance needs labels: say under labels.data where they arrive")
        ids = ((self.scoring and self.scoring.data) or self.data).id_columns
        if self.labels is not None and not (self.labels.entity or ids):
            raise ValueError("labels are joined by entity: name its columns in labels.entity or data.id_columns")
        split = self.scoring.split if self.scoring is not None else None
        if split is not None and not (split.by or ids):
            raise ValueError("scoring.split needs the entity's columns: name them in split.by or data.id_columns")
        return self

    @model_validator(mode="after")
    def _owner_fits_names(self) -> Self:
        naming.check_owner(self.owner, self.profile)
        return self

    def runtime_of(self, step: StepName) -> RuntimeSpec:
        """Return where a step runs."""
        return self.step_runtimes.get(step, self.runtime)

    @property
    def registered_model(self) -> str:
        """Return the registered model's name."""
        return naming.registered_model(self.promotion.registered_model or self.name, self.profile, self.owner)

    @property
    def experiment_name(self) -> str:
        """Return the MLflow experiment's name."""
        return naming.experiment(self.experiment or self.name, self.profile, self.owner)

    @property
    def connection_id(self) -> str:
        """Return the MLflow connection of the tasks that train and measure."""
        return self.mlflow_conn_id or naming.connection(self.profile, self.owner)

    @property
    def promotion_connection_id(self) -> str:
        """Return the MLflow connection of the tasks that register and promote."""
        return self.promotion.mlflow_conn_id or self.connection_id
