"""Our numbers through Airflow's own stats client: statsd, Datadog or OpenTelemetry, whichever Airflow is set to use.

Every Airflow from 2.11 on starts that client in the task's own process, so there is nothing to set up. A backend that
carries tags gets ``airflow_mlops.drift_share`` with the tag ``model``; plain statsd drops tags, so there the values
stand in the name, ``airflow_mlops.drift_share.flights``. Airflow puts its own prefix (``airflow.``) before the names
and applies ``metrics_allow_list`` and ``metrics_block_list``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from airflow_mlops.compat import conf
from airflow_mlops.core.measures import Measure

log = logging.getLogger(__name__)


def stats_style() -> Literal["off", "tags", "names"]:
    """Say what the configured backend does with tags. Airflow tries Datadog, statsd and OpenTelemetry, in this order.

    A backend that is configured wrongly counts as off, with Airflow's own words in the log.
    """
    try:
        if _on("statsd_datadog_enabled"):
            return "tags" if _on("statsd_datadog_metrics_tags", True) else "names"
        if _on("statsd_on"):
            return "tags" if _on("statsd_influxdb_enabled") else "names"
        return "tags" if _on("otel_on") else "off"
    except Exception as exc:  # noqa: BLE001  # a switch that is neither true nor false ends no task
        log.warning("No metrics are sent, because Airflow's section [metrics] cannot be read: %s", exc)
        return "off"


def emit(measures: Iterable[Measure]) -> None:
    """Send the numbers; nothing where no stats are configured. A client that fails is logged and ends no task."""
    style = stats_style()
    if style == "off":
        return
    try:
        from airflow_mlops.compat import Stats

        for one in measures:
            name = one.full_name if style == "names" else one.name
            tags = None if style == "names" else one.safe_tags
            if one.kind == "counter":
                Stats.incr(name, int(one.value), tags=tags)
            else:
                Stats.gauge(name, one.value, tags=tags)
    except Exception as exc:  # noqa: BLE001  # whatever the client raises, the task's result stands
        log.warning("Metrics could not be sent: %s: %s. The task goes on.", type(exc).__name__, exc)


def _on(option: str, otherwise: bool = False) -> bool:
    return bool(conf.getboolean("metrics", option, fallback=otherwise))
