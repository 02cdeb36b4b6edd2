"""The train step's contract: what its digest covers, and the check that a stored model stands on its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from airflow_mlops.core.records import DatasetVersion
from airflow_mlops.engines.models import SavedModel, save_model
from airflow_mlops.engines.signatures import input_schema
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError
from airflow_mlops.steps import train
from airflow_mlops.steps.train import TrainPayload, TrainStep, check_loads, recorded_features
from tests.unit.core.test_lineage import MODEL

DATASET = DatasetVersion(
    digest="d" * 64,
    uri="/data/flights",
    format="parquet",
    row_count=10,
    file_count=1,
    byte_count=100,
    column_count=3,
    manifest_uri="runs:/r/manifest.json",
)
TRAIN: dict[str, Any] = {
    "function": "train:train",
    "serialization": "cloudpickle",
    "target": "late",
    "window": {"length": "2 months"},
}


def payload(folder: Path, **changes: Any) -> TrainPayload:
    given: dict[str, Any] = {
        "dataset": DATASET,
        "train": TRAIN,
        "code_path": str(folder),
        "data": {"uri": "/data/flights", "id_columns": ["flight_id"], "personal_columns": ["pilot"]},
        "model_name": "flights",
        "task": "binary",
    }
    return TrainPayload.model_validate({**given, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("def train(data, target, *, weights, parameters, seed): ...\n")
    return tmp_path


def inputs(given: TrainPayload) -> Any:
    return TrainStep().inputs(given, client=None, access=None)  # type: ignore[arg-type]  # neither is asked here


class TestInputs:
    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"train": {**TRAIN, "seed": 1}}, id="seed"),
            pytest.param({"train": {**TRAIN, "parameters": {"depth": 2}}}, id="parameters"),
            pytest.param({"train": {**TRAIN, "serialization": "pickle"}}, id="format"),
            pytest.param({"dataset": DATASET.model_copy(update={"digest": "e" * 64})}, id="rows"),
            pytest.param({"data": {"uri": "/data/flights", "id_columns": ["flight_id"]}}, id="personal columns"),
            pytest.param({"task": "multiclass"}, id="task"),
        ],
    )
    def test_what_shapes_the_model_counts(self, folder: Path, changes: dict[str, Any]) -> None:
        assert inputs(payload(folder, **changes)) != inputs(payload(folder))

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"dataset": DATASET.model_copy(update={"uri": "/mnt/flights"})}, id="where the rows are"),
            pytest.param(
                {"dataset": DATASET.model_copy(update={"manifest_uri": "runs:/x/m"})}, id="the manifest's run"
            ),
            pytest.param({"train": {**TRAIN, "window": {"length": "60 days"}}}, id="how the window was written"),
            pytest.param({"validation_run_id": "v2"}, id="the run that checked the rows"),
        ],
    )
    def test_what_only_says_where_things_are_does_not(self, folder: Path, changes: dict[str, Any]) -> None:
        assert inputs(payload(folder, **changes)) == inputs(payload(folder))

    def test_the_place_of_the_code_does_not_count(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "")  # no git: both copies are of an unknown commit
        other = tmp_path_factory.mktemp("other")
        shutil.copy(folder / "train.py", other)

        assert inputs(payload(other)) == inputs(payload(folder))

    def test_a_missing_format_stops_before_anything_is_made(self, folder: Path) -> None:
        with pytest.raises(InvalidSpecError, match=r"set train\.serialization to one of"):
            inputs(payload(folder, train={**TRAIN, "serialization": None}))


@pytest.mark.parametrize(
    ("changes", "validation", "adopted"),
    [
        pytest.param({}, "v1", True, id="a whole record"),
        pytest.param({"validation_run_id": "v0"}, "v1", True, id="the rows were checked by another run then"),
        pytest.param({"manifest_uri": ""}, "v1", False, id="an earlier release wrote no manifest"),
        pytest.param({"git_commit": "unknown"}, "v1", False, id="an earlier release knew no commit"),
        pytest.param({"validation_run_id": ""}, "v1", False, id="this run knows what checked the rows"),
        pytest.param({"validation_run_id": ""}, "", True, id="neither run knows"),
    ],
)
def test_a_record_that_could_not_be_registered_is_not_adopted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], validation: str, adopted: bool
) -> None:
    monkeypatch.setattr(train, "is_intact", lambda client, record: True)
    record, given = MODEL.model_copy(update=changes), payload(folder, validation_run_id=validation)

    assert TrainStep().recheck(record, given, None, None) is adopted  # type: ignore[arg-type]  # neither is asked


def test_the_code_path_must_be_absolute() -> None:
    with pytest.raises(ValidationError, match="it must be absolute"):
        payload(Path("models"))


def test_unknown_keys_are_refused(folder: Path) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        payload(folder, sede=1)


class TestStoredModel:
    FRAME = pd.DataFrame({"x": np.arange(20.0)})

    def saved(self, folder: Path) -> tuple[SavedModel, Any]:
        from sklearn.linear_model import LinearRegression

        model = LinearRegression().fit(self.FRAME, self.FRAME["x"] * 2)
        saved = save_model(
            model,
            folder / "model",
            flavor="sklearn",
            serialization="cloudpickle",
            inputs=input_schema(self.FRAME),
            sample=self.FRAME,
            example=self.FRAME.head(1),
            classifier=False,
            requirements=["scikit-learn"],
        )
        return saved, model.predict(self.FRAME)

    def test_equal_predictions_pass(self, folder: Path) -> None:
        saved, expected = self.saved(folder)
        check_loads(saved, self.FRAME, expected, classifier=False, code_path=folder)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda values: values + 0.1, id="other values"),
            pytest.param(lambda values: values[:-1], id="a row less"),
            pytest.param(lambda values: values.astype(str), id="other types"),
        ],
    )
    def test_other_predictions_are_refused(self, folder: Path, change: Any) -> None:
        saved, expected = self.saved(folder)
        with pytest.raises(ModelRefusedError, match="predicts otherwise than the trained one"):
            check_loads(saved, self.FRAME, change(expected), classifier=False, code_path=folder)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        pytest.param([f"f{n}" for n in range(500)], True, id="many short ones"),
        pytest.param(["a" * 40] * 150, False, id="6,000 letters and what JSON puts between them"),
        pytest.param(["größe_" + "ä" * 10] * 80, False, id="1,280 letters that take six bytes each"),
        pytest.param([], True, id="none"),
    ],
)
def test_feature_names_are_bounded_as_xcom_counts_them(names: list[str], kept: bool) -> None:
    assert recorded_features(names) == (tuple(names) if kept else ())
