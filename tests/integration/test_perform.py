"""What every step gets from ``perform``: adopted, resumed, superseded, forced, against a real MLflow server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from airflow_mlops import Access, TrackingServer
from airflow_mlops.core.records import Record
from airflow_mlops.engines import runs
from airflow_mlops.steps.base import STEPS, RunInfo, Step, StepRequest, Work, perform

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer


class NotePayload(BaseModel):
    text: str
    told_to: str = ""
    verdict: str = "fine"


class Note(Record, schema="note/1"):
    text: str
    run_id: str
    verdict: str = "fine"

    @property
    def is_failure(self) -> bool:
        return self.verdict == "broken"


class NoteStep(Step[NotePayload, Note]):
    """A step that does nothing but say where it ran; the text ``raise`` raises, ``die`` ends the process."""

    name = "note"
    payload_type = NotePayload
    record_type = Note

    def run(self, payload: NotePayload, work: Work) -> Note:
        flag = os.environ.get("NOTE_FLAG", "")
        if payload.text == "raise" and not Path(flag).exists():
            raise RuntimeError("not yet")
        if payload.text == "die" and not Path(flag).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return Note(text=payload.text, run_id=work.run_id, verdict=payload.verdict)


class SharedNote(Note, schema="shared-note/1"):
    reused_from: str = ""
    told_to: str = ""


class SharedNoteStep(NoteStep):
    """A note that serves other tasks as well, for as long as nobody has put a file where NOTE_GONE says."""

    name = "shared_note"
    reusable = True
    record_type = SharedNote

    def run(self, payload: NotePayload, work: Work) -> SharedNote:
        return SharedNote(**super().run(payload, work).model_dump())

    def adopted(self, record: SharedNote, payload: NotePayload) -> SharedNote:
        return record.model_copy(update={"told_to": payload.told_to})

    def inputs(self, payload: NotePayload, client: Any, access: Any) -> Any:
        return payload.model_dump(exclude={"told_to"})

    def recheck(self, record: Any, payload: NotePayload, client: Any, access: Any) -> bool:
        return not Path(os.environ.get("NOTE_GONE", "/nowhere")).exists()


@pytest.fixture
def ask(mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Perform a note in a run of this test's own."""
    monkeypatch.setitem(STEPS.builtins, "note", f"{NoteStep.__module__}:NoteStep")
    monkeypatch.setitem(STEPS.builtins, "shared_note", f"{NoteStep.__module__}:SharedNoteStep")
    key = f"notes/{uuid.uuid4().hex}"
    run = RunInfo(key=key, name="notes", experiment="perform")
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))

    def ask(text: str, task: str = "t", *, step: str = "note", force: bool = False, **payload: Any) -> Any:
        request = StepRequest(step=step, key=f"{key}/{task}", run=run, payload={"text": text, **payload}, force=force)
        record = perform(request, access)
        assert isinstance(record, Note)
        return record

    from mlflow import MlflowClient

    ask.client, ask.key, ask.uri = MlflowClient(mlflow_server.uri), key, mlflow_server.uri
    return ask


def tags(ask: Any, run_id: str) -> dict[str, str]:
    return dict(ask.client.get_run(run_id).data.tags)


def parent(ask: Any, run_id: str) -> Any:
    return ask.client.get_run(tags(ask, run_id)[runs.PARENT])


def test_the_same_inputs_are_adopted_and_one_parent_serves_all(ask: Any) -> None:
    first, again, other = ask("a"), ask("a"), ask("a", task="u")

    assert again == first
    assert other.run_id != first.run_id
    assert tags(ask, other.run_id)[runs.PARENT] == tags(ask, first.run_id)[runs.PARENT]


def test_other_inputs_supersede_and_coming_back_is_adopted(ask: Any) -> None:
    a, b = ask("a"), ask("b")
    assert tags(ask, a.run_id)[runs.SUPERSEDED_BY] == b.run_id

    assert ask("a") == a
    assert runs.SUPERSEDED_BY not in tags(ask, a.run_id)
    assert tags(ask, b.run_id)[runs.SUPERSEDED_BY] == a.run_id


def test_force_makes_it_anew_and_later_readers_get_the_new_one(ask: Any) -> None:
    first = ask("a")
    forced = ask("a", force=True)

    assert forced.run_id != first.run_id
    assert tags(ask, first.run_id)[runs.SUPERSEDED_BY] == forced.run_id
    assert ask("a") == forced


def shared(ask: Any, text: str, task: str, **more: Any) -> SharedNote:
    record = ask(f"{ask.key} {text}", task, step="shared_note", **more)
    assert isinstance(record, SharedNote)
    return record


def finished(ask: Any, record: SharedNote) -> list[Any]:
    digest = tags(ask, record.run_id)[runs.INPUT_DIGEST]
    return runs.find_finished(ask.client, experiment(ask), "shared_note", digest)


def test_a_reusable_step_takes_what_another_task_made(ask: Any) -> None:
    made, reused, third = shared(ask, "a", "one"), shared(ask, "a", "two"), shared(ask, "a", "three")

    assert not made.reused_from
    assert reused.run_id == made.run_id
    # Both name the task that did the work, not the one in between.
    assert reused.reused_from == third.reused_from == f"{ask.key}/one"
    shown = runs.find_runs(ask.client, experiment(ask), f"{ask.key}/two")[0]
    assert shown.data.tags[runs.REUSED_FROM] == f"{ask.key}/one"
    assert shown.info.status == "FINISHED"
    assert shared(ask, "a", "two") == reused


def test_what_inputs_leave_out_is_this_task_s_own(ask: Any) -> None:
    shared(ask, "a", "one", told_to="ann")

    assert shared(ask, "a", "two", told_to="ben").told_to == "ben"
    assert shared(ask, "a", "one", told_to="cas").told_to == "cas"


def test_other_inputs_a_failure_and_a_result_that_is_gone_are_not_reused(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared(ask, "a", "one")
    shared(ask, "bad", "one", verdict="broken")

    assert not shared(ask, "b", "two").reused_from
    assert not shared(ask, "bad", "two", verdict="broken").reused_from
    monkeypatch.setenv("NOTE_GONE", str(tmp_path))
    anew = shared(ask, "a", "three")
    assert not anew.reused_from
    assert anew.run_id != made.run_id


def test_force_rebuilds_and_the_rebuilt_result_is_what_others_take(ask: Any) -> None:
    made = shared(ask, "a", "one")
    rebuilt = shared(ask, "a", "two", force=True)
    later = shared(ask, "a", "three")
    # What only took the result over is no result of its own, however late it finished.
    assert [run.info.run_id for run in finished(ask, rebuilt)] == [rebuilt.run_id, made.run_id]

    assert not rebuilt.reused_from
    assert rebuilt.run_id != made.run_id
    assert later.run_id == rebuilt.run_id
    assert later.reused_from == f"{ask.key}/two"


def test_a_failed_attempt_is_continued(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTE_FLAG", str(tmp_path / "flag"))
    with pytest.raises(RuntimeError, match="not yet"):
        ask("raise")
    failed = next(run for run in runs.find_runs(ask.client, experiment(ask), f"{ask.key}/t"))
    assert failed.info.status == "FAILED"
    assert "not yet" in failed.data.tags[runs.ERROR]
    assert parent(ask, failed.info.run_id).info.status == "FAILED"

    (tmp_path / "flag").touch()
    record = ask("raise")

    assert record.run_id == failed.info.run_id
    assert runs.ERROR not in tags(ask, record.run_id)
    assert parent(ask, record.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("force", [False, True], ids=["plain", "forced: a retry repeats no act"])
def test_a_killed_attempt_is_continued(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    monkeypatch.setenv("NOTE_FLAG", str(tmp_path / "flag"))
    script = textwrap.dedent(f"""
        from airflow_mlops import Access, TrackingServer
        from airflow_mlops.steps.base import STEPS, RunInfo, StepRequest, perform
        STEPS.builtins["note"] = "tests.integration.test_perform:NoteStep"
        run = RunInfo(key={ask.key!r}, name="notes", experiment="perform")
        request = StepRequest(step="note", key="{ask.key}/t", run=run, payload={{"text": "die"}}, force={force})
        perform(request, Access(server=TrackingServer(tracking_uri={ask.uri!r})))
    """)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL

    (tmp_path / "flag").touch()
    record = ask("die", force=force)

    found = runs.find_runs(ask.client, experiment(ask), f"{ask.key}/t")
    assert [run.info.run_id for run in found] == [record.run_id]
    assert ask.client.get_run(record.run_id).info.status == "FINISHED"


def test_a_lost_record_makes_the_step_run_again(ask: Any) -> None:
    first = ask("a")
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = ask.client.get_run(first.run_id).info.artifact_uri
    get_artifact_repository(place, tracking_uri=ask.uri).delete_artifacts(runs.RECORD_FILE)

    assert ask("a") == first
    assert [item.path for item in ask.client.list_artifacts(first.run_id)] == [runs.RECORD_FILE]


def test_the_parent_failed_when_any_step_did_until_it_is_mended(ask: Any) -> None:
    broken = ask("data", task="evaluation", verdict="broken")
    fine = ask("data", task="training")
    assert parent(ask, fine.run_id).info.status == "FAILED"

    ask("mended", task="evaluation")
    assert parent(ask, fine.run_id).info.status == "FINISHED"
    assert runs.SUPERSEDED_BY in tags(ask, broken.run_id)


def test_a_latecomer_does_not_supersede_the_corrected_run(ask: Any) -> None:
    old, corrected = ask("old"), ask("corrected")
    mine = runs.find_runs(ask.client, experiment(ask), f"{ask.key}/t")

    runs.supersede_others(ask.client, mine, ask.client.get_run(old.run_id), newer_too=False)

    assert runs.SUPERSEDED_BY not in tags(ask, corrected.run_id)


def experiment(ask: Any) -> str:
    return str(ask.client.get_experiment_by_name("perform").experiment_id)


def test_a_store_that_does_not_answer_is_no_lost_record(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact store beside MLflow speaks with its own library's errors."""
    from botocore.exceptions import EndpointConnectionError
    from mlflow import MlflowClient

    first = ask("a")

    def dead(*_: Any) -> str:
        raise EndpointConnectionError(endpoint_url="http://s3.example.com")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "download_artifacts", dead)
        with pytest.raises(EndpointConnectionError):
            ask("a")

    assert ask("a") == first
