"""The approve task under a real scheduler: answered on Airflow's page, on the command line, and not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_mlops.cli import main
from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.services import Services
from tests.support.airflow_settings import READ_ONCE
from tests.support.candidates import Bench, entry_texts, make_bench

#: Seconds that a worker takes at most to end after it has asked. Of a task that is answered before, as no person does,
#: Airflow believes that somebody else started it, and starts it anew.
OFF_THE_WORKER = 10.0

DAG_FILE = """
from datetime import timedelta

from airflow_mlops import ApproveModelOperator, PromoteModelOperator
from airflow_mlops.compat import DAG, Param

with DAG(
    "approval",
    params={"version": Param({}, type="object"), "cleared": Param({}, type="object"), "hours": 1.0},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    render_template_as_native_obj=True,
):
    approve = ApproveModelOperator(
        task_id="approve",
        version="{{ (params.cleared if ti.try_number > 1 else None) or params.version }}",
        timeout_hours="{{ params.hours }}",
        assignees=["admin"],
    )
    PromoteModelOperator(
        task_id="promote", version="{{ params.cleared or params.version }}", approval=approve.output
    )
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("approval")
    (home / "dags").mkdir()
    (home / "dags" / "approval_dag.py").write_text(DAG_FILE)
    # One task at a time: where two cores do all the work, several that start at once outlast the server's patience.
    with Services(home, home / "dags", env={**READ_ONCE, "AIRFLOW__CORE__PARALLELISM": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def api(services: Services) -> Iterator[AirflowAPI]:
    with AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
        yield api


def question_path(run_id: str) -> str:
    return f"/api/v2/dags/approval/dagRuns/{quote(run_id, safe='')}/taskInstances/approve/-1/hitlDetails"


def wait_for_question(api: AirflowAPI, run_id: str) -> dict[str, Any]:
    """Return what Airflow's page shows, once the task is off the worker."""
    deadline = time.monotonic() + 120
    while api.task_states("approval", run_id).get("approve") not in ("awaiting_input", "deferred"):
        assert time.monotonic() < deadline, api.task_states("approval", run_id)
        time.sleep(1.0)
    return dict(api._send("GET", question_path(run_id)).json())


@pytest.mark.timeout(600)
def test_every_way_an_approval_can_end(api: AirflowAPI, services: Services, tmp_path: Path) -> None:
    connection, make = make_bench(services.mlflow_uri, tmp_path)
    benches: dict[str, Bench] = {name: make(name) for name in ("approved", "rejected", "unanswered", "by_command")}
    api.wait_for_dag("approval")
    api.unpause("approval")
    runs = {
        name: api.trigger(
            "approval",
            {
                "version": bench.register("register", verdict="needs_approval").to_xcom(),
                "hours": 2 / 3600 if name == "unanswered" else 1.0,
            },
            run_id=f"run_{name}",
        )
        for name, bench in benches.items()
    }

    wait_for_question(api, runs["by_command"])
    uri = ("--tracking-uri", services.mlflow_uri)
    assert main(["promote", "by_command", "--approve", "--reason", "urgent", "--author", "ada", *uri]) == 0
    for name in ("approved", "rejected"):
        wait_for_question(api, runs[name])
    time.sleep(OFF_THE_WORKER)
    for name, said, why in (
        ("approved", "Approve version 1", "better in May"),
        ("rejected", "Reject version 1", "odd slices"),
        ("by_command", "Reject version 1", "too late: the command came first"),
    ):
        question = wait_for_question(api, runs[name])
        assert question["subject"] == f"May version 1 of {name} become champion?"
        assert f"airflow-mlops promote {name} 1 --approve" in question["body"]
        body = {"chosen_options": [said], "params_input": {"reason": why}}
        api._send("PATCH", question_path(runs[name]), json=body)

    states = {}
    for name, run_id in runs.items():
        run = api.wait_for_run("approval", run_id, seconds=180)
        states[name] = api.task_states("approval", run_id)
        assert run["state"] == "success", f"{name}: {states[name]}\n{api.log('approval', run_id, 'approve')[-3000:]}"
    assert states == {
        "approved": {"approve": "success", "promote": "success"},
        "rejected": {"approve": "skipped", "promote": "skipped"},
        "unanswered": {"approve": "skipped", "promote": "skipped"},
        "by_command": {"approve": "success", "promote": "success"},
    }
    outcomes = {name: api.xcom("approval", run_id, "approve") for name, run_id in runs.items()}
    assert {name: (record["outcome"], record["author"]) for name, record in outcomes.items()} == {
        "approved": ("approved", "admin"),
        "rejected": ("rejected", "admin"),
        "unanswered": ("timed_out", ""),
        "by_command": ("approved", "ada"),
    }
    ledgers = {
        name: [(entry["action"], entry["author"], entry["reason"]) for entry in entry_texts(bench.client, name)]
        for name, bench in benches.items()
    }
    task = "airflow:approval/run_approved/promote"
    assert ledgers == {
        "approved": [
            ("approve", "admin", "better in May"),
            ("promote", f"admin ({task})", "approved by admin: better in May"),
        ],
        "rejected": [("reject", "admin", "odd slices")],
        "unanswered": [],
        "by_command": [
            ("approve", "ada", "urgent"),
            ("promote", "ada (command line)", "approved by ada: urgent"),
        ],
    }
    assert {name: bench.alias() for name, bench in benches.items()} == {
        "approved": 1,
        "rejected": None,
        "unanswered": None,
        "by_command": 1,
    }
    assert api.xcom("approval", runs["by_command"], "promote")["entry"] == 2
    connection.__exit__(None, None, None)


@pytest.mark.timeout(600)
def test_the_question_about_an_earlier_version_decides_about_none(
    api: AirflowAPI, services: Services, tmp_path: Path
) -> None:
    connection, make = make_bench(services.mlflow_uri, tmp_path)
    bench = make("cleared")
    asked, cleared = (bench.register(key, verdict="needs_approval").to_xcom() for key in ("first", "second"))
    api.wait_for_dag("approval")
    api.unpause("approval")
    run_id = api.trigger("approval", {"version": asked, "cleared": cleared}, run_id="run_cleared")
    wait_for_question(api, run_id)
    api.clear("approval", run_id, ["approve"])

    question = wait_for_question(api, run_id)
    time.sleep(OFF_THE_WORKER)
    assert question["subject"] == "May version 1 of cleared become champion?"  # Airflow keeps it: version 2 is meant
    answer = {"chosen_options": ["Approve version 1"], "params_input": {"reason": "better in May"}}
    api._send("PATCH", question_path(run_id), json=answer)
    api.wait_for_run("approval", run_id, seconds=180)

    assert api.task_states("approval", run_id) == {"approve": "failed", "promote": "upstream_failed"}
    said = api.log("approval", run_id, "approve", try_number=2)
    assert "was about version 1" in said
    assert "airflow-mlops promote cleared 2 --approve --reason" in said
    assert entry_texts(bench.client, "cleared") == []
    assert bench.alias() is None

    words = ["promote", "cleared", "2", "--approve", "--reason", "better", "--author", "ada"]
    assert main([*words, "--tracking-uri", services.mlflow_uri]) == 0
    api.clear("approval", run_id, ["approve"])
    assert api.wait_for_run("approval", run_id, seconds=180)["state"] == "success"
    assert api.task_states("approval", run_id) == {"approve": "success", "promote": "success"}
    assert (api.xcom("approval", run_id, "approve")["author"], bench.alias()) == ("ada", 2)
    connection.__exit__(None, None, None)
