"""Every model of a folder as Airflow will see it, without an Airflow that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.errors import MLOpsError
from airflow_mlops.spec.fleet import model_files
from airflow_mlops.spec.load import load_spec

if TYPE_CHECKING:
    from airflow_mlops.compat import DAG


def assert_dags_valid(folder: str | Path, *, profile: str | None = None, owner: str | None = None) -> dict[str, DAG]:
    """Load every model of ``folder`` as a DAG file does, and look at the DAGs as Airflow's DAG processor does.

    Looked at are the specifications, DAG ids that two models share, the contracts (that Great Expectations knows every
    expectation), the DAGs' own validation, cycles, and that they can be serialised. No database and no server is
    needed.

    :param folder: the folder that ``load_models`` reads.
    :param profile: the profile to load them with; None: the environment variable ``AIRFLOW_MLOPS_PROFILE``, else what
        the files say.
    :param owner: whose they are; None: ``AIRFLOW_MLOPS_OWNER``, else what the files say.
    :return: the DAGs by id, to assert more about them.
    :raises AssertionError: something is wrong; every mistake of every model is told.
    :raises InvalidSpecError: there is no such folder, or no model in it.
    """
    from airflow_mlops.factories.fleet import load_models

    dags = load_models(folder, profile=profile, owner=owner)
    mistakes = list(dags.errors.values())
    for file in model_files(folder):
        if file not in dags.errors:
            mistakes += _contract_mistakes(file, profile, owner)
    for dag in dags.values():
        try:
            _check(dag)
        except Exception as exc:  # noqa: BLE001  # Airflow's own checks raise what they like; other DAGs still count
            mistakes.append(f"The DAG {dag.dag_id!r} is refused by Airflow: {type(exc).__name__}: {exc}")
    if mistakes:
        count = f"{len(mistakes)} {'model or DAG is' if len(mistakes) == 1 else 'models or DAGs are'} not valid"
        where = f"{folder}, profile {profile}" if profile else str(folder)
        raise AssertionError("\n".join([f"{count} in {where}:", *mistakes]))
    return dict(dags)


def _contract_mistakes(file: Path, profile: str | None, owner: str | None) -> list[str]:
    from airflow_mlops.engines.expectations import check_contract_names
    from airflow_mlops.testing.checks import contract_of

    try:
        check_contract_names(contract_of(load_spec(file, profile=profile, owner=owner)))
    except MLOpsError as exc:
        return [f"{file}: its contract: {exc}"]
    return []


def _check(dag: DAG) -> None:
    from airflow_mlops.factories.serialised import serialised

    dag.validate()
    dag.topological_sort()  # finds a cycle, in every Airflow
    json.dumps(serialised(dag), allow_nan=False)
