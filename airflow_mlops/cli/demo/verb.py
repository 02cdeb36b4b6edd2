"""``airflow-mlops demo``: prepare, play, tell; or keep the pages up."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.lake import LabelFeed, prepare_lake
from airflow_mlops.cli.demo.months import Service, realised
from airflow_mlops.cli.demo.months import rows as months_told
from airflow_mlops.cli.demo.services import Services, free_port, remove_home
from airflow_mlops.cli.demo.story import MODEL, Row, closing_acts, play, training_acts, write_dags
from airflow_mlops.cli.output import emit
from airflow_mlops.engines.tracking import TrackingServer, connected

MLFLOW_PORT = 5000
AIRFLOW_PORT = 8080


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "demo", help="run the whole loop on real flights in a real Airflow with a real MLflow server"
    )
    parser.add_argument("--home", type=Path, default=Path(".demo"), help="folder for everything; default: .demo")
    parser.add_argument("--serve", action="store_true", help="play nothing; keep the pages of the last demo up")
    parser.add_argument("--mlflow-port", type=int, help=f"default: {MLFLOW_PORT}, or any free one")
    parser.add_argument("--airflow-port", type=int, help=f"default: {AIRFLOW_PORT}, or any free one")
    parser.add_argument("--json", action="store_true", help="print the closing table as JSON on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the demo (0: every act came out as told) or serve its pages until interrupted."""
    home: Path = args.home.absolute()
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begin:4.0f} s] {line}", file=sys.stderr, flush=True)

    mlflow_port = args.mlflow_port or free_port(MLFLOW_PORT)
    services = Services(
        home,
        home / "dags",
        mlflow_port=mlflow_port,
        airflow_port=args.airflow_port or free_port(AIRFLOW_PORT, besides=(mlflow_port,)),
        say=say,
    )
    with _stopped_by_signals():
        if args.serve:
            return _serve(services, home)
        remove_home(home)
        lake = prepare_lake(home / "lake" / "flights")
        say(f"{sum(lake.rows.values()):,} flights in {len(lake.rows)} monthly files under {lake.folder}")
        write_dags(home / "dags")
        with services, AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api:
            airflow_url, mlflow_url = services.airflow_url, services.mlflow_uri
            labels = LabelFeed(lake=lake, folder=home / "lake" / "labels")
            rows = play(api, lambda: champion_of(mlflow_url), say, training_acts())
            months = Service(api, labels, say).play()
            rows += months_told(months)
            rows += play(api, lambda: champion_of(mlflow_url), say, closing_acts())
    wrong = [mistake for row in rows for mistake in row.wrong]
    if args.json:
        emit(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        emit(table(rows))
        emit(realised(months))
        emit(
            "\nFigures come from this run. Training parameters and the gate's min_rows were chosen after looking at\n"
            "May, to show a held candidate; its p-value illustrates the rule. May's gain over all flights is a point\n"
            "estimate. Four columns at PSI 0.25 were chosen after looking at all months, so that July asks for the\n"
            "retrain. The flights' files hold the answers, too; scoring never reads them, labels are delivered apart.\n"
            f"\nThe whole demo took {time.monotonic() - begin:.0f} s. Its pages: `make serve` (or `airflow-mlops demo "
            f"--serve`) keeps\nAirflow up at {airflow_url} (user and password in {services.password_file})\n"
            f"and MLflow at {mlflow_url}, or at other ports where these are taken."
        )
    for mistake in wrong:
        print(f"NOT AS TOLD: {mistake}", file=sys.stderr)
    return 1 if wrong else 0


def champion_of(tracking_uri: str, name: str = MODEL, alias: str = "champion") -> int | None:
    """Return the version that the alias names, or None where there is no model or no alias."""
    from mlflow.exceptions import MlflowException

    with connected(TrackingServer(tracking_uri=tracking_uri)) as client:
        try:
            aliases = client.get_registered_model(name).aliases
        except MlflowException as exc:
            if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    return int(aliases[alias]) if alias in aliases else None


def table(rows: Sequence[Row], width: int = 110) -> str:
    """Return what happened and why, one block a run."""
    lines = ["", "What happened and why", "=" * width]
    for number, row in enumerate(rows, 1):
        mark = "as told" if not row.wrong else "NOT AS TOLD"
        lines.append(f"{number}. {row.title}  ({row.seconds:.0f} s, {mark})")
        lines += textwrap.wrap(row.happened, width, initial_indent="   -> ", subsequent_indent="      ")
        lines += textwrap.wrap(row.why, width, initial_indent="      ", subsequent_indent="      ")
        lines.append("-" * width)
    return "\n".join(lines)


def _serve(services: Services, home: Path) -> int:
    if not (home / "dags").is_dir():
        print(f"There is no demo in {home}. Run `make demo` (or `airflow-mlops demo`) first.", file=sys.stderr)
        return 2
    with services:
        emit(f"Airflow: {services.airflow_url}  user {services.user}, password in {services.password_file}")
        emit(f"MLflow:  {services.mlflow_uri}")
        emit("Ctrl-C ends both.")
        while True:
            services.check()
            time.sleep(1)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Make a termination end the services as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell that starts the demo in the background lets it be ignored.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
