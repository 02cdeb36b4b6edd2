"""The model card: what a person should know of a version before using it, made from records and evidence alone.

Nothing is asked of anybody and nothing is made up: what no record says stands as ``not recorded``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_mlops.core.document import (
    MAX_ENTRIES,
    Block,
    Bullets,
    Commands,
    Document,
    Facts,
    Section,
    Table,
    Text,
    bounded,
    one_line,
)
from airflow_mlops.core.evidence import Evidence, Measurement
from airflow_mlops.core.lineage import Blank, Origins, is_blank, is_commit, span
from airflow_mlops.core.records import GateDecision, ValidationReport
from airflow_mlops.core.rules import number

NOT_RECORDED = "not recorded"
#: Slices of one metric that the card shows, the worst for the candidate first.
WORST_SLICES = 5
#: Metrics whose slices the card shows.
SLICED_METRICS = 5
#: Features, libraries and parameters that the card names.
MAX_NAMES = 40


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is made from.

    :param version: None while the version does not exist yet.
    :param description: what the team says of the model.
    :param task_key: the task that registered it.
    :param blanks: what is not known, where a person had it registered all the same.
    """

    name: str
    decision: GateDecision
    origins: Origins
    version: int | None = None
    description: str = ""
    reason: str = ""
    task_key: str = ""
    blanks: Sequence[Blank] = ()


def model_card(facts: CardFacts) -> Document:
    """Return the card of one version."""
    title = f"Model card: {facts.name}" + ("" if facts.version is None else f", version {facts.version}")
    return Document(
        title,
        [
            Section("What it is", _about(facts)),
            Section("Data it is meant for", _data(facts)),
            Section("Training", _training(facts)),
            Section("Data contract", _contracts(facts)),
            Section("Evaluation", _evaluation(facts.decision, facts.origins.evidence)),
            Section("Weakest slices", _slices(facts.origins.evidence)),
            Section("Gate", _gate(facts)),
            Section("Serving check", _serving(facts)),
            Section("Environment", _environment(facts.origins)),
            Section("Known limits", [bounded(list(_limits(facts)))]),
            Section("Trace, history and rollback", [Commands(_commands(facts))]),
        ],
    )


def _about(facts: CardFacts) -> list[Block]:
    model = facts.decision.model
    evidence = facts.origins.evidence
    task = evidence.task if evidence is not None else facts.origins.report.task if facts.origins.report else None
    blocks: list[Block] = [Text(facts.description)] if facts.description.strip() else []
    return [
        *blocks,
        Facts(
            [
                ("Registered model", facts.name),
                ("Version", NOT_RECORDED if facts.version is None else str(facts.version)),
                ("Predicts", f"{said(model.target)} ({said(task)})"),
                ("Model", said(model.model_uri)),
                ("Format", f"{said(model.flavor)}, {said(model.serialization)}, {model.size_bytes:,} bytes"),
                ("Digest of its files", said(model.digest)),
                ("Registered by the task", said(facts.task_key)),
                ("Why the run was made", said(facts.reason)),
            ]
        ),
    ]


def _data(facts: CardFacts) -> list[Block]:
    model = facts.decision.model
    names = list(model.features)
    if names:
        shown = ", ".join(names[:MAX_NAMES])
        features = shown + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
    else:
        features = "named by the model's signature" if model.feature_count else NOT_RECORDED
    data = facts.origins.training_data
    return [
        Facts(
            [
                ("Features", f"{model.feature_count}: {features}"),
                ("Target", said(model.target)),
                ("Data", said(model.data_uri)),
                ("Trained on", said(span(model.train_window, facts.decision.window))),
                ("Judged on", str(facts.decision.window) if facts.decision.window else "data without a window"),
                ("Columns of the data", str(data.dataset.column_count) if data else NOT_RECORDED),
            ]
        ),
        Text("The model takes the columns of the data as they are; whatever it derives from them is inside it."),
    ]


def _training(facts: CardFacts) -> list[Block]:
    model, parameters = facts.decision.model, facts.origins.parameters
    shown = [f"{name} = {value}" for name, value in parameters.items()]
    blocks: list[Block] = [
        Facts(
            [
                ("Rows", f"{model.row_count:,}"),
                ("Dataset version", said(model.dataset_digest)),
                ("Manifest of its files", said(model.manifest_uri)),
                ("Code", said(model.git_commit)),
                ("Digest of the code", said(model.code_digest)),
                ("The source files", said(model.source_uri)),
                ("Seed", str(model.seed)),
                ("Task", said(model.key)),
                ("MLflow run", said(model.run_id)),
                ("Reference profile", said(model.profile_uri)),
            ]
        )
    ]
    return [*blocks, bounded(shown, MAX_NAMES)] if shown else [*blocks, Text(f"Parameters: {NOT_RECORDED}.")]


def _contracts(facts: CardFacts) -> list[Block]:
    blocks: list[Block] = []
    for what, report in (
        ("Training rows", facts.origins.training_data),
        ("Evaluation rows", facts.origins.evaluation_data),
    ):
        blocks.extend(_contract(what, report))
    return blocks


def _contract(what: str, report: ValidationReport | None) -> list[Block]:
    if report is None:
        return [Text(f"{what}: {NOT_RECORDED}.")]
    told = [Text(f"{what}: {report.verdict}. {report.sentence}")]
    findings = [finding.sentence for finding in report.findings]
    if not findings:
        return list(told)
    return [*told, Bullets(findings[:MAX_ENTRIES], max(0, report.finding_count - len(findings[:MAX_ENTRIES])))]


def _evaluation(decision: GateDecision, evidence: Evidence | None) -> list[Block]:
    if evidence is None:
        return [Text(f"The evidence {said(decision.evidence_uri)}: {NOT_RECORDED}.")]
    champion = evidence.champion
    against = "There was no champion to compare with." if champion is None else f"Champion: version {champion.version}."
    if evidence.not_compared:
        against = f"{evidence.not_compared}."
    window = f" of {evidence.window}" if evidence.window else ""
    blocks: list[Block] = [
        Text(f"{evidence.rows:,} rows{window}, dataset {evidence.dataset_digest}. {against}"),
    ]
    if evidence.champion_problem:
        blocks.append(Text(evidence.champion_problem))
    names = list(evidence.metrics)
    rows = [_figures(evidence.overall(name), name, evidence) for name in names[:MAX_NAMES]]
    blocks.append(Table(_heads(evidence, "Metric"), rows, max(0, len(names) - MAX_NAMES)))
    return blocks


def _slices(evidence: Evidence | None) -> list[Block]:
    if evidence is None:
        return [Text(NOT_RECORDED)]
    blocks: list[Block] = []
    for metric, higher in list(evidence.metrics.items())[:SLICED_METRICS]:
        found = [one for one in evidence.measurements if one.metric == metric and one.slice is not None]
        told = [one for one in found if one.candidate is not None]
        if not told:
            continue
        compared = any(one.difference is not None for one in told)
        worst = sorted(told, key=lambda one: _badness(one, compared=compared, higher=higher))[:WORST_SLICES]
        by = "against the champion" if compared else "by its value, for there is no comparison"
        blocks.append(Text(f"{metric}: the {len(worst)} weakest of {len(found)} slices {by}."))
        blocks.append(Table(_heads(evidence, "Slice"), [_figures(one, one.where, evidence) for one in worst]))
    return blocks or [Text("No slice was measured.")]


def _badness(one: Measurement, *, compared: bool, higher: bool) -> tuple[bool, float, str]:
    """Return what sorts the worst slice first; a difference is positive where the candidate is better."""
    value = one.candidate if one.candidate is not None else 0.0
    own = value if higher else -value
    if compared:
        return (one.difference is None, one.difference if one.difference is not None else own, one.where)
    return (False, own, one.where)


def _heads(evidence: Evidence, first: str) -> list[str]:
    return [first, "Rows", "Candidate", "Champion", "Difference", f"{evidence.confidence:.0%} interval", "Note"]


def _figures(one: Measurement | None, label: str, evidence: Evidence) -> list[str]:
    if one is None:
        return [label, *[NOT_RECORDED] * 5, ""]
    lower = "" if one.slice is not None or evidence.metrics.get(one.metric, True) else " (lower is better)"
    return [
        label + lower,
        f"{one.rows:,}",
        _value(one.candidate),
        _value(one.champion),
        "" if one.difference is None else f"{one.difference:+.4f}",
        "" if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}",
        one.note,
    ]


def _gate(facts: CardFacts) -> list[Block]:
    decision, whole = facts.decision, facts.origins.gate
    results = whole.results if whole is not None else decision.results
    total = len(results) if whole is not None else decision.result_count
    lines = [f"{result.status}: {result.sentence}" for result in results] or list(decision.reasons)
    more = max(0, (total if results else len(lines)) - len(lines[:MAX_ENTRIES]))
    return [
        Text(f"{decision.verdict} ({decision.mode}): {decision.sentence}"),
        Bullets(lines[:MAX_ENTRIES], more),
        Facts([("Decision", said(decision.decision_uri)), ("Evidence", said(decision.evidence_uri))]),
    ]


def _serving(facts: CardFacts) -> list[Block]:
    report = facts.origins.serving
    if report is None:
        asked = not is_blank(facts.decision.serving_run_id)
        return [Text(f"The result of {facts.decision.serving_run_id}: {NOT_RECORDED}." if asked else "Not made.")]
    differ = [
        f"{one.name}: trained with {one.recorded or NOT_RECORDED}, checked with {one.installed or 'none installed'}"
        for one in report.differences
    ]
    more = max(0, report.difference_count - len(differ))
    measured = Facts(
        [
            ("Environment", f"{report.env}, Python {said(report.python_version)}"),
            ("One call", f"{_value(report.call_milliseconds)} ms for {report.rows} rows"),
            ("One row", f"{_value(report.row_milliseconds)} ms"),
            ("Loading", f"{_value(report.load_seconds)} s"),
            (
                "Peak memory",
                NOT_RECORDED if report.peak_memory_bytes is None else f"{report.peak_memory_bytes / 1e6:,.0f} MB",
            ),
        ]
    )
    return [Text(report.sentence), measured, *([Bullets(differ[:MAX_ENTRIES], more)] if differ else [])]


def _environment(origins: Origins) -> list[Block]:
    found = origins.environment
    if found is None:
        return [Text(NOT_RECORDED)]
    libraries = found.get("requirements") or found.get("libraries") or ()
    if isinstance(libraries, Mapping):
        libraries = [f"{name}=={version}" for name, version in libraries.items()]
    head = Facts(
        [
            ("Python", said(found.get("python"))),
            ("Platform", said(found.get("platform"))),
            ("Digest", said(found.get("digest"))),
        ]
    )
    return [head, bounded([str(one) for one in libraries], MAX_NAMES)]


def _limits(facts: CardFacts) -> Iterable[str]:
    """Yield what the records themselves tell of how far to trust the model."""
    decision, origins, evidence = facts.decision, facts.origins, facts.origins.evidence
    for blank in facts.blanks:
        yield f"Not known of it, and registered by a person all the same: {blank.name}."
    if decision.mode == "dry_run":
        yield "The gate ran dry: its verdict moved nothing."
    if evidence is not None:
        if evidence.champion is None or evidence.not_compared:
            yield "It was not compared with another model."
        if evidence.draws:
            yield (
                f"Intervals come from {evidence.draws:,} bootstrap draws over rows that count as independent; where "
                f"rows come in clusters, such as the flights of one day, they are narrower than they should be."
            )
        if undefined := sum(1 for one in evidence.measurements if one.candidate is None):
            yield f"{undefined:,} of {len(evidence.measurements):,} measurements have no value; the evidence says why."
        yield from (one_line(note) for note in evidence.notes.values())
    for what, report in (("training", origins.training_data), ("evaluation", origins.evaluation_data)):
        if report is not None and report.quarantined_count:
            yield (
                f"{report.quarantined_count:,} of {report.row_count:,} {what} rows broke the contract and were set "
                f"aside: the figures say nothing of such rows."
            )
        if report is not None and report.dataset.snapshot == "reference":
            yield f"The {what} data was referenced, not copied: an overwritten file is noticed but cannot be rebuilt."
    commit = decision.model.git_commit
    if not is_commit(commit):
        yield f"The code is of no known commit ({said(commit)})."
    elif commit.endswith("+dirty"):
        yield "The code differed from its commit; the stored source files are what ran."
    if origins.serving is None:
        yield "No serving check is recorded: nothing shows how quickly it answers."
    yield "It is judged on the window named above; whether later data is like it, monitoring has to tell."


def _commands(facts: CardFacts) -> list[str]:
    version = [] if facts.version is None else ["--version", str(facts.version)]
    return [
        shlex.join(["airflow-mlops", "trace", facts.name, *version]),
        shlex.join(["airflow-mlops", "history", facts.name]),
        shlex.join(["airflow-mlops", "rollback", facts.name]) + " --reason 'WHY'",
    ]


def said(value: object) -> str:
    """Return a value as text, or ``not recorded`` for a blank."""
    return NOT_RECORDED if is_blank(value) else str(value)


def _value(value: float | None) -> str:
    return "" if value is None else number(value)
