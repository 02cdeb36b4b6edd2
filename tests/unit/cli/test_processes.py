"""Nothing that was started outlives its owner, however the owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from airflow_mlops.cli.demo.processes import Processes
from airflow_mlops.errors import OutageError

# A process as stubborn as Airflow's: it ignores SIGTERM, has a child in another session, and an orphan in a third.
STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = pathlib.Path(sys.argv[1])
def settle(name):
    (folder / (name + ".tmp")).write_text(str(os.getpid()))
    (folder / (name + ".tmp")).rename(folder / (name + ".pid"))
    time.sleep(600)
if os.fork() == 0:
    os.setsid()
    settle("child")
middle = os.fork()
if middle == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        settle("orphan")
    os._exit(0)
os.waitpid(middle, 0)
settle("main")
"""

OWNER = """
import json, os, pathlib, signal, sys, time
# A shell that starts the tests in the background lets Ctrl-C be ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from airflow_mlops.cli.demo.processes import Processes
folder = pathlib.Path(sys.argv[1])
processes = Processes(folder, grace_seconds=0.5)
try:
    processes.start("stubborn", [sys.executable, "-c", sys.argv[2], str(folder)], env=dict(os.environ), folder=folder)
    print("started", flush=True)
    time.sleep(600)
finally:
    processes.stop()
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, grace_seconds=0.5)
    yield made
    made.stop()


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)


def family(folder: Path) -> list[psutil.Process]:
    """Return the stubborn process, its child and its orphan as soon as all three are there."""
    files = [folder / f"{name}.pid" for name in ("main", "child", "orphan")]
    until(lambda: all(file.exists() for file in files))
    return [psutil.Process(int(file.read_text())) for file in files]


def start_stubborn(processes: Processes, folder: Path) -> list[psutil.Process]:
    command = [sys.executable, "-c", STUBBORN, str(folder)]
    processes.start("stubborn", command, env=dict(os.environ), folder=folder)
    return family(folder)


def all_gone(found: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in found)


def test_stop_ends_children_and_orphans_in_other_sessions(processes: Processes, tmp_path: Path) -> None:
    found = start_stubborn(processes, tmp_path)
    assert processes.pids == {"stubborn": found[0].pid}

    processes.stop()

    assert all_gone(found), "when stop() returns, not a moment later"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="killed: it cannot clean up"),
        pytest.param(signal.SIGTERM, id="terminated: Python does not clean up"),
        pytest.param(signal.SIGINT, id="Ctrl-C"),
    ],
)
def test_everything_ends_with_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        found = family(tmp_path)
        [keeper] = [child for child in psutil.Process(owner.pid).children() if "keeper.py" in " ".join(child.cmdline())]
    finally:
        owner.send_signal(number)
        owner.communicate(timeout=20)

    until(lambda: all_gone([*found, keeper]))


def test_a_killed_keeper_is_noticed_and_takes_its_processes_along(processes: Processes, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    processes.start("sleeper", command, env=dict(os.environ), folder=tmp_path)
    until(lambda: processes.pids)
    sleeper = psutil.Process(processes.pids["sleeper"])
    keeper = sleeper.parent()
    assert keeper is not None

    keeper.kill()

    until(lambda: all_gone([sleeper]))
    with pytest.raises(OutageError, match="watches over the others has ended"):
        processes.check()
    with pytest.raises(OutageError, match="watches over the others has ended"):
        processes.start("late", command, env={}, folder=tmp_path)


def test_a_process_that_ends_is_told_with_the_end_of_its_log(processes: Processes, tmp_path: Path) -> None:
    code = "for number in range(100): print('line', number)\nraise SystemExit(3)"
    processes.start("talker", [sys.executable, "-c", code], env=dict(os.environ), folder=tmp_path)
    until(lambda: "talker" in processes.ended)

    with pytest.raises(OutageError, match="talker ended with exit code 3") as caught:
        processes.check()

    assert str(caught.value).endswith("| line 99")
    assert str(tmp_path / "talker.log") in str(caught.value)
    assert "line 10\n" not in str(caught.value), "the end of the log, not all of it"
    assert processes.pids == {}
    processes.check(may_end=["talker"])


@pytest.mark.parametrize(
    ("code", "how"),
    [
        pytest.param("pass", "ended with exit code 0", id="success is an end too"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "ended with signal 9", id="killed, as by a full memory"),
    ],
)
def test_how_a_process_ended(processes: Processes, tmp_path: Path, code: str, how: str) -> None:
    processes.start("short", [sys.executable, "-c", code], env=dict(os.environ), folder=tmp_path)
    until(lambda: processes.ended)

    assert processes.ended == {"short": how}


def test_a_command_that_does_not_exist_is_told(processes: Processes, tmp_path: Path) -> None:
    processes.start("ghost", ["/no/such/program"], env={}, folder=tmp_path)
    until(lambda: processes.ended)

    with pytest.raises(OutageError, match=r"ghost could not be started: .*No such file"):
        processes.check()


def test_a_process_sees_only_the_environment_it_is_given(processes: Processes, tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    processes.start("env", [sys.executable, "-c", code], env={"ONLY": "this", "LC_CTYPE": "C.UTF-8"}, folder=tmp_path)
    until(lambda: processes.ended)

    assert json.loads(processes.log_file("env").read_text()) == {"ONLY": "this", "LC_CTYPE": "C.UTF-8"}


def test_a_process_can_be_interrupted_by_itself(processes: Processes, tmp_path: Path) -> None:
    # The keeper lives through Ctrl-C; were that inherited, a service could not be interrupted any more.
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    processes.start("asked", [sys.executable, "-c", code], env=dict(os.environ), folder=tmp_path)
    until(lambda: processes.ended)

    assert processes.ended == {"asked": "ended with exit code 0"}


def test_stopping_twice_does_nothing(processes: Processes) -> None:
    processes.stop()
    processes.stop()
