"""Registered model versions that are found again by key and input digest, and what their tags say.

MLflow registers the same model twice without a word. So key and digest go in as tags of the create call; afterwards
the search is made again: the lowest number with both wins, a loser marks itself ``duplicate_of``, and every reader
resolves by the lowest. The other tags hold all that a later evaluation needs of a champion, so that it can be found,
loaded and trusted even when the run that made it is gone.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.core.keys import key_id
from airflow_mlops.core.records import Window
from airflow_mlops.engines.runs import DUPLICATE_OF, INPUT_DIGEST, KEY, KEY_ID, SUPERSEDED_BY, cut
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

MODEL_ID = "airflow_mlops.model_id"
MODEL_DIGEST = "airflow_mlops.model_digest"
ARTIFACT_URI = "airflow_mlops.artifact_uri"
FLAVOR = "airflow_mlops.flavor"
SERIALIZATION = "airflow_mlops.serialization"
FEATURES = "airflow_mlops.features"
FEATURE_COUNT = "airflow_mlops.feature_count"
TARGET = "airflow_mlops.target"
DATASET_DIGEST = "airflow_mlops.dataset_digest"
WINDOW = "airflow_mlops.window"
TRAIN_WINDOW = "airflow_mlops.train_window"
GIT_COMMIT = "airflow_mlops.git_commit"
ENVIRONMENT_DIGEST = "airflow_mlops.environment_digest"
PROFILE_URI = "airflow_mlops.profile_uri"
EVIDENCE_URI = "airflow_mlops.evidence_uri"
DECISION_URI = "airflow_mlops.decision_uri"
VERDICT = "airflow_mlops.verdict"
MODE = "airflow_mlops.mode"
LEDGER_ENTRY = "airflow_mlops.ledger_entry"
#: The alias whose champion the candidate was compared with.
JUDGED_ALIAS = "airflow_mlops.judged_alias"
TASK_URL = "airflow_mlops.task_url"
SIZE_BYTES = "airflow_mlops.size_bytes"
ROW_COUNT = "airflow_mlops.row_count"
SEED = "airflow_mlops.seed"
CODE_DIGEST = "airflow_mlops.code_digest"
PARAMETERS_DIGEST = "airflow_mlops.parameters_digest"
SOURCE_URI = "airflow_mlops.source_uri"
TRAIN_RUN = "airflow_mlops.train_run"
TRAIN_KEY = "airflow_mlops.train_key"
DATA_URI = "airflow_mlops.data_uri"
MANIFEST_URI = "airflow_mlops.manifest_uri"
VALIDATION_RUN = "airflow_mlops.validation_run"
EVALUATION_MANIFEST_URI = "airflow_mlops.evaluation_manifest_uri"
EVALUATION_VALIDATION_RUN = "airflow_mlops.evaluation_validation_run"
SERVING_RUN = "airflow_mlops.serving_run"
CARD_URI = "airflow_mlops.card_uri"
#: JSON list of the lineage facts that were blank when a person had the version registered all the same.
BLANK = "airflow_mlops.blank"
PAGE = 1_000
#: MLflow's SQL stores hold 5,000 characters of description and 100,000 of a model version's tag.
MAX_DESCRIPTION = 4_900
MAX_FEATURES_TAG = 90_000
LEDGER_ENDING = ".promotions"
_UNUSABLE = re.compile(r"""[/:%?#@'"`\\\x00-\x1f]""")


@dataclass(frozen=True)
class VersionFacts:
    """What a version's tags say of its model. None and ``lacks`` where they do not; nothing is guessed.

    :param lacks: what an evaluation would want and this version does not say, in words.
    """

    version: int
    model_uri: str
    artifact_uri: str
    run_id: str | None
    model_id: str | None
    flavor: str | None
    model_digest: str | None
    features: tuple[str, ...] | None
    train_window: Window | None
    window: Window | None
    dataset_digest: str | None
    profile_uri: str | None
    evidence_uri: str | None
    lacks: tuple[str, ...]


def check_name(name: str) -> str:
    """Return the registered model's name if it can be searched for and promoted.

    :raises InvalidSpecError: it holds a character that MLflow's URIs or filters cannot carry, or is a ledger's name.
    """
    unusable = _UNUSABLE.search(name)
    if not name or name != name.strip() or unusable is not None:
        what = f"it has the character {unusable[0]!r}" if unusable else "it is empty or has blanks at an end"
        raise InvalidSpecError(
            f"{name!r} cannot be a registered model's name: {what}. Use letters, digits, '_', '-' and '.'."
        )
    if name.endswith(LEDGER_ENDING):
        raise InvalidSpecError(
            f"{name!r} cannot be a registered model's name: names ending in {LEDGER_ENDING!r} are promotion ledgers. "
            f"Give the model's own name, {name.removesuffix(LEDGER_ENDING)!r}."
        )
    return name


def ensure_registered_model(client: MlflowClient, name: str, *, description: str, tags: Mapping[str, str]) -> None:
    """Create the registered model unless it is there; several creators at once are fine."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags=dict(tags), description=description[:MAX_DESCRIPTION] or None)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def search(client: MlflowClient, name: str, extra: str = "") -> Iterator[ModelVersion]:
    """Yield the versions of ``name`` by rising number. ``extra`` is more of MLflow's filter, starting with `` AND``."""
    token: str | None = None
    while True:
        page = client.search_model_versions(
            f"name = '{name}'{extra}", max_results=PAGE, order_by=["version_number ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def get_version(client: MlflowClient, name: str, version: int) -> ModelVersion | None:
    """Return a version, or None where it was deleted or never was."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def alias_version(client: MlflowClient, name: str, alias: str) -> int | None:
    """Return the version that the alias names, or None without alias or model.

    Read from the registered model: MLflow's search for versions returns empty aliases (mlflow/mlflow#16734).
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name).aliases.get(alias)
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return None if found is None else int(found)


def set_version_tag(client: MlflowClient, name: str, version: int | str, tag: str, value: str) -> None:
    """Set a tag of a version; several who set the same new tag at once are fine."""
    from mlflow.exceptions import MlflowException

    for attempt in (1, 2):
        try:
            client.set_model_version_tag(name, str(version), tag, value)
            return
        except MlflowException as exc:
            # MLflow answers with the database's own error when two insert one row. The second time it updates.
            if exc.error_code != "BAD_REQUEST" or attempt == 2:
                raise


def _delete_version_tag(client: MlflowClient, name: str, version: int | str, tag: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_model_version_tag(name, str(version), tag)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def versions_of_key(client: MlflowClient, name: str, key: str) -> list[ModelVersion]:
    """Return every version that ``key`` made and that is no duplicate, by rising number."""
    found = search(client, name, f" AND tags.`{KEY_ID}` = '{key_id(key)}'")
    return [version for version in found if DUPLICATE_OF not in version.tags]


def find_version(client: MlflowClient, name: str, *, key: str, input_digest: str) -> ModelVersion | None:
    """Return the version of this key and digest, the lowest where a lost reply or a zombie made several."""
    return next((v for v in versions_of_key(client, name, key) if v.tags.get(INPUT_DIGEST) == input_digest), None)


def create_once(
    client: MlflowClient,
    name: str,
    *,
    key: str,
    input_digest: str,
    source: str,
    run_id: str | None,
    model_id: str | None,
    tags: Mapping[str, str],
    description: str,
) -> ModelVersion:
    """Return the one version of this key and input digest, creating it where there is none.

    Versions of the same key and another digest are tagged ``superseded_by`` the returned one.
    """
    if (found := find_version(client, name, key=key, input_digest=input_digest)) is not None:
        log.info("Version %s of %s was registered by this task before; using it.", found.version, name)
    else:
        client.create_model_version(
            name,
            source,
            run_id=run_id,
            tags={**tags, KEY: cut(key), KEY_ID: key_id(key), INPUT_DIGEST: input_digest},
            description=_within(description),
            await_creation_for=None,  # do not wait: there is nothing to copy
            model_id=model_id,
        )
        pause("after-registration")
    return settle_key(client, name, key=key, input_digest=input_digest)


def pause(point: str) -> None:
    """Do nothing. Fault tests put a delay or a kill here; ``point`` says which place was reached."""


def settle_key(client: MlflowClient, name: str, *, key: str, input_digest: str) -> ModelVersion:
    """Return the version of this key and digest; mark its duplicates, and what the key made of other inputs."""
    rivals = versions_of_key(client, name, key)
    same = [version for version in rivals if version.tags.get(INPUT_DIGEST) == input_digest]
    if not same:
        raise InvalidSpecError(
            f"The version of {name!r} that was just registered is gone: somebody deleted it. Clear this task."
        )
    winner, losers = same[0], same[1:]
    for loser in losers:
        log.info("Version %s of %s is a duplicate of %s.", loser.version, name, winner.version)
        set_version_tag(client, name, loser.version, DUPLICATE_OF, str(winner.version))
    if SUPERSEDED_BY in winner.tags:
        _delete_version_tag(client, name, winner.version, SUPERSEDED_BY)
    for old in rivals:
        superseded = old.tags.get(INPUT_DIGEST) != input_digest
        if superseded and old.tags.get(SUPERSEDED_BY) != str(winner.version):
            set_version_tag(client, name, old.version, SUPERSEDED_BY, str(winner.version))
    return winner


def facts_of(version: ModelVersion) -> VersionFacts:
    """Read what a version's tags say."""
    tags = version.tags
    model_id = tags.get(MODEL_ID) or getattr(version, "model_id", None) or None
    facts = {
        "model digest": tags.get(MODEL_DIGEST),
        "flavor": tags.get(FLAVOR),
        "feature list": _features(tags),
        "training window": read_span(tags.get(TRAIN_WINDOW)),
        "data window": read_span(tags.get(WINDOW)),
        "dataset digest": tags.get(DATASET_DIGEST),
        "reference profile": tags.get(PROFILE_URI),
    }
    return VersionFacts(
        version=int(version.version),
        model_uri=f"models:/{model_id}" if model_id else f"models:/{version.name}/{version.version}",
        artifact_uri=tags.get(ARTIFACT_URI) or str(version.source),
        run_id=version.run_id or None,
        model_id=model_id,
        flavor=tags.get(FLAVOR),
        model_digest=tags.get(MODEL_DIGEST),
        features=_features(tags),
        train_window=read_span(tags.get(TRAIN_WINDOW)),
        window=read_span(tags.get(WINDOW)),
        dataset_digest=tags.get(DATASET_DIGEST),
        profile_uri=tags.get(PROFILE_URI),
        evidence_uri=tags.get(EVIDENCE_URI),
        lacks=tuple(name for name, value in facts.items() if value is None),
    )


def write_span(window: Window | None) -> str | None:
    """Return a window as an ISO 8601 interval, ``start/end``."""
    return None if window is None else f"{window.start.isoformat()}/{window.end.isoformat()}"


def read_span(text: str | None) -> Window | None:
    """Read :func:`write_span`'s text; None where it is missing or, in a version of other making, unreadable."""
    start, slash, end = (text or "").partition("/")
    if not slash:
        return None
    try:
        return Window.model_validate({"start": start, "end": end})
    except ValueError:
        return None


def write_features(features: tuple[str, ...], count: int) -> str | None:
    """Return the feature list as JSON, or None where the record does not hold them all or a tag could not."""
    text = json.dumps(list(features), ensure_ascii=False)
    return text if features and len(features) == count and len(text) <= MAX_FEATURES_TAG else None


def _features(tags: Mapping[str, str]) -> tuple[str, ...] | None:
    try:
        value = json.loads(tags.get(FEATURES, "null"))
    except json.JSONDecodeError:
        return None
    return tuple(map(str, value)) if isinstance(value, list) and value else None


def _within(description: str) -> str:
    return description if len(description) <= MAX_DESCRIPTION else f"{description[: MAX_DESCRIPTION - 1]}…"
