"""The gate on a real MLflow server: the verdict where people look, the same on a retry, and only on honest evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import DataChangedError, InvalidSpecError
from airflow_mlops.steps.base import Access
from tests.integration.test_evaluate import MAY, Raises
from tests.support.candidates import month
from tests.support.evaluation import GATE, Flights, linear, write_flights

OVERALL = GATE["rules"][:2]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate-lake")
    write_flights(folder, 5)
    return folder


@pytest.fixture(scope="module")
def connection(mlflow_server: Any) -> Iterator[Any]:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))
    with connected(access.server) as client:
        yield access, client


@pytest.fixture
def flights(connection: Any, tmp_path: Path) -> Flights:
    access, client = connection
    return Flights(access, client, tmp_path)


@pytest.fixture(scope="module")
def shared(connection: Any, lake: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Flights, Any]:
    """A world whose candidate is better overall and worse for B6, for tests that change nothing but their own task."""
    access, client = connection
    flights = Flights(access, client, tmp_path_factory.mktemp("shared"))
    flights.serve(flights.log(linear(0, 1)), month(3))
    return flights, flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))


def test_first_model(flights: Flights, lake: Path) -> None:
    decision = flights.gate(flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake)))

    assert decision.verdict == "first_model"
    assert decision.lets_through
    assert decision.ledger_entry == 0
    assert sum("there is no champion to compare with" in reason for reason in decision.reasons) == 2


def test_better_overall_and_worse_on_a_slice_is_held_by_name(shared: Any) -> None:
    flights, held = shared
    decision = flights.gate(held)

    assert decision.verdict == "hold"
    assert [result.slice for result in decision.results if result.status == "fail"] == ["carrier B6"]
    assert "roc_auc on carrier B6" in decision.sentence
    assert any("under 500 rows: HA" in result.sentence for result in decision.results)
    assert decision.ledger_entry == 1


def test_without_the_slice_rule_it_is_promoted(shared: Any) -> None:
    flights, held = shared

    assert flights.gate(held, rules=OVERALL).verdict == "promote"


def test_the_other_way_round_it_is_not(flights: Flights, lake: Path) -> None:
    flights.serve(flights.log(linear(1, 1)), month(3))
    swapped = flights.evaluate(flights.log(linear(0, 1)), flights.data(MAY, lake))
    assert flights.gate(swapped, rules=OVERALL).verdict == "hold"


def test_a_broken_champion_needs_attention(flights: Flights, lake: Path) -> None:
    flights.serve(flights.log(Raises()), month(3))

    decision = flights.gate(flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake)))

    assert decision.verdict == "needs_attention"
    assert decision.is_failure
    assert f"airflow-mlops promote {flights.name} VERSION --override --reason 'WHY'" in decision.sentence


def test_the_verdict_is_readable_in_the_run_and_its_parent(shared: Any) -> None:
    flights, held = shared
    decision = flights.gate(held, mode="dry_run")

    own = flights.tags(decision.run_id)
    parent = flights.tags(own["mlflow.parentRunId"])
    for tags in (own, parent):
        assert tags["airflow_mlops.verdict"] == "hold"
        assert tags["airflow_mlops.verdict_sentence"].startswith("Dry run, nothing will be promoted.")
        assert tags["airflow_mlops.gate_mode"] == "dry_run"
    assert "- fail: roc_auc on carrier B6" in own["mlflow.note.content"]
    assert {"decision.html", "decision.json"} <= flights.files(decision.run_id)
    page = flights.client.download_artifacts(decision.run_id, "decision.html", str(flights.folder))
    assert "carrier B6" in Path(page).read_text()


def test_a_retry_adopts_and_another_rule_decides_anew(shared: Any) -> None:
    flights, held = shared
    first = flights.gate(held, key="gate")

    assert flights.gate(held, key="gate").run_id == first.run_id
    assert flights.gate(held, key="gate", on_hold="fail").run_id == first.run_id
    assert flights.gate(held, key="gate", rules=OVERALL).verdict == "promote"
    assert "airflow_mlops.superseded_by" in flights.tags(first.run_id)


def test_edited_evidence_is_refused(flights: Flights, lake: Path, mlflow_server: Any) -> None:
    held = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))
    (file,) = (path for path in mlflow_server.artifacts.rglob("evidence.json") if held.run_id in str(path))
    stored = json.loads(file.read_text())
    stored["measurements"][0]["candidate"] = 0.999
    file.write_text(json.dumps(stored))

    with pytest.raises(DataChangedError, match="somebody edited the artifact"):
        flights.gate(held)


def test_a_wrong_rule_names_its_place(shared: Any) -> None:
    flights, held = shared
    with pytest.raises(InvalidSpecError, match=r"gate\.rules\[0\].*Did you mean 'at_least'"):
        flights.gate(held, rules=[{"rule": "at_leest", "metric": "roc_auc", "value": 0.5}])


def test_a_decision_over_many_slices_fits_into_xcom_and_keeps_the_worst(flights: Flights, tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd

    write_flights(tmp_path / "lake", 5, rows=6000)
    frame = pd.read_parquet(tmp_path / "lake" / "05.parquet")
    rng = np.random.default_rng(0)
    frame["carrier"] = [f"a carrier with quite a long name, number {n}" for n in rng.integers(0, 60, len(frame))]
    frame.to_parquet(tmp_path / "lake" / "05.parquet", index=False)
    flights.serve(flights.log(linear(1, 1)), month(3))
    report = flights.evaluate(
        flights.log(linear(-1, -1)), flights.data(MAY, tmp_path / "lake"), bootstrap_draws=2000, metrics=["roc_auc"]
    )

    rules = [{**GATE["rules"][2], "min_rows": 50}]
    decision = flights.gate(report, rules=rules)

    assert len(json.dumps(decision.to_xcom())) <= 16_000
    assert decision.verdict == "hold"
    assert decision.result_count == 61
    assert 0 < len(decision.results) < decision.result_count
    assert all(result.status == "fail" for result in decision.results)
