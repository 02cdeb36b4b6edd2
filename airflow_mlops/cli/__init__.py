"""The command line, ``airflow-mlops``."""

from __future__ import annotations

import argparse
import sys
import traceback

from airflow_mlops.cli.output import results_only
from airflow_mlops.errors import MLOpsError, OutageError


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Exit codes: 0 done; 1 the answer is no (a failed check, a run that needs a person); 2 wrong input; 70 an error that
    nobody foresaw; 75 something outside did not answer, try again.
    """
    args = build_parser().parse_args(argv)

    try:
        with results_only():
            return int(args.run(args))
    except MLOpsError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 75 if isinstance(exc, OutageError) else 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except Exception:  # noqa: BLE001  # told whole on standard error, with an exit code of its own
        traceback.print_exc()
        print("This error has no name of ours: the fault may be the package's. Please report it.", file=sys.stderr)
        return 70


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every verb."""
    from airflow_mlops.cli import doctor, infer_contract, init, lint, registry_verbs, render, run, schema, trace
    from airflow_mlops.cli.demo import verb as demo

    parser = argparse.ArgumentParser(
        prog="airflow-mlops", description="Production machine learning on Airflow and MLflow from one specification."
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    init.add_verb(verbs)
    infer_contract.add_verb(verbs)
    lint.add_verb(verbs)
    render.add_verb(verbs)
    schema.add_verb(verbs)
    run.add_verb(verbs)
    registry_verbs.add_verbs(verbs)
    trace.add_verb(verbs)
    doctor.add_verb(verbs)
    demo.add_verb(verbs)
    return parser
