r"""How things are named, so that two people on one MLflow and one Airflow do not collide.

In production (no profile, or ``prod``) names are as written. In every other profile they carry profile and owner:

==================  =======================  ===========================
\                   production               profile ``dev``, owner ``ann``
==================  =======================  ===========================
experiment          ``flights``              ``dev/ann/flights``
registered model    ``flights``              ``dev.ann.flights``
DAG                 ``train_flights``        ``train_flights__dev__ann``
connection          ``mlflow_default``       ``mlflow_dev_ann``
==================  =======================  ===========================

With the profile ``prod`` written out, the connection is ``mlflow_prod``. A name that the specification gives itself is
qualified in the same way, except a connection's, which is taken as written. The two characters that join the parts
cannot occur in a profile or an owner, so different pairs never give one name.
"""

from __future__ import annotations

import re

PRODUCTION = "prod"
DEFAULT_CONNECTION = "mlflow_default"
_OWNER = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9])*")


def check_owner(owner: str, profile: str | None) -> None:
    """Refuse an owner that cannot be part of names, where it will be.

    :raises ValueError: it holds something else than letters, digits and single hyphens between them.
    """
    if is_production(profile) or _OWNER.fullmatch(owner):
        return
    raise ValueError(
        f"owner {owner!r} becomes part of names in the profile {profile!r}, so it takes letters, digits and single "
        f"hyphens only, such as ann or team-blue"
    )


def is_production(profile: str | None) -> bool:
    """Say whether names stay as written."""
    return profile in (None, PRODUCTION)


def experiment(name: str, profile: str | None, owner: str) -> str:
    """Return the MLflow experiment's name."""
    return name if is_production(profile) else f"{profile}/{owner}/{name}"


def registered_model(name: str, profile: str | None, owner: str) -> str:
    """Return the registered model's name. Dots, because MLflow's URIs cannot carry a slash there."""
    return name if is_production(profile) else f"{profile}.{owner}.{name}"


def dag_id(name: str, profile: str | None, owner: str) -> str:
    """Return the DAG's id."""
    return name if is_production(profile) else f"{name}__{profile}__{owner}"


def connection(profile: str | None, owner: str) -> str:
    """Return the id of the MLflow connection where the specification names none."""
    if profile is None:
        return DEFAULT_CONNECTION
    return f"mlflow_{profile}" if is_production(profile) else f"mlflow_{profile}_{owner}"
