"""Train: the accepted rows and the team's function in, a logged model out."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from airflow_mlops.core.keys import digest_of, key_id
from airflow_mlops.core.lineage import is_blank, is_commit
from airflow_mlops.core.records import DatasetVersion, TrainedModel
from airflow_mlops.core.training import TrainingResult
from airflow_mlops.engines import runs
from airflow_mlops.engines.code import TeamCode, check_signature, team_code, without_team_code
from airflow_mlops.engines.environment import Environment, describe_environment, loose_modules
from airflow_mlops.engines.flavors import check_format, libraries, predicts_frames
from airflow_mlops.engines.lineage import ENVIRONMENT_FILE
from airflow_mlops.engines.logged_models import is_intact
from airflow_mlops.engines.models import PROFILE_FILE, SavedModel, load_predictor, log_model, save_model
from airflow_mlops.engines.signatures import input_example, input_schema, predicted
from airflow_mlops.engines.source import CodeVersion, archive_source, code_version
from airflow_mlops.engines.training import (
    EXPECTED,
    TrainingRows,
    call_function,
    feature_columns,
    flat_parameters,
    metric_values,
    split_rows,
)
from airflow_mlops.errors import ModelRefusedError
from airflow_mlops.spec.model import DataSpec, TrainSpec
from airflow_mlops.steps.base import Access, Step, Work, window_tags
from airflow_mlops.steps.datasets import load_manifest

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.types import Schema

log = logging.getLogger(__name__)

SOURCE_FILE = "source.zip"
#: Rows that the stored model must predict as the trained one did before it is logged.
CHECKED_ROWS = 100
#: Bytes that the list of feature names may take in a record, as XCom writes it; the signature has them all.
MAX_FEATURE_BYTES = 6_000


class TrainPayload(BaseModel):
    """What training needs: the rows, the specification's part, and where the team's code is on this machine.

    :param validation_run_id: the MLflow run that checked the rows against their contract, for the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetVersion
    train: TrainSpec
    code_path: str = Field(min_length=1)
    data: DataSpec
    model_name: str = Field(min_length=1)
    task: Literal["binary", "multiclass", "regression"]
    validation_run_id: str = ""

    @field_validator("code_path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not Path(value).is_absolute():
            raise ValueError(f"it must be absolute, resolved against the specification's folder; this is {value!r}")
        return value

    @property
    def hidden(self) -> frozenset[str]:
        """Return the columns none of whose values may show in a profile or an example."""
        return frozenset({*self.data.id_columns, *self.data.personal_columns})

    @property
    def excluded(self) -> frozenset[str]:
        """Return the columns a model does not get unless the specification lists them as features."""
        return self.hidden | ({self.data.event_time} if self.data.event_time else frozenset())


class TrainStep(Step[TrainPayload, TrainedModel]):
    """Call the team's training function and log what it returns, with all that is needed to make it again."""

    name = "train"
    reusable = True
    payload_type = TrainPayload
    record_type = TrainedModel

    def inputs(self, payload: TrainPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover rows, specification, code, commit and environment, and nothing that only says where they are."""
        check_format(payload.train.flavor, payload.train.serialization)
        code = code_version(payload.train.function, Path(payload.code_path))
        return {
            "dataset": payload.dataset.digest,
            "train": payload.train.model_dump(mode="json", exclude={"code_path", "window"}),
            "excluded": sorted(payload.excluded),
            "model_name": payload.model_name,
            "task": payload.task,
            "code": code.digest,
            "commit": code.commit,
            "environment": _environment(payload.train, code).digest,
            "loose_modules": loose_modules(code.imports),
        }

    def adopted(self, record: TrainedModel, payload: TrainPayload) -> TrainedModel:
        """Name this run's rows and contract result: another run's may have been checked by another contract."""
        return record.model_copy(
            update={
                "data_uri": payload.dataset.uri,
                "manifest_uri": payload.dataset.manifest_uri,
                "validation_run_id": payload.validation_run_id or record.validation_run_id,
            }
        )

    def recheck(self, record: TrainedModel, payload: TrainPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt a finished training only while its model is still there, with its digest and its MLmodel file.

        Nor where its record, of an earlier release, lacks what registration needs and this run would write.
        """
        told = [record.data_uri, record.manifest_uri, record.git_commit]
        if payload.validation_run_id:
            told.append(record.validation_run_id)
        if any(is_blank(value) for value in told):
            return False
        return is_intact(client, record)

    def run(self, payload: TrainPayload, work: Work) -> TrainedModel:
        """Train, store, check that the stored model loads on its own, and log it."""
        spec = payload.train
        serialization = check_format(spec.flavor, spec.serialization)
        code = code_version(spec.function, Path(payload.code_path))
        environment = _environment(spec, code)
        classifier = payload.task != "regression"
        # Before the function runs: afterwards the files may be another deployment's.
        omitted = archive_source(code, work.folder / SOURCE_FILE)
        if omitted:
            log.warning("The source is not kept. %s", omitted)
        with team_code(Path(payload.code_path)) as team:
            function = team.function(spec.function)
            # Before the rows are read: a wrong signature need not wait for them.
            check_signature(function, spec.function, EXPECTED, None, None, weights=None, parameters={}, seed=spec.seed)
            given = _read(payload, work)
            result = call_function(
                function, spec.function, given.rows, parameters=spec.parameters, seed=spec.seed, root=team.root
            )
            _warn_of_unseen(team, code)
            saved = save_model(
                result.model,
                work.folder / "model",
                flavor=spec.flavor,
                serialization=serialization,
                inputs=given.schema,
                sample=given.sample,
                example=given.example,
                classifier=classifier,
                requirements=spec.requirements if spec.requirements is not None else environment.requirements,
                metadata={"dataset_digest": payload.dataset.digest, "task": payload.task},
                files={PROFILE_FILE: json.dumps(given.profile, indent=1, allow_nan=False)},
            )
            expected = _asked(result.model, saved, given.sample, classifier)
        check_loads(saved, given.sample, expected, classifier=classifier, code_path=Path(payload.code_path))
        return _log(payload, work, saved, result, given, code, environment)


@dataclass(frozen=True)
class _Given:
    """The rows, and what is kept of them: taken before the function gets them, because it may change its frame."""

    rows: TrainingRows
    row_count: int
    features: tuple[str, ...]
    schema: Schema
    sample: pd.DataFrame
    example: pd.DataFrame
    profile: dict[str, Any]


def recorded_features(features: Sequence[str]) -> tuple[str, ...]:
    """Return the feature names a record holds: all, or none where they would take too much of XCom's 16 kB.

    XCom is ASCII JSON, in which one letter outside of ASCII takes six to twelve bytes.
    """
    return tuple(features) if len(json.dumps(list(features))) <= MAX_FEATURE_BYTES else ()


def _environment(spec: TrainSpec, code: CodeVersion) -> Environment:
    needed = libraries(spec.flavor, check_format(spec.flavor, spec.serialization))
    return describe_environment(distributions=needed, modules=code.imports)


def _read(payload: TrainPayload, work: Work) -> _Given:
    from airflow_mlops.engines.profile import build_profile
    from airflow_mlops.engines.tables import read_table, to_frame

    spec, dataset = payload.train, payload.dataset
    manifest = load_manifest(dataset, work)
    features = feature_columns(
        [name for name, _ in manifest.columns],
        target=spec.target,
        weights=spec.weights,
        features=spec.features,
        excluded=payload.excluded,
    )
    wanted = [*features, spec.target, *([spec.weights] if spec.weights else [])]
    table = read_table(manifest, work.access.storage(dataset.conn_id), wanted, fetch=work.read_file)
    # From Arrow, where NULL and NaN are still two things.
    profile = build_profile(table.select([*features, spec.target]), exclude=payload.hidden)
    frame = to_frame(table)
    rows = split_rows(frame, features=features, target=spec.target, weights=spec.weights, task=payload.task)
    spread = slice(None, None, max(1, len(frame) // CHECKED_ROWS))
    return _Given(
        rows=rows,
        row_count=len(frame),
        features=tuple(features),
        schema=input_schema(rows.data),
        sample=rows.data.iloc[spread].head(CHECKED_ROWS).copy(),
        example=input_example(rows.data, payload.hidden),
        profile=profile,
    )


def _warn_of_unseen(team: TeamCode, code: CodeVersion) -> None:
    unseen = sorted(
        name
        for name in (file.relative_to(team.root).as_posix() for file in team.files().values())
        if code.root == team.root and name not in code.files
    )
    if unseen:
        log.warning(
            "The training code loaded %s by a computed name. A change in it will not count as a change of the code: "
            "name it in an import statement.",
            ", ".join(unseen),
        )


def _asked(model: Any, saved: SavedModel, sample: pd.DataFrame, classifier: bool) -> Any | None:
    """Return what the trained model predicts, or None where only MLflow's wrapper of the stored one can be asked."""
    return predicted(model, sample, classifier=classifier) if predicts_frames(saved.flavor, model) else None


def check_loads(
    saved: SavedModel, sample: pd.DataFrame, expected: Any | None, *, classifier: bool, code_path: Path
) -> None:
    """Load the stored model where the team's modules cannot be imported, and compare its predictions.

    :param expected: what the trained model predicted for ``sample``; None: only loading and predicting is tried.
    :raises ModelRefusedError: it does not load, or does not predict the same.
    """
    import numpy as np

    advice = (
        "The model must work where the team's modules are not installed. Use serialization: cloudpickle, which stores "
        "the team's own classes and functions inside the model, and import the team's modules at the top of a file, "
        "not inside a function that predicts; or use library classes only."
    )
    with without_team_code(code_path):
        try:
            again = predicted(load_predictor(saved.folder), sample, classifier=classifier)
        except Exception as exc:
            raise ModelRefusedError(f"The stored model is of no use: {exc} {advice}") from exc
    if expected is None:
        return
    left, right = np.asarray(expected), np.asarray(again)
    same = left.shape == right.shape and (
        np.allclose(left, right, rtol=1e-6, atol=1e-9, equal_nan=True)
        if left.dtype.kind in "fiub" and right.dtype.kind in "fiub"
        else bool((left == right).all())
    )
    if not same:
        raise ModelRefusedError(
            f"The stored model predicts otherwise than the trained one on the same {len(sample)} rows, so the file "
            f"does not hold all of it, or its predictions are drawn at random. Try another train.serialization."
        )


def _log(
    payload: TrainPayload,
    work: Work,
    saved: SavedModel,
    result: TrainingResult,
    given: _Given,
    code: CodeVersion,
    environment: Environment,
) -> TrainedModel:
    spec, dataset = payload.train, payload.dataset
    metrics, left_out = metric_values(result.metrics)
    facts = {
        "airflow_mlops.model_digest": saved.digest,
        "airflow_mlops.dataset_digest": dataset.digest,
        "airflow_mlops.code_digest": code.digest,
        "airflow_mlops.git_commit": code.commit,
        "airflow_mlops.environment_digest": environment.digest,
        "airflow_mlops.function": spec.function,
        "airflow_mlops.flavor": saved.flavor,
        "airflow_mlops.serialization": saved.serialization,
        **window_tags(dataset.window),
    }
    # The model goes first: MLflow reads the history of every metric on the run each time a model is logged.
    model = log_model(
        work.client,
        saved,
        experiment_id=work.experiment_id,
        run_id=work.run_id,
        name=payload.model_name,
        tags={
            **facts,
            runs.KEY: work.request.key,
            runs.KEY_ID: key_id(work.request.key),
            runs.INPUT_DIGEST: work.input_digest,
        },
    )
    _log_numbers(payload, work, model, metrics, left_out, {**facts, "mlflow.source.name": spec.function}, code)
    profile_uri = work.log_file(saved.folder / PROFILE_FILE, PROFILE_FILE)
    work.log_json(environment.to_dict(), ENVIRONMENT_FILE)
    archive = work.folder / SOURCE_FILE
    source_uri = work.log_file(archive, SOURCE_FILE) if archive.exists() else ""
    _log_artifacts(result, work)
    return TrainedModel(
        model_uri=f"models:/{model.model_id}",
        model_id=model.model_id,
        artifact_uri=model.artifact_location,
        run_id=work.run_id,
        flavor=saved.flavor,
        serialization=saved.serialization,
        digest=saved.digest,
        size_bytes=saved.size_bytes,
        dataset_digest=dataset.digest,
        train_window=dataset.window,
        features=recorded_features(given.features),
        feature_count=len(given.features),
        target=spec.target,
        row_count=given.row_count,
        seed=spec.seed,
        parameters_digest=digest_of(spec.parameters),
        code_digest=code.digest,
        git_commit=code.commit,
        environment_digest=environment.digest,
        profile_uri=profile_uri,
        key=work.request.key,
        input_digest=work.input_digest,
        metric_count=len(metrics),
        data_uri=dataset.uri,
        manifest_uri=dataset.manifest_uri,
        validation_run_id=payload.validation_run_id,
        source_uri=source_uri,
    )


def _log_numbers(
    payload: TrainPayload,
    work: Work,
    model: LoggedModel,
    metrics: Mapping[str, float],
    left_out: Mapping[str, str],
    tags: dict[str, str],
    code: CodeVersion,
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    if left_out:
        log.warning("Left out of the run's metrics: %s.", ", ".join(f"{k} ({v})" for k, v in left_out.items()))
        tags["airflow_mlops.metric_notes"] = json.dumps(left_out)
    if is_commit(code.commit):
        tags["mlflow.source.git.commit"] = code.commit.removesuffix("+dirty")
    now = int(time.time() * 1000)
    params = {**flat_parameters(payload.train.parameters), "seed": str(payload.train.seed)}
    # One request up to 1,000 metrics, parameters and tags; the client splits what is more.
    work.client.log_batch(
        work.run_id,
        metrics=[Metric(name, value, now, 0, model_id=model.model_id) for name, value in metrics.items()],
        params=[Param(name, runs.cut(value)) for name, value in params.items()],
        tags=[RunTag(name, runs.cut(value)) for name, value in tags.items()],
    )
    dataset = payload.dataset
    entity = Dataset(
        name=payload.model_name,
        digest=dataset.digest[:32],  # MLflow stores 36 characters; the whole digest is a tag
        source_type="airflow_mlops",
        source=json.dumps({"uri": dataset.uri, "manifest_uri": dataset.manifest_uri, "digest": dataset.digest}),
        profile=json.dumps({"num_rows": dataset.row_count, "num_files": dataset.file_count}),
    )
    work.client.log_inputs(work.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])


def _log_artifacts(result: TrainingResult, work: Work) -> None:
    if not result.artifacts:
        return
    folder = work.folder / "training"
    folder.mkdir(exist_ok=True)
    for label, path in result.artifacts.items():
        source = Path(path)
        if source.is_dir():
            shutil.copytree(source, folder / label, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, folder / label)
    work.client.log_artifacts(work.run_id, str(folder), "training")
