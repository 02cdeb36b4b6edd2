"""What counts as blank, and which facts a version needs."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.lineage import (
    REQUIRED,
    Blank,
    blank_facts,
    blanks_in,
    commit,
    is_blank,
    is_commit,
    lineage_of,
    span,
)
from airflow_mlops.core.records import GateDecision, TrainedModel, Window

MODEL = TrainedModel(
    model_uri="models:/m-1",
    model_id="m-1",
    artifact_uri="mlflow-artifacts:/1/models/m-1",
    run_id="r1",
    flavor="sklearn",
    serialization="cloudpickle",
    digest="d" * 64,
    size_bytes=1,
    dataset_digest="e" * 64,
    train_window=Window(start="2024-01-01", end="2024-02-01"),
    feature_count=1,
    target="y",
    row_count=1,
    seed=0,
    parameters_digest="p",
    code_digest="c",
    git_commit="0123abc",
    environment_digest="e",
    profile_uri="runs:/r1/profile.json",
    key="dag/run/train/-1",
    input_digest="i",
    data_uri="/lake",
    manifest_uri="runs:/r0/manifest.json",
    validation_run_id="r2",
    source_uri="runs:/r1/source.zip",
)
DECISION = GateDecision(
    verdict="promote",
    mode="enforce",
    sentence="ok",
    model=MODEL,
    window=Window(start="2024-02-01", end="2024-03-01"),
    evidence_uri="runs:/r3/evidence.json",
    decision_uri="runs:/r4/decision.html",
    manifest_uri="runs:/r5/manifest.json",
    validation_run_id="r6",
)


def decision(model: dict[str, Any] | None = None, **changes: Any) -> GateDecision:
    return DECISION.model_copy(update={"model": MODEL.model_copy(update=model or {}), **changes})


@pytest.mark.parametrize(
    "value", [None, "", "  ", "unknown", "UNKNOWN ", "n/a", "N/A", "none", "Null", "-", "\t-\n", (), {}, []]
)
def test_blank(value: Any) -> None:
    assert is_blank(value)


@pytest.mark.parametrize("value", ["0", 0, 0.0, False, "unknown_carrier", "n/a/b", "--", "files:0123", ("",)])
def test_not_blank(value: Any) -> None:
    assert not is_blank(value)


def test_a_whole_record_has_no_blank() -> None:
    assert blank_facts(DECISION) == []
    assert set(lineage_of(DECISION)) == set(REQUIRED)


@pytest.mark.parametrize(
    ("name", "model", "changes"),
    [
        ("model digest", {"digest": ""}, {}),
        ("training run", {"run_id": "-"}, {}),
        ("training task", {"key": "n/a"}, {}),
        ("training data URI", {"data_uri": ""}, {}),
        ("training data digest", {"dataset_digest": "none"}, {}),
        ("training data manifest", {"manifest_uri": ""}, {}),
        ("training contract result", {"validation_run_id": ""}, {}),
        ("training window", {"train_window": None}, {}),
        ("code commit", {"git_commit": "unknown"}, {}),
        ("code digest", {"code_digest": ""}, {}),
        ("parameters digest", {"parameters_digest": "null"}, {}),
        ("environment digest", {"environment_digest": ""}, {}),
        ("evaluation data manifest", {}, {"manifest_uri": ""}),
        ("evaluation contract result", {}, {"validation_run_id": ""}),
        ("evaluation evidence", {}, {"evidence_uri": ""}),
        ("gate decision", {}, {"decision_uri": ""}),
    ],
)
def test_each_required_fact_is_missed_by_its_name(name: str, model: dict[str, Any], changes: dict[str, Any]) -> None:
    (blank,) = blank_facts(decision(model, **changes))

    assert blank.name == name
    assert blank.mend


def test_the_table_above_has_every_fact() -> None:
    assert len(REQUIRED) == 16


def test_what_stands_there_is_quoted() -> None:
    (blank,) = blank_facts(decision({"git_commit": " Unknown "}))

    assert str(blank).startswith(
        "code commit (' Unknown '): train from a git checkout, or set AIRFLOW_MLOPS_GIT_COMMIT"
    )
    assert str(Blank("model card", "gone")) == "model card (gone)"


def test_data_without_event_time_has_no_window_to_miss() -> None:
    assert blank_facts(decision({"train_window": None}, window=None)) == []
    assert span(None, None) == "every row: the data has no event-time column"


@pytest.mark.parametrize(
    ("text", "source", "said"),
    [
        pytest.param("files:0123", "runs:/r/source.zip", "files:0123", id="files that are kept name the code"),
        pytest.param("files:0123", "", "", id="files that nobody kept name nothing"),
        pytest.param("0123abc+dirty", "", "0123abc+dirty", id="a commit needs no archive"),
        pytest.param(None, None, "", id="nothing"),
    ],
)
def test_commit(text: str | None, source: str | None, said: str) -> None:
    assert commit(text, source) == said


def test_only_a_commit_is_a_commit() -> None:
    assert is_commit("0123abc")
    assert not is_commit("files:0123")
    assert not is_commit("unknown")


def test_an_absent_value_is_blank() -> None:
    assert len(blanks_in({})) == len(REQUIRED)
