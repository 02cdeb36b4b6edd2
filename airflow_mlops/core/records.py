"""The small records that cross XCom between tasks. What all of them share is in :mod:`airflow_mlops.core.record`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from airflow_mlops.core.record import MAX_RECORD_BYTES, Frozen, Record, Window, finite

__all__ = [
    "MAX_RECORD_BYTES",
    "Approval",
    "ChampionRef",
    "ContractFinding",
    "ContractVerdict",
    "DatasetVersion",
    "EvaluationReport",
    "Frozen",
    "GateDecision",
    "GateVerdict",
    "ModelVersionRef",
    "Promotion",
    "PromotionOutcome",
    "Record",
    "RuleResult",
    "RuleStatus",
    "RunPlan",
    "ServingReport",
    "TrainedModel",
    "ValidationReport",
    "VersionDifference",
    "Window",
    "finite",
]

GateVerdict = Literal["promote", "hold", "needs_approval", "first_model", "needs_attention"]
RuleStatus = Literal["pass", "fail", "undecided"]
PromotionOutcome = Literal["promoted", "superseded", "refused", "needs_attention", "dry_run"]
ContractVerdict = Literal["pass", "warn", "quarantine", "fail"]
ApprovalOutcome = Literal["not_needed", "approved", "rejected", "timed_out"]


class RunPlan(Record, schema="plan/1"):
    """What one DAG run is about: its windows, its reason, and its parent MLflow run.

    :param requests: ids of the retrains that this run answers.
    :param repeat: why the run has nothing to do, where other runs answer all of its requests; empty otherwise.
    """

    window: Window
    train_window: Window
    evaluate_window: Window
    reason: str
    experiment_id: str
    parent_run_id: str
    notes: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    repeat: str = ""


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
    format: str
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
    """What the contract says of a dataset, and the dataset of the rows that go on.

    ``purpose`` is ``training`` or ``scoring``; for scoring, ``left_out`` names expectations about train-only columns
    that were not checked, at most ten of ``left_out_count``, and ``expectation_count`` is of those that were.
    """

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
    purpose: str = "training"
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0

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
    """A model that was trained and logged, and what it was made of.

    ``reused_from`` is the key of the task that trained it, where an earlier run did; empty where this one did.
    """

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
    reused_from: str = ""
    data_uri: str = ""
    manifest_uri: str = ""
    validation_run_id: str = ""
    source_uri: str = ""


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


class VersionDifference(Frozen):
    """A library whose version here is not the one the model was trained with; None: not installed, or not recorded."""

    name: str
    recorded: str | None
    installed: str | None


class ServingReport(Record, schema="serving/1"):
    """How the logged model behaved when a fresh interpreter loaded it and scored its input example.

    ``row_milliseconds`` is the median over ``repeats`` calls of the time of one call divided by its rows;
    ``call_milliseconds`` that of a whole call. ``peak_memory_bytes`` is the interpreter's largest resident set,
    libraries included. A number is None where the check did not get that far; ``problem`` then says why.
    """

    ok: bool
    sentence: str
    problem: str | None = None
    model_uri: str
    digest: str
    env: Literal["installed", "build"]
    python_version: str = ""
    rows: int = 0
    repeats: int = 0
    load_seconds: float | None = None
    call_milliseconds: float | None = None
    row_milliseconds: float | None = None
    peak_memory_bytes: int | None = None
    size_bytes: int
    differences: tuple[VersionDifference, ...] = ()
    difference_count: int = 0
    report_uri: str | None = None
    run_id: str = ""

    @property
    def is_failure(self) -> bool:
        """A model that cannot be served fails its task."""
        return not self.ok


class EvaluationReport(Record, schema="evaluation/1"):
    """Candidate and champion on the same frozen rows. Slices, differences and replicates are in ``evidence_uri``."""

    model: TrainedModel
    alias: str = "champion"
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
    manifest_uri: str = ""
    validation_run_id: str = ""
    reused_from: str = ""
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
    alias: str = "champion"
    champion: ChampionRef | None = None
    ledger_entry: int = 0
    window: Window | None
    evidence_uri: str
    decision_uri: str
    manifest_uri: str = ""
    validation_run_id: str = ""
    serving_run_id: str = ""
    run_id: str = ""

    @property
    def is_failure(self) -> bool:
        """A gate that could not decide because something is broken fails its task; a hold is a result."""
        return self.verdict == "needs_attention"

    @property
    def lets_through(self) -> bool:
        """Say whether the candidate may be registered; it is promoted at once, or when a person approves it."""
        return self.verdict in ("promote", "first_model", "needs_approval")


class ModelVersionRef(Record, schema="version/1"):
    """One registered version of one model.

    :param decision_uri: the gate's decision that let it through; empty in a record of an earlier release. A version's
        own tag may name an older decision of the same verdict.
    """

    name: str
    version: int
    model_uri: str
    run_id: str
    digest: str
    window: Window | None = None
    train_window: Window | None = None
    ledger_entry: int = 0
    evidence_uri: str | None = None
    decision_uri: str = ""
    verdict: str = ""
    mode: Literal["enforce", "dry_run"] = "enforce"
    reason: str = ""
    sentence: str = ""
    card_uri: str | None = None
    key: str
    input_digest: str


class Approval(Record, schema="approval/1"):
    """What a person said of a candidate whose verdict is ``needs_approval``.

    ``not_needed``: the gate's verdict asks nobody. Both ``rejected`` and ``timed_out`` are a hold.

    :param author: who decided, as the place of the decision names them; empty where nobody did.
    :param decided_at: ISO time in UTC.
    """

    outcome: ApprovalOutcome
    sentence: str
    name: str
    version: int
    author: str = ""
    reason: str = ""
    decided_at: str = ""
    run_id: str = ""


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
