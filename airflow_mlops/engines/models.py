"""Models as folders: saved in one flavour, fingerprinted, logged to MLflow, fetched, checked and loaded.

Nothing here uses MLflow's fluent API, whose active run and tracking URI belong to the whole process.

The digest of a model is the SHA-256 over the relative path and the SHA-256 of every file in its folder, sorted by path.
Two files are special: ``MLmodel`` counts without what MLflow puts in anew each time (run and model ids, its UUID, the
time, the folder's name), and ``registered_model_meta``, which MLflow writes beside a downloaded model, does not count.
So the digest of what is saved equals that of what is fetched, and covers everything that loading reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.keys import digest_of
from airflow_mlops.engines.flavors import accepted, flavor_module, predicts_frames, save_arguments
from airflow_mlops.engines.runs import DUPLICATE_OF, cut
from airflow_mlops.engines.signatures import output_schema, predicted
from airflow_mlops.errors import InvalidSpecError, MLOpsError, ModelRefusedError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.types import Schema

    from airflow_mlops.engines.tracking import TrackingServer

log = logging.getLogger(__name__)

MODEL_FILE = "MLmodel"
PROFILE_FILE = "reference_profile.json"
DIGEST_TAG = "airflow_mlops.model_digest"
#: What MLflow writes anew into every MLmodel file; none of it changes what is loaded.
_VOLATILE_KEYS = ("artifact_path", "model_id", "model_uuid", "run_id", "utc_time_created")
_VOLATILE_FILES = ("registered_model_meta",)


@dataclass(frozen=True)
class SavedModel:
    """A model in a folder of this machine."""

    folder: Path
    flavor: str
    serialization: str
    digest: str
    size_bytes: int


# --- The folder ---------------------------------------------------------------------------------------------------


def model_digest(folder: Path) -> str:
    """Return the digest of the model in ``folder``; the module's text says what it covers.

    :raises ModelRefusedError: there is no model, or a link or an unreadable ``MLmodel`` is among its files.
    """
    if not (folder / MODEL_FILE).is_file():
        raise ModelRefusedError(f"There is no model at {folder}: the file {MODEL_FILE} is missing.")
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ModelRefusedError(f"The model at {folder} holds a link, {name}; only plain files can be vouched for.")
        if name == MODEL_FILE:
            hashes[name] = digest_of(_normal(path))
        elif path.is_file() and name not in _VOLATILE_FILES:
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of(hashes)


def _normal(file: Path) -> dict[str, Any]:
    content = {key: value for key, value in _mlmodel(file).items() if key not in _VOLATILE_KEYS}
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))  # YAML knows dates, JSON does not
    return plain


def _mlmodel(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ModelRefusedError(f"The model's file {file} is not readable YAML: {exc}") from exc
    if not isinstance(content, dict) or not isinstance(content.get("flavors"), dict):
        raise ModelRefusedError(f"The model's file {file} names no flavours, so it is not an MLflow model.")
    return content


def size_of(folder: Path) -> int:
    """Return the bytes of all files in ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- Saving -------------------------------------------------------------------------------------------------------


def save_model(
    model: Any,
    folder: Path,
    *,
    flavor: str,
    serialization: str,
    inputs: Schema,
    sample: pd.DataFrame,
    example: pd.DataFrame,
    classifier: bool,
    requirements: Sequence[str],
    metadata: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> SavedModel:
    """Store ``model`` in ``folder`` in the flavour's format, with signature, input example and requirements.

    :param folder: must not exist, or be empty.
    :param serialization: what :func:`airflow_mlops.engines.flavors.check_format` returned.
    :param inputs: the schema of the features; see :func:`airflow_mlops.engines.signatures.input_schema`.
    :param sample: a few rows of features; what the model predicts for them gives the schema of its outputs.
    :param example: the input example; see :func:`airflow_mlops.engines.signatures.input_example`.
    :param classifier: for a scikit-learn classifier, serve class probabilities (in the order of the model's
        ``classes_``, which goes into the metadata) rather than labels.
    :param requirements: pip requirements; MLflow would infer them in a subprocess, which takes a minute.
    :param files: further text files of the model's folder, by name.
    :raises ModelRefusedError: the model gets no signature, or the flavour cannot store it in this format.
    """
    from mlflow.models import ModelSignature

    module = flavor_module(flavor)
    native = predicts_frames(flavor, model)
    served_proba = classifier and flavor == "sklearn" and hasattr(model, "predict_proba")
    notes = dict(metadata or {})
    arguments: dict[str, Any] = {
        **save_arguments(flavor, serialization, model),
        "path": str(folder),
        "input_example": example,
        "pip_requirements": list(requirements),
    }
    if classifier and hasattr(model, "classes_"):
        notes["classes"] = [value.item() if hasattr(value, "item") else value for value in model.classes_]
    if served_proba:
        arguments["pyfunc_predict_fn"] = "predict_proba"
    if native:
        # What MLflow's own scoring of the saved model will return, so that the signature tells the truth about it.
        served = predicted(model, sample, classifier=served_proba)
        _check_length(served, sample)
        arguments["signature"] = ModelSignature(inputs=inputs, outputs=output_schema(served))
    else:
        arguments["signature"] = False
    arguments |= accepted(module.save_model, {"metadata": notes})
    try:
        _call_save(module.save_model, model, flavor, arguments)
        if not native:
            _add_signature(folder, inputs, sample)
    except MLOpsError:
        raise
    except Exception as exc:
        raise ModelRefusedError(
            f"A {type(model).__module__}.{type(model).__qualname__} cannot be stored by the flavour {flavor!r} as "
            f"{serialization!r}: {type(exc).__name__}: {exc}. Check train.flavor and train.serialization, and that "
            f"the model holds no open file, lock, generator or lambda."
        ) from exc
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    return SavedModel(folder, flavor, serialization, model_digest(folder), size_of(folder))


def _call_save(save: Any, model: Any, flavor: str, arguments: dict[str, Any]) -> None:
    if flavor == "pyfunc":
        save(python_model=model, **arguments)
    else:
        save(model, **arguments)


def _add_signature(folder: Path, inputs: Schema, sample: pd.DataFrame) -> None:
    """Give a model that only MLflow's wrapper can use its signature, from what the wrapper predicts."""
    from mlflow.models import Model, ModelSignature

    served = load_predictor(folder).predict(sample)
    _check_length(served, sample)
    described = Model.load(str(folder))
    described.signature = ModelSignature(inputs=inputs, outputs=output_schema(served))
    described.save(str(folder / MODEL_FILE))


def _check_length(predictions: Any, sample: pd.DataFrame) -> None:
    if not hasattr(predictions, "__len__") or len(predictions) != len(sample):
        size = len(predictions) if hasattr(predictions, "__len__") else "no"
        raise ModelRefusedError(
            f"The model gives {size} predictions for {len(sample)} rows; it must give one per row, in order."
        )


# --- Loading ------------------------------------------------------------------------------------------------------


def load_predictor(path: Path, flavor: str | None = None) -> Any:
    """Load the model in ``path``, whose digest was checked before.

    :param flavor: None: the flavour that the model's own file names first, beside the generic one.
    :return: scikit-learn, LightGBM, XGBoost and CatBoost models as they were trained (``predict``, and
        ``predict_proba`` of classifiers); any other as MLflow's ``PyFuncModel``, which has ``predict`` only.
    :raises ModelRefusedError: it cannot be loaded here; the message says what it needs and what is installed.
    """
    import mlflow.pyfunc

    flavors = _mlmodel(path / MODEL_FILE)["flavors"]
    named = flavor or next((name for name in flavors if name != mlflow.pyfunc.FLAVOR_NAME), None)
    if named is not None and named not in flavors and named != "pyfunc":
        raise ModelRefusedError(f"The model at {path} has no flavour {named!r}; it has {', '.join(sorted(flavors))}.")
    try:
        if named not in (None, "pyfunc"):
            model = _native(str(named), path)
            if model is not None:
                return model
        return mlflow.pyfunc.load_model(str(path))
    except MLOpsError:
        raise
    except Exception as exc:
        needs = path / "requirements.txt"
        needed = ", ".join(needs.read_text().split()) if needs.is_file() else "not recorded"
        raise ModelRefusedError(
            f"The model at {path} cannot be loaded: {type(exc).__name__}: {exc}. It was made with: {needed}. "
            f"Compare these with what is installed here."
        ) from exc


def _native(flavor: str, path: Path) -> Any | None:
    """Return the flavour's own model if it can predict data frames, else None."""
    if flavor not in ("sklearn", "lightgbm", "xgboost", "catboost"):
        return None
    model = flavor_module(flavor).load_model(str(path))
    return model if predicts_frames(flavor, model) else None


# --- MLflow -------------------------------------------------------------------------------------------------------


def log_model(
    client: MlflowClient,
    saved: SavedModel,
    *,
    experiment_id: str,
    run_id: str,
    name: str,
    tags: Mapping[str, str],
) -> LoggedModel:
    """Store a saved model in MLflow as the output of a run, and return it, ready.

    A run whose worker was killed is resumed, so models of an earlier attempt are looked for first: a finished one
    with the same digest is used instead of storing it again; any other is marked as failed, or as a duplicate.

    :param name: the logged model's name; the unique id is MLflow's.
    :param tags: written when the model is created; the digest's is added.
    """
    earlier = list(client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"))
    model = _reusable(earlier, saved.digest, client)
    if model is None:
        model = client.create_logged_model(
            experiment_id,
            name=name,
            source_run_id=run_id,
            tags={tag: cut(value) for tag, value in {**tags, DIGEST_TAG: saved.digest}.items()},
        )
        client.log_model_artifacts(model.model_id, str(saved.folder))
        model = client.finalize_logged_model(model.model_id, "READY")
    else:
        log.info("Using the logged model %s, which an earlier attempt of this task finished.", model.model_id)
    for other in earlier:
        if other.model_id == model.model_id:
            continue
        if str(other.status) == "READY":
            client.set_logged_model_tags(other.model_id, {DUPLICATE_OF: model.model_id})
        elif str(other.status) == "PENDING":
            client.finalize_logged_model(other.model_id, "FAILED")
    _link_to_run(client, run_id, model.model_id)
    return model


def _link_to_run(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Make the model an output of the run; it may be one since an attempt that was killed or whose reply was lost."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    try:
        client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])
    except MlflowException:
        outputs = client.get_run(run_id).outputs
        if outputs is None or model_id not in [output.model_id for output in outputs.model_outputs]:
            raise


def _reusable(earlier: Sequence[LoggedModel], digest: str, client: MlflowClient) -> LoggedModel | None:
    from airflow_mlops.engines.logged_models import has_files

    finished = [
        model
        for model in earlier
        if str(model.status) == "READY"
        and model.tags.get(DIGEST_TAG) == digest
        and DUPLICATE_OF not in model.tags
        and has_files(client, model.artifact_location)
    ]
    return min(finished, key=lambda model: (model.creation_timestamp, model.model_id), default=None)


def fetch_model(client: MlflowClient, server: TrackingServer, uri: str, digest: str | None, folder: Path) -> Path:
    """Download a model into ``folder`` and check it before anything of it is loaded.

    :param uri: ``models:/m-ID``, ``models:/NAME/VERSION``, ``runs:/RUN/PATH`` or an artifact location.
    :param digest: what it must be; None only where nobody recorded one, such as for a model adopted from elsewhere.
    :param folder: an empty folder, made if it is not there.
    :return: the folder that holds the ``MLmodel`` file.
    :raises ModelRefusedError: the model is not there, or its digest is another one; the message names both.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder.mkdir(parents=True, exist_ok=True)
    try:
        location = artifact_location(client, uri)
        # `models:/` addresses are resolved here: MLflow's own resolver asks the process-wide tracking URI.
        repository = get_artifact_repository(location, tracking_uri=server.tracking_uri)
        path = Path(repository.download_artifacts("", str(folder)))
    except MlflowException as exc:
        if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise
        raise ModelRefusedError(f"The model {uri} cannot be fetched: {exc.message}") from exc
    actual = model_digest(path)
    if digest is not None and actual != digest:
        raise ModelRefusedError(
            f"The model {uri} is not the one that was logged: its digest is {actual}, the record says {digest}. "
            f"Somebody changed its files. It was not loaded; train again, or restore the files."
        )
    return path


def artifact_location(client: MlflowClient, uri: str) -> str:
    """Return where the files behind a model's URI are, for MLflow's artifact repositories.

    :raises InvalidSpecError: the URI has none of the known forms.
    """
    scheme, _, rest = uri.partition(":")
    parts = rest.strip("/").split("/")
    if scheme == "models" and len(parts) == 1 and parts[0].startswith("m-"):
        return str(client.get_logged_model(parts[0]).artifact_location)
    if scheme == "models" and len(parts) == 2 and parts[1].isdigit():
        source = client.get_model_version_download_uri(parts[0], parts[1])
        return artifact_location(client, source) if source != uri else str(source)
    if scheme == "runs" and len(parts) > 1:
        return "/".join([str(client.get_run(parts[0]).info.artifact_uri).rstrip("/"), *parts[1:]])
    if scheme in ("models", "runs") or not (rest or uri.startswith("/")):
        raise InvalidSpecError(
            f"{uri!r} is no model; it must be models:/m-ID, models:/NAME/VERSION, runs:/RUN/PATH or an artifact "
            f"location such as s3://BUCKET/PATH."
        )
    return uri
