"""``airflow-mlops infer-contract``: a first data contract from a window of the data, proven on that very window."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from airflow_mlops.cli.new_files import refuse_existing, write_files
from airflow_mlops.cli.output import emit
from airflow_mlops.cli.table_options import add_table_options, data_of, named_as_options, roles_of, storage_of
from airflow_mlops.core.windows import parse_window
from airflow_mlops.errors import InvalidSpecError


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "infer-contract",
        help="write a first data contract from a window of the data",
        description="Looks at the rows of one window, writes the expectations that hold on them with room to spare, "
        "and checks them with Great Expectations before it writes. Each limit has a comment that says where it is "
        "from. Goes to standard output, or to --out.",
    )
    parser.add_argument("data", help="a file, a folder or a glob: a local path, s3:// or gs://")
    add_table_options(parser)
    parser.add_argument(
        "--window", nargs=2, metavar=("START", "END"), help="reference window, ISO times, END excluded; default: all"
    )
    parser.add_argument("--target", metavar="COL", help="what the model predicts; rows without it are set aside")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the contract here")
    parser.add_argument("--force", action="store_true", help="write over an existing file")
    parser.add_argument("--json", action="store_true", help="print the contract and the reasons as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Infer, prove and write the contract; always 0, because anything else is an error.

    :raises InvalidSpecError: the options do not fit the data, there is no row, or the file exists.
    :raises DataReadError: the data cannot be read.
    """
    from airflow_mlops.engines.contract_inference import first_contract, look, prove, read_rows

    window = None if args.window is None else parse_window(args.window[0], args.window[1], "--window")
    if window is not None and args.event_time is None:
        raise InvalidSpecError("--window needs --event-time: the timestamp column that says which rows it holds.")
    if args.out is not None:
        refuse_existing([args.out], force=args.force)
    access = storage_of(args)
    with named_as_options():
        data = data_of(args.data, args, access)
        rows = read_rows(data, window, access)
    roles = roles_of(data, args.target, [name for name, _ in rows.manifest.columns])
    seen = look(rows, roles, data.id_columns)
    count = rows.table.num_rows
    where = f"the window {window} of {data.uri}" if window is not None else f"all of {data.uri}"
    made = first_contract(seen, f"A first contract, inferred from {where}: {count:,} rows. It holds on them.")
    aside = prove(made.contract, rows.frame, where)
    if args.out is not None:
        write_files({args.out: made.text}, force=args.force)
    said = f"{len(made.contract.expectations)} expectations, checked: they hold on {where}, {count:,} rows"
    said += f", {aside:,} of which they would set aside." if aside else "."
    if args.json:
        emit(
            json.dumps(
                {
                    "file": None if args.out is None else str(args.out),
                    "rows": count,
                    "window": None if window is None else window.model_dump(mode="json"),
                    "set_aside": aside,
                    "contract": made.contract.model_dump(mode="json", exclude_none=True),
                    "reasons": [one.reason for one in made.inferred.proposals],
                    "left_out": list(made.inferred.left_out),
                },
                indent=1,
            )
        )
    elif args.out is not None:
        emit(f"Wrote {args.out}: {said}")
    else:
        emit(made.text.rstrip("\n"))
        print(said, file=sys.stderr)
    return 0
