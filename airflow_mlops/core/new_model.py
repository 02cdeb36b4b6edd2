"""What can be guessed about a new model from its table: task, event time, ids, features and windows.

Every guess comes with the sentence that says it, because a person must be able to object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches

from airflow_mlops.core.inference import DATE, ColumnSeen, TableSeen, holds_labels
from airflow_mlops.core.metrics import Task
from airflow_mlops.core.record import Window
from airflow_mlops.core.windows import MOST_YEARS, Length, Unit
from airflow_mlops.errors import InvalidSpecError

LEAST_ROWS = 20
MOST_LABELS = 200
#: More values than this, and more than half as many as rows: the column names its rows.
_FEW_VALUES = 50
_ID_NAME = re.compile(r"(?:^|_)(?:id|uuid|guid|key)$", re.IGNORECASE)
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,99}$")
_UNITS: tuple[Unit, ...] = ("months", "days", "hours", "minutes")
#: The share of rows to train on: as near to a half as a whole unit of the calendar allows.
_LEAST_SHARE, _MOST_SHARE = 0.3, 0.8
#: Where a history is longer than a training window may be: the share of rows that must lie in it all the same.
_LEAST_LEFT = 0.1


@dataclass(frozen=True)
class Split:
    """The earlier rows to train on, the later ones to evaluate on; ``length`` is what the specification says."""

    train: Window
    evaluate: Window
    length: Length


@dataclass(frozen=True)
class Features:
    """The columns a model gets, and why it does not get the others, in sentences."""

    columns: tuple[ColumnSeen, ...]
    left_out: tuple[str, ...]


def check_name(name: str) -> None:
    """Refuse a name that cannot be a model's, a file's and a Python module's at once.

    :raises InvalidSpecError: with a name that would do.
    """
    if _NAME.match(name):
        return
    near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:100] or "model"
    near = near if near[0].isalpha() else f"m_{near}"[:100]
    raise InvalidSpecError(
        f"--name {name!r}: a model's name is lower-case letters, digits and underscores, begins with a letter and has "
        f"at most 100 of them, because files, modules and DAGs are called by it. {near!r} would do."
    )


def guess_event_time(seen: TableSeen, target: str, where: str) -> str:
    """Return the only column of times.

    :raises InvalidSpecError: there is none, or several; both name what could be meant.
    """
    times = [column.name for column in seen.columns if column.kind == "time" and column.name != target]
    if len(times) == 1:
        return times[0]
    need = "windows are cut by it, so that a model is evaluated on later rows than it was trained on"
    if times:
        raise InvalidSpecError(
            f"{where} has {len(times)} columns of times: {', '.join(map(repr, times))}. Say which one tells when a row "
            f"happened, with --event-time: {need}."
        )
    texts = [column.name for column in seen.columns if column.kind == "text" and column.name != target]
    hint = ""
    if texts:
        near = get_close_matches("event_time", texts, n=1, cutoff=0.3) or texts[:1]
        hint = f" If a text column such as {near[0]!r} holds ISO 8601 times (in CSV), name it with --event-time."
    raise InvalidSpecError(f"{where} has no column of times, and one is needed: {need}.{hint}")


def guess_task(column: ColumnSeen) -> tuple[Task, list[str]]:
    """Return the task that the target's values suggest, and the sentence that says so, as a list."""
    seen = f"{column.name!r} has {column.distinct:,} values" if column.distinct else f"{column.name!r} holds numbers"
    if holds_labels(column):
        task: Task = "binary" if column.distinct == 2 else "multiclass"
        return task, [f"task {task}: {seen}"]
    return "regression", [f"task regression: {seen if column.kind == 'whole' else f'{column.name!r} holds amounts'}"]


def check_target(column: ColumnSeen, task: Task, where: str) -> None:
    """Refuse a target that no model of this task can learn.

    :raises InvalidSpecError: it is empty, of the wrong kind, infinite, or has too few or too many values.
    """
    name = f"The target {column.name!r} of {where}"
    if column.kind == "empty":
        raise InvalidSpecError(f"{name} has no value in any of {column.rows:,} rows. Name another column, or label it.")
    if column.kind in ("time", "other"):
        raise InvalidSpecError(f"{name} holds {column.dtypes[0]}, neither labels nor numbers. Name another column.")
    if column.distinct == 1 or (column.low is not None and column.low == column.high):
        raise InvalidSpecError(
            f"{name} has one value only in {column.filled:,} rows, so there is nothing to learn. Take rows with both "
            f"answers, or name another column."
        )
    if task == "regression":
        if column.kind not in ("whole", "float"):
            raise InvalidSpecError(
                f"{name} holds {column.kind} values; regression needs numbers. Say --task binary or --task multiclass."
            )
        if column.infinite:
            raise InvalidSpecError(f"{name} is infinite in {column.infinite:,} rows. Mend or remove them.")
        return
    distinct = column.distinct or 0
    if task == "binary" and distinct != 2:
        other = "multiclass" if holds_labels(column) else "regression"
        raise InvalidSpecError(
            f"{name} has {distinct:,} values; binary needs two. Say --task {other}, or leave it out."
        )
    if distinct > MOST_LABELS:
        mend = "Say --task regression." if column.kind in ("whole", "float") else "Group them, or name another column."
        raise InvalidSpecError(
            f"{name} has {distinct:,} different values, more than the {MOST_LABELS} labels that are reasonable. {mend}"
        )


def guess_ids(seen: TableSeen, known: Collection[str]) -> list[str]:
    """Return plain columns that name their rows: by their name and variety, or texts that are nearly all different."""
    found = []
    for column in seen.columns:
        distinct = column.distinct or 0
        varied = distinct * 2 > column.filled
        named = column.kind in ("whole", "text") and _ID_NAME.search(column.name) is not None
        if column.name not in known and varied and (named or (column.kind == "text" and distinct > _FEW_VALUES)):
            found.append(column.name)
    return found


def choose_features(seen: TableSeen, train: TableSeen) -> Features:
    """Return the columns that a model can use as they are.

    :param seen: all rows; the columns' roles are read here.
    :param train: the rows to train on.
    """
    chosen, left_out = [], []
    for column in seen.columns:
        if column.role != "plain":
            continue
        trained = train.column(column.name)
        why = None
        if column.kind == "empty" or trained is None or trained.kind == "empty":
            why = "it has no value in the rows to train on"
        elif column.kind == "time":
            why = "it is a time; make a number of it (an age, a weekday) in the data or in the pipeline"
        elif column.kind == "other":
            why = f"it holds {column.dtypes[0]} values that are no numbers, texts or truth values"
        elif column.infinite:
            why = f"it is infinite in {column.infinite:,} rows, which scikit-learn refuses"
        elif (
            column.kind == "text"
            and (column.distinct or 0) > _FEW_VALUES
            and (column.distinct or 0) * 2 > column.filled
        ):
            why = "nearly every row has a text of its own"
        elif column.kind == "text" and column.values and all(DATE.match(value) for value in column.values):
            why = "it holds dates as text, which later rows will not have"
        elif len(column.name) > 300:
            why = "its name has more than 300 characters"
        if why is None:
            chosen.append(column)
        else:
            left_out.append(f"{column.name!r} is no feature: {why}")
    left_out += [f"{name!r} is no feature: it cannot be read whole" for name in seen.unreadable]
    return Features(tuple(chosen), tuple(left_out))


def split(times: Sequence[datetime], share_before: Callable[[datetime], float], where: str) -> Split:
    """Return windows that part the rows about in half, at a whole month, day, hour or minute.

    The training window begins later than the rows where they reach further back than it may be long.

    :param times: first, middle and last row's event time, in UTC.
    :param share_before: the share of rows before a moment.
    :raises InvalidSpecError: all rows lie within one minute, or beyond what a calendar can count; or hardly
        any row to train on is within reach.
    """
    first, middle, last = times
    best: tuple[float, datetime, Unit] | None = None
    try:
        for unit in _UNITS:
            one = Length(count=1, unit=unit)
            near = _floor(middle, unit)
            found = [
                (abs(share_before(moment) - 0.5), moment, unit)
                for moment in (near, one.after(near))
                if _floor(first, unit) < moment <= last
            ]
            fit = [one for one in found if _LEAST_SHARE <= share_before(one[1]) <= _MOST_SHARE]
            best = min([*([best] if best else []), *found], key=lambda one: one[0], default=None)
            if fit:
                best = min(fit, key=lambda one: one[0])
                break
        if best is None:
            raise InvalidSpecError(
                f"All rows of {where} lie between {first.isoformat()} and {last.isoformat()}, within one minute: there "
                f"is no later part to evaluate on. Check --event-time, or give a table that spans more time."
            )
        _, moment, unit = best
        start = _floor(first, unit)
        end = Length(count=1, unit=unit).after(_floor(last, unit))
    except (OverflowError, ValueError) as exc:
        if isinstance(exc, InvalidSpecError):
            raise
        raise InvalidSpecError(
            f"The event times of {where} reach from {first.isoformat()} to {last.isoformat()}, beyond what a calendar "
            f"counts. Mend such placeholders for `unknown` or `never` where the file is made."
        ) from exc
    length = Length(count=_units(start, moment, unit), unit=unit)
    if length.is_too_long:
        start = _floor(Length(count=MOST_YEARS, unit="years").before(moment), unit)
        length = Length(count=_units(start, moment, unit), unit=unit)
        if share_before(moment) - share_before(start) < _LEAST_LEFT:
            raise InvalidSpecError(
                f"The earlier half of {where} reaches from {first.isoformat()} to {moment.isoformat()}, and nearly all "
                f"of it is older than a training window may be, {MOST_YEARS} years long. Mend placeholders for "
                f"`unknown` or `never` where the file is made, or leave the oldest rows out."
            )
    return Split(Window(start=start, end=moment), Window(start=moment, end=end), length)


def _floor(moment: datetime, unit: Unit) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "months":
        return day.replace(day=1)
    if unit == "days":
        return day
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if unit == "hours" else moment.replace(second=0, microsecond=0)


def _units(start: datetime, end: datetime, unit: Unit) -> int:
    if unit == "months":
        return (end.year - start.year) * 12 + end.month - start.month
    seconds = {"days": 86_400, "hours": 3_600, "minutes": 60}[unit]
    return (end - start) // timedelta(seconds=seconds)
