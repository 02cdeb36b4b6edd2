"""Gate: the rules read the evidence; the verdict and its reasons go where people look."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.gate import Decision, GateRule, check_rules, decide
from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.pages import decision_note, decision_page
from airflow_mlops.core.records import EvaluationReport, GateDecision, RuleResult, ServingReport
from airflow_mlops.core.serving_rules import Servable
from airflow_mlops.engines import runs
from airflow_mlops.engines.environment import versions_of
from airflow_mlops.errors import DataChangedError, InvalidSpecError, RecordTooLargeError
from airflow_mlops.spec.model import GateSpec
from airflow_mlops.steps.base import Access, Step, Work
from airflow_mlops.steps.evaluate import MEASURED_WITH, REQUEST_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient

DECISION_FILE = "decision.json"
PAGE_FILE = "decision.html"
#: What ``gate.approval`` says of the waiting, not of the verdict.
NOT_DECIDING = {"timeout_hours", "assignees"}
VERDICT = "airflow_mlops.verdict"
SENTENCE = "airflow_mlops.verdict_sentence"
#: Characters of one sentence in the record; the page has them whole.
MAX_SENTENCE = 600
#: Results in the record, fewer where they do not fit; the page has them all.
MAX_RESULTS = 20


class GatePayload(BaseModel):
    """An evaluation, the rules that judge it, and the candidate's serving check where there was one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: EvaluationReport
    gate: GateSpec
    serving: ServingReport | None = None


class GateStep(Step[GatePayload, GateDecision]):
    """Decide, and write the decision as a page, as JSON, and as tags of the step's run and its parent."""

    name = "gate"
    payload_type = GatePayload
    record_type = GateDecision

    def inputs(self, payload: GatePayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover report, rules, own rules' source, and the libraries; ``on_hold`` and the waiting decide nothing."""
        rules = check_rules(payload.gate.rules)
        return {
            **payload.model_dump(mode="json", exclude={"gate": {"on_hold": True, "approval": NOT_DECIDING}}),
            "own_rules": own_sources(rules),
            "environment": versions_of(*MEASURED_WITH),
        }

    def run(self, payload: GatePayload, work: Work) -> GateDecision:
        """Read the evidence, decide, and tell.

        :raises DataChangedError: the evidence is not what the evaluation wrote.
        :raises InvalidSpecError: the serving check is about another model than the evaluation.
        """
        report, serving = payload.report, payload.serving
        rules = check_rules(payload.gate.rules)
        evidence = read_evidence(report, work)
        if serving is not None:
            require_same_model(report, serving)
            rules = (*rules, Servable())
            evidence = evidence.model_copy(update={"serving": serving})
        decision = decide(evidence, rules, mode=payload.gate.mode, approval=payload.gate.approval.when)
        work.log_json(payload.model_dump(mode="json"), REQUEST_FILE)
        work.log_json(decision.model_dump(mode="json"), DECISION_FILE)
        page_uri = work.log_text(decision_page(decision, evidence), PAGE_FILE)
        _tell(decision, work)
        return bounded(
            decision,
            report,
            decision_uri=page_uri,
            serving_run_id=serving.run_id if serving else "",
            run_id=work.run_id,
        )


def require_same_model(report: EvaluationReport, serving: ServingReport) -> None:
    """Check that evaluation and serving check are about the same files.

    :raises InvalidSpecError: they are not; both models are named.
    """
    if serving.digest != report.model.digest:
        raise InvalidSpecError(
            f"The serving check is of another model than the evaluation: it tried {serving.model_uri} (digest "
            f"{serving.digest[:12]}), the evaluation is of {report.model.model_uri} (digest "
            f"{report.model.digest[:12]}). Give both operators the output of the same training task."
        )


def read_evidence(report: EvaluationReport, work: Work) -> Evidence:
    """Fetch the evidence and check that it is what the evaluation wrote.

    :raises DataChangedError: its digest is another one.
    """
    stored = work.read_json(report.evidence_uri)
    digest = digest_of(stored)
    if digest != report.evidence_digest:
        raise DataChangedError(
            f"The evidence {report.evidence_uri} has digest {digest[:12]}, the evaluation wrote "
            f"{report.evidence_digest[:12]}: somebody edited the artifact. Clear the evaluate task to measure again."
        )
    return Evidence.from_xcom(stored)


def own_sources(rules: Sequence[GateRule]) -> dict[str, str]:
    """Return what the rules by entry point are made of, so that a mended rule decides anew: name to file digest."""
    found = {}
    for rule in rules:
        kind = type(rule)
        if not kind.__module__.startswith("airflow_mlops."):
            file = inspect.getsourcefile(kind)
            found[f"{kind.__module__}:{kind.__qualname__}"] = digest_of(Path(file).read_text()) if file else ""
    return found


def bounded(
    decision: Decision, report: EvaluationReport, *, decision_uri: str, run_id: str, serving_run_id: str = ""
) -> GateDecision:
    """Return the record of a decision, with as many results and reasons as XCom carries, worst first.

    :raises RecordTooLargeError: not even the verdict fits, because of the model's own record.
    """
    for most in (MAX_RESULTS, 12, 8, 5, 3, 1, 0):
        record = GateDecision(
            verdict=decision.verdict,
            mode=decision.mode,
            sentence=_cut(decision.sentence),
            reasons=tuple(_cut(reason) for reason in decision.reasons[:most]),
            results=tuple(_cut_result(result) for result in decision.results[:most]),
            result_count=len(decision.results),
            model=report.model,
            alias=report.alias,
            champion=report.champion,
            ledger_entry=report.ledger_entry,
            window=report.window,
            evidence_uri=report.evidence_uri,
            decision_uri=decision_uri,
            manifest_uri=report.manifest_uri,
            validation_run_id=report.validation_run_id,
            serving_run_id=serving_run_id,
            run_id=run_id,
        )
        try:
            record.to_xcom()
        except RecordTooLargeError:
            if not most:
                raise
            continue
        return record
    raise AssertionError("unreachable: the last round returns or raises")


def _tell(decision: Decision, work: Work) -> None:
    """Tag the verdict on the step's run and on the parent, where people look; the step's run gets the reasons."""
    from mlflow.entities import RunTag

    tags = {VERDICT: decision.verdict, SENTENCE: runs.cut(decision.sentence), "airflow_mlops.gate_mode": decision.mode}
    shared = [RunTag(name, value) for name, value in tags.items()]
    note = RunTag("mlflow.note.content", runs.cut(decision_note(decision)))
    work.client.log_batch(work.run_id, tags=[*shared, note])
    work.client.log_batch(work.parent_run_id, tags=shared)


def _cut_result(result: RuleResult) -> RuleResult:
    return result.model_copy(update={"sentence": _cut(result.sentence)})


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SENTENCE else f"{text[: MAX_SENTENCE - 1]}…"
