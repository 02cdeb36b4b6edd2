"""What an expectation found, in one plain sentence: what, how many, what share, and the limit. No row's value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST = 300


@dataclass(frozen=True)
class Observed:
    """What is needed for a sentence. ``value`` is what an aggregate expectation observed."""

    type: str
    kwargs: Mapping[str, Any]
    success: bool
    element_count: int | None = None
    missing_count: int | None = None
    unexpected_count: int | None = None
    value: Any = None


def sentence_for(seen: Observed) -> str:
    """Return the sentence. Arguments of the contract are quoted, shortened; values of rows are not."""
    if seen.unexpected_count is not None and seen.element_count is not None:
        return _shorten(_about_rows(seen))
    return _shorten(_about_whole(seen))


def _about_rows(seen: Observed) -> str:
    total = int(seen.element_count or 0)
    over_all = seen.type in ("expect_column_values_to_not_be_null", "expect_column_values_to_be_null")
    # Great Expectations leaves missing values out of a row-wise share, except where missing is the question.
    judged = total if over_all else total - int(seen.missing_count or 0)
    bad = int(seen.unexpected_count or 0)
    of = "rows" if over_all or not seen.missing_count else "rows with a value"
    share = f" ({percent(bad / judged)})" if judged else ""
    mostly = seen.kwargs.get("mostly")
    limit = "none may be"
    if isinstance(mostly, int | float) and mostly < 1:
        limit = f"at most {percent(1 - mostly)} may be"
    return f"{_subject(seen.kwargs)} {_fault(seen)} in {bad:,} of {judged:,} {of}{share}; {limit}."


def _fault(seen: Observed) -> str:
    kwargs = seen.kwargs
    match seen.type:
        case "expect_column_values_to_not_be_null":
            return "is null"
        case "expect_column_values_to_be_null":
            return "is not null"
        case "expect_column_values_to_be_between":
            return f"is not {_between(kwargs)}"
        case "expect_column_value_lengths_to_be_between":
            return f"has a length that is not {_between(kwargs)}"
        case "expect_column_values_to_be_in_set":
            return f"is none of {_several(kwargs.get('value_set'))}"
        case "expect_column_values_to_not_be_in_set":
            return f"is one of {_several(kwargs.get('value_set'))}"
        case "expect_column_values_to_be_unique":
            return "stands more than once"
        case "expect_compound_columns_to_be_unique":
            return "stand together more than once"
        case "expect_column_values_to_match_regex":
            return f"does not hold the pattern {kwargs.get('regex')!r}"
        case "expect_column_values_to_not_match_regex":
            return f"holds the pattern {kwargs.get('regex')!r}"
        case "expect_column_values_to_be_of_type":
            return f"is not of type {kwargs.get('type_')}"
        case _:
            return f"{'does' if 'column' in kwargs else 'do'} not meet {seen.type}{_arguments(kwargs)}"


_AGGREGATES = {
    "expect_column_mean_to_be_between": "mean",
    "expect_column_median_to_be_between": "median",
    "expect_column_stdev_to_be_between": "standard deviation",
    "expect_column_sum_to_be_between": "sum",
    "expect_column_min_to_be_between": "minimum",
    "expect_column_max_to_be_between": "maximum",
    "expect_column_unique_value_count_to_be_between": "number of distinct values",
    "expect_column_proportion_of_unique_values_to_be_between": "share of distinct values",
    "expect_column_proportion_of_non_null_values_to_be_between": "share of values that are not null",
}


def _about_whole(seen: Observed) -> str:
    kwargs = seen.kwargs
    column = kwargs.get("column")
    if seen.type in _AGGREGATES:
        what = f"The {_AGGREGATES[seen.type]} of column {column!r}"
        return f"{what} is {_number(seen.value)}; it must be {_between(kwargs)}."
    match seen.type:
        case "expect_table_row_count_to_be_between":
            return f"The table has {_number(seen.value)} rows; there must be {_between(kwargs)}."
        case "expect_table_row_count_to_equal":
            return f"The table has {_number(seen.value)} rows; there must be {_number(kwargs.get('value'))}."
        case "expect_column_to_exist":
            return f"Column {column!r} {'is there' if seen.success else 'is missing from the data'}."
        case "expect_column_values_to_be_of_type" | "expect_column_values_to_be_in_type_list":
            wanted = kwargs.get("type_") or ", ".join(map(str, kwargs.get("type_list") or ()))
            return f"Column {column!r} has type {seen.value}; it must be {wanted}."
    verdict = "is met" if seen.success else "is not met"
    observed = f"; observed {_number(seen.value)}" if isinstance(seen.value, int | float) else ""
    if isinstance(seen.value, list | set | tuple):
        observed = f"; observed {len(seen.value):,} values"
    rest = {key: value for key, value in kwargs.items() if key != "column"}
    return f"{_subject(kwargs)}: {seen.type}{_arguments(rest)} {verdict}{observed}."


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds something to nothing or to everything."""
    if 0 < share < 0.0001:
        return "under 0.01 %"
    if 0.9999 < share < 1:
        return "over 99.99 %"
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + " %"


def _subject(kwargs: Mapping[str, Any]) -> str:
    if "column" in kwargs:
        return f"Column {kwargs['column']!r}"
    if "column_A" in kwargs:
        return f"Columns {kwargs['column_A']!r} and {kwargs.get('column_B')!r}"
    if "column_list" in kwargs:
        return f"Columns {', '.join(map(repr, kwargs['column_list']))}"
    return "The table"


def _between(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    above = "more than" if kwargs.get("strict_min") else "at least"
    below = "less than" if kwargs.get("strict_max") else "at most"
    if low is not None and high is not None:
        if above == "at least" and below == "at most":
            return f"between {_number(low)} and {_number(high)}"
        return f"{above} {_number(low)} and {below} {_number(high)}"
    if low is not None:
        return f"{above} {_number(low)}"
    return f"{below} {_number(high)}"


def _several(values: Any) -> str:
    listed = list(values) if isinstance(values, list | tuple | set) else [values]
    if len(listed) <= 5:
        return ", ".join(map(repr, listed))
    return f"the {len(listed)} values listed"


def _arguments(kwargs: Mapping[str, Any]) -> str:
    shown = {
        key: value
        for key, value in kwargs.items()
        if key not in ("column", "column_A", "column_B", "column_list", "mostly")
    }
    text = ", ".join(f"{key}={value!r}" for key, value in shown.items())
    return f" ({text if len(text) <= 120 else text[:119] + '…'})" if text else ""


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "undefined" if value is None else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "undefined"
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.6g}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
