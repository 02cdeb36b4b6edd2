"""Parts of batch scoring: the split's hash, what answers mean, chunks of rows, the search, and publishing."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_mlops.core.record import Window
from airflow_mlops.engines import batch_scoring
from airflow_mlops.engines.batch_answers import Predictor, columns_of, settle, usable
from airflow_mlops.engines.batch_rows import read_chunks
from airflow_mlops.engines.batch_scoring import Arm, BatchScorer, Layout, TooManyRefused
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.direct_prediction import same_answer, unwrapped
from airflow_mlops.engines.entity_split import canonical, draw, draws
from airflow_mlops.engines.predictions import Raw, ask
from airflow_mlops.engines.published import predictions_uri, publish, quarantine_uri, window_folder
from airflow_mlops.engines.refusals import RefusalSearch
from airflow_mlops.engines.schemas import to_frame
from airflow_mlops.engines.tables import take_manifest
from airflow_mlops.errors import DataChangedError, DataReadError, ModelRefusedError
from airflow_mlops.spec.data import DataSpec
from tests.support.batches import FEATURES, mixed_pipeline, rows

# --- The split ----------------------------------------------------------------------------------------------------


def test_an_entitys_number_is_the_documented_hash() -> None:
    text = b"6:spring2:423:abc"

    assert draw([42, "abc"], "spring") == int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    # Written down, so that no release moves an entity to the other arm.
    assert draw([1]) == 0.4266491686238966
    assert draw(["a", "bc"]) != draw(["ab", "c"])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([7, 7.0, "7", np.int64(7).item()], "7"),
        ([True], "true"),
        ([0.1], "0.1"),
        ([datetime(2024, 1, 1, 5), datetime(2024, 1, 1, 5, tzinfo=UTC)], "2024-01-01T05:00:00+00:00"),
        ([date(2024, 1, 1)], "2024-01-01"),
    ],
)
def test_a_value_is_one_text_however_it_is_stored(values: list[Any], text: str) -> None:
    assert {canonical(value) for value in values} == {text}


def test_many_rows_get_the_numbers_of_their_entities() -> None:
    table = pa.table(
        {
            "a": pa.array(["x", "y", "x"]).dictionary_encode(),
            "b": pa.array([1.0, 2.0, 1.0]),
            "c": pa.array([1, 2, 1], pa.timestamp("ns")),
        }
    )

    assert draws(table, ["a", "b"], "s").tolist() == [draw(["x", 1], "s"), draw(["y", 2], "s"), draw(["x", 1], "s")]
    assert len(draws(table, ["c"])) == 3
    shares = [draw([number]) < 0.25 for number in range(4000)]
    assert 0.22 < np.mean(shares) < 0.28


# --- What answers mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "task", "columns"),
    [
        pytest.param(
            Raw("probabilities", np.array([[0.6, 0.4], [0.5, 0.5]]), ("no", "yes")), "binary",
            {"prediction": ["no", "yes"], "probability": [0.4, 0.5]}, id="two columns",
        ),
        pytest.param(
            Raw("predicted", np.array([0.0, 1.0]), None), "binary",
            {"prediction": [0, 1], "probability": [0.0, 1.0]}, id="floats are probabilities, even whole ones",
        ),
        pytest.param(
            Raw("predicted", np.array([[0.2], [0.7]]), None), "binary",
            {"prediction": [0, 1], "probability": [0.2, 0.7]}, id="a column of a matrix",
        ),
        pytest.param(Raw("predicted", np.array([1, 0]), None), "binary", {"prediction": [1, 0]}, id="labels"),
        pytest.param(
            Raw("predicted", np.array([2.0, 1.0]), (1.0, 2.0)), "binary", {"prediction": [2.0, 1.0]},
            id="floats that are labels",
        ),
        pytest.param(
            Raw("predicted", np.array(["late", "early"], dtype=object), None), "binary",
            {"prediction": ["late", "early"]}, id="labels that nobody named",
        ),
        pytest.param(
            Raw("decision", np.array([-1.0, 2.0]), ("a", "b")), "binary", {"prediction": ["a", "b"]}, id="decisions",
        ),
        pytest.param(
            Raw("probabilities", np.array([[1.0], [1.0]]), (0,)), "binary",
            {"prediction": [0, 0], "probability": [0.0, 0.0]}, id="trained on one label",
        ),
        pytest.param(
            Raw("probabilities", np.array([[0.2, 0.5, 0.3]]), ("c", "a", "b")), "multiclass",
            {"prediction": ["a"], "probability_a": [0.5], "probability_b": [0.3], "probability_c": [0.2]},
            id="classes in another order",
        ),
        pytest.param(
            Raw("predicted", np.array([[0.2, 0.8]]), None), "multiclass",
            {"prediction": [1], "probability_0": [0.2], "probability_1": [0.8]}, id="classes that nobody named",
        ),
        pytest.param(
            Raw("predicted", np.array([3, 1]), None), "multiclass", {"prediction": [3, 1]}, id="several labels",
        ),
        pytest.param(
            Raw("predicted", np.array([[3], [1]]), None), "regression", {"prediction": [3.0, 1.0]}, id="values",
        ),
    ],
)  # fmt: skip
def test_answers_become_columns(raw: Raw, task: Any, columns: dict[str, list[Any]]) -> None:
    terms = settle(raw, task)
    table = columns_of(raw, terms, "the model")

    assert table.to_pydict() == columns
    assert table.schema.equals(terms.schema)


def test_what_was_settled_holds_for_every_chunk() -> None:
    chances = settle(Raw("predicted", np.array([0.3, 0.9]), None), "binary")
    labels = settle(Raw("predicted", np.array([0, 1]), None), "binary")

    alone = columns_of(Raw("predicted", np.array([1.0]), None), chances, "it")
    assert alone.to_pydict() == {"prediction": [1], "probability": [1.0]}
    with pytest.raises(ModelRefusedError, match="1 labels that it did not name"):
        columns_of(Raw("predicted", np.array([0, 5]), None), labels, "it")
    with pytest.raises(ModelRefusedError, match="neither labels of the target"):
        columns_of(Raw("predicted", np.array([17.0]), None), chances, "it")


def test_versions_that_share_columns_must_speak_of_the_same() -> None:
    two = settle(Raw("probabilities", np.array([[0.6, 0.4]]), ("a", "b")), "multiclass")
    more = settle(Raw("probabilities", np.array([[0.6, 0.4]]), ("b", "c")), "multiclass")
    labels = settle(Raw("predicted", np.array(["a"], dtype=object), ("a", "b")), "multiclass")

    joined = two.joined(more)
    table = columns_of(Raw("probabilities", np.array([[0.6, 0.4]]), ("b", "c")), joined, "it")
    assert table.to_pydict() == {
        "prediction": ["b"], "probability_a": [0.0], "probability_b": [0.6], "probability_c": [0.4],
    }  # fmt: skip
    with pytest.raises(ModelRefusedError, match="cannot share the rows"):
        two.joined(labels)


def test_only_finite_answers_are_usable() -> None:
    table = pa.table({"prediction": [1, 0, None], "probability": [0.5, float("nan"), 0.1]})

    assert usable(table).tolist() == [True, False, False]
    assert usable(pa.table({"prediction": [1.0, float("inf"), None]})).tolist() == [True, False, False]


# --- Pipelines without their wrapping -----------------------------------------------------------------------------


def arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame[list(FEATURES)], preserve_index=False).cast(
        pa.schema([("n0", pa.float64()), ("n1", pa.int64()), ("n2", pa.float64()), ("t0", "string"), ("t1", "string")])
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("scale", [False, True])
def test_an_unwrapped_pipeline_gives_the_same_bits(task: Any, scale: bool) -> None:
    model, table = mixed_pipeline(task, scale=scale), arrow(rows(500, seed=3))
    unknown = pa.array(["never seen", None, "AA", *table["t0"].to_pylist()[3:]])
    table = table.set_column(3, "t0", unknown.dictionary_encode())
    numbers = pa.array([float("inf"), float("-inf"), None, 1e308, *table["n2"].to_pylist()[4:]])
    table = table.set_column(2, "n2", numbers)
    ways = unwrapped(model, FEATURES)

    assert len(ways) == 2, "by bins, and by values"
    for way in ways:
        assert same_answer(way.ask(table, task, frozenset()), ask(model, to_frame(table), task))
        one = table.slice(17, 1)
        assert same_answer(way.ask(one, task, frozenset()), ask(model, to_frame(one), task))


def test_values_that_only_the_files_dictionary_holds_are_not_asked_for() -> None:
    model, table = mixed_pipeline(unknown="error"), arrow(rows(300))
    direct = unwrapped(model, FEATURES)[0]
    words = pa.array([*dict.fromkeys(table["t1"].drop_null().to_pylist()), *(f"new-{n}" for n in range(5000))])
    codes = pa.compute.index_in(table["t1"], words)
    coded = table.set_column(4, "t1", pa.DictionaryArray.from_arrays(codes.combine_chunks().cast(pa.int32()), words))

    assert same_answer(direct.ask(coded, "binary", frozenset()), ask(model, to_frame(table), "binary"))
    with pytest.raises(ValueError, match="unknown categories"):
        direct.ask(table.set_column(3, "t0", pa.array(["ZZ"] * 300)), "binary", frozenset())


def test_models_of_another_build_are_left_as_they_are() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = mixed_pipeline()
    assert unwrapped(LogisticRegression(), ["a"]) == []
    assert unwrapped(make_pipeline(StandardScaler(), LogisticRegression()), ["a"]) == []
    assert unwrapped(model, FEATURES[::-1]) == []
    assert unwrapped(model.set_output(transform="pandas"), FEATURES) == []


def test_a_pipeline_that_answers_otherwise_unwrapped_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    model = mixed_pipeline()
    predictor = Predictor(model, tmp_path, FEATURES, "binary", "the model")
    table = arrow(rows(600))
    wrong = unwrapped(mixed_pipeline(seed=1, scale=True), FEATURES)
    monkeypatch.setattr(predictor, "_ways", wrong)
    with caplog.at_level("INFO"):
        answer = predictor.answer(table)

    assert not predictor.unwrapped
    assert "used as it is: unwrapped it does not give the same answers" in caplog.text
    assert np.array_equal(answer["probability"], model.predict_proba(to_frame(table))[:, 1])


def test_edges_of_bins_fall_where_the_trees_put_them() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from airflow_mlops.engines.binned_trees import binned

    rng = np.random.default_rng(0)
    data = np.column_stack([rng.integers(0, 5, 3000), rng.normal(size=3000), np.full(3000, 7.0)]).astype(float)
    data[rng.random(3000) < 0.1, 1] = np.nan
    model = HistGradientBoostingClassifier(max_iter=20).fit(data, np.nan_to_num(data[:, 1]) + data[:, 0] > 2)
    trees = binned(model)
    assert trees is not None
    edges = np.concatenate([model._bin_mapper.bin_thresholds_[1], [np.inf, -np.inf, np.nan, 0.0, -0.0]])
    near = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    asked = np.column_stack([rng.integers(-1, 7, len(near)), near, rng.choice([7.0, np.nan, 8.0], len(near))])
    bins = np.column_stack([trees.bins(number, asked[:, number]) for number in range(3)])

    assert np.array_equal(bins, model._bin_mapper.transform(asked))
    assert np.array_equal(trees.ask(bins, "binary").values, model.predict_proba(asked))
    assert not hasattr(model, "_in_fit"), "the model itself is as it was"
    assert binned(HistGradientBoostingClassifier(categorical_features=[0]).fit(data, data[:, 0] > 2)) is None
    assert binned(HistGradientBoostingClassifier()) is None


# --- Chunks -------------------------------------------------------------------------------------------------------


def chunks(
    data: DataSpec, tmp_path: Path, columns: list[str], size: int, window: Window | None = None
) -> list[pa.Table]:
    manifest = take_manifest(data, window)
    return list(read_chunks(checked_files(manifest, tmp_path), manifest, columns, size))


def test_chunks_have_the_manifests_types_and_no_more_rows_than_asked(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    for carrier, kind in (("AA", pa.int32()), ("B6", pa.int64())):
        (lake / f"carrier={carrier}").mkdir(parents=True)
        table = pa.table(
            {"x": pa.array(range(25), kind), "t": pa.array([carrier, None] * 12 + ["z"]), "dotted.name": range(25)}
        )
        parquet.write_table(table, lake / f"carrier={carrier}" / "a.parquet", row_group_size=10)
    found = chunks(DataSpec(uri=str(lake)), tmp_path, ["t", "x", "carrier", "dotted.name"], 7)

    def values(name: str) -> list[Any]:
        return [value for part in found for value in part[name].to_pylist()]

    assert max(part.num_rows for part in found) <= 7
    assert [part.column_names for part in found] == [["t", "x", "carrier", "dotted.name"]] * len(found)
    assert {str(part.schema.field("x").type) for part in found} == {"int64"}
    assert values("x") == [*range(25), *range(25)]
    assert values("carrier") == ["AA"] * 25 + ["B6"] * 25
    assert values("t")[24:27] == ["z", "B6", None]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_csv_streams_in_blocks_with_the_types_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("airflow_mlops.engines.batch_rows.CSV_BLOCK_BYTES", 256)
    frame = pd.DataFrame(
        {
            "at": ["2024-01-01T00:00:00Z", "2024-01-15 12:00:00", "2024-02-01"] * 30,
            "x": [1, 2, 3] * 29 + [1, 2, 2.5],
            "t": ["a", "", 'with, comma and\nline "quoted"'] * 30,
        }
    )
    frame.to_csv(tmp_path / name, index=False)
    january = Window.model_validate({"start": "2024-01-01", "end": "2024-02-01"})
    data = DataSpec(uri=str(tmp_path / name), format="csv", event_time="at")
    found = chunks(data, tmp_path, ["x", "t", "at"], 8, january)

    assert sum(part.num_rows for part in found) == 60
    assert {str(part.schema.field("x").type) for part in found} == {"double"}
    assert found[0]["t"].to_pylist()[:2] == ["a", None]
    assert str(found[0].schema.field("at").type).startswith("timestamp")


def test_a_file_of_other_rows_than_were_snapshotted_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": range(10)}), tmp_path / "rows.parquet")
    manifest = take_manifest(DataSpec(uri=str(tmp_path / "rows.parquet")))
    entry = manifest.files[0].model_copy(update={"row_count": 11, "total_rows": 11})
    wrong = manifest.model_copy(update={"files": (entry,)})

    with pytest.raises(DataChangedError, match="gave 10 rows of the window where the snapshot counted 11"):
        list(read_chunks(checked_files(wrong, tmp_path), wrong, ["x"], 100))


# --- The search for refused rows ----------------------------------------------------------------------------------


class Picky:
    """Refuses some rows, by their number, and counts how often it is asked."""

    def __init__(self, refused: set[int]) -> None:
        self.refused = refused
        self.calls = 0

    def predict(self, frame: pd.DataFrame) -> Any:
        self.calls += 1
        if bad := self.refused & set(frame["x"]):
            raise ValueError(f"cannot score {sorted(bad)[0]!r}: '{sorted(bad)[0]}'")
        return frame["x"].to_numpy(float)


def scorer(tmp_path: Path, model: Any, *, count: int, share: float = 1.0) -> BatchScorer:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    arm = Arm(predictor=Predictor(model, tmp_path, ["x"], "regression", "the model"), version=1)
    layout = Layout(copied=("x",), ids=(), model_name="m", run_key="r", window=None)
    return BatchScorer(arm, layout, tmp_path, expected_rows=count, max_share=share)


def test_only_the_refused_rows_are_set_aside(tmp_path: Path) -> None:
    table, model = pa.table({"x": range(1000)}), Picky({0, 499, 500, 999})
    one = scorer(tmp_path, model, count=1000)
    predictions, aside = one.score([table.slice(0, 600), table.slice(600)], table.schema)

    assert sorted(parquet.read_table(str(aside))["x"].to_pylist()) == [0, 499, 500, 999]
    assert parquet.read_table(predictions)["x"].to_pylist() == [n for n in range(1000) if n not in model.refused]
    assert one.tally.shown() == {f"ValueError: cannot score {number}: …": 1 for number in (0, 499, 500, 999)}
    assert model.calls < 2 * 4 * 11


class Fussy:
    """Refuses words, missing and infinite values, and counts how often it is asked."""

    def __init__(self, *words: str) -> None:
        self.words = set(words)
        self.calls = 0

    def predict(self, frame: pd.DataFrame) -> Any:
        self.calls += 1
        if bad := self.words & set(frame["t"]):
            raise ValueError(f"unknown: {sorted(bad)}")
        if frame["t"].isna().any() or not np.isfinite(frame["x"]).all():
            raise TypeError("a value is missing or infinite")
        return frame["x"].to_numpy(float)


def test_a_value_that_thousands_of_rows_share_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    count = 6000
    words = [["good", "fine", "new", "newer", None][number % 7 if number % 7 < 5 else 0] for number in range(count)]
    numbers = [float("inf") if number % 11 == 3 else float(number) for number in range(count)]
    table = pa.table({"x": numbers, "t": pa.array(words).dictionary_encode()})
    model = Fussy("new", "newer")
    search = RefusalSearch(Predictor(model, tmp_path, ["x", "t"], "regression", "it"), 2000)
    first, second = (search.answer(table.slice(start, count // 2)) for start in (0, count // 2))

    wanted = [n for n in range(count) if words[n] in ("good", "fine") and np.isfinite(numbers[n])]
    assert [*first.positions, *(second.positions + count // 2)] == wanted
    reasons = {reason.shown for places, reason in second.refused if len(places) > 100}
    assert reasons == {
        "ValueError: unknown: … (column 't')", "TypeError: a value is missing or infinite (column 't')",
        "TypeError: a value is missing or infinite (column 'x')",
    }  # fmt: skip
    assert "['newer']" in " ".join(reason.words for _, reason in second.refused)
    assert model.calls < 150
    told = np.sort(np.concatenate([places for places, _ in second.refused]))
    assert told.tolist() == sorted(set(range(count // 2)) - set(second.positions.tolist()))


def test_the_search_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_scoring, "MAX_SEARCH_CALLS", 40)
    table, model = pa.table({"x": range(4096)}), Picky(set(range(4096)))
    one = scorer(tmp_path, model, count=4096)
    _, aside = one.score([table], table.schema)

    assert model.calls <= 42
    assert parquet.read_table(str(aside)).num_rows == 4096
    assert any("not searched further" in reason for reason in one.tally.shown())


def test_reasons_are_few_and_counted(tmp_path: Path) -> None:
    table = pa.table({"x": range(64)})
    one = scorer(tmp_path, Picky(set(range(64))), count=64)
    one.score([table], table.schema)

    assert len(one.tally.shown()) == 11
    assert sum(one.tally.shown().values()) == 64


def test_no_row_beyond_the_allowed_share_is_looked_at(tmp_path: Path) -> None:
    table = pa.table({"x": range(1000)})
    one = scorer(tmp_path, Picky(set(range(0, 1000, 2))), count=1000, share=0.05)

    with pytest.raises(TooManyRefused, match=r"100 of 1,000 rows cannot be scored among the first 200"):
        one.score([table.slice(start, 200) for start in range(0, 1000, 200)], table.schema)
    one.close()
    assert isinstance(TooManyRefused("x"), DataReadError)


@pytest.mark.parametrize(("refused", "fits"), [(29, True), (30, False)])
def test_the_allowed_share_itself_is_allowed(tmp_path: Path, refused: int, fits: bool) -> None:
    table = pa.table({"x": range(100)})
    one = scorer(tmp_path, Picky(set(range(refused))), count=100, share=0.29)  # 0.29 * 100 is less than 29

    if fits:
        one.score([table], table.schema)
        assert (one.tally.scored, one.tally.quarantined) == (71, 29)
        return
    with pytest.raises(TooManyRefused, match="30 of 100 rows cannot be scored, more than the 29 %"):
        one.score([table], table.schema)
    one.close()


def test_an_id_that_is_nan_is_no_id(tmp_path: Path) -> None:
    table = pa.table({"x": [0, 1, 2, 3], "id": pa.array([7.0, float("nan"), None, 8.0])})
    one = scorer(tmp_path, Picky(set()), count=4)
    one.layout = Layout(copied=("id",), ids=("id",), model_name="m", run_key="r", window=None)
    published, aside = one.score([table], table.schema)

    assert parquet.read_table(published)["id"].to_pylist() == [7.0, 8.0]
    assert aside is not None
    assert parquet.read_table(aside)["x"].to_pylist() == [1, 2]
    assert one.tally.shown() == {"the id column 'id' is null": 2}


# --- Publishing ---------------------------------------------------------------------------------------------------


def test_windows_have_folders_that_sort_as_they_follow() -> None:
    day = Window.model_validate({"start": "2024-01-01", "end": "2024-01-02"})
    moment = Window.model_validate({"start": "2024-01-01T00:00:00.5", "end": "2024-01-02"})

    assert window_folder(day) == "window=20240101T000000Z_20240102T000000Z"
    assert window_folder(moment) == "window=20240101T000000.500000Z_20240102T000000Z"
    assert predictions_uri("s3://b/p/", None) == "s3://b/p/window=all/predictions.parquet"
    assert quarantine_uri("/out", day).startswith("/out/_quarantine/window=20240101")


def test_what_a_killed_attempt_left_is_removed_and_others_work_is_not(tmp_path: Path) -> None:
    from airflow_mlops.core.keys import key_id

    file = tmp_path / "file"
    file.write_bytes(b"new")
    out = tmp_path / "out" / "window=all"
    out.mkdir(parents=True)
    mine, theirs = (out / f".writing-{key_id(key)[:16]}-left" for key in ("mine", "theirs"))
    mine.write_bytes(b"half")
    theirs.write_bytes(b"half")
    digest, size = publish(file, str(tmp_path / "out"), str(out / "predictions.parquet"), None, key="mine")

    assert (digest, size) == (hashlib.sha256(b"new").hexdigest(), 3)
    assert sorted(path.name for path in out.iterdir()) == [theirs.name, "predictions.parquet"]


def test_a_copy_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, target = tmp_path / "file", tmp_path / "out" / "predictions.parquet"
    file.write_bytes(b"new")
    target.parent.mkdir()
    target.write_bytes(b"old")

    def stop(point: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("airflow_mlops.engines.published.pause", stop)
    with pytest.raises(KeyboardInterrupt):
        publish(file, str(tmp_path), str(target), None, key="k")

    assert [(path.name, path.read_bytes()) for path in target.parent.iterdir()] == [("predictions.parquet", b"old")]


def test_the_same_rows_give_the_same_bytes_and_plain_types(tmp_path: Path) -> None:
    table = pa.table({"x": range(1000)})
    digests = set()
    for number, size in enumerate((10, 1000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = scorer(folder, Picky(set()), count=1000)
        path, aside = one.score([table.slice(start, size) for start in range(0, 1000, size)], table.schema)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        assert aside is None

    assert len(digests) == 1
    written = parquet.read_schema(path)
    assert [str(kind) for kind in written.types] == [
        "int64", "double", "string", "int64", "string", "timestamp[us, tz=UTC]", "timestamp[us, tz=UTC]",
    ]  # fmt: skip
    assert written.metadata is None
