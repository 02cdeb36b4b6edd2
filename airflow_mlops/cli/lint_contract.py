"""What lint sees in a contract's expectations without importing Great Expectations, which takes seconds.

Its package holds a file for every expectation of its own, and for nearly every one a JSON Schema of the arguments.
What a schema does not say passes, and so does what its reader would convert. ``lint --import`` asks Great Expectations
itself.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from airflow_mlops.cli.lint_findings import Finding, finding
from airflow_mlops.spec.contract import JUDGES_NO_ROWS, NOT_ARGUMENTS, Contract, ExpectationSpec, unknown_expectation

#: What every expectation takes beside its own arguments.
_OF_ALL = {
    "id", "description", "notes", "rendered_content", "windows", "metadata", *NOT_ARGUMENTS,
}  # fmt: skip
#: Great Expectations offers its class and does not find it by its name.
_UNREGISTERED = {"expect_multicolumn_values_to_be_unique"}
_CLASS = re.compile(r"^class (?:Expect|Unexpected)\w*\(\s*(\w+)", re.MULTILINE)
_JUDGES_ROWS = ("ColumnMapExpectation", "ColumnPairMapExpectation", "MulticolumnMapExpectation")
_JUDGES_AS_A_WHOLE = ("BatchExpectation", "ColumnAggregateExpectation", "QueryExpectation")
_TRUTHS = ("0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes", "0.0", "1.0")


@dataclass(frozen=True)
class Known:
    """An expectation of Great Expectations' own.

    :param schema: of its arguments; None where there is none to read.
    """

    judges_rows: bool | None
    schema: Mapping[str, Any] | None

    @property
    def arguments(self) -> list[str]:
        """Return its own arguments, those that it must have first."""
        schema = self.schema or {}
        own = [key for key in schema.get("properties", ()) if key not in _OF_ALL]
        return sorted(own, key=lambda key: key not in schema.get("required", ()))


def check_expectations(contract: Contract) -> Iterator[Finding]:
    """Yield the expectations that Great Expectations would refuse when the contract is used, where it is installed."""
    names = known_names()
    for number, one in enumerate(contract.expectations if names else ()):
        file, _, line = contract.place(number).rpartition(" (")[0].rpartition(", line ")
        place, key = (file, int(line)), f"expectations[{number}]"
        if one.type not in names:
            yield finding("MLOPS203", place, f"{key}.type", *unknown_expectation(one.type, names))
            continue
        known = _known(one.type)
        if one.on_failure == "quarantine" and known.judges_rows is False:
            said, mend = JUDGES_NO_ROWS
            yield finding("MLOPS202", place, f"{key}.on_failure", f"{one.type}: {said}", mend)
        elif wrong := "; ".join(_wrong_arguments(one, known)):
            mend = f"It takes {', '.join(known.arguments)}."
            yield finding("MLOPS202", place, f"{key}.kwargs", f"{one.type}: {wrong}", mend)


def _core() -> Path | None:
    """Return the folder of Great Expectations' own expectations."""
    try:
        spec = importlib.util.find_spec("great_expectations")  # of a package that stands alone: nothing is imported
    except ValueError:  # something else took its name
        return None
    return Path(spec.origin).parent / "expectations" / "core" if spec and spec.origin else None


@cache
def known_names() -> frozenset[str]:
    """Return the names of Great Expectations' own expectations; none where it is not installed."""
    core = _core()
    try:
        names = frozenset(file.stem for file in core.glob("*expect*.py")) if core else frozenset()
        offered = (core / "__init__.py").read_text(encoding="utf-8") if core and names else ""
    except (OSError, ValueError):
        return frozenset()
    # Some files are left from older versions and lead to nothing.
    return (frozenset(name for name in names if f"{name} " in offered) or names) - _UNREGISTERED


@cache
def _known(name: str) -> Known:
    core = _core()
    if core is None:
        return Known(None, None)
    judges_rows, schema = None, None
    try:
        bases = _CLASS.findall((core / f"{name}.py").read_text(encoding="utf-8"))
        if len(bases) == 1:
            judges_rows = {**dict.fromkeys(_JUDGES_ROWS, True), **dict.fromkeys(_JUDGES_AS_A_WHOLE, False)}.get(
                bases[0]
            )
        # A class may write a word in capitals, so its name is not made from that of the expectation.
        files = (file for file in (core / "schemas").glob("*.json") if file.stem.lower() == name.replace("_", ""))
        if file := next(files, None):
            schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is theirs, not the team's
        pass
    return Known(judges_rows, schema if isinstance(schema, Mapping) else None)


def _wrong_arguments(one: ExpectationSpec, known: Known) -> Iterator[str]:
    if known.schema is None:
        return
    properties = known.schema.get("properties", {})
    for key in known.schema.get("required", ()):
        if one.kwargs.get(key) is None:
            yield f"{key} is missing"
    for key, value in one.kwargs.items():
        if key in properties:
            if misfit := _misfit(value, properties[key], known.schema.get("definitions", {})):
                yield f"{key} {misfit}"
        elif known.schema.get("additionalProperties") is False:
            yield f"{key} is no argument of it"


# Values


def _misfit(value: Any, schema: Any, definitions: Mapping[str, Any]) -> str:
    """Return what a value is not, in words; nothing where it may do."""
    if value is None or not isinstance(schema, Mapping) or (isinstance(value, Mapping) and "$PARAMETER" in value):
        return ""
    if isinstance(named := schema.get("$ref"), str):
        return _misfit(value, definitions.get(named.rpartition("/")[2]), definitions)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        # Which of several lists is meant is not told by their items.
        listed = isinstance(value, list) and value and "oneOf" in schema
        misfits = [
            _misfit(value, {"type": choice.get("type")} if listed else choice, definitions) for choice in choices
        ]
        return misfits[0] if all(misfits) else ""
    kind = _KINDS.get(str(schema.get("type")))
    if kind is None:
        return ""
    if schema.get("minLength") and "maxLength" not in schema and not isinstance(value, str):
        return "is no text"  # a column's name, the one text that nothing is converted to
    fits, words = kind
    if not fits(value):
        return words
    if "enum" in schema and value not in schema["enum"]:
        return f"is none of {', '.join(map(str, schema['enum']))}"
    return _beyond(value, schema) or _wrong_item(value, schema, definitions)


def _beyond(value: Any, schema: Mapping[str, Any]) -> str:
    if schema["type"] in ("number", "integer") and not isinstance(value, int | float):
        value = float(value)
    if schema["type"] in ("number", "integer"):
        if value < schema.get("minimum", value):
            return f"is below {schema['minimum']:g}"
        if value > schema.get("maximum", value):
            return f"is above {schema['maximum']:g}"
        return ""
    length = {"string": "Length", "array": "Items"}.get(schema["type"])
    count = len(value if isinstance(value, list) else str(value))
    if length and count < schema.get(f"min{length}", 0):
        return "is empty" if count == 0 else "is too short"
    if length and count > schema.get(f"max{length}", count):
        return "is too long"
    return ""


def _wrong_item(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    items = schema.get("items") if isinstance(value, list) else None
    for number, item in enumerate(value if items else ()):
        if misfit := _misfit(item, items, definitions):
            return f"[{number}] {misfit}"
    return ""


def _is_number(value: Any) -> bool:
    return _converts(float, value)


def _is_whole(value: Any) -> bool:
    return _converts(int, value)


def _is_mapping(value: Any) -> bool:
    """Say whether it is one, or is taken for one: what is empty, and a list of pairs."""
    pairs = isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value)
    return isinstance(value, dict) or value == "" or pairs


def _converts(kind: type[int] | type[float], value: Any) -> bool:
    if not isinstance(value, int | float | str):
        return False
    try:
        kind(value)
    except (ValueError, OverflowError):
        return False
    return True


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: not isinstance(value, list | dict), "is no text"),
    "number": (_is_number, "is no number"),
    "integer": (_is_whole, "is no whole number"),
    "boolean": (
        lambda value: isinstance(value, int | float | str) and str(value).lower() in _TRUTHS,
        "is not true or false",
    ),
    "array": (lambda value: isinstance(value, list), "is no list"),
    "object": (_is_mapping, "is no mapping"),
}
