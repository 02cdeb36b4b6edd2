"""What every record is: frozen values of JSON's types, the half-open window, and the way through XCom.

A record holds identifiers, digests, small numbers and URIs; anything larger is an artifact and the record holds its
URI. :meth:`Record.to_xcom` gives a plain JSON object with a ``schema`` version, because Airflow refuses to read back
classes that are not its own, and refuses NaN; so a number that is not finite is ``None`` in a record and the reason
stands beside it in ``notes``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from airflow_mlops.errors import InvalidSpecError, RecordTooLargeError

MAX_RECORD_BYTES = 16_000


def finite(value: float | None) -> float | None:
    """Return ``value`` as a float, or None where it is missing, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


class Frozen(BaseModel):
    """A value: immutable, no infinities, and tolerant of keys that a newer version added."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Window(Frozen):
    """A half-open span of event time, ``[start, end)``, in UTC.

    :param start: first instant that belongs to the window; a naive time is taken as UTC.
    :param end: first instant after it; later than ``start``.
    """

    start: datetime
    end: datetime

    @field_validator("start", "end", mode="before")
    @classmethod
    def _no_bare_number(cls, value: Any) -> Any:
        # 2013 would be taken as seconds since 1970.
        if isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdigit()):
            raise ValueError(f"{value!r} is a number; write a time such as 2013-01-01")
        return value

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"a window ends after it starts; this one is {self}")
        return self

    def __str__(self) -> str:
        return f"[{_short(self.start)}, {_short(self.end)})"

    def overlaps(self, other: Window) -> bool:
        """Say whether any instant belongs to both windows."""
        return self.start < other.end and other.start < self.end


def _short(moment: datetime) -> str:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for ending in (".000000Z", ":00", ":00", "T00"):
        if text.endswith(ending):
            text = text.removesuffix(ending)
        else:
            break
    return text if "T" not in text else moment.isoformat().replace("+00:00", "Z")


class Record(Frozen):
    """Base of what a task hands on. Subclasses name their schema: ``class X(Record, schema="x/1")``."""

    schema_name: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, schema: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if schema:
            cls.schema_name = schema

    def __init_subclass__(cls, schema: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @property
    def is_failure(self) -> bool:
        """Say whether this outcome fails its task: a person has to mend something before the run can go on."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _same_schema(cls, value: Any) -> Any:
        schema = value.get("schema") if isinstance(value, Mapping) else None
        if schema is not None and schema != cls.schema_name:
            raise ValueError(f"{cls.__name__} has schema {cls.schema_name!r}, this record has {schema!r}")
        return value

    def to_xcom(self) -> dict[str, Any]:
        """Return a plain JSON object.

        :raises RecordTooLargeError: the object is larger than 16 kB as JSON; the message names its largest field.
        """
        payload = {"schema": self.schema_name, **self.model_dump(mode="json")}
        size = len(json.dumps(payload, allow_nan=False).encode())
        if size > MAX_RECORD_BYTES:
            largest = max(payload, key=lambda key: len(json.dumps(payload[key])))
            raise RecordTooLargeError(
                f"{type(self).__name__} takes {size} bytes, more than the {MAX_RECORD_BYTES} that XCom may carry; its "
                f"largest field is {largest!r}. Write that to the artifact store and put its URI into the record."
            )
        return payload

    @classmethod
    def from_xcom(cls, payload: Mapping[str, Any] | Self) -> Self:
        """Rebuild the record from :meth:`to_xcom`'s object. Unknown keys are ignored; missing ones are an error.

        :raises InvalidSpecError: the payload is not an object of this schema.
        """
        if isinstance(payload, cls):
            return payload
        if not isinstance(payload, Mapping):
            raise InvalidSpecError(
                f"{cls.__name__} was expected, a JSON object with schema {cls.schema_name!r}; got "
                f"{type(payload).__name__} {str(payload)[:80]!r}. Pass the upstream operator's `.output`."
            )
        try:
            return cls.model_validate(payload)
        except ValidationError as exc:
            places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()[:5])
            raise InvalidSpecError(
                f"This is not a {cls.__name__} of schema {cls.schema_name!r}: {places}. "
                f"Check which task's output is passed here."
            ) from exc
