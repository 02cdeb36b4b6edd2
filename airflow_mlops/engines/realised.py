"""Metrics of stored predictions once their labels came: what evaluation measures, on what really happened.

The same metrics, slices and samplers as in evaluation (:mod:`airflow_mlops.engines.scoring`), so a realised figure and
a promised one differ by the rows alone. Intervals are percentile intervals of the metric itself, from bootstrap draws
over rows that all metrics and both versions share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mlops.core.metrics import Task
from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.core.realised import RealisedFigure
from airflow_mlops.engines.bootstrap import group_generator, resampled
from airflow_mlops.engines.label_rows import kind_of
from airflow_mlops.engines.metrics import Metric
from airflow_mlops.engines.predictions import Array, Outputs, Raw, Truth, read_outputs, read_truth
from airflow_mlops.engines.schemas import to_frame
from airflow_mlops.engines.scoring import Group, groups_of, measure
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError
from airflow_mlops.spec.model import EvaluationSpec

if TYPE_CHECKING:
    import pandas
    import pyarrow

PREDICTION, PROBABILITY, CLASS_PREFIX = "prediction", "probability", "probability_"
OTHER_PREFIX = "other_"
#: Stands for a class that neither a label nor a prediction of the batch has.
UNSEEN = "(unseen)"


@dataclass(frozen=True)
class LabelledRows:
    """The labelled part of a batch.

    :param columns: the columns of the predictions file that are needed, of the labelled rows, in the file's order.
    :param labels: one a row.
    :param known: labels that the versions gave anywhere in the batch.
    """

    columns: pyarrow.Table
    labels: pandas.Series
    known: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.labels)


def labelled_rows(
    predictions: Path, labels: pyarrow.Table, report: ScoringReport, slices: Sequence[str]
) -> LabelledRows:
    """Read what measuring takes of the labelled rows: predictions, slice columns, and which version answered.

    :param labels: ``row`` and ``label``, by row.
    :raises InvalidSpecError: labels and predictions are of kinds that can never be equal.
    :raises ModelRefusedError: the file has no predictions.
    """
    from pyarrow import compute, parquet

    names = parquet.read_schema(predictions).names
    answers = [name for name in names if _is_answer(name, report.other_mode == "shadow")]
    if PREDICTION not in answers:
        raise ModelRefusedError(
            f"The predictions {report.output_uri} have no column {PREDICTION!r}, so they are no batch of this package. "
            f"Score the window again."
        )
    wanted = dict.fromkeys([*answers, *(name for name in slices if name in names)])
    if report.other_mode == "split":
        wanted["model_version"] = None
    table = parquet.read_table(predictions, columns=list(wanted))
    known: set[Any] = set()
    if report.task != "regression":
        _same_kind(labels["label"].type, table[PREDICTION].type, report)
        for name in (PREDICTION, OTHER_PREFIX + PREDICTION):
            if name in wanted:
                known |= {value for value in compute.unique(table[name]).to_pylist() if value is not None}
    frame = to_frame(labels.select(["label"]))
    return LabelledRows(table.take(labels["row"]), frame["label"], tuple(known))


def measure_realised(
    rows: LabelledRows,
    report: ScoringReport,
    spec: EvaluationSpec,
    metrics: Sequence[Metric],
    *,
    seed: int,
) -> tuple[list[RealisedFigure], dict[str, str]]:
    """Measure every metric on all labelled rows and on every slice, for both versions where two answered.

    In shadow both versions are measured on the same rows; in a split each on the rows it answered.

    :return: figures, all rows first; and notes by name: slices that could not be made, labels nobody predicted.
    :raises InvalidSpecError: the labels do not fit the task.
    :raises ModelRefusedError: the predictions do not fit the task.
    """
    notes: dict[str, str] = {}
    frame = to_frame(rows.columns.select([name for name in rows.columns.column_names if name in spec.slices]))
    groups = _groups(frame, len(rows), spec, notes)
    truth = _truth(rows, report.task, notes)
    measured = partial(_measured, metrics=metrics, spec=spec, seed=seed)
    outputs = _outputs(rows.columns, "", truth)
    mine, other = f"version {report.model.version}", report.other
    if other is None or report.other_mode == "":
        return measured(truth, outputs, groups, who=mine), notes
    theirs = f"version {other.version}"
    if report.other_mode == "split":
        versions = np.asarray([str(value) for value in rows.columns["model_version"].to_pylist()])
        parts = [np.flatnonzero(versions == str(version)) for version in (report.model.version, other.version)]
        if stray := len(rows) - sum(map(len, parts)):
            notes["versions"] = f"{stray:,} labelled rows name neither {report.model} nor {other}."
        ours, beside = (
            measured(truth, outputs, [_within(group, part) for group in groups], who=who)
            for part, who in zip(parts, (mine, theirs), strict=True)
        )
        return [_beside(one, another) for one, another in zip(ours, beside, strict=True)], notes
    ours = measured(truth, outputs, groups, who=mine)
    # What is wrong with the version beside it takes nothing from the one that serves.
    try:
        answered = _answered(rows.columns, OTHER_PREFIX)
        if refused := len(rows) - len(answered):
            notes["other"] = (
                f"{other} did not answer {refused:,} of {len(rows):,} labelled rows; it is measured on the rest."
            )
        shadow = _outputs(rows.columns.take(answered), OTHER_PREFIX, truth)
        placed = [
            replace(one, rows=np.searchsorted(answered, one.rows)) for one in (_within(g, answered) for g in groups)
        ]
        beside = measured(truth.take(answered), shadow, placed, who=theirs)
    except ModelRefusedError as exc:
        notes["other"] = f"{other} was not measured: {exc}"
        return [one.model_copy(update={"other_rows": 0}) for one in ours], notes
    return [_beside(one, another) for one, another in zip(ours, beside, strict=True)], notes


def undefined(metrics: Sequence[Metric], rows: int, note: str, *, beside: bool) -> list[RealisedFigure]:
    """Return figures without a value, where nothing could be measured.

    :param note: why.
    :param beside: whether a second version was to be measured.
    """
    return [
        RealisedFigure(metric=one.name, rows=rows, other_rows=rows if beside else None, note=note) for one in metrics
    ]


def _is_answer(name: str, shadow: bool) -> bool:
    plain = name.removeprefix(OTHER_PREFIX)
    if plain != name and not shadow:
        return False
    return plain in (PREDICTION, PROBABILITY) or plain.startswith(CLASS_PREFIX)


def _same_kind(labels: pyarrow.DataType, predictions: pyarrow.DataType, report: ScoringReport) -> None:
    ours, theirs = kind_of(predictions), kind_of(labels)
    if "text" in (ours, theirs) and ours != theirs and "null" not in (ours, theirs):
        raise InvalidSpecError(
            f"The labels are {theirs} ({labels}) and the predictions {report.output_uri} {ours} ({predictions}), so "
            f"none would ever be right. Deliver labels as they stood in training."
        )


def _groups(frame: pandas.DataFrame, rows: int, spec: EvaluationSpec, notes: dict[str, str]) -> list[Group]:
    groups = [Group(None, None, np.arange(rows))]
    for column in spec.slices:
        if column not in frame.columns:
            notes[f"slice.{column}"] = (
                f"Rows cannot be told apart by {column!r}: the predictions do not have that column. List it in "
                f"scoring.keep before the next batch is scored."
            )
            continue
        try:
            groups += groups_of(frame, [column], spec.max_slices)[1:]
        except InvalidSpecError as exc:
            notes[f"slice.{column}"] = str(exc)
    return groups


def _within(group: Group, rows: Array) -> Group:
    return replace(group, rows=np.intersect1d(group.rows, rows, assume_unique=True))


def _truth(rows: LabelledRows, task: Task, notes: dict[str, str]) -> Truth:
    """Encode the labels, in one set of classes with everything that was predicted in the batch."""
    labels, known = rows.labels, rows.known
    if task == "regression":
        return read_truth(labels, task)
    present = set(labels.tolist())
    if task == "multiclass":
        named = tuple(_class_of(name.removeprefix(CLASS_PREFIX), known) for name in _class_columns(rows.columns, ""))
        if strange := present - set(known) - set(named):
            notes["classes"] = f"Labels hold {len(strange)} classes that no version of the batch knows."
        return read_truth(labels, task, known, named)
    if len(present | set(known)) == 1 and labels.iloc[0] not in (0, 1) and PROBABILITY in rows.columns.column_names:
        # Every label and every prediction is this one, so the probabilities tell on which side of 0.5 it stands.
        positive = bool(np.nanmean(_numbers(rows.columns[PROBABILITY])) >= 0.5)
        classes = (UNSEEN, labels.iloc[0]) if positive else (labels.iloc[0], UNSEEN)
        codes: Array = np.full(len(labels), int(positive), dtype=np.int64)
        return Truth(task, labels.to_numpy(), codes, classes, (int(positive),))
    if len(present | set(known)) > 2:
        raise InvalidSpecError(
            f"The task is binary, and labels and predictions together hold {len(present | set(known))} values: labels "
            f"{_listed(present)}, predictions {_listed(known)}. Deliver labels as they stood in training."
        )
    return read_truth(labels, task, known)


def _listed(labels: Iterable[Any]) -> str:
    found = sorted(map(str, labels))
    return ", ".join(found[:5]) + (" and more" if len(found) > 5 else "")


def _answered(columns: pyarrow.Table, prefix: str) -> Array:
    """Return the numbers of the rows that a version answered.

    :raises ModelRefusedError: the file does not have its predictions.
    """
    if prefix + PREDICTION not in columns.column_names:
        raise ModelRefusedError(f"The predictions have no column {prefix + PREDICTION!r}. Score the window again.")
    return np.flatnonzero(columns[prefix + PREDICTION].is_valid().to_numpy(zero_copy_only=False))


def _outputs(columns: pyarrow.Table, prefix: str, truth: Truth) -> Outputs:
    """Bring one version's answers into the truth's terms.

    :raises ModelRefusedError: answers are missing on some rows, or do not fit the task.
    """
    missing = columns.num_rows - len(_answered(columns, prefix))
    if missing:
        raise ModelRefusedError(
            f"{missing:,} of {columns.num_rows:,} labelled rows have no {prefix + PREDICTION}; a figure from the "
            f"others would not be comparable. Score the window again."
        )
    names = _class_columns(columns, prefix)
    if truth.task == "binary" and prefix + PROBABILITY in columns.column_names:
        return read_outputs(Raw("probabilities", _numbers(columns[prefix + PROBABILITY]), None), truth)
    if truth.task == "multiclass" and names:
        table = np.column_stack([_numbers(columns[prefix + name]) for name in names])
        classes = tuple(_class_of(name.removeprefix(CLASS_PREFIX), truth.classes) for name in names)
        return read_outputs(Raw("probabilities", table, classes), truth)
    series = to_frame(columns.select([prefix + PREDICTION]))[prefix + PREDICTION]
    return read_outputs(Raw("predicted", series.to_numpy(), None), truth)


def _class_columns(columns: pyarrow.Table, prefix: str) -> list[str]:
    """Return the names of one version's class probabilities, without the prefix."""
    found = [name.removeprefix(prefix) for name in columns.column_names if name.startswith(prefix)]
    return [name for name in found if name.startswith(CLASS_PREFIX)]


def _class_of(text: str, labels: Sequence[Any]) -> Any:
    """Return the label that a column's name stands for: the one that reads so, else the text as the labels' kind."""
    for label in labels:
        if str(label) == text:
            return label
    kinds = {type(label) for label in labels}
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _numbers(values: pyarrow.ChunkedArray) -> Array:
    import pyarrow

    return values.cast(pyarrow.float64(), safe=False).to_numpy()


def _measured(
    truth: Truth,
    outputs: Outputs,
    groups: Sequence[Group],
    *,
    metrics: Sequence[Metric],
    spec: EvaluationSpec,
    seed: int,
    who: str,
) -> list[RealisedFigure]:
    """Measure one version; the groups hold the rows that it answered."""
    found: list[RealisedFigure] = []
    for here in groups:
        if not len(here.rows):
            note = f"no labelled row of {who}"
            found += [
                RealisedFigure(metric=one.name, slice=here.column, value=here.value, rows=0, note=note)
                for one in metrics
            ]
            continue
        values = measure(
            truth, outputs, None, metrics=metrics, groups=[here], draws=0, seed=seed, confidence=spec.confidence
        )
        part, answered = truth.take(here.rows), outputs.take(here.rows)
        samplers = {
            metric.name: metric.sampler(part, answered)
            for metric, one in zip(metrics, values, strict=True)
            if one.candidate is not None
        }
        drawn: dict[str, list[Array]] = {name: [] for name in samplers}
        for counts in resampled(
            len(here.rows), spec.bootstrap_draws if samplers else 0, group_generator(seed, here.name)
        ):
            for name, sampler in samplers.items():
                drawn[name].append(sampler(counts))
        for one in values:
            low, high, note = _interval(drawn.get(one.metric), spec.confidence)
            # Here nobody is a candidate any more.
            notes = [one.note.replace("the candidate", who), note]
            found.append(
                RealisedFigure(
                    metric=one.metric,
                    slice=one.slice,
                    value=one.value,
                    rows=one.rows,
                    realised=one.candidate,
                    low=low,
                    high=high,
                    note="; ".join(filter(None, notes)),
                )
            )
    return found


def _interval(parts: list[Array] | None, confidence: float) -> tuple[float | None, float | None, str]:
    if not parts:
        return None, None, ""
    drawn = np.concatenate(parts)
    defined = drawn[np.isfinite(drawn)]
    missing = len(drawn) - len(defined)
    note = f"{missing:,} of {len(drawn):,} bootstrap draws had no value" if missing else ""
    if len(defined) < 2:
        return None, None, note
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high, note


def _beside(one: RealisedFigure, other: RealisedFigure) -> RealisedFigure:
    beside = {
        "other_rows": other.rows,
        "other": other.realised,
        "other_low": other.low,
        "other_high": other.high,
        "note": "; ".join(dict.fromkeys(filter(None, [one.note, other.note]))),
    }
    return one.model_copy(update=beside)


def with_promises(
    figures: Sequence[RealisedFigure], ours: Mapping[Any, float | None], theirs: Mapping[Any, float | None]
) -> tuple[RealisedFigure, ...]:
    """Put beside every figure what evaluation measured on the same group, by ``(metric, slice, value)``."""
    return tuple(
        one.model_copy(
            update={
                "promised": ours.get((one.metric, one.slice, one.value)),
                "other_promised": theirs.get((one.metric, one.slice, one.value)),
            }
        )
        for one in figures
    )
