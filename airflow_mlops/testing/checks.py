"""What production would say of a frame: the contract's findings, and the verdict on drift."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift import DriftJudgement, judge_drift
from airflow_mlops.core.records import ContractFinding
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.contract import Contract, load_contract
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import contract_file

if TYPE_CHECKING:
    import pandas
    import pyarrow


def violations(
    frame: pandas.DataFrame, contract: ModelSpec | Contract | str | Path | Mapping[str, Any]
) -> tuple[ContractFinding, ...]:
    """Return what of a contract the rows do not meet, the gravest first; nothing where all of it holds.

    As in production, rows that a quarantining expectation finds are set aside first, and everything else is asked of
    the rows that go on. An expectation that cannot be evaluated, because a column is gone or has another type, counts
    with ``on_failure: fail``.

    :param contract: the model's specification, a contract, its file, or a mapping with its keys.
    :raises InvalidSpecError: the contract is not valid, or Great Expectations does not know an expectation.
    :raises MissingEngineError: Great Expectations is not installed.
    """
    from airflow_mlops.engines.expectations import check_contract_names, evaluate
    from airflow_mlops.engines.schemas import to_frame

    asked = contract_of(contract)
    check_contract_names(asked)
    rows = to_frame(as_table(frame))
    order = range(len(asked.expectations))
    first = [number for number in order if asked.expectations[number].on_failure == "quarantine"]
    outcomes = evaluate(rows, asked, first) if len(rows) else []
    aside = sorted({place for outcome in outcomes for place in outcome.positions})
    kept = rows.drop(index=aside).reset_index(drop=True) if aside else rows
    if len(kept):
        outcomes += evaluate(kept, asked, [number for number in order if number not in first])
    found = [
        ContractFinding(
            expectation=asked.expectations[outcome.number].type,
            column=", ".join(asked.expectations[outcome.number].columns)[:300] or None,
            on_failure="fail" if outcome.status == "error" else asked.expectations[outcome.number].on_failure,
            sentence=outcome.sentence,
            unexpected_count=outcome.unexpected_count,
        )
        for outcome in outcomes
        if outcome.status in ("fail", "error")
    ]
    found += [
        ContractFinding(expectation=name, column=None, on_failure="fail", sentence=text)
        for name, text in _about_rows(asked, len(rows), len(aside))
    ]
    gravity = {"fail": 0, "quarantine": 1, "warn": 2}
    return tuple(sorted(found, key=lambda finding: gravity[finding.on_failure]))


def drift_between(
    spec: ModelSpec,
    reference: pandas.DataFrame,
    current: pandas.DataFrame,
    *,
    columns: Sequence[str] | None = None,
) -> DriftJudgement:
    """Return what the model's drift settings say of ``current``, with ``reference`` as the rows it was trained on.

    ``.verdict`` is ``none``, ``drift``, ``insufficient`` or ``schema_broken``; ``.sentence`` says why, and
    ``.columns`` has every column's distance, the drifted ones first.

    :param columns: what to compare; None: ``drift.columns``, else the features, else every column but target, weights,
        ids, personal data and event time.
    :raises InvalidSpecError: a method is unknown, the drift is judged by Evidently, or there is no reference row.
    """
    from airflow_mlops.engines.checked_files import checked_files
    from airflow_mlops.engines.profile import build_profile
    from airflow_mlops.engines.tables import take_manifest
    from airflow_mlops.engines.window_profile import window_profile

    if spec.drift.engine != "statistics":
        raise InvalidSpecError(
            f"Model {spec.name!r} has drift.engine {spec.drift.engine!r}, which judges a sample with methods of its "
            f"own. drift_between measures with drift.engine: statistics; try the other one with DetectDriftOperator."
        )
    if not len(reference):
        raise InvalidSpecError("reference has no row: give the rows that the model was trained on.")
    hidden = {*spec.data.id_columns, *spec.data.personal_columns}
    known = {*hidden, spec.train.target, *filter(None, (spec.train.weights, spec.data.event_time))}
    before, now = as_table(reference), as_table(current)
    chosen = columns or spec.drift.columns or spec.train.features
    wanted = list(chosen) if chosen else [name for name in before.column_names if name not in known]
    profile = build_profile(
        before, exclude=sorted(hidden), available={field.name: str(field.type) for field in before.schema}
    )
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-drift-") as folder:
        path = write_rows(now, Path(folder) / "current.parquet")
        manifest = take_manifest(DataSpec(uri=str(path)))
        counted = window_profile(checked_files(manifest, Path(folder)), profile, columns=wanted)
        counted = {**counted, "available": {field.name: str(field.type) for field in now.schema}}
    return judge_drift(profile, counted, spec.drift, columns=wanted, known=known)


def contract_of(contract: ModelSpec | Contract | str | Path | Mapping[str, Any]) -> Contract:
    """Return the contract, wherever it stands."""
    return load_contract(contract_file(contract) if isinstance(contract, ModelSpec) else contract)


def as_table(frame: pandas.DataFrame) -> pyarrow.Table:
    """Return a frame as Arrow, as a file of these rows would hold it.

    :raises InvalidSpecError: it is no frame, or a column holds values of several types.
    """
    import pandas
    import pyarrow

    if not isinstance(frame, pandas.DataFrame):
        raise InvalidSpecError(f"A pandas frame is needed here, not {type(frame).__name__}.")
    try:
        return pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except (pyarrow.ArrowException, ValueError) as exc:
        raise InvalidSpecError(f"The frame cannot be stored as a table: {exc}. Give each column one type.") from exc


def write_rows(table: pyarrow.Table, path: Path) -> Path:
    """Write rows to a Parquet file; return its path."""
    from pyarrow import parquet

    parquet.write_table(table, path)
    return path


def _about_rows(contract: Contract, rows: int, aside: int) -> list[tuple[str, str]]:
    found = []
    if rows - aside < contract.min_rows:
        left = f" after {aside:,} were set aside" if aside else ""
        found.append(
            (
                "min_rows",
                f"There are {rows - aside:,} rows{left}; the contract asks for at least {contract.min_rows:,}.",
            )
        )
    share = contract.max_quarantined_share
    if share is not None and rows and aside / rows > share:
        text = f"{aside:,} of {rows:,} rows would be set aside; the contract allows a share of at most {share:g}."
        found.append(("max_quarantined_share", text))
    return found
