"""The serving check on a real MLflow server: its report where people look, and what the gate makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.records import ServingReport, TrainedModel
from airflow_mlops.engines.models import save_model
from airflow_mlops.engines.signatures import input_schema
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError
from airflow_mlops.links.addresses import addresses_of
from airflow_mlops.steps import serving as serving_step
from airflow_mlops.steps.base import Access
from tests.support.candidates import log_tiny_model, month
from tests.support.evaluation import Flights, linear, write_flights

SPEC = {"repeats": 2}
FLOOR = {"rule": "at_least", "metric": "roc_auc", "value": 0.6}


def log(flights: Flights, model: Any, *, flavor: str, serialization: str, classifier: bool) -> TrainedModel:
    """Save a model as the train step does, input example included, and log it."""
    import pandas as pd

    flights.count += 1
    rows = pd.DataFrame({"distance": [1.0, 2.0, 3.0], "hour": [1.0, 5.0, 2.0]})
    saved = save_model(
        model,
        flights.folder / f"{flights.name}-served-{flights.count}",
        flavor=flavor,
        serialization=serialization,
        inputs=input_schema(rows),
        sample=rows,
        example=rows,
        classifier=classifier,
        requirements=["numpy", "pandas"],
    )
    found = flights.client.get_experiment_by_name(flights.name)
    experiment = found.experiment_id if found else flights.client.create_experiment(flights.name)
    record = log_tiny_model(flights.client, experiment, saved.folder, saved.digest)
    return record.model_copy(update={"flavor": flavor, "serialization": serialization, "size_bytes": saved.size_bytes})


@pytest.fixture(scope="module")
def flights(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flights]:
    access = Access(server=TrackingServer(tracking_uri=mlflow_server.uri))
    with connected(access.server) as client:
        yield Flights(access, client, tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def candidate(flights: Flights) -> TrainedModel:
    return log(flights, linear(1, 1), flavor="sklearn", serialization="cloudpickle", classifier=True)


@pytest.fixture(scope="module")
def served(flights: Flights, candidate: TrainedModel) -> ServingReport:
    report: ServingReport = flights.step("serving", {"model": candidate.to_xcom(), "serving": SPEC}, "serving")
    return report


@pytest.fixture(scope="module")
def evaluated(flights: Flights, candidate: TrainedModel) -> Any:
    write_flights(flights.folder / "lake", 5, rows=1000)
    return flights.evaluate(candidate, flights.data(month(5), flights.folder / "lake"), metrics=["roc_auc"], slices=[])


def gate(flights: Flights, evaluated: Any, served: ServingReport | None, *rules: dict[str, Any]) -> Any:
    payload: dict[str, Any] = {"report": evaluated.to_xcom(), "gate": {"rules": [FLOOR, *rules]}}
    return flights.step("gate", payload | ({"serving": served.to_xcom()} if served else {}))


def test_the_report_is_where_people_look(flights: Flights, candidate: TrainedModel, served: ServingReport) -> None:
    assert served.ok, served.problem
    assert (served.model_uri, served.digest, served.rows, served.repeats) == (
        candidate.model_uri, candidate.digest, 3, 2,
    )  # fmt: skip
    # MLflow writes one small file of its own beside what it hands out.
    assert candidate.size_bytes <= served.size_bytes < candidate.size_bytes + 1000
    assert {"serving.html", "serving.json"} <= flights.files(served.run_id)
    assert served.report_uri == f"runs:/{served.run_id}/serving.html"
    assert "serving.html" in addresses_of(served, flights.access.server)["report"]
    run = flights.client.get_run(served.run_id)
    assert run.data.metrics["row_milliseconds"] == served.row_milliseconds
    assert run.data.tags["mlflow.note.content"] == served.sentence
    page = Path(flights.client.download_artifacts(served.run_id, "serving.html", str(flights.folder))).read_text()
    assert candidate.digest in page


def test_a_retry_adopts_and_other_limits_or_libraries_ask_again(
    flights: Flights, candidate: TrainedModel, served: ServingReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.engines.serving import Served

    asked: list[Any] = []

    def check(*arguments: Any) -> Served:
        asked.append(arguments)
        return Served((), python_version="3.11.9", rows=3, repeats=1, load_seconds=1.0, call_seconds=0.5)

    monkeypatch.setattr(serving_step, "check_serving", check)

    def again(**spec: Any) -> ServingReport:
        payload = {"model": candidate.to_xcom(), "serving": {**SPEC, **spec}}
        report: ServingReport = flights.step("serving", payload, "serving")
        return report

    assert again().run_id == served.run_id
    assert not asked
    assert again(memory_mb=999).run_id != served.run_id
    monkeypatch.setattr(serving_step, "installed", lambda: {"scikit-learn": "99"})
    assert again().row_milliseconds == pytest.approx(500 / 3)
    assert len(asked) == 2


def test_a_finding_is_not_adopted_because_it_may_be_the_machines(
    flights: Flights, candidate: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.core.records import VersionDifference
    from airflow_mlops.engines.serving import Served

    many = tuple(VersionDifference(name=f"library-{n}-{'x' * 90}", recorded="1.0", installed=None) for n in range(300))
    stopped = Served(many, what="it was stopped.", why="Mend it. " + "y" * 30_000, output="z\n" * 9_000)
    fine = Served((), python_version="3.11.9", rows=3, repeats=1, load_seconds=1.0, call_seconds=0.5)
    found = iter([stopped, fine])
    monkeypatch.setattr(serving_step, "check_serving", lambda *arguments: next(found))
    payload = {"model": candidate.to_xcom(), "serving": SPEC}

    first = flights.step("serving", payload, "slow")
    second = flights.step("serving", payload, "slow")

    assert (first.ok, first.is_failure, first.difference_count, len(first.differences)) == (False, True, 300, 50)
    assert len(json.dumps(first.to_xcom())) <= 16_000
    assert second.ok


def test_a_model_of_another_flavour_that_needs_a_missing_module_is_a_finding(
    flights: Flights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "team_of_the_serving_test.py").write_text(
        "import mlflow.pyfunc\n\n\n"
        "class Team(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return [1.0] * len(model_input)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    # By reference, as cloudpickle stores what it takes for an installed library.
    from importlib import import_module

    model = import_module("team_of_the_serving_test").Team()
    try:
        record = log(flights, model, flavor="pyfunc", serialization="native", classifier=False)
    finally:
        sys.modules.pop("team_of_the_serving_test")

    report = flights.step("serving", {"model": record.to_xcom(), "serving": SPEC})

    assert not report.ok
    assert "no module 'team_of_the_serving_test'" in report.problem
    assert "Traceback" not in report.problem
    stored = flights.client.download_artifacts(report.run_id, "serving.json", str(flights.folder))
    assert "Traceback" in json.loads(Path(stored).read_text())["traceback"]


def test_changed_files_are_refused_before_anything_is_loaded(
    flights: Flights, candidate: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_step, "check_serving", lambda *arguments: pytest.fail("it was loaded"))
    other = candidate.model_copy(update={"digest": "0" * 64})

    with pytest.raises(ModelRefusedError, match="Somebody changed its files"):
        flights.step("serving", {"model": other.to_xcom(), "serving": SPEC})


def test_a_check_that_is_switched_off_is_no_task(flights: Flights, candidate: TrainedModel) -> None:
    with pytest.raises(InvalidSpecError, match=r"serving: .*check is false"):
        flights.step("serving", {"model": candidate.to_xcom(), "serving": {"check": False}})


def test_the_gate_reads_latency_and_size(flights: Flights, evaluated: Any, served: ServingReport) -> None:
    # Numbers of our own choice: how fast this machine is must not matter.
    report = served.model_copy(update={"row_milliseconds": 2.0, "call_milliseconds": 6.0, "size_bytes": 5_000_000})
    latency = {"rule": "latency_at_most", "milliseconds": 2.0}

    passed = gate(flights, evaluated, report, latency, {"rule": "model_size_at_most", "megabytes": 5})
    held = gate(
        flights, evaluated, report, {**latency, "per": "call"}, {"rule": "model_size_at_most", "megabytes": 4.9}
    )
    nobody = gate(flights, evaluated, None, latency)

    assert passed.verdict == "first_model"
    assert passed.serving_run_id == served.run_id
    assert held.verdict == "hold"
    assert {result.rule for result in held.results if result.status == "fail"} == {
        "latency_at_most", "model_size_at_most",
    }  # fmt: skip
    assert (nobody.verdict, nobody.serving_run_id) == ("hold", "")
    assert "pass the serving check's report as `serving`" in nobody.sentence


def test_the_gate_holds_what_cannot_be_served_and_says_so_on_its_page(
    flights: Flights, evaluated: Any, served: ServingReport
) -> None:
    broken = served.model_copy(update={"ok": False, "sentence": "This model cannot be served.", "problem": "It fell."})

    held = gate(flights, evaluated, broken)
    passed = gate(flights, evaluated, served)

    assert held.verdict == "hold"
    assert "This model cannot be served. It fell." in held.sentence
    assert passed.verdict == "first_model"
    page = flights.client.download_artifacts(passed.run_id, "decision.html", str(flights.folder))
    assert "A fresh interpreter" in Path(page).read_text()


def test_a_check_of_another_model_is_refused(flights: Flights, evaluated: Any, served: ServingReport) -> None:
    other = served.model_copy(update={"digest": "f" * 64, "model_uri": "models:/m-other"})

    with pytest.raises(InvalidSpecError, match="models:/m-other") as caught:
        gate(flights, evaluated, other)
    assert evaluated.model.model_uri in str(caught.value)
