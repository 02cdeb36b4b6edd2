"""What a window is compared with: a profile, the columns that count, and the ones that are known and do not."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ServedModel
from airflow_mlops.engines import versions
from airflow_mlops.engines.artifacts import stored_json
from airflow_mlops.engines.logged_models import read_description
from airflow_mlops.engines.storage import describe
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mlops.steps.base import Work
    from airflow_mlops.steps.drift import DriftPayload

#: The schema that every profile of ours begins with.
_PROFILE = "profile/"


@dataclass(frozen=True)
class Compared:
    """Which columns of a window are compared with which profile.

    :param profile: of the reference; ``available`` names every column that its data had, where that is known.
    :param columns: the compared columns, in the reference's order.
    :param known: columns of the window that are no surprise and are not looked at.
    """

    profile: Mapping[str, Any]
    columns: tuple[str, ...]
    known: frozenset[str]
    notes: tuple[str, ...] = ()


def stored_profile(model: ServedModel, work: Work) -> dict[str, Any]:
    """Return the reference profile that was logged with a model version; the training rows are not read.

    :raises ModelRefusedError: the version has none, or it is gone or no profile.
    """
    mend = (
        "Train and promote a version with this package, which logs a profile with every model; or compare with rows of "
        "your own choice: snapshot them and pass `reference=` to DetectDriftOperator."
    )
    if model.profile_uri is None:
        raise ModelRefusedError(
            f"There is nothing to compare with: {model} has no reference profile, because it was not made by this "
            f"package. {mend}"
        )
    found = stored_json(work.client, model.profile_uri) if model.profile_uri.startswith("runs:/") else None
    if not isinstance(found, dict) or not str(found.get("schema", "")).startswith(_PROFILE) or "columns" not in found:
        raise ModelRefusedError(
            f"There is nothing to compare with: the reference profile of {model}, {model.profile_uri}, is gone or "
            f"is no profile. Restore the run that it belongs to. {mend}"
        )
    return found


def compared(payload: DriftPayload, profile: Mapping[str, Any], work: Work) -> Compared:
    """Settle which columns of the window are compared, and which others are no surprise.

    Compared are, by the first that is given: ``columns`` of the payload, of the specification, the model's features,
    every column of the profile.

    :param profile: of the reference.
    :raises InvalidSpecError: a column that was asked for by name is not in the profile, or none is left to compare.
    """
    hidden = frozenset(
        name
        for name in (
            *payload.data.id_columns,
            *payload.data.personal_columns,
            *payload.exclude,
            payload.data.event_time,
            payload.dataset.event_time,
        )
        if name is not None
    )
    available = profile["columns"]
    asked = payload.columns or payload.drift.columns
    if asked:
        for name in asked:
            _require(name, available, profile)
    features = None if asked or payload.model is None else payload.model.features or _signature(payload.model, work)
    wanted = asked or [name for name in (features or available) if name not in hidden]
    lacking = [name for name in wanted if name not in available]
    columns = tuple(name for name in available if name in set(wanted))
    if not columns:
        raise InvalidSpecError(
            f"No column is left to compare: the reference has {describe(list(available), 20)}; left out are "
            f"{describe(sorted(hidden), 20) or 'none'}. Name columns in drift.columns."
        )
    notes = [f"Not compared, because the reference profile does not have them: {describe(lacking)}."] if lacking else []
    return Compared(
        profile={**profile, **_available(payload, profile, work)},
        columns=columns,
        known=hidden,
        notes=tuple(notes),
    )


def _require(name: str, available: Collection[str], profile: Mapping[str, Any]) -> None:
    if name in available:
        return
    why = " It is an id or personal column, which is never profiled." if name in profile.get("excluded", ()) else ""
    close = get_close_matches(name, list(available), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InvalidSpecError(
        f"The column {name!r} was asked for, and the reference profile does not have it.{why}{hint} It has: "
        f"{describe(list(available), 20)}. Mend drift.columns."
    )


def _signature(model: ServedModel, work: Work) -> tuple[str, ...]:
    """Return the input columns of the model's own signature: a record cannot hold very many names."""
    found = read_description(work.client, model.artifact_uri, work.folder) or {}
    try:
        inputs = json.loads((found.get("signature") or {}).get("inputs") or "[]")
        return tuple(str(column["name"]) for column in inputs)
    except (ValueError, TypeError, KeyError):
        return ()


def _available(payload: DriftPayload, profile: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """Return the columns that the reference's data had, for the guard that looks for new ones."""
    if payload.reference is not None or payload.model is None:
        return {}
    # A model's profile is of its features: what other columns its training data had, the list of its files tells.
    version = versions.get_version(work.client, payload.model.name, payload.model.version)
    uri = None if version is None else version.tags.get(versions.MANIFEST_URI)
    manifest = stored_json(work.client, uri) if uri and uri.startswith("runs:/") else None
    if not isinstance(manifest, dict) or not manifest.get("columns"):
        return {}
    return {"available": {**dict(manifest["columns"]), **(profile.get("available") or {})}}
