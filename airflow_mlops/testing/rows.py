"""Rows that nobody delivered: made up so that they meet a model's contract, with a target that can be learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import training_window
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.spec.contract import Contract, load_contract
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import contract_file, data_settings
from airflow_mlops.testing.expected import Expected, expected_of

if TYPE_CHECKING:
    import numpy
    import pandas

#: The evaluation window where none is given; the training window lies before it, as the specification says.
WINDOW = Window(start=datetime(2024, 7, 1, tzinfo=UTC), end=datetime(2024, 8, 1, tzinfo=UTC))
#: Rows in each of the two windows, at least.
LEAST_ROWS = 1_000
#: Share of a target's range that is noise.
_NOISE = 0.15


def made_up(
    spec: ModelSpec,
    *,
    rows: int | None = None,
    window: Window | None = None,
    seed: int = 0,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> pandas.DataFrame:
    """Return rows that meet the contract of ``spec``, half of them to train on and half to evaluate on.

    Every column that the contract or the specification names is there, with the type, range, values and missing
    share that the contract asks for; what it does not limit is a number between 0 and 100. Ids are unique. Columns are
    independent of each other, but the target follows the first feature, with some noise: it can be learnt, and how
    well says nothing about the real data.

    :param rows: how many, for both windows together; None: 2,000, or what ``min_rows`` of contract and drift need.
    :param window: the evaluation window; default July 2024. Event times are spread evenly over it and over the
        training window that the specification derives from it, in UTC.
    :param seed: the same seed gives the same rows.
    :param columns: values to draw a column from, where the contract cannot tell them.
    :raises InvalidSpecError: the rows do not meet the contract; each expectation that they miss is named.
    :raises UnknownNameError: ``columns`` names a column that neither contract nor specification has.
    """
    import numpy
    import pandas

    contract = load_contract(contract_file(spec))
    least = max(2 * LEAST_ROWS, int(2.2 * contract.min_rows), spec.drift.min_rows)
    count = least if rows is None else rows
    if count < 4:
        raise InvalidSpecError(f"rows is {rows}: at least 4 are needed, two to train on and two to evaluate on.")
    given = dict(columns or {})
    expected = _expected(spec, contract, given)
    chance = numpy.random.default_rng(seed)
    anchor = window or WINDOW
    train = training_window(anchor, length=spec.train.window.length, gap=spec.train.window.gap)
    times = pandas.DatetimeIndex(
        [*_times(train, count // 2), *_times(anchor, count - count // 2)],
    ).as_unit("us")
    shares = {name: chance.random(count) for name in expected}
    hidden = {spec.train.target, spec.train.weights, spec.data.event_time, *spec.data.id_columns}
    features = spec.train.features or [name for name in expected if name not in hidden]
    if not features:
        raise InvalidSpecError(
            f"Neither the contract nor the specification of {spec.name!r} names a column to learn from. List them in "
            f"train.features, or add expectations about them to {contract_file(spec)}."
        )
    told = shares[features[0]]
    shares[spec.train.target] = numpy.clip(told * (1 - _NOISE) + chance.random(count) * _NOISE, 0, 1 - 1e-9)
    frame = pandas.DataFrame(
        {
            name: times
            if name == spec.data.event_time
            else _column(name, one, shares[name], times, chance, given.get(name))
            for name, one in expected.items()
        }
    )
    _refuse_unmet(frame, contract, contract_file(spec))
    return frame


def write_sample(
    spec: ModelSpec,
    *,
    rows: int | None = None,
    window: Window | None = None,
    seed: int = 0,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Write :func:`made_up` rows to where ``spec`` reads its data, which must be a local file; return its path.

    A file that is there already stays as it is.

    :raises InvalidSpecError: ``data.uri`` is not a local Parquet or CSV file, or the rows do not meet the contract.
    """
    uri = str(data_settings(spec)["uri"])
    if "://" in uri or uri.startswith("{{") or spec.data.format not in ("parquet", "csv"):
        raise InvalidSpecError(
            f"Model {spec.name!r} reads {uri} ({spec.data.format}), and a sample is a local Parquet or CSV file. Load "
            f"the specification with the profile whose data.uri names one: load_spec(path, profile='dev')."
        )
    path = Path(uri)
    if path.is_file():
        return path
    if not path.suffix:
        raise InvalidSpecError(
            f"Model {spec.name!r} reads the folder {uri}, and a sample is one file. Give the profile's data.uri a "
            f"file's name, such as {path.name}.{spec.data.format}."
        )
    frame = made_up(spec, rows=rows, window=window, seed=seed, columns=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    if spec.data.format == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def _expected(spec: ModelSpec, contract: Contract, given: Mapping[str, Any]) -> dict[str, Expected]:
    """Return what is asked of every column, by name, in the contract's order."""
    train = spec.train
    roles = (spec.data.event_time, *spec.data.id_columns, *spec.data.personal_columns, train.weights, train.target)
    named = [*(train.features or ()), *spec.evaluation.slices, *(role for role in roles if role)]
    expected = expected_of(contract, named, spec.data.event_time)
    for name in given:
        if name not in expected:
            raise UnknownNameError.of("column", name, list(expected))
    target = expected[train.target]
    if spec.evaluation.task != "regression" and target.values is None and train.target not in given:
        if spec.evaluation.task == "multiclass" or target.kind == "text":
            raise InvalidSpecError(
                f"Neither the contract nor the specification of {spec.name!r} says which labels {train.target!r} has. "
                f"Add expect_column_values_to_be_in_set to the contract, or give them: "
                f"columns={{{train.target!r}: ['a', 'b']}}."
            )
        expected[train.target] = target.with_values((False, True) if target.kind == "bool" else (0, 1))
    for name in spec.data.id_columns:
        expected[name] = expected[name].as_unique()
    return expected


def _times(window: Window, count: int) -> Any:
    import pandas

    start, end = (moment.replace(tzinfo=None) for moment in (window.start, window.end))
    return pandas.date_range(start, end, periods=count + 1, inclusive="left")


def _column(
    name: str,
    one: Expected,
    share: numpy.ndarray,
    times: pandas.DatetimeIndex,
    chance: numpy.random.Generator,
    given: Sequence[Any] | None,
) -> Any:
    """Turn numbers between 0 and 1 into a column's values."""
    import numpy
    import pandas

    count = len(share)
    if given is not None or (one.values and not one.unique):
        values = list(given if given is not None else one.values or ())
        if not values:
            raise InvalidSpecError(f"columns[{name!r}] is empty: give the values to draw from.")
        drawn = [values[int(place)] for place in share * len(values)]
        series = pandas.Series(drawn, dtype=object if isinstance(values[0], str) else None)
        return series.astype(one.dtype) if given is None and one.kind in ("number", "whole", "bool") else series
    if one.unique:
        numbers = numpy.arange(1, count + 1)
        if one.kind == "text":
            return pandas.Series([f"{name}-{number:07d}" for number in numbers], dtype=object)
        return numbers.astype(one.dtype) if one.kind in ("number", "whole") else numbers
    if one.kind == "time":
        return times
    if one.kind == "text":
        series = pandas.Series([f"value {int(place)}" for place in share * 5], dtype=object)
    elif one.kind == "bool":
        return share < 0.5
    else:
        low, high = one.range
        numbers = low + share * (high - low)
        series = pandas.Series(numpy.round(numbers) if one.kind == "whole" else numbers).astype(one.dtype)
    if one.missing and one.kind in ("text", "number"):
        series = series.mask(chance.random(count) < one.missing)
    return series


def _refuse_unmet(frame: pandas.DataFrame, contract: Contract, path: str) -> None:
    from airflow_mlops.testing.checks import violations

    unmet = [found for found in violations(frame, contract) if found.on_failure != "warn"]
    if unmet:
        told = "\n".join(f"  {found.expectation}({found.column or 'table'}): {found.sentence}" for found in unmet)
        raise InvalidSpecError(
            f"Rows cannot be made up for the contract {path}, which asks for more than types, ranges, values and "
            f"uniqueness. Give the values of these columns with columns={{...}}, or use rows of your own:\n{told}"
        )
