"""What must be known of a model's origin before it may become a version, and when a value counts as not known.

A fact that is written down as ``unknown`` or ``n/a`` says as little as an empty field, so it counts as blank. Each
required fact has a name, the place it is read from, and the way to supply it; registration refuses what is blank by
name, and ``trace`` names the same facts with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.gate import Decision
from airflow_mlops.core.records import (
    EvaluationReport,
    GateDecision,
    ServingReport,
    TrainedModel,
    ValidationReport,
)

#: What people and programs write where they do not know. Compared trimmed and without regard to case.
BLANK_WORDS = frozenset({"", "-", "n/a", "none", "null", "unknown"})
#: Before the first digits of a code digest, where no commit is known: the very files are the archive ``source_uri``.
FILES_PREFIX = "files:"
#: Names the deployed commit where no ``.git`` is shipped.
COMMIT_VARIABLE = "AIRFLOW_MLOPS_GIT_COMMIT"

_TRAIN = "clear the train task, so that TrainModelOperator records it"
_VALIDATED = "give the {operator} the whole record of ValidateDataOperator (its payload key: validation_run_id)"
#: Every fact that a version needs: its name, and how to supply it.
REQUIRED: Mapping[str, str] = {
    "model digest": _TRAIN,
    "training run": _TRAIN,
    "training task": _TRAIN,
    "training data URI": _TRAIN,
    "training data digest": "take the data with SnapshotDataOperator, then clear the train task",
    "training data manifest": "take the data with SnapshotDataOperator, then clear the train task",
    "training contract result": _VALIDATED.format(operator="train operator"),
    "training window": "set data.event_time and take the snapshot of a window, as for the evaluation rows",
    "code commit": f"train from a git checkout, or set {COMMIT_VARIABLE} to the deployed commit where the tasks run; "
    f"then clear the train task",
    "code digest": _TRAIN,
    "parameters digest": _TRAIN,
    "environment digest": _TRAIN,
    "evaluation data manifest": "take the data with SnapshotDataOperator, then clear the evaluate task",
    "evaluation contract result": _VALIDATED.format(operator="evaluate operator"),
    "evaluation evidence": "clear the evaluate task, so that EvaluateModelOperator writes it",
    "gate decision": "clear the gate task, so that GateModelOperator writes it",
}


@dataclass(frozen=True)
class Blank:
    """One fact that is not known.

    :param name: of the fact.
    :param found: what stands in its place, in words.
    :param mend: how to supply it; empty where nothing can.
    """

    name: str
    found: str = "empty"
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.found})" + (f": {self.mend}" if self.mend else "")


@dataclass(frozen=True)
class Origins:
    """What the runs behind one version still hold. None: the run or its artifact is gone, or never was.

    :param gate: the whole decision; the record's is cut to what XCom carries.
    :param environment: what training wrote of its interpreter: ``python``, ``platform``, ``libraries`` and so on.
    :param parameters: as MLflow holds them, the seed among them.
    """

    decision: GateDecision | None = None
    gate: Decision | None = None
    report: EvaluationReport | None = None
    evidence: Evidence | None = None
    trained: TrainedModel | None = None
    training_data: ValidationReport | None = None
    evaluation_data: ValidationReport | None = None
    serving: ServingReport | None = None
    environment: Mapping[str, Any] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


def is_blank(value: Any) -> bool:
    """Say whether a value tells nothing: None, an empty text or collection, or a word of :data:`BLANK_WORDS`."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().casefold() in BLANK_WORDS
    return isinstance(value, Mapping | list | tuple | set | frozenset) and not value


def is_commit(text: str) -> bool:
    """Say whether a code identity is a commit: neither blank nor the digest of files outside of one."""
    return not is_blank(text) and not text.startswith(FILES_PREFIX)


def lineage_of(decision: GateDecision) -> dict[str, Any]:
    """Return the required facts by name, as a decision and its model's record tell them."""
    return {
        **training_lineage(decision.model),
        "training window": span(decision.model.train_window, decision.window),
        "evaluation data manifest": decision.manifest_uri,
        "evaluation contract result": decision.validation_run_id,
        "evaluation evidence": decision.evidence_uri,
        "gate decision": decision.decision_uri,
    }


def training_lineage(model: TrainedModel) -> dict[str, Any]:
    """Return the facts that training alone decides, as the model's record tells them."""
    return {
        "model digest": model.digest,
        "training run": model.run_id,
        "training task": model.key,
        "training data URI": model.data_uri,
        "training data digest": model.dataset_digest,
        "training data manifest": model.manifest_uri,
        "training contract result": model.validation_run_id,
        "code commit": commit(model.git_commit, model.source_uri),
        "code digest": model.code_digest,
        "parameters digest": model.parameters_digest,
        "environment digest": model.environment_digest,
    }


def span(train_window: Any, window: Any) -> str:
    """Return the training window in words; empty where the evaluation had a window and training names none.

    Data without an event-time column has no windows at all: then every row is what there is, and nothing is blank.
    """
    if train_window is None:
        return "" if window is not None else "every row: the data has no event-time column"
    return str(train_window)


def commit(git_commit: str | None, source_uri: str | None) -> str:
    """Return the code's identity, or an empty text where it names files that nobody kept."""
    if git_commit is not None and git_commit.startswith(FILES_PREFIX) and is_blank(source_uri):
        return ""
    return git_commit or ""


def blanks_in(values: Mapping[str, Any]) -> list[Blank]:
    """Return the required facts that ``values`` lacks or holds a blank for, in the order of :data:`REQUIRED`."""
    return [
        Blank(name, _found(values.get(name)), mend) for name, mend in REQUIRED.items() if is_blank(values.get(name))
    ]


def blank_facts(decision: GateDecision) -> list[Blank]:
    """Return what is not known of a candidate that registration needs; empty: it may become a version."""
    return blanks_in(lineage_of(decision))


def _found(value: Any) -> str:
    return repr(value) if isinstance(value, str) and value.strip() else "empty"
