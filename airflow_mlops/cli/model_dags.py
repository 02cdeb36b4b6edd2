"""Making the DAGs of a model where Airflow may be absent: nothing of it is imported before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.spec.model import ModelSpec

if TYPE_CHECKING:
    from airflow_mlops.compat import DAG

KINDS = ("training", "scoring", "monitoring")


def make_dag(spec: ModelSpec, kind: str) -> DAG:
    """Make one of the DAGs.

    :raises InvalidSpecError: it cannot be made from this specification.
    """
    from airflow_mlops.factories.fleet import FACTORIES

    return FACTORIES[kind](spec)


def has_airflow() -> bool:
    """Say whether Airflow is installed here, without importing it."""
    from importlib.util import find_spec

    return find_spec("airflow") is not None
