"""What every sensor of the package shares: where it waits, what ends the wait, and in whose words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_mlops.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_mlops.errors import InvalidSpecError, VerdictError

if TYPE_CHECKING:
    from airflow_mlops.compat import Context
    from airflow_mlops.triggers.base import Answer, Look, PollTrigger, Question

#: How much longer Airflow's own limit of a deferred wait is: the trigger's own comes first and says what it saw last.
GRACE = timedelta(minutes=5)


class WaitingSensor(BaseSensorOperator):
    """Wait for something outside, on the worker or off it, and hand on a record of what was found.

    A verdict (wrong settings, refused credentials, a promotion ledger that needs a person) ends the wait at once and
    without a retry. Something outside that does not answer does not: the sensor asks again until its ``timeout``.

    ``poke_interval`` and ``timeout`` count wherever it waits; ``exponential_backoff`` and ``max_wait`` only on the
    worker. Deferred, ``timeout`` is measured from the task's start.

    :param deferrable: wait in the triggerer, which then needs the libraries too. None: as ``[operators]
        default_deferrable`` says. Without a triggerer leave it off and use ``mode="reschedule"`` for long waits.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#f3effa"
    _question: Question | None = None
    _last_said = ""

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    def trigger_type(self) -> type[PollTrigger]:
        """Return the trigger that waits for the same thing. Subclasses fill it in, and import it here."""
        raise TypeError(f"{type(self).__name__} must define trigger_type()")

    def question(self) -> dict[str, Any]:
        """Return the question's keywords, rendered and checked: JSON values without secrets. Subclasses fill it in.

        :raises InvalidSpecError: a value is not allowed.
        """
        raise TypeError(f"{type(self).__name__} must define question()")

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        try:
            look = self._look()
        except VerdictError as exc:
            raise AirflowFailException(str(exc)) from exc
        return PokeReturnValue(is_done=look.found is not None, xcom_value=look.found)

    def execute(self, context: Context) -> Any:
        """Wait on the worker; or look once there and, if nothing is found yet, wait in the triggerer."""
        if not self.deferrable:
            try:
                return super().execute(context)
            except AirflowSensorTimeout as exc:
                raise AirflowSensorTimeout(f"{exc} {self._last_said}".rstrip()) from exc
        try:
            look = self._look()
        except VerdictError as exc:
            self._end(AirflowFailException(str(exc)), exc)
        if look.found is None:
            self._wait_off_the_worker()
        return look.found

    def _wait_off_the_worker(self) -> None:
        remembered = self._question.memory() if self._question is not None else {}
        self.defer(
            trigger=self.trigger_type()(
                question={**self.question(), **remembered},
                poll_seconds=self.poke_interval,
                ends_at=(datetime.now(UTC) + timedelta(seconds=self.timeout)).isoformat(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + self.poke_interval) + GRACE,
        )

    def execute_complete(self, context: Context, event: Answer | None = None) -> dict[str, Any]:
        """Go on after the wait in the triggerer: return what was found, or end as it ended."""
        if event is None:
            raise RuntimeError("The trigger ended without an answer. Look into the triggerer's log for this task.")
        if event["status"] == "found" and event["found"] is not None:
            self.log.info("%s", event["said"])
            return event["found"]
        if event["status"] == "timeout":
            raise AirflowSensorTimeout(f"Nothing was found within {self.timeout:g} seconds. {event['said']}")
        raise AirflowFailException(event["said"])

    def _look(self) -> Look:
        from airflow_mlops.triggers.base import ask

        if self._question is None:
            self._question = self.trigger_type().question_type(**self.question())
        look = ask(self._question)
        self._last_said = look.said
        self.log.info("%s", look.said)
        return look

    def _end(self, error: Exception, cause: Exception) -> NoReturn:
        """Raise as Airflow's own loop does: a soft failure is a skip."""
        if self.soft_fail or getattr(self, "never_fail", False):
            raise AirflowSkipException(str(error)) from cause
        raise error from cause


def whole_number(value: Any, name: str) -> int | None:
    """Read a number that may have come through a template; None, ``""`` and ``"None"`` are no number.

    :raises InvalidSpecError: it is none of these; the argument is named.
    """
    if value is None or (isinstance(value, str) and value.strip() in ("", "None", "none", "null")):
        return None
    try:
        if isinstance(value, bool) or float(value) != int(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise InvalidSpecError(f"{name} is {value!r}; it must be a whole number, or None for any.") from None
