"""The DAGs that a model's specification asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_mlops.spec import naming
from airflow_mlops.spec.fleet import dag_kinds
from airflow_mlops.spec.model import ModelSpec

if TYPE_CHECKING:
    from airflow_mlops.compat import DAG

KINDS = ("training", "scoring", "monitoring")


def dag_ids(spec: ModelSpec) -> dict[str, str]:
    """Return the ids of the DAGs by kind, without making any."""
    verbs = {"training": "train", "scoring": "score", "monitoring": "monitor"}
    return {kind: naming.dag_id(f"{verbs[kind]}_{spec.name}", spec.profile, spec.owner) for kind in dag_kinds(spec)}


def make_dag(spec: ModelSpec, kind: str) -> DAG:
    """Make one of the DAGs.

    :raises InvalidSpecError: it cannot be made from this specification.
    """
    from airflow_mlops.factories.monitoring import monitoring_dag
    from airflow_mlops.factories.scoring import scoring_dag
    from airflow_mlops.factories.training import training_dag

    makers: dict[str, Callable[[ModelSpec], Any]] = {
        "training": training_dag,
        "scoring": scoring_dag,
        "monitoring": monitoring_dag,
    }
    return makers[kind](spec)


def has_airflow() -> bool:
    """Say whether Airflow is installed here, without importing it."""
    from importlib.util import find_spec

    return find_spec("airflow") is not None
