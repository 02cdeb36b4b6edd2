"""``airflow-mlops init``: a working model for a table, or a team's whole repository."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_mlops.cli.new_files import refuse_existing, write_files
from airflow_mlops.cli.new_model_files import NewModel, dag_text, file_names, spec_text, test_text, training_text
from airflow_mlops.cli.new_model_study import Study, study
from airflow_mlops.cli.new_repository import new_repository
from airflow_mlops.cli.output import emit
from airflow_mlops.cli.table_options import add_table_options, data_of, named_as_options, storage_of
from airflow_mlops.core.new_model import check_name
from airflow_mlops.errors import InvalidSpecError


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "init",
        help="write a working model for a table, or a team's repository of models",
        description="Looks at a table, guesses what is not given and says each guess, and writes NAME.yaml, "
        "NAME_contract.yaml, NAME_training.py, test_NAME_training.py and NAME_dag.py; with --repository all that a "
        "team's repository needs. They work as they are; they are yours to change.",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="write a team's repository: models, contracts, training functions with tests, a DAG file, a CI workflow; "
        "without --data with an example, in such a repository one more model",
    )
    parser.add_argument("--data", "--table", help="the table: a file, a folder or a glob; local, s3:// or gs://")
    parser.add_argument("--target", metavar="COL", help="the column to predict")
    parser.add_argument("--name", help="the model's name: lower-case letters, digits, underscores")
    parser.add_argument(
        "--task", choices=["binary", "multiclass", "regression"], help="default: told by the target's values"
    )
    add_table_options(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: the current folder")
    parser.add_argument("--force", action="store_true", help="write over existing files")
    parser.add_argument("--json", action="store_true", help="print what was written and guessed as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, guess, prove the contract on both windows, write; always 0, because anything else is an error.

    :raises InvalidSpecError: the options do not fit the table, or nothing can be learnt from it; the mend is told.
    :raises DataReadError: the table cannot be read.
    """
    if args.repository is not None:
        return new_repository(args)
    missing = [f"--{name}" for name in ("data", "target", "name") if getattr(args, name) is None]
    if missing:
        raise InvalidSpecError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: init needs a table (--data), the "
            f"column to predict (--target) and the model's name (--name). For a team's repository: --repository FOLDER."
        )
    check_name(args.name)
    args.out = args.out or Path()
    paths = {kind: args.out / name for kind, name in file_names(args.name).items()}
    refuse_existing(list(paths.values()), force=args.force)
    access = storage_of(args)
    with named_as_options():
        found = study(args, data_of(args.data, args, access), access)
    model = found.model
    texts = {
        "spec": spec_text(model, args.out),
        "contract": found.contract.text,
        "training": training_text(model),
        "test": test_text(model),
        "dag": dag_text(model),
    }
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidSpecError(f"--out {args.out} cannot be made: {exc.strerror}. Choose another folder.") from exc
    write_files({paths[kind]: text for kind, text in texts.items()}, force=args.force)
    steps = _next_steps(args, model)
    if args.json:
        told = {
            "files": [str(path) for path in paths.values()],
            "guessed": list(model.guesses),
            "train_window": model.split.train.model_dump(mode="json"),
            "evaluate_window": model.split.evaluate.model_dump(mode="json"),
            "set_aside": found.set_aside,
            "next": [command for command, _ in steps],
        }
        emit(json.dumps(told, indent=1))
        return 0
    emit(_closing(paths, found, steps))
    return 0


def _next_steps(args: argparse.Namespace, model: NewModel) -> list[tuple[str, str]]:
    """Return the commands to go on with, each with what it does."""
    names = file_names(model.name)
    window = model.split.evaluate
    steps = [
        (shlex.join(["cd", str(args.out)]), ""),
        (f"python -m pytest {names['test']}", "try the training function on made-up rows"),
        (
            f"airflow-mlops run {names['spec']} --window {_time(window.start)} {_time(window.end)} "
            f"--tracking-uri http://localhost:5000",
            "train, gate and promote a first model on a running MLflow server",
        ),
        (
            f"airflow dags test train_{model.name} --conf "
            + shlex.quote(json.dumps({"window_start": _time(window.start), "window_end": _time(window.end)})),
            "the same in Airflow, with these files in its DAG folder and the connection mlflow_default to that server",
        ),
    ]
    return steps if args.out != Path() else steps[1:]


def _closing(paths: Mapping[str, Path], found: Study, steps: Sequence[tuple[str, str]]) -> str:
    count = len(found.contract.contract.expectations)
    said = {
        "spec": "the specification",
        "contract": f"the data contract, {count} expectations that hold on the table",
        "training": "the training function",
        "test": "its test",
        "dag": "the DAG file",
    }
    lines = ["Wrote:", *(f"  {path}: {said[kind]}" for kind, path in paths.items())]
    if found.model.guesses:
        lines += ["Guessed (change it in the files where you know better):"]
        lines += [f"  - {guess}" for guess in found.model.guesses]
    if found.set_aside:
        lines.append(f"{found.set_aside:,} rows have no {found.model.target!r}: the contract sets them aside.")
    lines.append("Next:")
    for command, why in steps:
        lines += [f"  # {why}"] if why else []
        lines.append(f"  {command}")
    return "\n".join(lines)


def _time(moment: datetime) -> str:
    """Return a UTC time as a window is written: the date alone at midnight."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return text.removesuffix("T00:00:00Z")
