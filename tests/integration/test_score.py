"""Batches scored by real models on a real MLflow server: what is published, what is set aside, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_mlops.core.monitoring_records import ScoringReport, ServedModel
from airflow_mlops.core.record import Window
from airflow_mlops.engines.batch_scoring import TooManyRefused
from airflow_mlops.engines.entity_split import draw
from airflow_mlops.engines.schemas import to_frame
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError, ModelRefusedError
from airflow_mlops.steps.base import Access
from tests.support.batches import FEATURES, WINDOW, Batches, january, mixed_pipeline, read, read_file, rows, truth


@pytest.fixture(scope="module")
def world(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batches]:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))
    with connected(access.server) as client:
        yield Batches(access, client, tmp_path_factory.mktemp("score"))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return mixed_pipeline()


@pytest.fixture(scope="module")
def champion(world: Batches, pipeline: Any) -> ServedModel:
    return world.log(pipeline, 3)


@pytest.fixture(scope="module")
def strict(world: Batches) -> ServedModel:
    """A version whose encoder refuses a value that it has not seen."""
    return world.log(mixed_pipeline(unknown="error"), 4)


def features(frame: pd.DataFrame) -> pd.DataFrame:
    return to_frame(pa.Table.from_pandas(frame[list(FEATURES)], preserve_index=False))


def test_predictions_are_the_models_own_and_say_where_they_come_from(
    world: Batches, champion: ServedModel, pipeline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "airflow_mlops")
    frame = rows()
    report = world.score(champion, frame, keep=["t0"], chunk_rows=128)
    written, wanted = read(report), january(frame)

    assert list(written) == list(report.columns) == [
        "id", "at", "t0", "prediction", "probability", "model_name", "model_version", "run_key", "window_start",
        "window_end",
    ]  # fmt: skip
    assert written["id"].tolist() == wanted["id"].tolist()
    assert written["t0"].tolist() == wanted["t0"].tolist()
    assert written["at"].tolist() == wanted["at"].tolist()
    chances = pipeline.predict_proba(features(wanted))[:, 1]
    assert np.array_equal(written["probability"], chances)
    assert written["prediction"].tolist() == (chances >= 0.5).astype(int).tolist()
    assert "is unwrapped: it gave equal answers" in caplog.text
    assert {name: set(written[name]) for name in ("model_name", "model_version", "run_key")} == {
        "model_name": {world.name}, "model_version": {3}, "run_key": {f"dag/{world.name}"},
    }  # fmt: skip
    assert (written["window_start"][0], written["window_end"][0]) == (WINDOW.start, WINDOW.end)

    assert report.output_uri.endswith("/window=20240101T000000Z_20240201T000000Z/predictions.parquet")
    assert (report.row_count, report.scored_count, report.scored_by) == (len(wanted), len(wanted), {"3": len(wanted)})
    assert (report.quarantined_count, report.quarantine_uri, report.reasons) == (0, None, {})
    assert report.byte_count == Path(report.output_uri).stat().st_size
    run = world.client.get_run(report.run_id)
    assert run.data.tags["airflow_mlops.registered_model"] == world.name
    assert run.data.tags["airflow_mlops.model_version"] == "3"
    assert run.data.tags["airflow_mlops.window_start"] == WINDOW.start.isoformat()
    assert run.data.metrics["scored_rows"] == len(wanted)
    assert run.data.metrics["seconds"] > 0


def test_a_retry_adopts_what_is_published_and_a_replaced_file_is_noticed(world: Batches, champion: ServedModel) -> None:
    data = world.write(rows())
    payload = world.payload(champion, world.snapshot(data), data, output_uri=str(world.folder / "retried"))
    first = world.step("score", payload, "retried")
    again = world.step("score", payload, "retried")
    forced = world.step("score", payload, "retried", force=True)

    assert again.run_id == first.run_id
    assert (forced.run_id == first.run_id, forced.output_digest) == (False, first.output_digest)

    # Another run publishes the same window with another version.
    newer = champion.model_copy(update={"version": 9})
    world.step("score", {**payload, "plan": {**payload["plan"], "model": newer.model_dump(mode="json")}}, "rival")
    assert set(read(first)["model_version"]) == {9}
    mended = world.step("score", payload, "retried")
    assert mended.output_digest == first.output_digest
    assert set(read(mended)["model_version"]) == {3}

    Path(mended.output_uri).unlink()
    assert world.step("score", payload, "retried").output_digest == first.output_digest
    assert Path(first.output_uri).is_file()
    assert [path.name for path in Path(first.output_uri).parent.iterdir()] == ["predictions.parquet"]


@pytest.fixture(scope="module")
def coded(world: Batches) -> tuple[ServedModel, Any]:
    """A version that knows numerals as text, ``t1``, and whole numbers as categories, ``n1``; and its pipeline."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = rows(2000, seed=3)
    frame["n1"] %= 5
    frame["t1"] = np.random.default_rng(3).choice(["07", "12", "A1", None], len(frame))
    parts = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["t1", "n1"]), remainder="drop")
    score = (frame["t1"] == "07") * 2.0 + frame["t1"].isna() * 1.0 + frame["n1"]
    model = make_pipeline(parts, LogisticRegression()).fit(features(frame), (score > score.median()).astype(int))
    return world.log(model, 11, sample=features(frame)), model


def numerals(count: int = 200) -> pd.DataFrame:
    frame = rows(count)
    frame["n1"] %= 5
    frame["t1"] = np.random.default_rng(1).choice(["07", "12"], count)
    return frame


def test_text_that_csv_holds_as_numerals_stays_text(world: Batches, coded: tuple[ServedModel, Any]) -> None:
    frame = numerals()
    report = world.score(coded[0], frame, form="csv", keep=["t1"])
    wanted = january(frame)

    assert np.array_equal(read(report)["probability"], coded[1].predict_proba(features(wanted))[:, 1])
    assert read(report)["t1"].tolist() == wanted["t1"].tolist()


def test_numbers_where_the_model_knows_text_are_refused(world: Batches, coded: tuple[ServedModel, Any]) -> None:
    frame = numerals()
    frame["t1"] = frame["t1"].astype(int)
    with pytest.raises(DataReadError, match=r"'t1' is int64 and was text") as caught:
        world.score(coded[0], frame)
    assert "The model knows none of these values" in str(caught.value)


def test_a_text_column_without_any_value_is_missing_text(world: Batches, coded: tuple[ServedModel, Any]) -> None:
    frame = numerals()
    frame["t1"] = None
    report = world.score(coded[0], frame)
    table = pa.table({**{name: frame[name] for name in FEATURES}, "t1": pa.nulls(len(frame), pa.string())})

    chances = coded[1].predict_proba(to_frame(table.filter(pa.array(frame["at"] < "2024-02-01"))))[:, 1]
    assert np.array_equal(read(report)["probability"], chances)


def test_a_stray_word_among_numbers_costs_its_own_row_only(world: Batches, coded: tuple[ServedModel, Any]) -> None:
    frame = numerals()
    wanted = january(frame)
    frame["n1"] = frame["n1"].astype(str)
    frame.loc[3, "n1"] = "none"
    report = world.score(coded[0], frame, form="csv")

    assert (report.quarantined_count, report.scored_count) == (1, len(wanted) - 1)
    kept = wanted.drop(index=3)
    assert np.array_equal(read(report)["probability"], coded[1].predict_proba(features(kept))[:, 1])


def test_csv_and_chunks_of_any_size_give_the_same_predictions(world: Batches, champion: ServedModel) -> None:
    frame = rows(400)
    small = world.score(champion, frame, chunk_rows=7)
    large = world.score(champion, frame, chunk_rows=5_000_000)
    text = world.score(champion, frame, form="csv", chunk_rows=100)

    assert small.output_digest == large.output_digest
    columns = ["id", "prediction", "probability"]
    pd.testing.assert_frame_equal(read(text)[columns], read(small)[columns])


def test_a_wider_file_streams_in_chunks_and_rows_of_one_group_are_cut(world: Batches, champion: ServedModel) -> None:
    frame = rows(2000)
    data = world.write(frame.head(10))
    folder = Path(data["uri"])
    frame.head(1500).to_parquet(folder / "rows.parquet", index=False)
    # Of another writer: times in nanoseconds, text as categories, and a whole number column that has gaps here.
    other = frame.tail(500).astype({"at": "datetime64[ns]", "t0": "category"})
    other["n1"] = other["n1"].astype("Int64").mask(other["n1"] == 7)
    other.to_parquet(folder / "rows2.parquet", index=False)
    payload = world.payload(champion, world.snapshot(data), data, chunk_rows=300)
    report = world.step("score", payload)

    assert report.scored_count == len(january(frame))
    assert read(report)["id"].tolist() == january(frame)["id"].tolist()


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(world: Batches, task: str) -> None:
    model = mixed_pipeline(task, scale=True)
    frame = rows(300)
    report = world.score(world.log(model, task=task), frame, task=task)
    written, wanted = read(report), features(january(frame))

    assert not report.notes
    if task == "regression":
        assert np.array_equal(written["prediction"], model.predict(wanted))
        assert list(report.columns)[2:4] == ["prediction", "model_name"]
        return
    names = [f"probability_{label}" for label in model.classes_]
    assert list(report.columns)[3:6] == names == ["probability_early", "probability_late", "probability_on time"]
    assert np.array_equal(written[names], model.predict_proba(wanted))
    assert written["prediction"].tolist() == model.predict(wanted).tolist()


def test_other_flavours(world: Batches) -> None:
    import mlflow.pyfunc
    from lightgbm import LGBMClassifier

    frame, numbers = rows(300), ["n0", "n1", "n2"]
    sample = frame[numbers].head(50)
    boosted = LGBMClassifier(n_estimators=5, verbose=-1).fit(frame[numbers], truth(frame, "binary"))

    class Steep(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            assert str(model_input["n2"].dtype) == "float64"
            return 1 / (1 + np.exp(-3 * model_input["n0"].to_numpy()))

    light = world.score(world.log(boosted, flavor="lightgbm", sample=sample), frame, chunk_rows=64)
    wrapped = world.log(Steep(), flavor="pyfunc", serialization="native", sample=sample)
    # Whole numbers in this batch, where the signature says double: scored all the same.
    whole = frame.assign(n2=1)
    steep = world.score(wrapped, whole, chunk_rows=64)

    wanted = january(frame)
    assert np.array_equal(read(light)["probability"], boosted.predict_proba(wanted[numbers])[:, 1])
    assert np.allclose(read(steep)["probability"], 1 / (1 + np.exp(-3 * wanted["n0"])))
    assert read(steep)["prediction"].tolist() == (wanted["n0"] >= 0).astype(int).tolist()
    assert steep.quarantined_count == 0, steep.reasons


def test_rows_that_cannot_be_scored_are_set_aside_with_their_reason(world: Batches, strict: ServedModel) -> None:
    frame = rows(600)
    frame["id"] = frame["id"].astype("Int64")
    frame.loc[[5, 250], "t0"] = "ZZ-secret"
    frame.loc[9, "id"] = pd.NA
    wanted = january(frame)
    report = world.score(strict, frame, chunk_rows=100)

    assert (report.row_count, report.scored_count, report.quarantined_count) == (len(wanted), len(wanted) - 3, 3)
    assert "ZZ-secret" not in json.dumps(report.to_xcom())
    assert sorted(report.reasons.values()) == [1, 2]
    assert "the id column 'id' is null" in report.reasons
    aside = read_file(report.quarantine_uri)
    assert sorted(aside["n0"]) == sorted(frame["n0"][[5, 9, 250]])
    assert aside.loc[aside["t0"] == "ZZ-secret", "reason"].str.contains("ZZ-secret").tolist() == [True, True]
    assert "/_quarantine/window=" in str(report.quarantine_uri)
    assert set(read(report)["id"]) == set(wanted["id"].dropna()) - {5, 250}
    # Readers of the folder see the predictions alone.
    root = Path(report.output_uri).parent.parent
    assert parquet.read_table(root).num_rows == report.scored_count

    # The next attempt finds nothing to set aside: the old file goes.
    data = world.write(rows(600))
    clean = world.step("score", world.payload(strict, world.snapshot(data), data, output_uri=str(root)))
    assert clean.quarantined_count == 0
    assert not Path(str(report.quarantine_uri)).exists()


def test_predictions_that_are_no_numbers_are_set_aside(world: Batches) -> None:
    from sklearn.linear_model import LinearRegression

    frame = rows(200)
    frame.loc[3, "n0"] = 1e300
    model = LinearRegression().fit(frame[["n0"]].clip(-5, 5), frame["n1"])
    model.coef_ = np.array([1e300])
    served = world.log(model, task="regression", sample=frame[["n0"]].head(2))
    report = world.score(served, frame, task="regression")

    assert report.reasons == {"the prediction is not finite": 1}
    assert read_file(report.quarantine_uri)["id"].tolist() == [3]


def test_too_many_refused_rows_publish_nothing_and_keep_the_evidence(world: Batches, strict: ServedModel) -> None:
    good, bad = rows(400), rows(400)
    bad.loc[bad.index % 4 == 0, "t0"] = "ZZ"
    out = str(world.folder / "guarded")
    before = world.score(strict, good, output_uri=out)
    with pytest.raises(TooManyRefused, match=r"more than the 10.* that scoring.max_quarantined_share") as caught:
        world.score(strict, bad, output_uri=out, chunk_rows=50)

    assert "ValueError" in str(caught.value)
    assert "'ZZ'" not in str(caught.value)
    assert read(before)["id"].tolist() == january(good)["id"].tolist()
    aside = read_file(Path(out) / "_quarantine" / Path(before.output_uri).parent.name / "quarantine.parquet")
    assert set(aside["t0"]) == {"ZZ"}
    assert len(aside) > 0.1 * before.row_count


def test_an_empty_window_publishes_a_file_without_rows(world: Batches, champion: ServedModel) -> None:
    full = world.score(champion, rows(100), keep=["t0"])
    later = Window.model_validate({"start": "2025-01-01", "end": "2025-02-01"})
    report = world.score(champion, rows(100), keep=["t0"], window=later)

    assert "holds no row" in report.sentence
    assert (report.row_count, report.scored_count, report.scored_by) == (0, 0, {})
    assert parquet.read_schema(report.output_uri).equals(parquet.read_schema(full.output_uri))
    assert len(read(report)) == 0


def test_a_batch_without_a_window_is_one_file(world: Batches, champion: ServedModel) -> None:
    report = world.score(champion, rows(50), window=None)

    assert report.output_uri.endswith("/window=all/predictions.parquet")
    assert read(report)["window_start"].isna().all()
    assert report.scored_count == 50


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param({"drop": ["n1", "t1"]}, DataReadError, r"lacks 2 of the 5 columns.*'n1', 't1'", id="features"),
        pytest.param({"keep": ["nothing"]}, InvalidSpecError, r"scoring.keep names 'nothing'", id="kept"),
        pytest.param({"rename": {"t0": "model_name"}}, InvalidSpecError, "'model_name' of the data", id="a clash"),
    ],
)
def test_what_does_not_fit_is_named(
    world: Batches, champion: ServedModel, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    frame = rows(50).drop(columns=change.pop("drop", []))
    for old, new in change.pop("rename", {}).items():
        frame[new] = frame[old]
        change["keep"] = [new]

    with pytest.raises(error, match=message):
        world.score(champion, frame, **change)


def test_exactly_one_of_validation_and_dataset(world: Batches, champion: ServedModel) -> None:
    data = world.write(rows(50))
    payload = world.payload(champion, world.snapshot(data), data)

    with pytest.raises(InvalidSpecError, match="exactly one of validation"):
        world.step("score", {**payload, "dataset": None})


def test_the_accepted_rows_of_a_validation_are_scored(world: Batches, champion: ServedModel) -> None:
    frame = rows(200)
    frame.loc[4, "n0"] = 99.0
    data = world.write(frame)
    between = {"column": "n0", "min_value": -10, "max_value": 10}
    contract = {
        "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": between, "on_failure": "quarantine"}]
    }
    checked = world.step("validate", {"dataset": world.snapshot(data).to_xcom(), "contract": contract, "data": data})
    payload = world.payload(champion, checked.dataset, data, output_uri=str(world.folder / "validated"))
    report = world.step("score", {**payload, "dataset": None, "validation": checked.to_xcom()})

    assert report.scored_count == len(january(frame)) - 1
    assert 4 not in set(read(report)["id"])
    failed = {**checked.to_xcom(), "verdict": "fail"}
    with pytest.raises(InvalidSpecError, match="does not meet its contract"):
        world.step("score", {**payload, "dataset": None, "validation": failed})


def test_changed_files_are_refused_before_anything_is_loaded(
    world: Batches, champion: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_mlops.steps.score.load_predictor", lambda *_: pytest.fail("it was loaded"))

    with pytest.raises(ModelRefusedError, match="Somebody changed its files"):
        world.score(champion.model_copy(update={"digest": "0" * 64}), rows(50))


def test_rows_that_changed_after_the_snapshot_are_refused(world: Batches, champion: ServedModel) -> None:
    data = world.write(rows(50))
    dataset = world.snapshot(data)
    rows(60).to_parquet(Path(data["uri"]) / "rows.parquet", index=False)
    out = world.folder / "changed"

    with pytest.raises(DataChangedError, match="is not the file that was snapshotted"):
        world.step("score", world.payload(champion, dataset, data, output_uri=str(out)))
    assert not out.exists()


def test_a_second_version_scores_the_same_rows_in_shadow(world: Batches, champion: ServedModel, pipeline: Any) -> None:
    model = mixed_pipeline(seed=7, scale=True)
    frame = rows(300)
    report = world.score(champion, frame, other=world.log(model, 5), shadow="challenger", chunk_rows=64)
    written, wanted = read(report), features(january(frame))

    assert list(report.columns)[2:6] == ["prediction", "probability", "other_prediction", "other_probability"]
    assert np.array_equal(written["probability"], pipeline.predict_proba(wanted)[:, 1])
    assert np.array_equal(written["other_probability"], model.predict_proba(wanted)[:, 1])
    assert set(written["model_version"]) == {3}
    assert (report.other_mode, report.other.version if report.other else None) == ("shadow", 5)
    assert report.scored_by == {"3": report.scored_count}


@pytest.mark.parametrize("way", ["its files changed", "it refuses every row", "it refuses some"])
def test_a_failing_shadow_costs_the_champion_nothing(
    world: Batches, champion: ServedModel, strict: ServedModel, way: str
) -> None:
    frame = rows(300)
    if way != "its files changed":
        frame.loc[frame.index % (1 if way == "it refuses every row" else 50) == 0, "t0"] = "ZZ"
    other = strict.model_copy(update={"digest": "0" * 64} if way == "its files changed" else {})
    report = world.score(champion, frame, other=other, shadow="challenger", chunk_rows=100)
    written = read(report)

    assert report.scored_count == len(january(frame))
    assert written["probability"].notna().all()
    assert len(report.notes) == 1
    missing = int(written["other_prediction"].isna().sum())
    assert missing == {"it refuses some": int((january(frame)["t0"] == "ZZ").sum())}.get(way, len(written))
    assert list(report.columns)[4:6] == ["other_prediction", "other_probability"]


def test_a_split_gives_every_entity_its_version_in_every_batch(
    world: Batches, champion: ServedModel, pipeline: Any
) -> None:
    challenger = mixed_pipeline(seed=7, scale=True)
    split = {"share": 0.3, "by": ["t1"], "salt": "spring"}
    frame = rows(800).dropna(subset=["t1"])
    other = world.log(challenger, 5)
    report = world.score(champion, frame, other=other, split=split, keep=["t1"], chunk_rows=90)
    text = world.score(champion, frame.tail(700), other=other, split=split, keep=["t1"], form="csv")
    written, wanted = read(report), january(frame)

    theirs = np.array([draw([name], "spring") < 0.3 for name in wanted["t1"]])
    assert 0 < theirs.sum() < len(theirs)
    assert written["id"].tolist() == wanted["id"].tolist()
    assert written["model_version"].tolist() == np.where(theirs, 5, 3).tolist()
    chances = [model.predict_proba(features(wanted))[:, 1] for model in (pipeline, challenger)]
    assert np.array_equal(written["probability"], np.where(theirs, chances[1], chances[0]))
    assert report.scored_by == {"3": int((~theirs).sum()), "5": int(theirs.sum())}
    arms = [dict(zip(one["t1"], one["model_version"], strict=True)) for one in (written, read(text))]
    assert {name: arms[0][name] for name in arms[1]} == arms[1]


@pytest.mark.parametrize("named", [{"shadow": "challenger"}, {"split": {"share": 0.5}}], ids=["shadow", "split"])
def test_a_second_version_that_does_not_exist_yet_is_a_note(
    world: Batches, champion: ServedModel, named: dict[str, Any]
) -> None:
    report = world.score(champion, rows(50), **named)

    assert report.scored_by == {"3": report.row_count}
    assert (report.other_mode, "other_prediction" in report.columns) == ("", False)
    assert "there was none when the run began" in report.notes[0]


def test_a_second_version_of_another_kind_fails_a_split_and_is_a_note_in_shadow(
    world: Batches, champion: ServedModel
) -> None:
    third = world.log(mixed_pipeline("regression"), 6, task="regression")

    with pytest.raises(ModelRefusedError, match="neither labels of the target"):
        world.score(champion, rows(100), other=third, split={"share": 0.5})
    beside = world.score(champion, rows(100), other=third, shadow="challenger")
    assert "neither labels of the target" in beside.notes[0]
    assert read(beside)["other_prediction"].isna().all()


def test_predictions_go_to_an_object_store_whole(world: Batches, champion: ServedModel, s3: Any) -> None:
    from dataclasses import replace

    from airflow_mlops.engines.storage import filesystem

    there = replace(world, access=replace(world.access, storage=lambda conn: s3.access if conn == "lake" else None))
    data = there.write(rows(300))
    payload = there.payload(
        champion, there.snapshot(data), data, output_uri=s3.uri(f"{world.name}/out"), output_conn_id="lake"
    )
    first = there.step("score", payload, "stored")
    again = there.step("score", payload, "stored")
    forced = there.step("score", payload, "stored", force=True)

    assert isinstance(first, ScoringReport)
    assert (again.run_id, forced.output_digest) == (first.run_id, first.output_digest)
    files, path = filesystem(first.output_uri, s3.access)
    with files.open_input_file(path) as source:
        assert parquet.read_table(source).num_rows == first.scored_count
    found = files.get_file_info(pa.fs.FileSelector(path.partition("/out")[0], recursive=True))
    assert [one.path for one in found if one.type == pa.fs.FileType.File] == [path]
