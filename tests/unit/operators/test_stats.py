"""Our numbers in Airflow's own metrics: which, under which names, and through Airflow's real clients."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from airflow_mlops.compat import AIRFLOW_VERSION, Stats
from airflow_mlops.core.measures import MAX_PART, Measure, measures_of, name_part
from airflow_mlops.core.monitoring_records import (
    DriftReport,
    PerformanceReport,
    PolicyDecision,
    ScoringReport,
    ServedModel,
)
from airflow_mlops.core.records import DatasetVersion, GateDecision, Promotion
from airflow_mlops.operators import own_stats
from airflow_mlops.operators.own_stats import emit, stats_style

MODEL = ServedModel(name="dev.ann.flights", version=3, model_uri="m", artifact_uri="a")


def drift(**more: Any) -> DriftReport:
    known: dict[str, Any] = {
        "verdict": "drift", "sentence": "", "window": None, "model": MODEL, "reference": "r", "row_count": 9,
        "share": 0.25,
    }  # fmt: skip
    return DriftReport(**{**known, **more})


def scored() -> ScoringReport:
    return ScoringReport(
        sentence="", window=None, model=MODEL, dataset_digest="d", task="binary", output_uri="o", output_digest="d",
        byte_count=1, row_count=12, scored_count=10, quarantined_count=2, key="k", input_digest="i",
    )  # fmt: skip


def realised(state: Any = "final") -> PerformanceReport:
    return PerformanceReport(
        state=state, sentence="", window=None, model=MODEL, row_count=9, labelled_count=9, coverage=0.75,
        metrics={"roc_auc": 0.7, "acme:lift": 2.0, "undefined": None},
    )  # fmt: skip


def promotion(outcome: Any = "promoted") -> Promotion:
    return Promotion(outcome=outcome, name="flights", alias="champion", sentence="")


def decision(action: Any = "none", **more: Any) -> PolicyDecision:
    return PolicyDecision(action=action, sentence="", window=None, **more)


def sent(record: Any, **more: Any) -> dict[str, float]:
    return {one.full_name: one.value for one in measures_of(record, model="flights", **more)}


@pytest.mark.parametrize(
    ("record", "step", "expected"),
    [
        pytest.param(
            drift(), "drift", {"drift_share.dev__ann__flights": 0.25, "drift_verdict.dev__ann__flights.drift": 1},
            id="drift",
        ),
        pytest.param(
            drift(model=None, share=None, verdict="insufficient"), "drift", {"drift_verdict.flights.insufficient": 1},
            id="drift without a share or a model",
        ),
        pytest.param(
            realised(), "performance",
            {
                "label_coverage.dev__ann__flights": 0.75, "performance.roc_auc.dev__ann__flights.final": 0.7,
                "performance.acme_lift.dev__ann__flights.final": 2.0,
            },
            id="performance, an undefined metric left out",
        ),
        pytest.param(realised("waiting"), "performance", {"label_coverage.dev__ann__flights": 0.75}, id="few labels"),
        pytest.param(decision(champion_age_days=34.5), "policy", {"champion_age_days.flights": 34.5}, id="the age"),
        pytest.param(decision(), "policy", {}, id="no champion"),
        pytest.param(decision("retrain"), "policy", {"retrains.flights": 1}, id="a retrain that was asked for"),
        pytest.param(decision("rollback"), "policy", {"rollbacks.flights": 1}, id="a policy that rolled back"),
        pytest.param(
            scored(), "score", {"rows_scored.dev__ann__flights": 10, "rows_quarantined.dev__ann__flights": 2},
            id="a batch",
        ),
        pytest.param(promotion(), "promote", {"promotions.flights": 1}, id="a promotion"),
        pytest.param(promotion(), "rollback", {"rollbacks.flights": 1}, id="a rollback"),
        pytest.param(promotion("superseded"), "promote", {}, id="a lost race"),
        pytest.param(GateDecision.model_construct(verdict="hold"), "gate", {"holds.flights": 1}, id="a hold"),
        pytest.param(GateDecision.model_construct(verdict="promote"), "gate", {}, id="a candidate let through"),
    ],
)  # fmt: skip
def test_a_record_gives_its_numbers(record: Any, step: str, expected: dict[str, float]) -> None:
    assert sent(record, step=step) == {f"airflow_mlops.{name}": value for name, value in expected.items()}


def test_in_a_backfill_old_gauges_do_not_stand_as_the_newest() -> None:
    assert sent(drift(), backfill=True) == {"airflow_mlops.drift_verdict.dev__ann__flights.drift": 1}
    assert len(sent(scored(), backfill=True)) == 2


def test_other_records_give_none() -> None:
    dataset = DatasetVersion(
        digest="d", uri="u", format="csv", row_count=1, file_count=1, byte_count=1, column_count=1, manifest_uri="m"
    )

    assert measures_of(dataset, model="flights") == ()


@pytest.mark.parametrize(
    ("name", "part"),
    [("flights", "flights"), ("a.b", "a__b"), ("a b/c:d", "a_b_c_d"), ("Größe", "Gr__e"), ("", "unknown")],
)
def test_names_obey_statsd(name: str, part: str) -> None:
    assert name_part(name) == part


def test_long_names_stay_apart_and_short_enough() -> None:
    first, second = name_part("n" * 300 + "1"), name_part("n" * 300 + "2")

    assert first != second
    assert len(first) == len(second) == MAX_PART


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set options of Airflow's section [metrics]."""

    def configure(**options: object) -> None:
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", str(value))

    return configure


@pytest.mark.parametrize(
    ("options", "style"),
    [
        pytest.param({}, "off", id="nothing configured"),
        pytest.param({"statsd_on": True}, "names", id="plain statsd drops tags"),
        pytest.param({"statsd_on": True, "statsd_influxdb_enabled": True}, "tags", id="InfluxDB's statsd"),
        pytest.param({"statsd_on": True, "otel_on": True}, "names", id="statsd comes before OpenTelemetry"),
        pytest.param({"statsd_datadog_enabled": True}, "tags", id="Datadog"),
        pytest.param(
            {"statsd_datadog_enabled": True, "statsd_datadog_metrics_tags": False}, "names", id="without tags"
        ),
        pytest.param({"otel_on": True}, "tags", id="OpenTelemetry"),
        pytest.param({"statsd_on": "perhaps"}, "off", id="a switch that is none"),
    ],
)
def test_tags_where_the_backend_carries_them(metrics: Any, options: dict[str, object], style: str) -> None:
    metrics(**options)

    assert stats_style() == style


def send_by(factory: Callable[[], Any] | None) -> None:
    """Have Airflow's stats use the client that ``factory`` makes; none for None."""
    if AIRFLOW_VERSION.release >= (3, 2):
        from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger

        later: dict[str, Any] = {"export_legacy_names": False} if AIRFLOW_VERSION.release >= (3, 3) else {}
        Stats.initialize(factory=factory or NoStatsLogger, **later)
    else:  # before 3.2
        from airflow.metrics.base_stats_logger import NoStatsLogger

        Stats.instance, Stats.factory = None, staticmethod(factory or NoStatsLogger)  # type: ignore[attr-defined]


def statsd_logger(client: UdpClient, *, statsd_influxdb_enabled: bool = False, **options: Any) -> Any:
    """Make Airflow's own logger over a client. From 3.2 on it is told of InfluxDB, before it asks the settings."""
    if AIRFLOW_VERSION.release >= (3, 2):
        from airflow.sdk._shared.observability.metrics.statsd_logger import SafeStatsdLogger

        return SafeStatsdLogger(client, statsd_influxdb_enabled=statsd_influxdb_enabled, **options)
    from airflow.metrics.statsd_logger import SafeStatsdLogger

    return SafeStatsdLogger(client, **options)


class UdpClient:
    """The part of ``statsd.StatsClient`` that Airflow's logger calls, over a real socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))

    def incr(self, stat: str, count: int = 1, rate: float = 1) -> None:
        self.socket.send(f"airflow.{stat}:{count}|c".encode())

    def gauge(self, stat: str, value: float, rate: float = 1, delta: bool = False) -> None:
        self.socket.send(f"airflow.{stat}:{value}|g".encode())


@pytest.fixture
def statsd() -> Iterator[tuple[int, Callable[[], list[str]]]]:
    """A listening UDP port, and what arrived there so far."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)

        def lines() -> list[str]:
            found = []
            while True:
                try:
                    found.append(listener.recv(4096).decode())
                except TimeoutError:
                    return found

        yield listener.getsockname()[1], lines


@pytest.fixture
def airflow_statsd(statsd: Any) -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """Airflow's own statsd logger on that port, as a task process would have it."""
    port, lines = statsd
    client = UdpClient(port)

    def start(**options: Any) -> Callable[[], list[str]]:
        send_by(lambda: statsd_logger(client, **options))
        return lines  # type: ignore[no-any-return]

    yield start
    send_by(None)
    client.socket.close()


def test_plain_statsd_gets_the_model_in_the_name(metrics: Any, airflow_statsd: Any) -> None:
    metrics(statsd_on=True)
    lines = airflow_statsd()

    emit([*measures_of(drift(), model=""), *measures_of(scored(), model="")])

    assert lines() == [
        "airflow.airflow_mlops.drift_share.dev__ann__flights:0.25|g",
        "airflow.airflow_mlops.drift_verdict.dev__ann__flights.drift:1|c",
        "airflow.airflow_mlops.rows_scored.dev__ann__flights:10|c",
        "airflow.airflow_mlops.rows_quarantined.dev__ann__flights:2|c",
    ]


def test_influxdb_gets_tags_that_its_format_takes(metrics: Any, airflow_statsd: Any) -> None:
    metrics(statsd_on=True, statsd_influxdb_enabled=True)
    lines = airflow_statsd(influxdb_tags_enabled=True, statsd_influxdb_enabled=True)

    emit(measures_of(drift(model=MODEL.model_copy(update={"name": "a, b=c"})), model=""))

    assert lines() == [
        "airflow.airflow_mlops.drift_share,model=a__b_c:0.25|g",
        "airflow.airflow_mlops.drift_verdict,model=a__b_c,verdict=drift:1|c",
    ]


def test_the_longest_names_pass_airflow_s_check(metrics: Any, airflow_statsd: Any) -> None:
    metrics(statsd_on=True)
    lines = airflow_statsd()
    long = realised().model_copy(
        update={"model": MODEL.model_copy(update={"name": "ü" * 256}), "metrics": {"m" * 99: 1.0}}
    )

    emit(measures_of(long, model=""))

    assert len(lines()) == 2


def test_without_stats_nothing_is_sent(metrics: Any, airflow_statsd: Any) -> None:
    lines = airflow_statsd()

    emit(measures_of(drift(), model=""))

    assert lines() == []


def test_a_client_that_fails_ends_no_task(metrics: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise RuntimeError("no such host")

    metrics(statsd_on=True)
    send_by(broken)
    try:
        emit([Measure(kind="gauge", name="airflow_mlops.x", value=1.0)])
    finally:
        send_by(None)

    assert "no such host" in caplog.text
    assert caplog.records[-1].name == own_stats.__name__


SEND = """
from airflow_mlops.core.measures import Measure
from airflow_mlops.operators.own_stats import emit

from airflow_mlops.compat import AIRFLOW_VERSION

# What a task's process does first; before 3.2 the client starts itself.
if AIRFLOW_VERSION.release >= (3, 3):
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
elif AIRFLOW_VERSION.release >= (3, 2):
    from airflow.sdk.observability.metrics import stats_utils
    from airflow.sdk.observability.stats import Stats
    Stats.initialize(factory=stats_utils.get_stats_factory(Stats))
emit([Measure(kind="gauge", name="airflow_mlops.drift_share", value=0.25, tags={"model": "flights"}),
      Measure(kind="counter", name="airflow_mlops.rows_scored", value=7, tags={"model": "flights"})])
from opentelemetry import metrics
metrics.get_meter_provider().force_flush()
"""


def test_opentelemetry_gets_names_and_tags() -> None:
    """Airflow's own client, configured as an administrator would, against a real collector address."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = {"OTEL_ON": "True", "OTEL_HOST": "127.0.0.1", "OTEL_PORT": str(server.server_port)}
    environment = {**os.environ, **{f"AIRFLOW__METRICS__{name}": value for name, value in options.items()}}
    try:
        done = subprocess.run(
            [sys.executable, "-c", SEND], env=environment, capture_output=True, text=True, timeout=120
        )
    finally:
        server.shutdown()
        server.server_close()

    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Any] = {}
    for body in bodies:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in [*metric.gauge.data_points, *metric.sum.data_points]:
                        tags = {one.key: one.value.string_value for one in point.attributes}
                        seen[metric.name] = (json.dumps(tags), point.as_double or float(point.as_int))
    assert seen["airflow.airflow_mlops.drift_share"] == ('{"model": "flights"}', 0.25)
    assert seen["airflow.airflow_mlops.rows_scored"] == ('{"model": "flights"}', 7.0)
