"""Registration against a real MLflow server: one version per key and input digest, with all it takes to trust it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.records import ChampionRef, ModelVersionRef, TrainedModel
from airflow_mlops.engines import versions
from airflow_mlops.engines.runs import DUPLICATE_OF, SUPERSEDED_BY
from airflow_mlops.engines.versions import facts_of, find_version
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError
from airflow_mlops.links.addresses import addresses_of
from tests.support.candidates import Bench, decide, log_tiny_model, make_bench, month, save_tiny_model


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("register"))
    yield make
    connection.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, request: pytest.FixtureRequest) -> Bench:
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return benches(f"register.{name}"[:100].rstrip("-"))


def tags(bench: Bench, version: int) -> dict[str, str]:
    return dict(bench.client.get_model_version(bench.name, str(version)).tags)


def count(bench: Bench) -> int:
    return len(bench.client.search_model_versions(f"name = '{bench.name}'"))


def test_a_version_can_be_resolved_and_trusted_without_the_run_that_made_it(bench: Bench) -> None:
    ref = bench.register_task("register", window=month(5))

    version = bench.client.get_model_version(bench.name, "1")
    facts = facts_of(version)
    assert (ref.version, ref.name, ref.digest, ref.window) == (1, bench.name, bench.model.digest, month(5))
    assert version.run_id == bench.model.run_id
    assert facts.model_uri == bench.model.model_uri
    assert facts.artifact_uri == bench.model.artifact_uri
    assert facts.model_digest == bench.model.digest
    assert facts.features == ("distance", "hour")
    assert (facts.window, facts.train_window) == (month(5), month(1, 2))
    assert facts.lacks == ()
    written = tags(bench, 1)
    assert written[versions.GIT_COMMIT] == "0123abc"
    assert written[versions.ENVIRONMENT_DIGEST] == "e" * 64
    assert written[versions.DATASET_DIGEST] == "d" * 64
    assert written[versions.VERDICT] == "first_model"
    assert written[versions.FEATURE_COUNT] == "2"


def test_the_description_is_readable_and_gives_the_gates_sentences(bench: Bench) -> None:
    bench.register_task("register", window=month(5))

    text = bench.client.get_model_version(bench.name, "1").description
    assert "**first_model**: Every rule passed." in text
    assert "- roc_auc is 0.7123; it must be at least 0.6" in text
    assert "judged on [2013-05-01, 2013-06-01)" in text


def test_mlflow_links_the_logged_model_and_the_version(bench: Bench) -> None:
    bench.register_task("register")

    logged = bench.client.get_logged_model(bench.model.model_id)
    assert bench.name in str(logged.tags)


def test_the_same_task_tried_again_finds_its_version(bench: Bench) -> None:
    first = bench.register_task("register")
    again = bench.register_task("register")

    assert again == first
    assert count(bench) == 1


def test_a_task_whose_reply_was_lost_finds_the_version_it_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies right after the create call: the version exists, the record does not."""

    def die(point: str) -> None:
        raise KeyboardInterrupt(point)

    monkeypatch.setattr(versions, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        bench.register_task("register")
    monkeypatch.undo()

    assert bench.register_task("register").version == 1
    assert count(bench) == 1


def test_of_two_that_register_at_once_the_lower_wins_and_the_other_says_so(bench: Bench) -> None:
    """A zombie and its retry: both searched before either had created."""
    ref = bench.register_task("register")
    first = bench.client.get_model_version(bench.name, "1")
    bench.client.create_model_version(
        bench.name,
        bench.model.model_uri,
        tags=first.tags,
        model_id=bench.model.model_id,
        await_creation_for=None,
    )
    found = versions.create_once(
        bench.client,
        bench.name,
        key=ref.key,
        input_digest=ref.input_digest,
        source=bench.model.model_uri,
        run_id=None,
        model_id=bench.model.model_id,
        tags={},
        description="",
    )

    assert int(found.version) == 1
    assert tags(bench, 2)[DUPLICATE_OF] == "1"
    assert find_version(bench.client, bench.name, key=ref.key, input_digest=ref.input_digest).version == "1"


def test_a_cleared_task_with_another_input_makes_a_new_version_and_marks_the_old(bench: Bench) -> None:
    bench.register_task("register", window=month(5))
    second = bench.register_task("register", window=month(6))

    assert second.version == 2
    assert tags(bench, 1)[SUPERSEDED_BY] == "2"
    assert SUPERSEDED_BY not in tags(bench, 2)


def test_going_back_to_the_first_input_makes_its_version_current_again(bench: Bench) -> None:
    first = bench.register_task("register", window=month(5))
    bench.register_task("register", window=month(6))
    # The step's own record is adopted, so the version is looked up as a retry that lost its record would.
    back = versions.create_once(
        bench.client,
        bench.name,
        key=first.key,
        input_digest=first.input_digest,
        source="unused",
        run_id=None,
        model_id=None,
        tags={},
        description="",
    )

    assert int(back.version) == 1
    assert SUPERSEDED_BY not in tags(bench, 1)
    assert tags(bench, 2)[SUPERSEDED_BY] == "1"


def test_force_makes_a_new_version(bench: Bench) -> None:
    bench.register_task("register")
    forced = bench.register_task("register", force=True)

    assert forced.version == 2
    assert tags(bench, 1)[SUPERSEDED_BY] == "2"


def test_a_deleted_version_is_registered_anew_when_the_task_is_cleared(bench: Bench) -> None:
    bench.register_task("register")
    bench.client.delete_model_version(bench.name, "1")

    assert bench.register_task("register").version == 2


def test_other_tasks_make_versions_of_their_own(bench: Bench) -> None:
    assert [bench.register_task(f"register-{n}").version for n in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("mode", ["enforce", "dry_run"])
@pytest.mark.parametrize("verdict", ["hold", "needs_attention"])
def test_what_the_gate_did_not_let_through_is_not_registered(bench: Bench, verdict: str, mode: str) -> None:
    with pytest.raises(ModelRefusedError, match=f"verdict is '{verdict}'"):
        bench.register_task("register", verdict=verdict, mode=mode)


def test_a_dry_run_registers_and_says_so(bench: Bench) -> None:
    ref = bench.register_task("register", mode="dry_run")

    assert ref.mode == "dry_run"
    assert "dry run" in bench.client.get_model_version(bench.name, "1").description


def refused(bench: Bench, match: str, model: TrainedModel) -> None:
    decision = decide(model).to_xcom()
    with pytest.raises(ModelRefusedError, match=match):
        bench.step("register", {"decision": decision, "registered_model": bench.name}, key="dag/run/register/-1")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param({"digest": ""}, r"blank\. model digest \(empty\): clear the train task", id="no digest"),
        pytest.param({"dataset_digest": "n/a"}, r"training data digest \('n/a'\): take the data", id="no dataset"),
        pytest.param(
            {"git_commit": "unknown"}, r"code commit \('unknown'\): .*AIRFLOW_MLOPS_GIT_COMMIT", id="no commit"
        ),
        pytest.param({"git_commit": "files:0123456789ab", "source_uri": ""}, "code commit", id="files nobody kept"),
        pytest.param({"validation_run_id": " - "}, r"training contract result \(' - '\)", id="not validated"),
        pytest.param({"digest": "0" * 64}, "was logged with digest", id="a record of another model"),
        pytest.param({"flavor": "lightgbm"}, "flavor 'lightgbm' .it has python_function, sklearn", id="no such flavor"),
        pytest.param(
            {"model_id": "m-00000000000000000000000000000000"}, "MLflow does not have it", id="a model that is gone"
        ),
    ],
)
def test_a_model_that_lacks_what_it_needs_is_refused_by_name(bench: Bench, change: dict[str, Any], match: str) -> None:
    refused(bench, match, bench.model.model_copy(update=change))


def test_a_model_without_signature_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    digest = save_tiny_model(tmp_path / "bare", signature=False)
    bare = log_tiny_model(bench.client, bench.experiment, tmp_path / "bare", digest)

    refused(bench, "lacks a signature with inputs, a signature with outputs", bare)


def test_a_model_whose_upload_did_not_finish_is_refused(bench: Bench) -> None:
    half = log_tiny_model(bench.client, bench.experiment, bench.folder / "model", bench.model.digest, finalize=False)

    refused(bench, "lacks a finished upload", half)


@pytest.mark.parametrize("name", ["a/b", "a:b", "a'b", " a", "flights.promotions"])
def test_a_name_that_cannot_be_searched_or_promoted_is_refused(bench: Bench, name: str) -> None:
    payload = {"decision": decide(bench.model).to_xcom(), "registered_model": name}
    with pytest.raises(InvalidSpecError, match="cannot be a registered model's name"):
        bench.step("register", payload, key="dag/run/register/-1")


def test_the_record_crosses_xcom(bench: Bench) -> None:
    ref = bench.register_task("register")

    assert ModelVersionRef.from_xcom(ref.to_xcom()) == ref


def test_every_blank_is_named_at_once_with_the_way_out(bench: Bench) -> None:
    model = bench.model.model_copy(update={"git_commit": "Unknown", "code_digest": "", "key": "none"})
    decision = decide(model, evidence_uri="", run_id="0" * 32).to_xcom()
    with pytest.raises(ModelRefusedError) as caught:
        bench.step("register", {"decision": decision, "registered_model": bench.name}, key="dag/run/register/-1")

    said = str(caught.value)
    assert "4 facts of its lineage are blank" in said
    for name in ("code commit ('Unknown')", "code digest (empty)", "training task ('none')", "evaluation evidence"):
        assert name in said
    assert f"airflow-mlops promote {bench.name} --override --candidate {'0' * 32} --reason" in said
    assert bench.client.search_registered_models(f"name = '{bench.name}'") == []


def test_a_person_may_register_what_has_blanks_and_the_version_names_them(bench: Bench) -> None:
    model = bench.model.model_copy(update={"git_commit": "unknown"})
    decision = decide(model, verdict="needs_attention", evidence_uri="")
    payload = {"decision": decision.to_xcom(), "registered_model": bench.name, "override": True}
    ref = bench.step("register", payload, key="override/run/register/-1")

    version = bench.client.get_model_version(bench.name, str(ref.version))
    assert json.loads(version.tags[versions.BLANK]) == ["code commit", "evaluation evidence"]
    assert "registered by a person all the same: code commit, evaluation evidence." in version.description
    assert "code commit" in card_of(bench, ref, "model_card.md")


def test_a_person_cannot_register_what_could_not_be_trusted(bench: Bench) -> None:
    decision = decide(bench.model.model_copy(update={"digest": ""}))
    payload = {"decision": decision.to_xcom(), "registered_model": bench.name, "override": True}
    with pytest.raises(ModelRefusedError, match="lacks the digest of its files"):
        bench.step("register", payload, key="override/run/register/-1")


def card_of(bench: Bench, ref: ModelVersionRef, name: str) -> str:
    assert ref.card_uri is not None
    run_id, _, page = ref.card_uri.removeprefix("runs:/").partition("/")
    assert page == "model_card.html"
    with tempfile.TemporaryDirectory() as folder:
        return Path(bench.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")


def test_every_version_has_a_card_and_a_killed_attempt_leaves_none_without(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(point: str) -> None:
        raise KeyboardInterrupt(point)

    monkeypatch.setattr(versions, "pause", die)
    with pytest.raises(KeyboardInterrupt):
        bench.register_task("register")
    monkeypatch.undo()
    orphan = bench.client.get_model_version(bench.name, "1")
    half = ModelVersionRef.from_xcom(
        {**bench.register("other").to_xcom(), "card_uri": orphan.tags[versions.CARD_URI], "version": 1}
    )
    assert "Model card" in card_of(bench, half, "model_card.html")

    ref = bench.register_task("register")
    text, page = card_of(bench, ref, "model_card.md"), card_of(bench, ref, "model_card.html")

    assert ref.version == 1
    assert ref.card_uri == orphan.tags[versions.CARD_URI]
    assert ref.sentence == "Every rule passed."
    assert f"# Model card: {bench.name}, version 1" in text.replace("\\", "")
    assert f"Model card: {bench.name}, version 1" in page
    assert "not recorded" in text  # its evidence was never written
    assert "[Model card](" in orphan.description
    assert addresses_of(ref, bench.access.server)["report"].endswith("/artifacts/model_card.html")


def test_a_retry_writes_the_same_card(bench: Bench) -> None:
    ref = bench.register_task("register")
    first = card_of(bench, ref, "model_card.html")
    # The record was lost, so the body runs again.
    run_id = str(ref.card_uri).removeprefix("runs:/").partition("/")[0]
    bench.client.update_run(run_id, status="RUNNING")

    assert bench.register_task("register") == ref
    assert card_of(bench, ref, "model_card.html") == first


def test_a_candidate_that_waits_for_approval_is_registered(bench: Bench) -> None:
    assert bench.register_task("register", verdict="needs_approval").verdict == "needs_approval"


def test_what_was_judged_anew_is_a_version_of_its_own_that_says_so(bench: Bench) -> None:
    dry = bench.register_task("register", mode="dry_run", verdict="first_model")
    earnest = bench.register_task("register", verdict="needs_approval")
    later = bench.register_task("register", verdict="needs_approval", ledger_entry=1)

    assert [ref.version for ref in (dry, earnest, later)] == [1, 2, 3]
    assert tags(bench, 2)[versions.VERDICT] == "needs_approval"
    assert tags(bench, 3)[versions.LEDGER_ENTRY] == "1"
    assert tags(bench, 1)[SUPERSEDED_BY] == tags(bench, 2)[SUPERSEDED_BY] == "3"
    assert tags(bench, 3)[versions.JUDGED_ALIAS] == "champion"


def test_a_champion_that_is_judged_once_more_gets_no_second_number(bench: Bench) -> None:
    first = bench.register_task("register", window=month(5))
    champion = ChampionRef(version=first.version, entry=1, is_candidate=True)

    again = bench.register_task("another-run", window=month(5), champion=champion, verdict="promote", ledger_entry=1)

    assert again.version == first.version
    assert again.card_uri == first.card_uri
    assert (
        bench.register_task("another-run", window=month(5), champion=champion, verdict="promote", ledger_entry=1)
        == again
    )
    assert count(bench) == 1
