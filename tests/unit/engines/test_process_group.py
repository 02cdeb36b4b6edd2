"""A process group and its watcher: what ends it, what must not, and what becomes of its folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from airflow_mlops.engines.process_group import ProcessGroup

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(3600)"
)


def test_the_watcher_outlives_a_request_to_end_and_then_kills_before_it_removes(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "file").touch()
    group = ProcessGroup(folder)
    try:
        group.signal(signal.SIGTERM)  # at once: it may not even have started
        command = [sys.executable, "-I", "-S", "-c", DEAF]
        with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=group.number) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                group.signal(signal.SIGTERM)
                assert group._watcher.stdin is not None
                group._watcher.stdin.close()  # as the kernel does when its owner dies

                assert process.wait(60) == -signal.SIGKILL
                assert group._watcher.wait(60) == -signal.SIGKILL
                wait_gone(folder)
            finally:
                process.kill()
    finally:
        group.close()


def test_closing_leaves_the_folder_to_its_owner(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    group.close()
    group.close()

    assert group._watcher.returncode == -signal.SIGKILL
    assert tmp_path.is_dir()


def wait_gone(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < deadline, "the folder is still there"
        time.sleep(0.05)
