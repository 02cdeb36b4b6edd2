"""Check a dataset version against its contract, set bad rows aside, and hand on the rows that were accepted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import ContractFinding, ContractVerdict, DatasetVersion, ValidationReport
from airflow_mlops.engines.contract_page import ReportLine, render_page
from airflow_mlops.engines.expectations import Outcome, check_contract_names, evaluate
from airflow_mlops.engines.sentences import percent
from airflow_mlops.engines.tables import read_table
from airflow_mlops.spec.contract import Contract, load_contract
from airflow_mlops.spec.model import DataSpec
from airflow_mlops.steps.base import Access, Step, Work
from airflow_mlops.steps.datasets import load_manifest
from airflow_mlops.steps.derive import store_rows, write_parquet

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from mlflow import MlflowClient

    from airflow_mlops.engines.tables import Manifest

log = logging.getLogger(__name__)

REPORT_FILE = "contract_report.html"
RESULT_FILE = "contract_result.json"
MOST_FINDINGS = 20
#: XCom takes 16 kB for the whole record; the findings get what the rest surely leaves.
MOST_FINDING_BYTES = 9_000
MOST_LEFT_OUT = 10
LONGEST_LEFT_OUT = 150


class ValidatePayload(BaseModel):
    """The dataset, its contract (a file's path or the contract itself), and where accepted rows are written.

    ``purpose: scoring`` leaves out what is expected of train-only columns; ``inputs``, the columns the model reads, and
    ``target`` count for that purpose alone. See :meth:`airflow_mlops.spec.contract.Contract.for_scoring`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetVersion
    contract: str | dict[str, Any]
    data: DataSpec | None = None
    purpose: Literal["training", "scoring"] = "training"
    inputs: tuple[str, ...] | None = None
    target: str | None = None


@dataclass(frozen=True)
class _Asked:
    """What is asked of the data: the contract as it was written, what of it counts here, and what was left out."""

    written: Contract
    contract: Contract
    purpose: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Checked:
    """What came out: an outcome per expectation, rows that go on, and which positions do not, with reasons."""

    outcomes: tuple[Outcome, ...]
    accepted_count: int
    reasons: Mapping[int, str]
    general: tuple[str, ...]


class ValidateStep(Step[ValidatePayload, ValidationReport]):
    """Run the contract's expectations. A failed contract is a record with verdict ``fail``, not an error.

    Quarantining expectations come first. The rows they find are written aside with the reason; all other expectations,
    and ``min_rows``, are checked on the rows that go on, which are what a model would be trained on.
    """

    name = "validate"
    payload_type = ValidatePayload
    record_type = ValidationReport

    def inputs(self, payload: ValidatePayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Return the data's digest, what the contract asks for, and the version of the engine that answers."""
        data = payload.data
        inputs: dict[str, Any] = {
            "dataset": payload.dataset.digest,
            "contract": load_contract(payload.contract).digest,
            "copy_to": data.copy_to if data else None,
            "engine": _engine_version(),
        }
        if payload.purpose == "scoring":
            inputs |= {"purpose": "scoring", "inputs": payload.inputs, "target": payload.target}
        return inputs

    def recheck(self, record: ValidationReport, payload: ValidatePayload, client: MlflowClient, access: Access) -> bool:
        """Adopt only while the run that holds the accepted dataset's manifest is there."""
        from mlflow.exceptions import MlflowException

        run_id = record.dataset.manifest_uri.removeprefix("runs:/").partition("/")[0]
        try:
            return str(client.get_run(run_id).info.lifecycle_stage) == "active"
        except MlflowException as exc:
            if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def run(self, payload: ValidatePayload, work: Work) -> ValidationReport:
        """Check, write rows aside, write the report."""
        written = load_contract(payload.contract)
        check_contract_names(written)
        dataset = payload.dataset
        manifest = load_manifest(dataset, work)
        asked = _asked(written, payload, [name for name, _ in manifest.columns])
        contract = asked.contract
        if dataset.row_count:
            table = read_table(manifest, work.access.storage(dataset.conn_id), fetch=work.read_file)
            checked = _check(contract, table)
        else:
            table = None
            checked = _nothing_to_check(contract, dataset)
        findings = _findings(contract, checked)
        verdict = _verdict(findings)
        accepted, quarantine_uri = dataset, None
        if checked.reasons and table is not None:
            copy_to = payload.data.copy_to if payload.data else None
            if verdict != "fail":
                accepted = store_rows(manifest, table, sorted(checked.reasons), work, copy_to)
            quarantine_uri = _store_quarantine(manifest, table, checked.reasons, contract, work, copy_to)
        sentence = _sentence(verdict, asked, dataset, checked, findings)
        report_uri = _store_report(verdict, sentence, asked, dataset, checked, work)
        shown = _bounded(findings)
        return ValidationReport(
            verdict=verdict,
            sentence=sentence,
            dataset=accepted,
            raw_digest=dataset.digest,
            contract_digest=written.digest,
            expectation_count=len(contract.expectations),
            findings=tuple(shown),
            finding_count=len(findings),
            row_count=dataset.row_count,
            quarantined_count=len(checked.reasons),
            quarantine_uri=quarantine_uri,
            report_uri=report_uri,
            run_id=work.run_id,
            purpose=asked.purpose,
            left_out=tuple(text[:LONGEST_LEFT_OUT] for text in asked.left_out[:MOST_LEFT_OUT]),
            left_out_count=len(asked.left_out),
        )


def _asked(written: Contract, payload: ValidatePayload, columns: Sequence[str]) -> _Asked:
    if payload.purpose == "training":
        return _Asked(written, written, payload.purpose, ())
    contract, left_out = written.for_scoring(columns, inputs=payload.inputs, target=payload.target)
    return _Asked(written, contract, payload.purpose, left_out)


def _check(contract: Contract, table: pyarrow.Table) -> _Checked:
    frame = _frame_for(contract, table)
    first = [number for number, spec in enumerate(contract.expectations) if spec.on_failure == "quarantine"]
    outcomes = {outcome.number: outcome for outcome in evaluate(frame, contract, first)}
    reasons: dict[int, list[str]] = {}
    for number in first:
        spec = contract.expectations[number]
        for position in outcomes[number].positions:
            reasons.setdefault(position, []).append(f"{spec.type}({', '.join(spec.columns)})")
    if reasons:
        frame = frame.drop(index=list(reasons)).reset_index(drop=True)
    rest = [number for number in range(len(contract.expectations)) if number not in outcomes]
    if len(frame):
        outcomes |= {outcome.number: outcome for outcome in evaluate(frame, contract, rest)}
    general = []
    if len(frame) < contract.min_rows:
        left = f" after {len(reasons):,} were set aside" if reasons else ""
        general.append(f"The data has {len(frame):,} rows{left}; the contract asks for at least {contract.min_rows:,}.")
    share = len(reasons) / table.num_rows
    if contract.max_quarantined_share is not None and share > contract.max_quarantined_share:
        general.append(
            f"{len(reasons):,} of {table.num_rows:,} rows ({percent(share)}) would be set aside; the contract allows "
            f"at most {percent(contract.max_quarantined_share)}."
        )
    return _Checked(
        outcomes=tuple(
            outcomes.get(number) or Outcome(number, "unchecked", "Not checked: no row is left.")
            for number in range(len(contract.expectations))
        ),
        accepted_count=len(frame),
        reasons={position: "; ".join(why) for position, why in reasons.items()},
        general=tuple(general),
    )


def _nothing_to_check(contract: Contract, dataset: DatasetVersion) -> _Checked:
    where = f"window {dataset.window}" if dataset.window else "data"
    return _Checked(
        outcomes=tuple(
            Outcome(number, "unchecked", "Not checked: there is no row.")
            for number in range(len(contract.expectations))
        ),
        accepted_count=0,
        reasons={},
        general=(
            f"The {where} of {dataset.uri} holds no row; the contract asks for at least {contract.min_rows:,}. Check "
            f"that the delivery is complete and that the window is the right one.",
        ),
    )


def _frame_for(contract: Contract, table: pyarrow.Table) -> pandas.DataFrame:
    """Return the columns the contract names, or all of them where an expectation needs more than it names.

    That is one about the table as a whole, and one with a ``row_condition``, which may be about any column.
    """
    from airflow_mlops.engines.schemas import to_frame

    if all(spec.columns and not spec.kwargs.get("row_condition") for spec in contract.expectations):
        named = {column for spec in contract.expectations for column in spec.columns}
        kept = [column for column in table.column_names if column in named]
        if not contract.expectations:
            kept = table.column_names[:1]  # the rows are counted, nothing else
        if kept:
            return to_frame(table.select(kept))
    return to_frame(table)


def _findings(contract: Contract, checked: _Checked) -> list[ContractFinding]:
    """Return everything that is not met, the gravest first. What could not be evaluated counts as failed."""
    found = [
        ContractFinding(expectation="min_rows", column=None, on_failure="fail", sentence=text)
        for text in checked.general
    ]
    for outcome in checked.outcomes:
        spec = contract.expectations[outcome.number]
        if outcome.status in ("fail", "error"):
            found.append(
                ContractFinding(
                    expectation=spec.type,
                    column=", ".join(spec.columns)[:300] or None,
                    on_failure="fail" if outcome.status == "error" else spec.on_failure,
                    sentence=outcome.sentence,
                    unexpected_count=outcome.unexpected_count,
                )
            )
    order = {"fail": 0, "quarantine": 1, "warn": 2}
    return sorted(found, key=lambda finding: order[finding.on_failure])


def _verdict(findings: Sequence[ContractFinding]) -> ContractVerdict:
    kinds = {finding.on_failure for finding in findings}
    if "fail" in kinds:
        return "fail"
    if "quarantine" in kinds:
        return "quarantine"
    return "warn" if "warn" in kinds else "pass"


def _sentence(
    verdict: ContractVerdict,
    asked: _Asked,
    dataset: DatasetVersion,
    checked: _Checked,
    findings: Sequence[ContractFinding],
) -> str:
    total, rows = len(asked.contract.expectations), f"{dataset.row_count:,} rows"
    where = f"{rows} of window {dataset.window}" if dataset.window else rows
    broken = sum(finding.on_failure == "fail" for finding in findings)
    aside = f" {len(checked.reasons):,} rows were set aside." if checked.reasons else ""
    left, less = len(asked.left_out), ""
    if left:
        were = "expectation about train-only columns was" if left == 1 else "expectations about train-only columns were"
        less = f" {left} {were} left out, because this is a batch to score."
    if verdict == "fail":
        unmet = f"{broken} {'requirement is' if broken == 1 else 'requirements are'} not met"
        return f"The contract failed on {where}: {unmet}.{less}"
    if verdict == "quarantine":
        return f"The contract holds for {checked.accepted_count:,} of {where}.{aside}{less}"
    if verdict == "warn":
        return f"The contract holds on {where}, with {len(findings)} of {total} expectations warning.{less}"
    if not total:
        return (
            f"The contract holds on {where}: that they are at least {asked.contract.min_rows:,} is all it asks.{less}"
        )
    return f"The contract holds: {total} expectations on {where}.{less}"


def _store_quarantine(
    manifest: Manifest,
    table: pyarrow.Table,
    reasons: Mapping[int, str],
    contract: Contract,
    work: Work,
    copy_to: str | None,
) -> str:
    import pyarrow

    positions = sorted(reasons)
    reason = "_reason"
    while reason in table.column_names:
        reason = f"_{reason}"
    rows = table.take(pyarrow.array(positions)).append_column(
        reason, pyarrow.array([reasons[position] for position in positions], pyarrow.string())
    )
    mark = digest_of({"contract": contract.digest, "rows": positions})[:12]
    name = f"quarantine/{manifest.digest[:12]}-{mark}.parquet"
    return write_parquet(rows, name, work, copy_to, conn_id=manifest.conn_id).uri


def _store_report(
    verdict: ContractVerdict,
    sentence: str,
    asked: _Asked,
    dataset: DatasetVersion,
    checked: _Checked,
    work: Work,
) -> str:
    """Store the page for people and the same as JSON for programs; return the page's URI."""
    contract, lines = asked.contract, []
    for outcome in checked.outcomes:
        spec = contract.expectations[outcome.number]
        mark = spec.on_failure if outcome.status == "fail" else outcome.status
        lines.append(ReportLine(mark, spec.type, spec.on_failure, outcome.sentence, spec.notes))
    work.log_json(
        {
            "verdict": verdict,
            "sentence": sentence,
            "dataset": dataset.digest,
            "manifest_uri": dataset.manifest_uri,
            "contract": asked.written.model_dump(mode="json"),
            "contract_digest": asked.written.digest,
            "purpose": asked.purpose,
            "left_out": list(asked.left_out),
            "rows": dataset.row_count,
            "accepted_rows": checked.accepted_count,
            "general": list(checked.general),
            "outcomes": [
                {
                    "type": contract.expectations[outcome.number].type,
                    "columns": list(contract.expectations[outcome.number].columns),
                    "on_failure": contract.expectations[outcome.number].on_failure,
                    "status": outcome.status,
                    "sentence": outcome.sentence,
                    "unexpected_count": outcome.unexpected_count,
                }
                for outcome in checked.outcomes
            ],
        },
        RESULT_FILE,
    )
    page = render_page(
        verdict=verdict,
        sentence=sentence,
        facts=[
            ("Data", dataset.uri),
            ("Dataset version", dataset.digest),
            ("Window", str(dataset.window) if dataset.window else "everything"),
            ("Rows", f"{dataset.row_count:,}"),
            ("Rows set aside", f"{len(checked.reasons):,}"),
            ("Contract", asked.written.digest),
            ("Purpose", asked.purpose),
            *([("Left out", ", ".join(asked.left_out))] if asked.left_out else []),
            ("Great Expectations", _engine_version()),
        ],
        findings=checked.general,
        lines=lines,
    )
    return work.log_text(page, REPORT_FILE)


def _bounded(findings: Sequence[ContractFinding]) -> list[ContractFinding]:
    """Return the first findings that fit into the record; ``finding_count`` and the report tell of all."""
    shown: list[ContractFinding] = []
    size = 0
    for finding in findings[:MOST_FINDINGS]:
        size += len(finding.model_dump_json().encode()) + 2
        if size > MOST_FINDING_BYTES:
            break
        shown.append(finding)
    return shown


def _engine_version() -> str:
    try:
        return metadata.version("great-expectations")
    except metadata.PackageNotFoundError:
        return "not installed"
