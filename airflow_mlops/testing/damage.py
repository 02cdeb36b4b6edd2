"""Good rows made bad on purpose: drifted ones, which are fine one by one, and broken ones, which are not.

The frame that is given stays as it is, and the same seed damages the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.spec.contract import Contract, ExpectationSpec
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.testing.checks import contract_of

if TYPE_CHECKING:
    import numpy
    import pandas

    Written = ModelSpec | Contract | str | Path | Mapping[str, Any]

#: The kinds of :func:`broken`, each with the expectations that are there to notice it.
KINDS: dict[str, tuple[str, ...]] = {
    "nulls": ("expect_column_values_to_not_be_null",),
    "duplicate_ids": ("expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"),
    "wrong_type": ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"),
    "out_of_range": ("expect_column_values_to_be_between",),
    "new_category": ("expect_column_values_to_be_in_set",),
    "missing_column": (),
    "too_few_rows": (),
}
#: What a category is called that no training row had.
NEW_CATEGORY = "never seen before"


def drifted(
    frame: pandas.DataFrame,
    *,
    columns: Sequence[str],
    shift: float | None = None,
    scale: float | None = None,
    mix: float | None = None,
    new_category: float | None = None,
    missing: float | None = None,
    seed: int = 0,
) -> pandas.DataFrame:
    """Return the rows with ``columns`` moved; every kind that is given moves the columns that it fits.

    :param shift: for numbers: so many standard deviations of the column are added; whole numbers stay whole.
    :param scale: for numbers: every distance from the mean times this.
    :param mix: for texts and truth values: this share of the rows takes the column's rarest value.
    :param new_category: for texts: this share of the rows holds a value that was never there, ``never seen before``.
    :param missing: for every column: this share of the rows loses its value.
    :param seed: draws the rows that a share means.
    :raises UnknownNameError: a column is not in the frame.
    :raises InvalidSpecError: no kind is given, a share is not between 0 and 1, or no kind fits a column.
    """
    import numpy

    asked = {"shift": shift, "scale": scale, "mix": mix, "new_category": new_category, "missing": missing}
    given = {name: value for name, value in asked.items() if value is not None}
    if not given or not columns or isinstance(columns, str):
        raise InvalidSpecError(
            "Say which columns drift and how: drifted(frame, columns=['age', 'plan'], shift=2, mix=0.7)."
        )
    for name in set(given) & {"mix", "new_category", "missing"}:
        _check_share(name, given[name])
    rows = frame.copy()
    for name in columns:
        if name not in rows.columns:
            raise UnknownNameError.of("column of the frame", name, list(map(str, rows.columns)))
        # A generator of its own for each column: adding one to the list leaves the others as they were.
        chance = numpy.random.default_rng([seed, *name.encode()])
        fitting = [kind for kind in given if kind in _fitting(rows[name])]
        if not fitting:
            raise InvalidSpecError(
                f"The column {name!r} is {rows[name].dtype}, and {', '.join(given)} cannot move that: give "
                f"{' or '.join(_fitting(rows[name]))}."
            )
        for kind in fitting:
            rows[name] = _MOVES[kind](rows[name], float(given[kind] or 0.0), chance)
    return rows


def kinds_of_damage(contract: Written) -> tuple[str, ...]:
    """Return the kinds of :func:`broken` that a contract has an expectation about, in the order of :data:`KINDS`.

    :param contract: the model's specification, a contract, its file, or a mapping with its keys.
    """
    asked, passed_over = contract_of(contract), _event_time(contract)
    return tuple(
        kind
        for kind in KINDS
        if (asked.min_rows > 1 if kind == "too_few_rows" else bool(_candidates(asked, kind, passed_over)))
    )


def broken(
    frame: pandas.DataFrame,
    contract: Written,
    *,
    kind: str,
    column: str | None = None,
    share: float | None = None,
    seed: int = 0,
) -> pandas.DataFrame:
    """Return the rows with one kind of damage, in a column that the contract says something about.

    ================== ========================================================================================
    ``nulls``          values are missing
    ``duplicate_ids``  rows carry another row's id
    ``wrong_type``     numbers, times and truth values come as text, and text as numbers
    ``out_of_range``   numbers lie beyond the allowed range, by that range's own width
    ``new_category``   a value stands there that is not among the allowed ones
    ``missing_column`` the column is not there
    ``too_few_rows``   one row less than ``min_rows`` is there
    ================== ========================================================================================

    :param contract: the model's specification, a contract, its file, or a mapping with its keys.
    :param column: which column; None: the first one whose expectation fails the run, else sets rows aside, else warns
        (of a specification not the event time: rows without one are in no window).
    :param share: of the rows, above 0 and at most 1; None: half-way between what the contract allows and all of them.
        ``wrong_type``, ``missing_column`` and ``too_few_rows`` concern all rows.
    :param seed: draws the rows.
    :raises UnknownNameError: no kind is called so.
    :raises InvalidSpecError: the contract expects nothing that such a damage could break: it would pass unnoticed.
    """
    import numpy

    asked = contract_of(contract)
    if kind not in KINDS:
        raise UnknownNameError.of("kind of damage", kind, list(KINDS))
    if share is not None:
        _check_share("share", share)
    chance = numpy.random.default_rng(seed)
    if kind == "too_few_rows":
        return _fewer(frame, asked, chance)
    item = _chosen(asked, kind, column, None if column is not None else _event_time(contract))
    names = [column] if column is not None and kind != "duplicate_ids" else list(item.columns)
    lacking = [name for name in names if name not in frame.columns]
    if lacking:
        raise UnknownNameError.of("column of the frame", lacking[0], list(map(str, frame.columns)))
    rows = frame.copy()
    if kind == "missing_column":
        return rows.drop(columns=names[0])
    if kind == "wrong_type":
        rows[names[0]] = _retyped(rows[names[0]])
        return rows
    allowed = 1.0 - float(item.kwargs.get("mostly", 1.0) or 1.0)  # type: ignore[arg-type]  # JSON of a contract
    places = _places(len(rows), share if share is not None else (1 + allowed) / 2, chance)
    if kind == "duplicate_ids":
        # Every damaged row takes the ids of the row before it; the first one those of the last.
        source = numpy.roll(numpy.arange(len(rows)), 1)[places]
        for name in names:
            values = rows[name].to_numpy(copy=True)
            values[places] = values[source]
            rows[name] = values
    elif kind == "nulls":
        rows[names[0]] = _without(rows[names[0]], places)
    else:
        rows[names[0]] = _with_value(rows[names[0]], places, _beyond(item) if kind == "out_of_range" else _new(item))
    return rows


def _event_time(contract: Written) -> str | None:
    return contract.data.event_time if isinstance(contract, ModelSpec) else None


def _candidates(contract: Contract, kind: str, passed_over: str | None) -> list[ExpectationSpec]:
    """Return the expectations that notice a damage, those that fail the run first."""
    gravity = {"fail": 0, "quarantine": 1, "warn": 2}
    items = sorted(
        (item for item in contract.expectations if item.columns != (passed_over,)),
        key=lambda item: gravity[item.on_failure],
    )
    if kind == "missing_column":
        return [item for item in items if item.columns]
    found = [item for item in items if item.type in KINDS[kind] and not item.kwargs.get("row_condition")]
    if kind == "out_of_range":
        return [item for item in found if _bounds(item) != (None, None)]
    if kind == "new_category":
        return [item for item in found if not all(isinstance(value, bool) for value in _values(item))]
    return found


def _chosen(contract: Contract, kind: str, column: str | None, passed_over: str | None) -> ExpectationSpec:
    found = _candidates(contract, kind, passed_over)
    fitting = [item for item in found if column is None or column in item.columns]
    if fitting:
        return fitting[0]
    about = sorted({name for item in found for name in item.columns})
    where = f" of {column!r}" if column is not None else ""
    mend = f"It does of {', '.join(about)}: name one of them" if about else "Choose another kind (kinds_of_damage)"
    needed = " or ".join(KINDS[kind]) or "an expectation about the column"
    raise InvalidSpecError(
        f"The contract has no expectation{where} that {kind!r} would break, so nobody would notice. {mend}, or add "
        f"{needed} to the contract."
    )


def _fewer(frame: pandas.DataFrame, contract: Contract, chance: numpy.random.Generator) -> pandas.DataFrame:
    left = contract.min_rows - 1
    if left < 1 or len(frame) <= left:
        raise InvalidSpecError(
            f"The contract asks for {contract.min_rows:,} rows and the frame has {len(frame):,}: there is nothing to "
            f"take away that it would notice. Raise min_rows in the contract, or give more rows."
        )
    return frame.iloc[sorted(chance.choice(len(frame), size=left, replace=False))].reset_index(drop=True)


def _fitting(values: pandas.Series) -> tuple[str, ...]:
    from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

    if is_bool_dtype(values):
        return ("mix", "missing")
    if is_numeric_dtype(values):
        return ("shift", "scale", "missing")
    return ("missing",) if is_datetime64_any_dtype(values) else ("mix", "new_category", "missing")


def _shifted(values: pandas.Series, by: float, _: numpy.random.Generator) -> pandas.Series:
    return _as_before(values + by * (values.std() or 1.0), values)


def _scaled(values: pandas.Series, by: float, _: numpy.random.Generator) -> pandas.Series:
    return _as_before(values.mean() + (values - values.mean()) * by, values)


def _mixed(values: pandas.Series, share: float, chance: numpy.random.Generator) -> pandas.Series:
    counts = values.value_counts()
    if counts.empty:
        return values
    rarest = counts[counts == counts.min()].sort_index().index[0]
    return _with_value(values, _places(len(values), share, chance), rarest)


def _with_new(values: pandas.Series, share: float, chance: numpy.random.Generator) -> pandas.Series:
    return _with_value(values, _places(len(values), share, chance), NEW_CATEGORY)


def _with_gaps(values: pandas.Series, share: float, chance: numpy.random.Generator) -> pandas.Series:
    return _without(values, _places(len(values), share, chance))


_MOVES: dict[str, Callable[[Any, float, Any], Any]] = {
    "shift": _shifted,
    "scale": _scaled,
    "mix": _mixed,
    "new_category": _with_new,
    "missing": _with_gaps,
}


def _as_before(moved: pandas.Series, values: pandas.Series) -> pandas.Series:
    """Return whole numbers as whole numbers again, in the same width where they fit."""
    from pandas.api.types import is_integer_dtype

    if not is_integer_dtype(values):
        return moved.astype(values.dtype)
    whole = moved.round()
    import numpy

    if str(values.dtype).islower():  # numpy's own types; pandas' nullable ones hold 64 bits
        limits = numpy.iinfo(values.dtype)
        if whole.min() < limits.min or whole.max() > limits.max:
            return whole.astype("int64")
    return whole.astype(values.dtype)


def _with_value(values: pandas.Series, places: numpy.ndarray, value: Any) -> pandas.Series:
    """Return the column with ``value`` at some places, in its own type where that holds the value."""
    import pandas
    from pandas.api.types import is_integer_dtype

    found = values.astype(object)
    found.iloc[places] = value
    if "shift" not in _fitting(values) or isinstance(value, str):
        return pandas.Series(found, index=values.index) if isinstance(value, str) else found.astype(values.dtype)
    numbers = found.astype("float64")
    if is_integer_dtype(values) and bool((numbers % 1 != 0).any()):
        return numbers
    return _as_before(numbers, values)


def _without(values: pandas.Series, places: numpy.ndarray) -> pandas.Series:
    import numpy

    gone: Any = numpy.zeros(len(values), dtype=bool)
    gone[places] = True
    # Truth values beside a missing one are objects; Arrow stores them as truth values with nulls.
    plain = values.astype(object) if values.dtype == bool else values
    return plain.mask(gone, None) if plain.dtype == object else plain.mask(gone)


def _retyped(values: pandas.Series) -> pandas.Series:
    import pandas

    if "new_category" in _fitting(values):  # text
        codes, _ = pandas.factorize(values)
        return pandas.Series(codes + 0.5, index=values.index)
    words = [None if pandas.isna(value) else f"<{value}>" for value in values]
    return pandas.Series(words, index=values.index, dtype=object)


def _bounds(item: ExpectationSpec) -> tuple[float | None, float | None]:
    def number(value: Any) -> float | None:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    return number(item.kwargs.get("min_value")), number(item.kwargs.get("max_value"))


def _beyond(item: ExpectationSpec) -> float:
    low, high = _bounds(item)
    if high is None:
        return (low or 0.0) - max(abs(low or 0.0), 1.0)
    width = high - low if low is not None else abs(high)
    return high + (width or 1.0)


def _values(item: ExpectationSpec) -> list[Any]:
    values = item.kwargs.get("value_set")
    return values if isinstance(values, list) else []


def _new(item: ExpectationSpec) -> Any:
    values = _values(item)
    if values and all(isinstance(value, int | float) for value in values):
        return max(values) + 1
    return NEW_CATEGORY


def _places(rows: int, share: float, chance: numpy.random.Generator) -> Any:
    import numpy

    return numpy.sort(chance.choice(rows, size=min(rows, max(1, round(rows * share))), replace=False))


def _check_share(name: str, value: float | None) -> None:
    if value is None or not 0 < value <= 1:
        raise InvalidSpecError(f"{name} is {value}: it is a share of the rows, above 0 and at most 1.")
