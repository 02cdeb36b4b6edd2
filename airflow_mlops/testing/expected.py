"""What a contract says of each column, as far as rows can be made up or damaged from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from airflow_mlops.spec.contract import Contract, ExpectationSpec

Kind = Literal["number", "whole", "text", "bool", "time"]

#: Where a contract sets no limit.
_LOW, _HIGH = 0.0, 100.0
_LISTS = ("expect_table_columns_to_match_set", "expect_table_columns_to_match_ordered_list")


@dataclass(frozen=True)
class Expected:
    """One column.

    :param dtype: pandas' name of its type.
    :param low: smallest allowed number; None: not limited.
    :param values: what it may hold; None: not limited.
    :param missing: share of rows that may be without a value, half of what the contract allows.
    :param typed: whether the contract says the type; if it does not, the values to choose from do.
    """

    kind: Kind = "number"
    dtype: str = "float64"
    low: float | None = None
    high: float | None = None
    values: tuple[Any, ...] | None = None
    unique: bool = False
    missing: float = 0.0
    typed: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """Return finite limits to draw numbers between."""
        width = _HIGH - _LOW
        if self.low is None and self.high is None:
            return _LOW, _HIGH
        if self.low is None:
            return (self.high or 0.0) - width, self.high or 0.0
        return self.low, self.low + width if self.high is None else self.high

    def as_unique(self) -> Self:
        """Return the same without repeated values."""
        return replace(self, unique=True)

    def with_values(self, values: Sequence[Any]) -> Self:
        """Return the same with values to choose from."""
        known = {} if self.typed else _typed_by(tuple(values))
        return replace(self, **{**known, "values": tuple(values), "typed": self.typed})


def expected_of(contract: Contract, named: Sequence[str], spread: str | None) -> dict[str, Expected]:
    """Return what is said of each column that the contract names, and of those in ``named``.

    :param spread: the column that has another value in every row anyway, the event time.
    """
    found: dict[str, Expected] = {}
    for item in contract.expectations:
        listed = item.kwargs.get("column_set") or item.kwargs.get("column_list") if item.type in _LISTS else None
        for name in [*(listed if isinstance(listed, list) else ()), *item.columns]:
            found.setdefault(str(name), Expected())
    for name in named:
        found.setdefault(name, Expected())
    for item in contract.expectations:
        if len(item.columns) == 1:
            name = item.columns[0]
            found[name] = _with(found[name], item)
    for item in contract.expectations:
        if item.type in _TOGETHER and spread not in item.columns:
            # One column that may hold anything makes the row unique.
            free = [name for name in item.columns if found[name].values is None and found[name].kind != "bool"]
            found |= {name: found[name].as_unique() for name in free[:1]}
    return found


_TYPES = ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list")
_TOGETHER = ("expect_compound_columns_to_be_unique",)


def _with(one: Expected, item: ExpectationSpec) -> Expected:
    given = item.kwargs
    if item.type in _TYPES:
        listed = given.get("type_list") or [given.get("type_")]
        return replace(one, **_typed(str(listed[0] if isinstance(listed, list) else listed)))
    if item.type == "expect_column_values_to_be_in_set" and isinstance(values := given.get("value_set"), list):
        return one.with_values(values)
    if item.type == "expect_column_values_to_be_between":
        low, high = (_number(given.get(key)) for key in ("min_value", "max_value"))
        return replace(one, low=low, high=high)
    if item.type == "expect_column_values_to_be_unique":
        return one.as_unique()
    if item.type == "expect_column_values_to_not_be_null":
        allowed = 1.0 - float(given.get("mostly", 1.0) or 1.0)  # type: ignore[arg-type]  # JSON of a contract
        return replace(one, missing=allowed / 2 if allowed > 0.02 else 0.0)
    return one


def _typed(name: str) -> dict[str, Any]:
    return {**_named(name.lower()), "typed": True}


def _named(text: str) -> dict[str, Any]:
    if text.startswith(("int", "uint")):
        return {"kind": "whole", "dtype": text}
    if text.startswith("float"):
        return {"kind": "number", "dtype": "float64" if text == "float" else text}
    if text.startswith("bool"):
        return {"kind": "bool", "dtype": "bool"}
    if text.startswith(("datetime", "timestamp")):
        return {"kind": "time", "dtype": "datetime64[us]"}
    return {"kind": "text", "dtype": "object"} if text in ("str", "string", "object") else {}


def _typed_by(values: tuple[Any, ...]) -> dict[str, Any]:
    if all(isinstance(value, bool) for value in values):
        return _typed("bool")
    if all(isinstance(value, int) for value in values):
        return _typed("int64")
    return _typed("float64" if all(isinstance(value, int | float) for value in values) else "str")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
