"""What every runtime keeps: the record, the retry, the kinds of errors, the secrets, the log, and the end."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops import Window, load_spec, run_training
from airflow_mlops.engines.login import Login
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.errors import (
    DataReadError,
    MissingEngineError,
    MLOpsError,
    StorageUnavailableError,
    TrackingRefusedError,
)
from airflow_mlops.runtimes import make_runtime
from tests.support.runtimes import Runs, descendants, files_with, is_alive, shown_by, steps_python, wait_until
from tests.support.small_model import write_small_model

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer


LOOP = """
import json, sys
from airflow_mlops import Access, TrackingServer, Window, load_spec, run_training
from airflow_mlops.steps import pipeline

real, ran = pipeline.perform, []
pipeline.perform = lambda request, access: ran.append(request.step) or real(request, access)
outcome = run_training(
    load_spec(sys.argv[1]),
    window=Window(start="2024-02-01", end="2024-03-01"),
    access=Access(server=TrackingServer(tracking_uri=sys.argv[2])),
)
print(json.dumps({**outcome.to_json(), "ran": ran, "has_airflow": "airflow" in sys.modules}))
"""


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A server that answers nobody without a login."""
    from tests.support.mlflow_server import mlflow_server

    with mlflow_server(tmp_path_factory.mktemp("guarded"), basic_auth=True) as server:
        yield server


def test_the_record_comes_back_and_a_retry_adopts_it(runs: Runs) -> None:
    from mlflow import MlflowClient

    make_runtime(runs.name, runs.settings).stop()  # nothing runs there: nothing happens
    first = runs.run(text="ünïcode\nand two lines")
    assert runs.runtime is not None
    runs.runtime.stop()  # nothing runs there any more
    again = runs.run(text="ünïcode\nand two lines")

    assert first.text == "ünïcode\nand two lines"
    assert again == first  # the process number too: the step did not run twice
    assert MlflowClient(runs.uri).get_run(first.run_id).info.status == "FINISHED"


def test_errors_keep_their_kind(runs: Runs) -> None:
    with pytest.raises(DataReadError, match=r"^the file is gone$") as verdict:
        runs.run("verdict", "a", text="the file is gone")
    with pytest.raises(StorageUnavailableError, match=r"^the store is away$") as outage:
        runs.run("outage", "b", text="the store is away")
    with pytest.raises(Exception, match="nobody thought of this") as unforeseen:
        runs.run("unforeseen", "c", text="nobody thought of this")

    assert verdict.type is DataReadError
    assert outage.type is StorageUnavailableError
    assert not issubclass(unforeseen.type, MLOpsError)
    if unforeseen.type is not ZeroDivisionError:
        assert "ZeroDivisionError" in str(unforeseen.value)


def test_what_is_printed_does_not_get_into_the_record(runs: Runs) -> None:
    assert runs.run("print", text="the record").text == "the record"


def test_log_lines_arrive_while_the_step_runs(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with runs.under_way() as ended:
        wait_until(lambda: "waiting for go" in caplog.messages, "the line arrives", 120)
        assert not ended
        line = next(record for record in caplog.records if record.getMessage() == "waiting for go")
        assert (line.name, line.levelname) == ("probe_step", "INFO")
    assert ended[0].text == ""


def test_secrets_reach_the_step_and_nothing_else(
    runs: Runs, guarded_server: MLflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.mlflow_server import ADMIN

    runs.uri = guarded_server.uri
    user, password = ADMIN
    runs.login = Login(username=user, password=password)
    store = StorageAccess(kind="s3", secret_key="store-secret-0815", endpoint_url="http://store.example.com")
    runs.storage = {"my_store": store, None: None}.__getitem__
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    payload = {"data": {"conn_id": "my_store"}}

    with runs.under_way(**payload) as ended:
        step, grandchild = runs.pids()
        processes = {os.getpid(), step, grandchild} | (descendants(step) if step != os.getpid() else set())
        shown = b"".join(shown_by(pid) for pid in processes)
        on_disk = [*files_with(scratch, password.encode()), *files_with(scratch, b"store-secret-0815")]
    assert ended[0].storage == "http://store.example.com"
    assert b"probe_step" in shown or step == os.getpid()
    assert password.encode() not in shown
    assert b"store-secret-0815" not in shown
    assert on_disk == []
    assert list(scratch.iterdir()) == []

    runs.login = None
    with pytest.raises(TrackingRefusedError):
        runs.run(task="anonymous")


def test_stop_ends_the_step_and_its_processes(apart: Runs) -> None:
    from mlflow import MlflowClient

    with apart.under_way() as ended:
        pids = apart.pids()
        assert apart.runtime is not None
        apart.runtime.stop()
        apart.runtime.stop()
        wait_until(lambda: ended, "run() comes back", 30)
        assert not apart.go.exists()
    wait_until(lambda: not any(map(is_alive, pids)), "the processes are gone", 30)

    assert isinstance(ended[0], Exception)
    assert not isinstance(ended[0], MLOpsError)
    assert "stopped" in str(ended[0])
    client = MlflowClient(apart.uri)
    experiment = client.get_experiment_by_name(apart.experiment)
    assert experiment is not None
    # The step was asked before it was made to: it had the time to say so in MLflow.
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FAILED"}


class TestExternalPython:
    """What only this runtime promises."""

    @pytest.fixture
    def external(self, make_runs: Any) -> Runs:
        made: Runs = make_runs("external_python")
        return made

    def test_the_interpreter_has_no_airflow_and_the_log_tells_what_was_printed(
        self, external: Runs, caplog: pytest.LogCaptureFixture
    ) -> None:
        import subprocess

        tried = subprocess.run([steps_python(), "-c", "import airflow"], capture_output=True, text=True, check=False)
        assert "No module named 'airflow'" in tried.stderr
        caplog.set_level(logging.INFO)

        record = external.run("print")

        assert not record.has_airflow
        assert record.process != os.getpid()
        lines = {(line.name, line.levelname, line.getMessage()) for line in caplog.records}
        printed = "airflow_mlops.steps.output"
        assert (printed, "INFO", '{"schema": "probe/1", "text": "not the record"}') in lines
        assert (printed, "INFO", "half a line, and its other half") in lines
        assert (printed, "INFO", "past Python: \ufffd\ufffd") in lines
        assert ("probe_step", "WARNING", "a record in between") in lines
        assert any(name == "py.warnings" and "a library complains" in text for name, _, text in lines)
        (huge,) = (text for _, _, text in lines if text.startswith("xxx"))
        assert len(huge) < 70_000
        assert "bytes of this line were left out" in huge

    def test_a_missing_module_names_the_interpreter_and_the_mend(self, external: Runs) -> None:
        with pytest.raises(MissingEngineError, match="a_library_that_nobody_has") as caught:
            external.run("module")

        text = str(caught.value)
        assert f"{steps_python()} -m pip install --no-deps -r " in text
        assert Path(text.partition("-r ")[2].partition(";")[0]).is_file()

    def test_a_process_that_vanishes_is_named_with_what_it_said_last(self, external: Runs) -> None:
        with pytest.raises(RuntimeError, match=r"exit code 3 .*The last line it printed: good-bye"):
            external.run("exit", text="good-bye")

    def test_an_interpreter_without_the_package_gets_the_commands(self, external: Runs) -> None:
        import venv

        bare = external.folder / "bare"
        venv.create(bare, symlinks=True)
        external.settings = {"python": str(bare / "bin" / "python")}

        with pytest.raises(MissingEngineError, match="has no airflow-mlops") as caught:
            external.run()

        assert f"{bare}/bin/python -m pip install --no-deps airflow-mlops==" in str(caught.value)
        assert f"{bare}/bin/python -m pip install --no-deps -r " in str(caught.value)

    def test_the_whole_loop_runs_without_airflow_and_its_records_are_adopted(
        self, external: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import subprocess

        from airflow_mlops.steps import pipeline

        path = write_small_model(tmp_path / "team", f"apart_{uuid.uuid4().hex[:8]}", serving=True)
        done = subprocess.run(
            [steps_python(), "-c", LOOP, str(path), external.uri], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        there = json.loads(done.stdout.splitlines()[-1])
        assert there["ran"][0] == "plan"
        assert {"snapshot", "validate", "train", "evaluate", "serving", "gate", "register", "promote"} <= {
            *there["ran"]
        }
        assert there["promotion"]["outcome"] == "promoted"
        assert not there["has_airflow"]

        # The same window again, with the training there and the rest here: everything exists already.
        def perform(request: Any, access: Any) -> Any:
            name = "external_python" if request.step == "train" else "inline"
            return make_runtime(name, {"python": steps_python()} if name == "external_python" else {}).run(
                request, access
            )

        monkeypatch.setattr(pipeline, "perform", perform)
        again = run_training(
            load_spec(path),
            window=Window(start="2024-02-01", end="2024-03-01"),
            access=external.access,
            promote=False,
        )
        assert again.model is not None
        assert again.model.to_xcom() == there["model"]
