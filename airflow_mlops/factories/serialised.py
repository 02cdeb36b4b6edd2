"""A DAG as Airflow stores it, made without Airflow's database."""

from __future__ import annotations

from typing import Any

from airflow_mlops.compat import AIRFLOW_3, AssetAlias, DagSerialization


def serialised(dag: Any) -> dict[str, Any]:
    """Return what the DAG processor would store of ``dag``; call it on a DAG that is looked at and thrown away.

    Airflow 2 asks its database which Assets an alias stands for, so there the aliases are taken out of the DAG first.

    :raises Exception: whatever Airflow raises where it cannot store the DAG.
    """
    if not AIRFLOW_3:
        for task in dag.task_dict.values():
            task.outlets = [one for one in task.outlets if not isinstance(one, AssetAlias)]
    stored: dict[str, Any] = DagSerialization.to_dict(dag)
    return stored
