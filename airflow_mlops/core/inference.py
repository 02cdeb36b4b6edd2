"""A first contract from what was seen in one window: one rule per kind of column, each telling where its limit is from.

Everything here is arithmetic on :class:`TableSeen`; the rows themselves are looked at in
:mod:`airflow_mlops.engines.contract_inference`. A limit always leaves the seen rows inside, with room: what one window
shows is a sample, not the law. So what a model cannot do without (columns, types, completeness, keys, known labels)
fails, and what merely was usual (ranges, values) warns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any, Literal

Kind = Literal["whole", "float", "bool", "text", "time", "empty", "other"]
Role = Literal["target", "event_time", "id", "personal", "plain"]
OnFailure = Literal["fail", "warn", "quarantine"]

#: A text column with at most this many values, each seen ten times on average, is a set of categories.
MOST_VALUES = 50
ROWS_PER_VALUE = 10
LONGEST_VALUE = 80
#: A whole-number target with at most this many values holds labels rather than amounts.
MOST_WHOLE_LABELS = 20
#: A month or a day, perhaps with a time, written as text.
DATE = re.compile(r"^\d{4}-\d{2}(?:-\d{2}.*)?$")
_TIMES = ("datetime64[s]", "datetime64[ms]", "datetime64[us]", "datetime64[ns]")


@dataclass(frozen=True)
class ColumnSeen:
    """What one column held.

    :param dtypes: the pandas types the column came as, one per part that was looked at.
    :param missing: rows with NULL or NaN, NaN counted in ``nans`` as well; ``infinite``: rows with an infinity.
    :param low: smallest finite value (whole and float only), like ``high``; None where there is none or the column's
        values must not be shown.
    :param distinct: different values, missing ones left out; None where they were not counted.
    :param values: those values, sorted; None where they are too many, too long, or must not be shown.
    :param worst_missing: the largest share missing in any part; likewise ``worst_infinite``, of the rows with a value.
    """

    name: str
    kind: Kind
    rows: int
    dtypes: tuple[str, ...]
    role: Role = "plain"
    missing: int = 0
    nans: int = 0
    infinite: int = 0
    low: int | float | None = None
    high: int | float | None = None
    distinct: int | None = None
    values: tuple[Any, ...] | None = None
    worst_missing: float = 0.0
    worst_infinite: float = 0.0

    @property
    def filled(self) -> int:
        """Return the number of rows with a value."""
        return self.rows - self.missing


@dataclass(frozen=True)
class KeySeen:
    """Columns whose values together might name a row, and how many rows repeat an earlier one's."""

    columns: tuple[str, ...]
    repeats: int


@dataclass(frozen=True)
class TableSeen:
    """What one window held.

    :param smallest: rows of the smallest part the contract is to hold on; ``rows`` where there is one part.
    :param keys: candidates for what names a row, the shortest first.
    :param unreadable: columns that cannot be read as a frame, with the reason.
    :param parts: names of the parts in the sentences, such as ``"the training window"``; empty: only the whole.
    """

    rows: int
    columns: tuple[ColumnSeen, ...]
    smallest: int
    keys: tuple[KeySeen, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def column(self, name: str) -> ColumnSeen | None:
        """Return the column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class Proposal:
    """One expectation, and in words what was seen and how the limit follows from it."""

    type: str
    kwargs: dict[str, Any]
    on_failure: OnFailure
    reason: str


@dataclass(frozen=True)
class Inferred:
    """A contract in the making.

    ``left_out`` says what was looked at and led to no expectation; ``target``, where it is known, is train-only.
    """

    min_rows: int
    min_rows_reason: str
    max_quarantined_share: float | None
    share_reason: str
    proposals: tuple[Proposal, ...]
    left_out: tuple[str, ...]
    target: str | None = None


def infer(seen: TableSeen, *, labels: bool | None = None) -> Inferred:
    """Return the expectations that ``seen`` suggests, in the order of the columns.

    :param seen: at least one row and one column.
    :param labels: whether the target holds labels; None: :func:`holds_labels` decides.
    """
    proposals: list[Proposal] = []
    left_out: list[str] = []
    names = [column.name for column in seen.columns]
    if seen.unreadable:
        left_out += [f"{_quoted(name)}: {why}" for name, why in seen.unreadable.items()]
    else:
        proposals.append(
            Proposal(
                "expect_table_columns_to_match_set",
                {"column_set": names, "exact_match": False},
                "fail",
                f"seen {_count(len(names), 'column')}; one that is gone fails, a new one is welcome",
            )
        )
    for said in map(_key, seen.keys):
        if isinstance(said, Proposal):
            proposals.append(said)
            break
        left_out.append(said)
    share, share_reason = None, ""
    for column in seen.columns:
        found = [_writable(one) for one in _about(column, seen, labels)]
        proposals += [one for one in found if isinstance(one, Proposal)]
        left_out += [one for one in found if isinstance(one, str)]
        if column.role == "target" and column.worst_missing < 1:
            limit, how = _missing_limit(column.worst_missing, least=Decimal("0.01"))
            share = float(limit)
            share_reason = (
                f"the target is missing in {_seen_missing(column, seen)}; such rows are set aside, {how}, and more fail"
            )
    half = max(Decimal(1), _rounded(Decimal(seen.smallest) / 2, ROUND_FLOOR))
    where = "the smallest of " + ", ".join(seen.parts) + " has" if seen.parts else "seen"
    reason = f"{where} {_count(seen.smallest, 'row')}; limit: half of that, rounded down to two digits"
    target = next((column.name for column in seen.columns if column.role == "target"), None)
    return Inferred(int(half), reason, share, share_reason, tuple(proposals), tuple(left_out), target)


def combine(whole: TableSeen, parts: Mapping[str, TableSeen]) -> TableSeen:
    """Return what was seen of the whole, with the worst shares, all types and the fewest rows of its parts.

    A contract from it holds on the whole and on every part.

    :param parts: what each part is called in sentences, and what was seen of it; the columns are the whole's.
    """
    columns = []
    for column in whole.columns:
        found = [column, *(one for part in parts.values() if (one := part.column(column.name)) is not None)]
        columns.append(
            replace(
                column,
                dtypes=tuple(dict.fromkeys(dtype for one in found for dtype in one.dtypes)),
                worst_missing=max(one.missing / one.rows for one in found),
                worst_infinite=max(one.worst_infinite for one in found),
            )
        )
    smallest = min(part.rows for part in parts.values())
    return replace(whole, columns=tuple(columns), smallest=smallest, parts=tuple(parts))


def holds_labels(column: ColumnSeen) -> bool:
    """Say whether a target looks like a label: text, truth values, or whole numbers with few different values."""
    if column.kind in ("bool", "text"):
        return True
    if column.distinct is None or column.kind not in ("whole", "float"):
        return False
    return column.distinct <= (MOST_WHOLE_LABELS if column.kind == "whole" else 2)


def accepted_types(column: ColumnSeen) -> tuple[str, ...]:
    """Return the pandas types that are the same column in another window, those that were seen first."""
    also: dict[Kind, tuple[str, ...]] = {
        "whole": ("float64",),  # what whole numbers with a missing value come as
        "bool": ("float64",),  # likewise
        "float": ("int64",),  # a CSV window in which every number happens to be whole
        "text": ("str",),
        "time": _TIMES,
    }
    seen = ["str" if dtype == "object" else dtype for dtype in column.dtypes]
    return tuple(dict.fromkeys([*seen, *also.get(column.kind, ())]))


def _writable(found: Proposal | str) -> Proposal | str:
    """Return what was found, or in words that a limit of it came out infinite: sums near the largest float do."""
    if isinstance(found, str):
        return found
    numbers = [value for one in found.kwargs.values() for value in (one if isinstance(one, list | tuple) else [one])]
    if all(math.isfinite(value) for value in numbers if isinstance(value, float)):
        return found
    return f"{found.type} would need an infinite number: left out"


def outward(low: float, high: float, *, whole: bool) -> tuple[int | float | None, int | float | None]:
    """Return ``low`` and ``high`` moved apart by half their distance each, rounded outward to one digit of that.

    Neither crosses zero: where no value was negative (positive), the limit stops at 0. Equal ends stay as they are. An
    end beyond the largest float is None.
    """
    if low == high:
        return _shortest(low, whole=whole), _shortest(high, whole=whole)
    with localcontext() as context:
        context.prec = 60
        least, most = Decimal(low), Decimal(high)
        margin = (most - least) / 2
        step = Decimal(1).scaleb(margin.adjusted())
        if whole:
            step = max(step, Decimal(1))
        below = ((least - margin) / step).to_integral_value(ROUND_FLOOR) * step
        above = ((most + margin) / step).to_integral_value(ROUND_CEILING) * step
        if least >= 0:
            below = max(below, Decimal(0))
        if most <= 0:
            above = min(above, Decimal(0))
    if whole:
        return int(below), int(above)
    # Back in floats a rounded end must still be outside.
    ends = min(float(below), low), max(float(above), high)
    start, end = (_shortest(value, whole=False) if math.isfinite(value) else None for value in ends)
    return start, end


def _about(column: ColumnSeen, seen: TableSeen, labels: bool | None) -> Iterator[Proposal | str]:
    """Yield a column's expectations, and as text what was looked at without making one."""
    name = _quoted(column.name)
    if column.kind == "empty":
        yield Proposal("expect_column_to_exist", {"column": column.name}, "fail", "seen without a single value")
        return
    if column.kind != "other":
        types = accepted_types(column)
        yield Proposal(
            "expect_column_values_to_be_in_type_list",
            {"column": column.name, "type_list": list(types)},
            "fail",
            f"seen as {' and '.join('text' if one == 'object' else one for one in column.dtypes)}{_why_types(column)}",
        )
    yield from _completeness(column, seen)
    if column.role in ("id", "personal"):
        word = "an id" if column.role == "id" else "about a person"
        yield f"{name} is {word}: its values are neither shown nor limited"
    elif column.role == "target" and (holds_labels(column) if labels is None else labels):
        yield from _labels(column)
    elif column.kind in ("whole", "float"):
        yield from _range(column, seen)
    elif column.kind == "text":
        yield from _categories(column)


def _why_types(column: ColumnSeen) -> str:
    return {
        "whole": "; whole numbers with a missing value come as float64",
        "bool": "; truth values with a missing one come as float64",
        "float": "; in CSV a window of whole numbers comes as int64",
        "time": "; the unit is storage, not meaning",
    }.get(column.kind, "")


def _completeness(column: ColumnSeen, seen: TableSeen) -> Iterator[Proposal | str]:
    kwargs: dict[str, Any] = {"column": column.name}
    kind = "expect_column_values_to_not_be_null"
    if column.role == "target":
        reason = f"seen missing in {_seen_missing(column, seen)}; a row without an answer is set aside"
        yield Proposal(kind, kwargs, "quarantine", reason)
        return
    if column.role == "event_time":
        yield Proposal(
            kind, kwargs, "fail", f"seen in all {seen.rows:,} rows; a row without a time is in no window: none may be"
        )
        return
    if column.worst_missing >= 1:
        yield f"{_quoted(column.name)} is missing throughout one of {', '.join(seen.parts)}: no limit on missing values"
        return
    limit, how = _missing_limit(column.worst_missing, least=Decimal("0.001"))
    nans = f", {column.nans:,} of them NaN" if column.nans else ""
    reason = f"seen missing in {_seen_missing(column, seen)}{nans}; {how}"
    yield Proposal(kind, {**kwargs, "mostly": float(1 - limit)}, "fail", reason)


def _missing_limit(share: float, *, least: Decimal) -> tuple[Decimal, str]:
    """Return the largest share that may be missing, and its making in words."""
    seen = Decimal(repr(share))  # as it is read: 0.05, not the float's last digits
    tenfold, above, halfway = 10 * seen, seen + Decimal("0.1"), (1 + seen) / 2
    limit = min(tenfold, above, halfway)
    how = {tenfold: "ten times that", above: "ten percentage points above that", halfway: "half way from that to all"}
    if limit <= least:
        return least, f"limit {_percent(float(least))}, the least that is ever allowed"
    # Rounded up, yet never to "all may be missing".
    rounded = _rounded(limit, ROUND_CEILING) if limit <= Decimal("0.5") else 1 - _rounded(1 - limit, ROUND_FLOOR)
    return rounded, f"limit {_percent(float(rounded))} = {how[limit]}, rounded up"


def _labels(column: ColumnSeen) -> Iterator[Proposal | str]:
    if column.values is None:
        yield f"{_quoted(column.name)}: its {column.distinct or 'many'} labels are too many or too long for a list"
        return
    yield Proposal(
        "expect_column_values_to_be_in_set",
        {"column": column.name, "value_set": list(column.values)},
        "fail",
        f"seen {_count(len(column.values), 'label')} in {_count(column.filled, 'row')}; a new one is a decision",
    )


def _range(column: ColumnSeen, seen: TableSeen) -> Iterator[Proposal | str]:
    if column.low is None or column.high is None:
        yield f"{_quoted(column.name)} has no finite value: no range"
        return
    if column.kind == "whole" and max(abs(column.low), abs(column.high)) >= 2**63:
        # Great Expectations compares them as floats, which cannot tell neighbours of this size apart.
        yield f"{_quoted(column.name)} holds whole numbers beyond 64 signed bits: no range"
        return
    low, high = outward(column.low, column.high, whole=column.kind == "whole")
    kwargs: dict[str, Any] = {"column": column.name}
    if low is not None:
        kwargs["min_value"] = low
    if high is not None:
        kwargs["max_value"] = high
    between = f"seen {_number(column.low)} to {_number(column.high)}"
    how = "limits half that distance further out, rounded outward"
    if column.low == column.high:
        between, how = f"seen one value only, {_number(column.low)}", "limit: that value"
    elif 0 in (low, high):
        how += ", and no further than 0"
    if len(kwargs) < 3:
        how += "; an end beyond the largest float is left out"
    if len(kwargs) == 1:
        yield f"{_quoted(column.name)} spans all floats: no range"
        return
    if column.worst_infinite:
        if column.worst_infinite >= 1:
            yield f"{_quoted(column.name)} is infinite throughout one of {', '.join(seen.parts)}: no range"
            return
        limit, why = _missing_limit(column.worst_infinite, least=Decimal("0.001"))
        kwargs["mostly"] = float(1 - limit)
        how += f"; infinite in {_count(column.infinite, 'row')}, which lie outside: {why}"
    yield Proposal("expect_column_values_to_be_between", kwargs, "warn", f"{between}; {how}")


def _categories(column: ColumnSeen) -> Iterator[Proposal | str]:
    name = _quoted(column.name)
    distinct = column.distinct or 0
    if column.values is None:
        yield f"{name} holds {_count(distinct, 'different value')}, too many or too long for a list"
    elif all(DATE.match(value) for value in column.values):
        yield f"{name} holds {_count(distinct, 'date')} as text, which move on with time"
    elif column.filled < ROWS_PER_VALUE * distinct:
        yield (
            f"{name} holds {_count(distinct, 'different value')} in {_count(column.filled, 'row')}, fewer than "
            f"{ROWS_PER_VALUE} rows each: too little to call them all"
        )
    else:
        yield Proposal(
            "expect_column_values_to_be_in_set",
            {"column": column.name, "value_set": list(column.values)},
            "warn",
            f"seen {_count(distinct, 'value')} in {_count(column.filled, 'row')}, all listed",
        )


def _key(key: KeySeen) -> Proposal | str:
    names = list(key.columns)
    told = ", ".join(map(_quoted, names))
    if key.repeats:
        return f"{told} {'does' if len(names) == 1 else 'do'} not name a row: {_count(key.repeats, 'row')} repeat"
    if len(names) == 1:
        return Proposal(
            "expect_column_values_to_be_unique", {"column": names[0]}, "fail", "seen without any value twice"
        )
    reason = "seen without any combination twice"
    return Proposal("expect_compound_columns_to_be_unique", {"column_list": names}, "fail", reason)


def _seen_missing(column: ColumnSeen, seen: TableSeen) -> str:
    share = column.missing / column.rows
    text = f"{_percent(share) if share else 'none'} of {_count(column.rows, 'row')}"
    if column.worst_missing > share:
        text += f" and in {_percent(column.worst_missing)} of one of {', '.join(seen.parts)}"
    return text


def _rounded(value: Decimal, way: str) -> Decimal:
    """Return ``value`` with two significant digits."""
    if value == 0:
        return Decimal(0)
    step = Decimal(1).scaleb(value.adjusted() - 1)
    return (value / step).to_integral_value(way) * step


def _shortest(value: float, *, whole: bool) -> int | float:
    if whole or (float(value).is_integer() and abs(value) < 1e15):
        return int(value)
    return float(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _percent(share: float) -> str:
    """Return a share as a percentage of three digits that never rounds something to nothing or to everything."""
    if 0 < share < 0.00001:
        return "under 0.001 %"
    if 0.99999 < share < 1:
        return "over 99.999 %"
    return f"{share * 100:.3g} %" if share < 0.9 else f"{share * 100:.5g} %"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _quoted(name: str) -> str:
    return repr(name)
