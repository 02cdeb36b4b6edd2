"""``airflow-mlops run``: one pass of the training loop for one window, without a scheduler."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from airflow_mlops.cli.access import add_access_options, current_user, resolve_access
from airflow_mlops.cli.output import emit
from airflow_mlops.core.records import Record
from airflow_mlops.core.windows import parse_window
from airflow_mlops.spec.load import load_spec


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("run", help="train, gate and promote a model for one window, without a scheduler")
    parser.add_argument("spec", type=Path, help="the model specification, a YAML or JSON file")
    parser.add_argument(
        "--window", nargs=2, metavar=("START", "END"), required=True, help="evaluation window, ISO times, END excluded"
    )
    parser.add_argument("--train-length", help="training window's length for this run, such as '1 month'")
    parser.add_argument("--reason", default="run on the command line", help="why; kept in MLflow and in the ledger")
    parser.add_argument("--author", default=None, help="who; default: you")
    parser.add_argument("--no-promote", action="store_true", help="stop after the gate: register and move nothing")
    parser.add_argument("--profile", help="where it runs, such as dev; default: AIRFLOW_MLOPS_PROFILE")
    parser.add_argument("--owner", help="whose it is, part of names outside prod; default: AIRFLOW_MLOPS_OWNER")
    parser.add_argument("--force", action="store_true", help="make everything anew")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    add_access_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the loop; 0 when it ended with a verdict, 1 when it needs a person."""
    from airflow_mlops.steps.pipeline import run_training

    def progress(task: str, record: Record) -> None:
        if not args.json:
            print(f"{task:28} {summary(record)}", file=sys.stderr)

    outcome = run_training(
        load_spec(args.spec, profile=args.profile, owner=args.owner),
        window=parse_window(args.window[0], args.window[1], "--window"),
        access=resolve_access(args),
        train_length=args.train_length,
        reason=args.reason,
        author=args.author or current_user(),
        promote=not args.no_promote,
        force=args.force,
        progress=progress,
    )
    emit(json.dumps(outcome.to_json(), indent=1) if args.json else outcome.ended)
    return 1 if outcome.failed else 0


def summary(record: Record) -> str:
    """Return a record in one line."""
    if sentence := getattr(record, "sentence", ""):
        return str(sentence)
    shown = {
        name: value
        for name in ("row_count", "model_uri", "version", "train_window", "evaluate_window", "metrics")
        if (value := getattr(record, name, None)) is not None
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())
