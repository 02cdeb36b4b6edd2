"""Scoring killed at every stage of publishing, and many at once: a reader sees the old file or the new one, whole."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.engines import published
from airflow_mlops.engines.published import digest_at, publish
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.steps.base import Access
from tests.support import scoring_worker
from tests.support.batches import Batches, mixed_pipeline, read, rows
from tests.support.object_stores import ObjectStore, s3_store

#: Each stage with the file that is on its way: the rows that were set aside come first, the predictions second.
STAGES = [("copied", 1), ("copying", 2), ("copied", 2), ("replaced", 2)]
SECONDS = 120


@pytest.fixture(scope="module")
def processes() -> Any:
    """Real processes from a server that has imported the libraries once, so that a new life takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    libraries = ["mlflow.sklearn", "pandas", "pyarrow.parquet", "sklearn.compose", "sklearn.ensemble"]
    context.set_forkserver_preload([*libraries, "airflow_mlops.steps.score", "tests.support.scoring_worker"])
    return context


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with s3_store() as started:
        yield started


def run(processes: Any, target: Any, *arguments: Any) -> int:
    """Run one process to its end; return how it ended."""
    process = processes.Process(target=target, args=arguments, daemon=True)
    process.start()
    process.join(SECONDS)
    assert process.exitcode is not None, "it did not end"
    return int(process.exitcode)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def visible(folder: Path) -> list[str]:
    """Return every file below ``folder`` that is not a hidden one."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    )


def test_a_killed_task_leaves_the_old_batch_or_the_new_one_and_its_retry_ends_with_one(
    mlflow_server: Any, tmp_path: Path, processes: Any
) -> None:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))
    with connected(access.server) as client:
        world = Batches(access, client, tmp_path)
        champion, newer = world.log(mixed_pipeline(), 1), world.log(mixed_pipeline(unknown="error"), 2)
        frame = rows(300)
        frame.loc[7, "t0"] = "ZZ"
        data = world.write(frame)
        out, dataset = tmp_path / "out", world.snapshot(data)
        payload = world.payload(newer, dataset, data, output_uri=str(out))
        old = world.step("score", world.payload(champion, dataset, data, output_uri=str(out)), "old")
        target = Path(old.output_uri)
        before, after = target.read_bytes(), ""
        for number, (point, visit) in enumerate(STAGES):
            target.write_bytes(before)
            task = f"dag/{world.name}/kill-{number}/-1"

            died = run(processes, scoring_worker.score, mlflow_server.uri, world.name, task, payload, point, visit)

            assert died == -signal.SIGKILL, f"it survived {point} {visit}"
            seen = digest(target)
            assert (seen == old.output_digest) == ((point, visit) != ("replaced", 2)), f"killed at {point} {visit}"
            record: ScoringReport = world.step("score", payload, f"kill-{number}")
            after = after or record.output_digest
            # Equal inputs give equal bytes: what the killed attempt had published is what the retry publishes.
            assert digest(target) == record.output_digest == after
            assert seen in (old.output_digest, after)
            assert (record.quarantined_count, len(read(record))) == (1, record.scored_count)
            left = [path.name for path in out.rglob(".writing-*")]
            assert not left, f"left behind after {point} {visit}: {left}"
        window = target.parent.name
        assert visible(out) == [f"_quarantine/{window}/quarantine.parquet", f"{window}/predictions.parquet"]


def test_of_many_that_publish_at_once_the_last_whole_file_stays(tmp_path: Path, processes: Any) -> None:
    files = []
    for number in range(4):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes([number]) * 3_000_000)
        files.append(path)
    known = {digest(path) for path in files}
    out = tmp_path / "out"
    uri = str(out / "window=all" / "predictions.parquet")
    publish(files[0], str(out), uri, None, key="first")
    begin = time.time() + 2
    rivals = [
        processes.Process(
            target=scoring_worker.publish_again_and_again,
            # Two attempts of one task are among them: a zombie and its retry.
            args=(path, str(out), uri, f"task-{min(number, 2)}", begin, 25),
            daemon=True,
        )
        for number, path in enumerate(files)
    ]
    for rival in rivals:
        rival.start()
    looks = 0
    while any(rival.is_alive() for rival in rivals):
        assert digest_at(uri, None) in known
        looks += 1
        time.sleep(0.005)
    assert [rival.exitcode for rival in rivals] == [0] * len(rivals)
    assert looks > 20
    assert [path.name for path in Path(uri).parent.iterdir()] == ["predictions.parquet"]


@pytest.mark.parametrize("point", ["uploading", "uploaded"])
def test_an_upload_that_is_killed_or_interrupted_shows_nothing(
    tmp_path: Path, processes: Any, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    old, new = tmp_path / "old.bin", tmp_path / "new.bin"
    old.write_bytes(b"old" * 1000)
    new.write_bytes(bytes(range(256)) * 100_000)  # more than one part of an upload
    root = store.uri(f"out-{point}")
    uri = f"{root}/window=all/predictions.parquet"
    publish(old, root, uri, store.access, key="task")
    wanted = (new, root, uri, store.access, "task")

    assert run(processes, scoring_worker.publish, *wanted, point, 1) == -signal.SIGKILL
    assert digest_at(uri, store.access) == digest(old)

    # Airflow ends a task with an exception in its main thread; Arrow then completes the open upload.
    def interrupt(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(published, "pause", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(*wanted[:4], key="task")
    assert digest_at(uri, store.access) == digest(old)

    assert publish(*wanted[:4], key="task") == (digest(new), new.stat().st_size)
    assert digest_at(uri, store.access) == digest(new)
    assert objects(store, f"out-{point}/") == [f"out-{point}/window=all/predictions.parquet"]


def objects(store: ObjectStore, prefix: str) -> list[str]:
    """Return the keys of the files below ``prefix``, whatever their names."""
    from pyarrow import fs

    from airflow_mlops.engines.storage import filesystem

    files, path = filesystem(store.uri(prefix), store.access)
    found = files.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted(one.path.partition("/")[2] for one in found if one.type == fs.FileType.File)
