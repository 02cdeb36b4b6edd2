"""The desk on which a page is worked through: made once, copied for every page."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import Desk, blocks, desk_environment

#: One flight in this many is kept: a page's commands then take seconds.
SHARE = 12


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the demo begins with it, smaller: every twelfth flight, and limits that fit so few."""
    from airflow_mlops.cli.demo.story import write_dags

    folder = tmp_path_factory.mktemp("desk")
    _small_lake(folder / "lake" / "flights", tmp_path_factory.mktemp("whole"))
    write_dags(folder / "dags")
    _adapt(folder / "dags" / "flights.yaml", ("bootstrap_draws: 10000", "bootstrap_draws: 400"), ("0.65}", "0.55}"))
    _adapt(folder / "dags" / "flights.yaml", ("min_rows: 4000", "min_rows: 250"), ("margin: 0.01", "margin: 0.1"))
    # Pages lay parts of a specification over this one, and say themselves when it runs and what scores beside it.
    _adapt(folder / "dags" / "flights.yaml", ("  on_retrain: true\n", ""))
    _adapt(folder / "dags" / "flights.yaml", ("  shadow: previous_champion ", "  # shadow "))
    _adapt(folder / "dags" / "flights_contract.yaml", ("min_rows: 20000", "min_rows: 500"))
    return folder


@pytest.fixture(scope="session")
def played(prepared: Path) -> Path:
    """An MLflow store in which version 2 of ``flights`` replaced version 1 as champion."""
    from airflow_mlops import Access, TrackingServer, Window, load_spec, run_training

    store = prepared.parent / "played.db"
    spec = load_spec(prepared / "dags" / "flights.yaml")
    access = Access(server=TrackingServer(tracking_uri=f"sqlite:///{store}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store.parent)  # the store keeps its artifacts below the folder it was made in
        for month, length in (("2013-03-01", "2 months"), ("2013-07-01", "6 months")):
            window = Window(start=month, end=f"{month[:6]}{int(month[6]) + 1}-01")
            ended = run_training(spec, window=window, access=access, train_length=length, reason="the pages")
            assert ended.promotion is not None, ended.ended
            assert ended.promotion.outcome == "promoted", ended.ended
    return store


@pytest.fixture
def desk(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Desk]:
    """A copy of that folder as the current one, with its own MLflow store, and modules that are forgotten afterwards.

    The store holds the flights' two versions where the page's blocks are run by a shell, and is empty elsewhere.
    """
    folder = tmp_path / "desk"
    shutil.copytree(prepared, folder)
    page = getattr(request.node, "callspec", None) and request.node.callspec.params.get("page")
    if page is not None and any("run" in block.words for block in blocks(page)):
        shutil.copy(request.getfixturevalue("played"), folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    env = desk_environment(folder, uri)
    for name in ("MLFLOW_TRACKING_URI", "AIRFLOW_CONN_MLFLOW_DEFAULT"):
        monkeypatch.setenv(name, env[name])
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder / "dags"))
    yield Desk(folder, env)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def _small_lake(folder: Path, scratch: Path) -> None:
    from pyarrow import parquet

    from airflow_mlops.cli.demo.lake import prepare_lake

    whole = prepare_lake(scratch)
    for month in whole.rows:
        rows = parquet.read_table(whole.file(month), partitioning=None)
        target = folder / whole.file(month).relative_to(whole.folder)
        target.parent.mkdir(parents=True)
        parquet.write_table(rows.take(list(range(0, rows.num_rows, SHARE))), target)


def _adapt(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"{path.name} no longer holds {old!r}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
