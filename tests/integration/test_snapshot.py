"""Dataset versions through a real MLflow server: adopted, renewed, copied, and held against the files later."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException

from airflow_mlops.engines import runs
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError
from airflow_mlops.steps import snapshot as snapshot_module
from airflow_mlops.steps.datasets import load_frame, load_manifest, load_table
from tests.support.data_steps import DataSteps, day, window, write_parquet

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer

JANUARY = window("2013-01-01", "2013-02-01")


@pytest.fixture
def steps(mlflow_server: MLflowServer) -> DataSteps:
    return DataSteps(mlflow_server.uri, f"snapshot-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, str]:
    write_parquet(tmp_path / "lake" / "a.parquet", {"at": [day(1), day(2)], "x": [1, 2], "s": ["p", None]})
    write_parquet(tmp_path / "lake" / "b.parquet", {"at": [day(3), day(1, month=2)], "x": [3, 4], "s": ["q", "r"]})
    return {"uri": str(tmp_path / "lake"), "event_time": "at"}


def test_a_snapshot_is_a_record_and_a_manifest(steps: DataSteps, lake: dict[str, str]) -> None:
    dataset = steps.snapshot(lake, JANUARY)

    assert (dataset.row_count, dataset.file_count, dataset.column_count) == (3, 2, 3)
    assert dataset.window == JANUARY
    with steps.work() as work:
        manifest = load_manifest(dataset, work)
        assert [(file.path, file.row_count) for file in manifest.files] == [("a.parquet", 2), ("b.parquet", 1)]
        frame = load_frame(dataset, work, ["x", "s"])
    assert frame["x"].tolist() == [1, 2, 3]
    assert frame["s"].tolist() == ["p", None, "q"]


def test_a_retry_adopts_and_a_redelivery_makes_a_new_version(steps: DataSteps, lake: dict[str, str]) -> None:
    first = steps.snapshot(lake, JANUARY)
    again = steps.snapshot(lake, JANUARY)
    write_parquet(Path(lake["uri"]) / "b.parquet", {"at": [day(3)], "x": [30], "s": ["q"]})
    renewed = steps.snapshot(lake, JANUARY)

    assert again == first
    assert renewed.digest != first.digest
    assert renewed.manifest_uri != first.manifest_uri
    with steps.work() as work:
        old = load_manifest(first, work)
        assert [file.row_count for file in old.files] == [2, 1], "the old version stays traceable"
        run_id = first.manifest_uri.removeprefix("runs:/").partition("/")[0]
        new_id = renewed.manifest_uri.removeprefix("runs:/").partition("/")[0]
        assert work.client.get_run(run_id).data.tags[runs.SUPERSEDED_BY] == new_id


def test_a_late_file_of_another_window_gives_the_same_version(steps: DataSteps, lake: dict[str, str]) -> None:
    first = steps.snapshot(lake, JANUARY)
    write_parquet(Path(lake["uri"]) / "c.parquet", {"at": [day(5, month=3)], "x": [9], "s": ["z"]})

    assert steps.snapshot(lake, JANUARY).digest == first.digest


def test_a_late_file_of_the_window_gives_a_new_version(steps: DataSteps, lake: dict[str, str]) -> None:
    first = steps.snapshot(lake, JANUARY)
    write_parquet(Path(lake["uri"]) / "c.parquet", {"at": [day(5)], "x": [9], "s": ["z"]})

    assert steps.snapshot(lake, JANUARY).digest != first.digest


def test_a_changed_file_stops_the_reader_with_its_name(steps: DataSteps, lake: dict[str, str]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    changed = write_parquet(Path(lake["uri"]) / "b.parquet", {"at": [day(3)], "x": [33], "s": ["q"]})

    with steps.work() as work, pytest.raises(DataChangedError, match=r"b\.parquet is not the file"):
        load_frame(dataset, work)
    changed.unlink()
    with steps.work() as work, pytest.raises(DataChangedError, match=r"b\.parquet is gone"):
        load_frame(dataset, work)


@pytest.mark.parametrize("to_store", [False, True], ids=["into the run's artifacts", "into a folder of the store"])
def test_a_copy_outlives_the_original(to_store: bool, steps: DataSteps, lake: dict[str, str], tmp_path: Path) -> None:
    reference = steps.snapshot(lake, JANUARY, task="reference")
    data = {**lake, "snapshot": "copy", "copy_to": str(tmp_path / "copies") if to_store else None}
    dataset = steps.snapshot(data, JANUARY, task="copy")
    for file in Path(lake["uri"]).iterdir():
        file.unlink()

    assert dataset.digest == reference.digest, "where the bytes lie does not change what they are"
    assert dataset.snapshot == "copy"
    with steps.work() as work:
        assert load_frame(dataset, work, ["x"])["x"].tolist() == [1, 2, 3]


def test_a_copy_too_large_for_artifacts_asks_for_a_folder(
    steps: DataSteps, lake: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "MAX_ARTIFACT_BYTES", 10)

    with pytest.raises(InvalidSpecError, match=r"Set data\.copy_to"):
        steps.snapshot({**lake, "snapshot": "copy"}, JANUARY)


def test_an_empty_window_is_a_version_without_rows(steps: DataSteps, lake: dict[str, str]) -> None:
    dataset = steps.snapshot(lake, window("2014-01-01", "2014-02-01"))

    assert (dataset.row_count, dataset.file_count, dataset.column_count) == (0, 0, 3)
    with steps.work() as work:
        assert load_table(dataset, work).column_names == ["at", "x", "s"]


def test_no_file_at_all_says_what_was_looked_for(steps: DataSteps, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "_SUCCESS").touch()

    with pytest.raises(DataReadError, match=r"\.parquet, \.pq, \.parq.*'_SUCCESS'"):
        steps.snapshot({"uri": str(tmp_path / "lake")}, JANUARY)


def test_an_edited_manifest_is_noticed(steps: DataSteps, lake: dict[str, str], tmp_path: Path) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    with steps.work() as work:
        content = work.read_json(dataset.manifest_uri)
        content["files"] = content["files"][:1]
        edited = tmp_path / "manifest.json"
        edited.write_text(json.dumps(content))
        work.client.log_artifact(dataset.manifest_uri.removeprefix("runs:/").partition("/")[0], str(edited))
    with steps.work() as work, pytest.raises(DataChangedError, match="manifest"):
        load_frame(dataset, work)


def test_clearing_the_task_makes_an_edited_manifest_anew(
    steps: DataSteps, lake: dict[str, str], mlflow_server: MLflowServer
) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    run_id = dataset.manifest_uri.removeprefix("runs:/").partition("/")[0]
    (file,) = (path for path in mlflow_server.artifacts.rglob("manifest.json") if run_id in str(path))
    whole = file.read_text()
    content = json.loads(whole)
    content["files"] = content["files"][:1]

    for damaged in (json.dumps(content), "{", "[]", None):
        file.unlink()
        if damaged is not None:
            file.write_text(damaged)
        assert steps.snapshot(lake, JANUARY) == dataset
        assert file.read_text() == whole
    before = file.stat().st_mtime_ns
    assert steps.snapshot(lake, JANUARY) == dataset
    assert file.stat().st_mtime_ns == before, "a good one is adopted"


@pytest.mark.parametrize("to_store", [False, True], ids=["among the run's artifacts", "in a folder of the store"])
@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_clearing_the_task_makes_a_damaged_copy_anew(
    damage: str, to_store: bool, steps: DataSteps, lake: dict[str, str], tmp_path: Path, mlflow_server: MLflowServer
) -> None:
    data = {**lake, "snapshot": "copy", "copy_to": str(tmp_path / "copies") if to_store else None}
    dataset = steps.snapshot(data, JANUARY)
    run_id = dataset.manifest_uri.removeprefix("runs:/").partition("/")[0]
    place = tmp_path / "copies" if to_store else mlflow_server.artifacts
    copies = sorted(path for path in place.rglob("*.parquet") if to_store or run_id in str(path))
    assert len(copies) == 2
    if damage == "gone":
        copies[1].unlink()
    else:
        copies[1].write_bytes(copies[1].read_bytes()[:-1])

    with steps.work() as work, pytest.raises((DataChangedError, DataReadError, MlflowException)):
        load_frame(dataset, work)
    again = steps.snapshot(data, JANUARY)
    with steps.work() as work:
        assert load_frame(again, work, ["x"])["x"].tolist() == [1, 2, 3]


def test_another_reader_makes_a_new_version(
    steps: DataSteps, lake: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = steps.snapshot(lake, JANUARY)
    monkeypatch.setattr(snapshot_module, "versions_of", lambda *names: dict.fromkeys(names, "99.0"))

    assert steps.snapshot(lake, JANUARY).manifest_uri != first.manifest_uri
