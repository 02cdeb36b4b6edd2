"""Evaluation on a real MLflow server: one pass per model, the same frozen rows, and a champion that may be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError
from google.api_core.exceptions import ServiceUnavailable
from mlflow.exceptions import MlflowException
from sklearn.metrics import roc_auc_score
from urllib3.exceptions import ProtocolError

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.records import EvaluationReport, Window
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import (
    DataReadError,
    InvalidSpecError,
    LeakageError,
    LedgerError,
    ModelRefusedError,
    TrackingUnavailableError,
)
from airflow_mlops.steps import comparison
from airflow_mlops.steps import evaluate as evaluate_module
from airflow_mlops.steps import gate as gate_module
from airflow_mlops.steps.base import Access
from tests.support.candidates import month
from tests.support.evaluation import Flights, linear, write_flights

MAY = month(5)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
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


def evidence_of(flights: Flights, report: EvaluationReport) -> Evidence:
    run_id, _, name = report.evidence_uri.removeprefix("runs:/").partition("/")
    path = flights.client.download_artifacts(run_id, name, str(flights.folder))
    return Evidence.from_xcom(json.loads(Path(path).read_text()))


class Counting:
    """A model that counts how often it is asked."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls, self.rows = model, 0, []

    classes_ = property(lambda self: self.model.classes_)

    def predict_proba(self, rows: Any) -> Any:
        self.calls += 1
        self.rows.append(rows)
        return self.model.predict_proba(rows)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    models: list[Counting] = []
    load = comparison.load_predictor

    def load_and_count(*args: Any) -> Any:
        models.append(Counting(load(*args)))
        return models[-1]

    monkeypatch.setattr(comparison, "load_predictor", load_and_count)
    return models


def test_without_a_champion_the_candidate_is_measured_alone(flights: Flights, lake: Path) -> None:
    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))

    evidence = evidence_of(flights, report)
    assert (report.champion, report.champion_problem, report.champion_metrics) == (None, None, {})
    assert report.row_count == 4000
    assert report.metrics["roc_auc"] > 0.6
    assert report.slice_count == 4
    assert evidence.draws == 0
    assert all(one.difference is None for one in evidence.measurements)


def test_both_models_see_the_same_rows_once(flights: Flights, lake: Path, counted: list[Counting]) -> None:
    flights.serve(flights.log(linear(0, 1)), month(3))

    report = flights.evaluate(
        flights.log(linear(1, 1)), flights.data(MAY, lake), metrics=["roc_auc", "log_loss", "brier", "f1", "accuracy"]
    )

    assert [model.calls for model in counted] == [1, 1]
    assert counted[0].rows[0].equals(counted[1].rows[0])
    assert len(evidence_of(flights, report).measurements) == 5 * 5


def test_the_figures_are_scikit_learns_on_the_files_rows(flights: Flights, lake: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(lake / "05.parquet")
    flights.serve(flights.log(linear(0, 1)), month(3))

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))

    ours = roc_auc_score(frame.late, linear(1, 1).predict_proba(frame[["distance", "hour"]])[:, 1])
    theirs = roc_auc_score(frame.late, linear(0, 1).predict_proba(frame[["distance", "hour"]])[:, 1])
    assert report.metrics["roc_auc"] == pytest.approx(ours)
    assert report.champion_metrics["roc_auc"] == pytest.approx(theirs)
    b6 = frame[frame.carrier == "B6"]
    measured = {one.value: one for one in evidence_of(flights, report).slices("roc_auc", "carrier")}
    assert measured["B6"].rows == len(b6)
    assert measured["B6"].candidate == pytest.approx(
        roc_auc_score(b6.late, linear(1, 1).predict_proba(b6[["distance", "hour"]])[:, 1])
    )
    assert measured["B6"].high < 0 < measured["AA"].low


def test_figures_page_and_evidence_are_in_the_steps_run(flights: Flights, lake: Path) -> None:
    flights.serve(flights.log(linear(0, 1)), month(3))

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))

    run = flights.client.get_run(report.run_id)
    assert run.data.metrics["roc_auc"] == pytest.approx(report.metrics["roc_auc"])
    assert run.data.metrics["champion.roc_auc"] == pytest.approx(report.champion_metrics["roc_auc"])
    assert run.data.metrics["difference.log_loss"] > 0
    assert run.data.tags["airflow_mlops.window_start"] == "2013-05-01T00:00:00+00:00"
    assert {"evidence.json", "evaluation.html", "record.json"} <= flights.files(report.run_id)
    assert len(json.dumps(report.to_xcom())) < 16_000


def test_the_same_inputs_give_the_same_evidence(flights: Flights, lake: Path) -> None:
    flights.serve(flights.log(linear(0, 1)), month(3))
    model, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)

    first, second = flights.evaluate(model, dataset), flights.evaluate(model, dataset, force=True)

    assert first.run_id != second.run_id
    assert flights.evaluate(model, dataset).run_id == second.run_id
    assert first.evidence_digest == second.evidence_digest
    assert flights.evaluate(model, dataset, seed=1).evidence_digest != first.evidence_digest


def test_a_retry_adopts_and_a_new_champion_evaluates_anew(flights: Flights, lake: Path) -> None:
    flights.serve(flights.log(linear(0, 1)), month(3))
    model, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    first = flights.evaluate(model, dataset, key="evaluate")

    assert flights.evaluate(model, dataset, key="evaluate").run_id == first.run_id
    flights.serve(flights.log(linear(0.2, 1)), month(4), entry=1)
    anew = flights.evaluate(model, dataset, key="evaluate")
    assert anew.run_id != first.run_id
    assert (first.ledger_entry, anew.ledger_entry) == (1, 2)
    assert anew.champion.version == 2


def test_the_champion_is_measured_even_when_it_is_the_candidate(
    flights: Flights, lake: Path, counted: list[Counting]
) -> None:
    model = flights.log(linear(1, 1))
    flights.serve(model, month(3))

    report = flights.evaluate(model, flights.data(MAY, lake))

    assert [one.calls for one in counted] == [1, 1]
    assert report.metrics == report.champion_metrics
    overall = evidence_of(flights, report).overall("roc_auc")
    assert (overall.difference, overall.low, overall.high) == (0, 0, 0)


# --- windows --------------------------------------------------------------------------------------------------------


def test_a_candidate_trained_on_the_evaluation_rows_is_refused(flights: Flights, lake: Path) -> None:
    with pytest.raises(LeakageError, match="overlap"):
        flights.evaluate(flights.log(linear(1, 1), trained_on=month(4, 2)), flights.data(MAY, lake))


@pytest.mark.parametrize("lacks", ["event_time", "window"])
def test_rows_that_cannot_be_told_apart_are_refused(flights: Flights, lake: Path, lacks: str) -> None:
    rows = flights.data(MAY, lake).model_copy(update={lacks: None})

    with pytest.raises(LeakageError, match="cannot be told from others"):
        flights.evaluate(flights.log(linear(1, 1)), rows)


FIRST_HALF = Window(start="2013-04-01", end="2013-05-16")


def test_rows_of_the_champions_training_are_cut_away_for_both(
    flights: Flights, lake: Path, counted: list[Counting]
) -> None:
    flights.serve(flights.log(linear(0, 1), trained_on=FIRST_HALF), month(3))

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))

    assert report.champion_problem is None
    assert 1500 < report.row_count < 2500
    assert [len(one.rows[0]) for one in counted] == [report.row_count] * 2
    assert report.window == MAY
    evidence = evidence_of(flights, report)
    assert evidence.window == Window(start="2013-05-16", end="2013-06-01")
    assert "measured on [2013-05-16, 2013-06-01) alone" in report.notes["overlap"]


def test_a_champion_of_a_newer_window_is_not_asked_even_where_it_saw_every_row(
    flights: Flights, lake: Path, counted: list[Counting]
) -> None:
    flights.serve(flights.log(linear(0, 1), trained_on=month(4, 3)), month(7))

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake), on_overlap="needs_attention")

    assert (report.champion_problem, report.champion_metrics) == (None, {})
    assert (report.champion.version, report.row_count) == (1, 4000)
    assert "Not compared with champion version 1" in report.notes["champion"]
    assert "an older window never takes its alias" in evidence_of(flights, report).not_compared
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("trained_on", "on_overlap", "said"),
    [
        pytest.param(FIRST_HALF, "needs_attention", "evaluation.on_overlap is needs_attention", id="as specified"),
        pytest.param(month(4, 3), "cut", "nothing fair is left to compare on", id="nothing left"),
    ],
)
def test_an_overlap_that_cannot_be_cut_is_a_problem(
    flights: Flights, lake: Path, trained_on: Window, on_overlap: str, said: str
) -> None:
    flights.serve(flights.log(linear(0, 1), trained_on=trained_on), month(3))

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake), on_overlap=on_overlap)

    assert said in report.champion_problem
    assert report.row_count == 4000
    assert report.champion_metrics == {}


# --- broken models --------------------------------------------------------------------------------------------------


class Raises:
    """A champion that loads and then fails."""

    def predict(self, rows: Any) -> Any:
        raise RuntimeError("the vocabulary is gone")


class Nans:
    def predict(self, rows: Any) -> Any:
        return np.where(np.arange(len(rows)) < 2, np.nan, 0.5)


class Words:
    def predict(self, rows: Any) -> Any:
        return np.where(np.arange(len(rows)) < 2, "late", "on time")


class Enforces:
    """Fails as MLflow's own wrapper does where a column has another type: with the error code of an outage."""

    def predict(self, rows: Any) -> Any:
        raise MlflowException("Failed to enforce schema of data")


@pytest.mark.parametrize(
    ("model", "features", "said"),
    [
        pytest.param(Words(), ("distance", "hour"), "not the target's labels (0, 1)", id="other labels"),
        pytest.param(Enforces(), ("distance", "hour"), "Failed to enforce schema", id="MLflow's own error"),
        pytest.param(Raises(), ("distance", "hour"), "RuntimeError: the vocabulary is gone", id="it raises"),
        pytest.param(Nans(), ("distance", "hour"), "NaN or infinity on 2 of 4,000 rows", id="it predicts NaN"),
        pytest.param(linear(1, 1), ("distance", "altitude"), "needs 'altitude'", id="a column is gone"),
    ],
)
def test_a_champion_that_does_not_predict_is_a_problem_and_no_crash(
    flights: Flights, lake: Path, model: Any, features: tuple[str, ...], said: str
) -> None:
    flights.serve(flights.log(model, features=features), month(3))

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))

    assert report.champion_problem.startswith("Champion version 1 ")
    assert said in report.champion_problem
    assert report.champion.version == 1
    assert report.metrics["roc_auc"] > 0.6
    assert report.champion_metrics == {}


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_champion_whose_files_are_gone_or_changed_is_a_problem(
    flights: Flights, lake: Path, mlflow_server: Any, damage: str
) -> None:
    champion = flights.log(linear(0, 1))
    flights.serve(champion, month(3))
    (folder,) = (path.parent for path in mlflow_server.artifacts.rglob("MLmodel") if champion.model_id in str(path))
    if damage == "deleted":
        shutil.rmtree(folder)
    else:
        (folder / "model.pkl").write_bytes(b"not what was logged")

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))

    assert "Champion version 1 cannot be loaded" in report.champion_problem
    assert report.metrics["roc_auc"] > 0.6


def test_an_outage_is_not_held_against_the_champion(
    flights: Flights, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flights.serve(flights.log(linear(0, 1)), month(3))
    candidate, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    fetch = comparison.fetch_model

    def fetch_once(client: Any, server: Any, uri: str, digest: str, folder: Path) -> Path:
        if folder.name == "champion":
            raise TrackingUnavailableError("the server did not answer")
        return fetch(client, server, uri, digest, folder)

    monkeypatch.setattr(comparison, "fetch_model", fetch_once)

    with pytest.raises(TrackingUnavailableError):
        flights.evaluate(candidate, dataset)


@pytest.mark.parametrize(
    "exc",
    [
        pytest.param(OSError("the mount does not answer"), id="an OSError of unknown kind"),
        pytest.param(EndpointConnectionError(endpoint_url="http://s3"), id="botocore"),
        pytest.param(ServiceUnavailable("later"), id="google"),
        pytest.param(ProtocolError("broken off"), id="urllib3"),
    ],
)
def test_nor_is_one_of_the_artifact_store(
    flights: Flights, lake: Path, monkeypatch: pytest.MonkeyPatch, exc: Exception
) -> None:
    flights.serve(flights.log(linear(0, 1)), month(3))
    candidate, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    fetch = comparison.fetch_model

    def fetch_once(*args: Any) -> Path:
        if args[-1].name == "champion":
            raise exc
        return fetch(*args)

    monkeypatch.setattr(comparison, "fetch_model", fetch_once)

    with pytest.raises(type(exc)):
        flights.evaluate(candidate, dataset)


def test_clearing_the_task_measures_a_mended_champion(flights: Flights, lake: Path, mlflow_server: Any) -> None:
    champion = flights.log(linear(0, 1))
    flights.serve(champion, month(3))
    (folder,) = (path.parent for path in mlflow_server.artifacts.rglob("MLmodel") if champion.model_id in str(path))
    candidate, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    folder.rename(folder.with_name("away"))
    broken = flights.evaluate(candidate, dataset, key="evaluate")
    folder.with_name("away").rename(folder)

    mended = flights.evaluate(candidate, dataset, key="evaluate")

    assert "cannot be loaded" in broken.champion_problem
    assert mended.champion_problem is None
    assert mended.champion_metrics["roc_auc"] > 0.6


@pytest.mark.parametrize("damage", ["edited", "deleted"])
def test_clearing_the_task_writes_damaged_evidence_anew(
    flights: Flights, lake: Path, mlflow_server: Any, damage: str
) -> None:
    candidate, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    first = flights.evaluate(candidate, dataset, key="evaluate")
    (file,) = (path for path in mlflow_server.artifacts.rglob("evidence.json") if first.run_id in str(path))
    stored = json.loads(file.read_text())
    file.unlink()
    if damage == "edited":
        file.write_text(json.dumps({**stored, "rows": 1}))

    again = flights.evaluate(candidate, dataset, key="evaluate")

    assert again.evidence_digest == first.evidence_digest
    assert json.loads(file.read_text()) == stored
    assert flights.gate(again).verdict == "first_model"


def test_other_libraries_evaluate_and_decide_anew(
    flights: Flights, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    report = flights.evaluate(candidate, dataset, key="evaluate")
    decision = flights.gate(report, key="gate")
    for module in (evaluate_module, gate_module):
        monkeypatch.setattr(module, "versions_of", lambda *names: dict.fromkeys(names, "99.0"))

    assert flights.evaluate(candidate, dataset, key="evaluate").run_id != report.run_id
    assert flights.gate(report, key="gate").run_id != decision.run_id


def test_a_candidate_that_does_not_predict_is_refused(flights: Flights, lake: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"does not predict.*the vocabulary is gone"):
        flights.evaluate(flights.log(Raises()), flights.data(MAY, lake))


def test_a_candidate_that_predicts_nan_has_no_figures(flights: Flights, lake: Path) -> None:
    report = flights.evaluate(flights.log(Nans()), flights.data(MAY, lake))

    assert report.metrics == {"roc_auc": None, "log_loss": None}
    assert "predicted NaN or infinity on 2 of 4,000 rows" in report.notes["roc_auc"]


def test_a_hand_moved_alias_is_for_a_person(flights: Flights, lake: Path) -> None:
    model = flights.log(linear(0, 1))
    flights.serve(model, month(3))
    flights.serve(flights.log(linear(0.1, 1)), month(4), entry=1)
    flights.client.set_registered_model_alias(flights.name, "champion", "1")

    with pytest.raises(LedgerError):
        flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake))


# --- what a person may get wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        pytest.param({"metrics": ["roc_acu"]}, InvalidSpecError, "Did you mean 'roc_auc'", id="a metric's name"),
        pytest.param({"slices": ["carier"]}, InvalidSpecError, "'carier', which the data does not have", id="a slice"),
        pytest.param({"slices": ["distance"]}, InvalidSpecError, "max_slices", id="a slice of numbers"),
        pytest.param({"metrics": ["m:f"]}, InvalidSpecError, "give code_path", id="own metric without a code path"),
    ],
)
def test_mistakes_in_the_specification(
    flights: Flights, lake: Path, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, lake), **change)


def test_a_missing_column_names_it(flights: Flights, lake: Path) -> None:
    model = flights.log(linear(1, 1), features=("distance", "altitude"))

    with pytest.raises(DataReadError, match="no column 'altitude'"):
        flights.evaluate(model, flights.data(MAY, lake))


def test_features_come_from_the_signature_where_the_record_has_no_room(flights: Flights, lake: Path) -> None:
    model = flights.log(linear(1, 1)).model_copy(update={"features": ()})

    assert flights.evaluate(model, flights.data(MAY, lake)).metrics["roc_auc"] > 0.6


def test_a_metric_of_the_teams_own_and_a_change_to_it(flights: Flights, lake: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "costs.py").write_text("def missed(y_true, y_pred):\n    return float((y_true * (y_pred < 0.5)).mean())\n")
    flights.serve(flights.log(linear(0, 1)), month(3))
    model, dataset = flights.log(linear(1, 1)), flights.data(MAY, lake)
    settings: dict[str, Any] = {
        "metrics": ["costs:missed"], "lower_is_better": ["costs:missed"], "slices": [], "bootstrap_draws": 100,
        "code_path": str(code),
    }  # fmt: skip

    first = flights.evaluate(model, dataset, key="evaluate", **settings)
    again = flights.evaluate(model, dataset, key="evaluate", **settings)
    (code / "costs.py").write_text("def missed(y_true, y_pred):\n    return 0.0\n")
    changed = flights.evaluate(model, dataset, key="evaluate", **settings)

    overall = evidence_of(flights, first).overall("costs:missed")
    assert overall.difference == pytest.approx(overall.champion - overall.candidate)
    assert first.run_id == again.run_id != changed.run_id
    assert changed.metrics == {"costs:missed": 0.0}
    assert flights.client.get_run(first.run_id).data.metrics["costs.missed"] == pytest.approx(overall.candidate)


def test_rows_without_a_label_are_left_out_and_counted(flights: Flights, tmp_path: Path) -> None:
    import pandas as pd

    write_flights(tmp_path / "lake", 5, rows=500)
    frame = pd.read_parquet(tmp_path / "lake" / "05.parquet")
    frame["late"] = frame["late"].astype(float).mask(frame.index < 20)
    frame.to_parquet(tmp_path / "lake" / "05.parquet", index=False)

    report = flights.evaluate(flights.log(linear(1, 1)), flights.data(MAY, tmp_path / "lake"))

    assert report.row_count == 480
    assert report.notes["target"] == "20 of 500 rows have no late and were left out."
