"""What names a team's code where a deployment ships no ``.git``, and the archive of the very files."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_mlops.engines.source import CodeVersion, archive_source, code_version
from airflow_mlops.errors import DataChangedError, InvalidSpecError

VARIABLE = "AIRFLOW_MLOPS_GIT_COMMIT"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of any repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    code = tmp_path / "code"
    (code / "lib").mkdir(parents=True)
    (code / "train.py").write_text("from lib.features import NAME\n\ndef train(): ...\n")
    (code / "lib" / "features.py").write_text("NAME = 1\n")
    (code / "unused.py").write_text("")
    return code


def version(folder: Path) -> CodeVersion:
    return code_version("train:train", folder)


def test_outside_of_git_the_files_name_the_code(folder: Path) -> None:
    found = version(folder)

    assert found.commit == f"files:{found.digest[:12]}"


@pytest.mark.parametrize("told", ["0123abc", " v1.4.2 ", "9f8e7d+dirty"])
def test_a_deployment_may_name_its_commit(folder: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(VARIABLE, told)

    assert version(folder).commit == told.strip()


@pytest.mark.parametrize("told", ["", "  ", "unknown", "N/A", "-"])
def test_a_blank_in_the_variable_names_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(VARIABLE, told)

    assert version(folder).commit.startswith("files:")


@pytest.mark.parametrize("told", ["two words", "a\nb", "x" * 201, "\x1b[31m"])
def test_what_cannot_name_a_commit_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(VARIABLE, told)
    with pytest.raises(InvalidSpecError, match=f"{VARIABLE} is .*one word of at most 200"):
        version(folder)


def test_the_archive_holds_what_the_digest_covers(folder: Path, tmp_path: Path) -> None:
    assert archive_source(version(folder), tmp_path / "source.zip") == ""

    with zipfile.ZipFile(tmp_path / "source.zip") as files:
        assert files.namelist() == ["lib/features.py", "train.py"]
        files.extractall(tmp_path / "again")
    assert version(tmp_path / "again").digest == version(folder).digest


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    archive_source(version(folder), tmp_path / "one.zip")
    os.utime(folder / "train.py", (1, 1))
    (folder / "train.py").chmod(0o600)
    archive_source(version(folder), tmp_path / "other.zip")

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_too_much_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    note = archive_source(version(folder), tmp_path / "source.zip", most=10)

    assert "more than the 10 that are kept" in note
    assert not (tmp_path / "source.zip").exists()


def test_a_file_that_changed_meanwhile_stops_the_training(folder: Path, tmp_path: Path) -> None:
    before = version(folder)
    (folder / "lib" / "features.py").write_text("NAME = 2\n")
    with pytest.raises(DataChangedError, match="changed while it was read"):
        archive_source(before, tmp_path / "source.zip")
    with pytest.raises(DataChangedError, match="changed while it was read"):
        archive_source(replace(before, files=("gone.py",)), tmp_path / "source.zip")
