"""What a test must know of the Airflow it runs on: 2.11 and 3 keep the same things in different places."""

from __future__ import annotations

import os
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.compat import AIRFLOW_3, AIRFLOW_VERSION
from airflow_mlops.operators.asset_events import read_extra

#: Airflow asks a person itself, on its page of required actions.
AIRFLOW_ASKS = AIRFLOW_VERSION.release >= (3, 1)
#: The line that loads what every DAG file loads.
LOAD_AIRFLOW = "import airflow.sdk" if AIRFLOW_3 else "from airflow import DAG; import airflow.models.baseoperator"

only_airflow_3 = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2.11 has no such thing")
where_airflow_asks = pytest.mark.skipif(
    not AIRFLOW_ASKS, reason="Airflow asks no person before 3.1: the task waits for the command line instead"
)


def asset_name(asset: Any) -> str:
    """Return the name of an Asset. Airflow 2.11 calls it a Dataset, whose address is all the name it has."""
    return str(getattr(asset, "name", None) or asset.uri)


class OutletEvents(defaultdict[str, Any]):
    """Stands in for a task's outlet events: by Asset alias, which Airflow 3.0 cannot hash, kept by its name."""

    def __getitem__(self, alias: Any) -> Any:
        return super().__getitem__(alias.name)


def told(asset: Any, extra: Any) -> tuple[str, dict[str, Any]]:
    """Return an event as its readers get it: the Asset's name and the extra."""
    if AIRFLOW_VERSION.release < (3, 2):
        frozenset(extra.items())  # as Airflow before 3.2 does when it publishes an event
    return asset_name(asset), read_extra(SimpleNamespace(extra=extra))


def events_of(dag_id: str) -> list[tuple[str, Any]]:
    """Return the Asset events that the runs of a DAG published: the Asset's name and the extra."""
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if AIRFLOW_3:
        from airflow.models.asset import AssetEvent, AssetModel

        of = select(AssetModel.name, AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
    else:
        from airflow.models.dataset import DatasetEvent as AssetEvent
        from airflow.models.dataset import DatasetModel

        of = select(DatasetModel.uri, AssetEvent).join(DatasetModel, DatasetModel.id == AssetEvent.dataset_id)
    with create_session() as session:
        found = session.execute(of.where(AssetEvent.source_dag_id == dag_id))
        return [(str(name), read_extra(event)) for name, event in found]


def starting_condition(dag: Any) -> Any:
    """Return the condition over Assets that starts a DAG."""
    return dag.timetable.asset_condition if AIRFLOW_3 else dag.timetable.dataset_condition


def starting_assets(dag: Any) -> list[str]:
    """Return the names of the Assets in the condition that starts a DAG, in their order."""
    return [asset_name(asset) for asset in starting_condition(dag).objects]


def bag_of(dag: Any) -> Any:
    """Return a bag that holds the DAG alone, and write both into Airflow's database, as a DAG processor would."""
    if AIRFLOW_3:
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        from airflow_mlops.compat import DagBag

        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        if hasattr(bag, "sync_to_db"):  # before 3.2; where the file lies in its bundle is read from the DAG there
            dag.relative_fileloc = dag.relative_fileloc or Path(dag.fileloc).name
            bag.sync_to_db("dags-folder", None)
        else:
            import_module(DagBag.__module__).sync_bag_to_db(bag, "dags-folder", None)
        return bag
    from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=os.devnull, include_examples=False)
    bag.bag_dag(dag, root_dag=dag)
    bag.sync_to_db()
    assert not bag.import_errors, bag.import_errors  # a DAG that cannot be serialised is only noted there
    return bag


def run_to_its_end(dag: Any, conf: dict[str, Any]) -> Any:
    """Run a DAG in this process, as by hand, and return the run."""
    bag_of(dag)
    if AIRFLOW_3:
        return dag.test(run_conf=conf, logical_date=None)
    from airflow.utils import timezone

    return dag.test(run_conf=conf, execution_date=timezone.utcnow())


def what_runs_triggers() -> tuple[Any, str]:
    """Return where ``dag.test()`` looks for the function that runs a deferred task's trigger, and its name."""
    if not AIRFLOW_3:
        from airflow.models import dag

        return dag, "_run_inline_trigger"
    from airflow.sdk.execution_time import supervisor

    name = "run_trigger_in_process"
    if hasattr(getattr(supervisor, "InProcessTestSupervisor", None), name):
        return supervisor.InProcessTestSupervisor, name
    from airflow.sdk.definitions import dag  # before 3.2

    return dag, "_run_inline_trigger"


def pushed_in(dag_id: str, run_id: str) -> list[tuple[str, str, int, Any]]:
    """Return what the tasks of a run pushed: task, key, index of the copy and value."""
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if AIRFLOW_3:
        from airflow.models.xcom import XComModel
    else:
        from airflow.models.xcom import XCom as XComModel
    mine = select(XComModel).where(XComModel.dag_id == dag_id, XComModel.run_id == run_id)
    with create_session() as session:
        # Airflow 2.11 gives the value as it was pushed, Airflow 3 as it is stored.
        return [
            (x.task_id, x.key, x.map_index, XComModel.deserialize_value(x) if AIRFLOW_3 else x.value)
            for x in session.scalars(mine)
        ]
