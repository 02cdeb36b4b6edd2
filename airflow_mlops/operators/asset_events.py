"""Events of Assets: one for every Asset alias among a task's outlets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.compat import Asset, AssetAlias
from airflow_mlops.operators.base import as_bool
from airflow_mlops.operators.context import is_backfill

if TYPE_CHECKING:
    from airflow_mlops.compat import Context

log = logging.getLogger(__name__)


def aliases(outlets: Any) -> list[AssetAlias]:
    """Return the Asset aliases among a task's outlets: a plain Asset gets its event from Airflow itself."""
    return [outlet for outlet in outlets or () if isinstance(outlet, AssetAlias)]


def emit(context: Context, outlet: AssetAlias, extra: Mapping[str, Any]) -> None:
    """Add an event of the Asset that has the alias's name; Airflow publishes it if the task succeeds.

    :param extra: plain JSON, what consumers read.
    """
    context["outlet_events"][outlet].add(Asset(outlet.name), extra=dict(extra))


def is_silent(context: Context, emit_in_backfill: bool | str) -> bool:
    """Say whether events are held back, because the run belongs to a backfill, and log it."""
    if not is_backfill(context) or as_bool(emit_in_backfill):
        return False
    log.info("No Asset event: this run is a backfill.")
    return True
