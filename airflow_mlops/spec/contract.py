"""The data contract: what a team expects of a window of its data, in Great Expectations' own names and arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, PrivateAttr, ValidationError, field_validator, model_validator

from airflow_mlops.core.keys import digest_of
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import Strict
from airflow_mlops.spec.yaml_lines import load_yaml

OnFailure = Literal["fail", "warn", "quarantine"]
#: Arguments that say how a result is reported. That is ours to decide: reports must hold no rows.
_OURS = ("result_format", "catch_exceptions", "severity", "meta", "batch_id", "row_condition_dialect")


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
        ours = sorted(set(value) & set(_OURS))
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


class Contract(Strict):
    """Minimum rows and expectations. Quarantining expectations are checked first, the others on the rows that go on."""

    min_rows: int = Field(
        default=1, ge=1, description="Fewer rows, after quarantine, fail. An empty window always does."
    )
    max_quarantined_share: float | None = Field(
        default=None, ge=0, le=1, description="More rows set aside than this share fail; None: min_rows alone decides."
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

    @property
    def digest(self) -> str:
        """Return the digest of what the contract asks for; notes do not count."""
        return digest_of(
            {
                "min_rows": self.min_rows,
                "max_quarantined_share": self.max_quarantined_share,
                "expectations": [[item.type, item.kwargs, item.on_failure] for item in self.expectations],
            }
        )

    def place(self, number: int) -> str:
        """Return where expectation ``number`` stands, for messages: file, line and type where they are known."""
        where = self._places[number] if self._places else f"contract, expectations[{number}]"
        return f"{where} ({self.expectations[number].type})"


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
