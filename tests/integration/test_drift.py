"""Drift on a real MLflow server: windows that drifted, broke or are too small, and what is written about them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import csv

from airflow_mlops.core.monitoring_records import DriftReport
from airflow_mlops.errors import InvalidSpecError, MissingEngineError, ModelRefusedError
from airflow_mlops.links.addresses import addresses_of
from tests.support.candidates import Bench, make_bench, month
from tests.support.drift import DATA, FEATURES, JULY, DriftWorld, columns

DRIFTED = {"distance": np.random.default_rng(3).normal(1.5, 1, 3000)}


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bench]]:
    connection, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("drift-model"))
    yield lambda: make(f"drift-{uuid.uuid4().hex[:8]}")
    connection.__exit__(None, None, None)


@pytest.fixture(scope="module")
def world(benches: Callable[[], Bench], tmp_path_factory: pytest.TempPathFactory) -> DriftWorld:
    return DriftWorld.make(benches(), tmp_path_factory.mktemp("drift"))


@pytest.fixture(scope="module")
def drifted(world: DriftWorld) -> DriftReport:
    return world.detect(world.snapshot(world.write(columns(3000, 2, **DRIFTED), "drifted")), "drifted")


def test_a_drifted_window_says_which_column_by_which_method_and_how_far(
    world: DriftWorld, drifted: DriftReport
) -> None:
    assert drifted.verdict == "drift"
    assert (drifted.compared_count, drifted.drifted_count, drifted.row_count) == (3, 1, 3000)
    assert drifted.share == pytest.approx(1 / 3)
    first = drifted.columns[0]
    assert (first.column, first.method, first.threshold, first.drifted) == ("distance", "psi", 0.25, True)
    assert first.value is not None
    assert first.value > 1
    assert "distance" in drifted.sentence
    assert drifted.window == JULY
    assert f"version 1 of {world.bench.name}" in drifted.reference


def test_what_was_found_is_where_people_look(world: DriftWorld, drifted: DriftReport) -> None:
    run = world.bench.client.get_run(drifted.run_id)
    assert {"drift.json", "drift.html", "window_profile.json", "record.json"} <= world.files(drifted.run_id)
    assert run.data.tags["airflow_mlops.drift_verdict"] == "drift"
    assert run.data.tags["airflow_mlops.registered_model"] == world.bench.name
    assert run.data.tags["airflow_mlops.window_start"] == "2013-07-01T00:00:00+00:00"
    assert run.data.metrics["drift_share"] == pytest.approx(1 / 3)
    assert run.data.metrics["drift.distance"] == drifted.columns[0].value
    whole = world.read(drifted.findings_uri)
    assert {one["column"] for one in whole["columns"]} == set(FEATURES)
    assert whole["columns"][0]["error"] is not None
    profile = world.read(drifted.profile_uri)
    assert sum(profile["columns"]["distance"]["counts"].values()) == 3000
    page = world.text(str(drifted.report_uri))
    assert page.count("<svg") == 3
    assert "<script" not in page
    # Nothing of a single row: ids are in no artifact.
    for name in ("drift.json", "drift.html", "window_profile.json"):
        assert "f2999" not in world.text(f"runs:/{drifted.run_id}/{name}")
    assert addresses_of(drifted, world.bench.access.server)["run"].endswith(drifted.run_id)


def test_a_window_like_the_reference_has_not_drifted(world: DriftWorld) -> None:
    report = world.detect(world.snapshot(world.write(columns(3000, 4))))

    assert report.verdict == "none"
    assert report.drifted_count == 0
    assert report.findings == ()
    assert any("no scoring run" in note for note in report.notes)


def test_a_retry_adopts_and_new_data_gives_a_new_result(world: DriftWorld, drifted: DriftReport) -> None:
    folder = world.folder / "drifted"
    again = world.detect(world.snapshot(folder), "drifted")
    world.write(columns(3000, 5), "drifted")
    changed = world.detect(world.snapshot(folder), "drifted")
    forced = world.detect(world.snapshot(folder), "drifted", force=True)

    assert again == drifted
    assert changed.verdict == "none"
    assert len({drifted.run_id, changed.run_id, forced.run_id}) == 3
    assert world.bench.client.get_run(drifted.run_id).data.tags["airflow_mlops.superseded_by"]


@pytest.mark.parametrize(
    ("change", "rows", "verdict", "kind", "column"),
    [
        pytest.param({"hour": None}, 3000, "schema_broken", "missing_column", "hour", id="vanished"),
        pytest.param(
            {"distance": pyarrow.nulls(3000, pyarrow.float64())},
            3000,
            "schema_broken",
            "all_null",
            "distance",
            id="all null",
        ),
        pytest.param(
            {"carrier": pyarrow.array(["AA"] * 150 + [None] * 2850)},
            3000,
            "schema_broken",
            "mostly_null",
            "carrier",
            id="mostly null",
        ),
        pytest.param(
            {"hour": [f"{number % 24}.0" for number in range(3000)]},
            3000,
            "schema_broken",
            "type_changed",
            "hour",
            id="numbers became text",
        ),
        pytest.param({"gate": ["A1"] * 3000}, 3000, "schema_broken", "extra_column", "gate", id="extra column"),
        pytest.param({}, 5, "insufficient", "too_few_rows", None, id="five rows"),
    ],
)
def test_a_window_that_cannot_be_compared_is_named(
    change: dict[str, Any], rows: int, verdict: str, kind: str, column: str | None, world: DriftWorld
) -> None:
    report = world.detect(world.snapshot(world.write(columns(rows, 6, **change))))

    assert report.verdict == verdict
    assert (report.findings[0].kind, report.findings[0].column) == (kind, column)
    assert column is None or column in report.sentence
    assert {"drift.json", "drift.html"} <= world.files(report.run_id)


def test_text_whose_numbers_are_written_otherwise_changed_its_type(
    benches: Callable[[], Bench], tmp_path: Path
) -> None:
    codes = np.random.default_rng(0).integers(0, 5, 3000)
    rows = columns(3000, 1, window=month(1, 2), carrier=codes.astype(str))
    world = DriftWorld.make(benches(), tmp_path, **rows)

    report = world.detect(world.snapshot(world.write(columns(3000, 2, carrier=[f"{code}.0" for code in codes]))))

    assert report.verdict == "schema_broken"
    assert report.findings[0].kind == "type_changed"


def test_a_window_without_a_row_is_insufficient(world: DriftWorld) -> None:
    report = world.detect(world.snapshot(world.write(columns(100)), month(9)), drift={"report": True})

    assert (report.verdict, report.row_count, report.share) == ("insufficient", 0, None)
    assert report.findings[0].kind == "empty"
    assert "evidently.html" not in world.files(report.run_id)


def test_an_adopted_version_has_nothing_to_compare_with_and_another_window_serves(world: DriftWorld) -> None:
    adopted = world.served.model_copy(update={"profile_uri": None, "version": 1})
    dataset = world.snapshot(world.write(columns(3000, 2, **DRIFTED)))
    gone = adopted.model_copy(update={"profile_uri": f"runs:/{world.served.run_id}/nothing.json"})

    with pytest.raises(ModelRefusedError, match=r"has no reference profile.*pass `reference=`"):
        world.detect(dataset, model=adopted.model_dump(mode="json"))
    with pytest.raises(ModelRefusedError, match=r"nothing\.json, is gone"):
        world.detect(dataset, model=gone.model_dump(mode="json"))
    before = world.snapshot(world.write(columns(2000, 7, window=month(6))), month(6))
    report = world.detect(dataset, model=adopted.model_dump(mode="json"), reference=before.to_xcom())
    alone = world.detect(dataset, model=None, reference=before.to_xcom())

    assert report.verdict == alone.verdict == "drift"
    assert before.digest[:12] in report.reference
    # The model's features, and without a model every column but the id and the time.
    assert (report.compared_count, alone.compared_count) == (3, 4)
    with pytest.raises(InvalidSpecError, match="nothing to compare with"):
        world.detect(dataset, model=None)


def test_columns_are_chosen_by_name_and_a_wrong_name_is_told(world: DriftWorld) -> None:
    dataset = world.snapshot(world.write(columns(3000, 2, **DRIFTED)))

    report = world.detect(dataset, columns=["hour", "carrier"])

    assert (report.verdict, report.compared_count) == ("none", 2)
    # A record that could not hold the features: the model's own signature names two.
    unlisted = world.served.model_copy(update={"features": None}).model_dump(mode="json")
    assert {one.column for one in world.detect(dataset, model=unlisted).columns} == {"distance", "hour"}
    with pytest.raises(InvalidSpecError, match=r"'hours'.*Did you mean 'hour'"):
        world.detect(dataset, drift={"columns": ["hours"]})


def test_csv_is_read_as_its_snapshot_was(world: DriftWorld) -> None:
    folder = world.folder / "csv"
    folder.mkdir()
    csv.write_csv(pyarrow.table(columns(3000, 2, **DRIFTED)), folder / "rows.csv")

    report = world.detect(world.snapshot(folder, format="csv"))

    assert report.verdict == "drift"
    assert [one.column for one in report.columns if one.drifted] == ["distance"]


def test_rows_outside_of_the_window_do_not_count(world: DriftWorld) -> None:
    early = columns(3000, 2, window=month(6), **DRIFTED)
    late = columns(2000, 8)
    both = {name: np.concatenate([np.asarray(early[name]), np.asarray(late[name])]) for name in early}

    report = world.detect(world.snapshot(world.write(both)))

    assert (report.verdict, report.row_count) == ("none", 2000)


def test_a_table_of_500_long_names_fits_into_its_record(benches: Callable[[], Bench], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{'ü' * 120}_{number}:x" for number in range(500)]
    when = {name: value for name, value in columns(600, window=month(1, 2)).items() if name in ("at", "flight")}
    before = when | {name: rng.normal(size=600) for name in names}
    now = columns(600) | {name: rng.normal(2, 1, size=600) for name in names}
    world = DriftWorld.make(benches(), tmp_path, features=tuple(names), **before)

    report = world.detect(
        world.snapshot(world.write({name: now[name] for name in before})), columns=names, drift={"min_rows": 100}
    )

    assert (report.verdict, report.compared_count, report.drifted_count) == ("drift", 500, 500)
    assert 1 <= len(report.columns) < 30
    assert len(world.read(report.findings_uri)["columns"]) == 500
    metrics = world.bench.client.get_run(report.run_id).data.metrics
    assert sum(name.startswith("drift.") for name in metrics) == 500


def test_predictions_are_compared_with_those_of_the_evaluation(world: DriftWorld) -> None:
    dataset = world.snapshot(world.write(columns(3000, 9)))
    alike, _ = world.score(dataset, np.random.default_rng(6).beta(2, 2, 3000))
    higher, _ = world.score(dataset, np.random.default_rng(6).beta(6, 2, 3000))

    same = world.detect(dataset, scoring_run_id=alike).prediction
    report = world.detect(dataset, scoring_run_id=higher)
    not_wanted = world.detect(dataset, scoring_run_id=higher, drift={"prediction": None})

    assert same is not None
    assert (same.column, same.drifted) == ("prediction", False)
    assert same.value is not None
    assert same.value < 0.05
    assert report.prediction is not None
    assert report.prediction.drifted
    # The features are as they were, so the verdict is theirs; the sentence has both.
    assert report.verdict == "none"
    assert "The predictions drifted" in report.sentence
    assert world.bench.client.get_run(report.run_id).data.metrics["prediction_drift"] == report.prediction.value
    assert "prediction (psi" in world.text(str(report.report_uri))
    assert not_wanted.prediction is None


def test_of_a_split_batch_only_the_versions_own_rows_count(world: DriftWorld) -> None:
    dataset = world.snapshot(world.write(columns(3000, 9)))
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.beta(2, 2, 3000), np.full(3000, 0.99)])
    run, _ = world.score(dataset, values, other_mode="split", columns={"model_version": ["1"] * 3000 + ["2"] * 3000})

    found = world.detect(dataset, scoring_run_id=run).prediction

    assert found is not None
    assert (found.drifted, found.value is not None) == (False, True)


def test_predictions_that_cannot_be_had_are_said_in_words_and_looked_for_again(world: DriftWorld) -> None:
    dataset = world.snapshot(world.write(columns(3000, 9)))
    run, path = world.score(dataset, np.random.default_rng(6).beta(2, 2, 3000))
    content = path.read_bytes()

    def sentence(**payload: Any) -> str:
        found = world.detect(dataset, "predictions", **{"scoring_run_id": run, **payload}).prediction
        assert found is not None
        assert found.column == "prediction"
        return found.sentence

    path.write_bytes(content + b" ")
    assert "its bytes changed" in sentence()
    path.unlink()
    assert "is gone since it was published" in sentence()
    path.write_bytes(content)
    assert "could not" not in sentence()
    assert "is gone from MLflow" in sentence(scoring_run_id="0" * 32)
    other = world.served.model_copy(update={"version": 1, "name": world.served.name, "alias": "", "entry": 0})
    assert "could not" not in sentence(model=other.model_dump(mode="json"))
    without = world.served.model_copy(update={"evidence_uri": f"runs:/{world.bench.experiment}/evidence.json"})
    report = world.detect(dataset, scoring_run_id=run, model=without.model_dump(mode="json"))
    assert report.prediction is None
    assert any("no profile of predictions was logged" in note for note in report.notes)


def test_evidently_shows_a_seeded_sample_beside_the_verdict(world: DriftWorld) -> None:
    names = np.random.default_rng(0).choice(["AA", "B6", "</script><script>alert(1)</script>"], 3000)
    rows = columns(3000, 2, **DRIFTED) | {"carrier": names}

    report = world.detect(world.snapshot(world.write(rows)), drift={"report": True, "report_rows": 1000})

    assert report.verdict == "drift"
    assert report.evidently_uri == f"runs:/{report.run_id}/evidently.html"
    assert {"evidently.html", "evidently.json"} <= world.files(report.run_id)
    page = world.text(report.evidently_uri)
    assert len(page) > 1_000_000
    assert "<script>alert(1)" not in page
    assert any("rebuilt from the reference profile" in note for note in report.notes)
    shown = world.read(report.findings_uri)["evidently"]
    assert (shown["rows"], shown["reference_rows"], shown["reference_rebuilt"]) == (1000, 1000, True)
    assert "evidently.html" in world.text(str(report.report_uri))


def test_evidently_decides_where_it_is_asked_to(world: DriftWorld) -> None:
    dataset = world.snapshot(world.write(columns(3000, 2, **DRIFTED)))
    run, _ = world.score(dataset, np.random.default_rng(6).beta(6, 2, 3000))
    before = world.snapshot(world.write(columns(2000, 7, window=month(6))), month(6))

    report = world.detect(
        dataset,
        scoring_run_id=run,
        reference=before.to_xcom(),
        drift={"engine": "evidently", "overrides": {"hour": {"method": "kolmogorov_smirnov", "threshold": 1e-9}}},
    )

    assert (report.verdict, report.engine, report.evidently_uri) == ("drift", "evidently", None)
    found = {one.column: one for one in report.columns}
    assert (found["distance"].method, found["distance"].drifted) == ("Wasserstein distance (normed)", True)
    assert found["carrier"].method == "Jensen-Shannon distance"
    assert (found["hour"].method, found["hour"].threshold, found["hour"].drifted) == ("ks", 1e-9, False)
    assert found["hour"].p_value == found["hour"].value
    assert report.prediction is not None
    assert report.prediction.drifted
    assert "rebuilt" not in " ".join(report.notes)


def test_the_guards_speak_before_evidently_does(world: DriftWorld) -> None:
    nothing = {"distance": pyarrow.nulls(3000, pyarrow.float64())}

    report = world.detect(world.snapshot(world.write(columns(3000, 6, **nothing))), drift={"engine": "evidently"})

    assert (report.verdict, report.findings[0].kind) == ("schema_broken", "all_null")


def test_a_page_that_fails_leaves_the_verdict_and_a_verdict_that_fails_is_told(
    world: DriftWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.engines import evidently_report

    dataset = world.snapshot(world.write(columns(3000, 2, **DRIFTED)))
    monkeypatch.setattr(evidently_report, "TIMEOUT_SECONDS", 0.01)

    report = world.detect(dataset, drift={"report": True})

    assert (report.verdict, report.evidently_uri) == ("drift", None)
    assert any("was stopped after 0.01 s" in note for note in report.notes)
    with pytest.raises(InvalidSpecError, match="it gave no verdict: Evidently was stopped"):
        world.detect(dataset, drift={"engine": "evidently"})


def test_evidently_that_is_not_installed_is_a_note_or_names_what_to_install(
    world: DriftWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.engines import evidently_report

    dataset = world.snapshot(world.write(columns(3000, 2, **DRIFTED)))
    found = evidently_report.find_spec
    monkeypatch.setattr(evidently_report, "find_spec", lambda name: None if name == "evidently" else found(name))

    report = world.detect(dataset, drift={"report": True})

    assert report.verdict == "drift"
    assert any("pip install 'airflow-mlops[evidently]'" in note for note in report.notes)
    with pytest.raises(MissingEngineError, match=r"airflow-mlops\[evidently\]"):
        world.detect(dataset, drift={"engine": "evidently"})


def test_a_window_in_an_object_store(world: DriftWorld, s3: Any) -> None:
    from dataclasses import replace

    from tests.support.data_steps import parquet_bytes

    name = f"drift-{uuid.uuid4().hex[:8]}"
    s3.put(f"{name}/rows.parquet", parquet_bytes(columns(3000, 2, **DRIFTED)))
    there = replace(
        world, bench=replace(world.bench, access=replace(world.bench.access, storage=lambda conn_id: s3.access))
    )

    report = there.detect(there.snapshot(s3.uri(name), conn_id="s3"), data={"uri": s3.uri(name), **DATA})

    assert [one.column for one in report.columns if one.drifted] == ["distance"]


def test_an_evaluation_logs_the_profile_of_the_candidates_predictions(world: DriftWorld, tmp_path: Path) -> None:
    from tests.support.evaluation import Flights, linear, write_flights

    flights = Flights(world.bench.access, world.bench.client, tmp_path)
    write_flights(tmp_path / "lake", 5, rows=800)

    report = flights.evaluate(
        flights.log(linear(1, 1)), flights.data(month(5), tmp_path / "lake"), metrics=["roc_auc"], slices=[]
    )
    profile = world.read(report.evidence_uri.replace("evidence.json", "prediction_profile.json"))

    assert (profile["row_count"], profile["predicted"]) == (800, "probability")
    assert 0 < profile["columns"]["prediction"]["min"] < profile["columns"]["prediction"]["max"] < 1
