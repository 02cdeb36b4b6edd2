"""Every runtime, one at a time, for tests that ask for ``runtime_settings``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.runtimes import PROBE_STEP, Runs, steps_python

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer

#: Runtime name to a maker of its settings. To put a runtime under the contract, add its line.
RUNTIME_SETTINGS: dict[str, Any] = {
    "inline": dict,
    "external_python": lambda: {"python": steps_python(), "env": {"PYTHONPATH": str(PROBE_STEP)}, "grace_seconds": 20},
    # From the plug-in of tests/plugins: no file of the package names it.
    "niced": lambda: {"increment": 2, "grace_seconds": 20},
}
#: Those whose steps run in a process of their own, which can be stopped and killed. Add yours if it is one.
OUT_OF_PROCESS = ("external_python", "niced")


@pytest.fixture(autouse=True)
def _probe_step(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and those that inherit its import path, find the probe step and the plug-in."""
    monkeypatch.syspath_prepend(str(PROBE_STEP))
    monkeypatch.setenv("PYTHONPATH", str(PROBE_STEP), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "probe_step", raising=False)


@pytest.fixture
def make_runs(mlflow_server: MLflowServer, tmp_path: Path) -> Any:
    """Return a maker of :class:`Runs` of one runtime, by name."""
    return lambda name: Runs(name, RUNTIME_SETTINGS[name](), mlflow_server.uri, tmp_path)


@pytest.fixture(params=list(RUNTIME_SETTINGS))
def runs(request: pytest.FixtureRequest, make_runs: Any) -> Runs:
    """Steps in each runtime in turn."""
    made: Runs = make_runs(request.param)
    return made


@pytest.fixture(params=OUT_OF_PROCESS)
def apart(request: pytest.FixtureRequest, make_runs: Any) -> Runs:
    """Steps in each runtime that has processes of its own."""
    made: Runs = make_runs(request.param)
    return made
