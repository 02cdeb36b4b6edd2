"""The sensor that waits for data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_mlops.core.records import Window
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.sensors.base import WaitingSensor
from airflow_mlops.spec.data import DataSpec

if TYPE_CHECKING:
    from airflow_mlops.triggers.data import DataArrivalTrigger

ModelT = TypeVar("ModelT", bound=BaseModel)


class DataArrivalSensor(WaitingSensor):
    """Wait until the data of a window is there and has not changed for a while; return a ``DataArrival``.

    A folder that is missing, empty or still growing is waited for, and each look says what it sees. Refused
    credentials, a bucket that does not exist, a table format, and files that came to rest but cannot be read fail the
    task at once.

    What is looked at: names, sizes and change times; of Parquet also each footer's time range. Rows are not read, so
    the snapshot that follows may find none. Rest is told from the change times by the worker's clock, so it needs no
    memory and works in ``mode="reschedule"``; a source that tells no times is watched for ``settle_minutes`` instead,
    which in that mode keeps the worker for so long once something is there.

    Each look lists all that ``data.uri`` names. Footers are read once while the sensor stays in one process, and at
    every look of a rescheduled one: with very many files name fewer, for example by a template in the URI.

    :param data: the keys of ``DataSpec``: ``uri``, ``format``, ``conn_id``, ``event_time`` ...
    :param window: ``{"start": ISO, "end": ISO}``, half-open in UTC; None, or no ``event_time``: any data.
    :param settle_minutes: unchanged for this long counts as arrived. A writer that pauses longer is taken for done.
    :param select: how a file is told to be of the window. ``statistics``: by its Parquet footer; ``folders``: by the
        time in its folders' names, such as ``dt=2013-03-01`` or ``year=2013/month=3``; ``anything``: every file is.
        ``auto``: Parquet by statistics, CSV by folders (a file in no such folder counts for any window).
    :param every: a length such as ``1 day``: every piece of the window so long must be touched by a file, so that a
        month of daily files is not complete with the first. None: one file is enough.
    """

    template_fields: Sequence[str] = ("data", "window", "settle_minutes", "select", "every")

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        window: Any = None,
        settle_minutes: float | str = 5.0,
        select: str = "auto",
        every: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.window = window
        self.settle_minutes = settle_minutes
        self.select = select
        self.every = every

    def trigger_type(self) -> type[DataArrivalTrigger]:
        """Return the trigger that looks at the same data."""
        from airflow_mlops.triggers.data import DataArrivalTrigger

        return DataArrivalTrigger

    def question(self) -> dict[str, Any]:
        """Return where the data is, which is meant, and how long it must rest."""
        window = self.window if self.window not in (None, "", "None") else None
        return {
            "data": _checked(DataSpec, self.data, "data").model_dump(mode="json", exclude_defaults=True),
            "window": None if window is None else _checked(Window, window, "window").model_dump(mode="json"),
            "settle_minutes": self._minutes(),
            "select": self.select,
            "every": self.every or None,
            "holds": self.reschedule and not self.deferrable,
        }

    def _minutes(self) -> float:
        try:
            minutes = float(self.settle_minutes)
            if 0 <= minutes < float("inf"):
                return minutes
        except (TypeError, ValueError):
            pass
        raise InvalidSpecError(f"settle_minutes is {self.settle_minutes!r}; it must be a number, 0 or more.")


def _checked(kind: type[ModelT], value: Any, name: str) -> ModelT:
    try:
        return kind.model_validate(value)
    except ValidationError as exc:
        places = "; ".join(f"{'.'.join(map(str, (name, *e['loc'])))}: {e['msg']}" for e in exc.errors())
        raise InvalidSpecError(f"The sensor cannot use what it was given. {places}.") from exc
