"""Realised performance on a real MLflow server: provisional, final once, and revisions that say what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from airflow_mlops.core.monitoring_records import MonitoredWindow, PerformanceReport
from airflow_mlops.engines import runs
from airflow_mlops.engines.realised_history import REVISION, published
from airflow_mlops.engines.realised_promise import read_promise
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import DataChangedError, InvalidSpecError
from airflow_mlops.steps.base import Access, perform
from tests.support.candidates import month
from tests.support.performance import LATE, Watched, at, served, write

ROWS = 60


@pytest.fixture(scope="module")
def connection(mlflow_server: Any) -> Iterator[Any]:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))
    with connected(access.server) as client:
        yield access, client


@pytest.fixture
def watched(connection: Any, tmp_path: Path) -> Watched:
    access, client = connection
    return Watched(access, client, tmp_path)


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


PROBABILITY = rng().random(ROWS).round(3)
LATE_OR_NOT = (rng(1).random(ROWS) < PROBABILITY).astype(int)
CARRIER = rng(2).choice(["AA", "B6"], ROWS)


def columns(**other: Any) -> dict[str, Any]:
    """Return a batch of binary predictions: row n is of entity n at hour n."""
    return {
        "id": list(range(ROWS)),
        "event_time": [at(hour) for hour in range(ROWS)],
        "carrier": CARRIER.tolist(),
        "prediction": (PROBABILITY >= 0.5).astype(int).tolist(),
        "probability": PROBABILITY.tolist(),
        **other,
    }


def some(watched: Watched, count: int, name: str = "a", labels: Any = LATE_OR_NOT) -> None:
    watched.deliver(name, list(range(count)), labels[:count].tolist())


def test_realised_beside_promised_with_intervals_slices_and_a_page(watched: Watched) -> None:
    evidence = watched.promise("binary", {"roc_auc": 0.9, "accuracy": 0.8}, carrier={"AA": 0.95})
    monitored = watched.publish(
        columns(), model=served(watched.name, evidence_uri=evidence, features=("distance", "hour"))
    )
    some(watched, ROWS)
    # Two labels that contradict the first ones, and one about nothing.
    watched.deliver("others", [0, 1, 500], [*(1 - LATE_OR_NOT[:2]).tolist(), 1])

    report = watched.evaluate(monitored, slices=["carrier", "origin"], as_of=LATE)

    late, probability = LATE_OR_NOT[2:], PROBABILITY[2:]
    auc = roc_auc_score(late, probability)
    accuracy = accuracy_score(late, probability >= 0.5)
    assert report.metrics == pytest.approx({"roc_auc": auc, "accuracy": accuracy})
    assert report.promised == {"roc_auc": 0.9, "accuracy": 0.8}
    assert (report.state, report.revision, report.labelled_count) == ("final", 1, 58)
    assert (report.duplicate_count, report.unknown_count) == (2, 1)
    assert "contradict each other" in report.notes["labels.ambiguous"]
    assert f"roc_auc {auc:.4f} where 0.9000 was promised" in report.sentence
    assert "scoring.keep" in report.notes["slice.origin"]
    figures = watched.result(report)["figures"]
    whole = next(one for one in figures if one["metric"] == "roc_auc" and one["slice"] is None)
    assert whole["low"] < auc < whole["high"]
    american = next(one for one in figures if one["metric"] == "roc_auc" and one["value"] == "AA")
    mine = CARRIER[2:] == "AA"
    assert american["realised"] == pytest.approx(roc_auc_score(late[mine], probability[mine]))
    assert (american["promised"], american["rows"]) == (0.95, int(mine.sum()))
    page = watched.page(report)
    assert "Labels without a prediction" in page
    assert "By carrier" in page
    assert "<script" not in page
    run = watched.client.get_run(report.run_id)
    assert run.data.metrics["roc_auc"] == pytest.approx(auc)
    assert run.data.metrics["promised.roc_auc"] == 0.9
    assert run.data.tags[REVISION] == "1"
    assert {
        name.removeprefix("airflow_mlops."): run.data.tags[name]
        for name in (
            "airflow_mlops.registered_model",
            "airflow_mlops.model_version",
            "airflow_mlops.scoring_run",
            "airflow_mlops.performance_state",
            "airflow_mlops.window_start",
        )
    } == {
        "registered_model": watched.name,
        "model_version": "3",
        "scoring_run": monitored.scoring_run_id,
        "performance_state": "final",
        "window_start": "2013-03-01T00:00:00+00:00",
    }


def test_no_row_goes_to_mlflow(watched: Watched) -> None:
    monitored = watched.publish(columns(id=[f"tail-{n}" for n in range(ROWS)]))
    watched.deliver(
        "a", [f"tail-{n}" for n in range(ROWS)], LATE_OR_NOT.tolist(), event_time=[at(n) for n in range(ROWS)]
    )

    report = watched.evaluate(monitored)

    files = {one.path for one in watched.client.list_artifacts(report.run_id)}
    assert files == {"performance.html", "performance.json", "record.json"}
    assert "tail-" not in json.dumps(watched.result(report)) + watched.page(report)


def test_waiting_then_provisional_then_final_once(watched: Watched) -> None:
    monitored = watched.publish(columns())

    nothing = watched.evaluate(monitored, "one")
    some(watched, 30)
    half = watched.evaluate(monitored, "two")
    some(watched, 56)
    most = watched.evaluate(monitored, "three")
    final = watched.evaluate(monitored, "four", as_of=LATE)

    assert [(one.state, one.labelled_count, one.revision) for one in (nothing, half, most, final)] == [
        ("waiting", 0, 1),
        ("waiting", 30, 1),
        ("provisional", 56, 1),
        ("final", 56, 1),
    ]
    assert (nothing.metrics, half.metrics) == ({}, {})
    assert most.metrics == final.metrics
    assert watched.tags(most.run_id)[runs.SUPERSEDED_BY] == final.run_id
    assert "waits for labels: 30 of 60 predictions have a label (50.0%)." in half.sentence


def test_the_same_labels_are_one_result_whoever_asks(watched: Watched) -> None:
    monitored = watched.publish(columns())
    some(watched, ROWS)
    first = watched.evaluate(monitored, "one")

    retried = watched.evaluate(monitored, "one")
    other_run = watched.evaluate(monitored, "two", as_of=LATE)
    some(watched, 0)
    some(watched, ROWS, name="written-anew", labels=LATE_OR_NOT.astype(float))
    rewritten = watched.evaluate(monitored, "three")
    watched.deliver("unknown", [700], [1])
    told = watched.evaluate(monitored, "four")

    assert first == retried == other_run == rewritten
    assert (told.run_id, told.unknown_count, first.unknown_count) == (first.run_id, 1, 0)
    assert [one.run_id for one in published(watched.client, watched.experiment, monitored.scoring_run_id)] == [
        first.run_id
    ]


def test_late_corrections_are_revisions_that_say_what_changed(watched: Watched) -> None:
    """All of it before the deadline: what is final stays so, also when labels are taken back."""
    monitored = watched.publish(columns())
    some(watched, ROWS)
    first = watched.evaluate(monitored, "one")

    corrected = LATE_OR_NOT.copy()
    corrected[:3] = 1 - corrected[:3]
    some(watched, 40, labels=corrected)
    second = watched.evaluate(monitored, "two")
    some(watched, ROWS)
    third = watched.evaluate(monitored, "three")

    assert [(one.state, one.revision) for one in (first, second, third)] == [("final", 1), ("final", 2), ("final", 3)]
    before, after = first.metrics["roc_auc"], second.metrics["roc_auc"]
    changes = f"Since revision 1: 3 labels changed, 20 labels withdrawn; roc_auc {before:.4f} to {after:.4f}"
    assert changes in second.sentence
    assert "Since revision 2: 20 labels added, 3 labels changed" in third.sentence
    assert third.metrics == first.metrics
    assert third.run_id != first.run_id
    assert watched.tags(first.run_id)[runs.SUPERSEDED_BY] == third.run_id
    assert "Since revision 2" in watched.page(third)


def test_another_way_of_measuring_is_a_revision_and_force_is_none(watched: Watched) -> None:
    monitored = watched.publish(columns())
    some(watched, ROWS)
    first = watched.evaluate(monitored, "one")

    forced = watched.evaluate(monitored, "one", force=True)
    other = watched.evaluate(monitored, "two", metrics=["roc_auc", "log_loss"])

    assert (forced.revision, other.revision) == (1, 2)
    assert forced.run_id != first.run_id
    assert "the labels are the same, measured in another way" in other.sentence
    assert other.metrics["log_loss"] == pytest.approx(log_loss(LATE_OR_NOT, PROBABILITY))


def test_labels_kept_nowhere_are_compared_by_their_number(watched: Watched) -> None:
    import shutil

    monitored = watched.publish(columns())
    some(watched, 50)
    watched.evaluate(monitored, "one", as_of=LATE)
    shutil.rmtree(Path(watched.report.output_uri).parent / "_labels")
    some(watched, 55)

    report = watched.evaluate(monitored, "two", as_of=LATE)

    assert "50 labels became 55 (which ones changed is not known any more)" in report.sentence


def test_two_at_once_publish_one_revision(watched: Watched) -> None:
    monitored = watched.publish(columns())
    some(watched, ROWS)
    requests = [watched.request(monitored, f"racer-{number}") for number in range(3)]

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda request: perform(request, watched.access), requests))

    assert all(isinstance(one, PerformanceReport) and one.revision == 1 for one in reports)
    assert len({json.dumps(one.metrics) for one in reports}) == 1  # type: ignore[attr-defined]
    later = watched.evaluate(monitored, "later")
    assert later.revision == 1
    assert later.run_id == published(watched.client, watched.experiment, monitored.scoring_run_id)[0].run_id


def test_one_who_publishes_second_hands_on_the_first(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rival publishes between this one's look and its own publication."""
    from airflow_mlops.steps import performance

    monitored = watched.publish(columns())
    some(watched, ROWS)
    rivals: list[PerformanceReport] = []
    keep = performance.keep_labels

    def overtaken(*arguments: Any) -> bool:
        if not rivals:
            rivals.append(None)  # type: ignore[arg-type]
            rivals[0] = watched.evaluate(monitored, "rival")
        return keep(*arguments)

    monkeypatch.setattr(performance, "keep_labels", overtaken)
    mine = watched.evaluate(monitored, "first-to-begin")

    # Both were published; the run that began first counts for everybody who asks from now on.
    assert (mine.revision, rivals[0].revision) == (1, 1)
    assert watched.evaluate(monitored, "third").run_id == mine.run_id


def test_other_labels_that_took_the_number_meanwhile_push_it_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.steps import performance

    monitored = watched.publish(columns())
    some(watched, ROWS)
    rivals: list[Any] = []
    keep = performance.keep_labels

    def overtaken(*arguments: Any) -> bool:
        if not rivals:
            rivals.append(None)
            some(watched, ROWS, labels=1 - LATE_OR_NOT)
            rivals[0] = watched.evaluate(monitored, "rival")
        return keep(*arguments)

    monkeypatch.setattr(performance, "keep_labels", overtaken)
    mine = watched.evaluate(monitored, "mine")

    assert (rivals[0].revision, mine.revision) == (1, 2)
    assert "Since revision 1: 60 labels changed" in mine.sentence


def test_an_attempt_that_died_after_publishing_is_taken_up(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.steps import performance

    monitored = watched.publish(columns())
    some(watched, ROWS)

    def dies(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(performance, "supersede", dies)
        with pytest.raises(KeyboardInterrupt):
            watched.evaluate(monitored, "one")
    (orphan,) = published(watched.client, watched.experiment, monitored.scoring_run_id)

    report = watched.evaluate(monitored, "one")

    assert (report.run_id, report.revision) == (orphan.run_id, 1)
    assert watched.client.get_run(report.run_id).info.status == "FINISHED"


def test_a_label_that_comes_of_age_is_a_revision_though_no_file_changed(watched: Watched) -> None:
    monitored = watched.publish(columns())
    known = [at(n) for n in range(ROWS - 1)] + [at(24 * 70)]
    watched.deliver("a", list(range(ROWS)), LATE_OR_NOT.tolist(), known_at=known)
    labels = watched.labels(known_at="known_at")

    first = watched.evaluate(monitored, "one", labels=labels, as_of=LATE)
    again = watched.evaluate(monitored, "one", labels=labels, as_of=LATE)
    second = watched.evaluate(monitored, "one", labels=labels, as_of="2013-06-01")

    assert (first.future_count, first.labelled_count, first.revision) == (1, 59, 1)
    assert again == first
    assert (second.future_count, second.labelled_count, second.revision) == (0, 60, 2)
    assert "Since revision 1: 1 label added" in second.sentence


@pytest.mark.parametrize(
    ("labels", "auc", "accuracy", "note"),
    [
        pytest.param([], None, None, "got no label that can be used", id="no label by the deadline"),
        pytest.param([0, 0, 0], None, True, "one class only", id="one class"),
    ],
)
def test_nothing_is_decided_on_missing_evidence(
    watched: Watched, labels: list[int], auc: Any, accuracy: Any, note: str
) -> None:
    monitored = watched.publish(columns())
    if labels:
        watched.deliver("a", list(range(len(labels))), labels)

    report = watched.evaluate(monitored, as_of=LATE)

    assert report.state == "final"
    assert report.metrics["roc_auc"] is auc
    assert (report.metrics["accuracy"] is not None) is bool(accuracy)
    assert note in report.notes["roc_auc"]
    assert "roc_auc undefined" in report.sentence


def test_predictions_that_are_not_finite_have_no_metric(watched: Watched) -> None:
    broken = [None if n == 3 else value for n, value in enumerate(PROBABILITY.tolist())]
    monitored = watched.publish(columns(probability=broken))
    some(watched, ROWS)

    report = watched.evaluate(monitored)

    assert report.metrics == {"roc_auc": None, "accuracy": None}
    assert "version 3 predicted NaN or infinity on 1 of 60 rows" in report.notes["roc_auc"]


def test_an_empty_batch_is_final_and_says_nothing(watched: Watched) -> None:
    import pyarrow

    empty = {name: pyarrow.array(values)[:0] for name, values in columns().items()}
    report = watched.evaluate(watched.publish(empty))

    assert (report.state, report.row_count, report.metrics["roc_auc"]) == ("final", 0, None)
    assert "the batch has no row" in report.notes["roc_auc"]


def test_a_shadow_is_measured_on_the_same_rows(watched: Watched) -> None:
    worse = rng(5).random(ROWS)
    evidence = watched.promise("binary", {"roc_auc": 0.7})
    monitored = watched.publish(
        columns(other_prediction=(worse >= 0.5).astype(int).tolist(), other_probability=worse.tolist()),
        other=served(watched.name, 2, evidence_uri=evidence),
        other_mode="shadow",
    )
    some(watched, ROWS)

    report = watched.evaluate(monitored)

    assert report.other_metrics["roc_auc"] == pytest.approx(roc_auc_score(LATE_OR_NOT, worse))
    assert report.metrics["roc_auc"] == pytest.approx(roc_auc_score(LATE_OR_NOT, PROBABILITY))
    result = watched.result(report)
    assert result["other_promised"] == {"roc_auc": 0.7}
    assert result["figures"][0]["other_low"] < report.other_metrics["roc_auc"] < result["figures"][0]["other_high"]


@pytest.mark.parametrize(
    ("beside", "figure", "said"),
    [
        pytest.param(
            {"other_prediction": [None] * 4 + [1] * 56, "other_probability": [None] * 4 + PROBABILITY[4:].tolist()},
            roc_auc_score(LATE_OR_NOT[4:], PROBABILITY[4:]),
            "did not answer 4 of 60 labelled rows; it is measured on the rest",
            id="refused some rows",
        ),
        pytest.param(
            {"other_prediction": pyarrow.nulls(ROWS, pyarrow.int64())},
            None,
            "did not answer 60 of 60 labelled rows",
            id="refused all",
        ),
        pytest.param({}, None, "was not measured: The predictions have no column 'other_prediction'", id="not there"),
    ],
)
def test_what_is_wrong_with_a_shadow_takes_nothing_from_the_champion(
    watched: Watched, beside: dict[str, Any], figure: Any, said: str
) -> None:
    monitored = watched.publish(columns(**beside), other=served(watched.name, 2), other_mode="shadow")
    some(watched, ROWS)

    report = watched.evaluate(monitored)

    assert report.metrics["roc_auc"] == pytest.approx(roc_auc_score(LATE_OR_NOT, PROBABILITY))
    assert report.other_metrics["roc_auc"] == (None if figure is None else pytest.approx(figure))
    assert said in report.notes["other"]


def test_a_split_measures_each_version_on_its_own_rows(watched: Watched) -> None:
    version = [3 if n % 3 else 2 for n in range(ROWS)]
    monitored = watched.publish(columns(model_version=version), other=served(watched.name, 2), other_mode="split")
    some(watched, ROWS)

    report = watched.evaluate(monitored)

    mine = np.array(version) == 3
    assert report.metrics["roc_auc"] == pytest.approx(roc_auc_score(LATE_OR_NOT[mine], PROBABILITY[mine]))
    assert report.other_metrics["roc_auc"] == pytest.approx(roc_auc_score(LATE_OR_NOT[~mine], PROBABILITY[~mine]))
    assert (report.row_count, watched.result(report)["figures"][0]["rows"]) == (60, 40)


def test_a_batch_that_was_really_scored_with_a_shadow(watched: Watched) -> None:
    from tests.support.batches import WINDOW, Batches, january, mixed_pipeline, read, rows, truth

    batches = Batches(watched.access, watched.client, watched.folder)
    pipeline = mixed_pipeline("multiclass")
    champion, other = (batches.log(pipeline, version, task="multiclass") for version in (3, 2))
    frame = rows(600)
    scored = batches.score(champion, frame, other=other, task="multiclass", shadow="challenger", keep=["t0"])
    inside = january(frame)
    labels = truth(frame, "multiclass")[: len(inside)]
    write(watched.lake / "a.parquet", {"id": inside["id"], "at": inside["at"], "late": labels})
    monitored = MonitoredWindow(window=WINDOW, model=champion, scoring_run_id=scored.run_id)

    report = watched.evaluate(
        monitored,
        labels={"data": {"uri": str(watched.lake), "event_time": "at"}, "label": "late"},
        task="multiclass",
        metrics=["accuracy", "log_loss", "roc_auc_ovr"],
        slices=["t0"],
        as_of="2024-02-02",
    )

    published = read(scored)
    assert report.state == "final"
    assert report.metrics["accuracy"] == pytest.approx((published["prediction"].to_numpy() == labels).mean())
    classes = ["early", "late", "on time"]
    table = published[[f"probability_{name}" for name in classes]].to_numpy()
    assert report.metrics["log_loss"] == pytest.approx(log_loss(labels, table, labels=classes))
    assert report.other_metrics == report.metrics
    assert {one["value"] for one in watched.result(report)["figures"]} == {None, "AA", "B6", "UA"}


def test_predictions_and_labels_in_a_store(connection: Any, s3: Any, tmp_path: Path) -> None:
    access, client = connection
    asked: list[str | None] = []

    def storage(conn_id: str | None) -> Any:
        asked.append(conn_id)
        return s3.access if conn_id else None

    watched = Watched(Access(server=access.server, storage=storage), client, tmp_path)
    place = f"{watched.name}/window=march/predictions.parquet"
    monitored = watched.publish(columns(), output_uri=s3.uri(place), output_conn_id="lake_out")
    (local,) = (watched.folder / watched.name).rglob("predictions.parquet")
    s3.put(place, local.read_bytes())
    labels = watched.labels(data={"uri": s3.uri(f"{watched.name}/labels"), "conn_id": "lake_in"})

    waiting = watched.evaluate(monitored, "one", labels=labels)
    some(watched, 50)
    s3.put(f"{watched.name}/labels/a.parquet", (watched.lake / "a.parquet").read_bytes())
    first = watched.evaluate(monitored, "two", labels=labels, as_of=LATE)
    some(watched, 52)
    s3.put(f"{watched.name}/labels/b.parquet", (watched.lake / "a.parquet").read_bytes())
    second = watched.evaluate(monitored, "three", labels=labels, as_of=LATE)

    assert (waiting.state, first.labelled_count) == ("waiting", 50)
    assert "Since revision 1: 2 labels added" in second.sentence
    assert set(asked) == {"lake_in", "lake_out"}
    s3.delete(place)
    with pytest.raises(DataChangedError, match="gone or was replaced"):
        watched.evaluate(monitored, "four", labels=labels, as_of=LATE, force=True)


def test_regression_says_which_way_is_better(watched: Watched) -> None:
    rows = columns(prediction=(PROBABILITY * 10).tolist())
    del rows["probability"]
    monitored = watched.publish(
        rows,
        task="regression",
        model=served(watched.name, evidence_uri=watched.promise("regression", {"rmse": 1.0, "mae": None})),
    )
    some(watched, ROWS, labels=PROBABILITY * 10 + 2)

    report = watched.evaluate(monitored, task="regression", metrics=["rmse", "mae", "r2"])

    assert report.metrics["rmse"] == pytest.approx(2.0)
    assert report.lower_is_better == ("rmse", "mae")
    assert report.promised == {"rmse": 1.0, "mae": None}
    assert "did not measure r2" in report.notes["promised"]
    assert 'class="n worse">-1.0000' in watched.page(report)


def test_text_labels_of_one_class_are_told_apart_by_the_probabilities(watched: Watched) -> None:
    monitored = watched.publish(columns(prediction=["no"] * ROWS, probability=[0.1] * ROWS))
    some(watched, ROWS, labels=np.array(["no"] * ROWS))

    report = watched.evaluate(monitored, metrics=["accuracy", "roc_auc", "brier"])

    assert report.metrics == {"accuracy": 1.0, "roc_auc": None, "brier": pytest.approx(0.01)}


def test_labels_of_another_kind_than_the_predictions_are_refused(watched: Watched) -> None:
    monitored = watched.publish(columns())
    some(watched, ROWS, labels=np.array(["0", "1"])[LATE_OR_NOT])

    with pytest.raises(InvalidSpecError, match=r"The labels are text \(string\) and the predictions .* integer"):
        watched.evaluate(monitored)


def test_a_metric_of_the_teams_own(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def cost(y_true, y_pred):\n    return float(((y_pred > 0.5) != y_true).sum())\n")
    monitored = watched.publish(columns())
    some(watched, ROWS)

    report = watched.evaluate(monitored, metrics=["own:cost"], lower_is_better=["own:cost"], code_path=str(tmp_path))

    assert report.metrics["own:cost"] == pytest.approx(((PROBABILITY > 0.5) != LATE_OR_NOT).sum())
    assert watched.client.get_run(report.run_id).data.metrics["own.cost"] == report.metrics["own:cost"]


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        pytest.param(None, "it names no evidence", id="none"),
        pytest.param("lost.json", "is gone", id="gone"),
        pytest.param("evidence.json", "is about another model", id="another model's"),
    ],
)
def test_a_version_that_promised_nothing_says_why(watched: Watched, evidence: str | None, said: str) -> None:
    uri = watched.promise("binary", {"roc_auc": 0.9}).replace("evidence.json", str(evidence))
    model = served(watched.name, evidence_uri=None if evidence is None else uri, digest="x" * 64)

    promise = read_promise(watched.client, model, ["roc_auc"])

    assert (promise.overall, promise.groups) == ({}, {})
    assert said in promise.notes["promised"]


def test_a_record_stays_small_whatever_there_is_to_say(watched: Watched) -> None:
    features = tuple(f"a_rather_long_name_of_a_feature_{n}" for n in range(200))
    monitored = watched.publish(columns(), model=served(watched.name, features=features))
    some(watched, ROWS)
    slices = [f"a_slice_column_that_nobody_kept_{n}" for n in range(120)]

    report = watched.evaluate(monitored, slices=slices)

    assert len(json.dumps(report.to_xcom())) < 16_000
    assert report.notes["more"] == "Further notes are in performance.json."
    assert sum(name.startswith("slice.") for name in watched.result(report)["report"]["notes"]) == 120


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param({"scoring_run_id": ""}, InvalidSpecError, "was never scored", id="never scored"),
        pytest.param({"scoring_run_id": "0" * 32}, InvalidSpecError, "There is no MLflow run", id="no such run"),
        pytest.param({}, InvalidSpecError, "was scored as binary", id="another task"),
    ],
)
def test_a_batch_that_cannot_be_evaluated(
    watched: Watched, change: dict[str, str], error: type[Exception], message: str
) -> None:
    monitored = watched.publish(columns()).model_copy(update=change)
    other: dict[str, Any] = {} if change else {"task": "regression", "metrics": ["rmse"]}

    with pytest.raises(error, match=message):
        watched.evaluate(monitored, **other)


def test_an_unfinished_scoring_run_has_published_nothing(watched: Watched) -> None:
    run = watched.client.create_run(watched.experiment)
    monitored = MonitoredWindow(window=month(3), model=served(watched.name), scoring_run_id=run.info.run_id)

    with pytest.raises(InvalidSpecError, match=r"has published no batch of predictions \(its status is RUNNING\)"):
        watched.evaluate(monitored)


def test_replaced_predictions_are_refused(watched: Watched) -> None:
    monitored = watched.publish(columns())
    some(watched, ROWS)
    Path(watched.report.output_uri).write_bytes(b"something else")

    with pytest.raises(DataChangedError, match="gone or was replaced"):
        watched.evaluate(monitored)
