"""Labels and the keys of predictions as batches of Arrow rows with like types, so that equal ids really are equal.

Ids may be whole numbers, text, bools or times, and must be of one kind on both sides: the number 7 and the text "7"
never meet, which would look as if no label had come. Whole floats serve as whole numbers, because pandas turns ids into
floats where one is missing. Times are compared to the microsecond, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.engines.checked_files import CheckedFile, checked_files
from airflow_mlops.engines.formats import event_times, in_window, read_rows
from airflow_mlops.engines.manifests import Manifest
from airflow_mlops.engines.schemas import conform, plain_type
from airflow_mlops.engines.storage import StorageAccess, describe
from airflow_mlops.engines.tables import read_table
from airflow_mlops.errors import DataReadError, InvalidSpecError
from airflow_mlops.spec.monitoring import LabelSpec

if TYPE_CHECKING:
    import pyarrow

#: Rows that are in memory at a time.
BATCH_ROWS = 200_000

Kind = str
_WORDS = {"integer": "whole numbers", "float": "floats", "text": "text", "bool": "bools", "time": "times"}


@dataclass(frozen=True)
class JoinKey:
    """What labels and predictions are joined by.

    :param entity: columns that name the entity, called the same in both.
    :param label_time: the labels' event-time column; None: joined by entity alone.
    :param prediction_time: the predictions' event-time column; None: they have none.
    """

    label: str
    entity: tuple[str, ...]
    label_time: str | None
    prediction_time: str | None
    known_at: str | None

    @property
    def label_columns(self) -> list[str]:
        """Return the columns that are read of the labels."""
        others = (one for one in (self.label_time, self.known_at) if one is not None)
        return list(dict.fromkeys([*self.entity, self.label, *others]))


def join_key(labels: LabelSpec, report: ScoringReport, label: str | None = None, entity: Sequence[str] = ()) -> JoinKey:
    """Settle the columns: what is given, else what the specification says, else the batch's id columns.

    :raises InvalidSpecError: no label or no entity is named, or the labels have an event time and the predictions none.
    """
    named = label or labels.label
    if not named:
        raise InvalidSpecError("Nobody says which column holds the label: set labels.label, or train.target.")
    columns = tuple(entity) or labels.entity or report.id_columns
    if not columns:
        raise InvalidSpecError(
            "Labels are joined by entity, and none is named: set labels.entity, or data.id_columns before the batch "
            "is scored."
        )
    if labels.data.event_time is not None and report.event_time is None:
        raise InvalidSpecError(
            f"labels.data.event_time is {labels.data.event_time!r}, and the predictions {report.output_uri} have no "
            f"event time to join it with. Set scoring.data.event_time and score again, or leave it out of labels.data "
            f"if the entity alone names a prediction."
        )
    return JoinKey(named, columns, labels.data.event_time, report.event_time, labels.known_at)


def check_predictions(schema: pyarrow.Schema, key: JoinKey, name: str) -> None:
    """Refuse predictions that lack a column of the key.

    :raises InvalidSpecError: the first one that is missing, with what is there.
    """
    for column in (*key.entity, *([key.prediction_time] if key.prediction_time else [])):
        if column not in schema.names:
            raise InvalidSpecError(
                f"Labels are joined by {column!r}, which the predictions {name} do not have."
                f"{_near(column, schema.names)} Their columns: {describe(schema.names, 20)}. Name it in "
                f"data.id_columns or scoring.keep and score the window again, or set labels.entity."
            )


def check_columns(manifest: Manifest, key: JoinKey) -> None:
    """Refuse labels that lack a column of the key.

    :raises InvalidSpecError: the first one that is missing, with what is there.
    """
    there = manifest.schema.names
    for role, column in (
        *(("labels.entity", column) for column in key.entity),
        ("labels.label", key.label),
        ("labels.data.event_time", key.label_time),
        ("labels.known_at", key.known_at),
    ):
        if column is not None and column not in there:
            raise InvalidSpecError(
                f"{role} names {column!r}, which the labels {manifest.uri} do not have.{_near(column, there)} Their "
                f"columns: {describe(there, 20)}."
            )


def kinds_of(manifest: Manifest, key: JoinKey, predictions: pyarrow.Schema) -> dict[str, Kind]:
    """Return, by entity column, the kind in which both sides are compared.

    :raises InvalidSpecError: the two sides can never be equal, or a column is of a type that names nothing.
    """
    found = {}
    for column in key.entity:
        ours, theirs = predictions.field(column).type, manifest.schema.field(column).type
        kinds = {kind_of(ours), kind_of(theirs)} - {"null"}
        if "other" in kinds:
            strange = ours if kind_of(ours) == "other" else theirs
            raise InvalidSpecError(f"The entity column {column!r} has type {strange}, which names no entity.")
        if kinds == {"integer", "float"}:
            kinds = {"integer"}
        if len(kinds) > 1:
            raise InvalidSpecError(
                f"The entity column {column!r} holds {_WORDS[kind_of(ours)]} ({ours}) in the predictions and "
                f"{_WORDS[kind_of(theirs)]} ({theirs}) in the labels {manifest.uri}, so no label would ever be found. "
                f"Write the labels with {_WORDS[kind_of(ours)]} in {column!r}"
                + (
                    ", as Parquet: CSV has no types, they are read from the values."
                    if manifest.format == "csv"
                    else "."
                )
            )
        found[column] = kinds.pop() if kinds else "text"
    return found


def label_kind(manifest: Manifest, key: JoinKey) -> Kind:
    """Return the kind of the labels themselves.

    :raises InvalidSpecError: it is a time, a list or another type that no model predicts.
    """
    kind = manifest.schema.field(key.label).type
    found = kind_of(kind)
    if found in ("other", "time"):
        raise InvalidSpecError(f"The label column {key.label!r} of {manifest.uri} has type {kind}, which is no label.")
    return "float" if found == "null" else found


def kind_of(kind: pyarrow.DataType) -> Kind:
    """Return ``integer``, ``float``, ``text``, ``bool``, ``time``, ``null`` or ``other``."""
    import pyarrow

    types, kind = pyarrow.types, plain_type(kind)
    if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale == 0):
        return "integer"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "float"
    if types.is_string(kind):
        return "text"
    if types.is_boolean(kind):
        return "bool"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    return "null" if types.is_null(kind) else "other"


def prediction_rows(path: Path, key: JoinKey, kinds: Mapping[str, Kind], name: str) -> Iterator[pyarrow.Table]:
    """Yield the predictions' keys: ``row`` (its number in the file), ``e0``, ``e1`` ..., and ``happened``."""
    import pyarrow
    from pyarrow import parquet

    wanted = list(dict.fromkeys([*key.entity, *([key.prediction_time] if key.prediction_time else [])]))
    first = 0
    with parquet.ParquetFile(path) as file:
        for rows in _batches(file, wanted):
            columns = {"row": pyarrow.array(range(first, first + rows.num_rows), pyarrow.int64())}
            columns |= _entities(rows, key, kinds, name)
            if key.prediction_time is not None:
                columns["happened"] = _moments(rows[key.prediction_time], key.prediction_time, "parquet", name)
            first += rows.num_rows
            yield pyarrow.table(columns)


def label_rows(
    manifest: Manifest,
    key: JoinKey,
    kinds: Mapping[str, Kind],
    label: Kind,
    scratch: Path,
    access: StorageAccess | None,
) -> Iterator[pyarrow.Table]:
    """Yield the labels: ``e0``, ``e1`` ..., ``label``, and ``happened`` and ``known`` where the key has them.

    One file is open at a time, and of a Parquet file one batch is in memory; CSV is read a file at a time.

    :param kinds: of the entity columns; ``label`` is that of the label.
    :raises DataChangedError: a file was rewritten since the manifest was taken.
    """
    import pyarrow

    for rows, form, name in _raw_rows(manifest, key, scratch, access):
        columns = _entities(rows, key, kinds, name)
        columns["label"] = _as_kind(rows[key.label], label, key.label, name)
        for column, place in ((key.label_time, "happened"), (key.known_at, "known")):
            if column is not None:
                columns[place] = _moments(rows[column], column, form, name)
        yield pyarrow.table(columns)


def _raw_rows(
    manifest: Manifest, key: JoinKey, scratch: Path, access: StorageAccess | None
) -> Iterator[tuple[pyarrow.Table, str, str]]:
    import pyarrow

    wanted = key.label_columns
    if any(column in manifest.partitions for column in wanted):
        # The folder's name holds the value: only the source itself puts it beside the rows.
        yield read_table(manifest, access, wanted), "parquet", manifest.uri
        return
    schema = pyarrow.schema([manifest.schema.field(column) for column in wanted])
    for file in checked_files(manifest, scratch, access):
        for part in _parts(file, wanted, schema):
            rows = part
            if manifest.window is not None and key.label_time is not None and file.cut:
                times = event_times(rows, key.label_time, file.format, file.name)
                rows = rows.filter(in_window(times, manifest.window))
            if file.format != "csv":
                rows = conform(rows, schema, file.name)
            yield rows, file.format, file.name


def _parts(file: CheckedFile, wanted: Sequence[str], schema: pyarrow.Schema) -> Iterator[pyarrow.Table]:
    import pyarrow
    from pyarrow import parquet

    if file.format == "csv":
        # Times stay text: our own rules read them, mixed zones included.
        types = {
            one.name: pyarrow.string() if pyarrow.types.is_timestamp(one.type) else one.type
            for one in schema
            if not pyarrow.types.is_null(one.type)
        }
        rows = read_rows(
            pyarrow.memory_map(str(file.path)).read_buffer(), "csv", file.name, columns=wanted, types=types
        )
        for column in wanted:
            if column not in rows.column_names:
                rows = rows.append_column(column, pyarrow.nulls(rows.num_rows, schema.field(column).type))
        yield rows
        return
    with parquet.ParquetFile(file.path) as source:
        there = [column for column in wanted if column in source.schema_arrow.names]
        yield from _batches(source, there)


def _batches(file: Any, columns: Sequence[str]) -> Iterator[pyarrow.Table]:
    """Yield a Parquet file's rows, some at a time.

    :param file: an open ``pyarrow.parquet.ParquetFile``.
    """
    import pyarrow

    # A dot in a name would be read as a path into a struct: then every column is read.
    asked = None if any("." in column for column in columns) else columns
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=asked):
        yield pyarrow.Table.from_batches([batch]).select(columns)


def _entities(
    rows: pyarrow.Table, key: JoinKey, kinds: Mapping[str, Kind], name: str
) -> dict[str, pyarrow.ChunkedArray]:
    return {
        f"e{number}": _as_kind(rows[column], kinds[column], column, name) for number, column in enumerate(key.entity)
    }


def _as_kind(values: pyarrow.ChunkedArray, kind: Kind, column: str, name: str) -> pyarrow.ChunkedArray:
    """Return the values in the one type of their kind; NaN is null.

    :raises InvalidSpecError: a float among ids is no whole number.
    """
    import pyarrow
    from pyarrow import compute

    if kind == "time":
        return _moments(values, column, "csv" if pyarrow.types.is_string(values.type) else "parquet", name)
    target = {
        "integer": pyarrow.int64(),
        "float": pyarrow.float64(),
        "text": pyarrow.string(),
        "bool": pyarrow.bool_(),
    }[kind]
    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pyarrow.types.is_floating(values.type):
        values = compute.if_else(compute.is_nan(values), None, values)
    try:
        return values.cast(target)
    except pyarrow.ArrowInvalid as exc:
        raise InvalidSpecError(
            f"The column {column!r} of {name} holds {values.type} that is no whole number of at most 64 bits, where "
            f"the other side of the join holds whole numbers. Write it with the other side's type."
        ) from exc


def _moments(values: pyarrow.ChunkedArray, column: str, form: str, name: str) -> pyarrow.ChunkedArray:
    """Return instants as UTC microseconds without a zone; null stays null."""
    import pyarrow
    from pyarrow import compute

    target = pyarrow.timestamp("us")
    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pyarrow.types.is_null(values.type) or not len(values):
        return pyarrow.chunked_array([pyarrow.nulls(len(values), target)])
    there = values.is_valid()
    if values.null_count:
        known = values.drop_null()
        values = compute.fill_null(values, known[0]) if len(known) else None
        if values is None:
            return pyarrow.chunked_array([pyarrow.nulls(len(there), target)])
    text = pyarrow.types.is_string(values.type)
    try:
        found = event_times(pyarrow.table({column: values}), column, "csv" if text else form, name)
    except DataReadError as exc:
        raise DataReadError(str(exc).replace("event-time column", "time column")) from exc
    plain = found.cast(pyarrow.timestamp("us", "UTC"), safe=False).cast(target)
    return compute.if_else(there, plain, None)


def _near(column: str, names: Sequence[str]) -> str:
    close = get_close_matches(column, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
