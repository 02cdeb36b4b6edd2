"""``airflow-mlops schema``: the JSON Schema of a model file, for editors and other tools."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from airflow_mlops.cli.new_files import write_files
from airflow_mlops.cli.output import emit
from airflow_mlops.errors import InvalidSpecError


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of a model file",
        description="Prints the JSON Schema (draft 2020-12) of a model file, with a description and default for every "
        "key. An editor with a YAML language server uses it after the first line `# yaml-language-server: "
        "$schema=_model.schema.json`.",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it here; an earlier schema is replaced")
    parser.add_argument(
        "--base", action="store_true", help="of a file that others extend: it may be incomplete, and extends nothing"
    )
    parser.add_argument(
        "--closed",
        action="store_true",
        help="accept only gate rules, drift methods and data sources that are installed here, so that a typing error "
        "in such a name shows in the editor, too",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print or write the schema.

    :raises InvalidSpecError: the file holds something else than a schema, or cannot be written.
    """
    from airflow_mlops.runtimes import RUNTIMES
    from airflow_mlops.spec.file_schema import file_schema

    schema = file_schema(base=args.base, closed=args.closed, runtimes=RUNTIMES.names())
    text = json.dumps(schema, indent=2)
    if args.output is None:
        emit(text)
        return 0
    write_files({args.output: text + "\n"}, force=_holds_a_schema(args.output))
    emit(f"Wrote {args.output}. First line of a model file: # yaml-language-server: $schema={args.output.name}")
    return 0


def _holds_a_schema(path: Path) -> bool:
    """Say whether the file is there and may be replaced.

    :raises InvalidSpecError: it holds something else, which may be someone's work.
    """
    if not path.exists() or path.is_dir():
        return False
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
    if isinstance(held, dict) and "$schema" in held and "$defs" in held:
        return True
    raise InvalidSpecError(f"{path} exists and is no JSON Schema, so it is left alone. Choose another file.")
