"""The plans of scoring and monitoring runs, and training's side of a retrain request, on a real MLflow server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import MonitoringPlan, ScoringPlan, ScoringReport, ServedModel
from airflow_mlops.core.policy import Request
from airflow_mlops.core.record import Window
from airflow_mlops.core.records import RunPlan
from airflow_mlops.engines import alias_moves, promotions, request_log, runs
from airflow_mlops.engines.alias_moves import rollback
from airflow_mlops.engines.training_runs import has_ended
from airflow_mlops.engines.versions import FEATURES
from airflow_mlops.errors import InvalidSpecError, LedgerError
from airflow_mlops.steps.base import RunInfo, StepRequest, perform, window_tags
from tests.support.candidates import Bench, make_bench, month


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("plans"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(promotions, "CONFIRM_SECONDS", 0.01)
    monkeypatch.setattr(request_log, "SETTLE_SECONDS", 0.0)
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"plans.{name}"[:90].rstrip("-"))


def score_plan(bench: Bench, *windows: Window, run: str = "run", **other: Any) -> ScoringPlan:
    payload = {
        "windows": [window.model_dump(mode="json") for window in windows or (month(3),)],
        "registered_model": bench.name,
        "reason": "a test",
        **other,
    }
    return step(bench, "plan_scoring", payload, run)


def watch_plan(bench: Bench, *windows: Window, run: str = "run", **other: Any) -> MonitoringPlan:
    payload = {
        "windows": [window.model_dump(mode="json") for window in windows or (month(3),)],
        "registered_model": bench.name,
        "scoring_experiment": bench.experiment_name,
        "reason": "a test",
        **other,
    }
    return step(bench, "plan_monitoring", payload, run)


def train_plan(bench: Bench, *requests: str, run: str, only: bool = True) -> RunPlan:
    payload = {
        "window": month(3).model_dump(mode="json"),
        "train": {"length": "1 month"},
        "reason": "a retrain",
        "requests": list(requests),
        "only_requests": only,
    }
    return step(bench, "plan", payload, run)


def step(bench: Bench, name: str, payload: dict[str, Any], run: str) -> Any:
    info = RunInfo(key=f"{bench.name}/{run}", name=run, experiment=bench.experiment_name)
    key = f"{bench.name}/{run}/plan/-1"
    return perform(StepRequest(step=name, key=key, run=info, payload=payload), bench.access)


def experiment(bench: Bench) -> str:
    return runs.experiment_id(bench.client, bench.experiment_name)


def scored(bench: Bench, window: Window, version: int, *, key: str = "score", record: bool = True, **tags: str) -> str:
    """Leave what the scoring step leaves: a finished run with its tags and its record."""
    run, _ = runs.get_or_create_run(
        bench.client,
        experiment(bench),
        key=f"{bench.name}/{key}/{window}",
        name="score",
        tags={
            runs.STEP: "score",
            "airflow_mlops.registered_model": bench.name,
            "airflow_mlops.model_version": str(version),
            **window_tags(window),
            **tags,
        },
    )
    model = ServedModel(
        name=bench.name, alias="champion", version=version, entry=version, model_uri="models:/m", artifact_uri="a"
    )
    report = ScoringReport(
        sentence="s", window=window, model=model, dataset_digest="d", task="binary", output_uri="/out/x.parquet",
        output_digest="o", byte_count=1, row_count=1, scored_count=1, key=key, input_digest="i",
    )  # fmt: skip
    if record:
        bench.client.log_text(run.info.run_id, json.dumps(report.to_xcom()), runs.RECORD_FILE)
    bench.client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def tags_of(bench: Bench, run_id: str) -> dict[str, str]:
    return dict(bench.client.get_run(run_id).data.tags)


def test_the_alias_becomes_one_version_with_all_that_scoring_needs(bench: Bench) -> None:
    bench.serve(1, 2)

    plan = score_plan(bench, month(5), month(3), month(5))

    assert plan.windows == (month(3), month(5)), "distinct, oldest first"
    model = plan.model
    assert (model.name, model.alias, model.version, model.entry) == (bench.name, "champion", 2, 2)
    assert (model.digest, model.features, model.flavor) == (bench.model.digest, bench.model.features, "sklearn")
    assert (model.evidence_uri, model.profile_uri) == (
        f"runs:/{bench.model.run_id}/evidence.json",
        bench.model.profile_uri,
    )
    tags = tags_of(bench, plan.parent_run_id)
    assert tags["airflow_mlops.window_start"] == "2013-03-01T00:00:00+00:00"
    assert tags["airflow_mlops.window_end"] == "2013-06-01T00:00:00+00:00"
    assert (tags["airflow_mlops.reason"], tags["airflow_mlops.model_version"]) == ("a test", "2")
    assert f"version 2 of {bench.name} (champion)" in tags["mlflow.note.content"]
    assert "[2013-03-01, 2013-04-01), [2013-05-01, 2013-06-01)" in tags["mlflow.note.content"]


def test_the_plan_stands_until_it_is_made_again_after_a_promotion(bench: Bench) -> None:
    """A retry adopts the plan; clearing the plan task once another version was promoted resolves anew."""
    bench.serve(1)
    first = score_plan(bench)
    assert score_plan(bench) == first

    bench.promote(bench.register("two", entry=1, window=month(5)), key="two")

    assert score_plan(bench).model.version == 2
    rollback(bench.client, bench.wish())
    again = score_plan(bench)
    assert (again.model.version, again.model.entry) == (1, 3), "the same version under a new entry is a new plan"


def test_without_a_champion_it_says_how_to_get_one(bench: Bench) -> None:
    bench.register("never promoted")

    with pytest.raises(LedgerError, match=rf"has no champion yet.*airflow-mlops promote {bench.name} VERSION"):
        score_plan(bench)
    with pytest.raises(LedgerError, match="has no champion yet"):
        watch_plan(bench)


def test_an_alias_that_a_person_moved_stops_the_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.serve(1, 2)
    monkeypatch.setattr("airflow_mlops.core.ledger.LATE_WRITER", timedelta(0))
    bench.client.set_registered_model_alias(bench.name, "champion", "1")

    with pytest.raises(LedgerError, match="moved the alias by hand"):
        score_plan(bench)


def test_the_previous_champion_is_the_one_that_served_before_not_the_number_before(bench: Bench) -> None:
    bench.serve(1)
    alone = score_plan(bench, run="alone", other="previous_champion")
    bench.register("never promoted", entry=1)
    bench.promote(bench.register("three", entry=1, window=month(5)), key="three")

    plan = score_plan(bench, other="previous_champion")

    assert (alone.other, len(alone.notes)) == (None, 1)
    assert "No version" in alone.notes[0]
    assert plan.other is not None
    assert (plan.model.version, plan.other.version, plan.other.entry, plan.notes) == (3, 1, 0, ())


def test_a_previous_champion_that_is_gone_is_a_note(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.client.delete_model_version(bench.name, "1")

    plan = score_plan(bench, other="previous_champion")

    assert plan.other is None
    assert "was deleted from MLflow: version 2 scores alone" in plan.notes[0]


def test_a_challenger_is_found_by_its_alias_and_none_is_a_note(bench: Bench) -> None:
    bench.serve(1)
    bench.register("two", entry=1)
    nobody = score_plan(bench, run="nobody", other="challenger")
    bench.client.set_registered_model_alias(bench.name, "challenger", "2")
    found = score_plan(bench, other="challenger")
    bench.client.set_registered_model_alias(bench.name, "challenger", "1")
    itself = score_plan(bench, other="challenger")

    assert nobody.other is None
    assert "has the alias 'challenger'" in nobody.notes[0]
    assert found.other is not None
    assert (found.other.version, found.other.alias) == (2, "challenger")
    assert itself.other is None, "the champion is not compared with itself"
    assert "the champion itself" in itself.notes[0]


def test_a_challenger_with_a_ledger_is_resolved_through_it(bench: Bench) -> None:
    bench.serve(1)
    two = bench.register("two", entry=1, window=month(5))
    wish = replace(bench.wish(), alias="challenger")
    assert alias_moves.override(bench.client, wish, two.version).outcome == "promoted"

    other = score_plan(bench, other="challenger").other

    assert other is not None
    assert (other.version, other.entry > 0) == (2, True)


def test_more_windows_than_a_plan_carries_are_an_error_that_says_how_to_go_on(bench: Bench) -> None:
    bench.serve(1)
    begin = datetime(2013, 1, 1, tzinfo=UTC)
    days = [Window(start=begin + timedelta(days=day), end=begin + timedelta(days=day + 1)) for day in range(400)]

    assert len(score_plan(bench, *days[:180], run="half").windows) == 180
    with pytest.raises(InvalidSpecError, match=r"about 400 windows.*Start a run for each window"):
        score_plan(bench, *days)


def test_hundreds_of_features_of_two_versions_do_not_keep_windows_from_being_scored(bench: Bench) -> None:
    names = tuple(f"column_of_the_warehouse_{number:03}" for number in range(180))
    bench.serve(1, 2)
    for number in "12":
        bench.client.set_model_version_tag(bench.name, number, FEATURES, json.dumps(names))
    begin = datetime(2013, 1, 1, tzinfo=UTC)
    days = [Window(start=begin + timedelta(days=day), end=begin + timedelta(days=day + 1)) for day in range(90)]

    one = score_plan(bench, month(3), run="one", other="previous_champion")
    many = score_plan(bench, *days, run="many", other="previous_champion")
    watched = watch_plan(bench, *days, run="watched")

    assert one.other is not None
    assert (one.model.features, one.other.features) == (names, names)
    assert many.other is not None
    assert (many.model.features, many.other.features) == (None, None), "their signatures have them"
    assert {each.model.features for each in watched.windows} == {None}


def test_each_window_is_watched_with_the_version_that_scored_it_last(bench: Bench) -> None:
    bench.serve(1, 2)
    scored(bench, month(3), 1)
    newest = scored(bench, month(3), 2, key="again")
    old = scored(bench, month(4), 1)
    scored(bench, month(5), 1, key="superseded", **{runs.SUPERSEDED_BY: "x"})

    plan = watch_plan(bench, month(5), month(3), month(4))

    assert [(one.window, one.model.version, one.scoring_run_id) for one in plan.windows] == [
        (month(3), 2, newest),
        (month(4), 1, old),
        (month(5), 2, ""),
    ]
    assert plan.notes == (
        f"Nobody scored [2013-05-01, 2013-06-01): it is watched on behalf of version 2 of {bench.name}.",
    )
    assert "Watching version 1 and 2" in tags_of(bench, plan.parent_run_id)["mlflow.note.content"]


def test_watching_needs_no_champion_where_every_window_was_scored(bench: Bench) -> None:
    scored(bench, month(3), 7)

    assert watch_plan(bench).windows[0].model.version == 7


def test_a_window_scored_again_makes_the_plan_anew_when_it_is_cleared(bench: Bench) -> None:
    bench.serve(1, 2)
    scored(bench, month(3), 1)
    first = watch_plan(bench)
    scored(bench, month(3), 2, key="again")

    assert (first.windows[0].model.version, watch_plan(bench).windows[0].model.version) == (1, 2)


def test_a_scoring_run_without_its_record_goes_by_the_version_on_it(bench: Bench) -> None:
    bench.serve(1)
    scored(bench, month(3), 1, record=False)
    scored(bench, month(4), 9, record=False)

    model = watch_plan(bench).windows[0].model
    assert (model.version, model.digest) == (1, bench.model.digest)
    with pytest.raises(InvalidSpecError, match="that version was deleted"):
        watch_plan(bench, month(4), run="gone")


def test_an_experiment_that_is_not_there_yet_means_that_nobody_scored(bench: Bench) -> None:
    bench.serve(1)

    plan = watch_plan(bench, scoring_experiment="no-such-experiment")

    assert plan.windows[0].scoring_run_id == ""
    assert bench.client.get_experiment_by_name("no-such-experiment") is None


def asked_for(bench: Bench, request: str) -> None:
    log = request_log.read_log(bench.client, experiment(bench), bench.name)
    assert request_log.ask(
        bench.client, log, Request(id=request, window=month(3), action="retrain", asked_at=datetime.now(UTC))
    )


def status(bench: Bench, request: str) -> tuple[bool, bool]:
    log = request_log.read_log(bench.client, experiment(bench), bench.name)
    found = next(one for one in log.requests if one.id == request)
    return found.answered, found.ended


def test_a_training_run_answers_its_requests_and_a_repeat_has_nothing_to_do(bench: Bench) -> None:
    first, second = "1" * 32, "2" * 32
    asked_for(bench, first)
    asked_for(bench, second)

    plan = train_plan(bench, first, run="one")
    repeat = train_plan(bench, first, run="two")
    both = train_plan(bench, first, second, run="three")

    assert (plan.requests, plan.repeat) == ((first,), "")
    assert tags_of(bench, plan.parent_run_id)["airflow_mlops.requests"] == first
    assert repeat.repeat.startswith("Nothing to do: this run was started by a repeated event")
    assert plan.parent_run_id in repeat.repeat
    tags = tags_of(bench, repeat.parent_run_id)
    assert "airflow_mlops.requests" not in tags
    assert tags["mlflow.note.content"].startswith("Nothing to do")
    assert (both.requests, both.repeat) == ((second,), ""), "one new request is enough"


def test_the_same_run_planned_again_keeps_its_requests(bench: Bench) -> None:
    asked_for(bench, "1" * 32)

    assert train_plan(bench, "1" * 32, run="one") == train_plan(bench, "1" * 32, run="one")
    forced = RunInfo(key=f"{bench.name}/one", name="one", experiment=bench.experiment_name)
    payload = {
        "window": month(3).model_dump(mode="json"), "train": {"length": "1 month"}, "reason": "r",
        "requests": ["1" * 32], "only_requests": True,
    }  # fmt: skip
    request = StepRequest(step="plan", key=f"{bench.name}/one/plan/-1", run=forced, payload=payload, force=True)
    again = perform(request, bench.access)
    assert (again.requests, again.repeat) == (("1" * 32,), "")  # type: ignore[attr-defined]


def test_a_run_with_another_purpose_or_by_hand_is_never_dropped(bench: Bench) -> None:
    asked_for(bench, "1" * 32)
    train_plan(bench, "1" * 32, run="one")

    assert train_plan(bench, "1" * 32, run="two", only=False).repeat == ""
    assert train_plan(bench, run="by hand", only=False).repeat == ""


def test_what_a_failed_run_took_up_is_taken_up_again(bench: Bench) -> None:
    asked_for(bench, "1" * 32)
    failed = train_plan(bench, "1" * 32, run="one")
    bench.client.set_terminated(failed.parent_run_id, "FAILED")

    assert status(bench, "1" * 32) == (True, False), "what it planned was not begun"
    bench.client.create_run(experiment(bench), tags={runs.PARENT: failed.parent_run_id, runs.STEP: "train"})
    train = bench.client.search_runs([experiment(bench)], f"tags.`{runs.STEP}` = 'train'")[0]
    bench.client.set_terminated(train.info.run_id, "FAILED")
    assert status(bench, "1" * 32) == (True, True)

    assert train_plan(bench, "1" * 32, run="two").repeat == ""
    assert status(bench, "1" * 32) == (True, False), "the second run is training now"
    assert "already" in train_plan(bench, "1" * 32, run="three").repeat


def test_a_request_that_no_log_knows_is_trained_for(bench: Bench) -> None:
    assert train_plan(bench, "f" * 32, run="one").requests == ("f" * 32,)


def test_a_retrain_is_under_way_until_its_run_has_come_to_an_end(bench: Bench) -> None:
    """MLflow's status of the parent says FINISHED between any two steps, so it is the steps that count."""
    asked_for(bench, "3" * 32)
    assert status(bench, "3" * 32) == (False, False)
    plan = train_plan(bench, "3" * 32, run="one")
    parent = plan.parent_run_id

    def child(name: str, **tags: str) -> str:
        values = {runs.PARENT: parent, runs.STEP: name, **tags}
        return str(bench.client.create_run(experiment(bench), run_name=name, tags=values).info.run_id)

    def ended() -> bool:
        return has_ended(bench.client, bench.client.get_run(parent))

    assert bench.client.get_run(parent).info.status == "FINISHED"
    assert not ended(), "only planned: the next step is about to begin"
    train = child("train")
    assert not ended(), "training"
    bench.client.set_terminated(train, "FAILED")
    assert ended(), "failed"
    bench.client.set_tag(train, runs.SUPERSEDED_BY, "another")
    assert not ended(), "mended and tried again"
    assert status(bench, "3" * 32) == (True, False)
    bench.client.set_tag(parent, "airflow_mlops.verdict", "promote")
    assert not ended(), "let through"
    bench.client.set_tag(parent, "airflow_mlops.verdict", "hold")
    assert ended(), "held"
    bench.client.delete_tag(parent, "airflow_mlops.verdict")
    bench.client.set_terminated(child("promote"))
    assert ended(), "promoted"
    child("evaluate", **{runs.PART_OF: "run/x/promote"})
    assert ended(), "what a killed try of the promotion left behind running is a part of it"
    assert status(bench, "3" * 32) == (True, True)


def test_a_training_run_that_failed_and_is_tried_again_is_under_way_again(bench: Bench) -> None:
    request = "5" * 32
    asked_for(bench, request)
    parent = train_plan(bench, request, run="one").parent_run_id
    tags = {runs.PARENT: parent, runs.STEP: "train"}
    train = str(bench.client.create_run(experiment(bench), tags=tags).info.run_id)
    bench.client.set_terminated(train, "FAILED")
    assert status(bench, request) == (True, True)

    bench.client.update_run(train, status="RUNNING")

    assert status(bench, request) == (True, False), "a look between two attempts settled nothing"


def test_a_training_run_of_other_making_answers_by_its_tag_alone(bench: Bench) -> None:
    request = "4" * 32
    asked_for(bench, request)
    run = bench.client.create_run(experiment(bench), tags={"airflow_mlops.requests": f"{'5' * 32} {request}"})

    assert status(bench, request) == (True, False)
    bench.client.set_terminated(run.info.run_id, "FAILED")
    assert status(bench, request) == (True, True)
    bench.client.delete_run(run.info.run_id)
    assert status(bench, request) == (True, True), "an end that was seen is kept"
