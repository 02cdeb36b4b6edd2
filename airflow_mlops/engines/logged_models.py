"""What a logged model must have before it may become a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from airflow_mlops.core.records import TrainedModel
from airflow_mlops.engines.models import DIGEST_TAG, MODEL_FILE
from airflow_mlops.errors import ModelRefusedError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def require_registrable(client: MlflowClient, model: TrainedModel, folder: Path) -> None:
    """Check that a version of ``model`` could be found, loaded and trusted.

    :param folder: scratch space for the model's description; its weights are not fetched.
    :raises ModelRefusedError: something is missing; every missing thing is named.
    """
    from mlflow.exceptions import MlflowException

    missing = [
        what
        for what, value in (
            ("the digest of its files", model.digest),
            ("its flavor", model.flavor),
        )
        if not value
    ]
    try:
        logged = client.get_logged_model(model.model_id)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelRefusedError(
            f"The model {model.model_uri} cannot be registered: MLflow does not have it (deleted, or logged to another "
            f"server). Clear the train task to make it again."
        ) from exc
    if str(logged.status) != "READY":
        missing.append(f"a finished upload (its status in MLflow is {logged.status})")
    else:
        missing.extend(_missing_in_description(client, logged.artifact_location, model, folder))
    logged_digest = logged.tags.get(DIGEST_TAG)
    if logged_digest is not None and model.digest and logged_digest != model.digest:
        raise ModelRefusedError(
            f"The model {model.model_uri} cannot be registered: it was logged with digest {logged_digest[:12]}, the "
            f"record says {model.digest[:12]}. Pass the record of the task that logged it."
        )
    if missing:
        raise ModelRefusedError(
            f"The model {model.model_uri} cannot be registered, because it lacks {', '.join(missing)}. Clear the train "
            f"task; a model that was logged by hand needs mlflow's signature and TrainModelOperator's record."
        )


def is_intact(client: MlflowClient, model: TrainedModel) -> bool:
    """Say whether the logged model still exists, is complete, and is the one of the record. No weights are fetched."""
    from mlflow.exceptions import MlflowException

    try:
        logged = client.get_logged_model(model.model_id)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    if str(logged.status) != "READY" or logged.tags.get(DIGEST_TAG) != model.digest:
        return False
    return has_files(client, logged.artifact_location)


def has_files(client: MlflowClient, location: str) -> bool:
    """Say whether there is an MLmodel file at ``location``, from one listing."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        found = get_artifact_repository(location, tracking_uri=client.tracking_uri).list_artifacts()
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return any(item.path == MODEL_FILE and not item.is_dir for item in found)


def _missing_in_description(client: MlflowClient, location: str, model: TrainedModel, folder: Path) -> list[str]:
    found = read_description(client, location, folder)
    if found is None:
        return ["its MLmodel file"]
    missing = []
    signature = found.get("signature") or {}
    if not signature.get("inputs"):
        missing.append("a signature with inputs")
    if not signature.get("outputs"):
        missing.append("a signature with outputs")
    flavors = found.get("flavors") or {}
    # MLflow's file calls the flavour of `mlflow.pyfunc` by another name.
    if model.flavor and ("python_function" if model.flavor == "pyfunc" else model.flavor) not in flavors:
        missing.append(f"the flavor {model.flavor!r} (it has {', '.join(flavors) or 'none'})")
    return missing


def read_description(client: MlflowClient, location: str, folder: Path) -> dict[str, Any] | None:
    """Fetch and read a model's MLmodel file, or return None where there is none.

    :param location: where the model's files are, as MLflow names it.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target = folder / "description"
    target.mkdir(parents=True, exist_ok=True)
    try:
        path = download_artifacts(
            artifact_uri=f"{location.rstrip('/')}/MLmodel", dst_path=str(target), tracking_uri=client.tracking_uri
        )
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except MlflowException as exc:
        if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") and "404" not in str(exc):
            raise
        return None
    except (FileNotFoundError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None
