"""Drift of the predictions: what the model said of this window against what it said when it was evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ColumnDrift, ScoringReport, ServedModel
from airflow_mlops.engines import runs
from airflow_mlops.engines.artifacts import stored_json
from airflow_mlops.engines.checked_files import CheckedFile, checked_files
from airflow_mlops.engines.manifests import Manifest, ManifestFile, encode_schema
from airflow_mlops.engines.prediction_profile import PREDICTION, PREDICTION_PROFILE_FILE, as_text
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.steps.base import Work
    from airflow_mlops.steps.drift import DriftPayload

log = logging.getLogger(__name__)

_FILE = "predictions.parquet"


@dataclass(frozen=True)
class Predictions:
    """The window's predictions beside those of the evaluation.

    :param reference: profile of the candidate's predictions in the evaluation; its one column is ``prediction``.
    :param file: the window's, as one file with that one column, floats or text; None where they cannot be had.
    :param note: why there is nothing to compare at all; empty otherwise.
    :param problem: why predictions that should be there cannot be compared; a later attempt may find them.
    """

    reference: Mapping[str, Any] | None = None
    file: CheckedFile | None = None
    note: str = ""
    problem: str = ""


def find_predictions(payload: DriftPayload, work: Work) -> Predictions:
    """Find both sides, and check that the published file is the one of the scoring report.

    :raises StorageUnavailableError: the store does not answer.
    """
    if payload.drift.prediction is None or payload.model is None:
        return Predictions()
    if not payload.scoring_run_id:
        return Predictions(note="Predictions were not compared: no scoring run of this window is known.")
    reference = _reference(payload.model, work)
    if reference is None:
        return Predictions(
            note=f"Predictions were not compared: no profile of predictions was logged when {payload.model} was "
            f"evaluated. A version that this release evaluates has one."
        )
    report = _report(payload.scoring_run_id, work)
    if report is None:
        return Predictions(
            reference, problem=f"the record of the scoring run {payload.scoring_run_id} is gone from MLflow"
        )
    if report.model.name != payload.model.name or report.model.version != payload.model.version:
        return Predictions(
            reference, problem=f"the batch was scored by {report.model}, and compared is {payload.model}"
        )
    try:
        return Predictions(reference, file=_published(report, reference, work))
    except (DataChangedError, DataReadError) as exc:
        log.warning("The predictions cannot be compared: %s", exc)
        return Predictions(reference, problem=_about(exc, report))


def without_value(payload: DriftPayload, problem: str) -> ColumnDrift:
    """Return the result where the predictions cannot be compared."""
    method = payload.drift.prediction.method if payload.drift.prediction else ""
    return ColumnDrift(
        column=PREDICTION,
        kind="unsupported",
        method=method,
        sentence=f"The predictions could not be compared: {problem.rstrip('.')}.",
    )


def _reference(model: ServedModel, work: Work) -> dict[str, Any] | None:
    if not (model.evidence_uri or "").startswith("runs:/"):
        return None
    folder = str(model.evidence_uri).rpartition("/")[0]
    found = stored_json(work.client, f"{folder}/{PREDICTION_PROFILE_FILE}")
    return found if isinstance(found, dict) and PREDICTION in found.get("columns", {}) else None


def _report(run_id: str, work: Work) -> ScoringReport | None:
    from mlflow.exceptions import MlflowException

    try:
        stored = runs.read_record(work.client, work.client.get_run(run_id))
        return None if stored is None else ScoringReport.from_xcom(stored)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    except InvalidSpecError as exc:
        log.warning("The record of the scoring run %s is of another kind: %s", run_id, exc)
    return None


def _about(exc: Exception, report: ScoringReport) -> str:
    cause = exc.__cause__
    if isinstance(exc, DataChangedError) and isinstance(cause, FileNotFoundError | DataReadError):
        return f"{report.output_uri} is gone since it was published. Score the window again"
    if isinstance(exc, DataChangedError):
        return f"{report.output_uri} is not the file that was published: its bytes changed. Score the window again"
    return str(exc)


def _published(report: ScoringReport, reference: Mapping[str, Any], work: Work) -> CheckedFile:
    """Return the one column that is compared as a file of its own, from the published file once its digest is checked.

    :raises DataChangedError: the file is gone or has other bytes.
    :raises DataReadError: it does not have the columns of a predictions file, or no row of this version.
    """
    from pyarrow import parquet

    folder, _, name = report.output_uri.rpartition("/")
    entry = ManifestFile(
        path=name,
        size=report.byte_count,
        sha256=report.output_digest,
        row_count=report.row_count,
        total_rows=report.row_count,
    )
    listed = Manifest(uri=report.output_uri, root=folder, format="parquet", columns=(), arrow_schema="", files=(entry,))
    scratch = work.folder / "predictions"
    scratch.mkdir()
    target = scratch / _FILE
    access = work.access.storage(report.output_conn_id)
    count = 0
    for file in checked_files(listed, scratch, access, fetch=work.read_file):
        schema: pyarrow.Schema | None = None
        writer = None
        try:
            for table in _values(file.path, report, str(reference.get("predicted", "value"))):
                if writer is None:
                    schema = table.schema
                    writer = parquet.ParquetWriter(target, schema)
                writer.write_table(table)
                count += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    if not count:
        raise DataReadError(f"version {report.model.version} answered no row of the predictions {report.output_uri}")
    return _as_file(target, count)


def _as_file(path: Path, count: int) -> CheckedFile:
    from pyarrow import parquet

    schema = parquet.read_schema(path)
    entry = ManifestFile(path=path.name, size=path.stat().st_size, sha256="", row_count=count, total_rows=count)
    manifest = Manifest(
        uri=str(path),
        root=str(path.parent),
        format="parquet",
        columns=((PREDICTION, str(schema.field(PREDICTION).type)),),
        arrow_schema=encode_schema(schema),
        files=(entry,),
    )
    return CheckedFile(path=path, name="the predictions", format="parquet", entry=entry, manifest=manifest)


def _values(path: Path, report: ScoringReport, predicted: str) -> Iterator[pyarrow.Table]:
    """Yield the compared column, as floats or text; of a split batch only this version's rows."""
    import pyarrow
    from pyarrow import compute, parquet

    column = "probability" if predicted == "probability" else "prediction"
    split = report.other_mode == "split"
    with parquet.ParquetFile(path, pre_buffer=False) as opened:
        wanted = [column, *(["model_version"] if split else [])]
        lacking = [name for name in wanted if name not in opened.schema_arrow.names]
        if lacking:
            raise DataReadError(
                f"{report.output_uri} has no column {lacking[0]!r}, with which the evaluation's are compared"
            )
        for batch in opened.iter_batches(columns=wanted):
            table = pyarrow.Table.from_batches([batch])
            if split:
                version = str(report.model.version)
                table = table.filter(compute.equal(as_text(table["model_version"]), version))
            values = table[column]
            values = as_text(values) if predicted == "label" else values.cast(pyarrow.float64())
            yield pyarrow.table({PREDICTION: values})
