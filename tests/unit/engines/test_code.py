"""The team's own code: imported apart from everybody else's, fingerprinted, and blamed by file and line."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_mlops.engines.code import check_signature, place_of, team_code, without_team_code
from airflow_mlops.engines.source import UNKNOWN_COMMIT, code_version, git_commit
from airflow_mlops.errors import InvalidSpecError, UnknownNameError

TRAIN = "import features\n\ndef train():\n    return features.NAME\n"


def write(folder: Path, **files: str) -> Path:
    """Write ``name__of__file="text"`` as ``name/of/file.py`` below ``folder``."""
    for name, text in files.items():
        path = folder / (name.replace("__init__", "INIT").replace("__", "/").replace("INIT", "__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


@pytest.fixture
def team(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **files: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return write(folder, **files)

    return make


class TestImporting:
    def test_teams_with_modules_of_one_name_get_their_own(self, team: Callable[..., Path]) -> None:
        one = team("one", train=TRAIN, features="NAME = 'one'")
        two = team("two", train=TRAIN, features="NAME = 'two'")
        seen = []
        for folder in (one, two, one):
            with team_code(folder) as code:
                seen.append(code.function("train:train")())

        assert seen == ["one", "two", "one"]

    def test_teams_in_threads_take_turns(self, team: Callable[..., Path]) -> None:
        lazy = "def train():\n    import time\n    time.sleep(0.05)\n    import features\n    return features.NAME\n"
        folders = [team(f"team{n}", train=lazy, features=f"NAME = {n}") for n in range(6)]
        seen: dict[int, int] = {}

        def work(number: int) -> None:
            with team_code(folders[number]) as code:
                seen[number] = code.function("train:train")()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert seen == {number: number for number in range(6)}

    def test_everything_is_put_back(self, team: Callable[..., Path]) -> None:
        folder = team("one", train=TRAIN, features="NAME = 'one'", yaml="")
        import yaml

        before = (list(sys.path), list(sys.meta_path), sys.modules["yaml"])

        def fail() -> None:
            with team_code(folder) as code:
                code.function("train:train")
                assert sys.modules["features"].__file__ == str(folder / "features.py")
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            fail()

        assert (list(sys.path), list(sys.meta_path), sys.modules["yaml"]) == before
        assert sys.modules["yaml"] is yaml
        assert not {"train", "features"} & set(sys.modules)

    def test_a_module_loaded_before_under_the_same_name_is_hidden(self, team: Callable[..., Path]) -> None:
        folder = team("one", train="import yaml\n\ndef train():\n    return yaml.NAME\n", yaml="NAME = 'of the team'")
        import yaml as installed

        with team_code(folder) as code:
            assert code.function("train:train")() == "of the team"
        assert sys.modules["yaml"] is installed

    def test_a_file_named_like_the_standard_library_does_not_replace_it(self, team: Callable[..., Path]) -> None:
        folder = team("one", train="import random\n\ndef train():\n    return random.randint(1, 1)\n", random="")

        with team_code(folder) as code:
            assert code.function("train:train")() == 1

    def test_packages_and_relative_imports(self, team: Callable[..., Path]) -> None:
        folder = team(
            "one",
            models____init__="",
            models__train="from . import parts\nfrom .parts.deep import NAME\n\ndef train():\n    return NAME\n",
            models__parts____init__="",
            models__parts__deep="NAME = 'deep'",
        )
        with team_code(folder) as code:
            assert code.function("models.train:train")() == "deep"
            assert set(code.files()) == {"models", "models.train", "models.parts", "models.parts.deep"}

    def test_a_folder_without_init_is_a_package(self, team: Callable[..., Path]) -> None:
        folder = team("one", models__train="def train():\n    return 'plain folder'\n")

        with team_code(folder) as code:
            assert code.function("models.train:train")() == "plain folder"
        assert "models" not in sys.modules

    def test_a_changed_file_of_the_same_size_and_second_is_read_again(self, team: Callable[..., Path]) -> None:
        folder = team("one", train="def train():\n    return 1\n")
        with team_code(folder) as code:
            assert code.function("train:train")() == 1
        write(folder, train="def train():\n    return 2\n")
        with team_code(folder) as code:
            assert code.function("train:train")() == 2
        assert not list(folder.rglob("__pycache__"))

    def test_installed_functions_need_no_code_path(self, tmp_path: Path) -> None:
        with team_code(tmp_path) as code:
            from statistics import fmean

            assert code.function("statistics:fmean") is fmean

    def test_without_team_code_nothing_of_it_can_be_imported(
        self, team: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = team("one", train=TRAIN, features="NAME = 'one'")
        monkeypatch.syspath_prepend(str(folder))

        with without_team_code(folder), pytest.raises(ModuleNotFoundError, match="features"):
            import features  # noqa: F401 (the import is what is tried)


class TestErrors:
    @pytest.mark.parametrize(
        ("files", "function", "words"),
        [
            pytest.param({"train": ""}, "trian:train", ["'trian'", "Modules there: train", "code_path"], id="module"),
            pytest.param(
                {"train": "def fit_model(): ...\n"},
                "train:fit_modle",
                ["train.py", "Did you mean 'fit_model'?"],
                id="function, with the nearest name",
            ),
            pytest.param({"train": "train = 3\n"}, "train:train", ["is a int, not a function"], id="no function"),
            pytest.param(
                {"train": "import no_such_library_here\n"},
                "train:train",
                ["train.py:1", "no_such_library_here", "Install"],
                id="a library is missing",
            ),
            pytest.param({"train": "x = 1\n1 / 0\n"}, "train:train", ["train.py:2", "division"], id="fails on import"),
            pytest.param({"train": "def train(:\n"}, "train:train", ["train.py:1"], id="not Python"),
        ],
    )
    def test_say_where(self, team: Callable[..., Path], files: dict[str, str], function: str, words: list[str]) -> None:
        folder = team("one", **files)
        with pytest.raises(InvalidSpecError) as caught, team_code(folder) as code:
            code.function(function)
        for word in words:
            assert word in str(caught.value)

    def test_a_missing_function_is_an_unknown_name(self, team: Callable[..., Path]) -> None:
        with pytest.raises(UnknownNameError), team_code(team("one", train="")) as code:
            code.function("train:train")

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSpecError, match="not a folder"), team_code(tmp_path / "nowhere"):
            pass

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            pytest.param("def train(data): ...", "too many positional", id="an argument too few"),
            pytest.param("def train(data, target): ...", "unexpected keyword", id="no keywords"),
            pytest.param("def train(data, target, *, seed, more): ...", "required", id="one too many"),
            pytest.param("async def train(data, target, *, seed): ...", "coroutine", id="a coroutine"),
            pytest.param("def train(data, target, *, seed):\n    yield", "generator", id="a generator"),
        ],
    )
    def test_wrong_signature(self, team: Callable[..., Path], source: str, said: str) -> None:
        with team_code(team("one", train=source)) as code:
            function = code.function("train:train")
        with pytest.raises(InvalidSpecError) as caught:
            check_signature(function, "train:train", "def train(data, target, *, seed)", None, None, seed=1)
        assert said in str(caught.value)
        assert "train.py:1: train:train" in str(caught.value)

    def test_place_is_the_innermost_line_of_the_team(self, team: Callable[..., Path]) -> None:
        folder = team("one", train="import json\n\ndef train():\n    return json.loads('{')\n").resolve()
        with team_code(folder) as code:
            function = code.function("train:train")
            with pytest.raises(ValueError, match="Expecting") as caught:
                function()
        assert place_of(caught.value, folder) == f"{folder / 'train.py'}:4"


class TestVersion:
    def files(self, folder: Path, function: str = "train:train") -> tuple[str, ...]:
        return code_version(function, folder).files

    def test_follows_imports_wherever_they_stand(self, team: Callable[..., Path]) -> None:
        folder = team(
            "one",
            train="import os, sklearn.pipeline\nfrom parts import a\n\ndef train():\n    import lazy\n",
            parts____init__="",
            parts__a="from .b import x\n",
            parts__b="from . import c\n",
            parts__c="",
            parts__unused="",
            lazy="import train\n",
            unused="",
        )
        version = code_version("train:train", folder)

        assert version.files == ("lazy.py", "parts/__init__.py", "parts/a.py", "parts/b.py", "parts/c.py", "train.py")
        assert version.imports == ("sklearn",)

    @pytest.mark.parametrize(
        ("changed", "differs"),
        [
            pytest.param({"features": "NAME = 'changed'"}, True, id="an imported sibling"),
            pytest.param({"train": TRAIN + "#"}, True, id="the module"),
            pytest.param({"unused": "1"}, False, id="a file that is not imported"),
        ],
    )
    def test_digest(self, team: Callable[..., Path], changed: dict[str, str], differs: bool) -> None:
        folder = team("one", train=TRAIN, features="NAME = 'one'")
        before = code_version("train:train", folder).digest
        write(folder, **changed)

        assert (code_version("train:train", folder).digest != before) is differs

    def test_digest_does_not_depend_on_the_place(self, team: Callable[..., Path]) -> None:
        digests = {
            code_version("train:train", team(name, train=TRAIN, features="NAME = 1")).digest for name in ("a", "b")
        }
        assert len(digests) == 1

    def test_reading_runs_nothing(self, team: Callable[..., Path], tmp_path: Path) -> None:
        mark = tmp_path / "was run"
        folder = team("one", train=f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
        code_version("train:train", folder)

        assert not mark.exists()

    def test_an_installed_package_is_followed_within_itself(self, tmp_path: Path) -> None:
        version = code_version("yaml.loader:Loader", tmp_path)

        assert "yaml/loader.py" in version.files
        assert "yaml/reader.py" in version.files

    def test_a_syntax_error_names_file_and_line(self, team: Callable[..., Path]) -> None:
        folder = team("one", train="x = 1\ndef train(:\n")
        with pytest.raises(InvalidSpecError, match=r"train\.py:2: this is not valid Python"):
            code_version("train:train", folder)

    def test_a_local_file_named_like_the_standard_library_is_not_followed(self, team: Callable[..., Path]) -> None:
        assert self.files(team("one", train="import random\n", random="")) == ("train.py",)


class TestCommit:
    def git(self, folder: Path, *arguments: str) -> str:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def test_dirty_only_if_the_code_itself_differs(self, team: Callable[..., Path]) -> None:
        folder = team("one", train=TRAIN, features="NAME = 1", unused="")
        self.git(folder, "init", "-q")
        self.git(folder, "add", ".")
        self.git(folder, "commit", "-qm", "first")
        head = self.git(folder, "rev-parse", "HEAD")

        assert code_version("train:train", folder).commit == head
        write(folder, unused="changed")
        assert code_version("train:train", folder).commit == head
        write(folder, features="NAME = 2")
        assert code_version("train:train", folder).commit == f"{head}+dirty"

    @pytest.mark.parametrize("ignored", [pytest.param(False, id="untracked"), pytest.param(True, id="ignored")])
    def test_a_file_that_is_not_in_the_commit_is_dirty(self, team: Callable[..., Path], ignored: bool) -> None:
        folder = team("one", train=TRAIN)
        (folder / ".gitignore").write_text("features.py\n" if ignored else "")
        self.git(folder, "init", "-q")
        self.git(folder, "add", ".")
        self.git(folder, "commit", "-qm", "first")
        write(folder, features="NAME = 1")

        assert code_version("train:train", folder).commit.endswith("+dirty")

    def test_unknown_outside_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert git_commit(tmp_path) == UNKNOWN_COMMIT

    def test_unknown_without_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert git_commit(tmp_path) == UNKNOWN_COMMIT
