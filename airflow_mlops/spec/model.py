"""What a team writes for one model: strict, frozen, with units in names. Python and YAML share it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from airflow_mlops.core.metrics import metric_names
from airflow_mlops.core.windows import Length, WrittenLength

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=300)]
FunctionPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class Strict(BaseModel):
    """A part of a specification: unknown keys are refused, values cannot be changed afterwards."""

    # What was written stays out of pydantic's own message: a URI may hold what must not be shown.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class DataSpec(Strict):
    """Where the rows are and which column says when they happened."""

    uri: str = Field(min_length=1, description="A file, a folder or a glob: a local path, s3:// or gs://.")
    format: Literal["parquet", "csv"] = "parquet"
    conn_id: str | None = Field(default=None, description="Airflow connection with the store's credentials.")
    event_time: Column | None = Field(
        default=None, description="Timestamp column that windows cut. A model's specification needs one."
    )
    id_columns: tuple[Column, ...] = Field(default=(), description="Columns that name an entity: never profiled.")
    personal_columns: tuple[Column, ...] = Field(default=(), description="Columns about a person: never profiled.")
    snapshot: Literal["reference", "copy"] = Field(
        default="reference",
        description="reference: an overwritten file is noticed; copy: it can also be rebuilt.",
    )
    copy_to: str | None = Field(default=None, description="Folder for copies and accepted rows; default: artifacts.")

    @field_validator("uri", "copy_to")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        if value and re.search(r"://[^/@]*:[^/@]*@", value):
            raise ValueError("the URI holds credentials; put them into an Airflow connection and name it in conn_id")
        return value


class ContractSpec(Strict):
    """The data contract: a YAML or JSON file of Great Expectations expectations."""

    path: str = Field(min_length=1, description="Contract file, relative to the specification's folder.")


class TrainWindowSpec(Strict):
    """The window to train on, derived from the run's anchor window."""

    length: WrittenLength
    gap: WrittenLength = Length(count=0, unit="days")


class TrainSpec(Strict):
    """The team's training function and what it is given."""

    function: FunctionPath = Field(description="module:function, importable from code_path.")
    code_path: str = Field(default=".", description="Folder put first on the import path, relative to the spec's.")
    flavor: Name = Field(default="sklearn", description="MLflow flavour that saves and loads the model.")
    serialization: str | None = Field(
        default=None, description="The flavour's own format name; None only for flavours with a single format."
    )
    target: Column
    weights: Column | None = None
    features: tuple[Column, ...] | None = Field(
        default=None, description="Columns the model gets; None: all but target, weights, ids, personal, event time."
    )
    parameters: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0, lt=2**32)
    window: TrainWindowSpec
    requirements: tuple[str, ...] | None = Field(
        default=None, description="pip requirements of the model; None: the installed versions of what it uses."
    )

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

    task: Literal["binary", "multiclass", "regression"]
    metrics: tuple[str, ...] = Field(
        min_length=1, description="Built-in names such as roc_auc, or module:function for a callable of your own."
    )
    lower_is_better: tuple[str, ...] = Field(default=(), description="Your own metrics where less is better.")
    slices: tuple[Column, ...] = ()
    max_slices: int = Field(default=200, gt=0, description="Distinct values per slice column; more is refused.")
    bootstrap_draws: int = Field(default=1000, ge=100, le=100_000)
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
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

    rule: str = Field(min_length=1)

    @property
    def settings(self) -> dict[str, Any]:
        """Return what is written beside ``rule``."""
        return dict(self.model_extra or {})


class ApprovalSpec(Strict):
    """Whether a person must say yes to a candidate that passed every rule."""

    when: Literal["never", "first_model", "always"] = "never"
    timeout_hours: float = Field(default=72.0, gt=0, description="After this long without an answer it is a hold.")
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
    on_hold: Literal["skip", "fail"] = "skip"


class ServingSpec(Strict):
    """How the logged model is tried in a fresh interpreter before it can be promoted."""

    check: bool = True
    env: Literal["installed", "build"] = Field(
        default="installed",
        description="installed: the worker's own libraries, compared with the recorded ones; build: an environment "
        "made from the model's requirements, which takes minutes and downloads them.",
    )
    timeout_seconds: float = Field(default=120.0, gt=0, description="For loading and scoring, not for building.")
    memory_mb: int = Field(default=4096, gt=0, description="Largest resident memory of the interpreter, in MiB.")
    repeats: int = Field(default=20, ge=1, le=10_000, description="Calls that are timed after a first one.")
    build_timeout_seconds: float = Field(default=1800.0, gt=0)


class RuntimeSpec(BaseModel):
    """Where a step's body runs: a runtime's name and, beside it, the runtime's own settings."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    name: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

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
    alias: Name = "champion"
    mlflow_conn_id: str | None = Field(
        default=None,
        description="Connection of the tasks that register and promote; default: the model's own. Give only its user "
        "write access to the registered model, and nobody else can move the alias.",
    )


class ScheduleSpec(Strict):
    """When training runs, and how Airflow should treat its tasks."""

    cron: str | None = Field(default=None, description="Cron expression; its data interval is the anchor window.")
    timezone: str = "UTC"
    start_date: str | None = Field(default=None, description="ISO date of the first interval; needed with cron.")
    on_assets: tuple[str, ...] = Field(default=(), description="Names of Assets whose events start a run.")
    manual_window: Literal["param", "last_complete_interval"] = Field(
        default="param", description="What a manual run without window parameters takes; param: an error asks for it."
    )
    catchup: bool = False
    max_active_runs: int = Field(default=1, gt=0)
    retries: int = Field(default=2, ge=0)
    retry_delay_seconds: int = Field(default=60, ge=0)
    task_timeout_minutes: int = Field(default=120, gt=0)
    pool: str | None = None

    @field_validator("start_date")
    @classmethod
    def _iso_date(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.fromisoformat(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"{value!r} is no time zone; write one such as UTC or Europe/Brussels") from exc
        return value

    @model_validator(mode="after")
    def _cron_or_assets(self) -> Self:
        if self.cron and self.on_assets:
            raise ValueError("give either cron or on_assets: a run has one anchor window, from one of them")
        if self.cron and not self.start_date:
            raise ValueError("cron needs start_date, the ISO date from which intervals count, such as 2013-01-01")
        if self.manual_window == "last_complete_interval" and not self.cron:
            raise ValueError("manual_window: last_complete_interval needs cron, which defines the intervals")
        return self


class ModelSpec(Strict):
    """One model, from its data to its schedule."""

    name: Name
    description: str = ""
    owner: str = "airflow"
    tags: tuple[str, ...] = ()
    experiment: str | None = Field(default=None, description="MLflow experiment; default: the model's name.")
    mlflow_conn_id: str = "mlflow_default"
    runtime: RuntimeSpec = RuntimeSpec(name="inline")
    step_runtimes: dict[str, RuntimeSpec] = Field(
        default_factory=dict, description="Another runtime for single steps, by the step's name: train, validate ..."
    )
    data: DataSpec
    contract: ContractSpec
    train: TrainSpec
    evaluation: EvaluationSpec
    serving: ServingSpec = ServingSpec()
    gate: GateSpec
    promotion: PromotionSpec = PromotionSpec()
    schedule: ScheduleSpec = ScheduleSpec()
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

    @property
    def registered_model(self) -> str:
        """Return the registered model's name."""
        return self.promotion.registered_model or self.name

    @property
    def experiment_name(self) -> str:
        """Return the MLflow experiment's name."""
        return self.experiment or self.name
