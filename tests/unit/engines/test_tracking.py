"""The settings of a server, the environment they live in while connected, and what errors turn into."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.engines import tracking
from airflow_mlops.engines.login import Login
from airflow_mlops.engines.tracking import (
    TrackingServer,
    artifact_page,
    connected,
    run_page,
    server_version,
    telemetry_off,
    translate_errors,
    version_page,
)
from airflow_mlops.engines.tracking_errors import is_outage
from airflow_mlops.errors import (
    InvalidSpecError,
    MissingEngineError,
    OutageError,
    TrackingRefusedError,
    TrackingUnavailableError,
    UnknownNameError,
)
from tests.support.http_server import Answer, mlflow_error, scripted_server, self_signed

HTTP = "http://mlflow.example.com:5000"
FAST: dict[str, Any] = {"timeout_seconds": 1, "max_retries": 0}


def environment() -> dict[str, str]:
    """What matters here: pytest changes variables of its own all the time."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}


@pytest.fixture(autouse=True)
def environment_is_put_back() -> Iterator[None]:
    telemetry_off()  # stays set, on purpose
    before = environment()
    yield
    assert environment() == before


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        pytest.param({"tracking_uri": ""}, "http://host:port", id="empty"),
        pytest.param({"tracking_uri": "mlflow.example.com"}, "without a scheme", id="no scheme"),
        pytest.param({"tracking_uri": "file:/tmp/mlruns"}, "migrate-filestore", id="a folder of files"),
        pytest.param({"tracking_uri": "databricks://me"}, "was not tried with", id="another kind of server"),
        pytest.param({"tracking_uri": "postgresql://u:pw@host/db"}, "User and Password", id="a database with a login"),
        pytest.param({"tracking_uri": "https://u:pw@host"}, "User and Password", id="a login in the address"),
        pytest.param({"tracking_uri": "http://"}, "must look like", id="no host"),
        pytest.param({"tracking_uri": "http://host:port"}, "must look like", id="no number for the port"),
        pytest.param({"tracking_uri": "http://host/?a=b"}, "no [?] or # part", id="a query"),
        pytest.param({"registry_uri": "databricks-uc"}, "registry_uri", id="registry of another kind"),
        pytest.param({"ui_url": "sqlite:///x"}, "ui_url", id="a page is no file"),
        pytest.param({"verify_tls": "no"}, "true or false", id="text for a flag"),
        pytest.param({"verify_tls": False, "ca_path": "/x.pem"}, "drop ca_path", id="a CA that is not used"),
        pytest.param({"timeout_seconds": 0}, "from 1 to 3600", id="no time"),
        pytest.param({"timeout_seconds": float("nan")}, "from 1 to 3600", id="NaN seconds"),
        pytest.param({"timeout_seconds": "10"}, "a number", id="text for seconds"),
        pytest.param({"timeout_seconds": True}, "a number", id="a flag for seconds"),
        pytest.param({"max_retries": 11}, "from 0 to 10", id="more retries than MLflow allows"),
        pytest.param({"max_retries": 1.5}, "a whole number", id="half a retry"),
    ],
)
def test_what_a_server_cannot_be(values: dict[str, Any], mend: str) -> None:
    with pytest.raises(InvalidSpecError, match=mend) as caught:
        TrackingServer(**{"tracking_uri": HTTP} | values)

    assert "pw" not in str(caught.value)


def test_a_server_travels_as_json_and_by_pickle() -> None:
    server = TrackingServer(HTTP, registry_uri="https://registry.example.com", ca_path="/ca.pem", ui_url="https://ui")

    assert TrackingServer.from_dict(json.loads(json.dumps(server.to_dict()))) == server
    assert pickle.loads(pickle.dumps(server)) == server  # made on the same line


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'max_retries'"):
        TrackingServer.from_dict({"tracking_uri": HTTP, "max_retrys": 1})


def test_a_server_without_an_address_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match="tracking_uri"):
        TrackingServer.from_dict({"max_retries": 1})


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        pytest.param({}, 32, id="by default under a minute"),
        pytest.param({"max_retries": 0}, 10, id="one attempt"),
        pytest.param({"max_retries": 1}, 20, id="the first retry follows at once"),
        pytest.param({"timeout_seconds": 1.2, "max_retries": 4}, 5 * 2 + 2 + 4 + 8, id="whole seconds, growing pauses"),
    ],
)
def test_the_budget_of_one_request(values: dict[str, Any], seconds: float) -> None:
    assert TrackingServer(HTTP, **values).budget_seconds == seconds


def test_settings_are_in_the_environment_only_while_connected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_TRACKING_AUTH", raising=False)
    server = TrackingServer(HTTP, ca_path=str(tmp_path / "ca.pem"), timeout_seconds=1.5, max_retries=3)

    with connected(server, Login("ada", "countess-secret")):
        inside = dict(os.environ)

    assert inside["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "2"
    assert inside["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert inside["MLFLOW_TRACKING_SERVER_CERT_PATH"] == str(tmp_path / "ca.pem")
    assert inside["MLFLOW_TRACKING_AUTH"] == "airflow_mlops"
    assert "secret" not in json.dumps(inside)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_TRACKING_AUTH" not in os.environ


def test_settings_are_put_back_after_an_error() -> None:
    with pytest.raises(KeyError, match="mine"), connected(TrackingServer(HTTP)):
        raise KeyError("mine")  # the fixture looks at the environment


def test_a_child_process_inherits_no_secret() -> None:
    code = "import os; print(dict(os.environ), flush=True)"
    with connected(TrackingServer(HTTP), Login("ada", "countess-secret")):
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "MLFLOW_TRACKING_AUTH" in child.stdout
    assert "countess-secret" not in child.stdout


def test_a_missing_ca_bundle_is_named() -> None:
    with (
        pytest.raises(InvalidSpecError, match=r"no CA bundle at '/nowhere\.pem'"),
        connected(TrackingServer(HTTP, ca_path="/nowhere.pem")),
    ):
        pass


def test_equal_settings_are_shared_by_threads_and_nested() -> None:
    inside = threading.Barrier(2, timeout=20)

    def meet(uri: str) -> None:
        with connected(TrackingServer(uri)), connected(TrackingServer(HTTP)):
            inside.wait()  # both are in, or the barrier breaks

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(meet, "http://one.example.com"), pool.submit(meet, "http://two.example.com")]:
            done.result()


def test_unequal_settings_wait_for_each_other() -> None:
    order: list[str] = []
    held, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with connected(TrackingServer(HTTP, timeout_seconds=5)):
            held.set()
            may_end.wait(20)
            order.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])

    def second() -> None:
        held.wait(20)
        threading.Timer(0.3, may_end.set).start()
        with connected(TrackingServer(HTTP, timeout_seconds=7)):
            order.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert order == ["5", "7"]


def test_waiting_for_other_settings_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "MAX_WAIT_SECONDS", 0.2)

    def other() -> None:
        with connected(TrackingServer(HTTP, timeout_seconds=7)):
            pass

    with (
        connected(TrackingServer(HTTP)),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(OutageError, match="same settings"),
    ):
        pool.submit(other).result()


def test_unequal_settings_do_not_nest() -> None:
    with (
        connected(TrackingServer(HTTP)),
        pytest.raises(InvalidSpecError, match="they differ in MLFLOW_HTTP_REQUEST_TIMEOUT"),
        connected(TrackingServer(HTTP, timeout_seconds=7)),
    ):
        pass


def test_a_forked_child_may_connect() -> None:
    with connected(TrackingServer(HTTP)):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with connected(TrackingServer(HTTP)):
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_client_ignores_ambient_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ambient.example.com")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://ambient.example.com")

    with scripted_server() as server, connected(TrackingServer(server.uri)) as client:
        client.search_experiments()
        client.search_registered_models()

    assert len(server.requests) == 2


def test_a_local_database_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts
    server = TrackingServer(f"sqlite:///{tmp_path / 'mlflow.db'}")

    with connected(server) as client:
        run = client.create_run(client.create_experiment("notebook"))
        client.log_metric(run.info.run_id, "auc", 0.7)
        client.create_registered_model("flights")

        assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.7}
        assert [model.name for model in client.search_registered_models()] == ["flights"]
        assert server_version(server)[0].isdigit()


def test_a_local_database_takes_no_login(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidSpecError, match="asks for none"),
        connected(TrackingServer(f"sqlite:///{tmp_path / 'mlflow.db'}"), Login("ada", "x")),
    ):
        pass


def test_a_local_database_needs_the_full_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise tracking.PackageNotFoundError(name)

    monkeypatch.setattr(tracking, "distribution", none)
    with (
        pytest.raises(MissingEngineError, match=r"pip install 'airflow-mlops\[mlflow\]'"),
        connected(TrackingServer(f"sqlite:///{tmp_path / 'mlflow.db'}")),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        pytest.param(Answer(401, "who are you?"), TrackingRefusedError, "user 'ada' .401.", id="401"),
        pytest.param(Answer(403, "no"), TrackingRefusedError, "does not let user 'ada' do this", id="403"),
        pytest.param(
            mlflow_error(403, "PERMISSION_DENIED"), TrackingRefusedError, "403", id="403 in MLflow's own words"
        ),
        pytest.param(mlflow_error(500, "INTERNAL_ERROR"), TrackingUnavailableError, "answered 500", id="500"),
        pytest.param(Answer(503, "down"), TrackingUnavailableError, "answered 503 .unavailable.", id="503"),
        pytest.param(Answer(502, "<html>"), TrackingUnavailableError, "bad gateway", id="502 of a proxy"),
        pytest.param(
            Answer(429, "", {"Retry-After": "3600"}), TrackingUnavailableError, "429", id="429, without its hour's wait"
        ),
        pytest.param(Answer(404, "<html>"), TrackingRefusedError, "not as an MLflow server", id="some other server"),
        pytest.param(Answer(200, "<html>Sign in"), TrackingRefusedError, "sign-in page", id="a sign-in page"),
    ],
)
def test_what_answers_turn_into(answer: Answer, kind: type[Exception], words: str) -> None:
    with (
        scripted_server(lambda request: answer) as server,
        pytest.raises(kind, match=words) as caught,
        connected(TrackingServer(server.uri, **FAST), Login("ada", "x")) as client,
    ):
        client.get_run("1")

    assert server.uri in str(caught.value)


@pytest.mark.parametrize("code", ["RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"])
def test_mlflows_own_answers_pass_through(code: str) -> None:
    from mlflow.exceptions import MlflowException

    status = 404 if code == "RESOURCE_DOES_NOT_EXIST" else 400
    with (
        scripted_server(lambda request: mlflow_error(status, code)) as server,
        pytest.raises(MlflowException) as caught,
        connected(TrackingServer(server.uri, **FAST)) as client,
    ):
        client.get_run("1")

    assert caught.value.error_code == code


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        pytest.param(Answer(stall=True), TrackingUnavailableError, "within 1 seconds", id="a file that never comes"),
        pytest.param(Answer(401, "no"), TrackingRefusedError, "401", id="a file that is refused"),
        pytest.param(Answer(503, "no"), TrackingUnavailableError, "503", id="a store that is down"),
    ],
)
def test_a_download_fails_as_clearly(answer: Answer, kind: type[Exception], words: str, tmp_path: Path) -> None:
    """MLflow joins the errors of its download threads into one text."""
    from mlflow.artifacts import download_artifacts

    listing = Answer(body='{"files": [{"path": "a", "is_dir": false, "file_size": 1}]}')
    with (
        scripted_server(lambda request: listing if "path=" in request.path else answer) as server,
        pytest.raises(kind, match=words),
        connected(TrackingServer(server.uri, **FAST)),
    ):
        download_artifacts(artifact_uri=f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/x", dst_path=str(tmp_path))


def test_an_upload_that_is_refused_is_clear(tmp_path: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    (tmp_path / "a").write_text("a")
    with (
        scripted_server(lambda request: Answer(403, "no")) as server,
        pytest.raises(TrackingRefusedError, match="403"),
        connected(TrackingServer(server.uri, **FAST)),
    ):
        get_artifact_repository(f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/x").log_artifact(str(tmp_path / "a"))


def test_an_unknown_host_is_named() -> None:
    server = TrackingServer("http://no-such-host.invalid:5000", **FAST)

    with (
        pytest.raises(TrackingUnavailableError, match=r"the name 'no-such-host\.invalid' is not known"),
        connected(server) as client,
    ):
        client.search_experiments()


def test_a_server_that_comes_back_is_used_again() -> None:
    """MLflow keeps connections open for the next request; a dead one must not fail it."""
    with scripted_server() as before, connected(TrackingServer(before.uri)) as client:
        client.search_experiments()
    server = TrackingServer(before.uri, **FAST)
    with pytest.raises(TrackingUnavailableError, match="nothing listens"), connected(server) as client:
        client.search_experiments()
    with scripted_server(port=int(before.uri.rpartition(":")[2])) as after, connected(server) as client:
        assert client.search_experiments() == []

    assert len(after.requests) == 1


def test_tls_spoken_to_a_plain_server_is_no_outage() -> None:
    with scripted_server() as plain:
        server = TrackingServer(plain.uri.replace("http:", "https:"), **FAST)
        with pytest.raises(TrackingRefusedError, match="http://"), connected(server) as client:
            client.search_experiments()


def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, trusted = self_signed(tmp_path)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")  # ambient: must not switch the check off

    with scripted_server(certificate=certificate) as server:
        with (
            pytest.raises(TrackingRefusedError, match="Set `ca_path`"),
            connected(TrackingServer(server.uri, **FAST)) as client,
        ):
            client.search_experiments()
        with connected(TrackingServer(server.uri, ca_path=str(trusted))) as client:
            assert client.search_experiments() == []
        with pytest.warns(match="Unverified HTTPS"), connected(TrackingServer(server.uri, verify_tls=False)) as client:
            assert client.search_experiments() == []


def test_a_failing_download_of_somebody_elses_is_not_blamed_on_mlflow() -> None:
    import requests

    with pytest.raises(requests.ConnectionError), translate_errors(TrackingServer(HTTP)):
        requests.get("http://127.0.0.1:9/weather.csv", timeout=1)


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), translate_errors(TrackingServer(HTTP)):
        _ = 1 / 0


def test_an_outage_can_be_told_before_it_is_translated() -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with connected(TrackingServer("http://127.0.0.1:9", **FAST)), pytest.raises(MlflowException) as caught:
        MlflowClient("http://127.0.0.1:9").search_experiments()

    assert is_outage(caught.value)
    assert not is_outage(MlflowException("a metric is not a number"))
    assert not is_outage(OSError("disk full"))


@pytest.mark.parametrize(
    ("ambient", "expected"),
    [
        pytest.param({}, "true", id="off by default"),
        pytest.param({"MLFLOW_DISABLE_TELEMETRY": "false"}, "false", id="the user wants it"),
        pytest.param({"DO_NOT_TRACK": "false"}, None, id="the user has decided by the common switch"),
    ],
)
def test_usage_reports(ambient: dict[str, str], expected: str | None) -> None:
    code = (
        "import os; from airflow_mlops.engines.tracking import telemetry_off; telemetry_off();"
        "print(os.environ.get('MLFLOW_DISABLE_TELEMETRY'))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")}
    out = subprocess.run([sys.executable, "-c", code], env=clean | ambient, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == str(expected)


def test_pages() -> None:
    server = TrackingServer(f"{HTTP}/")

    assert run_page(server, "r1") == f"{HTTP}/#/runs/r1"
    assert run_page(server, "r1", "7") == f"{HTTP}/#/experiments/7/runs/r1"
    assert version_page(server, "flights a/b", 3) == f"{HTTP}/#/models/flights%20a%2Fb/versions/3"
    assert artifact_page(server, "r1", "sub dir/a.html", "7") == (
        f"{HTTP}/#/experiments/7/runs/r1/artifacts/sub%20dir/a.html"
    )
    assert artifact_page(server, "r1", "a.html") == f"{HTTP}/#/experiments/0/runs/r1/artifacts/a.html"


def test_pages_are_where_people_open_mlflow() -> None:
    local = TrackingServer("sqlite:////x.db")

    assert (
        run_page(TrackingServer(HTTP, ui_url="https://ui.example.com/ml"), "r") == "https://ui.example.com/ml/#/runs/r"
    )
    assert run_page(local, "r") == ""
    assert version_page(TrackingServer("sqlite:////x.db", ui_url="http://localhost:5000"), "m", 1).startswith(
        "http://l"
    )
