"""How a model in service is watched: labels that come later, drift, and what follows from a breach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from airflow_mlops.core.windows import MOST_HOURS, Length, WrittenLength
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.schedule import ScheduleSpec
from airflow_mlops.spec.strict import Column, Strict, secret_setting_in

Action = Literal["notify", "retrain", "rollback"]


class LabelSpec(Strict):
    """Where labels arrive, and how long they are waited for."""

    data: DataSpec = Field(description="Rows with entity, event time and label; files may be added and corrected.")
    label: Column | None = Field(default=None, description="Column with the label; default: train.target.")
    entity: tuple[Column, ...] = Field(default=(), description="Columns that name the entity; default: id_columns.")
    known_at: Column | None = Field(
        default=None, description="Time at which a label became known; the latest of several counts."
    )
    coverage: float = Field(default=0.9, gt=0, le=1, description="Share of predictions that must have a label.")
    deadline: WrittenLength = Field(
        default=Length(count=30, unit="days"),
        description="Counted from the moment the batch was scored; then metrics are final, whatever the coverage.",
    )
    poll_seconds: float = Field(default=300.0, gt=0, le=MOST_HOURS * 3_600, description="Time between two looks.")


class DriftMethodSpec(Strict):
    """A drift method and the distance from which a column counts as drifted."""

    method: str = Field(min_length=1, description="Name of a drift method, such as psi.")
    threshold: float | None = Field(default=None, gt=0, description="None: the method's own default.")


class DriftSpec(Strict):
    """When a window counts as drifted from the model's reference profile."""

    engine: Literal["statistics", "evidently"] = Field(
        default="statistics", description="statistics: ours, from counts of all rows; evidently: on a seeded sample."
    )
    columns: tuple[Column, ...] | None = Field(default=None, description="Columns to compare; None: the features.")
    numeric: DriftMethodSpec = DriftMethodSpec(method="psi")
    categorical: DriftMethodSpec = DriftMethodSpec(method="psi")
    overrides: dict[Column, DriftMethodSpec] = Field(default_factory=dict, description="Other methods, by column.")
    min_columns: int = Field(default=1, ge=1, description="So many drifted columns are a drift.")
    min_share: float | None = Field(
        default=None, gt=0, le=1, description="And at least this share of the compared columns; None: any."
    )
    prediction: DriftMethodSpec | None = Field(
        default=DriftMethodSpec(method="psi"), description="How predictions are compared; None: not at all."
    )
    min_rows: int = Field(default=500, ge=1, description="Fewer rows are `insufficient`, never `none`.")
    min_volume_ratio: float | None = Field(
        default=None, gt=0, description="Fewer rows per day than this share of the reference's are `insufficient`."
    )
    max_missing_increase: float = Field(
        default=0.3, gt=0, le=1, description="A missing share that rose by more than this is `schema_broken`."
    )
    extra_columns: Literal["ignore", "schema_broken"] = Field(
        default="schema_broken", description="What a column that the reference does not have means."
    )
    report: bool = Field(default=True, description="Whether Evidently's page is made and linked.")
    report_rows: int = Field(default=20_000, ge=100, description="Rows of the seeded sample that it shows.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seeds the sample.")

    @model_validator(mode="before")
    @classmethod
    def _evidently_chooses(cls, value: Any) -> Any:
        """Let Evidently choose its own methods where none is named: its names for them are not ours."""
        if isinstance(value, Mapping) and value.get("engine") == "evidently":
            return {**{key: {"method": "auto"} for key in ("numeric", "categorical", "prediction")}, **value}
        return value


class PolicyRuleSpec(Strict):
    """So many breaches among the last windows, and what follows."""

    breaches: int = Field(default=1, ge=1, description="N of N-of-M.")
    of_last: int = Field(default=1, ge=1, description="M of N-of-M: windows looked at, the newest included.")
    action: Action = Field(default="notify", description="What is done.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.breaches > self.of_last:
            raise ValueError(f"breaches is {self.breaches} of the last {self.of_last} windows, which cannot happen")
        return self


class PerformanceRuleSpec(PolicyRuleSpec):
    """A breach is a realised metric that is worse than the evaluation promised."""

    metric: str = Field(min_length=1, description="One of evaluation.metrics.")
    max_drop: float = Field(ge=0, description="How much worse than promised is still fine, in the metric's unit.")
    provisional: bool = Field(default=False, description="Whether provisional figures count.")


class MonitoringSpec(Strict):
    """The policy over windows."""

    drift: PolicyRuleSpec = PolicyRuleSpec()
    performance: PerformanceRuleSpec | None = None
    min_rows: int = Field(default=500, ge=1, description="Windows with fewer rows do not count among the last M.")
    cool_down: WrittenLength = Field(
        default=Length(count=30, unit="days"),
        description="No second retrain or rollback for windows that end within this long after the one that asked.",
    )
    retrain_timeout_hours: float = Field(
        default=24.0,
        gt=0,
        le=MOST_HOURS,
        description="A retrain that was asked for and never ended is not waited for any longer.",
    )
    act_in_backfill: bool = Field(default=False, description="Whether a backfill's breach has consequences.")
    schedule: ScheduleSpec | None = Field(
        default=None, description="When windows are looked at; default: when a batch of predictions was published."
    )


class NotificationSpec(Strict):
    """Whom to tell, by any Airflow notifier."""

    events: tuple[Literal["drift", "hold", "promoted", "rolled_back", "contract_failed"], ...] = Field(
        min_length=1, description="What they are told of."
    )
    notifier: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:Class of an Airflow notifier, loaded by the task.",
    )
    settings: dict[str, object] = Field(
        default_factory=dict, description="Its arguments; `{{ mlops.message }}` is the message. Never a secret."
    )

    @field_validator("settings")
    @classmethod
    def _no_secret(cls, value: dict[str, object]) -> dict[str, object]:
        if found := secret_setting_in(value, "settings"):
            raise ValueError(
                f"{found}; put it into an Airflow connection and give the notifier the connection's id, such as "
                f"slack_webhook_conn_id"
            )
        return value
