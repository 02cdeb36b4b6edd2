"""The demo's services: a real MLflow and a real Airflow, driven through the REST API, that leave nothing behind."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from airflow_mlops.cli.demo import preload
from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.services import COMPONENTS, Services, free_port, port_is_free, remove_home
from airflow_mlops.errors import OutageError, VerdictError
from tests.support.airflow_versions import only_airflow_3

#: The demo starts the components of Airflow 3.
pytestmark = only_airflow_3

TRIVIAL_DAG = """
import os
import sys

from airflow.sdk import DAG, Connection, task

with DAG("trivial", schedule=None):

    @task
    def look(dag_run=None):
        print("a line for the log")
        return {
            "conf": dag_run.conf,
            "mlflow": Connection.get("mlflow_default").host,
            "ambient": os.environ.get("MLFLOW_TRACKING_URI"),
            "threads": os.environ["OMP_NUM_THREADS"],
            "extra": os.environ["EXTRA"],
            "preloaded": {"great_expectations", "mlflow", "pandas"} <= set(sys.modules),
        }

    @task
    def grow(number):
        return number + 1

    look() >> grow.expand(number=[1, 2])

with DAG("failing", schedule=None):

    @task
    def refuse():
        raise ValueError("no")

    refuse()
"""

SLEEPING_DAG = """
import subprocess

from airflow.sdk import DAG, task

with DAG("sleeping", schedule=None):

    @task
    def sleep():
        subprocess.run(["sleep", "600"], start_new_session=True)

    sleep()
"""

OWNER = """
import sys, time
from pathlib import Path
from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.services import Services
from airflow_mlops.errors import OutageError

with Services(Path(sys.argv[1]), Path(sys.argv[2])) as services:
    with AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
        api.wait_for_dag("sleeping")
        api.unpause("sleeping")
        run_id = api.trigger("sleeping")
        while api.task_states("sleeping", run_id) != {"sleep": "running"}:
            time.sleep(0.5)
        time.sleep(1)
        print("running", services.pids["scheduler"], flush=True)
        try:
            api.wait_for_run("sleeping", run_id)
        except OutageError as exc:
            print("noticed", str(exc).splitlines()[0], flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    dags = folder / "dags"
    dags.mkdir()
    (dags / "trivial.py").write_text(TRIVIAL_DAG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://ambient.invalid")
        patch.setenv("AIRFLOW__CORE__EXECUTOR", "NoSuchExecutor")
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        # Two tests wait until a new file is found.
        env = {"EXTRA": "given", "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5"}
        with Services(folder / "home", dags, env=env) as running:
            yield running


@pytest.fixture
def api(services: Services) -> Iterator[AirflowAPI]:
    with AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as client:
        yield client


def finished(api: AirflowAPI, dag_id: str, conf: dict[str, object] | None = None) -> str:
    """Run the DAG to its end and return the run's id."""
    api.wait_for_dag(dag_id)
    api.unpause(dag_id)
    run_id = api.trigger(dag_id, conf)
    api.wait_for_run(dag_id, run_id, seconds=120)
    return run_id


def wait_until_gone(found: list[psutil.Process], seconds: float = 30.0) -> None:
    _, left = psutil.wait_procs(found, timeout=seconds)
    assert not left, [process.cmdline() for process in left if process.is_running()]


def test_a_dag_runs_to_success_through_the_api(services: Services, api: AirflowAPI) -> None:
    api.wait_for_dag("trivial")
    api.unpause("trivial")
    seen: list[tuple[str, str]] = []

    run_id = api.trigger("trivial", {"start": "2013-03-01"})
    run = api.wait_for_run("trivial", run_id, progress=lambda task, state: seen.append((task, state)))

    assert run["state"] == "success"
    assert api.task_states("trivial", run_id) == {"look": "success", "grow[0]": "success", "grow[1]": "success"}
    assert {("look", "success"), ("grow[0]", "success"), ("grow[1]", "success")} <= set(seen)
    assert len(seen) == len(set(seen)), "a state is told once"
    assert api.xcom("trivial", run_id, "look") == {
        "conf": {"start": "2013-03-01"},
        "mlflow": services.mlflow_uri,
        "ambient": None,
        "threads": "1",
        "extra": "given",
        "preloaded": True,
    }
    assert api.xcom("trivial", run_id, "grow", map_index=1) == 3
    assert api.xcom("trivial", run_id, "look", key="nothing") is None
    assert "a line for the log" in api.log("trivial", run_id, "look")


def started(component: str, home: Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Read the settings file as that component's process does, with ``folder`` before all other modules."""
    code = (
        f"import sys; sys.argv = ['airflow', {component!r}]; sys.path[:0] = {[str(folder), str(home / 'config')]!r}\n"
    )
    code += "from airflow_local_settings import *; print('great_expectations' in sys.modules, 'import_module' in dir())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_scheduler_alone_loads_what_tasks_need_and_only_where_that_is_wanted(tmp_path: Path) -> None:
    preload.write_settings(tmp_path, on=True)
    assert [started(one, tmp_path).stdout.strip() for one in ("scheduler", "api-server")] == [
        "True False",
        "False False",
    ]

    preload.write_settings(tmp_path, on=False)
    assert list((tmp_path / "config").glob("*.py")) == []


def test_a_library_that_fails_to_load_stops_no_scheduler(tmp_path: Path) -> None:
    preload.write_settings(tmp_path, on=True)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "duckdb.py").write_text("raise AttributeError('built for another numpy')")

    done = started("scheduler", tmp_path, broken)

    assert (done.returncode, done.stdout.strip()) == (0, "True False")
    assert "duckdb was not imported beforehand: AttributeError('built for another numpy')" in done.stderr


def test_settings_that_somebody_else_wrote_stay(tmp_path: Path) -> None:
    file = tmp_path / "config" / "airflow_local_settings.py"
    file.parent.mkdir()
    file.write_text("# mine")

    for on in (True, False):
        preload.write_settings(tmp_path, on=on)
        assert file.read_text() == "# mine"


def test_a_cleared_task_runs_again_with_what_follows(api: AirflowAPI) -> None:
    run_id = finished(api, "trivial")

    cleared = api.clear("trivial", run_id, ["look"])
    run = api.wait_for_run("trivial", run_id, seconds=120)

    assert sorted(cleared)[-1] == "look"
    assert run["state"] == "success"
    assert {task["task_id"]: task["try_number"] for task in api.tasks("trivial", run_id)} == {"look": 2, "grow": 2}


def test_a_failed_run_is_returned_and_its_reason_is_in_the_log(api: AirflowAPI) -> None:
    run_id = finished(api, "failing")

    assert api.run("failing", run_id)["state"] == "failed"
    assert "ValueError" in api.log("failing", run_id, "refuse")


def test_a_run_that_takes_too_long_tells_its_tasks(api: AirflowAPI) -> None:
    run_id = api.trigger("trivial")

    with pytest.raises(OutageError, match=rf"Run {run_id[:10]}.* of trivial is (queued|running) after 0 s; its tasks"):
        api.wait_for_run("trivial", run_id, seconds=0)
    api.wait_for_run("trivial", run_id)


def test_a_file_that_does_not_import_is_told_with_its_trace(services: Services, api: AirflowAPI) -> None:
    broken = services.dags_folder / "broken.py"
    broken.write_text("import airflow  # a dag\nraise RuntimeError('broken on purpose')\n")
    try:
        with pytest.raises(VerdictError, match=r"so never does not appear:\n.*broken\.py:\n(.*\n)*.*broken on purpose"):
            api.wait_for_dag("never", seconds=60)
    finally:
        broken.unlink()


def test_a_dag_that_nobody_wrote_does_not_appear(services: Services) -> None:
    with AirflowAPI(services.airflow_url, services.user, services.password) as client:
        deadline = time.monotonic() + 60
        while client.import_errors():  # of the test before
            assert time.monotonic() < deadline
            time.sleep(1)
        with pytest.raises(OutageError, match="DAG nobody did not appear in 1 s and no file has an import error"):
            client.wait_for_dag("nobody", seconds=1)


def test_what_airflow_refuses_is_told(api: AirflowAPI) -> None:
    with pytest.raises(VerdictError, match=r"refused POST /api/v2/dags/nobody/dagRuns: 404 .*nobody"):
        api.trigger("nobody")


def test_a_wrong_password_is_refused_without_telling_it(services: Services) -> None:
    with (
        AirflowAPI(services.airflow_url, services.user, "wrong-password") as client,
        pytest.raises(VerdictError, match="does not accept the login of 'admin'") as caught,
    ):
        client.import_errors()

    assert "wrong-password" not in str(caught.value)


def test_pages_of_a_run_have_an_address(services: Services, api: AirflowAPI) -> None:
    run_id = finished(api, "trivial")
    assert "+" in run_id, "Airflow's run ids need quoting"

    for address in (api.url_of("trivial"), api.url_of("trivial", run_id), api.url_of("trivial", run_id, "look")):
        answer = httpx.get(address, trust_env=False, follow_redirects=True)
        assert answer.status_code == 200
        assert "html" in answer.headers["content-type"]


def test_mlflow_keeps_an_artifact_that_is_sent_through_the_server(services: Services, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(services.mlflow_uri)
    run_id = client.create_run(client.create_experiment("artifacts")).info.run_id
    client.log_text(run_id, "kept", "note.txt")

    assert Path(client.download_artifacts(run_id, "note.txt", str(tmp_path))).read_text() == "kept"
    assert [path.read_text() for path in (services.home / "mlflow" / "artifacts").rglob("note.txt")] == ["kept"]


def test_all_components_run_and_an_old_heartbeat_is_not_health(services: Services) -> None:
    assert set(services.pids) == {"mlflow", *COMPONENTS}
    services.check()

    assert services._airflow_fault(datetime.now(UTC) - timedelta(hours=1)) is None
    # As after a restart over the same database, when the heartbeats of the earlier start still count as healthy.
    name, matter = services._airflow_fault(datetime.now(UTC) + timedelta(hours=1)) or ("", "")
    assert (name, matter) == ("scheduler", "the scheduler has sent no heartbeat yet")


def test_the_password_is_in_one_private_file_and_in_no_environment(services: Services) -> None:
    assert stat.S_IMODE(services.password_file.stat().st_mode) == 0o600
    assert json.loads(services.password_file.read_text()) == {services.user: services.password}
    assert services.password not in "".join(services.environment().values())


def test_a_started_service_refuses_a_second_start_in_its_folder(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VerdictError, match="are running already"):
        services.start()
    monkeypatch.setattr("airflow_mlops.cli.demo.services._LOCK_SECONDS", 0.5)
    with pytest.raises(OutageError, match="Another process runs its services in"):
        Services(services.home, services.dags_folder).start()
    with pytest.raises(OutageError, match="Another process runs its services in"):
        remove_home(services.home)
    services.check()


def test_nothing_survives_a_killed_owner_and_a_dead_scheduler_is_noticed(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "sleeping.py").write_text(SLEEPING_DAG)
    home = tmp_path / "home"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home), str(dags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        words = owner.stdout.readline().split()
        assert words[:1] == ["running"], owner.communicate(timeout=60)
        found = psutil.Process(owner.pid).children(recursive=True)
        assert any(process.name() == "sleep" for process in found), "the task's own child, in a session of its own"

        psutil.Process(int(words[1])).kill()
        noticed = owner.stdout.readline()
        found += [process for process in psutil.Process(owner.pid).children(recursive=True) if process not in found]
    finally:
        owner.kill()
        owner.communicate(timeout=20)

    assert noticed.startswith("noticed scheduler ended with signal 9. The end of "), noticed
    wait_until_gone(found)
    # And the folder can be used again at once: here, to be emptied.
    remove_home(home)
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_component_that_fails_is_named_with_its_log_and_everything_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    wrong = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////no/such/folder/airflow.db"}
    made = Services(tmp_path / "home", tmp_path / "dags", env=wrong)

    with pytest.raises(OutageError, match="airflow db migrate ended with exit code 1") as caught:
        made.start()

    assert "  | " in str(caught.value)
    assert "unable to open database file" in made.log_file("migrate").read_text()
    assert not [process for process in psutil.process_iter() if str(tmp_path) in " ".join(_command(process))]


def test_what_does_not_get_ready_in_time_is_named(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()

    with pytest.raises(OutageError, match=r"Airflow's database was not ready 0 s after the start: .*migrate\.log"):
        Services(tmp_path / "home", tmp_path / "dags", start_seconds=0).start()


def test_a_taken_port_is_refused_by_its_number(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = Services(tmp_path / "home", tmp_path / "dags", airflow_port=port)

        with pytest.raises(OutageError, match=f"Port {port} on 127.0.0.1, wanted for airflow, is taken"):
            made.start()
        assert not port_is_free(port)
        assert free_port(port) != port

    assert port_is_free(port)
    assert free_port(port) == port
    assert free_port(port, besides=[port]) != port


def test_before_the_start_there_is_no_address(tmp_path: Path) -> None:
    made = Services(tmp_path / "home", tmp_path / "dags")

    with pytest.raises(VerdictError, match="are not running; start"):
        print(made.airflow_url)
    with pytest.raises(VerdictError, match="are not running; start"):
        made.check()
    made.stop()


def test_an_airflow_that_is_gone_is_an_outage() -> None:
    with (
        AirflowAPI(f"http://127.0.0.1:{free_port()}", "admin", "x") as client,
        pytest.raises(OutageError, match="does not answer GET /api/v2/importErrors"),
    ):
        client.import_errors()


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
