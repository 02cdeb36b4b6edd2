"""``airflow-mlops doctor``: whether everything is here that the package needs, and whether MLflow answers."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from packaging.requirements import Requirement

from airflow_mlops.cli.access import add_access_options, resolve_access
from airflow_mlops.cli.output import emit
from airflow_mlops.errors import InvalidSpecError, MLOpsError

#: Extras whose absence only closes a part of the package, and which part.
OPTIONAL = {
    "steps": "steps cannot run in this interpreter",
    "mlflow": "models cannot be logged or loaded in this interpreter",
    "great-expectations": "contracts cannot be checked in this interpreter",
    "evidently": "drift reports cannot be made in this interpreter",
    "amazon": "s3:// data needs it for Airflow connections",
    "google": "gs:// data needs it",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: ``ok``, ``missing`` (an optional part) or ``wrong``, and how to mend it."""

    name: str
    status: Literal["ok", "missing", "wrong"]
    found: str
    mend: str = ""


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("doctor", help="check installation, versions and the MLflow connection")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    add_access_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every check; 1 where one is wrong."""
    checks = [_python(), *requirements(), *_provider(), _server(args)]
    if args.json:
        emit(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        for check in checks:
            mark = {"ok": "ok     ", "missing": "missing", "wrong": "WRONG  "}[check.status]
            emit(f"{mark} {check.name}: {check.found}" + (f"\n        {check.mend}" if check.mend else ""))
    return 1 if any(check.status == "wrong" for check in checks) else 0


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12), (3, 13)):
        return Check("Python", "ok", version)
    return Check("Python", "wrong", version, "Use Python 3.11, 3.12 or 3.13.")


def requirements() -> list[Check]:
    """Compare what is installed with what the package and its extras ask for."""
    checks = []
    for line in importlib.metadata.requires("airflow-mlops") or []:
        requirement = Requirement(line)
        if requirement.name == "airflow-mlops":
            continue
        extra = next(
            (name for name in OPTIONAL if requirement.marker and requirement.marker.evaluate({"extra": name})), None
        )
        if requirement.marker and extra is None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            mend = f"Run: pip install 'airflow-mlops[{extra}]'" if extra else f"Run: pip install '{requirement}'"
            status: Literal["missing", "wrong"] = "missing" if extra else "wrong"
            checks.append(
                Check(requirement.name, status, "not installed", f"{OPTIONAL[extra]}. {mend}" if extra else mend)
            )
            continue
        if requirement.specifier.contains(version, prereleases=True):
            checks.append(Check(requirement.name, "ok", version))
        else:
            wanted = f"{requirement.name}{requirement.specifier}"
            mend = f"Run: pip install '{wanted}'"
            checks.append(Check(requirement.name, "wrong", f"{version}, needed {wanted}", mend))
    return checks


def _provider() -> list[Check]:
    found = [
        entry
        for entry in importlib.metadata.entry_points(group="apache_airflow_provider")
        if entry.value.startswith("airflow_mlops.")
    ]
    if len(found) == 1:
        return [Check("Airflow provider entry point", "ok", found[0].value)]
    return [
        Check(
            "Airflow provider entry point",
            "wrong",
            f"{len(found)} registered",
            "Install the package itself (pip install airflow-mlops); a copied folder registers nothing.",
        )
    ]


def _server(args: argparse.Namespace) -> Check:
    try:
        access = resolve_access(args)
    except InvalidSpecError as exc:
        return Check("MLflow server", "missing", "not named", str(exc))
    except MLOpsError as exc:
        return Check("MLflow server", "wrong", "no usable connection", str(exc))
    from airflow_mlops.engines.tracking import connected

    try:
        with connected(access.server, access.login) as client:
            count = len(client.search_experiments(max_results=5))
    except MLOpsError as exc:
        return Check("MLflow server", "wrong", access.server.tracking_uri, str(exc))
    return Check("MLflow server", "ok", f"{access.server.tracking_uri} answers ({count} experiments seen)")
