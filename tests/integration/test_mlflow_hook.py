"""The hook against real servers, and the provider in a real Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from airflow_mlops.compat import AIRFLOW_3
from airflow_mlops.engines.login import Login
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import InvalidSpecError, TrackingRefusedError, TrackingUnavailableError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.provider_info import CONNECTION_FIELDS
from tests.support.airflow_versions import only_airflow_3
from tests.support.mlflow_server import (
    ADMIN,
    MLflowServer,
    dead_server,
    mlflow_server,
    refusing_server,
    stalled_server,
)

Connect = Callable[..., MLflowHook]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Define an Airflow connection and return its hook."""

    def make(conn_id: str = "mlflow_of_test", **fields: Any) -> MLflowHook:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "mlflow", **fields}))
        return MLflowHook(conn_id)

    return make


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A server with basic authentication and two users, ada and bob, who may change only what they made."""
    with mlflow_server(tmp_path_factory.mktemp("guarded"), basic_auth=True) as server:
        from mlflow.server.auth.client import AuthServiceClient

        with connected(TrackingServer(server.uri), Login(*ADMIN)):
            users = AuthServiceClient(server.uri)
            for name in ("ada", "bob"):
                users.create_user(name, f"password-of-{name}")
        yield server


# What a connection may hold


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        pytest.param({"host": "https://mlflow.example.com"}, "https://mlflow.example.com", id="a whole URI"),
        pytest.param({"host": "http://h:5000/ml/"}, "http://h:5000/ml/", id="with port and path"),
        pytest.param({"host": "http://h", "port": 5000}, "http://h:5000", id="port beside it"),
        pytest.param({"host": "http://h/ml", "port": 5000}, "http://h:5000/ml", id="port beside a path"),
        pytest.param({"host": "http://h:5000", "port": 5000}, "http://h:5000", id="port twice, equal"),
        pytest.param({"host": "h", "port": 5000, "schema": "http"}, "http://h:5000", id="host, port and scheme"),
        pytest.param({"host": "h", "schema": "https"}, "https://h", id="host and scheme"),
        pytest.param({"host": "sqlite:////x/mlflow.db"}, "sqlite:////x/mlflow.db", id="a local database"),
    ],
)
def test_the_tracking_uri(connect: Connect, fields: dict[str, Any], uri: str) -> None:
    assert connect(**fields).server().tracking_uri == uri


def test_the_settings(connect: Connect) -> None:
    extra = {
        "registry_uri": "http://registry:5000",
        "ca_path": "/ca.pem",
        "timeout_seconds": 3,
        "max_retries": 1,
        "ui_url": "http://ui",
    }

    hook = connect(host="http://h", extra=json.dumps(extra))

    assert hook.server() == TrackingServer("http://h", **extra)


def test_a_blank_field_of_the_form_means_the_default(connect: Connect) -> None:
    hook = connect(host="http://h", extra=json.dumps({"registry_uri": "", "timeout_seconds": None, "verify_tls": None}))

    assert hook.server() == TrackingServer("http://h")


def test_a_connection_given_as_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in a URI is text."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_BY_URI",
        "mlflow://ada:count%40ess@h:5000/https?verify_tls=false&timeout_seconds=2.5&max_retries=0",
    )
    hook = MLflowHook("by_uri")

    assert hook.server() == TrackingServer("https://h:5000", verify_tls=False, timeout_seconds=2.5, max_retries=0)
    assert hook.login() == Login("ada", "count@ess")


@pytest.mark.parametrize(
    ("fields", "login"),
    [
        pytest.param({"login": "ada", "password": "secret-1"}, Login("ada", "secret-1"), id="user and password"),
        pytest.param({"password": "secret-1"}, Login(token="secret-1"), id="a password alone is a token"),
        pytest.param({"login": "", "password": "secret-1"}, Login(token="secret-1"), id="an emptied user"),
        pytest.param({}, None, id="none"),
    ],
)
def test_the_login(connect: Connect, fields: dict[str, Any], login: Login | None) -> None:
    assert connect(host="http://h", **fields).login() == login


@pytest.mark.parametrize(
    ("fields", "mend"),
    [
        pytest.param({}, "its Host is empty", id="no host"),
        pytest.param({"host": "h"}, "it names no scheme", id="no scheme"),
        pytest.param({"host": "h", "schema": "ftp"}, "its Scheme is 'ftp'", id="another scheme"),
        pytest.param({"host": "http://h", "schema": "https"}, "empty Scheme", id="two schemes"),
        pytest.param({"host": "http://h:1", "port": 2}, "empty Port", id="two ports"),
        pytest.param({"host": "http://u:secret-1@h", "port": 2}, "User and Password", id="a login in the address"),
        pytest.param({"host": "http://h:x", "port": 2}, "must look like", id="a port that is none"),
        pytest.param({"host": "http://h", "login": "ada"}, "no password", id="a user without a password"),
        pytest.param({"extra": {"token": "secret-1"}}, "a token goes into Password", id="a token in Extra"),
        pytest.param({"extra": {"time_out": 1}}, "time_out", id="an unknown extra"),
        pytest.param({"extra": {"verify_tls": "maybe"}}, "true or false", id="no flag"),
        pytest.param({"extra": {"max_retries": [2]}}, "a number", id="no number"),
        pytest.param({"extra": {"timeout_seconds": "soon"}}, "a number", id="no seconds"),
        pytest.param({"extra": {"ca_path": 1}}, "text", id="no path"),
        pytest.param({"extra": {"max_retries": 99}}, "from 0 to 10", id="too many"),
    ],
)
def test_a_wrong_field_is_named_and_the_connection_too(connect: Connect, fields: dict[str, Any], mend: str) -> None:
    if "extra" in fields:
        fields = {"host": "http://h", "extra": json.dumps(fields["extra"])}
    hook = connect(**fields)

    with pytest.raises(InvalidSpecError, match=mend) as caught:
        _ = hook.server(), hook.login()

    assert "'mlflow_of_test'" in str(caught.value)
    assert "secret-1" not in str(caught.value)


def test_a_missing_connection_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT", raising=False)

    with pytest.raises(InvalidSpecError, match="airflow connections add mlflow_default --conn-type mlflow"):
        MLflowHook().server()


def test_a_client_is_not_handed_out_without_its_login(connect: Connect) -> None:
    with pytest.raises(InvalidSpecError, match="client"):
        connect(host="http://h").get_conn()


# Against a server


def test_the_test_button_says_version_and_user(connect: Connect, guarded: MLflowServer) -> None:
    ok, message = connect(host=guarded.uri, login="ada", password="password-of-ada").test_connection()

    assert ok, message
    assert "MLflow 3." in message
    assert "user 'ada'" in message
    assert "password-of-ada" not in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"login": "ada", "password": "wrong-one"}, "did not accept user 'ada' .401.", id="wrong password"),
        pytest.param({}, "did not accept an anonymous user .401.", id="no login"),
    ],
)
def test_the_test_button_says_what_is_wrong(
    connect: Connect, guarded: MLflowServer, fields: dict[str, Any], words: str
) -> None:
    ok, message = connect(host=guarded.uri, **fields).test_connection()

    assert not ok
    assert pytest.RaisesExc(Exception, match=words).matches(Exception(message)), message
    assert "wrong-one" not in message


def test_an_ambient_login_does_not_open_an_anonymous_connection(
    connect: Connect, guarded: MLflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])

    with pytest.raises(TrackingRefusedError), connect(host=guarded.uri).client() as client:
        client.search_experiments()


def test_two_connections_used_at_once_stay_apart(connect: Connect, guarded: MLflowServer, tmp_path: Path) -> None:
    hooks = {
        name: connect(f"of_{name}", host=guarded.uri, login=name, password=f"password-of-{name}")
        for name in ("ada", "bob")
    }
    together = threading.Barrier(2, timeout=60)

    def work(name: str) -> list[str]:
        """Make experiments, runs and artifacts, and read them back: whoever makes an experiment may change it."""
        made = []
        folder = tmp_path / name
        folder.mkdir()
        with hooks[name].client() as client:
            for number in range(3):
                together.wait()
                experiment = client.create_experiment(f"{name} {number} {time.monotonic_ns()}")
                run = client.create_run(experiment).info.run_id
                client.log_text(run, name, "sub/who.txt")
                found = client.download_artifacts(run, "sub/who.txt", str(folder))
                assert Path(found).read_text() == name
                made.append(experiment)
        return made

    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(hooks, pool.map(work, hooks), strict=True))

    for name, other in (("ada", "bob"), ("bob", "ada")):
        with hooks[name].client() as client:
            for experiment in made[name]:
                client.set_experiment_tag(experiment, "mine", "yes")
        for experiment in made[other]:
            with (
                pytest.raises(TrackingRefusedError, match=f"does not let user '{name}' do this"),
                hooks[name].client() as client,
            ):
                client.set_experiment_tag(experiment, "mine", "yes")


def test_nothing_is_left_in_the_environment_nor_given_to_children(connect: Connect, guarded: MLflowServer) -> None:
    hook = connect(host=guarded.uri, login="ada", password="password-of-ada")
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}
    with hook.client() as client:
        client.search_experiments()
        code = "import os; print({k: v for k, v in os.environ.items() if not k.startswith('AIRFLOW_CONN')})"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "MLFLOW_TRACKING_AUTH" in child
    assert "password-of-ada" not in child
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")} == before


# Dead, refused, stalled


def ask(uri: str, folder: Path) -> None:
    with connected(TrackingServer(uri)) as client:
        client.search_experiments()


def upload(uri: str, folder: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    (folder / "a").write_text("a")
    with connected(TrackingServer(uri)):
        get_artifact_repository(f"{uri}/api/2.0/mlflow-artifacts/artifacts/x").log_artifact(str(folder / "a"))


def fetch(uri: str, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts

    with connected(TrackingServer(uri)):
        download_artifacts(artifact_uri=f"{uri}/api/2.0/mlflow-artifacts/artifacts/x", dst_path=str(folder))


def test_servers_that_do_not_answer_fail_within_the_default_budget(tmp_path: Path) -> None:
    """All at once, since equal settings share the process: the whole takes as long as the slowest."""

    def time_it(call: Callable[[str, Path], None], uri: str) -> tuple[float, str]:
        started = time.monotonic()
        with pytest.raises(TrackingUnavailableError) as caught:
            call(uri, tmp_path)
        return time.monotonic() - started, str(caught.value)

    with ExitStack() as stack, ThreadPoolExecutor(9) as pool:
        uris = {
            "cannot be reached": stack.enter_context(dead_server()),
            "nothing listens": stack.enter_context(refusing_server()),
            "did not answer within 10 seconds": stack.enter_context(stalled_server()),
        }
        running = {
            (words, call.__name__): pool.submit(time_it, call, uri)
            for words, uri in uris.items()
            for call in (ask, upload, fetch)
        }
        results = {case: future.result() for case, future in running.items()}

    for (words, call), (seconds, message) in results.items():
        assert seconds < 45, (words, call)
        assert words in message, (call, message)
        assert uris[words] in message
        assert "Check" in message


# In Airflow


def airflow(*arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    own = {"AIRFLOW_HOME": str(folder), "PYTHONWARNINGS": "default", "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    own["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{folder}/airflow.db"
    command = [sys.executable, "-m", "airflow", *arguments]
    return subprocess.run(command, env=os.environ | own | env, capture_output=True, text=True, check=False)


def about_us(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The warnings and errors in an output that name this package; the table asked for is one line of JSON."""
    lines = [line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("[{")]
    return [line for line in lines if "mlops" in line.lower() and ("warn" in line.lower() or "error" in line.lower())]


def test_airflow_shows_the_provider_and_its_hook_without_a_warning(tmp_path: Path) -> None:
    provider = airflow("providers", "get", "airflow-mlops", "--full", "-o", "json", folder=tmp_path)
    hooks = airflow("providers", "hooks", "-o", "json", folder=tmp_path)

    assert provider.returncode == 0, provider.stderr
    assert "airflow_mlops.hooks.mlflow" in provider.stdout
    ours = [hook for hook in json.loads(hooks.stdout[hooks.stdout.index("[") :]) if hook["connection_type"] == "mlflow"]
    assert [(hook["class"], hook["conn_id_attribute_name"]) for hook in ours] == [
        ("airflow_mlops.hooks.mlflow.MLflowHook", "mlflow_conn_id")
    ]
    assert about_us(provider) == []
    assert about_us(hooks) == []


def test_airflows_own_connection_test(tmp_path: Path, guarded: MLflowServer) -> None:
    fields = {"conn_type": "mlflow", "host": guarded.uri, "login": "ada", "password": "password-of-ada"}
    result = airflow(
        "connections",
        "test",
        "mlflow_tested",
        folder=tmp_path,
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        AIRFLOW_CONN_MLFLOW_TESTED=json.dumps(fields),
    )

    assert "Connection success" in result.stdout, result.stdout + result.stderr
    assert "password-of-ada" not in result.stdout + result.stderr


@only_airflow_3
def test_the_form_of_the_connections_page() -> None:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (ours,) = [meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "mlflow"]

    assert ours.hook_name == "MLflow"
    assert ours.extra_fields is not None
    assert list(ours.extra_fields) == list(CONNECTION_FIELDS)
    assert ours.extra_fields["verify_tls"]["schema"]["type"] == ["boolean", "null"]
    assert ours.standard_fields is not None
    assert ours.standard_fields.host is not None
    assert ours.standard_fields.host.title == "Tracking URI"


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 makes its form of stand-ins: the tests beside this one")
def test_the_form_of_airflow_2() -> None:
    from airflow.providers_manager import ProvidersManager
    from flask import Flask
    from flask_babel import Babel
    from wtforms import Form

    manager = ProvidersManager()
    ours = {name: info for name, info in manager.connection_form_widgets.items() if "__mlflow__" in name}
    webserver = Flask("form")
    Babel(webserver)  # as Airflow's own has it: labels are translated there
    with webserver.test_request_context():
        form = type("F", (Form,), {name: info.field for name, info in ours.items()})()
        labels = {name.removeprefix("extra__mlflow__"): str(field.label.text) for name, field in form._fields.items()}

    assert labels == {name: described["label"] for name, described in CONNECTION_FIELDS.items()}
    assert manager.field_behaviours["mlflow"]["relabeling"]["host"] == "Tracking URI"
    assert not any(info.is_sensitive for info in ours.values())


@only_airflow_3
def test_the_form_before_airflow_3_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.0 and 3.1 call the hook with stand-ins for the form library; 2.11 has the library itself."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService as Stand

    forms = MagicMock(BooleanField=Stand.MockBooleanField, IntegerField=Stand.MockIntegerField)
    forms.StringField = Stand.MockStringField
    modules = {"wtforms": forms, "wtforms.validators": MagicMock(Optional=Stand.MockOptional)}
    modules |= {"flask_babel": MagicMock(lazy_gettext=str), "flask_appbuilder": MagicMock()}
    for name, module in (modules | {"flask_appbuilder.fieldwidgets": MagicMock()}).items():
        monkeypatch.setitem(sys.modules, name, module)

    widgets = MLflowHook.get_connection_form_widgets()

    assert {name: widget.param.dump()["schema"]["title"] for name, widget in widgets.items()} == {
        name: described["label"] for name, described in CONNECTION_FIELDS.items()
    }
    assert widgets["max_retries"].param.dump()["value"] == 2
    assert MLflowHook.get_ui_field_behaviour()["relabeling"]["password"] == "Password or token"
