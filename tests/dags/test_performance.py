"""Label sensor and performance operator in whole DAGs: labels come while a run waits, here or off the worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.compat import DAG, task, task_group
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.operators.performance import EvaluatePredictionsOperator
from airflow_mlops.sensors.labels import LabelCoverageSensor
from airflow_mlops.steps.base import Access
from airflow_mlops.triggers.labels import LabelCoverageQuestion
from tests.support.candidates import month
from tests.support.performance import EARLY, Watched, at

ROWS = 40


@pytest.fixture
def watched(mlflow_connection: str, tmp_path: Path) -> Any:
    """A batch of March, and one of April that nobody scored."""
    server = TrackingServer(tracking_uri=mlflow_connection)
    with connected(server) as client:
        yield Watched(Access(server=server), client, tmp_path)


@pytest.mark.parametrize("place", ["poke", "deferred"])
def test_labels_come_while_a_mapped_run_waits(
    place: str, run_dag: Callable[..., Any], watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "deferred":
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    probability = [(n % 10) / 10 for n in range(ROWS)]
    march = watched.publish(
        {
            "id": list(range(ROWS)),
            "event_time": [at(n) for n in range(ROWS)],
            "prediction": [int(one >= 0.5) for one in probability],
            "probability": probability,
        }
    )
    april = march.model_copy(update={"window": month(4), "scoring_run_id": ""})
    late = [int(n % 10 > 6) for n in range(ROWS)]
    looks: list[int] = []
    real = LabelCoverageQuestion.look

    def look(self: Any) -> Any:
        found = real(self)
        looks.append(len(looks))
        # First nothing is there, then too few, then enough.
        more = {0: 10, 1: 39}.get(len(looks) - 1)
        if self.labels.coverage == 1.0 and found.found is None:
            more = ROWS  # the last one comes after the provisional figures
        if more:
            threading.Timer(0.1, watched.deliver, (f"first-{more}", list(range(more)), late[:more])).start()
        return found

    monkeypatch.setattr(LabelCoverageQuestion, "look", look)
    windows = [one.model_dump(mode="json") for one in (march, april)]
    labels = watched.labels()
    with DAG(dag_id=f"performance_{place}", schedule=None, start_date=datetime(2013, 1, 1)) as dag:

        @task
        def plan() -> list[dict[str, Any]]:
            return [{"monitored": one} for one in windows]

        def outcomes(monitored: Any) -> None:
            covered = LabelCoverageSensor(
                task_id="label_coverage",
                monitored=monitored,
                labels=labels,
                as_of=EARLY,
                mode="poke",
                poke_interval=0.3,
                timeout=60,
            )
            realised = EvaluatePredictionsOperator(
                task_id="evaluate_predictions",
                experiment=watched.name,
                monitored=monitored,
                labels=labels,
                as_of=EARLY,
                evaluation={"task": "binary", "metrics": ["roc_auc"], "bootstrap_draws": 100},
            )
            complete = LabelCoverageSensor(
                task_id="labels_complete",
                monitored=monitored,
                labels={**labels, "coverage": 1.0},
                report=realised.output,
                as_of=EARLY,
                mode="poke",
                poke_interval=0.3,
                timeout=60,
            )
            final = EvaluatePredictionsOperator(
                task_id="evaluate_final",
                experiment=watched.name,
                monitored=monitored,
                labels=labels,
                as_of=EARLY,
                evaluation={"task": "binary", "metrics": ["roc_auc"], "bootstrap_draws": 100},
            )
            again = LabelCoverageSensor(
                task_id="nothing_to_wait_for", monitored=monitored, labels=labels, report=final.output, as_of=EARLY
            )
            covered >> realised >> complete >> final >> again

        task_group(group_id="outcomes")(outcomes).expand_kwargs(plan())

    ran = run_dag(dag)

    assert ran.state == "success", ran.tasks
    assert len(looks) >= 3
    (covered,) = ran.mapped("outcomes.label_coverage")
    assert covered == {"coverage": 0.975, "labelled": 39, "rows": 40, "deadline_passed": False}
    (report,) = ran.mapped("outcomes.evaluate_predictions")
    assert (report["schema"], report["state"], report["metrics"]) == ("performance/1", "provisional", {"roc_auc": 1.0})
    assert len(json.dumps(report)) < 16_000
    (final,) = ran.mapped("outcomes.evaluate_final")
    assert (final["state"], final["labelled_count"]) == ("final", ROWS)
    assert ran.mapped("outcomes.nothing_to_wait_for") == []
    assert "performance.html" in ran.mapped("outcomes.evaluate_predictions", "report_link")[0]
