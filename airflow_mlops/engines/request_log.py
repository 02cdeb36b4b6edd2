"""The log of retrains and rollbacks that the policy asked for: one MLflow run per registered model.

MLflow lets a tag be overwritten, but never a parameter: the first who writes it wins, by the database's own key. So the
log is a row of parameters with running numbers on one run. Who wants to ask writes the next number and is refused where
somebody else was there first; then they read again and decide again. So of any number that decide at once, about one
window or about several, exactly one asks. Who takes a request up, and that it ended, are parameters too.

The run itself is found as every run of ours is (:mod:`airflow_mlops.engines.runs`). Its maker waits a moment and looks
again before anything is written, and readers take the parameters of every such run, so that two first makers agree.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.keys import key_id
from airflow_mlops.core.policy import Request
from airflow_mlops.engines import runs
from airflow_mlops.engines.monitoring_state import KIND
from airflow_mlops.engines.training_runs import answering_run, end_of, later_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REQUESTS = "requests"
_ENTRY, _ANSWER, _END = "request.", "answer.", "end."
#: How long the maker of a model's first log waits for another maker's run to be seen.
SETTLE_SECONDS = 1.0
#: MLflow holds 6,000 characters of a parameter.
MAX_ENTRY = 5_500
#: The newest requests, of which it is looked up what became of them.
MAX_FOLLOWED = 20


@dataclass(frozen=True)
class Log:
    """What was asked for so far, in order, and the run that holds it.

    :param number: of the last entry; 0 for none.
    """

    run_id: str
    number: int
    requests: tuple[Request, ...]


def pause(point: str) -> None:
    """Do nothing. Fault tests put a delay or a kill here; ``point`` says which place was reached."""


def read_log(client: MlflowClient, experiment_id: str, name: str) -> Log:
    """Return the requests of ``name``; the log is made where there is none."""
    key = _key(name)
    found = _logs(client, experiment_id, key)
    if not found:
        _, existed = runs.get_or_create_run(
            client,
            experiment_id,
            key=key,
            name=f"{name} requests",
            tags={
                KIND: REQUESTS,
                runs.REGISTERED_MODEL: name,
                "mlflow.note.content": f"The retrains and rollbacks that monitoring asked for on behalf of {name}. "
                f"Written by airflow-mlops; do not edit or delete.",
            },
        )
        if not existed:
            time.sleep(SETTLE_SECONDS)
        found = _logs(client, experiment_id, key)
    entries: list[tuple[int, Run, Request]] = []
    number = 0
    for run in found:
        for place, text in _entries(run):
            number = max(number, place)
            if (request := _read(text)) is not None:
                entries.append((place, run, request))
    entries.sort(key=lambda one: one[0])
    settled = [request for _, _, request in entries[:-MAX_FOLLOWED]]
    followed = [_followed(client, experiment_id, run, place, one) for place, run, one in entries[-MAX_FOLLOWED:]]
    return Log(found[0].info.run_id, number, (*settled, *followed))


def ask(client: MlflowClient, log: Log, request: Request) -> bool:
    """Write the next entry; False where somebody else wrote it first: read the log and decide again."""
    pause("before-request")
    value = json.dumps(
        request.model_dump(mode="json", exclude={"answered", "ended"}), separators=(",", ":"), ensure_ascii=False
    )
    return write_once(client, log.run_id, f"{_ENTRY}{log.number + 1:05d}", value)


def entry(request: Request) -> Request:
    """Return ``request`` as the log can hold it: what people read is cut to fit."""
    shortened = request
    for most in (1_000, 500, 200, 0):
        if len(shortened.model_dump_json()) <= MAX_ENTRY:
            return shortened
        words = tuple(text[:most] for text in request.words)
        shortened = request.model_copy(update={"words": words, "reason": request.reason[: max(most, 100)]})
    return shortened


def take_up(client: MlflowClient, experiment_id: str, request: str, run_id: str) -> str:
    """Say which MLflow run answers a request: ``run_id`` where nobody was there first.

    :param experiment_id: where the log is looked for first, then in every experiment that this login sees.
    :param request: the request's id. Of one that no log has, ``run_id`` comes back: nothing says otherwise.
    """
    found = _entry_of(client, [experiment_id], request) or _entry_of(client, _experiments(client), request)
    if found is None:
        return run_id
    log_run, place = found
    if write_once(client, log_run, f"{_ANSWER}{place:05d}", run_id):
        return run_id
    return str(client.get_run(log_run).data.params.get(f"{_ANSWER}{place:05d}", run_id))


def close(client: MlflowClient, experiment_id: str, name: str, request: str, how: str) -> None:
    """Write that a request has ended, so that nobody has to find it out again.

    :param how: in words.
    """
    for run in _logs(client, experiment_id, _key(name)):
        for place, text in _entries(run):
            if (known := _read(text)) is not None and known.id == request:
                write_once(client, run.info.run_id, f"{_END}{place:05d}", how[:MAX_ENTRY])


def write_once(client: MlflowClient, run_id: str, param: str, value: str) -> bool:
    """Write a parameter, and say whether it holds ``value`` now: MLflow refuses to change one that is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_param(run_id, param, value)
    except MlflowException as exc:
        if exc.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        held = client.get_run(run_id).data.params.get(param)
        if held is None:
            raise
        return bool(held == value)
    return True


def _key(name: str) -> str:
    return f"{REQUESTS}/{name}"


def _logs(client: MlflowClient, experiment_id: str, key: str) -> list[Run]:
    """Return every log of a key, that of a loser included: something may have been written there."""
    found = client.search_runs([experiment_id], filter_string=f"tags.`{runs.KEY_ID}` = '{key_id(key)}'", max_results=50)
    return sorted(found, key=lambda run: (runs.DUPLICATE_OF in run.data.tags, run.info.start_time, run.info.run_id))


def _entries(run: Run) -> list[tuple[int, str]]:
    return [
        (int(param.removeprefix(_ENTRY)), text)
        for param, text in run.data.params.items()
        if param.startswith(_ENTRY) and param.removeprefix(_ENTRY).isdigit()
    ]


def _read(text: str) -> Request | None:
    try:
        return Request.model_validate_json(text)
    except ValueError:
        return None


def _followed(client: MlflowClient, experiment_id: str, run: Run, place: int, request: Request) -> Request:
    """Return a request with what became of it."""
    params: dict[str, Any] = run.data.params
    answer = params.get(f"{_ANSWER}{place:05d}")
    if f"{_END}{place:05d}" in params:
        return request.model_copy(update={"answered": True, "ended": True})
    training = answering_run(client, experiment_id, request.id, answer)
    if training is None:
        return request
    end = end_of(client, training)
    if end == "failed":
        later = later_run(client, experiment_id, request.id, training.info.run_id)
        training, end = (training, end) if later is None else (later, end_of(client, later))
    if end == "finished":
        # Of a failed one it is asked again each time: a task of it that is tried again, or cleared, goes on.
        when = datetime.now(UTC).isoformat()
        write_once(client, run.info.run_id, f"{_END}{place:05d}", f"{when} {training.info.run_id}")
    return request.model_copy(update={"answered": True, "ended": bool(end)})


def _entry_of(client: MlflowClient, experiments: list[str], request: str) -> tuple[str, int] | None:
    found = client.search_runs(
        list(experiments),
        filter_string=f"tags.`{KIND}` = '{REQUESTS}'",
        order_by=["attributes.start_time ASC"],
        max_results=1000,
    )
    for run in found:
        for place, text in _entries(run):
            if (known := _read(text)) is not None and known.id == request:
                return str(run.info.run_id), place
    return None


def _experiments(client: MlflowClient) -> list[str]:
    return [str(one.experiment_id) for one in client.search_experiments(max_results=1000)]
