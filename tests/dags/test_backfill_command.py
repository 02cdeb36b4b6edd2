"""Airflow 2's own backfill, which is a command that runs the tasks itself: the newest month first."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from airflow_mlops import Window
from airflow_mlops.compat import AIRFLOW_3
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.engines.versions import TRAIN_WINDOW, WINDOW, read_span
from tests.support.airflow_versions import events_of
from tests.support.small_model import write_small_model

SCHEDULE = 'schedule: {cron: "0 0 1 * *", start_date: "2024-01-01", retries: 0}\n'
DAG_FILE = """
from pathlib import Path

from airflow_mlops import load_spec, training_dag

training_dag(load_spec(Path(__file__).parent / "again.yaml"))  # an Airflow dag
"""
JANUARY, FEBRUARY, MARCH = (
    Window(start=datetime(2024, month, 1), end=datetime(2024, month + 1, 1)) for month in (1, 2, 3)
)


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3's scheduler runs backfills: tests/e2e/test_backfill.py")
def test_months_newest_first_give_a_version_each_and_the_newest_serves(
    tmp_path: Path, airflow_database: None, mlflow_connection: str
) -> None:
    write_small_model(tmp_path, "again", SCHEDULE)
    (tmp_path / "again_dag.py").write_text(DAG_FILE)
    words = ["--start-date", "2024-02-01", "--end-date", "2024-03-01", "--run-backwards", "--subdir", str(tmp_path)]

    # Its executor starts `airflow` by that name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "backfill", "train_again", *words],
        env={**os.environ, "PATH": path, "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path)},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip

    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    with connected(TrackingServer(tracking_uri=mlflow_connection)) as client:
        found = sorted(client.search_model_versions("name = 'again'"), key=lambda one: int(one.version))
        ledger = read_ledger(client, "again", "champion")
        champion = client.get_model_version_by_alias("again", "champion")
    assert [(read_span(one.tags[WINDOW]), read_span(one.tags[TRAIN_WINDOW])) for one in found] == [
        (MARCH, FEBRUARY),
        (FEBRUARY, JANUARY),
    ]
    assert [line.body.to_version for line in ledger.counted] == [int(champion.version)] == [1]
    assert events_of("train_again") == [], "a backfill publishes no event unless it is told to"
