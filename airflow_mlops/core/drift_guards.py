"""What must hold before two profiles are compared: columns, types, missing values, rows.

Types are compared by family (number, text, bool, time), not by width: int32 and int64, float32 and float64, date and
timestamp are no change. Whole numbers that became floats are no change either as long as every value is still whole,
because pandas and most writers store a whole-number column as floats as soon as one value is missing; with a fraction
among them it is one. Floats that became whole numbers are none, because in CSV a window without a fraction reads so.
Text whose numbers are written anew, ``1`` as ``1.0``, is a changed type and no drift: a writer turned numbers to text
by way of floats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from airflow_mlops.core.monitoring_records import DriftVerdict, SchemaFinding
from airflow_mlops.core.record import Window

#: From this share of the rows on, respelled numbers are a changed type.
RESPELLED_SHARE = 0.01

Family = Literal["number", "text", "bool", "time", "null", "other"]


class GuardSettings(Protocol):
    """What of a specification the guards depend on."""

    @property
    def min_rows(self) -> int:
        """Return the fewest rows that can be judged."""

    @property
    def min_volume_ratio(self) -> float | None:
        """Return the least share of the reference's rows per day; None: not looked at."""

    @property
    def max_missing_increase(self) -> float:
        """Return by how much a missing share may rise."""

    @property
    def extra_columns(self) -> Literal["ignore", "schema_broken"]:
        """Return what a column that the reference does not have means."""


class Guards:
    """The guards of one window.

    :param notes: what could not be looked at, in sentences; filled by :meth:`findings`.
    """

    def __init__(
        self,
        reference: Mapping[str, Any],
        current: Mapping[str, Any],
        settings: GuardSettings,
        columns: Sequence[str],
        known: Collection[str],
        reference_window: Window | None,
        current_window: Window | None,
    ) -> None:
        self.reference = reference
        self.current = current
        self.settings = settings
        self.columns = columns
        self.known = known
        self.windows = (reference_window or _window(reference), current_window or _window(current))
        self.rows = int(current["row_count"])
        self._available: Mapping[str, str] = current.get("available") or {}
        self.notes: list[str] = []
        self._unusable: dict[str, str] = {}

    def findings(self) -> tuple[list[SchemaFinding], DriftVerdict | None]:
        """Return what was seen, the cause of the verdict first, and the verdict; None: the columns may speak."""
        if self.rows == 0:
            return [SchemaFinding(kind="empty", sentence="The window has no row, so nothing can be said about it.")], (
                "insufficient"
            )
        few = self._few()
        schema = [*self._missing(), *self._types(), *self._extra()]
        rates = self._rates()
        if schema:
            return [*schema, *rates, *few], "schema_broken"
        if few:
            return [*few, *rates], "insufficient"
        return rates, "schema_broken" if rates else None

    def unusable(self, column: str) -> str | None:
        """Return why a column cannot be compared; None where it can. Call :meth:`findings` first."""
        if column in self._unusable:
            return self._unusable[column]
        if column not in self.reference["columns"]:
            if column in self.reference.get("excluded", ()):
                return f"{column!r} was left out of the reference profile (id or personal data)"
            return f"the reference profile does not have {column!r}, so it cannot be compared"
        return None

    def _few(self) -> list[SchemaFinding]:
        found = []
        if self.rows < self.settings.min_rows:
            found.append(
                SchemaFinding(
                    kind="too_few_rows",
                    sentence=f"The window has {self.rows:,} rows; from {self.settings.min_rows:,} on it is judged.",
                )
            )
        ratio = self.settings.min_volume_ratio
        if ratio is None:
            return found
        before, now = self.windows
        if before is None or now is None or not self.reference["row_count"]:
            side = "the window's" if before is not None and self.reference["row_count"] else "the reference's"
            sentence = (
                f"Rows per day cannot be compared (drift.min_volume_ratio), because {side} span of time is not known. "
                f"Name data.event_time, or leave min_volume_ratio out."
            )
            return [*found, SchemaFinding(kind="volume", sentence=sentence)]
        expected, seen = self.reference["row_count"] / _days(before), self.rows / _days(now)
        if seen < ratio * expected:
            sentence = (
                f"The window has {seen:,.1f} rows a day where the reference has {expected:,.1f}; less than "
                f"{ratio:.0%} of that is not judged."
            )
            found.append(SchemaFinding(kind="volume", sentence=sentence))
        return found

    def _missing(self) -> list[SchemaFinding]:
        found = []
        for name in self.columns:
            if name in self.current["columns"] or name in self._available:
                continue
            sentence = f"The column {name!r} is not in the window."
            found.append(self._finding("missing_column", name, sentence))
        return found

    def _types(self) -> list[SchemaFinding]:
        found = []
        for name, before, now in self._both():
            change = _type_change(before, now) or _respelled(before, now, self.rows)
            if change is not None:
                sentence = f"The column {name!r} changed its type: {change}."
                found.append(self._finding("type_changed", name, sentence))
        return found

    def _extra(self) -> list[SchemaFinding]:
        if self.settings.extra_columns == "ignore":
            return []
        before = self.reference.get("available")
        if before is None:
            self.notes.append(
                "The reference profile does not say which columns its data had, so extra columns were not looked for."
            )
            return []
        expected = {*before, *self.reference["columns"], *self.reference.get("excluded", ()), *self.known}
        return [
            SchemaFinding(
                kind="extra_column",
                column=name,
                sentence=f"The window has a column {name!r} that the reference does not have.",
            )
            for name in self._available
            if name not in expected
        ]

    def _rates(self) -> list[SchemaFinding]:
        found = []
        for name, before, now in self._both():
            was, is_now = before["missing_share"], now["missing_share"]
            if is_now == 1.0 and was < 1.0:
                sentence = f"The column {name!r} has no value in any of {self.rows:,} rows; of the reference's "
                found.append(self._finding("all_null", name, f"{sentence}rows {was:.1%} had none."))
            elif is_now - was > self.settings.max_missing_increase:
                found.append(
                    SchemaFinding(
                        kind="mostly_null",
                        column=name,
                        sentence=(
                            f"The column {name!r} is missing in {is_now:.1%} of {self.rows:,} rows, and in {was:.1%} "
                            f"of the reference's; a rise of more than {self.settings.max_missing_increase:.0%} is a "
                            f"broken feed."
                        ),
                    )
                )
        return found

    def _both(self) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        before, now = self.reference["columns"], self.current["columns"]
        return [(name, before[name], now[name]) for name in self.columns if name in before and name in now]

    def _finding(
        self, kind: Literal["missing_column", "type_changed", "all_null"], name: str, said: str
    ) -> SchemaFinding:
        self._unusable[name] = said
        return SchemaFinding(kind=kind, column=name, sentence=said)


def family(type_name: str) -> Family:
    """Return the family of an Arrow type by its name, ``timestamp[us, tz=UTC]`` for example."""
    name = type_name.strip()
    if name.startswith("dictionary<values="):
        name = name.removeprefix("dictionary<values=")
    if name.startswith(("int", "uint", "float", "double", "halffloat", "half_float", "decimal")):
        return "number"
    if name.startswith(("string", "large_string")):
        return "text"
    if name.startswith(("timestamp", "date32", "date64")):
        return "time"
    return {"bool": "bool", "null": "null"}.get(name, "other")  # type: ignore[return-value]  # literals above


def _type_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    was, is_now = before.get("type"), now.get("type")
    if was is None or is_now is None:  # profile/1 has kinds only
        if before["kind"] == now["kind"] or now["missing_share"] == 1.0:
            return None
        return f"it was {before['kind']} and is {now['kind']}"
    old, new = family(was), family(is_now)
    if "null" in (old, new):  # no value, no type: the missing share says the rest
        return None
    if old != new:
        return f"it was {was} and is {is_now}"
    if old == "number" and _is_whole_type(was) and not _is_whole_type(is_now) and now.get("whole") is False:
        return f"it was {was}, and is {is_now} with fractions"
    return None


def _is_whole_type(name: str) -> bool:
    return name.removeprefix("dictionary<values=").startswith(("int", "uint"))


def _respelled(before: Mapping[str, Any], now: Mapping[str, Any], rows: int) -> str | None:
    """Say that numbers in text are written in another way than the reference's, ``1`` as ``1.0``."""
    if before["kind"] != "categorical" or now["kind"] != "categorical" or not rows:
        return None
    spelled: dict[float | str, str] = {}
    for value in before["categories"]:
        meant = _meant(value)
        if meant is not None:
            spelled.setdefault(meant, value)
    changed = {
        value: count
        for value, count in now["categories"].items()
        if value not in before["categories"] and _meant(value) in spelled
    }
    if sum(changed.values()) < RESPELLED_SHARE * rows or not changed:
        return None
    example = max(changed, key=lambda value: (changed[value], value))
    before_it = next(word for meant, word in spelled.items() if meant == _meant(example))
    return f"{sum(changed.values()):,} rows write {example!r} or alike where the reference has {before_it!r}"


def _meant(value: str) -> float | str | None:
    text = value.strip().lower()
    if text in ("true", "false"):
        return text
    try:
        return float(text)
    except ValueError:
        return None


def _window(profile: Mapping[str, Any]) -> Window | None:
    ends = profile.get("window")
    return Window(start=datetime.fromisoformat(ends[0]), end=datetime.fromisoformat(ends[1])) if ends else None


def _days(window: Window) -> float:
    return (window.end - window.start).total_seconds() / 86_400
