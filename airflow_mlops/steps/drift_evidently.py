"""Evidently beside the verdict, or instead of it: what it is shown, what it is asked, what becomes of its answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.monitoring_records import ColumnDrift
from airflow_mlops.core.rules import number
from airflow_mlops.engines.evidently_report import (
    AUTO,
    JSON_FILE,
    MAX_PAGE_COLUMNS,
    METHODS,
    PAGE_FILE,
    EvidentlyAnswer,
    EvidentlyColumn,
    ask_evidently,
    require_evidently,
)
from airflow_mlops.errors import InvalidSpecError, MissingEngineError
from airflow_mlops.spec.monitoring import DriftMethodSpec, DriftSpec

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.drift import DriftJudgement
    from airflow_mlops.steps.base import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Side:
    """One comparison's two profiles, and the samples that go with them.

    :param current_sample: rows of the window, as :class:`airflow_mlops.engines.evidently_sample.Sampler` gives them.
    :param reference_sample: rows of the reference; None: rebuilt from its profile.
    """

    reference: Mapping[str, Any]
    current: Mapping[str, Any]
    current_sample: pyarrow.Table
    reference_sample: pyarrow.Table | None = None


@dataclass(frozen=True)
class Looked:
    """What Evidently said.

    :param columns: Evidently's verdict on the columns it was asked about, by name.
    :param uri: of its page; None: there is none.
    :param sample: what it was shown, for ``drift.json``.
    """

    columns: Mapping[str, ColumnDrift] = field(default_factory=dict)
    uri: str | None = None
    sample: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def guards_only(spec: DriftSpec) -> DriftSpec:
    """Return the specification for our own look before Evidently's: its method names need not be ours."""
    ours = DriftMethodSpec(method="psi")
    return spec.model_copy(
        update={"numeric": ours, "categorical": ours, "overrides": dict.fromkeys(spec.overrides, ours)}
    )


def look(
    spec: DriftSpec,
    judgement: DriftJudgement,
    window: Side,
    predictions: tuple[str, Side] | None,
    work: Work,
) -> Looked:
    """Show Evidently a sample of both sides; log its page and JSON.

    :param judgement: our own; its farthest columns are on the page.
    :param predictions: the name under which they are compared, and the two sides.
    :raises MissingEngineError: the verdict is to be Evidently's, and it is not installed.
    :raises InvalidSpecError: the verdict is to be Evidently's, and it gave none.
    """
    from airflow_mlops.engines.evidently_sample import showable

    decides = spec.engine == "evidently"
    compared = [one.column for one in judgement.columns if one.value is not None]
    names = showable(compared, window.reference, window.current)
    before, now = _samples(window, names, spec)
    if predictions is not None and predictions[0] not in names:
        name, side = predictions
        if showable([name], side.reference, side.current):
            before, now = _beside(before, now, *_samples(side, [name], spec))
            names = [name, *names]
    if not names:
        return Looked(notes=("Evidently was not asked: no column can be shown to it.",))
    page = names[:MAX_PAGE_COLUMNS] if spec.report else []
    methods, thresholds, notes = _methods(names, spec, window.reference, predictions) if decides else ({}, {}, [])
    try:
        require_evidently()
        answer = ask_evidently(
            before,
            now,
            work.folder,
            methods=methods,
            thresholds=thresholds,
            page=page,
            rest=[name for name in names if name not in page] if decides else [],
        )
    except MissingEngineError as exc:
        if decides:
            raise
        answer = EvidentlyAnswer(problem=str(exc))
    if answer.problem:
        return _without_page(answer.problem, decides)
    sample = {
        "version": answer.version,
        "seed": spec.seed,
        "rows": now.num_rows,
        "reference_rows": before.num_rows,
        "reference_rebuilt": window.reference_sample is None,
        "columns": page,
    }
    columns = {name: _drift(name, found, window.reference, len(now)) for name, found in answer.columns.items()}
    if window.reference_sample is None and (decides or page):
        notes.append(
            "Evidently's reference sample was rebuilt from the reference profile, column by column, because the "
            "reference's rows are not kept; numbers inside its range are set to the grid of the profile on both sides."
        )
    uri = work.log_file(answer.html, PAGE_FILE) if page and answer.html else None
    if answer.json:
        work.log_file(answer.json, JSON_FILE)
    return Looked(columns if decides else {}, uri, sample, tuple(notes))


def _without_page(problem: str, decides: bool) -> Looked:
    if decides:
        raise InvalidSpecError(
            f"drift.engine is evidently, and it gave no verdict: {problem} Mend that, or set drift.engine: statistics."
        )
    log.warning("The verdict stands, but Evidently's page could not be made: %s", problem)
    return Looked(notes=(f"Evidently's page could not be made: {problem}",))


def _samples(side: Side, names: Sequence[str], spec: DriftSpec) -> tuple[pyarrow.Table, pyarrow.Table]:
    from airflow_mlops.engines.evidently_sample import on_grid, rebuilt_sample, shown_categories

    now = side.current_sample.select(names)
    rebuilt = side.reference_sample is None
    if side.reference_sample is None:
        rows = min(spec.report_rows, int(side.reference["row_count"]))
        before = rebuilt_sample(side.reference, names, rows=rows, seed=spec.seed)
        now = on_grid(now, side.reference)
    else:
        before = shown_categories(side.reference_sample.select(names), side.reference, side.current, rebuilt=False)
    return before, shown_categories(now, side.reference, side.current, rebuilt=rebuilt)


def _beside(
    before: pyarrow.Table, now: pyarrow.Table, more_before: pyarrow.Table, more_now: pyarrow.Table
) -> tuple[pyarrow.Table, pyarrow.Table]:
    """Put the predictions beside the columns; the shorter side of each is filled up with missing values."""
    return _joined(before, more_before), _joined(now, more_now)


def _joined(left: pyarrow.Table, right: pyarrow.Table) -> pyarrow.Table:
    import pyarrow

    rows = max(left.num_rows, right.num_rows)
    arrays = {}
    for table in (right, left):
        for name in table.column_names:
            values = table[name].combine_chunks()
            arrays[name] = pyarrow.concat_arrays([values, pyarrow.nulls(rows - len(values), values.type)])
    return pyarrow.table(arrays)


def _methods(
    names: Sequence[str], spec: DriftSpec, reference: Mapping[str, Any], predictions: tuple[str, Side] | None
) -> tuple[dict[str, str], dict[str, float], list[str]]:
    """Return Evidently's method and threshold of each column for which the specification names one."""
    methods: dict[str, str] = {}
    thresholds: dict[str, float] = {}
    unknown: dict[str, None] = {}
    for name in names:
        column = reference["columns"].get(name)
        if predictions is not None and name == predictions[0] and column is None:
            written = spec.prediction or DriftMethodSpec(method=AUTO)
        else:
            by_kind = spec.categorical if column and column["kind"] == "categorical" else spec.numeric
            written = spec.overrides.get(name, by_kind)
        if written.method != AUTO:
            if written.method in METHODS:
                methods[name] = METHODS[written.method]
            else:
                unknown[written.method] = None
        if written.threshold is not None:
            thresholds[name] = written.threshold
    notes = (
        [f"Evidently has no method {', '.join(map(repr, unknown))}; it chose its own for those columns."]
        if unknown
        else []
    )
    return methods, thresholds, notes


def _drift(name: str, found: EvidentlyColumn, reference: Mapping[str, Any], rows: int) -> ColumnDrift:
    column = reference["columns"].get(name)
    kind: Literal["numeric", "categorical", "time"] = column["kind"] if column else "numeric"
    shown = "" if found.value is None else f"{number(found.value)} on a sample of {rows:,} rows"
    if not shown:
        said = f"Evidently's {found.method} has no finite value on the sample."
    elif found.is_p_value:
        said = f"The p-value of Evidently's {found.method} is {shown}; drift is below {found.threshold}."
    else:
        said = f"Evidently's {found.method} is {shown}; drift is from {found.threshold} on."
    return ColumnDrift(
        column=name,
        kind=kind,
        method=found.method,
        value=found.value,
        threshold=found.threshold,
        drifted=found.drifted,
        p_value=found.value if found.is_p_value else None,
        sentence=said,
    )
