"""One schema for several files, and Arrow rows as a pandas frame of plain numpy types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.engines.storage import describe
from airflow_mlops.errors import DataReadError

if TYPE_CHECKING:
    import pandas
    import pyarrow

_EXACT_IN_FLOAT = 2**53


def unify(schemas: Mapping[str, pyarrow.Schema], form: str) -> tuple[pyarrow.Schema, list[str]]:
    """Return the one schema of several files and what had to be done to get it, in sentences.

    Columns stand in the order of the first file, new ones after them. A column that a file lacks is null there (the
    contract sees it). Types are joined where no value is lost: null with anything, narrower with wider numbers, whole
    numbers with floats (checked for each value when read), dates with times, coarser with finer times, and a naive time
    with an aware one, as UTC. In CSV, where types are only inferred, anything else becomes text.

    :param schemas: file name to schema, in manifest order; at least one.
    :raises DataReadError: two files disagree on a column's type; column, types and files are named.
    """
    import pyarrow

    types: dict[str, pyarrow.DataType] = {}
    first_seen: dict[str, str] = {}
    notes: list[str] = []
    for name, schema in schemas.items():
        for field in schema:
            kind = plain_type(field.type)
            if field.name not in types:
                types[field.name], first_seen[field.name] = kind, name
                continue
            joined = join_types(types[field.name], kind)
            if joined is None and form == "csv":
                joined = pyarrow.string()
            if joined is None:
                raise DataReadError(
                    f"The column {field.name!r} is {types[field.name]} in {first_seen[field.name]} and {kind} in "
                    f"{name}. Write one of the files anew with the other's type; joining them could change values."
                )
            types[field.name] = joined
    for column in types:
        lacking = [name for name, schema in schemas.items() if column not in schema.names]
        if lacking:
            notes.append(
                f"Column {column!r} is missing in {len(lacking)} of {len(schemas)} files and read as null there: "
                f"{describe(lacking, 3)}."
            )
    return pyarrow.schema(list(types.items())), notes


def plain_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type without its storage detail: no dictionaries, no large or view variants, times aware as UTC."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_large_string(kind) or str(kind) == "string_view":
        return pyarrow.string()
    if types.is_large_binary(kind) or str(kind) == "binary_view":
        return pyarrow.binary()
    if types.is_timestamp(kind) and kind.tz is not None:
        return pyarrow.timestamp(kind.unit, "UTC")
    return kind


def join_types(left: pyarrow.DataType, right: pyarrow.DataType) -> pyarrow.DataType | None:
    """Return a type that holds every value of both, or None where there is none that is safe."""
    import pyarrow

    types = pyarrow.types
    if left == right or types.is_null(right):
        return left
    if types.is_null(left):
        return right
    if types.is_integer(left) and types.is_integer(right):
        return _wider(left, right)
    if _is_number(left) and _is_number(right):
        widths = {kind.bit_width for kind in (left, right) if types.is_floating(kind)}
        narrow = len(widths) == 1 and not any(types.is_integer(kind) for kind in (left, right))
        return left if narrow else pyarrow.float64()
    if types.is_decimal(left) and types.is_decimal(right):
        scale = max(left.scale, right.scale)
        whole = max(left.precision - left.scale, right.precision - right.scale)
        return pyarrow.decimal128(whole + scale, scale) if whole + scale <= 38 else None
    if _is_time(left) and _is_time(right):
        units = [kind.unit for kind in (left, right) if types.is_timestamp(kind)]
        zone = "UTC" if any(types.is_timestamp(kind) and kind.tz for kind in (left, right)) else None
        finest = max(units, key=("s", "ms", "us", "ns").index) if units else None
        return pyarrow.timestamp(finest, zone) if finest else pyarrow.timestamp("ms")
    return None


def conform(table: pyarrow.Table, schema: pyarrow.Schema, name: str) -> pyarrow.Table:
    """Return ``table`` with exactly the columns and types of ``schema``; a column that is not there is null.

    :raises DataReadError: a value does not survive the change of type; column and file are named.
    """
    import pyarrow

    arrays = []
    for field in schema:
        if field.name not in table.column_names:
            arrays.append(pyarrow.chunked_array([pyarrow.nulls(table.num_rows, field.type)]))
            continue
        values = table[field.name]
        try:
            if pyarrow.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            if pyarrow.types.is_date(values.type) and pyarrow.types.is_timestamp(field.type):
                values = values.cast(pyarrow.timestamp("ms")).cast(field.type)
            arrays.append(values if values.type == field.type else values.cast(field.type))
        except (pyarrow.ArrowException, ValueError) as exc:
            raise DataReadError(
                f"{name}: column {field.name!r} is {table[field.name].type} there and {field.type} in the whole data, "
                f"and a value would be lost in the change. Write the file anew with type {field.type}."
            ) from exc
    return pyarrow.table(arrays, schema=schema)


def to_frame(table: pyarrow.Table) -> pandas.DataFrame:
    """Return Arrow rows as a pandas frame of plain numpy types, the same on pandas 2 and 3.

    =====================================  ====================================================================
    Arrow                                  pandas
    =====================================  ====================================================================
    whole numbers without nulls            the same width, signed or unsigned
    whole numbers with nulls               float64, null is NaN
    floats                                 the same width; null and NaN are both NaN
    decimals                               float64
    bool without nulls                     bool
    bool with nulls                        float64: 1.0, 0.0, NaN
    text (dictionary or not)               object of str, null is None
    timestamps, dates                      datetime64 without zone, in UTC; null is NaT
    all null                               float64 of NaN
    anything else (lists, structs, bytes)  object
    =====================================  ====================================================================

    pandas' nullable types are not used: MLflow drops a signature that holds them, and scikit-learn refuses some.

    :raises DataReadError: whole numbers beyond 2**53 stand beside nulls, so float64 would change them.
    """
    import pandas

    columns = {name: _series(table[name], name) for name in table.column_names}
    frame = pandas.DataFrame(columns, index=pandas.RangeIndex(table.num_rows), copy=False)
    # An empty mapping would give an object index of columns.
    return frame if columns else pandas.DataFrame(index=pandas.RangeIndex(table.num_rows))


def _series(values: pyarrow.ChunkedArray, name: str) -> pandas.Series:
    import numpy
    import pandas
    import pyarrow
    from pyarrow import compute

    types, kind = pyarrow.types, values.type
    if types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if types.is_null(kind):
        return pandas.Series(numpy.full(len(values), numpy.nan), dtype="float64")
    if types.is_integer(kind) and values.null_count:
        bounds = compute.min_max(values).as_py()
        if bounds["min"] is not None and max(abs(bounds["min"]), abs(bounds["max"])) > _EXACT_IN_FLOAT:
            raise DataReadError(
                f"The column {name!r} holds whole numbers beyond 2**53 and nulls; as float64 the numbers would change. "
                f"Store the column as text, fill its nulls, or do not ask for it."
            )
        values = values.cast(pyarrow.float64())
    elif types.is_decimal(kind):
        values = values.cast(pyarrow.float64())
    elif types.is_boolean(kind) and values.null_count:
        values = values.cast(pyarrow.int8()).cast(pyarrow.float64())
    elif types.is_date(kind):
        values = values.cast(pyarrow.timestamp("ms"))
    elif types.is_timestamp(kind) and kind.tz is not None:
        values = values.cast(pyarrow.timestamp(kind.unit))
    elif types.is_string(kind) or types.is_large_string(kind):
        return pandas.Series(_text(values), dtype=object)
    elif types.is_nested(kind):
        return pandas.Series(values.to_pylist(), dtype=object)
    array = values.to_numpy()
    return pandas.Series(array, dtype=array.dtype, copy=not array.flags.writeable)


def _text(values: pyarrow.ChunkedArray) -> Any:
    """Return text as an object array in which equal values share one str."""
    import numpy

    coded = (
        values.combine_chunks().dictionary_encode() if values.num_chunks != 1 else values.chunk(0).dictionary_encode()
    )
    words = numpy.array([*coded.dictionary.to_pylist(), None], dtype=object)
    codes = coded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)
    return words[codes]


def _wider(left: pyarrow.DataType, right: pyarrow.DataType) -> pyarrow.DataType | None:
    import pyarrow

    if pyarrow.types.is_signed_integer(left) == pyarrow.types.is_signed_integer(right):
        return left if left.bit_width >= right.bit_width else right
    signed, unsigned = (left, right) if pyarrow.types.is_signed_integer(left) else (right, left)
    if unsigned.bit_width >= 64:
        return None
    width = max(signed.bit_width, unsigned.bit_width * 2)
    return {16: pyarrow.int16(), 32: pyarrow.int32(), 64: pyarrow.int64()}[width]


def _is_number(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind))


def _is_time(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_timestamp(kind) or pyarrow.types.is_date(kind))


def names_and_types(schema: pyarrow.Schema) -> Iterable[tuple[str, str]]:
    """Return every column's name and the name of its Arrow type."""
    return [(field.name, str(field.type)) for field in schema]


def with_floats(frame: pandas.DataFrame, floats: frozenset[str]) -> pandas.DataFrame:
    """Return ``frame`` with numbers as floats where the model's signature says so.

    A column that had missing values in training is ``double`` there. A chunk of it without any would arrive as whole
    numbers, which MLflow refuses: the same row must be scored the same whatever rows stand beside it.
    """
    wrong = [name for name in frame.columns if name in floats and frame[name].dtype.kind in "iub"]
    return frame.astype(dict.fromkeys(wrong, "float64")) if wrong else frame
