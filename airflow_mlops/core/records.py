"""The small records that cross XCom between tasks.

A record holds identifiers, digests, small numbers and URIs; anything larger is an artifact and the record holds its
URI. :meth:`Record.to_xcom` gives a plain JSON object with a ``schema`` version, because Airflow refuses to read back
classes that are not its own, and refuses NaN; so a number that is not finite is ``None`` in a record and the reason
stands beside it in ``notes``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from airflow_mlops.errors import InvalidSpecError, RecordTooLargeError

MAX_RECORD_BYTES = 16_000

GateVerdict = Literal["promote", "hold", "needs_approval", "first_model", "needs_attention"]
RuleStatus = Literal["pass", "fail", "undecided"]
PromotionOutcome = Literal["promoted", "superseded", "refused", "needs_attention", "dry_run"]
ContractVerdict = Literal["pass", "warn", "quarantine", "fail"]


def finite(value: float | None) -> float | None:
    """Return ``value`` as a float, or None where it is missing, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


class Frozen(BaseModel):
    """A value: immutable, no infinities, and tolerant of keys that a newer version added."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Window(Frozen):
    """A half-open span of event time, ``[start, end)``, in UTC.

    :param start: first instant that belongs to the window; a naive time is taken as UTC.
    :param end: first instant after it; later than ``start``.
    """

    start: datetime
    end: datetime

    @field_validator("start", "end", mode="before")
    @classmethod
    def _no_bare_number(cls, value: Any) -> Any:
        # 2013 would be taken as seconds since 1970.
        if isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdigit()):
            raise ValueError(f"{value!r} is a number; write a time such as 2013-01-01")
        return value

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"a window ends after it starts; this one is {self}")
        return self

    def __str__(self) -> str:
        return f"[{_short(self.start)}, {_short(self.end)})"

    def overlaps(self, other: Window) -> bool:
        """Say whether any instant belongs to both windows."""
        return self.start < other.end and other.start < self.end


def _short(moment: datetime) -> str:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for ending in (".000000Z", ":00", ":00", "T00"):
        if text.endswith(ending):
            text = text.removesuffix(ending)
        else:
            break
    return text if "T" not in text else moment.isoformat().replace("+00:00", "Z")


class Record(Frozen):
    """Base of what a task hands on. Subclasses name their schema: ``class X(Record, schema="x/1")``."""

    schema_name: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, schema: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if schema:
            cls.schema_name = schema

    def __init_subclass__(cls, schema: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @property
    def is_failure(self) -> bool:
        """Say whether this outcome fails its task: a person has to mend something before the run can go on."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _same_schema(cls, value: Any) -> Any:
        schema = value.get("schema") if isinstance(value, Mapping) else None
        if schema is not None and schema != cls.schema_name:
            raise ValueError(f"{cls.__name__} has schema {cls.schema_name!r}, this record has {schema!r}")
        return value

    def to_xcom(self) -> dict[str, Any]:
        """Return a plain JSON object.

        :raises RecordTooLargeError: the object is larger than 16 kB as JSON; the message names its largest field.
        """
        payload = {"schema": self.schema_name, **self.model_dump(mode="json")}
        size = len(json.dumps(payload, allow_nan=False).encode())
        if size > MAX_RECORD_BYTES:
            largest = max(payload, key=lambda key: len(json.dumps(payload[key])))
            raise RecordTooLargeError(
                f"{type(self).__name__} takes {size} bytes, more than the {MAX_RECORD_BYTES} that XCom may carry; its "
                f"largest field is {largest!r}. Write that to the artifact store and put its URI into the record."
            )
        return payload

    @classmethod
    def from_xcom(cls, payload: Mapping[str, Any] | Self) -> Self:
        """Rebuild the record from :meth:`to_xcom`'s object. Unknown keys are ignored; missing ones are an error.

        :raises InvalidSpecError: the payload is not an object of this schema.
        """
        if isinstance(payload, cls):
            return payload
        if not isinstance(payload, Mapping):
            raise InvalidSpecError(
                f"{cls.__name__} was expected, a JSON object with schema {cls.schema_name!r}; got "
                f"{type(payload).__name__} {str(payload)[:80]!r}. Pass the upstream operator's `.output`."
            )
        try:
            return cls.model_validate(payload)
        except ValidationError as exc:
            places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()[:5])
            raise InvalidSpecError(
                f"This is not a {cls.__name__} of schema {cls.schema_name!r}: {places}. "
                f"Check which task's output is passed here."
            ) from exc


class RunPlan(Record, schema="plan/1"):
    """What one DAG run is about: its windows, its reason, and its parent MLflow run."""

    window: Window
    train_window: Window
    evaluate_window: Window
    reason: str
    experiment_id: str
    parent_run_id: str
    notes: tuple[str, ...] = ()


class DatasetVersion(Record, schema="dataset/1"):
    """One immutable state of the rows of one window.

    ``digest`` is the SHA-256 over window, event-time column, columns with their types and the manifest (relative path,
    size and content digest of every file that holds rows of the window, sorted by path), so it changes when any row of
    such a file is changed, added or removed, when rows are reordered inside a file, and when a file is renamed; it does
    not depend on the machine, the store, the listing order, the time, or files without a row of the window. A derived
    version (``parent_digest``) has the SHA-256 over its parent and the positions of the rows that were left out.
    """

    digest: str
    uri: str
    format: Literal["parquet", "csv"]
    conn_id: str | None = None
    window: Window | None = None
    event_time: str | None = None
    row_count: int
    file_count: int
    byte_count: int
    column_count: int
    manifest_uri: str
    snapshot: Literal["reference", "copy", "derived"] = "reference"
    parent_digest: str | None = None


class ContractFinding(Frozen):
    """One expectation that was not met, in one sentence."""

    expectation: str
    column: str | None
    on_failure: Literal["fail", "warn", "quarantine"]
    sentence: str
    unexpected_count: int | None = None


class ValidationReport(Record, schema="validation/1"):
    """What the contract says of a dataset, and the dataset of the rows that go on."""

    verdict: ContractVerdict
    sentence: str
    dataset: DatasetVersion
    raw_digest: str
    contract_digest: str
    expectation_count: int
    findings: tuple[ContractFinding, ...] = ()
    finding_count: int = 0
    row_count: int
    quarantined_count: int = 0
    quarantine_uri: str | None = None
    report_uri: str | None = None
    run_id: str = ""

    @property
    def is_failure(self) -> bool:
        """A failed contract fails its task."""
        return self.verdict == "fail"

    @property
    def said(self) -> str:
        """Return the verdict with the sentences of what failed, five at most."""
        broken = [finding.sentence for finding in self.findings if finding.on_failure == "fail"]
        return " ".join([self.sentence, *broken[:5]])


class TrainedModel(Record, schema="model/1"):
    """A model that was trained and logged, and what it was made of."""

    model_uri: str
    model_id: str
    artifact_uri: str
    run_id: str
    flavor: str
    serialization: str
    digest: str
    size_bytes: int
    dataset_digest: str
    train_window: Window | None = None
    features: tuple[str, ...] = ()
    feature_count: int
    target: str
    row_count: int
    seed: int
    parameters_digest: str
    code_digest: str
    git_commit: str
    environment_digest: str
    profile_uri: str
    key: str
    input_digest: str
    metric_count: int = 0


class ChampionRef(Frozen):
    """The champion as the ledger knew it when it was read.

    ``is_candidate``: it is the very model that is judged, because a run that had promoted it was cleared.
    """

    version: int
    entry: int
    model_digest: str | None = None
    train_window: Window | None = None
    window: Window | None = None
    is_candidate: bool = False


class EvaluationReport(Record, schema="evaluation/1"):
    """Candidate and champion on the same frozen rows. Slices, differences and replicates are in ``evidence_uri``."""

    model: TrainedModel
    champion: ChampionRef | None
    champion_problem: str | None = None
    ledger_entry: int = 0
    dataset_digest: str
    window: Window | None
    row_count: int
    task: Literal["binary", "multiclass", "regression"]
    metrics: Mapping[str, float | None]
    champion_metrics: Mapping[str, float | None] = Field(default_factory=dict)
    notes: Mapping[str, str] = Field(default_factory=dict)
    slice_count: int = 0
    evidence_uri: str
    evidence_digest: str
    run_id: str


class RuleResult(Frozen):
    """What one rule says, in a sentence with both values, interval, rows and limit."""

    rule: str
    status: RuleStatus
    sentence: str
    metric: str | None = None
    slice: str | None = None
    candidate: float | None = None
    champion: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    rows: int | None = None

    @classmethod
    def of(cls, passed: bool, rule: str, sentence: str, **numbers: Any) -> RuleResult:
        """Build a decided result."""
        return cls(rule=rule, status="pass" if passed else "fail", sentence=sentence, **numbers)

    @classmethod
    def undecided(cls, rule: str, sentence: str, **numbers: Any) -> RuleResult:
        """Build a result for missing or contradictory evidence: never a silent pass."""
        return cls(rule=rule, status="undecided", sentence=sentence, **numbers)


class GateDecision(Record, schema="gate/1"):
    """The verdict on one candidate, with the sentence of every rule that matters."""

    verdict: GateVerdict
    mode: Literal["enforce", "dry_run"]
    sentence: str
    reasons: tuple[str, ...] = ()
    results: tuple[RuleResult, ...] = ()
    result_count: int = 0
    model: TrainedModel
    champion: ChampionRef | None = None
    ledger_entry: int = 0
    window: Window | None
    evidence_uri: str
    decision_uri: str
    run_id: str = ""

    @property
    def is_failure(self) -> bool:
        """A gate that could not decide because something is broken fails its task; a hold is a result."""
        return self.verdict == "needs_attention"

    @property
    def lets_through(self) -> bool:
        """Say whether the candidate may be registered and promoted."""
        return self.verdict in ("promote", "first_model")


class ModelVersionRef(Record, schema="version/1"):
    """One registered version of one model."""

    name: str
    version: int
    model_uri: str
    run_id: str
    digest: str
    window: Window | None = None
    train_window: Window | None = None
    ledger_entry: int = 0
    evidence_uri: str | None = None
    verdict: str = ""
    mode: Literal["enforce", "dry_run"] = "enforce"
    reason: str = ""
    key: str
    input_digest: str


class Promotion(Record, schema="promotion/1"):
    """What became of one wish to move the alias."""

    outcome: PromotionOutcome
    name: str
    alias: str
    sentence: str
    entry: int | None = None
    from_version: int | None = None
    to_version: int | None = None
    champion_version: int | None = None
    author: str = ""
    reason: str = ""
    window: Window | None = None
    run_id: str = ""

    @property
    def is_failure(self) -> bool:
        """A ledger that needs a person fails its task; a lost race is a result."""
        return self.outcome == "needs_attention"
