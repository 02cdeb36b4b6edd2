"""Following a process: lines, ends, and what it leaves behind. Real processes, no server."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from pathlib import Path

import pytest

from airflow_mlops.runtimes.child import Child, Lines
from tests.support.runtimes import is_alive, wait_until


def lines_of(*chunks: bytes) -> list[str]:
    """Return the lines made of what arrives in these pieces."""
    reading, writing = os.pipe()
    found: list[str] = []
    lines = Lines(reading, found.append)
    for chunk in chunks:
        os.write(writing, chunk)
        assert lines.read()
        lines.emit()
    assert not lines.read()
    assert not lines.at_end
    os.close(writing)
    assert not lines.read()
    assert lines.at_end
    lines.emit(end=True)
    os.close(reading)
    return found


@pytest.mark.parametrize(
    ("chunks", "found"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([b"a\nb\n"], ["a", "b"], id="two at once"),
        pytest.param([b"a", b"b", b"\n"], ["ab"], id="in pieces"),
        pytest.param([b"a\n\n  \nb"], ["a", "b"], id="blank lines and no end"),
        pytest.param([b"10%\r20%\r30%\r\nend\r\n"], ["30%", "end"], id="a progress bar"),
        pytest.param(["é".encode()[:1], "é".encode()[1:] + b"\n"], ["é"], id="half a character"),
        pytest.param([b"\xff\x00\n"], ["\ufffd\x00"], id="no text at all"),
    ],
)
def test_lines(chunks: list[bytes], found: list[str]) -> None:
    assert lines_of(*chunks) == found


def test_a_line_without_end_takes_no_memory() -> None:
    (line,) = lines_of(*[b"x" * 50_000] * 20)

    assert line.startswith("x" * 65_536)
    assert line.endswith(f"[... {1_000_000 - 65_536} bytes of this line were left out]")


def test_after_a_huge_line_the_next_is_whole() -> None:
    assert lines_of(b"x" * 60_000, b"x" * 60_000, b"\nnext\n")[1:] == ["next"]


PREAMBLE = """
import argparse, json, os, signal, subprocess, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--log-fd", type=int)
args = parser.parse_args()
"""


def start(body: str) -> Child:
    child = Child()
    child.start([sys.executable, "-u", "-c", PREAMBLE + textwrap.dedent(body)], env=os.environ)
    return child


def test_levels_and_a_line_that_is_no_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    child = start("""
        print("2026/01/31 09:30:00 WARNING mlflow.models: no signature")
        print("WARNING is a word of mine")
        log = os.fdopen(args.log_fd, "w")
        for record in (
            {"level": "ERROR", "name": "team", "message": "100 %s lost"},
            {"level": "LOUD", "name": "team", "message": "?"},
            {"level": "INFO", "name": "no name at all!", "message": "kept"},
            ["INFO"],
        ):
            print(json.dumps(record), file=log)
        log.write("no JSON, no end")
    """)
    child.follow()
    child.close(0)

    found = [(line.name, line.levelname, line.getMessage()) for line in caplog.records if line.name != "asyncio"]
    output = "airflow_mlops.steps.output"
    assert child.returncode == 0
    assert child.last_printed == "WARNING is a word of mine"
    assert set(found) == {
        (output, "WARNING", "2026/01/31 09:30:00 WARNING mlflow.models: no signature"),
        (output, "INFO", "WARNING is a word of mine"),
        ("team", "ERROR", "100 %s lost"),
        (output, "INFO", '{"level": "LOUD", "name": "team", "message": "?"}'),
        (output, "INFO", "kept"),
        (output, "INFO", '["INFO"]'),
        (output, "INFO", "no JSON, no end"),
    }


def test_a_grandchild_that_keeps_the_pipe_is_ended_with_the_step(tmp_path: Path) -> None:
    child = start(f"""
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(other.pid))
    """)
    child.follow()
    child.close(0)

    assert child.returncode == 0
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid), "the grandchild is gone")


def test_one_that_left_the_group_and_keeps_the_pipe_does_not_hang_us(tmp_path: Path) -> None:
    child = start(f"""
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        open({str(tmp_path / "pid")!r}, "w").write(str(other.pid))
        print("done")
    """)
    try:
        child.follow()
        child.close(0)
        assert child.last_printed == "done"
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_output_that_is_closed_early_is_no_end(tmp_path: Path) -> None:
    child = start(f"""
        for number in (1, 2, args.log_fd):
            os.close(number)
        time.sleep(0.5)
        open({str(tmp_path / "done")!r}, "w").close()
    """)
    child.follow()
    child.close(0)

    assert (tmp_path / "done").exists()


def test_one_that_will_not_end_is_made_to() -> None:
    child = start("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf")
        time.sleep(600)
    """)
    wait_until(lambda: child._streams[0].read(), "it is deaf")
    child.stop(0.2)
    child.follow()
    child.close(0)

    assert child.returncode == -9
    assert child.last_printed == "deaf"


def test_one_that_waits_for_room_in_the_pipe_can_still_tidy_up(tmp_path: Path) -> None:
    child = start(f"""
        def tidy(*_):
            os.write(1, b"y" * 300_000)
            open({str(tmp_path / "tidy")!r}, "w").close()
            sys.exit(7)
        signal.signal(signal.SIGTERM, tidy)
        os.write(1, b"ready")
        time.sleep(600)
    """)
    wait_until(lambda: child._streams[0].read(), "it is ready")
    child.stop(60)
    child.close(0)

    assert (tmp_path / "tidy").exists()
    assert child.returncode == 7


def test_close_ends_what_was_never_followed_and_may_be_repeated() -> None:
    child = start("time.sleep(600)")
    child.close(0.1)
    child.close(0.1)
    child.stop(0.1)

    assert child.returncode in (-15, -9)


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_a_program_that_cannot_be_started_leaves_no_open_files(tmp_path: Path) -> None:
    before = open_files()
    child = Child()
    with pytest.raises(FileNotFoundError):
        child.start([str(tmp_path / "nothing")], env={})
    child.close(0)

    assert open_files() == before
