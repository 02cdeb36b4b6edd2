"""Looking at a window's rows for a first contract, and proving with Great Expectations that it holds on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.contract_text import as_mapping, contract_text
from airflow_mlops.core.inference import (
    LONGEST_VALUE,
    MOST_VALUES,
    ColumnSeen,
    Inferred,
    KeySeen,
    Kind,
    Role,
    TableSeen,
    infer,
)
from airflow_mlops.engines.expectations import check_contract_names, evaluate
from airflow_mlops.engines.schemas import to_frame
from airflow_mlops.engines.tables import read_table, take_manifest
from airflow_mlops.errors import DataReadError, InvalidSpecError
from airflow_mlops.spec.contract import Contract, load_contract
from airflow_mlops.spec.yaml_lines import parse_yaml

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from airflow_mlops.core.records import Window
    from airflow_mlops.engines.manifests import Manifest
    from airflow_mlops.engines.storage import StorageAccess
    from airflow_mlops.spec.model import DataSpec

#: Checking takes Great Expectations about 10 ms for each expectation, three of them a column.
MOST_COLUMNS = 3_000


@dataclass(frozen=True)
class Rows:
    """The rows of one window: as Arrow, as the frame that contracts are checked on, and which rows they are."""

    manifest: Manifest
    table: pyarrow.Table
    frame: pandas.DataFrame
    unreadable: Mapping[str, str]


@dataclass(frozen=True)
class FirstContract:
    """An inferred contract: its parts, its text, and what reading that text back gives."""

    inferred: Inferred
    text: str
    contract: Contract


def read_rows(data: DataSpec, window: Window | None, access: StorageAccess | None = None) -> Rows:
    """Read a window through the code that reads snapshots.

    :raises DataReadError: nothing is there, or it cannot be read.
    :raises InvalidSpecError: there is no row, no column, a nameless one, or more columns than a contract can hold.
    """
    manifest = take_manifest(data, window, access)
    names = [name for name, _ in manifest.columns]
    where = f"window {window} of {data.uri}" if window is not None else data.uri
    if len(names) > MOST_COLUMNS:
        raise InvalidSpecError(
            f"{data.uri} has {len(names):,} columns; a contract is inferred for at most {MOST_COLUMNS:,}. Write the "
            f"columns that the model needs to a table of their own."
        )
    if not all(names):
        raise InvalidSpecError(f"Column {names.index('') + 1} of {data.uri} has no name. Give it one.")
    if not sum(file.row_count for file in manifest.files):
        raise InvalidSpecError(
            f"There is nothing to infer from: {where} holds no row. Check the delivery, and that --window and "
            f"--event-time are the right ones."
        )
    table = read_table(manifest, access)
    frame, unreadable = _readable(table)
    return Rows(manifest, table, frame, unreadable)


def look(rows: Rows, roles: Mapping[str, Role], ids: Sequence[str] = ()) -> TableSeen:
    """Return what the rows hold, column by column. Values of id and personal columns are counted, never kept.

    Rows without a target count for the target only: a contract sets them aside before it looks at anything else.

    :param roles: the role of every column that is not plain.
    :param ids: the columns that may name a row, alone or with the event time.
    :raises InvalidSpecError: no column at all can be read.
    """
    if not len(rows.frame.columns):
        raise InvalidSpecError(f"No column of {rows.manifest.uri} can be read: {'; '.join(rows.unreadable.values())}")
    kept = _with_target(rows, roles)
    columns = tuple(
        _column((rows if role == "target" else kept), name, role)
        for name in rows.frame.columns
        for role in [roles.get(name, "plain")]
    )
    count = kept.table.num_rows
    return TableSeen(count, columns, count, _keys(kept, roles, ids), dict(rows.unreadable))


def first_contract(seen: TableSeen, source: str, *, labels: bool | None = None) -> FirstContract:
    """Return the contract that ``seen`` suggests, read back from its own text.

    :param source: the sentence that says which rows it is from.
    :param labels: whether the target holds labels; None: its values decide.
    """
    inferred = infer(seen, labels=labels)
    text = contract_text(inferred, source)
    contract = load_contract(parse_yaml(text, "the inferred contract")[0])
    if contract != load_contract(as_mapping(inferred)):
        raise RuntimeError("The inferred contract does not read back as what was inferred.")
    return FirstContract(inferred, text, contract)


def prove(contract: Contract, frame: pandas.DataFrame, where: str) -> int:
    """Check that the contract holds, warnings included; return how many rows its quarantine sets aside.

    :param where: which rows these are, for the message.
    :raises RuntimeError: it does not hold, which an inferred contract always must: the fault is this package's.
    """
    check_contract_names(contract)
    order = range(len(contract.expectations))
    first = [number for number in order if contract.expectations[number].on_failure == "quarantine"]
    outcomes = evaluate(frame, contract, first)
    aside = sorted({place for outcome in outcomes for place in outcome.positions})
    kept = frame.drop(index=aside).reset_index(drop=True) if aside else frame
    broken = [outcome.sentence for outcome in outcomes if outcome.status == "error"]
    rest = [number for number in order if number not in first]
    broken += [outcome.sentence for outcome in evaluate(kept, contract, rest) if outcome.status != "pass"]
    if len(kept) < contract.min_rows:
        broken.append(f"{len(kept)} rows are left of {len(frame)}, min_rows is {contract.min_rows}.")
    share = contract.max_quarantined_share
    if share is not None and len(aside) / len(frame) > share:
        broken.append(f"{len(aside)} of {len(frame)} rows are set aside, more than {share}.")
    if broken:
        raise RuntimeError(f"The inferred contract does not hold on {where}: {' '.join(broken[:5])}")
    return len(aside)


def _readable(table: pyarrow.Table) -> tuple[pandas.DataFrame, dict[str, str]]:
    """Return the frame of all columns that have one, and why the others have none."""
    try:
        return to_frame(table), {}
    except DataReadError:
        unreadable = {}
        for name in table.column_names:
            try:
                to_frame(table.select([name]))
            except DataReadError as exc:
                unreadable[name] = str(exc)
        return to_frame(table.select([name for name in table.column_names if name not in unreadable])), unreadable


def _with_target(rows: Rows, roles: Mapping[str, Role]) -> Rows:
    """Return the rows that go on to the other expectations: those with a target, or all where none has one."""
    import pyarrow

    for name, role in roles.items():
        if role == "target" and name in rows.frame.columns:
            there = rows.frame[name].notna()
            if there.any() and not there.all():
                table = rows.table.filter(pyarrow.array(there.to_numpy()))
                return replace(rows, table=table, frame=rows.frame[there].reset_index(drop=True))
    return rows


def _column(rows: Rows, name: str, role: Role) -> ColumnSeen:
    import numpy
    from pyarrow import compute

    values, series = rows.table[name], rows.frame[name]
    kind: Kind = _kind(values.type)
    count = len(values)
    missing = int(series.isna().sum())
    nans = missing - values.null_count if kind == "float" else 0
    if missing == count and role != "event_time":
        return ColumnSeen(name, "empty", count, (str(series.dtype),), role, missing, nans, worst_missing=1.0)
    infinite, low, high, distinct = 0, None, None, None
    shown = role not in ("id", "personal")
    if kind in ("whole", "float"):
        numbers = series.to_numpy()
        finite = numbers[numpy.isfinite(numbers)]
        infinite = count - missing - len(finite)
        if shown and len(finite):
            cast = int if kind == "whole" else float
            low, high = cast(finite.min()), cast(finite.max())
    if kind in ("whole", "text", "bool"):
        distinct = int(compute.count_distinct(values.drop_null()).as_py())
    elif kind == "float" and role == "target":
        distinct = int(series.nunique())
    return ColumnSeen(
        name,
        kind,
        count,
        (str(series.dtype),),
        role,
        missing,
        nans,
        infinite,
        low,
        high,
        distinct,
        _values(series, kind, distinct, role) if shown else None,
        missing / count,
        infinite / (count - missing) if count > missing else 0.0,
    )


def _values(series: pandas.Series, kind: Kind, distinct: int | None, role: Role) -> tuple[Any, ...] | None:
    """Return the distinct values, sorted, where they are few and short; of numbers only a target's."""
    if distinct is None or distinct > MOST_VALUES or (kind != "text" and role != "target"):
        return None
    found = sorted(series.dropna().unique().tolist())
    if kind == "text" and any(len(value) > LONGEST_VALUE for value in found):
        return None
    if kind == "bool":  # beside a missing one they are floats
        return tuple(bool(value) for value in found)
    return (
        tuple(int(value) if float(value).is_integer() else value for value in found) if kind != "text" else tuple(found)
    )


def _kind(kind: pyarrow.DataType) -> Kind:
    from pyarrow import types

    if types.is_integer(kind):
        return "whole"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "float"
    if types.is_boolean(kind):
        return "bool"
    if types.is_string(kind):
        return "text"
    return "time" if types.is_timestamp(kind) or types.is_date(kind) else "other"


def _keys(rows: Rows, roles: Mapping[str, Role], ids: Sequence[str]) -> tuple[KeySeen, ...]:
    """Count repeats of the ids, and of ids and event time. One row repeats nothing and proves nothing."""
    import pyarrow

    usable = [name for name in ids if name in rows.frame.columns]
    if not usable or rows.table.num_rows < 2:
        return ()
    times = [name for name, role in roles.items() if role == "event_time" and name not in usable]
    found = []
    for columns in [usable, [*usable, *times]] if times else [usable]:
        try:
            groups = rows.table.select(columns).group_by(columns).aggregate([]).num_rows
        except pyarrow.ArrowNotImplementedError:  # lists and the like cannot be compared
            return ()
        found.append(KeySeen(tuple(columns), rows.table.num_rows - groups))
    return tuple(found)
