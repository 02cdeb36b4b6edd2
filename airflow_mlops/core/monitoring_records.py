"""The small records of scoring and monitoring, and what is remembered of a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from airflow_mlops.core.record import Frozen, Record, Window

DriftVerdict = Literal["none", "drift", "insufficient", "schema_broken"]
PolicyAction = Literal["none", "notify", "retrain", "rollback"]
#: Why a breach has no consequence of its own.
Suppressed = Literal["", "already_acted", "cool_down", "retrain_under_way", "backfill"]

#: Longest list of columns in a record; the artifact has all of them.
MAX_COLUMNS = 30


class ServedModel(Frozen):
    """A registered version as it was when a run began, and what scoring and monitoring need of it.

    :param alias: what it was found by; empty for a version that was named by its number.
    :param entry: the promotion ledger's entry that made it champion; 0 for a version that is not.
    :param digest: of the model's files; None for a version of other making, which is not checked then.
    :param evidence_uri: evidence of the evaluation that let it through, ``runs:/RUN/evidence.json``.
    """

    name: str
    alias: str = ""
    version: int
    entry: int = 0
    model_uri: str
    artifact_uri: str
    digest: str | None = None
    flavor: str | None = None
    features: tuple[str, ...] | None = None
    train_window: Window | None = None
    run_id: str | None = None
    profile_uri: str | None = None
    evidence_uri: str | None = None

    def __str__(self) -> str:
        return f"version {self.version} of {self.name}"


class ScoringPlan(Record, schema="scoring_plan/1"):
    """What one scoring run is about: every distinct window, oldest first, and the versions that answer."""

    windows: tuple[Window, ...]
    model: ServedModel
    other: ServedModel | None = None
    reason: str
    experiment_id: str
    parent_run_id: str
    notes: tuple[str, ...] = ()


class ScoringReport(Record, schema="scoring/1"):
    """One published batch of predictions.

    ``output_uri`` is the one Parquet file that holds them; ``output_digest`` the SHA-256 of its bytes. Rows whose
    prediction cannot be made are in ``quarantine_uri`` with a reason each; ``reasons`` counts them.
    ``scored_by`` counts rows by version, where two share them; ``other_mode`` says how the second version took part.
    """

    sentence: str
    window: Window | None
    model: ServedModel
    other: ServedModel | None = None
    other_mode: Literal["", "shadow", "split"] = ""
    dataset_digest: str
    manifest_uri: str = ""
    task: Literal["binary", "multiclass", "regression"]
    output_uri: str
    output_conn_id: str | None = None
    output_digest: str
    byte_count: int
    row_count: int
    scored_count: int
    quarantined_count: int = 0
    quarantine_uri: str | None = None
    reasons: Mapping[str, int] = Field(default_factory=dict)
    scored_by: Mapping[str, int] = Field(default_factory=dict)
    id_columns: tuple[str, ...] = ()
    event_time: str | None = None
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    published_at: str = ""
    key: str
    input_digest: str
    run_id: str = ""


class MonitoredWindow(Frozen):
    """One window to watch: the version that scored it (else the champion), and the scoring step's MLflow run."""

    window: Window
    model: ServedModel
    scoring_run_id: str = ""


class MonitoringPlan(Record, schema="monitoring_plan/1"):
    """What one monitoring run is about: every distinct window, oldest first.

    As JSON, versions stand once under ``models`` and windows name them by their place there, so that about ninety
    windows fit into XCom.
    """

    windows: tuple[MonitoredWindow, ...]
    reason: str
    experiment_id: str
    parent_run_id: str
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_models(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "models" not in value:
            return value
        models = value["models"]
        windows = [{**one, "model": models[one["model"]]} for one in value["windows"]]
        return {**{key: part for key, part in value.items() if key != "models"}, "windows": windows}

    @model_serializer(mode="wrap")
    def _models_once(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        models: list[Any] = []
        for one in plain["windows"]:
            if one["model"] not in models:
                models.append(one["model"])
        windows = [{**one, "model": models.index(one["model"])} for one in plain["windows"]]
        return {**plain, "models": models, "windows": windows}


class ColumnDrift(Frozen):
    """How far one column is from the reference.

    :param value: the distance; None where it could not be told, and ``sentence`` says why.
    :param error: largest amount by which ``value`` may differ from the same distance over raw values; 0 where exact.
    :param p_value: of methods that are tests; never what a verdict follows from at these row counts.
    """

    column: str
    kind: Literal["numeric", "categorical", "time", "unsupported"]
    method: str
    value: float | None = None
    threshold: float | None = None
    drifted: bool = False
    error: float | None = None
    p_value: float | None = None
    sentence: str = ""


class SchemaFinding(Frozen):
    """One reason why a window cannot be compared, or one that the guards only mention."""

    kind: Literal[
        "missing_column", "extra_column", "type_changed", "all_null", "mostly_null", "empty", "too_few_rows", "volume"
    ]
    column: str | None = None
    sentence: str


class DriftReport(Record, schema="drift/1"):
    """What became of one window against a reference.

    ``share`` is ``drifted_count / compared_count``. ``columns`` lists the drifted ones first, the farthest first, at
    most 30; all are in ``findings_uri``. ``findings`` are the guards' words.
    """

    verdict: DriftVerdict
    sentence: str
    window: Window | None
    model: ServedModel | None = None
    reference: str
    engine: Literal["statistics", "evidently"] = "statistics"
    row_count: int
    compared_count: int = 0
    drifted_count: int = 0
    share: float | None = None
    columns: tuple[ColumnDrift, ...] = ()
    prediction: ColumnDrift | None = None
    findings: tuple[SchemaFinding, ...] = ()
    findings_uri: str = ""
    profile_uri: str = ""
    report_uri: str | None = None
    evidently_uri: str | None = None
    dataset_digest: str = ""
    notes: tuple[str, ...] = ()
    run_id: str = ""


class PerformanceReport(Record, schema="performance/1"):
    """Realised performance of one scored batch.

    ``state``: ``waiting`` (too few labels, nothing was measured), ``provisional``, ``final``. ``revision`` is 1 for the
    first figures of a state, and one more for every later correction of final ones. ``promised`` are the figures of the
    evaluation that let the version through; ``other_metrics`` those of the version beside it.
    """

    state: Literal["waiting", "provisional", "final"]
    revision: int = 1
    sentence: str
    window: Window | None
    model: ServedModel
    other: ServedModel | None = None
    row_count: int
    labelled_count: int
    coverage: float
    metrics: Mapping[str, float | None] = Field(default_factory=dict)
    other_metrics: Mapping[str, float | None] = Field(default_factory=dict)
    promised: Mapping[str, float | None] = Field(default_factory=dict)
    lower_is_better: tuple[str, ...] = ()
    duplicate_count: int = 0
    unknown_count: int = 0
    future_count: int = 0
    notes: Mapping[str, str] = Field(default_factory=dict)
    evidence_uri: str = ""
    report_uri: str | None = None
    labels_digest: str = ""
    scoring_run_id: str = ""
    run_id: str = ""


class WindowState(Frozen):
    """What the policy remembers of one window, whoever watched it: the newest verdicts, and what was done.

    :param version: the version that scored the window.
    :param labelled: predictions that had a label when performance was measured; None where it was not.
    :param told: of which breaches people were told: the rule's name, followed by ``.schema_broken`` where the data
        was broken, to the key of the act that told.
    :param request: id of the retrain or rollback that this window asked for; empty for none.
    :param asked_at: ISO time in UTC of that; empty for none.
    """

    window: Window
    version: int
    rows: int
    drift_verdict: DriftVerdict | None = None
    drift_share: float | None = None
    drifted_columns: Mapping[str, float | None] = Field(default_factory=dict)
    drifted_count: int = 0
    compared_count: int = 0
    performance: Mapping[str, float | None] = Field(default_factory=dict)
    promised: Mapping[str, float | None] = Field(default_factory=dict)
    other_performance: Mapping[str, float | None] = Field(default_factory=dict)
    performance_state: Literal["", "waiting", "provisional", "final"] = ""
    lower_is_better: tuple[str, ...] = ()
    coverage: float | None = None
    labelled: int | None = None
    told: Mapping[str, str] = Field(default_factory=dict)
    action: PolicyAction = "none"
    request: str = ""
    asked_at: str = ""
    run_id: str = ""


class PolicyDecision(Record, schema="policy/1"):
    """What follows from the windows, once for all of a run's windows.

    :param breaches: sentences, one a breached rule, with N of M and the windows.
    :param notes: what could not be judged and why, one sentence each.
    :param suppressed: why a breach has no consequence of its own; only where ``action`` is ``none``.
    :param reason: for people and for the retrain's event: what breached, how far, since when.
    :param request: id of the retrain or rollback asked for; a repeated decision gives the same.
    :param entry: the promotion ledger's entry of the rollback that was done.
    :param champion_version: who serves once the decision was carried out.
    """

    action: PolicyAction
    sentence: str
    window: Window | None
    breaches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    suppressed: Suppressed = ""
    reason: str = ""
    request: str = ""
    entry: int | None = None
    states: int = 0
    champion_version: int | None = None
    champion_age_days: float | None = None
    pictures_uri: str = ""
    run_id: str = ""
