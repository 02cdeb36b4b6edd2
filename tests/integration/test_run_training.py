"""The loop without a scheduler, twice over unlike months, and the way out when the champion cannot be measured."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops import Access, TrackingServer, Window, load_spec, run_training
from airflow_mlops.cli import main
from tests.support.small_model import write_small_model

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer

FEBRUARY = Window(start="2024-02-01", end="2024-03-01")
MARCH = Window(start="2024-03-01", end="2024-04-01")


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    return load_spec(write_small_model(tmp_path, f"plain_{uuid.uuid4().hex[:8]}"))


def test_a_window_is_run_once_and_the_next_is_compared(
    spec: Any, mlflow_server: MLflowServer, capsys: pytest.CaptureFixture[str]
) -> None:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))

    first = run_training(spec, window=FEBRUARY, access=access)
    words = ["run", str(spec.folder / f"{spec.name}.yaml"), "--window", "2024-02-01", "2024-03-01", "--json"]
    capsys.readouterr()
    assert main([*words, "--tracking-uri", mlflow_server.uri]) == 0
    again = json.loads(capsys.readouterr().out)
    second = run_training(spec, window=MARCH, access=access)

    assert first.promotion is not None
    assert first.promotion.outcome == "promoted"
    assert first.decision is not None
    assert first.decision.verdict == "first_model"
    # The same window again, on the command line, makes nothing new.
    assert again["model"] == first.model.to_xcom()
    assert again["version"]["version"] == 1
    assert again["promotion"]["to_version"] == 1
    assert second.decision is not None
    assert second.decision.verdict == "promote"
    assert second.promotion.to_version == 2


def test_the_same_inputs_in_another_run_make_the_same_model(spec: Any, mlflow_server: MLflowServer) -> None:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))

    one = run_training(spec, window=FEBRUARY, access=access, promote=False)
    other = run_training(spec, window=FEBRUARY, access=access, promote=False, force=True)

    assert one.model.model_id != other.model.model_id
    assert one.model.digest == other.model.digest


def test_a_champion_that_cannot_be_measured_stops_the_run_and_a_person_can_go_on(
    spec: Any, mlflow_server: MLflowServer, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))
    first = run_training(spec, window=FEBRUARY, access=access)
    get_artifact_repository(first.model.artifact_uri, tracking_uri=mlflow_server.uri).delete_artifacts("")

    stuck = run_training(spec, window=MARCH, access=access)

    assert stuck.failed
    assert stuck.decision.verdict == "needs_attention"
    assert "--override" in stuck.decision.sentence
    assert stuck.version is None

    words = ["promote", spec.name, "--override", "--candidate", stuck.decision.run_id, "--reason", "the files are lost"]
    assert main([*words, "--author", "me", "--tracking-uri", mlflow_server.uri]) == 0
    assert main(["history", spec.name, "--json", "--tracking-uri", mlflow_server.uri]) == 0
    told = capsys.readouterr().out
    history = json.loads(told[told.index("{") :])
    assert history["champion"] == 2
    assert history["problem"] is None
    assert "the files are lost" in json.dumps(history)
