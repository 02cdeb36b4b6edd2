"""What an evaluation's digest covers: the same question in another run is the same evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import EvaluationReport, Window
from airflow_mlops.engines.registry import Champion
from airflow_mlops.steps import evaluate
from airflow_mlops.steps.comparison import EvaluatePayload
from airflow_mlops.steps.evaluate import EvaluateStep
from tests.unit.core.test_lineage import MODEL
from tests.unit.steps.test_train import DATASET

CHAMPION = Champion(
    name="flights",
    alias="champion",
    version=1,
    entry=1,
    model_uri="models:/m-0",
    artifact_uri="a",
    flavor="sklearn",
    model_digest="x",
    features=None,
    train_window=None,
    window=None,
)


def payload(**changes: Any) -> EvaluatePayload:
    given: dict[str, Any] = {
        "model": MODEL,
        "dataset": DATASET,
        "evaluation": {"task": "binary", "metrics": ["roc_auc"]},
        "registered_model": "flights",
        "validation_run_id": "v1",
    }
    return EvaluatePayload.model_validate({**given, **changes})


@pytest.fixture(autouse=True)
def champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "current_champion", lambda client, name, alias: CHAMPION)


def inputs(given: EvaluatePayload) -> str:
    return digest_of(EvaluateStep().inputs(given, client=None, access=None))  # type: ignore[arg-type]  # not asked


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"validation_run_id": "v2"}, id="the run that checked the rows"),
        pytest.param({"code_path": "/elsewhere"}, id="the place of the code"),
        pytest.param(
            {"dataset": DATASET.model_copy(update={"uri": "/mnt", "manifest_uri": "runs:/x/m"})}, id="where rows lie"
        ),
        pytest.param(
            {
                "model": MODEL.model_copy(
                    update={
                        "run_id": "r9",
                        "key": "other/run/train/-1",
                        "input_digest": "j",
                        "reused_from": "dag/run/train/-1",
                        "profile_uri": "runs:/r9/p",
                        "source_uri": "runs:/r9/s",
                        "manifest_uri": "runs:/r9/m",
                        "validation_run_id": "v9",
                    }
                )
            },
            id="which run the model's record is of",
        ),
        pytest.param({"target": "y"}, id="the target, written out"),
    ],
)
def test_what_only_says_which_run_it_was_does_not_count(changes: dict[str, Any]) -> None:
    assert inputs(payload(**changes)) == inputs(payload())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"dataset": DATASET.model_copy(update={"digest": "e" * 64})}, id="rows"),
        pytest.param({"model": MODEL.model_copy(update={"model_id": "m-2"})}, id="another logged model"),
        pytest.param({"model": MODEL.model_copy(update={"digest": "f" * 64})}, id="other bytes"),
        pytest.param(
            {"model": MODEL.model_copy(update={"train_window": Window(start="2023-01-01", end="2023-02-01")})},
            id="training window",
        ),
        pytest.param({"evaluation": {"task": "binary", "metrics": ["log_loss"]}}, id="metrics"),
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"alias": "shadow"}, id="whose champion"),
        pytest.param({"registered_model": "trains"}, id="which model"),
        pytest.param({"target": "z"}, id="target"),
    ],
)
def test_what_decides_the_figures_counts(changes: dict[str, Any]) -> None:
    assert inputs(payload(**changes)) != inputs(payload())


def test_another_champion_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs(payload())
    monkeypatch.setattr(evaluate, "current_champion", lambda client, name, alias: None)

    assert inputs(payload()) != before


@pytest.mark.parametrize("lacking", ["manifest_uri", "validation_run_id"])
def test_a_record_of_an_earlier_release_is_not_adopted(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    monkeypatch.setattr(evaluate, "stored_json", lambda client, uri: {"the": "evidence"})
    report = EvaluationReport(
        model=MODEL,
        champion=None,
        dataset_digest="d",
        window=None,
        row_count=1,
        task="binary",
        metrics={},
        evidence_uri="runs:/r/evidence.json",
        evidence_digest=digest_of({"the": "evidence"}),
        manifest_uri="runs:/r/m",
        validation_run_id="v1",
        run_id="r",
    )
    step = EvaluateStep()

    assert step.recheck(report, payload(), None, None)  # type: ignore[arg-type]  # neither is asked
    assert not step.recheck(report.model_copy(update={lacking: ""}), payload(), None, None)  # type: ignore[arg-type]
