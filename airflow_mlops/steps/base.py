"""The one way a step runs: request in, record out, the same inline, on a command line or in another interpreter.

:func:`perform` gives every step its idempotence. It computes the input digest, looks for the MLflow run of the same
key and digest, adopts the record of a finished one, resumes an unfinished one, and otherwise creates it; then it runs
the body, stores the record in the run, and marks what it supersedes.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import Record, Window
from airflow_mlops.core.registry import Registry
from airflow_mlops.engines import runs
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.engines.tracking_errors import is_outage
from airflow_mlops.errors import InvalidSpecError, MissingEngineError, MLOpsError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from airflow_mlops.engines.login import Login
    from airflow_mlops.engines.storage import StorageAccess

log = logging.getLogger(__name__)

STEPS = Registry(
    "steps",
    {
        name: f"airflow_mlops.steps.{name}:{''.join(word.capitalize() for word in name.split('_'))}Step"
        for name in (
            "plan",
            "snapshot",
            "validate",
            "train",
            "evaluate",
            "serving",
            "gate",
            "register",
            "promote",
            "rollback",
            "plan_scoring",
            "score",
            "plan_monitoring",
            "drift",
            "performance",
            "policy",
        )
    },
)


class RunInfo(BaseModel):
    """The run a step belongs to: what names its parent MLflow run and what is tagged there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(min_length=1)
    name: str
    experiment: str = Field(min_length=1)
    tags: dict[str, str] = Field(default_factory=dict)


class StepRequest(BaseModel):
    """Everything a step needs but the secrets. Plain JSON, so that a remote runtime can carry it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    key: str = Field(min_length=1)
    run: RunInfo
    payload: dict[str, Any]
    force: bool = False
    task_url: str | None = None


@dataclass(frozen=True)
class Access:
    """How a step reaches the outside: settings, and the secrets that never enter a request or a record.

    ``storage`` answers a connection id (or None for ambient credentials) with what the file systems need.
    """

    server: TrackingServer
    login: Login | None = field(default=None, repr=False)
    storage: Callable[[str | None], StorageAccess | None] = field(default=lambda conn_id: None, repr=False)


@dataclass(frozen=True)
class Work:
    """What a step's body works with: the MLflow client, its own MLflow run, and a scratch folder."""

    request: StepRequest
    access: Access
    client: MlflowClient
    experiment_id: str
    parent_run_id: str
    run_id: str
    input_digest: str
    folder: Path

    def log_json(self, value: Any, name: str) -> str:
        """Store ``value`` as the artifact ``name`` of the step's run; return its URI."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1, allow_nan=False))
        return self.log_file(path, name)

    def log_text(self, text: str, name: str) -> str:
        """Store ``text`` as the artifact ``name`` of the step's run; return its URI."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return self.log_file(path, name)

    def log_file(self, path: Path, name: str) -> str:
        """Store a file as the artifact ``name`` of the step's run; return its ``runs:/`` URI."""
        parent, _, base = name.rpartition("/")
        if path.name != base:
            raise ValueError(f"the file {path.name!r} must carry the artifact's own last name, {base!r}")
        self.client.log_artifact(self.run_id, str(path), parent or None)
        return f"runs:/{self.run_id}/{name}"

    def read_file(self, uri: str) -> Path:
        """Fetch a ``runs:/RUN/PATH`` artifact into the scratch folder and return where it is.

        :raises InvalidSpecError: the URI is of another form.
        """
        run_id, _, name = uri.removeprefix("runs:/").partition("/")
        if not uri.startswith("runs:/") or not name:
            raise InvalidSpecError(f"{uri!r} is no artifact URI; it must look like runs:/RUN_ID/PATH.")
        target = self.folder / "fetched" / run_id
        target.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(run_id, name, str(target)))

    def read_json(self, uri: str) -> Any:
        """Fetch a JSON artifact."""
        return json.loads(self.read_file(uri).read_text())


PayloadT = TypeVar("PayloadT", bound=BaseModel)
RecordT = TypeVar("RecordT", bound=Record)


class Step(Generic[PayloadT, RecordT]):
    """One kind of work. Subclasses name themselves and their payload and record, and fill in two methods."""

    name: ClassVar[str]
    #: Whether another task's finished result of the same input digest serves as well. Its record then needs a field
    #: ``reused_from``, and its inputs must not cover what only says which run it belongs to.
    reusable: ClassVar[bool] = False
    payload_type: type[PayloadT]
    record_type: type[RecordT]

    def inputs(self, payload: PayloadT, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Return what the input digest covers. The payload alone by default; add what the payload only names.

        Called before the step's run exists, so it must be cheap and change nothing.
        """
        return payload.model_dump(mode="json")

    def run(self, payload: PayloadT, work: Work) -> RecordT:
        """Do the work and return the record."""
        raise TypeError(f"{type(self).__name__} must define run()")

    def recheck(self, record: RecordT, payload: PayloadT, client: MlflowClient, access: Access) -> bool:
        """Say whether a finished record may be adopted: what it names still exists. True by default."""
        return True

    def adopted(self, record: RecordT, payload: PayloadT) -> RecordT:
        """Return an adopted record as this task hands it on: what inputs leave out is this run's own."""
        return record


def window_tags(window: Window | None) -> dict[str, str]:
    """Return the tags that name a window on a run."""
    if window is None:
        return {}
    return {
        runs.WINDOW_START: window.start.isoformat(),
        runs.WINDOW_END: window.end.isoformat(),
    }


def perform(request: StepRequest, access: Access, *, part_of: str | None = None) -> Record:
    """Run the step that ``request`` names, or adopt what it already made, and return its record.

    :param part_of: the key of the task whose own step asks for this one. How the run ended is then that step's to say.
    :raises UnknownNameError: no step has that name.
    :raises InvalidSpecError: the payload does not fit the step; the message names each place.
    :raises VerdictError: the step's own reasons; a retry finds the same.
    :raises MissingEngineError: a library that the step needs is not installed here.
    :raises OutageError: something outside did not answer.
    """
    try:
        return _perform(request, access, part_of)
    except ModuleNotFoundError as exc:
        named = MissingEngineError.of(exc.name or "")
        if named is None:
            raise
        raise named from exc


def _perform(request: StepRequest, access: Access, part_of: str | None) -> Record:
    step: Step[Any, Any] = STEPS.load(request.step)()
    payload = read_payload(step.payload_type, request)
    with connected(access.server, access.login) as client:
        experiment = runs.experiment_id(client, request.run.experiment)
        parent, _ = runs.get_or_create_run(
            client, experiment, key=request.run.key, name=request.run.name, tags=request.run.tags
        )
        digest = digest_of({"step": request.step, "inputs": step.inputs(payload, client, access)})
        run, existed = runs.get_or_create_run(
            client,
            experiment,
            key=request.key,
            input_digest=digest,
            name=request.step,
            tags={
                runs.PARENT: parent.info.run_id,
                runs.STEP: request.step,
                **({runs.PART_OF: part_of} if part_of else {}),
                **_link(request),
            },
            force=request.force,
        )
        if existed and (adopted := _adopt(step, run, payload, client, access)) is not None:
            log.info("Adopting what this task already made: MLflow run %s.", run.info.run_id)
            mine = runs.find_runs(client, experiment, request.key)
            runs.supersede_others(client, mine, run, newer_too=True)
            return adopted
        if existed:
            runs.resume(client, run)
        reused = None if request.force else _reused(step, digest, experiment, payload, client, access)
        with (
            _marked_failed_on_error(client, run.info.run_id, None if part_of else parent.info.run_id),
            tempfile.TemporaryDirectory() as folder,
        ):
            work = Work(
                request=request,
                access=access,
                client=client,
                experiment_id=experiment,
                parent_run_id=parent.info.run_id,
                run_id=run.info.run_id,
                input_digest=digest,
                folder=Path(folder),
            )
            record: Record = step.run(payload, work) if reused is None else reused
            work.log_json(record.to_xcom(), runs.RECORD_FILE)
        if reused is not None:
            runs.mark_reused(client, run, getattr(record, "reused_from", ""))
        if record.is_failure:
            client.set_tag(run.info.run_id, runs.FAILING, "true")
        client.set_terminated(run.info.run_id, "FINISHED")
        mine = runs.find_runs(client, experiment, request.key)
        winner = _earlier_twin(mine, run)
        if winner is not None and (adopted := _adopt(step, winner, payload, client, access)) is not None:
            runs.mark_duplicate(client, run, winner)
            return adopted
        runs.supersede_others(client, mine, run, newer_too=False)
        # No step knows that it is the run's last, so each ends the parent: its end time is the last step's.
        failed = runs.any_failed(client, experiment, parent.info.run_id)
        client.set_terminated(parent.info.run_id, "FAILED" if failed else "FINISHED")
        return record


def read_payload(payload_type: type[PayloadT], request: StepRequest) -> PayloadT:
    """Check a request's payload.

    :raises InvalidSpecError: it does not fit; each wrong place is named.
    """
    try:
        return payload_type.model_validate(request.payload)
    except ValidationError as exc:
        places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in exc.errors())
        raise InvalidSpecError(f"The step {request.step!r} cannot use what it was given. {places}.") from exc


def _adopt(step: Step[Any, Any], run: Any, payload: Any, client: MlflowClient, access: Access) -> Record | None:
    stored = runs.read_record(client, run)
    if stored is None:
        return None
    try:
        record: Record = step.record_type.from_xcom(stored)
    except InvalidSpecError as exc:
        log.warning(
            "The record of MLflow run %s is of another version (%s); the step runs again.", run.info.run_id, exc
        )
        return None
    adopted: Record = step.adopted(record, payload)
    return adopted if step.recheck(record, payload, client, access) else None


def _reused(
    step: Step[Any, Any], digest: str, experiment: str, payload: Any, client: MlflowClient, access: Access
) -> Record | None:
    """Return the result of the newest finished run of the same step and inputs, whatever task made it."""
    if not step.reusable:
        return None
    for earlier in runs.find_finished(client, experiment, step.name, digest):
        record = _adopt(step, earlier, payload, client, access)
        if record is None or record.is_failure:
            continue
        # A result that was itself reused names the task that made it, not the one in between.
        origin = getattr(record, "reused_from", "") or earlier.data.tags.get(runs.KEY, "")
        log.info(
            "Nothing to do: task %s made this from the same code, parameters, data and environment (MLflow run %s), "
            "and its result still exists. Force a rebuild with the run's parameter `force`.",
            origin,
            earlier.info.run_id,
        )
        return record.model_copy(update={"reused_from": origin})
    return None


def _earlier_twin(mine: list[Run], run: Run) -> Run | None:
    """Return a run of the same key and digest that was there first, which a look right after creating can miss.

    The moment of creation is the creating machine's, so a rival's create call may still have been under way then.
    """
    same = [one for one in mine if one.data.tags.get(runs.INPUT_DIGEST) == run.data.tags.get(runs.INPUT_DIGEST)]
    first = next((one for one in same if runs.FORCED not in one.data.tags), None)
    forced = runs.FORCED in run.data.tags
    return None if forced or first is None or first.info.run_id == run.info.run_id else first


def _link(request: StepRequest) -> dict[str, str]:
    return {"airflow_mlops.task_url": request.task_url} if request.task_url else {}


@contextmanager
def _marked_failed_on_error(client: MlflowClient, run_id: str, parent_run_id: str | None) -> Iterator[None]:
    """Mark the runs FAILED with the reason when the body raises; the original error always wins."""
    try:
        yield
    except BaseException as exc:
        # A server that is gone would cost its whole budget once more, and the retry continues the run anyway.
        if isinstance(exc, Exception) and is_outage(exc):
            raise
        try:
            client.set_tag(run_id, runs.ERROR, runs.cut(f"{type(exc).__name__}: {exc}"))
            client.set_terminated(run_id, "FAILED")
            if parent_run_id is not None:
                client.set_terminated(parent_run_id, "FAILED")
        except Exception as second:  # noqa: BLE001  # the server may be the very thing that failed
            log.warning("The run %s could not be marked as failed: %s", run_id, second)
        if isinstance(exc, MLOpsError):
            log.error("%s", exc)
        raise
