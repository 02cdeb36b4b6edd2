"""A bounded command: its limits, its output, and that nothing of it outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.engines.bounded_process import TAIL_CHARACTERS, Ended, run_bounded

MIB = 1024 * 1024
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory is looked at in /proc")


def run(code: str, folder: Path, **limits: Any) -> Ended:
    command = [sys.executable, "-I", "-S", "-c", code]
    return run_bounded(command, folder=folder, env={"ONLY": "this"}, **{"timeout_seconds": 60, **limits})


def gone(pid: int) -> bool:
    """Say whether a process has ended; one that nobody has reaped yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_it_ends_with_its_code_and_the_end_of_its_output(tmp_path: Path) -> None:
    code = f"import sys; print('first'); print('x' * {5 * TAIL_CHARACTERS}); sys.stderr.write('last\\n'); sys.exit(3)"

    ended = run(code, tmp_path)

    assert (ended.reason, ended.code) == ("ended", 3)
    assert "last" in ended.output
    assert "first" not in ended.output
    assert len(ended.output) <= TAIL_CHARACTERS


def test_it_gets_the_given_folder_and_environment_and_no_input(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ.get('ONLY'), 'HOME' in os.environ, repr(sys.stdin.read()))"

    assert run(code, tmp_path).output.split() == [str(tmp_path), "this", "False", "''"]


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(3600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(3600)"
    )

    ended = run(code, tmp_path, timeout_seconds=2)

    assert ended.reason == "timed_out"
    assert ended.code == -signal.SIGKILL
    wait_for(lambda: gone(int(ended.output)))


def test_what_a_command_leaves_behind_is_killed(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(3600)'])\n"
        "print(child.pid)"
    )

    ended = run(code, tmp_path)

    assert (ended.reason, ended.code) == ("ended", 0)
    wait_for(lambda: gone(int(ended.output)))


@pytest.mark.parametrize("seconds", [pytest.param(2, id="too late"), pytest.param(60, id="in time")])
def test_a_command_that_leaves_its_group_does_not_hang_us(seconds: float, tmp_path: Path) -> None:
    wait = "time.sleep(3600)" if seconds == 2 else "sys.exit(5)"

    ended = run(
        f"import os, sys, time; os.setsid(); print(os.getpid(), flush=True); {wait}", tmp_path, timeout_seconds=seconds
    )

    expected = ("timed_out", -signal.SIGKILL) if seconds == 2 else ("ended", 5)
    assert (ended.reason, ended.code) == expected
    assert gone(int(ended.output))


@linux
def test_memory_counts_with_that_of_children(tmp_path: Path) -> None:
    hold = "x = bytearray(120 * 2**20); import time; time.sleep(3600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {hold!r}])"

    ended = run(code, tmp_path, memory_bytes=100 * MIB)

    assert ended.reason == "over_memory"
    assert ended.peak_bytes > 100 * MIB


@linux
def test_the_memory_of_whoever_starts_it_does_not_count(tmp_path: Path) -> None:
    mine = bytearray(200 * MIB)
    mine[:: os.sysconf("SC_PAGE_SIZE")] = b"1" * len(mine[:: os.sysconf("SC_PAGE_SIZE")])

    assert run("import time; time.sleep(0.5)", tmp_path, memory_bytes=150 * MIB).reason == "ended"


def test_nothing_is_left_when_the_starter_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    child = (
        "import os, subprocess, sys, time\n"
        "own = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(3600)'])\n"
        f"open({str(told) + '.part'!r}, 'w').write(f'{{os.getpid()}} {{own.pid}} {{os.getpgrp()}}')\n"
        f"os.rename({str(told) + '.part'!r}, {str(told)!r})\n"
        "time.sleep(3600)"
    )
    starter = (
        "import sys\n"
        "from pathlib import Path\n"
        "from airflow_mlops.engines.bounded_process import run_bounded\n"
        f"run_bounded([sys.executable, '-I', '-S', '-c', {child!r}], folder=Path({str(tmp_path)!r}), env={{}}, "
        "timeout_seconds=3600)"
    )
    process = subprocess.Popen([sys.executable, "-c", starter])
    try:
        wait_for(lambda: told.exists() or process.poll() is not None)
        pids = [int(pid) for pid in told.read_text().split()]
        assert not any(gone(pid) for pid in pids)
        assert process.pid not in pids
    finally:
        process.kill()
        process.wait()

    wait_for(lambda: all(gone(pid) for pid in pids))
