"""Events of Assets: one for every Asset alias among a task's outlets."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_mlops.compat import AIRFLOW_VERSION, Asset, AssetAlias
from airflow_mlops.operators.base import as_bool
from airflow_mlops.operators.context import is_backfill

if TYPE_CHECKING:
    from airflow_mlops.compat import Context

log = logging.getLogger(__name__)
#: The key of an event's extra that names, as a JSON list, the keys whose values are JSON text.
ENCODED = "airflow_mlops.json_text"
_TAKES_OBJECTS = AIRFLOW_VERSION.release >= (3, 2)
#: What earlier releases wrote as JSON text, without naming it.
_ENCODED_BEFORE = ("window",)


def aliases(outlets: Any) -> list[AssetAlias]:
    """Return the Asset aliases among a task's outlets: a plain Asset gets its event from Airflow itself."""
    return [outlet for outlet in outlets or () if isinstance(outlet, AssetAlias)]


def emit(context: Context, outlet: AssetAlias, extra: Mapping[str, Any]) -> None:
    """Add an event of the Asset that has the alias's name; Airflow publishes it if the task succeeds.

    :param extra: plain JSON, what consumers read. Airflow before 3.2 takes no objects and lists there (it fails the
        task after its work is done), so there those of its values that are such arrive as JSON text, and the names of
        their keys under :data:`ENCODED`.
    """
    context["outlet_events"][outlet].add(Asset(outlet.name), extra=_written(extra))


def read_extra(event: Any) -> dict[str, Any]:
    """Return what an event says, the same on every Airflow; nothing for an event without an extra."""
    extra = dict(getattr(event, "extra", None) or {})
    encoded = _encoded_in(extra)
    return {key: _decoded(value) if key in encoded else value for key, value in extra.items() if key != ENCODED}


def _written(extra: Mapping[str, Any]) -> dict[str, Any]:
    encoded = [key for key, value in extra.items() if not _TAKES_OBJECTS and isinstance(value, Mapping | list | tuple)]
    given = {key: json.dumps(value, sort_keys=True) if key in encoded else value for key, value in extra.items()}
    # Without the mark a text there would be taken for one that an earlier release encoded.
    if encoded or any(isinstance(given.get(key), str) for key in _ENCODED_BEFORE):
        given[ENCODED] = json.dumps(encoded)
    return given


def _encoded_in(extra: Mapping[str, Any]) -> Collection[str]:
    named = _decoded(extra.get(ENCODED))
    return [key for key in named if isinstance(key, str)] if isinstance(named, list) else _ENCODED_BEFORE


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(value)
    return value


def is_silent(context: Context, emit_in_backfill: bool | str) -> bool:
    """Say whether events are held back, because the run belongs to a backfill, and log it."""
    if not is_backfill(context) or as_bool(emit_in_backfill):
        return False
    log.info("No Asset event: this run is a backfill.")
    return True
