"""The files that a step in a process of its own reads and writes: access, outcome, and what stays when it is killed."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import errors
from airflow_mlops.engines.login import Login
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.errors import InvalidSpecError, MissingEngineError, MLOpsError, OutageError, VerdictError
from airflow_mlops.steps.__main__ import main
from airflow_mlops.steps.access_file import connection_ids, read_access, write_access
from airflow_mlops.steps.base import Access
from airflow_mlops.steps.log_lines import MAX_LINE_BYTES, JsonLines, shortened
from airflow_mlops.steps.outcome import read_outcome, write_outcome

SERVER = TrackingServer(tracking_uri="https://mlflow.example.com", timeout_seconds=3)
STORE = StorageAccess(kind="gs", conn_id="lake", token="hush")


def test_access_survives_the_file(tmp_path: Path) -> None:
    access = Access(server=SERVER, login=Login(token="hush"), storage={"lake": STORE, "none": None}.__getitem__)
    path = tmp_path / "access.json"
    path.touch(0o600)
    with path.open("w") as file:
        write_access(file, access, ["lake", "lake", "none"])

    read = read_access(path)

    assert (read.server, read.login) == (SERVER, Login(token="hush"))
    assert [read.storage(name) for name in ("lake", "none", "other", None)] == [STORE, None, None, None]


def test_an_open_file_is_read_and_closed() -> None:
    with tempfile.TemporaryFile("w+") as file:
        write_access(file, Access(server=SERVER), [])
        file.flush()
        file.seek(0)
        descriptor = os.dup(file.fileno())

        assert read_access(descriptor).server == SERVER
        with pytest.raises(OSError):
            os.fstat(descriptor)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "JSONDecodeError", id="empty"),
        pytest.param("hush", "JSONDecodeError", id="not JSON"),
        pytest.param('["hush"]', "TypeError", id="a list"),
        pytest.param('{"login": "hush"}', "KeyError", id="no server"),
        pytest.param(
            '{"server": {"tracking_uri": "https://h"}, "login": {"hush": 1}}', "TypeError", id="a strange login"
        ),
    ],
)
def test_a_file_that_is_none_is_told_without_its_words(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "access.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InvalidSpecError, match=said) as caught:
        read_access(path)

    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    path.write_text("{}")
    path.chmod(0o640)
    with pytest.raises(InvalidSpecError, match="chmod 600"):
        read_access(path)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"conn_id": None, "data": {"conn_id": ""}}, [], id="not set"),
        pytest.param({"data": {"conn_id": "a"}, "parts": [{"x": {"conn_id": "b"}}]}, ["a", "b"], id="deep"),
        pytest.param({"conn_id": {"conn_id": "c"}}, ["c"], id="a key of somebody's own"),
    ],
)
def test_connections_of_a_payload(payload: Any, found: list[str]) -> None:
    assert list(connection_ids(payload)) == found


def back(error: BaseException, path: Path) -> Exception:
    write_outcome(path / "outcome.json", error)
    found = read_outcome(path / "outcome.json", step="train", python="/opt/python", mend="INSTALL")
    assert found is not None
    return found


OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MLOpsError)]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_comes_back_as_itself(kind: type[MLOpsError], tmp_path: Path) -> None:
    found = back(kind("it is so"), tmp_path)

    assert type(found) is kind
    assert str(found).startswith("it is so")


class TeamError(VerdictError):
    """A plug-in's own."""


class AwayError(OutageError):
    """A plug-in's own."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(TeamError("no"), VerdictError, id="a plug-in's verdict"),
        pytest.param(AwayError("no"), OutageError, id="a plug-in's outage"),
        pytest.param(ConnectionResetError("no"), OutageError, id="a connection that broke"),
        pytest.param(KeyError("no"), RuntimeError, id="unforeseen"),
        pytest.param(MemoryError(), RuntimeError, id="without words"),
    ],
)
def test_errors_of_others_keep_their_kind_and_name(error: Exception, kind: type[Exception], tmp_path: Path) -> None:
    found = back(error, tmp_path)

    assert type(found) is kind
    assert type(error).__name__ in str(found)


def test_a_missing_module_at_the_root_of_a_verdict_names_the_interpreter(tmp_path: Path) -> None:
    verdict = VerdictError("train.py:3: team:train raised ModuleNotFoundError")
    verdict.__cause__ = ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")

    found = back(verdict, tmp_path)

    assert type(found) is VerdictError
    assert "'lightgbm' there: /opt/python -m pip install NAME" in str(found)


def test_a_missing_engine_says_where(tmp_path: Path) -> None:
    found = back(MissingEngineError("gcsfs is not installed."), tmp_path)

    assert "The step ran in /opt/python. Everything at once: INSTALL" in str(found)


def test_no_outcome_is_none(tmp_path: Path) -> None:
    assert read_outcome(tmp_path / "outcome.json", step="train", python="p", mend="m") is None


def test_a_request_for_another_step_is_an_outcome_or_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = tmp_path / "request.json"
    run = {"key": "k", "name": "n", "experiment": "e"}
    request.write_text(json.dumps({"step": "plan", "key": "k", "run": run, "payload": {}}))

    assert main(["train", str(request)]) == 2
    assert "InvalidSpecError: The request is for the step 'plan', not 'train'." in capsys.readouterr().err
    assert main(["train", str(request), "--outcome", str(tmp_path / "outcome.json")]) == 2
    assert json.loads((tmp_path / "outcome.json").read_text())["type"] == "InvalidSpecError"


@pytest.mark.parametrize("letter", ["\x01", "\U0001f600", "\ud800", "\n", "é"], ids=ascii)
def test_a_record_of_any_length_and_letters_is_one_line_that_fits(letter: str) -> None:
    stream = io.BytesIO()
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonLines())
    handler.handle(logging.LogRecord("team" * 100, logging.INFO, "f", 1, letter * 100_000, (), None))
    encoded = stream.getvalue()

    assert encoded.count(b"\n") == 1
    assert len(encoded) < MAX_LINE_BYTES
    message = json.loads(encoded)["message"]
    assert message.startswith(letter * 100)
    assert message.endswith(letter * 100)
    assert "characters left out" in message


def test_short_text_stays() -> None:
    assert shortened("short") == "short"
