"""The rows behind a version: which files held them, with the digest of each, and what their contract said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_mlops.core.lineage import is_blank
from airflow_mlops.engines.manifests import Manifest

if TYPE_CHECKING:
    from airflow_mlops.core.records import ValidationReport
    from airflow_mlops.engines.lineage import RunReader

GONE = "it was recorded, and is gone from MLflow"
#: Written by validation beside its record; it names the manifest of the rows before any were set aside.
RESULT_FILE = "contract_result.json"


def files_of(reader: RunReader, uri: str, digest: str | None) -> tuple[dict[str, Any], str]:
    """Return what the manifest at ``uri`` says of its files, and what is wrong with it (empty: nothing).

    :param digest: what the dataset version's digest must be; None: it is not known.
    """
    empty: dict[str, Any] = {"manifest_uri": uri, "row_count": None, "snapshot": None, "columns": [], "files": []}
    if is_blank(uri):
        return empty, ""
    stored = reader.json(uri)
    if stored is None:
        return empty, GONE
    try:
        manifest = Manifest.model_validate(stored)
    except ValidationError:
        return empty, "what is stored there is no manifest"
    edited = digest is not None and manifest.digest != digest
    problem = (
        f"its digest is {manifest.digest[:12]}, the record says {str(digest)[:12]}: it was edited" if edited else ""
    )
    files = [
        {
            "path": file.path,
            "uri": manifest.location(file),
            "sha256": file.sha256,
            "size": file.size,
            "rows": file.row_count,
            "rows_in_file": file.total_rows,
        }
        for file in manifest.files
    ]
    known = {
        "manifest_uri": uri,
        "row_count": manifest.row_count,
        "snapshot": manifest.snapshot,
        "columns": [list(column) for column in manifest.columns],
        "files": files,
    }
    return known, problem


def raw_manifest_uri(reader: RunReader, report: ValidationReport) -> str:
    """Return the manifest of the rows that were checked, before any were set aside; empty where nothing names it."""
    result = reader.json(f"runs:/{report.run_id}/{RESULT_FILE}")
    return str(result.get("manifest_uri") or "") if isinstance(result, Mapping) else ""


def contract_of(report: ValidationReport) -> dict[str, Any]:
    """Return what the contract said, as plain JSON values."""
    return {
        "verdict": report.verdict,
        "sentence": report.sentence,
        "digest": report.contract_digest,
        "expectations": report.expectation_count,
        "rows": report.row_count,
        "quarantined": report.quarantined_count,
        "quarantine_uri": report.quarantine_uri,
        "findings": [finding.sentence for finding in report.findings],
        "finding_count": report.finding_count,
        "report_uri": report.report_uri,
        "run_id": report.run_id,
    }
