"""Who requests are sent as: contexts and threads stay apart, and nothing ambient or foreign is sent."""

from __future__ import annotations

import base64
import contextvars
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_mlops.engines.login import PROVIDER, Login, SignRequest, acting_as, origin_of
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import InvalidSpecError
from tests.support.http_server import Answer, Request, ScriptedServer, scripted_server

ADA = Login(username="ada", password="countess-secret")
TOKEN = Login(token="token-secret")
SERVER = "http://mlflow.example.com:5000"


def signed(url: str = f"{SERVER}/api", **headers: str) -> requests.PreparedRequest:
    return requests.Request("GET", url, headers=headers, auth=SignRequest()).prepare()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.mark.parametrize("login", [pytest.param(ADA, id="password"), pytest.param(TOKEN, id="token")])
def test_a_login_does_not_show_its_secret(login: Login) -> None:
    shown = f"{login!r} {login} {login.name} {[login]!r}"

    assert "secret" not in shown


def test_a_login_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(ADA)) == ADA  # made on the same line


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        pytest.param({}, "both a user and a password", id="nothing"),
        pytest.param({"username": "ada"}, "both a user and a password", id="no password"),
        pytest.param({"password": "x"}, "both a user and a password", id="no user"),
        pytest.param({"username": "a", "password": "x", "token": "t"}, "not both", id="both kinds"),
        pytest.param({"token": ""}, "copy it again", id="empty token"),
        pytest.param({"token": "Bearer abc"}, "without the word 'Bearer'", id="token with its scheme"),
        pytest.param({"token": "abc\r\nX-Evil: 1"}, "line break", id="a token that smuggles a header"),
        pytest.param({"username": "a:b", "password": "x"}, "colon", id="a colon ends the user name"),
    ],
)
def test_half_a_login_is_refused(values: dict[str, str], mend: str) -> None:
    with pytest.raises(InvalidSpecError, match=mend):
        Login(**values)


def test_a_refused_token_is_not_in_the_message() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        Login(token="my secret")

    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("login", "header"),
    [
        pytest.param(ADA, basic("ada", "countess-secret"), id="password"),
        pytest.param(Login("ünal", "pässwörd€"), basic("ünal", "pässwörd€"), id="beyond Latin-1, sent as UTF-8"),
        pytest.param(Login("ada", "with:colon"), basic("ada", "with:colon"), id="a password may hold a colon"),
        pytest.param(TOKEN, "Bearer token-secret", id="token"),
    ],
)
def test_a_request_carries_the_login_of_its_context(login: Login, header: str) -> None:
    with acting_as(login, SERVER):
        assert signed().headers["Authorization"] == header


def test_without_a_connection_of_ours_a_request_stays_as_it_is() -> None:
    assert signed(Authorization="Basic theirs").headers["Authorization"] == "Basic theirs"


def test_an_anonymous_connection_drops_an_ambient_login() -> None:
    with acting_as(None, SERVER):
        assert "Authorization" not in signed(Authorization="Basic ambient").headers


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://elsewhere.example.com:5000/x", id="other host"),
        pytest.param("http://mlflow.example.com:5001/x", id="other port"),
        pytest.param("https://mlflow.example.com:5000/x", id="other scheme"),
        pytest.param("http://mlflow.example.com:5000@evil.example.com/x", id="the host as a user name"),
    ],
)
def test_a_login_goes_to_its_own_server_only(url: str) -> None:
    with acting_as(ADA, SERVER):
        assert "Authorization" not in signed(url, Authorization="Basic ambient").headers


def test_a_login_goes_to_the_registry_too() -> None:
    with acting_as(ADA, SERVER, "https://registry.example.com"):
        assert "Authorization" in signed("https://registry.example.com:443/x").headers


def test_a_session_cookie_of_another_user_is_not_sent() -> None:
    with acting_as(ADA, SERVER):
        assert "Cookie" not in signed(Cookie="session=of-bob").headers


def test_connections_nest_and_end() -> None:
    with acting_as(ADA, SERVER):
        with acting_as(TOKEN, SERVER):
            assert signed().headers["Authorization"].startswith("Bearer")
        assert signed().headers["Authorization"].startswith("Basic")

    assert "Authorization" not in signed().headers


@pytest.mark.parametrize(
    ("uri", "origin"),
    [
        pytest.param("http://Host/path", "http://host:80", id="default port and case"),
        pytest.param("https://host", "https://host:443", id="https"),
        pytest.param("http://[::1]:5000/", "http://::1:5000", id="IPv6"),
    ],
)
def test_origin_of(uri: str, origin: str) -> None:
    assert origin_of(uri) == origin


def test_mlflow_finds_the_provider_by_its_entry_point() -> None:
    from mlflow.tracking.request_auth.registry import fetch_auth

    assert isinstance(fetch_auth(PROVIDER), SignRequest)


@pytest.mark.parametrize(
    "login",
    [pytest.param(ADA, id="as a user"), pytest.param(TOKEN, id="with a token"), pytest.param(None, id="anonymous")],
)
def test_ambient_credentials_are_never_sent(
    login: Login | None, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ambient")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "ambient")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "ambient")
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ambient password ambient\n")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ambient\nmlflow_tracking_password = ambient\n"
    )

    with connected(TrackingServer(server.uri), login) as client:
        client.search_experiments()

    assert [request.headers.get("authorization") for request in server.requests] == [login.header() if login else None]


def files_of(request: Request) -> Answer:
    """Answer as an artifact proxy with 12 files."""
    if "path=" in request.path:
        listing = ",".join(f'{{"path": "f{n}", "is_dir": false, "file_size": 2}}' for n in range(12))
        return Answer(body=f'{{"files": [{listing}]}}')
    return Answer(body="{}")


def download(uri: str, login: Login | None, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts

    folder.mkdir()
    with connected(TrackingServer(uri), login):
        download_artifacts(artifact_uri=f"{uri}/api/2.0/mlflow-artifacts/artifacts/{folder.name}", dst_path=str(folder))


def test_mlflows_download_threads_carry_the_login_of_the_thread_that_asked(tmp_path: Path) -> None:
    logins = {name: Login(name, f"{name}-secret") for name in ("ada", "bob", "eve")}
    with scripted_server(files_of) as server, ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(download, server.uri, login, tmp_path / name) for name, login in logins.items()]:
            done.result()

    sent: dict[str, set[Any]] = {name: set() for name in logins}
    for request in server.requests:
        for name in logins:
            if f"artifacts/{name}/f" in request.path or f"path={name}" in request.path:
                sent[name].add(request.headers.get("authorization"))
    assert sent == {name: {login.header()} for name, login in logins.items()}


def test_a_context_of_its_own_sees_no_login_of_another() -> None:
    fresh = contextvars.Context()

    with acting_as(ADA, SERVER):
        assert "Authorization" not in fresh.run(signed).headers
