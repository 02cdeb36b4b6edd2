"""From a version back to its files, on versions that the real steps made, and on versions of other making."""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops.cli import main
from airflow_mlops.core.ledger import Body
from airflow_mlops.core.lineage import REQUIRED
from airflow_mlops.core.records import GateDecision, ModelVersionRef, ValidationReport, Window
from airflow_mlops.engines import versions
from airflow_mlops.engines.approvals import APPROVAL
from airflow_mlops.engines.promotions import append
from airflow_mlops.engines.trace import trace
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError, UnknownNameError
from airflow_mlops.steps.base import Access, RunInfo, StepRequest, perform
from tests.support.candidates import log_tiny_model, save_tiny_model

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.support.mlflow_server import MLflowServer

JANUARY = Window(start="2024-01-01", end="2024-02-01")
FEBRUARY = Window(start="2024-02-01", end="2024-03-01")
TEAM = """
import helpers

def train(data, target, *, weights, parameters, seed):
    return helpers.fit(data, target, parameters["C"])
"""
HELPERS = """
from sklearn.linear_model import LogisticRegression

def fit(data, target, c):
    return LogisticRegression(C=c).fit(data, target)
"""
CONTRACT = {
    "expectations": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "x", "min_value": -100, "max_value": 100},
            "on_failure": "quarantine",
        }
    ]
}
TRAIN = {
    "function": "team:train",
    "serialization": "cloudpickle",
    "target": "y",
    "seed": 7,
    "parameters": {"C": 0.5},
    "window": {"length": "1 month"},
}
EVALUATION = {"task": "binary", "metrics": ["roc_auc", "log_loss"], "slices": ["side"], "bootstrap_draws": 100}
GATE = {
    "rules": [
        {"rule": "at_least", "metric": "roc_auc", "value": 0.6},
        {"rule": "better_than_champion", "metric": "roc_auc"},
    ]
}


@dataclass
class World:
    """One registered model that the real steps made: trained in the DAG run of January, judged in February's."""

    client: MlflowClient
    access: Access
    folder: Path
    name: str
    uri: str

    def step(self, run: str, step: str, task: str, /, **payload: Any) -> Any:
        """Perform a step as a task of the DAG run ``run``."""
        about = {
            "airflow_mlops.dag_id": self.name,
            "airflow_mlops.airflow_run_id": run,
            "airflow_mlops.airflow_url": f"http://airflow.test/dags/{self.name}/runs/{run}",
        }
        info = RunInfo(key=f"{self.name}/{run}", name=run, experiment=self.name, tags=about)
        plain = {key: value.to_xcom() if hasattr(value, "to_xcom") else value for key, value in payload.items()}
        request = StepRequest(
            step=step,
            key=f"{self.name}/{run}/{task}/-1",
            run=info,
            payload=plain,
            task_url=f"http://airflow.test/dags/{self.name}/runs/{run}/tasks/{task}",
        )
        return perform(request, self.access)

    def data(self, run: str, group: str, window: Window) -> ValidationReport:
        """Take and check one window."""
        data = {"uri": str(self.folder / "lake"), "event_time": "at"}
        dataset = self.step(run, "snapshot", f"{group}.snapshot", data=data, window=window.model_dump(mode="json"))
        report: ValidationReport = self.step(
            run, "validate", f"{group}.validate", dataset=dataset, contract=CONTRACT, data=data
        )
        return report

    def judge(self) -> GateDecision:
        """Train on January and judge on February, in the order of the loop."""
        run, train = "february", "january"
        training = self.data(train, "training_data", JANUARY)
        evaluation = self.data(run, "evaluation_data", FEBRUARY)
        model = self.step(
            train,
            "train",
            "train",
            dataset=training.dataset,
            validation_run_id=training.run_id,
            train=TRAIN,
            code_path=str(self.folder),
            data={"uri": str(self.folder / "lake"), "event_time": "at", "id_columns": ["side"]},
            task="binary",
            model_name=self.name,
        )
        report = self.step(
            run,
            "evaluate",
            "evaluate",
            model=model,
            dataset=evaluation.dataset,
            validation_run_id=evaluation.run_id,
            evaluation=EVALUATION,
            registered_model=self.name,
        )
        decision: GateDecision = self.step(run, "gate", "gate", report=report, gate=GATE)
        return decision

    def register(self, decision: GateDecision) -> ModelVersionRef:
        """Register what was judged."""
        ref: ModelVersionRef = self.step(
            "february", "register", "register", decision=decision, registered_model=self.name, reason="the monthly run"
        )
        return ref

    def cli(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
        """Run the verb and return exit code and standard output."""
        capsys.readouterr()
        code = main(["trace", *words, "--tracking-uri", self.uri])
        return code, capsys.readouterr().out

    def copy_version(self, **changed: str | None) -> str:
        """Register the model's version 1 under another name, with some tags changed or left out; return the name."""
        tags = dict(self.client.get_model_version(self.name, "1").tags)
        kept = {tag: value for tag, value in {**tags, **changed}.items() if value is not None}
        name = f"copy-{uuid.uuid4().hex[:8]}"
        self.client.create_registered_model(name)
        source = tags[versions.MODEL_ID]
        self.client.create_model_version(name, f"models:/{source}", tags=kept, model_id=source, await_creation_for=None)
        return name


@pytest.fixture(scope="module")
def world(mlflow_server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    import numpy as np
    import pandas as pd

    folder = tmp_path_factory.mktemp("trace")
    rng = np.random.default_rng(0)
    (folder / "lake").mkdir()
    for number, window in enumerate((JANUARY, FEBRUARY)):
        for half in (0, 1):
            at = pd.date_range(window.start, window.end, 601, inclusive="left")[half * 300 : half * 300 + 300]
            x = rng.normal(size=len(at))
            frame = pd.DataFrame(
                {
                    "at": at.tz_localize(None),
                    "x": x,
                    "side": np.where(x > 0, "right", "left"),
                    "y": (x + rng.normal(size=len(at)) > 0).astype(int),
                }
            )
            if number == 0 and half == 0:
                frame.loc[[3, 5], "x"] = 1e6
            frame.to_parquet(folder / "lake" / f"{number}-{half}.parquet", index=False)
    (folder / "team.py").write_text(TEAM)
    (folder / "helpers.py").write_text(HELPERS)
    server = TrackingServer(tracking_uri=mlflow_server.uri)
    with connected(server) as client:
        made = World(client, Access(server=server), folder, f"traced_{uuid.uuid4().hex[:8]}", mlflow_server.uri)
        ref = made.register(made.judge())
        made.step(
            "february", "promote", "promote", version=ref, author="airflow:promote", reason="the gate let it through"
        )
        yield made


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_alias_leads_to_everything(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = world.cli(capsys, world.name, "--json")
    found = json.loads(out)

    assert (code, found["blank"]) == (0, [])
    assert (found["name"], found["version"]) == (world.name, 1)
    assert found["standing"] == ["It is champion, since entry 1."]
    model = found["model"]
    assert (model["flavor"], model["serialization"], model["stored"]) == ("sklearn", "cloudpickle", True)
    assert model["size_bytes"] > 0
    assert model["features"] == ["x"]
    training = found["training_data"]
    assert training["uri"] == str(world.folder / "lake")
    assert training["window"] == "2024-01-01T00:00:00+00:00/2024-02-01T00:00:00+00:00"
    assert (training["rows"], training["row_count"], training["snapshot"]) == (598, 598, "derived")
    assert [file["rows"] for file in training["files"]] == [598]
    # The rows before any were set aside: the files as they were delivered.
    raw = training["raw"]
    assert {file["path"]: (file["sha256"], file["rows"]) for file in raw["files"]} == {
        f"0-{half}.parquet": (sha256(world.folder / "lake" / f"0-{half}.parquet"), 300) for half in (0, 1)
    }
    assert raw["digest"] != training["digest"]
    contract = training["contract"]
    assert (contract["verdict"], contract["quarantined"]) == ("quarantine", 2)
    assert "2 rows were set aside" in contract["sentence"]
    assert len(contract["digest"]) == 64
    assert contract["report_uri"].endswith("/contract_report.html")
    evaluated = found["evaluation_data"]
    assert evaluated["raw"] is None
    assert [file["sha256"] for file in evaluated["files"]] == [
        sha256(world.folder / "lake" / f"1-{half}.parquet") for half in (0, 1)
    ]
    assert evaluated["contract"]["verdict"] == "pass"
    assert found["parameters"]["values"] == {"C": "0.5", "seed": "7"}
    assert found["parameters"]["seed"] == 7
    assert found["environment"]["libraries"]["scikit-learn"]
    assert found["evaluation"]["rows"] == 600
    assert found["evaluation"]["dataset_digest"] == evaluated["digest"]
    assert set(found["evaluation"]["metrics"]) == {"roc_auc", "log_loss"}
    assert found["gate"]["verdict"] == "first_model"
    assert [one["status"] for one in found["gate"]["results"]] == ["pass", "pass"]
    assert (found["serving"], found["approval"]) == (None, None)
    (entry,) = found["ledger"]
    assert (entry["role"], entry["author"], entry["reason"]) == (
        "promoted",
        "airflow:promote",
        "the gate let it through",
    )
    assert found["card"]["stored"] is True


def test_the_tasks_are_named_with_their_dag_run_and_whether_it_is_the_judging_one(world: World) -> None:
    tasks = {(task["step"], task["dag_run_id"]): task for task in trace(world.client, world.name).to_json()["tasks"]}

    assert set(tasks) == {
        ("snapshot", "january"),
        ("validate", "january"),
        ("train", "january"),
        ("snapshot", "february"),
        ("validate", "february"),
        ("evaluate", "february"),
        ("gate", "february"),
        ("register", "february"),
    }
    # Trained in an earlier DAG run than the one that judged it.
    assert tasks["train", "january"]["other_run"] is True
    assert tasks["evaluate", "february"]["other_run"] is False
    train = tasks["train", "january"]
    assert train["key"] == f"{world.name}/january/train/-1"
    assert train["dag_id"] == world.name
    assert train["dag_run_url"] == f"http://airflow.test/dags/{world.name}/runs/january"
    assert train["task_url"].endswith("/tasks/train")


def test_code_outside_of_git_is_named_by_its_files_and_these_are_kept(world: World, tmp_path: Path) -> None:
    code = trace(world.client, world.name).to_json()["code"]

    assert code["commit"] == f"files:{code['digest'][:12]}"
    assert (code["is_commit"], code["source_stored"], code["function"]) == (False, True, "team:train")
    run_id, _, name = code["source_uri"].removeprefix("runs:/").partition("/")
    archive = Path(world.client.download_artifacts(run_id, name, str(tmp_path)))
    with zipfile.ZipFile(archive) as files:
        assert {name: files.read(name).decode() for name in files.namelist()} == {
            "helpers.py": HELPERS,
            "team.py": TEAM,
        }


def test_the_text_for_people(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = world.cli(capsys, world.name, "--version", "1", "--files", "1")

    assert code == 0
    for title in ("Model", "Training data", "Code", "Parameters", "Environment", "Gate", "Ledger", "Tasks"):
        assert f"\n{title}\n" in out
    assert sha256(world.folder / "lake" / "0-0.parquet") in out
    assert sha256(world.folder / "lake" / "0-1.parquet") not in out
    assert "and 1 more (--files N, --json)" in out
    assert "roc_auc: candidate 0." in out
    assert "by airflow:promote: the gate let it through" in out
    assert "NOT KNOWN" not in out
    assert all(line == line.rstrip() or not line.strip() for line in out.splitlines())


def test_the_card_tells_the_same(world: World, tmp_path: Path) -> None:
    card = trace(world.client, world.name).to_json()["card"]["uri"]
    run_id = card.removeprefix("runs:/").partition("/")[0]
    text = Path(world.client.download_artifacts(run_id, "model_card.md", str(tmp_path))).read_text()

    assert "| Rows | 598 |" in text
    assert "2 of 600 training rows broke the contract" in text
    assert "roc_auc: the 2 weakest of 2 slices by its value" in text
    assert "scikit-learn==" in text
    assert "It was not compared with another model." in text
    assert f"airflow-mlops trace {world.name} --version 1" in text


def test_a_version_whose_runs_are_gone_is_told_by_its_tags_and_the_losses_are_named(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = world.client.get_model_version(world.name, "1").tags
    lost = {
        tag: value.replace(value.removeprefix("runs:/").partition("/")[0], "0" * 32)
        for tag, value in tags.items()
        if tag.removeprefix("airflow_mlops.").endswith(("_uri", "_run"))
        and tag not in (versions.ARTIFACT_URI, versions.DATA_URI)
    }
    name = world.copy_version(**lost)
    code, out = world.cli(capsys, name, "--version", "1", "--json")
    found = json.loads(out)

    assert code == 1
    assert {blank["name"] for blank in found["blank"]} == {
        "training run",
        "training data manifest",
        "training contract result",
        "evaluation data manifest",
        "evaluation contract result",
        "evaluation evidence",
        "gate decision",
        "source archive",
        "environment libraries",
        "model card",
    }
    assert all("gone" in blank["found"] for blank in found["blank"])
    assert found["model"]["digest"] == tags[versions.MODEL_DIGEST]
    assert found["training_data"]["digest"] == tags[versions.DATASET_DIGEST]
    assert found["gate"] == {"verdict": "first_model", "mode": "enforce"}
    assert {task["step"]: task["key"] for task in found["tasks"]} == {
        "train": f"{world.name}/january/train/-1",
        "register": f"{world.name}/february/register/-1",
    }
    assert "NOT KNOWN: 10" in world.cli(capsys, name, "--version", "1")[1]


def test_an_adopted_version_names_every_blank_and_invents_nothing(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    experiment = world.client.get_experiment_by_name(world.name).experiment_id
    save_tiny_model(tmp_path / "model")
    foreign = log_tiny_model(world.client, experiment, tmp_path / "model", "")
    name = f"foreign-{uuid.uuid4().hex[:8]}"
    world.client.create_registered_model(name)
    world.client.create_model_version(name, foreign.model_uri, model_id=foreign.model_id, await_creation_for=None)
    world.client.set_registered_model_alias(name, "champion", "1")
    assert trace(world.client, name).found["standing"] == [
        "MLflow's alias 'champion' names it, and no ledger entry says who promoted it and why."
    ]
    words = [name, "--adopt", "--reason", "it serves", "--author", "ada", "--tracking-uri", world.uri]
    assert main(["promote", *words]) == 0
    code, out = world.cli(capsys, name, "--json")
    found = json.loads(out)

    assert code == 1
    # MLflow itself names the run that logged the model; nothing else is known.
    assert {one["name"] for one in found["blank"]} == set(REQUIRED) - {"training run"}
    assert (found["gate"], found["evaluation"], found["tasks"]) == (None, None, [])
    assert found["training_data"]["files"] == []
    assert found["model"]["stored"] is True
    assert found["ledger"][0]["action"] == "adopt"
    assert "model digest" in found["ledger"][0]["lacks"]
    readable = world.cli(capsys, name)[1]
    assert "commit        not recorded" in readable
    assert "code commit (empty): train from a git checkout, or set AIRFLOW_MLOPS_GIT_COMMIT" in readable


def test_a_model_of_ours_that_was_registered_by_hand_is_traced_through_its_training_run(world: World) -> None:
    model_id = world.client.get_model_version(world.name, "1").tags[versions.MODEL_ID]
    name = f"by-hand-{uuid.uuid4().hex[:8]}"
    world.client.create_registered_model(name)
    world.client.create_model_version(name, f"models:/{model_id}", model_id=model_id, await_creation_for=None)
    found = trace(world.client, name, version=1)

    assert [blank.name for blank in found.blanks] == [
        "evaluation data manifest",
        "evaluation contract result",
        "evaluation evidence",
        "gate decision",
    ]
    assert found.found["training_data"]["row_count"] == 598


def test_an_edited_manifest_is_noticed(world: World) -> None:
    other = world.client.get_model_version(world.name, "1").tags[versions.EVALUATION_MANIFEST_URI]
    name = world.copy_version(**{versions.MANIFEST_URI: other})
    (blank,) = trace(world.client, name, version=1).blanks

    assert blank.name == "training data manifest"
    assert "it was edited" in blank.found


def test_an_approval_and_what_a_person_overrode_are_shown(world: World) -> None:
    said = json.dumps({"outcome": "approved", "author": "ada", "reason": "seen"})
    name = world.copy_version(**{APPROVAL: said, versions.BLANK: '["code commit"]'})
    found = trace(world.client, name, version=1).to_json()

    assert found["approval"]["author"] == "ada"
    assert found["registered_blank"] == ["code commit"]


def test_what_does_not_exist_is_told_with_what_does(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    name = world.copy_version()
    with pytest.raises(InvalidSpecError, match=r"alias 'champion' .* names no version.* none\. It has version 1"):
        trace(world.client, name)
    world.client.delete_model_version(name, "1")
    with pytest.raises(InvalidSpecError, match=r"no version 1 of .* deleted or never registered\. It has no version"):
        trace(world.client, name, version=1)
    with pytest.raises(UnknownNameError, match=f"Did you mean '{world.name}'"):
        trace(world.client, f"{world.name}x")
    assert main(["trace", world.name, "--version", "9", "--tracking-uri", world.uri]) == 2
    assert "It has version 1." in capsys.readouterr().err
    assert main(["trace", world.name, "--files", "-1", "--tracking-uri", world.uri]) == 2


def test_a_deleted_champion_is_still_told_by_its_ledger(world: World) -> None:
    name = world.copy_version()
    world.client.set_registered_model_alias(name, "champion", "1")
    words = [name, "--adopt", "--reason", "it serves", "--author", "ada", "--tracking-uri", world.uri]
    assert main(["promote", *words]) == 0
    world.client.delete_model_version(name, "1")

    with pytest.raises(InvalidSpecError, match=r"no version 1 .* Entry 1 of its ledger: adopt of version 1 by ada"):
        trace(world.client, name)


def test_looking_moves_no_alias(world: World) -> None:
    """An interrupted promotion is finished by those who act, not by a person who asks where a model comes from."""
    name = world.copy_version()
    append(
        world.client,
        Body(
            action="promote",
            model=name,
            alias="champion",
            from_version=None,
            to_version=1,
            author="a worker that was killed",
            reason="it passed",
            key="killed",
            written_at=datetime(2024, 3, 1, tzinfo=UTC),
        ),
    )
    found = trace(world.client, name)

    assert found.found["version"] == 1
    assert found.found["ledger"][0]["applied"] is False
    assert dict(world.client.get_registered_model(name).aliases) == {}


def test_an_unknown_commit_is_refused_by_name(world: World) -> None:
    decision = world.judge()
    older = decision.model_copy(update={"model": decision.model.model_copy(update={"git_commit": "unknown"})})
    with pytest.raises(ModelRefusedError, match=r"1 fact of its lineage is blank\. code commit \('unknown'\)"):
        world.step("march", "register", "register", decision=older, registered_model=world.name)
