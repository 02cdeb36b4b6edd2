"""``airflow-mlops render``: what a model file means: every key filled in, and its DAGs as text and as a picture."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.model_dags import KINDS
from airflow_mlops.cli.output import emit
from airflow_mlops.core.yaml_text import comment
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.fleet import dag_ids, dag_kinds
from airflow_mlops.spec.load import asked, resolve_spec

if TYPE_CHECKING:
    from airflow_mlops.cli.dag_view import DagView
    from airflow_mlops.spec.layers import Layered
    from airflow_mlops.spec.model import ModelSpec


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "render",
        help="show a model file with everything filled in, and its DAGs as text and as a picture",
        description="Prints the specification with its base, its profile and every default filled in, each value with "
        "where it is from, and the DAGs with tasks, schedule and Assets. The output is YAML: all but the specification "
        "is comments. What looks like a secret is hidden. A picture needs nothing installed as SVG, and matplotlib as "
        "PNG.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the model specification, a YAML or JSON file")
    parser.add_argument("--profile", help="where it runs, such as dev; default: AIRFLOW_MLOPS_PROFILE")
    parser.add_argument("--owner", help="whose it is, part of names outside prod; default: AIRFLOW_MLOPS_OWNER")
    parser.add_argument(
        "--dag",
        choices=[*KINDS, "all", "none"],
        default="all",
        help="which DAG; none: the specification alone, then Airflow is not imported; default: all that it asks for",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the DAGs into this .svg or .png file")
    parser.add_argument("--json", action="store_true", help="print specification, origins, names and DAGs as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the specification and its DAGs, and draw the picture; always 0, because anything else is an error.

    :raises InvalidSpecError: the specification is not valid, a DAG cannot be made, or the picture not be written.
    """
    from airflow_mlops.cli.resolved import origins, plain, yaml_of

    if args.picture is not None:
        _check_picture(args.picture, args.dag)
    given = asked(args.profile, args.owner)
    spec, layered = resolve_spec(args.spec, given)
    dags = _views(spec, args.dag)
    values = plain(spec)
    if args.picture is not None:
        from airflow_mlops.cli.dag_picture import write_picture

        _write(args.picture, write_picture(dags, args.picture))
    if args.json:
        from airflow_mlops.cli.dag_text import json_of

        told = {
            "specification": values,
            "origins": origins(layered, given, values),
            "names": _names(spec),
            "dags": [json_of(dag) for dag in dags],
            "picture": None if args.picture is None else str(args.picture),
        }
        emit(json.dumps(told, indent=1))
        return 0
    parts = [_heading(spec, layered), yaml_of(layered, given, values), *map(_commented, dags)]
    if args.picture is not None:
        parts.append(comment(f"The picture is {args.picture}."))
    emit("\n\n".join(parts))
    return 0


def _views(spec: ModelSpec, which: str) -> list[DagView]:
    if which == "none":
        return []
    from airflow_mlops.cli.dag_view import view

    return [view(spec, kind) for kind in (dag_kinds(spec) if which == "all" else (which,))]


def _names(spec: ModelSpec) -> dict[str, Any]:
    return {
        "registered_model": spec.registered_model,
        "alias": spec.promotion.alias,
        "experiment": spec.experiment_name,
        "mlflow_conn_id": spec.connection_id,
        "promotion_mlflow_conn_id": spec.promotion_connection_id,
        "dag_ids": dag_ids(spec),
    }


def _heading(spec: ModelSpec, layered: Layered) -> str:
    files = " on ".join(str(file) for file in layered.files)
    under = f", profile {spec.profile}" if spec.profile else ""
    connections = " and ".join(dict.fromkeys((spec.connection_id, spec.promotion_connection_id)))
    return "\n".join(
        (
            comment(f"{files}{under}"),
            comment(f"Registered model {spec.registered_model}, alias {spec.promotion.alias}"),
            comment(f"Experiment {spec.experiment_name}; MLflow connection {connections}"),
        )
    )


def _commented(dag: DagView) -> str:
    from airflow_mlops.cli.dag_text import text_of

    return "\n".join(f"# {line}".rstrip() for line in text_of(dag).splitlines())


def _check_picture(path: Path, which: str) -> None:
    from airflow_mlops.cli.dag_picture import check_ending

    check_ending(path)
    if which == "none":
        raise InvalidSpecError("--picture draws DAGs, and --dag none asks for none. Leave one of them out.")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise InvalidSpecError(f"--picture {path} {what}. Name a file, such as flights.svg.")


def _write(path: Path, content: bytes) -> None:
    """Write the picture in one act; an earlier one is replaced."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
            draft.write(content)
        Path(draft.name).chmod(0o644)
        Path(draft.name).replace(path)
    except OSError as exc:
        raise InvalidSpecError(
            f"--picture {path} cannot be written: {exc.strerror or exc}. Name another file."
        ) from exc
