"""The plug-in distribution itself: installed as any other, found by its entry points, and its own sharp edges."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.data_sources import data_sources
from airflow_mlops.core.gate import gate_rules
from airflow_mlops.engines.tables import fingerprint, read_table, take_manifest
from airflow_mlops.errors import DataReadError, InvalidSpecError, StorageUnavailableError, UnknownNameError
from airflow_mlops.runtimes import RUNTIMES, make_runtime
from airflow_mlops.spec.model import DataSpec
from tests.support.data_steps import window
from tests.support.plugin import SOURCE

JANUARY = window("2013-01-01", "2013-02-01")
NAMES = {"sqlite": data_sources, "enough_rows": gate_rules, "niced": RUNTIMES}


def test_its_names_are_known_only_where_it_is_installed(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, registry in NAMES.items():
        assert registry.load(name).__module__.startswith("acme_mlops.")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(plugin)])

    for name, registry in NAMES.items():
        assert name not in registry.names()
        with pytest.raises(UnknownNameError, match=name):
            registry.load(name)


def test_it_is_installed_like_any_distribution(plugin: Path) -> None:
    found = metadata.distribution("acme-mlops")

    assert Path(str(found.locate_file(""))).resolve() == plugin.resolve()
    assert {entry.group for entry in found.entry_points} == {registry.group for registry in NAMES.values()}
    assert not [path for path in SOURCE.iterdir() if path.name == "build" or path.suffix == ".egg-info"]


@pytest.mark.parametrize("increment", [0, 20, "5", True], ids=repr)
def test_a_wrong_setting_of_the_runtime_is_told(plugin: Path, increment: Any) -> None:
    with pytest.raises(InvalidSpecError, match="'niced' does not accept its settings: increment must be"):
        make_runtime("niced", {"increment": increment})


# --- the SQLite source where files and tables differ ----------------------------------------------------------------


@pytest.fixture
def shop(plugin: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE orders (at TIMESTAMP, x INTEGER)")
        database.execute("INSERT INTO orders VALUES ('2013-01-05', 1), ('2013-01-06T01:00:00+02:00', 2)")
        yield database


@pytest.fixture
def spec(shop: sqlite3.Connection, tmp_path: Path) -> DataSpec:
    return DataSpec(uri=str(tmp_path / "shop.db"), format="sqlite", options={"table": "orders"}, event_time="at")


def test_rows_outside_the_window_do_not_count(shop: sqlite3.Connection, spec: DataSpec) -> None:
    manifest = take_manifest(spec, JANUARY)

    shop.execute("INSERT INTO orders VALUES ('2013-02-01', 3)")

    assert take_manifest(spec, JANUARY).digest == manifest.digest
    assert read_table(manifest)["at"].cast("string").to_pylist() == [
        "2013-01-05 00:00:00.000000Z",
        "2013-01-05 23:00:00.000000Z",
    ]


def test_a_misspelt_table_is_told_with_the_nearest(spec: DataSpec) -> None:
    wrong = spec.model_copy(update={"options": {"table": "order"}})

    with pytest.raises(DataReadError, match=r"has no table 'order'\. Did you mean 'orders'\? Its tables: orders"):
        take_manifest(wrong, JANUARY)


@pytest.mark.parametrize("table", ["", 7, None], ids=repr)
def test_a_table_must_be_named(spec: DataSpec, table: Any) -> None:
    with pytest.raises(InvalidSpecError, match=r"'sqlite' does not accept its data\.options: .*table"):
        fingerprint(spec.model_copy(update={"options": {} if table is None else {"table": table}}))


def test_a_table_whose_name_needs_quotes(shop: sqlite3.Connection, spec: DataSpec) -> None:
    shop.execute('ALTER TABLE orders RENAME TO "or""ders; --"')

    assert take_manifest(spec.model_copy(update={"options": {"table": 'or"ders; --'}}), JANUARY).row_count == 2


def test_a_value_of_another_type_names_its_column(shop: sqlite3.Connection, spec: DataSpec) -> None:
    shop.execute("INSERT INTO orders VALUES ('2013-01-07', 'many')")

    with pytest.raises(DataReadError, match=r"column 'x' of table 'orders'.*declared INTEGER, but holds"):
        take_manifest(spec, JANUARY)


def test_a_lock_is_an_outage_and_leaves_nothing_behind(shop: sqlite3.Connection, spec: DataSpec) -> None:
    """Another process writes: that passes, so a retry helps."""
    shop.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StorageUnavailableError, match=r"locked by a writer.*may be retried"):
        take_manifest(spec, JANUARY)

    shop.execute("ROLLBACK")
    assert take_manifest(spec, JANUARY).row_count == 2


def test_a_change_in_the_write_ahead_log_is_noticed(shop: sqlite3.Connection, spec: DataSpec) -> None:
    shop.execute("PRAGMA journal_mode=WAL")
    before = fingerprint(spec), take_manifest(spec, JANUARY).digest

    shop.execute("UPDATE orders SET x = 10 WHERE x = 1")

    assert fingerprint(spec) != before[0]
    assert take_manifest(spec, JANUARY).digest != before[1]


def test_a_bucket_is_no_place_for_a_database(spec: DataSpec) -> None:
    with pytest.raises(DataReadError, match="is no local file"):
        fingerprint(spec.model_copy(update={"uri": "s3://lake/shop.db"}))
