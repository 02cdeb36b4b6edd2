"""The data contract: what a team expects of a window of its data, in Great Expectations' own names and arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, PrivateAttr, ValidationError, field_validator, model_validator

from airflow_mlops.core.keys import digest_of
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError
from airflow_mlops.spec.strict import Column, Strict
from airflow_mlops.spec.yaml_lines import load_yaml

OnFailure = Literal["fail", "warn", "quarantine"]
#: Arguments that say how a result is reported. That is ours to decide: reports must hold no rows.
NOT_ARGUMENTS = ("result_format", "catch_exceptions", "severity", "meta", "batch_id", "row_condition_dialect")

#: Why an expectation cannot quarantine, and what to write instead.
JUDGES_NO_ROWS = (
    "on_failure: quarantine needs an expectation that judges single rows, such as expect_column_values_to_be_between; "
    "this one judges the column or table as a whole",
    "Use fail or warn.",
)

#: Expectations about which columns a table has, and the argument that lists them: a list can be shortened.
_LISTS = {
    "expect_table_columns_to_match_set": "column_set",
    "expect_table_columns_to_match_ordered_list": "column_list",
}
#: In a condition, a column stands in ``col("x")``, between backticks, or bare; other quoted text is a value.
_NAMED_IN_CONDITION = re.compile(r"""\bcol\(\s*(["'])(.*?)\1\s*\)|`([^`]*)`""")
_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""")


def unknown_expectation(name: str, known: Collection[str]) -> tuple[str, str]:
    """Return what is wrong with a name that is none of Great Expectations', and the mend."""
    close = get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    mend = f"{hint}The names are those of Great Expectations 1.x, in snake case."
    return f"Great Expectations has no expectation {name!r}", mend


class ExpectationSpec(Strict):
    """One expectation: its name, its arguments, and what follows when it is not met."""

    type: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=200, description="Great Expectations' name for it.")
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Its arguments, as there.")
    on_failure: OnFailure = Field(
        default="fail",
        description="fail: the run stops; warn: it is said; quarantine: the rows at fault are set aside.",
    )
    notes: str | None = Field(default=None, description="Why this is expected; shown in the report.")

    @field_validator("kwargs")
    @classmethod
    def _only_theirs(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        ours = sorted(set(value) & set(NOT_ARGUMENTS))
        if ours:
            raise ValueError(f"{ours[0]!r} cannot be set in a contract; remove it (use on_failure for the consequence)")
        return value

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns its arguments name; a ``row_condition`` may name others."""
        named: list[str] = []
        for key in ("column", "column_A", "column_B"):
            if isinstance(value := self.kwargs.get(key), str):
                named.append(value)
        if isinstance(several := self.kwargs.get("column_list"), list):
            named.extend(column for column in several if isinstance(column, str))
        return tuple(dict.fromkeys(named))

    def touches(self, column: str) -> bool:
        """Say whether the expectation is about ``column``: by an argument, or in its ``row_condition``."""
        listed = self.kwargs.get("column_set")
        return (
            column in self.columns
            or (isinstance(listed, list) and column in listed)
            or _in_condition(column, self.kwargs.get("row_condition"))
        )


class Contract(Strict):
    """Minimum rows and expectations. Quarantining expectations are checked first, the others on the rows that go on.

    ``train_only`` marks the columns that only training rows have, such as the target: a batch to score needs none of
    them, what is expected of them is left out there, and a model that reads one is refused (:meth:`for_scoring`).
    """

    min_rows: int = Field(
        default=1, ge=1, description="Fewer rows, after quarantine, fail. An empty window always does."
    )
    max_quarantined_share: float | None = Field(
        default=None, ge=0, le=1, description="More rows set aside than this share fail; None: min_rows alone decides."
    )
    train_only: tuple[Column, ...] = Field(
        default=(), description="Columns that only training rows have: batches are scored without, no model reads one."
    )
    expectations: tuple[ExpectationSpec, ...]
    notes: str | None = Field(default=None, description="For people.")

    _places: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _some_and_none_twice(self) -> Self:
        if not self.expectations:
            raise ValueError(
                "expectations is empty: a contract that expects nothing passes anything; write at least one"
            )
        seen: dict[str, int] = {}
        for number, item in enumerate(self.expectations):
            same = digest_of([item.type, item.kwargs])
            if same in seen:
                raise ValueError(
                    f"expectations[{number}] repeats expectations[{seen[same]}] ({item.type}); remove one of them"
                )
            seen[same] = number
        return self

    @field_validator("train_only")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for column in value:
            if value.count(column) > 1:
                raise ValueError(f"{column!r} stands there more than once; remove one of them")
        return value

    @property
    def digest(self) -> str:
        """Return the digest of what the contract asks for; notes and the order of ``train_only`` do not count."""
        asked: dict[str, Any] = {
            "min_rows": self.min_rows,
            "max_quarantined_share": self.max_quarantined_share,
            "expectations": [[item.type, item.kwargs, item.on_failure] for item in self.expectations],
        }
        if self.train_only:  # a contract without keeps the digest that earlier runs recorded
            asked["train_only"] = sorted(self.train_only)
        return digest_of(asked)

    def for_scoring(
        self, columns: Collection[str], *, inputs: Collection[str] | None = None, target: str | None = None
    ) -> tuple[Contract, tuple[str, ...]]:
        """Return what of the contract a batch to score must meet, and the expectations that are left out, in words.

        Left out is what is about a train-only column. An expectation that lists the table's columns stays, without the
        train-only ones the batch does not have. If nothing stays, ``min_rows`` alone is asked for.

        :param columns: the batch's columns.
        :param inputs: the columns the model reads; None: they are not known, and not checked.
        :param target: the model's target, which counts as train-only whether it is marked or not.
        :raises ModelRefusedError: the model reads a train-only column.
        """
        train_only = dict.fromkeys((*self.train_only, *([target] if target else [])))
        if read := [column for column in train_only if inputs is not None and column in inputs]:
            raise ModelRefusedError(
                f"The model reads {', '.join(map(repr, read))}, which only training has: the contract's train_only "
                f"names it, or it is the target. A batch to score comes without such a column, and a model that "
                f"learned from one may have been told the answer. Train without it (train.features); or, if every "
                f"batch does have it when it is scored, remove it from train_only."
            )
        absent = {column for column in train_only if column not in columns}
        kept: list[int] = []
        shortened: list[ExpectationSpec] = []
        left_out: list[str] = []
        for number, item in enumerate(self.expectations):
            about = [column for column in train_only if item.touches(column)]
            shorter = _without(item, absent) if item.type in _LISTS else None
            if shorter is not None or not about:
                kept.append(number)
                shortened.append(shorter or item)
            else:
                left_out.append(f"{item.type}({', '.join(about)})")
        contract = self.model_copy(update={"expectations": tuple(shortened)})
        contract._places = tuple(self._places[number] for number in kept) if self._places else ()
        return contract, tuple(left_out)

    def place(self, number: int) -> str:
        """Return where expectation ``number`` stands, for messages: file, line and type where they are known."""
        where = self._places[number] if self._places else f"contract, expectations[{number}]"
        return f"{where} ({self.expectations[number].type})"


def _without(item: ExpectationSpec, absent: Collection[str]) -> ExpectationSpec | None:
    """Return an expectation that lists columns without those; None where none is left."""
    key = _LISTS[item.type]
    listed = item.kwargs.get(key)
    if not isinstance(listed, list):
        return item
    left = [column for column in listed if column not in absent]
    return item.model_copy(update={"kwargs": {**item.kwargs, key: left}}) if left else None


def _in_condition(column: str, condition: JsonValue) -> bool:
    """Say whether a condition, text or Great Expectations' own objects as JSON, is about a column."""
    if condition is None:
        return False
    if not isinstance(condition, str):
        return json.dumps(column) in json.dumps(condition)
    if any(column in (quoted, ticked) for _, quoted, ticked in _NAMED_IN_CONDITION.findall(condition)):
        return True
    bare = _QUOTED.sub(" ", _NAMED_IN_CONDITION.sub(" ", condition))
    return re.search(rf"(?<![\w.]){re.escape(column)}(?!\w)", bare) is not None


def load_contract(source: str | Path | Mapping[str, Any] | Contract) -> Contract:
    """Return the contract in a YAML or JSON file, or in a mapping that holds the same keys.

    Whether an expectation of that name exists is known only to Great Expectations, so it is checked when the contract
    is used: reading one imports nothing heavy.

    :raises InvalidSpecError: it cannot be read or is not valid; each mistake is named with file, line and key.
    """
    if isinstance(source, Contract):
        return source
    if isinstance(source, Mapping):
        return _checked(source, "contract", lambda location: None)
    data, line_of = load_yaml(source)
    if not isinstance(data, Mapping):
        raise InvalidSpecError(
            f"{source}: a contract is a mapping with `min_rows:` and `expectations:`; this file holds "
            f"{'nothing' if data is None else type(data).__name__}."
        )
    return _checked(data, str(source), line_of)


def _checked(data: Mapping[str, Any], name: str, line_of: Callable[[Sequence[Any]], int | None]) -> Contract:
    def at(location: Sequence[Any]) -> str:
        line = line_of(location)
        return name if line is None else f"{name}, line {line}"

    try:
        contract = Contract.model_validate(data)
    except ValidationError as exc:
        raise InvalidSpecError("\n".join(f"{at(e['loc'])}: {_sentence(e)}" for e in exc.errors())) from exc
    contract._places = tuple(
        f"{name}, expectations[{number}]" if line_of(()) is None else at(("expectations", number))
        for number in range(len(contract.expectations))
    )
    return contract


def _sentence(error: Any) -> str:
    location = tuple(error["loc"])
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        known = sorted(_fields_of(location))
        close = get_close_matches(str(location[-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"{key} is not a key here.{hint} Known keys: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{key} is missing; add it."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    if error["type"] == "value_error":
        return f"{key}: {message}." if key else f"{message}."
    shown = repr(error["input"])
    return f"{key}: {message} (got {shown if len(shown) <= 80 else shown[:79] + '…'})."


def _fields_of(location: tuple[Any, ...]) -> set[str]:
    inside = len(location) > 1 and location[0] == "expectations"
    return set((ExpectationSpec if inside else Contract).model_fields)
