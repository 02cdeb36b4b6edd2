"""Windows: lengths a person writes, and the windows of one run derived from its anchor.

A run has one anchor window. The candidate is evaluated on the anchor and trained on the ``length`` that ends ``gap``
before the anchor starts. Nothing here reads the clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from dateutil.relativedelta import relativedelta
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from airflow_mlops.core.records import Window
from airflow_mlops.errors import InvalidSpecError, LeakageError

Unit = Literal["minutes", "hours", "days", "weeks", "months", "years"]
#: What is longer than this is a slip, and windows of thousands of years overflow the clocks of other libraries.
MOST_YEARS = 100
MOST_HOURS = MOST_YEARS * 8_766
_MOST: dict[Unit, int] = {
    "minutes": MOST_HOURS * 60,
    "hours": MOST_HOURS,
    "days": MOST_HOURS // 24,
    "weeks": MOST_HOURS // (24 * 7),
    "months": MOST_YEARS * 12,
    "years": MOST_YEARS,
}
_WRITTEN = re.compile(r"^\s*(\d+)\s*(minute|hour|day|week|month|year)s?\s*$", re.IGNORECASE)


class Length(BaseModel):
    """A calendar length such as ``2 months``: months and years follow the calendar, the rest the clock."""

    model_config = ConfigDict(frozen=True)

    count: int = Field(ge=0)
    unit: Unit

    @classmethod
    def parse(cls, value: Any) -> Length:
        """Read ``"2 months"``.

        :raises ValueError: it is not a whole number and one of minute, hour, day, week, month, year; or it is longer
            than :data:`MOST_YEARS` years.
        """
        match = _WRITTEN.match(value) if isinstance(value, str) else None
        try:
            found = cls.model_validate({"count": match[1], "unit": f"{match[2].lower()}s"} if match else value)
        except ValidationError as exc:
            raise ValueError(
                f"{value!r} is not a length; write a whole number and a unit, such as '2 months', '30 days' or "
                f"'0 days' (units: minutes, hours, days, weeks, months, years)"
            ) from exc
        if found.is_too_long:
            raise ValueError(f"'{found}' is longer than {MOST_YEARS} years; write a shorter one, such as '2 months'")
        return found

    @property
    def is_too_long(self) -> bool:
        """Say whether it is longer than :data:`MOST_YEARS` years."""
        return self.count > _MOST[self.unit]

    def before(self, moment: datetime) -> datetime:
        """Return the instant this much before ``moment``."""
        return moment - relativedelta(**{self.unit: self.count})  # type: ignore[arg-type]  # the stub wants literal keywords

    def after(self, moment: datetime) -> datetime:
        """Return the instant this much after ``moment``."""
        return moment + relativedelta(**{self.unit: self.count})  # type: ignore[arg-type]  # the stub wants literal keywords

    def __str__(self) -> str:
        return f"{self.count} {self.unit if self.count != 1 else self.unit.removesuffix('s')}"


WrittenLength = Annotated[Length, BeforeValidator(Length.parse)]


def parse_length(value: Any, where: str) -> Length:
    """Read a length that came with a run, naming the place when it is wrong."""
    try:
        return Length.parse(value)
    except ValueError as exc:
        raise InvalidSpecError(f"{where}: {exc}.") from exc


def parse_window(start: Any, end: Any, where: str) -> Window:
    """Read the two ends of a window that came with a run, naming the place when they are wrong."""
    try:
        return Window(start=start, end=end)
    except ValueError as exc:
        raise InvalidSpecError(
            f"{where}: start {start!r} and end {end!r} are not a window: use two ISO times, start before end, such as "
            f"2013-03-01 and 2013-04-01 (the end is not included)."
        ) from exc


def training_window(anchor: Window, *, length: Length, gap: Length) -> Window:
    """Return the window to train on: ``length`` long, ending ``gap`` before the anchor.

    :raises LeakageError: the length is zero.
    """
    if length.count == 0:
        raise LeakageError("The training window has no length. Set train.window.length to '1 month', for example.")
    end = gap.before(anchor.start)
    return Window(start=length.before(end), end=end)


def partition_window(key: str) -> Window | None:
    """Return the window a time partition's key names (``2013``, ``2013-03``, ``2013-03-01``, ``2013-03-01T05``).

    :return: None where the key is no time of one of these forms.
    """
    for form, unit in (("%Y", "years"), ("%Y-%m", "months"), ("%Y-%m-%d", "days"), ("%Y-%m-%dT%H", "hours")):
        try:
            start = datetime.strptime(key, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return Window(start=start, end=Length(count=1, unit=unit).after(start))  # type: ignore[arg-type]  # literals above
    return None


def require_apart(train: Window, evaluate: Window) -> None:
    """Refuse windows that share an instant.

    :raises LeakageError: they overlap; the message shows both.
    """
    if train.overlaps(evaluate):
        raise LeakageError(
            f"The training window {train} and the evaluation window {evaluate} overlap, so the model would be "
            f"evaluated on rows it has seen. Move one of them, or set train.window.gap."
        )


def without(window: Window, seen: Window) -> Window | None:
    """Return what is left of ``window`` after ``seen`` is cut away from one end, or None when nothing is left.

    Where ``seen`` lies strictly inside, the later part is kept: it is the newer evidence.
    """
    if not window.overlaps(seen):
        return window
    if seen.end < window.end:
        return Window(start=seen.end, end=window.end)
    if window.start < seen.start:
        return Window(start=window.start, end=seen.start)
    return None
