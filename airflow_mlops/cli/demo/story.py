"""What the demo plays, and what must come out of it.

Each act triggers a run through Airflow's API, waits for it, and compares what happened with what was told: an act that
came out otherwise makes the demo fail. Every figure that is printed comes from the run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.errors import VerdictError

MODEL = "flights"
TRAIN = "train_flights"
ROLLBACK = "rollback_flights"
TEMPLATES = (
    "flights.yaml",
    "flights_contract.yaml",
    "flights_training.py",
    "flights_dag.py",
    "flights_rollback_dag.py",
)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One run: what is asked, what must come out, and why."""

    title: str
    dag_id: str
    conf: Mapping[str, Any]
    check: Callable[[Outcome], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run left behind."""

    state: str
    tasks: Mapping[str, str | None]
    records: Mapping[str, Mapping[str, Any]]
    champion_before: int | None
    champion: int | None
    run_id: str
    seconds: float

    def record(self, task: str) -> Mapping[str, Any]:
        """Return a task's record, empty where it left none."""
        return self.records.get(task) or {}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the closing table."""

    title: str
    happened: str
    why: str
    seconds: float
    wrong: tuple[str, ...]


def write_dags(folder: Path) -> None:
    """Copy the flights template into a DAG folder, whole files only."""
    folder.mkdir(parents=True, exist_ok=True)
    source = files("airflow_mlops.templates")
    for name in TEMPLATES:
        temporary = folder / f".{name}.new"
        temporary.write_bytes((source / name).read_bytes())
        temporary.replace(folder / name)
    # Bytecode of an older copy must not outlive it.
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


def training_acts() -> list[Act]:
    """Return the acts before the model serves, in order."""
    return [
        Act(
            title="March: a first model, trained on January and February",
            dag_id=TRAIN,
            conf=_window("2013-03-01", "2013-04-01", "2 months", "the first model"),
            check=_first_model,
        ),
        Act(
            title="May: a candidate trained on April alone",
            dag_id=TRAIN,
            conf=_window("2013-05-01", "2013-06-01", "1 month", "is April enough?"),
            check=_held_for_b6,
        ),
    ]


def closing_acts() -> list[Act]:
    """Return the acts after the retrained model has served, in order."""
    return [
        Act(
            title="December: the weather feed had a gap",
            dag_id=TRAIN,
            conf=_window("2013-12-01", "2014-01-01", "1 month", "the monthly run"),
            check=_contract_failed,
        ),
        Act(
            title="A rollback",
            dag_id=ROLLBACK,
            conf={"reason": "the demo shows a rollback"},
            check=lambda outcome: _moved(outcome, to=1, back_from=2),
        ),
        Act(
            title="The rollback undone",
            dag_id=ROLLBACK,
            conf={"reason": "the demo undoes the rollback"},
            check=lambda outcome: _moved(outcome, to=2, back_from=1),
        ),
    ]


def play(
    api: AirflowAPI,
    champion: Callable[[], int | None],
    say: Callable[[str], None],
    chosen: Iterable[Act],
    *,
    run_seconds: float = 600.0,
) -> list[Row]:
    """Play the chosen acts and return what came out.

    :param champion: returns the version that the alias names now, or None.
    :param say: called with one line of progress.
    :raises VerdictError: a DAG file does not import.
    :raises OutageError: a run did not finish in time, or a service ended.
    """
    for dag_id in (TRAIN, ROLLBACK):
        if errors := api.import_errors():
            raise VerdictError("\n".join(f"{file} does not import:\n{trace}" for file, trace in errors.items()))
        api.wait_for_dag(dag_id)
        api.unpause(dag_id)
    rows = []
    for act in chosen:
        say(f"--- {act.title}")
        outcome = _run(act, api, champion, say, run_seconds)
        wrong = tuple(act.check(outcome))
        rows.append(
            Row(title=act.title, happened=_happened(outcome), why=_why(outcome), seconds=outcome.seconds, wrong=wrong)
        )
        say(f"    {rows[-1].happened}: {rows[-1].why}")
        for mistake in wrong:
            say(f"    NOT AS TOLD: {mistake}")
    return rows


def _run(
    act: Act, api: AirflowAPI, champion: Callable[[], int | None], say: Callable[[str], None], seconds: float
) -> Outcome:
    before = champion()
    begin = time.monotonic()
    run_id = api.trigger(act.dag_id, act.conf)
    say(f"    {api.url_of(act.dag_id, run_id)}")

    def progress(task: str, state: str) -> None:
        if state not in ("scheduled", "queued", "running"):
            say(f"    {time.monotonic() - begin:5.0f} s  {task} {state}")

    run = api.wait_for_run(act.dag_id, run_id, seconds=seconds, progress=progress)
    tasks = api.task_states(act.dag_id, run_id)
    records = {
        task: api.xcom(act.dag_id, run_id, task)
        for task, state in tasks.items()
        if state in ("success", "failed", "skipped")
    }
    return Outcome(
        state=str(run["state"]),
        tasks=tasks,
        records={task: record for task, record in records.items() if record},
        champion_before=before,
        champion=champion(),
        run_id=run_id,
        seconds=time.monotonic() - begin,
    )


# What must come out


def _expect(**pairs: tuple[object, object]) -> Iterable[str]:
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            yield f"{what.replace('_', ' ')} is {found!r}, it should be {wanted!r}"


def _first_model(outcome: Outcome) -> Iterable[str]:
    yield from _expect(
        run=(outcome.state, "success"),
        verdict=(outcome.record("gate").get("verdict"), "first_model"),
        promotion=(outcome.record("promote").get("outcome"), "promoted"),
        champion_before=(outcome.champion_before, None),
        champion=(outcome.champion, 1),
    )


def _held_for_b6(outcome: Outcome) -> Iterable[str]:
    yield from _expect(
        run=(outcome.state, "success"),
        verdict=(outcome.record("gate").get("verdict"), "hold"),
        gate_task=(outcome.tasks.get("gate"), "skipped"),
        promote_task=(outcome.tasks.get("promote"), "skipped"),
        champion=(outcome.champion, outcome.champion_before),
    )
    results = outcome.record("gate").get("results", ())
    failed = [result for result in results if result["status"] == "fail"]
    if [result.get("slice") for result in failed] != ["carrier B6"]:
        yield f"the gate failed on {[result.get('slice') or result['rule'] for result in failed]}, not on B6 alone"
    report = outcome.record("evaluate")
    candidate, champion = (report.get(key, {}).get("roc_auc") for key in ("metrics", "champion_metrics"))
    if candidate is None or champion is None or candidate <= champion:
        yield f"overall the candidate should be better: {candidate} against {champion}"


def _contract_failed(outcome: Outcome) -> Iterable[str]:
    checked = outcome.record("evaluation_data.validate")
    yield from _expect(
        run=(outcome.state, "failed"),
        contract=(checked.get("verdict"), "fail"),
        training=(outcome.tasks.get("train"), "upstream_failed"),
        champion=(outcome.champion, outcome.champion_before),
    )
    broken = {finding["column"] for finding in checked.get("findings", ()) if finding["on_failure"] == "fail"}
    if "temp" not in broken:
        yield f"the contract should fail for the missing weather; it failed for {sorted(map(str, broken))}"


def _moved(outcome: Outcome, *, to: int, back_from: int) -> Iterable[str]:
    yield from _expect(
        run=(outcome.state, "success"),
        outcome=(outcome.record("rollback").get("outcome"), "promoted"),
        champion_before=(outcome.champion_before, back_from),
        champion=(outcome.champion, to),
    )


# What is told


def _happened(outcome: Outcome) -> str:
    for task in ("promote", "rollback"):
        if record := outcome.record(task):
            return f"{record['outcome']}, champion is version {outcome.champion}"
    if gate := outcome.record("gate"):
        return f"{gate['verdict']}, champion stays version {outcome.champion}"
    for task, record in outcome.records.items():
        if record.get("verdict") == "fail":
            return f"{task} failed, nothing was trained"
    return outcome.state


def _why(outcome: Outcome) -> str:
    if gate := outcome.record("gate"):
        if gate["verdict"] != "hold":
            return _figures(outcome)
        failed = [result["sentence"] for result in gate["results"] if result["status"] != "pass"]
        return " ".join([_figures(outcome), *failed])
    for record in outcome.records.values():
        if record.get("verdict") == "fail":
            return " ".join(finding["sentence"] for finding in record["findings"] if finding["on_failure"] == "fail")
    sentence = outcome.record("rollback").get("sentence")
    return str(sentence or "see the task's log")


def _figures(outcome: Outcome) -> str:
    report = outcome.record("evaluate")
    candidate = report.get("metrics", {}).get("roc_auc")
    champion = report.get("champion_metrics", {}).get("roc_auc")
    against = "no champion yet" if champion is None else f"champion {champion:.4f}"
    return f"AUC {candidate:.4f}, {against}, on {report.get('row_count', 0):,} flights." if candidate else ""


def _window(start: str, end: str, train_length: str, reason: str) -> dict[str, Any]:
    return {"window_start": start, "window_end": end, "train_length": train_length, "reason": reason}
