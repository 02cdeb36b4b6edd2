"""Training against a real MLflow server: what is logged, how many requests it takes, and what a kill leaves behind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.records import TrainedModel
from airflow_mlops.engines import runs
from airflow_mlops.engines.models import DIGEST_TAG, artifact_location, fetch_model, load_predictor
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import DataReadError, InvalidSpecError, ModelRefusedError, OutageError, VerdictError
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.support.mlflow_server import MLflowServer

SKLEARN = """
from features import columns
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from airflow_mlops.core.training import TrainingResult

def train(data, target, *, weights, parameters, seed):
    model = make_pipeline(columns(), HistGradientBoostingClassifier(max_iter=5, random_state=seed))
    model.fit(data, target)
    return TrainingResult(model, metrics={f"loss_{n}": n / 7 for n in range(parameters.get("metrics", 0))})
"""
FEATURES = """
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OrdinalEncoder

def columns():
    return make_column_transformer((OrdinalEncoder(), ["carrier"]), remainder="passthrough")
"""
ROWS = 500


def lake(folder: Path, **changes: Any) -> str:
    """Write one Parquet file of made-up flights and return its path."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "flight_id": [f"F{n:06d}" for n in range(ROWS)],
            "pilot": [f"Pilot {n}" for n in range(ROWS)],
            "departed": pd.date_range("2013-01-01", periods=ROWS, freq="1h", tz="UTC"),
            "distance": rng.integers(100, 3000, ROWS),
            "temp": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(10, 5, ROWS)),
            "carrier": rng.choice(["AA", "B6", "UA"], ROWS),
            "weight": rng.random(ROWS) + 0.5,
        }
    )
    frame["late"] = ((frame["distance"] > 1500) ^ (frame["carrier"] == "B6")).astype("int64")
    for name, values in changes.items():
        frame[name] = values
    path = folder / "flights.parquet"
    frame.to_parquet(path)
    return str(path)


class Team:
    """One team's folder, data and requests."""

    def __init__(self, server: MLflowServer, folder: Path) -> None:
        self.server = TrackingServer(tracking_uri=server.uri)
        self.access = Access(server=self.server)
        self.folder = folder
        self.name = f"model_{uuid.uuid4().hex[:8]}"
        self.key = f"dag/{self.name}/train/-1"
        self.data = {
            "uri": lake(folder),
            "event_time": "departed",
            "id_columns": ["flight_id"],
            "personal_columns": ["pilot"],
        }
        self.task = "binary"
        self.train: dict[str, Any] = {
            "function": "train:train",
            "serialization": "cloudpickle",
            "target": "late",
            "weights": "weight",
            "seed": 7,
            "window": {"length": "2 months"},
        }
        self.write(train=SKLEARN, features=FEATURES)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)

    @property
    def run(self) -> RunInfo:
        return RunInfo(key=f"dag/{self.name}", name=self.name, experiment=self.name)

    def snapshot(self) -> dict[str, Any]:
        request = StepRequest(
            step="snapshot", key=f"dag/{self.name}/snapshot/-1", run=self.run, payload={"data": self.data}
        )
        return perform(request, self.access).to_xcom()

    def request(self, dataset: dict[str, Any] | None = None, **train: Any) -> StepRequest:
        payload = {
            "dataset": dataset or self.snapshot(),
            "train": {**self.train, **train},
            "code_path": str(self.folder),
            "data": self.data,
            "model_name": self.name,
            "task": self.task,
        }
        return StepRequest(step="train", key=self.key, run=self.run, payload=payload)

    def trained(self, dataset: dict[str, Any] | None = None, **train: Any) -> TrainedModel:
        record = perform(self.request(dataset, **train), self.access)
        assert isinstance(record, TrainedModel)
        return record

    def models(self, client: MlflowClient) -> list[Any]:
        experiment = client.get_experiment_by_name(self.name)
        assert experiment is not None
        return list(client.search_logged_models([experiment.experiment_id]))


@pytest.fixture
def team(mlflow_server: MLflowServer, tmp_path: Path) -> Team:
    return Team(mlflow_server, tmp_path)


@pytest.fixture
def client(team: Team) -> Iterator[MlflowClient]:
    with connected(team.server) as client:
        yield client


@pytest.fixture
def requests_sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method and path of every HTTP request this process sends."""
    from requests.adapters import HTTPAdapter

    sent: list[str] = []
    real = HTTPAdapter.send

    def send(self: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(f"{request.method} {request.path_url}")
        return real(self, request, *args, **kwargs)

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return sent


def artifact(client: MlflowClient, record: TrainedModel, name: str, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return json.loads(Path(client.download_artifacts(record.run_id, name, str(folder))).read_text())


class TestWhatIsLogged:
    def test_the_record(self, team: Team, client: MlflowClient) -> None:
        record = team.trained()

        assert record.model_uri == f"models:/{record.model_id}"
        assert record.features == ("distance", "temp", "carrier")
        assert (record.row_count, record.target, record.flavor, record.serialization, record.seed) == (
            ROWS,
            "late",
            "sklearn",
            "cloudpickle",
            7,
        )
        model = client.get_logged_model(record.model_id)
        assert str(model.status) == "READY"
        assert model.source_run_id == record.run_id
        assert model.tags[DIGEST_TAG] == record.digest
        assert model.tags[runs.KEY] == team.key
        assert model.tags[runs.INPUT_DIGEST] == record.input_digest

    def test_the_model(self, team: Team, client: MlflowClient, tmp_path: Path) -> None:
        record = team.trained()
        path = fetch_model(client, team.server, record.model_uri, record.digest, tmp_path / "fetched")
        frame = pd.read_parquet(team.data["uri"])
        model = load_predictor(path)

        assert model.predict_proba(frame[list(record.features)]).shape == (ROWS, 2)
        assert "scikit-learn==" in (path / "requirements.txt").read_text()
        import yaml

        described = yaml.safe_load((path / "MLmodel").read_text())
        columns = {column["name"]: column["type"] for column in json.loads(described["signature"]["inputs"])}
        assert columns == {"distance": "long", "temp": "double", "carrier": "string"}
        assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) == record.size_bytes

    def test_it_is_fetched_by_version_too(self, team: Team, client: MlflowClient, tmp_path: Path) -> None:
        record = team.trained()
        client.create_registered_model(team.name)
        client.create_model_version(
            team.name, record.model_uri, record.run_id, await_creation_for=None, model_id=record.model_id
        )
        uri = f"models:/{team.name}/1"

        assert load_predictor(fetch_model(client, team.server, uri, record.digest, tmp_path / "f")) is not None
        with pytest.raises(ModelRefusedError, match="its digest is"):
            fetch_model(client, team.server, uri, "0" * 64, tmp_path / "g")

    def test_nothing_stored_shows_a_row(self, team: Team, client: MlflowClient, tmp_path: Path) -> None:
        record = team.trained()
        path = fetch_model(client, team.server, record.model_uri, record.digest, tmp_path / "fetched")
        texts = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}

        assert {"input_example.json", "reference_profile.json", "MLmodel", "model.pkl"} <= set(texts)
        assert not [name for name, text in texts.items() if b"Pilot" in text or b"F0000" in text]

    def test_profile_environment_and_facts(self, team: Team, client: MlflowClient, tmp_path: Path) -> None:
        record = team.trained(parameters={"metrics": 2, "tree": {"depth": 3}})
        run = client.get_run(record.run_id)

        assert record.profile_uri == f"runs:/{record.run_id}/reference_profile.json"
        profile = artifact(client, record, "reference_profile.json", tmp_path / "a")
        assert set(profile["columns"]) == {"distance", "temp", "carrier", "late"}
        environment = artifact(client, record, "environment.json", tmp_path / "b")
        assert environment["digest"] == record.environment_digest
        assert environment["installed"]["mlflow"]
        assert run.data.params == {"metrics": "2", "tree.depth": "3", "seed": "7"}
        assert set(run.data.metrics) == {"loss_0", "loss_1"}
        assert run.data.tags["airflow_mlops.dataset_digest"] == record.dataset_digest
        assert run.data.tags["airflow_mlops.code_digest"] == record.code_digest
        assert run.inputs.dataset_inputs[0].dataset.digest == record.dataset_digest[:32]
        assert [output.model_id for output in run.outputs.model_outputs] == [record.model_id]

    def test_equal_inputs_give_an_equal_model(self, team: Team) -> None:
        one = team.trained()
        team.key += "-again"
        # Forced, because another task's result for the same inputs would be reused.
        two = perform(team.request(None).model_copy(update={"force": True}), team.access)

        assert isinstance(two, TrainedModel)
        assert one.model_id != two.model_id
        assert one.digest == two.digest
        assert one.input_digest == two.input_digest

    def test_metrics_that_are_not_finite_are_named_and_left_out(self, team: Team, client: MlflowClient) -> None:
        team.write(
            train=SKLEARN.replace(
                'f"loss_{n}": n / 7 for n in range(parameters.get("metrics", 0))', '"fine": 1.0, "broken": float("nan")'
            )
        )
        record = team.trained()
        run = client.get_run(record.run_id)

        assert run.data.metrics == {"fine": 1.0}
        assert "broken" in run.data.tags["airflow_mlops.metric_notes"]
        assert record.metric_count == 1

    def test_artifacts_of_the_function_are_kept(self, team: Team, client: MlflowClient, tmp_path: Path) -> None:
        (tmp_path / "plot.txt").write_text("a plot")
        team.write(
            train=SKLEARN.replace(
                "return TrainingResult(model,",
                f"return TrainingResult(model, artifacts={{'curve.txt': {str(tmp_path / 'plot.txt')!r}}},",
            )
        )
        record = team.trained()

        assert [item.path for item in client.list_artifacts(record.run_id, "training")] == ["training/curve.txt"]

    def test_the_input_digest_depends_on_the_code(self, team: Team, client: MlflowClient) -> None:
        dataset = team.snapshot()
        before = team.trained(dataset)
        assert team.trained(dataset).model_id == before.model_id
        team.write(features=FEATURES + "\n# changed\n")
        after = team.trained(dataset)

        assert after.model_id != before.model_id
        assert client.get_run(before.run_id).data.tags[runs.SUPERSEDED_BY] == after.run_id

    def test_a_deleted_model_is_made_again(self, team: Team, client: MlflowClient) -> None:
        dataset = team.snapshot()
        before = team.trained(dataset)
        client.delete_logged_model(before.model_id)
        after = team.trained(dataset)

        assert after.model_id != before.model_id
        assert after.run_id == before.run_id
        assert str(client.get_logged_model(after.model_id).status) == "READY"

    @pytest.mark.parametrize("damage", ["no MLmodel file", "another digest"])
    def test_a_damaged_model_is_made_again(
        self, team: Team, client: MlflowClient, mlflow_server: MLflowServer, tmp_path: Path, damage: str
    ) -> None:
        dataset = team.snapshot()
        before = team.trained(dataset)
        if damage == "another digest":
            client.set_logged_model_tags(before.model_id, {DIGEST_TAG: "0" * 64})
        else:
            (file,) = (path for path in mlflow_server.artifacts.rglob("MLmodel") if before.model_id in str(path))
            file.unlink()
        after = team.trained(dataset)

        assert after.model_id != before.model_id
        assert fetch_model(client, team.server, after.model_uri, after.digest, tmp_path / "fetched").is_dir()


class TestFlavours:
    @pytest.mark.parametrize(
        ("returned", "serialization", "method"),
        [
            pytest.param("model", "cloudpickle", "predict_proba", id="estimator"),
            pytest.param("model.booster_", "text", "predict", id="booster"),
        ],
    )
    def test_lightgbm(
        self, team: Team, client: MlflowClient, tmp_path: Path, returned: str, serialization: str, method: str
    ) -> None:
        team.write(
            train="import lightgbm\n\n"
            "def train(data, target, *, weights, parameters, seed):\n"
            "    model = lightgbm.LGBMClassifier(n_estimators=5, random_state=seed, verbose=-1)\n"
            f"    model.fit(data, target, sample_weight=weights)\n    return {returned}\n"
        )
        record = team.trained(flavor="lightgbm", serialization=serialization, features=["distance", "temp"])
        model = load_predictor(fetch_model(client, team.server, record.model_uri, record.digest, tmp_path / "f"))
        frame = pd.read_parquet(team.data["uri"])[["distance", "temp"]]

        assert (record.flavor, record.serialization) == ("lightgbm", serialization)
        assert len(getattr(model, method)(frame)) == ROWS

    def test_regression(self, team: Team) -> None:
        team.task = "regression"
        team.write(
            train="from sklearn.linear_model import Ridge\n\n"
            "def train(data, target, *, weights, parameters, seed):\n    return Ridge().fit(data, target)\n"
        )
        assert team.trained(target="weight", weights=None, features=["distance"]).target == "weight"


class TestTraffic:
    def test_requests_do_not_grow_with_metrics(self, team: Team, requests_sent: list[str]) -> None:
        dataset = team.snapshot()
        sent = {}
        for number in (5, 500):
            team.key = f"dag/{team.name}/{number}/train/-1"
            requests_sent.clear()
            assert team.trained(dataset, parameters={"metrics": number}).metric_count == number
            sent[number] = list(requests_sent)

        assert max(len(lines) for lines in sent.values()) <= 40, sent
        # What the server can do is asked once per process, whichever training comes first.
        few, many = ([line for line in lines if "server-info" not in line] for lines in sent.values())
        assert len(few) == len(many)
        assert not [line for line in sent[500] if "get-history" in line]

    def test_adopting_takes_few(self, team: Team, requests_sent: list[str]) -> None:
        dataset = team.snapshot()
        team.trained(dataset)
        requests_sent.clear()
        team.trained(dataset)

        assert len(requests_sent) <= 11, requests_sent  # the last looks whether the MLmodel file is there


KILLED = """
import json, os, signal, sys
from airflow_mlops.engines.tracking import TrackingServer
from airflow_mlops.steps.base import Access, StepRequest, perform
from mlflow import MlflowClient

uri, request, moment = sys.argv[1:]
if moment != "training":
    method, when = moment.split(":")
    real = getattr(MlflowClient, method)
    def kill(self, *args, **kwargs):
        if when == "after":
            real(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(MlflowClient, method, kill)
perform(StepRequest.model_validate_json(open(request).read()), Access(server=TrackingServer(tracking_uri=uri)))
"""


class TestKilledWorkers:
    @pytest.mark.parametrize(
        ("moment", "leftover"),
        [
            pytest.param("training", [], id="while the function trains"),
            pytest.param("log_model_artifacts:after", ["FAILED"], id="with the files stored and the model not ready"),
            pytest.param("finalize_logged_model:after", [], id="with the model ready and not recorded"),
            pytest.param("log_batch:after", [], id="after the metrics"),
        ],
    )
    def test_a_retry_ends_with_one_model(
        self, team: Team, client: MlflowClient, tmp_path: Path, moment: str, leftover: list[str]
    ) -> None:
        mark = tmp_path / "killed once"
        if moment == "training":
            team.write(
                train=SKLEARN.replace(
                    "    model = make",
                    f"    import os, pathlib\n    mark = pathlib.Path({str(mark)!r})\n"
                    "    if not mark.exists():\n        mark.touch()\n        os.kill(os.getpid(), 9)\n"
                    "    model = make",
                )
            )
        request = team.request(parameters={"metrics": 3})
        (tmp_path / "request.json").write_text(request.model_dump_json())
        done = subprocess.run(
            [sys.executable, "-c", KILLED, team.server.tracking_uri, str(tmp_path / "request.json"), moment],
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
        record = perform(request, team.access)

        assert isinstance(record, TrainedModel)
        models = {model.model_id: str(model.status) for model in team.models(client)}
        assert models.pop(record.model_id) == "READY"
        assert list(models.values()) == leftover
        experiment = client.get_experiment_by_name(team.name)
        assert experiment is not None
        (run,) = runs.find_runs(client, experiment.experiment_id, team.key)
        assert (run.info.run_id, run.info.status) == (record.run_id, "FINISHED")
        assert run.data.metrics == {"loss_0": 0.0, "loss_1": pytest.approx(1 / 7), "loss_2": pytest.approx(2 / 7)}


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "error", "said"),
        [
            pytest.param("return None", ModelRefusedError, "returned no model", id="nothing"),
            pytest.param("return data, target", ModelRefusedError, "TrainingResult", id="a tuple"),
            pytest.param(
                "x = 1\n    return {}['no such parameter']",
                VerdictError,
                "train.py:3: train:train raised KeyError: 'no such parameter'",
                id="an error, with its line",
            ),
            pytest.param("raise ConnectionError('feature store')", OutageError, "train.py:2", id="an outage"),
            pytest.param("raise SystemExit(0)", VerdictError, "SystemExit", id="an exit"),
        ],
    )
    def test_what_the_function_does(
        self, team: Team, client: MlflowClient, body: str, error: type[Exception], said: str
    ) -> None:
        team.write(train=f"def train(data, target, *, weights, parameters, seed):\n    {body}\n")
        with pytest.raises(error) as caught:
            team.trained()

        assert said in str(caught.value).splitlines()[0]
        assert team.models(client) == []

    def test_the_original_error_is_the_cause(self, team: Team) -> None:
        team.write(train="def train(data, target, *, weights, parameters, seed):\n    return 1 / 0\n")
        with pytest.raises(VerdictError) as caught:
            team.trained()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        ("columns", "train", "error", "said"),
        [
            pytest.param(
                {"late": [None] * 3 + [0, 1] * 248 + [1]},
                {},
                DataReadError,
                "'late' is missing in 3 of 500",
                id="null target",
            ),
            pytest.param({"late": 1}, {}, DataReadError, "1 distinct value in", id="one class"),
            pytest.param({"weight": -1.0}, {}, DataReadError, "negative in 500 of 500", id="negative weights"),
            pytest.param({}, {"target": "latee"}, InvalidSpecError, "Did you mean 'late'?", id="target misspelled"),
            pytest.param({}, {"features": ["distanse"]}, InvalidSpecError, "'distance'", id="feature misspelled"),
            pytest.param({}, {"serialization": None}, InvalidSpecError, "cloudpickle, pickle, skops", id="no format"),
            pytest.param({"carrier": [[1, 2]] * ROWS}, {}, ModelRefusedError, "'carrier'", id="a column of lists"),
        ],
    )
    def test_data_and_specification(
        self, team: Team, columns: dict[str, Any], train: dict[str, Any], error: type[Exception], said: str
    ) -> None:
        lake(team.folder, **columns)
        with pytest.raises(error) as caught:
            team.trained(**train)
        assert said in str(caught.value)

    def test_a_misspelled_personal_column_is_noticed(self, team: Team) -> None:
        team.data["personal_columns"] = ["pilott"]
        with pytest.raises(InvalidSpecError, match="Did you mean 'pilot'"):
            team.trained()

    def test_a_model_that_needs_the_teams_files_is_refused(self, team: Team, client: MlflowClient) -> None:
        lazy = (
            "from sklearn.base import BaseEstimator, ClassifierMixin\n\n"
            "class Lazy(ClassifierMixin, BaseEstimator):\n"
            "    def fit(self, data, target):\n        self.classes_ = [0, 1]\n        return self\n"
            "    def predict_proba(self, data):\n        import features\n        import numpy\n"
            "        return numpy.full((len(data), 2), 0.5)\n    predict = predict_proba\n\n"
            "def train(data, target, *, weights, parameters, seed):\n    return Lazy().fit(data, target)\n"
        )
        team.write(train=lazy)
        with pytest.raises(ModelRefusedError, match=r"No module named 'features'.*at the top of a file"):
            team.trained()
        assert team.models(client) == []

    def test_a_changed_model_is_not_loaded(
        self, team: Team, client: MlflowClient, mlflow_server: MLflowServer, tmp_path: Path
    ) -> None:
        record = team.trained()
        relative = artifact_location(client, record.model_uri).removeprefix("mlflow-artifacts:/")
        stored = mlflow_server.artifacts / relative / "model.pkl"
        stored.write_bytes(stored.read_bytes() + b".")
        with pytest.raises(ModelRefusedError) as caught:
            fetch_model(client, team.server, record.model_uri, record.digest, tmp_path / "f")
        assert record.digest in str(caught.value)

    @pytest.mark.parametrize("uri", ["models:/m-0123456789abcdef0123456789abcdef", "models:/no_such_model/1"])
    def test_a_missing_model(self, team: Team, client: MlflowClient, tmp_path: Path, uri: str) -> None:
        with pytest.raises(ModelRefusedError, match="cannot be fetched"):
            fetch_model(client, team.server, uri, None, tmp_path / "f")


class TestTheCall:
    def test_what_the_function_gets(self, team: Team, tmp_path: Path) -> None:
        seen = tmp_path / "seen.json"
        team.write(
            train="import json, random, numpy, sklearn.dummy\n\n"
            "def train(data, target, *, weights, parameters, seed):\n"
            f"    with open({str(seen)!r}, 'w') as file:\n"
            "        json.dump([list(data), target.name, weights.name, dict(parameters), seed,\n"
            "                   random.random(), numpy.random.random(), len(data)], file)\n"
            "    data['distance'] = 0\n    parameters['changed'] = True\n"
            "    return sklearn.dummy.DummyClassifier().fit(data, target)\n"
        )
        random.seed(1)
        expected_after = random.Random(1).random()
        team.trained(parameters={"depth": 3}, features=["distance", "temp"])

        rng = np.random.RandomState(7)
        assert json.loads(seen.read_text()) == [
            ["distance", "temp"], "late", "weight", {"depth": 3}, 7, random.Random(7).random(), rng.random(), ROWS
        ]  # fmt: skip
        assert random.random() == expected_after

    def test_two_teams_with_modules_of_one_name(
        self, mlflow_server: MLflowServer, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        made: list[Callable[[], Any]] = []
        for strategy in ("most_frequent", "uniform"):
            team = Team(mlflow_server, tmp_path_factory.mktemp(strategy))
            team.write(
                train="from features import STRATEGY\nfrom sklearn.dummy import DummyClassifier\n\n"
                "def train(data, target, *, weights, parameters, seed):\n"
                "    return DummyClassifier(strategy=STRATEGY, random_state=1).fit(data, target)\n",
                features=f"STRATEGY = {strategy!r}\n",
            )
            record = team.trained()
            with connected(team.server) as client:
                folder = fetch_model(client, team.server, record.model_uri, record.digest, team.folder / "f")
            made.append(load_predictor(folder).strategy)

        assert made == ["most_frequent", "uniform"]
