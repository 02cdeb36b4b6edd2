"""A small client of Airflow's REST API (v2): what the demo and the end-to-end tests need of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from airflow_mlops.errors import OutageError, VerdictError

FINISHED = frozenset({"success", "failed"})
_POLL_SECONDS = 1.0


class AirflowAPI:
    """Talks to one Airflow.

    :param url: address of the API server.
    :param user: user of the simple auth manager.
    :param password: that user's password.
    :param check: called on every turn of a wait; it raises to end the wait, as ``Services.check`` does.
    """

    def __init__(self, url: str, user: str, password: str, *, check: Callable[[], None] | None = None) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        self._check = check or (lambda: None)
        self._client = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # DAGs ------------------------------------------------------------------------------------------------------------

    def import_errors(self) -> dict[str, str]:
        """Return the stack trace of every DAG file that does not import, by file."""
        found = self._get("/api/v2/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    def wait_for_dag(self, dag_id: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """Return the DAG as soon as Airflow knows it.

        :raises VerdictError: a DAG file does not import; the message holds its stack trace.
        :raises OutageError: the DAG did not appear in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            answer = self._send("GET", f"/api/v2/dags/{quote(dag_id)}", allow={404})
            if answer.status_code == 200 and not answer.json().get("is_stale"):
                return dict(answer.json())
            if errors := self.import_errors():
                shown = "\n".join(f"{name}:\n{trace}" for name, trace in errors.items())
                raise VerdictError(f"Airflow cannot import the DAG files, so {dag_id} does not appear:\n{shown}")
            self._pause(deadline, f"DAG {dag_id} did not appear in {seconds:.0f} s and no file has an import error")

    def unpause(self, dag_id: str) -> None:
        """Let the DAG run."""
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": False})

    # Runs ------------------------------------------------------------------------------------------------------------

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, *, run_id: str | None = None) -> str:
        """Start a run and return its id.

        :param conf: the run's parameters.
        :param run_id: None lets Airflow name it.
        """
        # Airflow 3 demands the key and takes null as "none": the window comes with the parameters.
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self._send("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body).json()["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run as Airflow describes it; ``state`` is in it."""
        return self._get(_run_path(dag_id, run_id))

    def backfill(self, dag_id: str, start: str, end: str) -> int:
        """Start Airflow's own backfill over the intervals that start between two ISO dates, and return its id."""
        body = {
            "dag_id": dag_id,
            "from_date": f"{start}T00:00:00Z",
            "to_date": f"{end}T00:00:00Z",
            "reprocess_behavior": "none",
            "max_active_runs": 1,
        }
        return int(self._send("POST", "/api/v2/backfills", json=body).json()["id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the DAG's runs as Airflow describes them, oldest first; the newest hundred at most."""
        found = self._get(f"/api/v2/dags/{quote(dag_id)}/dagRuns", order_by="-run_after", limit=100)["dag_runs"]
        return list(reversed(found))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        seconds: float = 600.0,
        progress: Callable[[str, str], None] | None = None,
    ) -> dict[str, Any]:
        """Return the run when it has finished, whether it succeeded or failed.

        :param progress: called with task id and state each time a task's state has changed.
        :raises OutageError: it did not finish in time; the message lists the tasks' states.
        """
        deadline = time.monotonic() + seconds
        shown: dict[str, str] = {}
        while True:
            run = self.run(dag_id, run_id)
            states = {_task_name(task): str(task["state"]) for task in self.tasks(dag_id, run_id) if task["state"]}
            if progress is not None:
                for task, state in states.items():
                    if shown.get(task) != state:
                        progress(task, state)
            shown = states
            if run["state"] in FINISHED:
                return run
            self._pause(
                deadline,
                f"Run {run_id} of {dag_id} is {run['state']} after {seconds:.0f} s; its tasks are "
                f"{', '.join(f'{task} {state}' for task, state in states.items()) or 'not started'}",
            )

    def url_of(self, dag_id: str, run_id: str | None = None, task_id: str | None = None) -> str:
        """Return the address of a page: the DAG's, a run's or a task's."""
        parts = [self.url, "dags", quote(dag_id, safe="")]
        if run_id is not None:
            parts += ["runs", quote(run_id, safe="")]
            if task_id is not None:
                parts += ["tasks", quote(task_id, safe="")]
        return "/".join(parts)

    # Tasks -----------------------------------------------------------------------------------------------------------

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances as Airflow describes them, in no particular order."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"{_run_path(dag_id, run_id)}/taskInstances", limit=100, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of every task; a mapped task's id ends in its index, ``task[0]``."""
        return {_task_name(task): task["state"] for task in self.tasks(dag_id, run_id)}

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task left under the key, as plain JSON values, or None when it left nothing."""
        answer = self._send(
            "GET",
            f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}",
            params={"map_index": map_index, "deserialize": False, "stringify": False},
            allow={404},
        )
        return None if answer.status_code == 404 else answer.json()["value"]

    def emit_event(self, asset: str, extra: Mapping[str, Any]) -> None:
        """Record an event of the Asset with this name, as a task with it as outlet would."""
        found = self._get("/api/v2/assets", name_pattern=asset, limit=100)["assets"]
        number = next(one["id"] for one in found if one["name"] == asset)
        self._send("POST", "/api/v2/assets/events", json={"asset_id": number, "extra": dict(extra)})

    def asset_events(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the Asset events that runs of the DAG emitted, oldest first; ``extra`` is in each.

        :raises OutageError: Airflow did not list them within a minute.
        """
        deadline = time.monotonic() + 60
        while True:
            try:
                found = self._get("/api/v2/assets/events", source_dag_id=dag_id, order_by="timestamp", limit=100)
                break
            except OutageError as exc:
                # Airflow 3.3 answers 500 as long as a run that an event created is queued: it has no start date yet.
                self._pause(deadline, str(exc).rstrip("."))
        events: list[dict[str, Any]] = found["asset_events"]
        return events

    def clear(self, dag_id: str, run_id: str, task_ids: list[str], *, downstream: bool = True) -> list[str]:
        """Clear tasks, so that Airflow runs them again, and return the ids of all that were cleared."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": task_ids,
            "include_downstream": downstream,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        cleared = self._send("POST", f"/api/v2/dags/{quote(dag_id)}/clearTaskInstances", json=body).json()
        return [_task_name(task) for task in cleared["task_instances"]]

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task, one event a line."""
        answer = self._send(
            "GET",
            f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}",
            params={"map_index": map_index, "full_content": True},
            headers={"Accept": "application/json"},
        )
        return "\n".join(_log_line(entry) for entry in answer.json()["content"])

    # Requests --------------------------------------------------------------------------------------------------------

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return dict(self._send("GET", path, params=params).json())

    def _send(self, method: str, path: str, *, allow: set[int] | None = None, **parts: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **parts)
            if answer.status_code == 401:
                # No token yet, or an old one: they last a day.
                self._client.headers["Authorization"] = f"Bearer {self._token()}"
                answer = self._client.request(method, path, **parts)
        except httpx.TransportError as exc:
            self._check()
            raise OutageError(f"Airflow at {self.url} does not answer {method} {path}: {exc}.") from exc
        if answer.is_success or answer.status_code in (allow or ()):
            return answer
        message = f"Airflow refused {method} {path}: {answer.status_code} {_detail(answer)}"
        raise (OutageError if answer.status_code >= 500 else VerdictError)(message)

    def _token(self) -> str:
        answer = self._client.post("/auth/token", json=self._login, headers={"Authorization": ""})
        if not answer.is_success:
            raise VerdictError(
                f"Airflow at {self.url} does not accept the login of {self._login['username']!r}: {answer.status_code} "
                f"{_detail(answer)}"
            )
        return str(answer.json()["access_token"])

    def _pause(self, deadline: float, matter: str) -> None:
        self._check()
        if time.monotonic() > deadline:
            raise OutageError(f"{matter}.")
        time.sleep(_POLL_SECONDS)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _task_name(task: Mapping[str, Any]) -> str:
    index = task.get("map_index", -1)
    return str(task["task_id"]) if index is None or index < 0 else f"{task['task_id']}[{index}]"


def _log_line(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    details = [f"{name}={value}" for name, value in entry.items() if name not in ("timestamp", "event", "level")]
    head = [str(entry[name]) for name in ("timestamp", "level", "event") if entry.get(name) is not None]
    return " ".join([*head, *details])


def _detail(answer: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(answer.json()["detail"])
    return answer.text[:500]
