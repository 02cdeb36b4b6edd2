"""The operator that asks a person whether a candidate may become champion."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow_mlops import compat
from airflow_mlops.compat import AirflowFailException, AirflowSkipException, Param, PokeReturnValue
from airflow_mlops.core.keys import TaskKey
from airflow_mlops.core.records import Approval, ModelVersionRef
from airflow_mlops.errors import InvalidSpecError, OutageError, VerdictError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.links import ModelVersionLink, ReportLink

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.compat import Context
    from airflow_mlops.engines.approvals import Answer

APPROVE, REJECT = "Approve", "Reject"
POKE_SECONDS = 60.0
MAX_HOURS = 10 * 365 * 24
#: How long to wait before writing down once more what a person answered, while MLflow does not. A try that fails asks
#: again, so it must not fail lightly.
PATIENCE_SECONDS = (5.0, 15.0, 30.0, 60.0, 120.0, 240.0)


def _base() -> Any:
    """Return what waits: Airflow's own question to a person where there is one (3.1 and later), else a sensor."""
    if compat.AIRFLOW_VERSION.release >= (3, 1):
        try:
            return compat.HITLOperator
        except ImportError:  # the standard provider is too old or missing
            pass
    return compat.BaseSensorOperator


if TYPE_CHECKING:
    _Base = Any
else:
    _Base = _base()
#: Whether Airflow asks. If not, the task looks every minute for an answer from the command line.
AIRFLOW_ASKS = hasattr(_Base, "execute_complete")
#: Which attribute bounds the wait: older standard providers take the execution time-out for it.
_BOUND = "response_timeout" if "response_timeout" in signature(_Base.__init__).parameters else "execution_timeout"


class ApproveModelOperator(_Base):
    """Wait until a person approves or rejects a candidate whose gate verdict is ``needs_approval``.

    It stands between ``RegisterModelOperator`` and ``PromoteModelOperator``, which takes its output as ``approval``.
    For any other verdict it ends at once. On Airflow 3.1 and later the question stands on the page of required actions,
    with a button to approve and one to reject, both with the version's number, and a field for the reason.
    ``airflow-mlops promote NAME VERSION --approve`` (or ``--reject``) answers it on every version of Airflow, and is
    the only way before 3.1.

    Airflow keeps the first question of a task, also when the task is cleared and asks about another version. An answer
    to such an old question is not recorded: the task fails and names the commands that answer.

    The answer goes into the promotion ledger, and the first one holds. A rejection or a time-out is a hold: the task is
    skipped, and so is what depends on it. Cleared after a decision, the task returns that decision without asking;
    cleared after a time-out, it asks again.

    :param version: a ``ModelVersionRef``.
    :param alias: the alias the candidate would get.
    :param timeout_hours: how long to wait for an answer.
    :param assignees: ids of the Airflow users who may answer on Airflow's page; none: whoever may edit the run.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("version", "alias", "timeout_hours", "assignees", "mlflow_conn_id")
    operator_extra_links = (ModelVersionLink(), ReportLink())
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        version: Any,
        alias: str = "champion",
        timeout_hours: float | str = 72.0,
        assignees: Sequence[str] | str = (),
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        if AIRFLOW_ASKS:
            # Subject, options, body and time are known when the task runs; Airflow wants something of each here.
            kwargs |= {
                "subject": "May this candidate become champion?",
                "options": [APPROVE, REJECT],
                "defaults": REJECT,
                "params": {"reason": _reason_field()},
                _BOUND: timedelta(days=1),
            }
        else:
            kwargs |= {"mode": "reschedule", "poke_interval": POKE_SECONDS}
        super().__init__(**kwargs)
        self.version = version
        self.alias = alias
        self.timeout_hours = timeout_hours
        self.assignees = assignees
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> Any:
        """Return the decision, or the word that none is needed; else ask, and wait off the worker."""
        with _verdicts_do_not_retry():
            hours = _hours(self.timeout_hours)
            if not AIRFLOW_ASKS:
                self.timeout = hours * 3600 + 86_400  # a last resort: poke() ends the wait by the clock in MLflow
                return super().execute(context)
            version = ModelVersionRef.from_xcom(self.version)
            self._show_links(version, context)
            if (known := self._known(version)) is not None:
                return self._finish(known, context)
            until = self._ask(version, context, hours)
            self.options = _options(version)
            self.defaults = self.options[1:]
            self.subject = f"May version {version.version} of {version.name} become {self.alias}?"
            self.body = self._describe(version, until)
            self.assigned_users = [{"id": name, "name": name} for name in _names(self.assignees)] or None
            bound = max(until - datetime.now(UTC), timedelta(seconds=1))
            setattr(self, _BOUND, bound)
            return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after an answer on Airflow's page, or after the time-out."""
        from airflow_mlops.engines.approvals import Answer, record_approval, time_out

        with _verdicts_do_not_retry():
            version = ModelVersionRef.from_xcom(self.version)
            user = event.get("responded_by_user")
            if "error" in event and event.get("error_type") != "timeout":
                self.process_trigger_event_error(event)
            # At the time-out Airflow answers with the default; only the missing user tells that from a rejection.
            if "error" in event or event.get("timedout") or not user:
                hours = _hours(self.timeout_hours)
                with self._client() as client:
                    record = time_out(client, version, self.alias, hours=hours)
                return self._finish(record, context)
            self.options = _options(version)
            chosen = list(event["chosen_options"])
            if len(chosen) != 1 or chosen[0] not in self.options:
                return self._not_of_this(version, chosen, context)
            answer = Answer(
                said="approve" if chosen[0] == self.options[0] else "reject",
                author=_user_name(user),
                reason=str((event.get("params_input") or {}).get("reason") or ""),
                via=f"airflow:{_task(context)}",
            )
            self.log.info("%s answered on Airflow's page: %s. %s", answer.author, answer.said, answer.reason)
            record = self._patiently(version, answer, lambda c: record_approval(c, version, self.alias, answer))
            if record.outcome != ("approved" if answer.said == "approve" else "rejected"):
                self.log.warning("Somebody had decided before, and the first decision holds: %s", record.sentence)
            return self._finish(record, context)

    def poke(self, context: Context) -> Any:
        """Look for an answer from the command line; used where Airflow itself cannot ask."""
        from airflow_mlops.engines.approvals import time_out

        version, hours = ModelVersionRef.from_xcom(self.version), _hours(self.timeout_hours)
        try:
            self._show_links(version, context)
            record = self._known(version)
            if record is None:
                until = self._ask(version, context, hours)
                if datetime.now(UTC) < until:
                    return False
                with self._client() as client:
                    record = time_out(client, version, self.alias, hours=hours)
        except OutageError as exc:
            self.log.warning("Looking again in a minute: %s", exc)
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._finish(record, context))

    def _client(self) -> Any:
        return MLflowHook(self.mlflow_conn_id).client()

    def _known(self, version: ModelVersionRef) -> Approval | None:
        """Return the word that nobody is asked, or what was decided before."""
        from airflow_mlops.engines.approvals import read_approval

        if version.verdict != "needs_approval" or version.mode == "dry_run":
            why = "its gate ran as a dry run" if version.mode == "dry_run" else f"its verdict is {version.verdict!r}"
            return Approval(
                outcome="not_needed",
                sentence=f"Nobody is asked about version {version.version} of {version.name!r}: {why}.",
                name=version.name,
                version=version.version,
            )
        with self._client() as client:
            return read_approval(client, version, self.alias)

    def _ask(self, version: ModelVersionRef, context: Context, hours: float) -> datetime:
        """Say in MLflow and in the log that the candidate waits; return until when."""
        from airflow_mlops.engines.approvals import ask

        with self._client() as client:
            attempt = context["ti"].try_number
            until = ask(client, version, self.alias, by=_task(context), attempt=attempt, hours=hours)
        where = "Airflow's page of required actions, or on " if AIRFLOW_ASKS else ""
        passed = version.sentence or "Every rule of the gate passed."
        self.log.info("Version %d of %s: %s", version.version, version.name, passed)
        self.log.info(
            "Waiting until %s for an answer on %sthe command line: %s",
            _clock(until),
            where,
            self._command(version),
        )
        return until

    def _not_of_this(self, version: ModelVersionRef, chosen: Sequence[str], context: Context) -> dict[str, Any]:
        """Go by a decision from the command line; without one, refuse an answer to a question about another version.

        :raises AirflowFailException: nobody decided about this version.
        """
        if (known := self._known(version)) is not None:
            self.log.warning("The answer %s was not about version %d.", chosen, version.version)
            return self._finish(known, context)
        answer = " and ".join(map(repr, chosen)) or "nothing"
        number = re.search(r" version (\d+)$", chosen[0]) if len(chosen) == 1 else None
        about = f"version {number[1]}" if number else "a version that it does not name"
        raise AirflowFailException(
            f"The question on Airflow's page was about {about} (the answer is {answer}), but this task now asks about "
            f"version {version.version} of {version.name!r}. Airflow keeps the first question of a task, also when the "
            f"task is cleared. So nothing was recorded. Decide about version {version.version} on the command line: "
            f"{self._command(version)} or {self._command(version, '--reject')}. Then clear this task; it goes by that "
            f"decision."
        )

    def _patiently(self, version: ModelVersionRef, answer: Answer, act: Callable[[MlflowClient], Approval]) -> Approval:
        for seconds in (*PATIENCE_SECONDS, None):
            try:
                with self._client() as client:
                    return act(client)
            except OutageError as exc:
                if seconds is None:
                    raise type(exc)(
                        f"{answer.author} said {answer.said!r}, and that could not be written down. A retry asks "
                        f"again; or repeat it on the command line: {self._command(version, f'--{answer.said}')}. {exc}"
                    ) from exc
                self.log.warning("Writing the answer down again in %.0f s: %s", seconds, exc)
                time.sleep(seconds)
        raise AssertionError("unreachable: the last round returns or raises")

    def _finish(self, record: Approval, context: Context) -> dict[str, Any]:
        """Publish and log the record; skip where it is a hold."""
        published = record.to_xcom()
        context["ti"].xcom_push(key="return_value", value=published)
        context["ti"].xcom_push(key="reasons", value=[record.sentence])
        self.log.info("%s: %s", record.outcome, record.sentence)
        if record.outcome in ("rejected", "timed_out"):
            raise AirflowSkipException(f"hold: {record.sentence}")
        return published

    def _command(self, version: ModelVersionRef, option: str = "--approve") -> str:
        from airflow_mlops.engines.promotions import command

        return command("promote", version.name, self.alias, str(version.version), option)

    def _describe(self, version: ModelVersionRef, until: datetime) -> str:
        """Return the question as Markdown."""
        addresses = self._addresses(version)
        yes, no = _options(version)
        shown = {
            "Model version": f"[{version.name}, version {version.version}]({addresses['version']})",
            "Model card": f"[open]({addresses['report']})" if "report" in addresses else "",
            "Verdict of the gate": version.verdict,
            "Judged on": str(version.window or ""),
            "Trained on": str(version.train_window or ""),
            "Why the run was made": " ".join(version.reason.split()).replace("|", r"\|"),
        }
        rows = [f"| {name} | {value} |" for name, value in shown.items() if value]
        return "\n".join(
            [
                f"> {' '.join(version.sentence.split()) or 'Every rule of the gate passed.'}",
                "",
                "| | |",
                "|---|---|",
                *rows,
                "",
                f"**{yes}**: it becomes `{self.alias}`, unless another version came first. **{no}**: nothing moves. "
                f"Without an answer until {_clock(until)} nothing moves either. Your name and the reason are kept in "
                f"the promotion ledger.",
                "",
                f"On the command line: `{self._command(version)}`",
            ]
        )

    def _show_links(self, version: ModelVersionRef, context: Context) -> None:
        addresses = self._addresses(version)
        ModelVersionLink.store(context, addresses["version"])
        ReportLink.store(context, addresses.get("report"))

    def _addresses(self, version: ModelVersionRef) -> dict[str, str]:
        from airflow_mlops.engines.tracking import artifact_page, version_page

        server = MLflowHook(self.mlflow_conn_id).server()
        found = {"version": version_page(server, version.name, version.version)}
        if version.card_uri and version.card_uri.startswith("runs:/"):
            run_id, _, path = version.card_uri.removeprefix("runs:/").partition("/")
            found["report"] = artifact_page(server, run_id, path)
        return found


def _options(version: ModelVersionRef) -> list[str]:
    """Return the two answers. They carry the version: Airflow never replaces a question that a task asked before."""
    return [f"{said} version {version.version}" for said in (APPROVE, REJECT)]


def _reason_field() -> Any:
    return Param("", type=["string", "null"], format="multiline", title="Reason", description="Why; it is kept.")


@contextmanager
def _verdicts_do_not_retry() -> Iterator[None]:
    try:
        yield
    except VerdictError as exc:
        raise AirflowFailException(str(exc)) from exc


def _hours(given: float | str) -> float:
    try:
        hours = float(given)
    except (TypeError, ValueError):
        hours = float("nan")
    if not 0 < hours <= MAX_HOURS:
        raise InvalidSpecError(
            f"timeout_hours is {given!r}; it must be a number of hours above 0, at most {MAX_HOURS}."
        )
    return hours


def _names(given: Sequence[str] | str) -> list[str]:
    names = given.split(",") if isinstance(given, str) else list(given)
    return [str(name).strip() for name in names if str(name).strip()]


def _user_name(user: Mapping[str, Any]) -> str:
    """Return how the ledger names an Airflow user: two may have one name, never one id."""
    name, number = str(user.get("name") or "").strip(), str(user.get("id") or "").strip()
    return f"{name} (id {number})" if name and number and name != number else name or number


def _task(context: Context) -> str:
    ti = context["ti"]
    key = TaskKey(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
    return str(key).removesuffix("/-1")


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
