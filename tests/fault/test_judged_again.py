"""What people decided, and what they wrote into the gate, holds where a candidate is judged again in ``promote``."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import Access, TrackingServer, load_spec
from airflow_mlops.core.ledger import Judged
from airflow_mlops.engines import alias_moves, promotions
from airflow_mlops.engines.alias_moves import Wish
from airflow_mlops.engines.approvals import Answer, approve, candidate, record_approval
from airflow_mlops.engines.registry import current_champion
from airflow_mlops.engines.runs import PARENT, PART_OF
from airflow_mlops.engines.tracking import connected
from airflow_mlops.engines.versions import MODEL_ID, WINDOW, set_version_tag, write_span
from airflow_mlops.errors import LedgerError, ModelRefusedError
from airflow_mlops.steps import judge_again
from airflow_mlops.steps.base import RunInfo, StepRequest, perform
from airflow_mlops.steps.evaluate import EvaluateStep
from tests.fault.test_window_races import state, train, window
from tests.support.small_model import write_small_model


class Stopped(Exception):
    """A person stops the run before its promotion."""


def stop() -> None:
    raise Stopped


def changed(spec: Any, **gate: Any) -> Any:
    """Return the specification with another gate."""
    value = {**spec.model_dump(), "gate": {**spec.gate.model_dump(), **gate}}
    return spec.model_validate({**value, "folder": spec.folder})


def by_ada(name: str) -> Wish:
    return Wish(name, "champion", "ada", "seen and decided", f"cli/{uuid.uuid4().hex}")


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    return load_spec(write_small_model(tmp_path, f"again_{uuid.uuid4().hex[:8]}"))


def test_what_a_person_does_while_it_is_measured_stands(
    spec: Any, mlflow_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older window's champion is replaced by a person between the look at the ledger and the evaluation."""
    real = judge_again.judge_again

    def slowly(work: Any, version: Any, champion: Judged) -> Any:
        if (champion.number, champion.body.action) == (1, "promote"):
            # The older model again, under a version of its own.
            served = work.client.get_model_version(spec.name, str(champion.body.to_version))
            other = work.client.create_model_version(
                spec.name, served.source, tags=served.tags, model_id=served.tags[MODEL_ID], await_creation_for=None
            )
            answer = alias_moves.override(work.client, by_ada(spec.name), int(other.version))
            assert answer.outcome == "promoted", answer.sentence
        return real(work, version, champion)

    monkeypatch.setattr(judge_again, "judge_again", slowly)
    newer = train(spec, mlflow_server.uri, 2, lambda: train(spec, mlflow_server.uri, 0) and None)

    assert newer.promotion.outcome == "superseded", newer.promotion.sentence
    ledger, _, alias = state(mlflow_server.uri, spec.name)
    assert [line.body.action for line in ledger.counted] == ["promote", "override"]
    assert alias == ledger.head.body.to_version != newer.version.version


def test_the_rules_of_the_last_gate_judge_again_not_those_of_the_first(spec: Any, mlflow_server: Any) -> None:
    """Both gates say first_model, so the version is the same one, whose tag names the first decision."""
    with pytest.raises(Stopped):
        train(spec, mlflow_server.uri, 2, stop)
    strict = changed(spec, rules=[{"rule": "better_than_champion", "metric": "roc_auc", "by": 1.0}])
    newer = train(strict, mlflow_server.uri, 2, lambda: train(spec, mlflow_server.uri, 0) and None)

    assert newer.version.version == 1
    assert newer.promotion.outcome == "superseded", newer.promotion.sentence
    assert "Judged again against version 2 (entry 1), whose window is older: hold." in newer.promotion.sentence
    assert state(mlflow_server.uri, spec.name)[2] == 2


@pytest.mark.parametrize(
    ("when", "said", "sentence"),
    [
        ("always", "approve", "no person was shown that comparison"),
        ("first_model", "reject", "Its evidence is out of date"),
    ],
)
def test_a_persons_word_on_a_candidate_is_neither_stretched_nor_forgotten(
    spec: Any, mlflow_server: Any, when: str, said: Any, sentence: str
) -> None:
    """Asked about both windows while there was no champion, a person answers; then the older one is promoted."""
    asking = changed(spec, approval={"when": when})
    older, newer = (train(asking, mlflow_server.uri, number) for number in (0, 2))
    assert [one.decision.verdict for one in (older, newer)] == ["needs_approval", "needs_approval"]
    server = TrackingServer(tracking_uri=mlflow_server.uri)
    with connected(server) as client:
        about = candidate(client, spec.name, newer.version.version, "champion")
        record_approval(client, about, "champion", Answer(said, "ada", "seen and decided", "a test"))
        _, promotion = approve(client, by_ada(spec.name), older.version.version)
    assert promotion.outcome == "promoted", promotion.sentence

    request = StepRequest(
        step="promote",
        key=f"again/{spec.name}/promote/-1",
        run=RunInfo(key=f"again/{spec.name}", name=spec.name, experiment=spec.experiment_name),
        payload={"version": newer.version.to_xcom()},
    )
    answer: Any = perform(request, Access(server=server))

    assert answer.outcome == "superseded", answer.sentence
    assert sentence in answer.sentence
    assert state(mlflow_server.uri, spec.name)[2] == older.version.version


def test_a_window_tag_that_is_set_later_frees_no_candidate_from_the_comparison(spec: Any, mlflow_server: Any) -> None:
    """Promotion goes by the entry's window, so evaluation must, or neither would hold the candidate back."""
    train(spec, mlflow_server.uri, 0)
    with connected(TrackingServer(tracking_uri=mlflow_server.uri)) as client:
        client.delete_registered_model(promotions.ledger_name(spec.name))
        client.delete_model_version_tag(spec.name, "1", WINDOW)
        adopted = alias_moves.adopt(client, by_ada(spec.name))
        assert (adopted.outcome, adopted.window) == ("promoted", None), adopted.sentence
        set_version_tag(client, spec.name, 1, WINDOW, write_span(window(3)) or "")
        champion = current_champion(client, spec.name, "champion")

    assert champion is not None
    assert champion.window is None


def parent_status(uri: str, run_id: str) -> str:
    """Return the status of the MLflow run that the step's run belongs to."""
    with connected(TrackingServer(tracking_uri=uri)) as client:
        return str(client.get_run(client.get_run(run_id).data.tags[PARENT]).info.status)


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        pytest.param(ModelRefusedError("its library is gone."), "superseded", "FINISHED", id="cannot be judged here"),
        pytest.param(ModuleNotFoundError("gone"), "superseded", "FINISHED", id="what it imports is not here"),
        pytest.param(LedgerError("a person has to look."), "needs_attention", "FAILED", id="a person has to look"),
    ],
)
def test_a_judgement_that_cannot_be_made_leaves_the_run_as_the_task_ends(
    spec: Any,
    mlflow_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    outcome: str,
    status: str,
) -> None:
    real = EvaluateStep.run
    asked = []

    def refuse(self: Any, payload: Any, work: Any) -> Any:
        if "/evaluate-" not in work.request.key:
            return real(self, payload, work)
        asked.append((work.request.key, work.run_id))
        raise error

    monkeypatch.setattr(EvaluateStep, "run", refuse)
    newer = train(spec, mlflow_server.uri, 2, lambda: train(spec, mlflow_server.uri, 0) and None)

    assert newer.promotion.outcome == outcome, newer.promotion.sentence
    assert parent_status(mlflow_server.uri, newer.promotion.run_id) == status
    ((key, run_id),) = asked
    with connected(TrackingServer(tracking_uri=mlflow_server.uri)) as client:
        inner = client.get_run(run_id)
    assert (inner.info.status, inner.data.tags[PART_OF]) == ("FAILED", key.rpartition("/")[0])


def test_a_fault_while_it_is_judged_again_fails_the_run(
    spec: Any, mlflow_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EvaluateStep.run
    asked = []

    def fail(self: Any, payload: Any, work: Any) -> Any:
        if "/evaluate-" not in work.request.key:
            return real(self, payload, work)
        asked.append(work.run_id)
        raise RuntimeError("a fault")

    monkeypatch.setattr(EvaluateStep, "run", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        train(spec, mlflow_server.uri, 2, lambda: train(spec, mlflow_server.uri, 0) and None)

    assert parent_status(mlflow_server.uri, asked[0]) == "FAILED"
