"""Photograph the import error that a bad model's file gives in a fleet, for the documentation.

``make screenshots`` runs it after the demo's pictures: it starts an Airflow of its own on a folder with one good model
and one bad one, waits until the good one's DAGs and the bad one's error are there, and writes
``docs/images/import-error.png``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.services import Services
from scripts.screenshots import ROOT, Shot, find_browser, say, take

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAME = "import-error"
GOOD_DAGS = {"train_late", "score_late", "monitor_late"}
DAG_FILE = '''\
"""The Airflow DAGs of every model in models/."""

from pathlib import Path

from airflow_mlops import load_models

load_models(Path(__file__).parent / "models")
'''
MODEL = """\
name: late
description: Will a flight arrive late?
owner: ann
data: {uri: ../../lake/flights, event_time: event_time, id_columns: [flight, tailnum]}
contract: {path: ../flights_contract.yaml}
train:
  function: flights_training:train
  code_path: ..
  serialization: cloudpickle
  target: late
  features: [carrier, dest, distance]
  window: {length: 2 months}
evaluation: {task: binary, metrics: [roc_auc]}
gate: {rules: [{rule: better_than_champion, metric: roc_auc}]}
scoring: {output_uri: ../../lake/late_predictions}
"""


def write_fleet(dags: Path) -> None:
    """Write the DAG file, a good model, and one with a misspelt key."""
    (dags / "models").mkdir(parents=True)
    for name in ("flights_contract.yaml", "flights_training.py"):
        shutil.copy(ROOT / "dags" / name, dags)
    (dags / "fleet_dag.py").write_text(DAG_FILE)
    (dags / "models" / "late.yaml").write_text(MODEL)
    bad = MODEL.replace("name: late", "name: early").replace("serialization", "serialisation")
    (dags / "models" / "early.yaml").write_text(bad)


def wait_for_error(api: AirflowAPI, seconds: float = 120) -> None:
    """Wait until the error and the good model's DAGs are there.

    :raises SystemExit: they are not in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        errors = [one["filename"] for one in api._get("/api/v2/importErrors")["import_errors"]]
        dags = {one["dag_id"] for one in api._get("/api/v2/dags")["dags"]}
        if errors == ["models/early.yaml"] and dags == GOOD_DAGS:
            return
        time.sleep(1)
    raise SystemExit(f"Airflow shows the errors {errors} and the DAGs {sorted(dags)}.")


def _opened(page: Page) -> None:
    """Open the dialog that lists import errors, and the one in it."""
    page.get_by_text("Dag Import Error").first.click()
    page.get_by_text("models/early.yaml").first.click()


def main(argv: list[str] | None = None) -> int:
    """Take the picture; 1 where it could not be taken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="default: docs/images")
    parser.add_argument("--browser", help="a Chromium; default: the one on the path")
    args = parser.parse_args(argv)
    browser = find_browser(args.browser)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="airflow-") as folder:
        home = Path(folder)
        write_fleet(home / "dags")
        # Airflow's own intervals, as on a server.
        env = {
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        }
        with (
            Services(home, home / "dags", env=env, preloads=False, say=say) as services,
            AirflowAPI(services.airflow_url, services.user, services.password, check=services.check) as api,
        ):
            wait_for_error(api)
            shot = Shot(name=NAME, url=services.airflow_url, needs="Did you mean 'serialization'", before=_opened)
            failed = take([shot], browser, (services.airflow_url, services.user, services.password), args.out)
    for name, why in failed.items():
        say(f"NOT TAKEN: {name}: {why}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
