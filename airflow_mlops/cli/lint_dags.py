"""Whether the DAGs of a model can be made, and whether Airflow can serialise them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from airflow_mlops.cli.lint_findings import Finding, findings_of
from airflow_mlops.cli.lint_model import Model
from airflow_mlops.cli.model_dags import make_dag
from airflow_mlops.errors import MLOpsError
from airflow_mlops.spec.fleet import dag_kinds


def check_dags(model: Model) -> Iterator[Finding]:
    """Make every DAG of the model and serialise it the way the DAG processor does; no database is asked.

    Anything may be raised while a DAG is made from a team's plug-ins, and all of it would be an import error there.
    """
    from airflow_mlops.factories.serialised import serialised

    for kind in dag_kinds(model.spec):
        code = "MLOPS601"
        try:
            dag = make_dag(model.spec, kind)
            code = "MLOPS602"
            serialised(dag)
        except MLOpsError as exc:
            yield from (_of(model, found) for found in findings_of(code, exc, str(model.file), model.at))
        except Exception as exc:  # noqa: BLE001  # told as a finding
            told = RuntimeError(f"the {kind} DAG: {type(exc).__name__}: {' '.join(str(exc).split())}")
            yield from (_of(model, found) for found in findings_of(code, told, str(model.file)))


def _of(model: Model, found: Finding) -> Finding:
    return replace(found, profiles=(model.profile,) if model.profile else ())
