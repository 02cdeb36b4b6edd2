"""What is kept on disk: never needed, never trusted from others, never half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.spec import cache
from airflow_mlops.spec.cache import Entry, SpecCache, places, state_of

DATA = {"name": "a", "data": {"uri": "lake"}, "train": {"parameters": {"rate": 0.1, "words": ["ä", None, True]}}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "models" / "a.yaml"
    file.parent.mkdir()
    file.write_text("name: a\n")
    old(file)
    return file


def old(file: Path) -> None:
    """Make a file's own time old; its inode's time stays young."""
    os.utime(file, (1_700_000_000, 1_700_000_000))


def keep(file: Path, data: Any = DATA, base: Path | None = None) -> None:
    kept = SpecCache.open(file.parent, {})
    kept.put(file, state_of(file.stat()), data, base)
    kept.save()


def kept_of(file: Path) -> Entry | None:
    return SpecCache.open(file.parent, {}).get(file, state_of(file.stat()))


def the_file(place: Path) -> Path:
    (found,) = place.glob("*.json")
    return found


def test_what_was_kept_comes_back(place: Path, file: Path) -> None:
    keep(file)

    assert kept_of(file) == Entry(data=DATA)
    assert (place.stat().st_mode & 0o777, the_file(place).stat().st_mode & 0o777) == (0o700, 0o600)
    assert json.loads(the_file(place).read_text())["files"], "plain JSON"


def test_that_a_file_is_no_model_is_kept_too(place: Path, file: Path) -> None:
    keep(file, data=None)

    assert kept_of(file) == Entry(data=None)


@pytest.mark.parametrize(
    "data", [{"a": float("nan")}, {"a": {1: 2}}, {"a": (1, 2)}, {"a": {1, 2}}], ids=["nan", "key", "tuple", "set"]
)
def test_what_json_would_change_is_not_kept(place: Path, file: Path, data: Any) -> None:
    keep(file, data=data)

    assert kept_of(file) is None


def test_a_change_within_the_clocks_grain_is_seen(place: Path, file: Path) -> None:
    # The same size and the same times: only the content tells.
    state = state_of(file.stat())
    kept = SpecCache.open(file.parent, {})
    kept.put(file, state, DATA, None)
    kept.save()
    file.write_text("name: b\n")

    assert SpecCache.open(file.parent, {}).get(file, state) is None


def test_an_old_file_is_told_by_its_state_and_a_young_entry_grows_old(
    place: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(file)
    (young,) = json.loads(the_file(place).read_text())["files"].values()
    assert young["young"]

    later = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(cache.time, "time_ns", lambda: later)
    kept = SpecCache.open(file.parent, {})
    assert kept.get(file, state_of(file.stat()))
    kept.save()

    (aged,) = json.loads(the_file(place).read_text())["files"].values()
    assert aged["young"] is None
    monkeypatch.setattr(cache, "_content", lambda _: pytest.fail("an old file is not read"))
    assert kept_of(file) == Entry(data=DATA)


def test_another_base_is_another_entry(place: Path, file: Path) -> None:
    base = file.with_name("_base.yaml")
    base.write_text("owner: a\n")
    keep(file, base=base)
    assert kept_of(file) is not None

    base.write_text("owner: b\n")
    assert kept_of(file) is None
    keep(file, base=base)
    base.unlink()
    assert kept_of(file) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"header": {}, "files": {}}',
        "\x80\x81",
        '{"header": HEADER, "files": []}',
        '{"header": HEADER, "files": {"FILE": null}}',
        '{"header": HEADER, "files": {"FILE": {"state": 7}}}',
        '{"header": HEADER, "files": {"FILE": {"state": [1, 2, 3, 4], "young": null, "base": 1, "data": {}}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_written_anew(place: Path, file: Path, text: str) -> None:
    keep(file)
    header = json.dumps(json.loads(the_file(place).read_text())["header"])
    the_file(place).write_text(text.replace("HEADER", header).replace("FILE", str(file)), encoding="latin-1")

    assert kept_of(file) is None
    keep(file)
    assert kept_of(file) is not None


def test_another_version_of_the_package_starts_afresh(place: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(file)
    monkeypatch.setattr("airflow_mlops.__version__", "9.9.9")
    cache._code_state.cache_clear()
    try:
        assert kept_of(file) is None
    finally:
        cache._code_state.cache_clear()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_not_trusted(place: Path, file: Path, mode: int) -> None:
    keep(file)
    place.chmod(mode)

    assert kept_of(file) is None
    the_file(place).unlink()
    keep(file)
    assert list(place.iterdir()) == [], "and nothing is put there"


def test_a_file_that_others_may_write_to_and_a_link_are_not_trusted(place: Path, file: Path, tmp_path: Path) -> None:
    keep(file)
    the_file(place).chmod(0o666)
    assert kept_of(file) is None

    the_file(place).chmod(0o600)
    real = the_file(place).rename(tmp_path / "elsewhere.json")
    (place / SpecCache.open(file.parent, {}).name).symlink_to(real)
    assert kept_of(file) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_another_user_is_not_trusted(place: Path, file: Path) -> None:
    keep(file)
    os.chown(place, 12345, 12345)

    assert kept_of(file) is None


def test_without_a_place_to_write_nothing_is_kept_and_nothing_fails(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").write_text("a file where the folder would be")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "occupied" / "cache"))

    keep(file)

    assert kept_of(file) is None


def test_a_disk_that_is_full_leaves_what_was_there(place: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(file)
    before = the_file(place).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    keep(file, data={"name": "other"})

    assert the_file(place).read_bytes() == before
    assert [one.name for one in place.iterdir()] == [the_file(place).name], "no part of a file stays"


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (cache.CACHE_VARIABLE, "AIRFLOW_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    assert next(places()) == Path("/h/.cache/airflow_mlops")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert next(places()) == Path("/x/airflow_mlops")
    monkeypatch.setenv("AIRFLOW_HOME", "/a")
    assert next(places()) == Path("/a/.cache/airflow_mlops")
    assert str(list(places())[-1]).endswith(f"airflow_mlops-{os.geteuid()}")
    monkeypatch.setenv(cache.CACHE_VARIABLE, "/c")
    assert list(places()) == [Path("/c")]
    monkeypatch.setenv(cache.CACHE_VARIABLE, "off")
    assert list(places()) == []


def test_what_nobody_used_for_long_is_removed_and_what_is_used_is_not(place: Path, file: Path) -> None:
    keep(file)
    unused, fresh = place / "unused.json", place / "fresh.json"
    for one in (unused, fresh):
        one.write_text("{}")
    old(unused)
    week = time.time() - 6.5 * 86_400
    os.utime(the_file_of(place, file), (week, week))

    assert kept_of(file) is not None
    assert time.time() - the_file_of(place, file).stat().st_mtime < 60, "reading it counts as use"
    keep(file)
    assert sorted(one.name for one in place.iterdir()) == sorted(["fresh.json", the_file_of(place, file).name])


def the_file_of(place: Path, file: Path) -> Path:
    return place / SpecCache.open(file.parent, {}).name


WRITER = """
import sys
from pathlib import Path
from airflow_mlops.spec.cache import SpecCache, state_of
file, word = Path(sys.argv[1]), sys.argv[2]
for _ in range(150):
    kept = SpecCache.open(file.parent, {})
    entry = kept.get(file, state_of(file.stat()))
    assert entry is None or (len(set(entry.data["words"])) == 1 and len(entry.data["words"]) == 5000)
    kept.put(file, state_of(file.stat()), {"words": [word] * 5000}, None)
    kept.save()
"""


def test_processes_that_write_at_once_leave_a_whole_file(place: Path, file: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), word], stderr=subprocess.PIPE, text=True)
        for word in ("one", "two")
    ]
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        assert writer.returncode == 0, said

    assert kept_of(file) is not None
    assert len(list(place.iterdir())) == 1
