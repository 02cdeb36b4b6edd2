"""Fixtures that more than one folder of tests uses: real servers, started once per session and only when asked for."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer
    from tests.support.postgres import Postgres

#: Tests that start all of Airflow's components.
WHOLE_AIRFLOW = "tests/e2e/"

# Before any library is imported: no usage reports from tests, one thread per library, no proxy for local servers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Airflow reads its home when it is first imported: a fresh one, so that no test sees or changes a person's own.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-mlops-tests-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1,localhost"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what needs a whole Airflow first: it takes longest, and the quick tests fill what is left."""
    items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_AIRFLOW))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests on one worker, and all that start a whole Airflow on one: two at once overload two cores."""
    from xdist.scheduler import LoadScopeScheduling

    class OneAirflowAtATime(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return WHOLE_AIRFLOW if nodeid.startswith(WHOLE_AIRFLOW) else nodeid.partition("::")[0]

    return OneAirflowAtATime(config, log)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A real MLflow server on SQLite, at ``.uri``. It is shared: give experiments and models names of your own."""
    from tests.support.mlflow_server import mlflow_server as start

    with start(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A throw-away Postgres; ``.create(name)`` makes a database and returns its address."""
    from tests.support.postgres import postgres as start

    with start() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_on_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A real MLflow server with 4 workers on Postgres: what races are tried against."""
    from tests.support.mlflow_server import mlflow_server as start

    folder = tmp_path_factory.mktemp("mlflow-postgres")
    with start(folder, backend_uri=postgres.create("mlflow"), workers=4) as server:
        yield server


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's metadata database in the tests' own home, for what needs one (``dag.test()``, connections)."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the plug-in of ``tests/plugins`` is installed, once."""
    from tests.support.plugin import install

    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def plugin(plugin_site: Path) -> Iterator[Path]:
    """While a module's tests run, this process and those it starts see the plug-in of ``tests/plugins``."""
    from tests.support.plugin import visible

    with visible(plugin_site):
        yield plugin_site
