"""The plug-in distribution of the tests, installed as a user would install one of their own."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "plugins" / "acme_mlops"


def install(folder: Path) -> Path:
    """Install the plug-in into a folder below ``folder``, with its metadata, and return where it is."""
    # Built from a copy: the build leaves its own files beside what it builds.
    source = shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "site"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-index", "--no-build-isolation", "--target", str(target), str(source)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return target


@contextmanager
def visible(site: Path) -> Iterator[None]:
    """Put the installed plug-in on the path of this process and of those that it starts."""
    before = os.environ.get("PYTHONPATH")
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), before]))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.partition(".")[0] == "acme_mlops"]:
            del sys.modules[name]
