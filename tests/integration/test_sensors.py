"""The sensors against a real store, a real MLflow server and a plug-in's source, on the worker and off it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops.compat import AirflowFailException, AirflowSensorTimeout, TaskDeferred
from airflow_mlops.core.sightings import DataArrival, StandingAlias
from airflow_mlops.engines.alias_moves import rollback
from airflow_mlops.sensors.data import DataArrivalSensor
from airflow_mlops.sensors.model import ModelAliasSensor
from tests.support.data_steps import day, parquet_bytes
from tests.support.object_stores import S3_KEY, S3_SECRET
from tests.support.served import client_of, register, serve, wish

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer
    from tests.support.object_stores import ObjectStore

JANUARY = {"start": "2013-01-01", "end": "2013-02-01"}
SECONDS = 1 / 60
#: Nothing listens there.
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make Airflow connections the way a deployment does with environment variables."""

    def make(**fields: Any) -> str:
        conn_id = f"outside_{uuid.uuid4().hex[:8]}"
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return make


@pytest.fixture
def store(s3: ObjectStore, connection: Callable[..., str]) -> Callable[..., str]:
    """Make a connection to the store, or to one at another address."""

    def store(endpoint_url: str = s3.endpoint_url) -> str:
        extra = {"region_name": "us-east-1", "endpoint_url": endpoint_url}
        return connection(conn_type="aws", login=S3_KEY, password=S3_SECRET, extra=extra)

    return store


def later(seconds: float, act: Callable[[], Any]) -> threading.Timer:
    """Do something in another thread a little later."""
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def wait(sensor: Any) -> Any:
    """Execute a sensor; where it defers, run its trigger and resume it as Airflow would."""
    try:
        return sensor.execute({})
    except TaskDeferred as deferred:
        path, kwargs = deferred.trigger.serialize()
        # Airflow stores it as JSON: nothing secret may be in there, and everything must come back.
        text = json.dumps(kwargs)
        assert S3_SECRET not in text
        trigger = type(deferred.trigger)(**json.loads(text))
        assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
        event = asyncio.run(anext(aiter(trigger.run())))  # type: ignore[arg-type]  # an async iterator is awaitable so
        return getattr(sensor, deferred.method_name)({}, event.payload)


# --- Data in an object store ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "off the worker"])
def test_a_file_that_arrives_in_the_store_is_waited_for_until_it_rests(
    deferrable: bool, s3: ObjectStore, store: Callable[..., str]
) -> None:
    folder = f"arrivals-{uuid.uuid4().hex[:8]}"
    s3.put(f"{folder}/feb.parquet", parquet_bytes({"at": [day(3, 2)]}))
    sensor = DataArrivalSensor(
        task_id="wait",
        data={"uri": s3.uri(folder), "event_time": "at", "conn_id": store()},
        window=JANUARY,
        settle_minutes=2 * SECONDS,
        poke_interval=0.2,
        timeout=20,
        deferrable=deferrable,
    )
    put = later(0.6, lambda: s3.put(f"{folder}/jan.parquet", parquet_bytes({"at": [day(3), day(4)]})))
    started = time.monotonic()

    arrival = DataArrival.from_xcom(wait(sensor))

    put.join()
    assert 2 <= time.monotonic() - started < 15
    assert (arrival.file_count, arrival.byte_count) == (1, len(parquet_bytes({"at": [day(3), day(4)]})))
    assert arrival.window is not None
    assert arrival.window.start == day(1)
    assert arrival.newest is not None
    assert abs(datetime.now(UTC) - arrival.newest) < timedelta(minutes=1)
    assert "no row was read" in arrival.checked


def test_a_store_that_refuses_ends_the_wait_at_once(s3: ObjectStore, store: Callable[..., str]) -> None:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3.endpoint_url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    # moto checks no keys, so a policy that denies everything stands in for wrong ones.
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::shut/*"}
    client.create_bucket(Bucket="shut")
    client.put_object(Bucket="shut", Key="x.parquet", Body=b"x")
    client.put_bucket_policy(Bucket="shut", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    data = {"uri": "s3://shut/x.parquet", "conn_id": store()}

    with pytest.raises(AirflowFailException, match=r"The store refuses .*Give that identity leave"):
        wait(DataArrivalSensor(task_id="wait", data=data, timeout=20))


def test_a_store_that_does_not_answer_is_asked_until_time_is_up(s3: ObjectStore, store: Callable[..., str]) -> None:
    sensor = DataArrivalSensor(
        task_id="wait", data={"uri": s3.uri("x"), "conn_id": store(DEAD)}, timeout=0.1, poke_interval=0.1
    )

    with pytest.raises(AirflowSensorTimeout, match=r"No answer this time, asking again: .*127\.0\.0\.1:9"):
        wait(sensor)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            {"data": {"uri": "/lake", "conn_id": "absent"}}, "no Airflow connection 'absent'", id="connection"
        ),
        pytest.param({"data": {"uri": "s3://a:b@lake/x"}}, "data.uri: .*holds credentials", id="a login in the URI"),
        pytest.param({"data": {"ur": "/lake"}}, "data.uri: Field required; data.ur: ", id="a misspelt key"),
        pytest.param(
            {"data": {"uri": "/lake"}, "window": {"start": "x"}}, "window.start: .*window.end", id="no window"
        ),
        pytest.param({"data": {"uri": "/lake"}, "settle_minutes": -1}, "settle_minutes is -1", id="a negative time"),
        pytest.param({"data": {"uri": "/lake"}, "settle_minutes": "soon"}, "settle_minutes is 'soon'", id="no number"),
        pytest.param(
            {"data": {"uri": "/lake", "event_time": "at"}, "window": JANUARY, "every": "day"},
            "every: 'day' is not a length",
            id="no length",
        ),
        pytest.param({"data": {"uri": "hdfs://lake/x"}}, "local path, file://, s3:// or gs://", id="another store"),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_what_cannot_be_waited_for_fails_at_once_and_names_the_place(
    given: dict[str, Any], said: str, deferrable: bool
) -> None:
    with pytest.raises(AirflowFailException, match=said) as caught:
        wait(DataArrivalSensor(task_id="wait", deferrable=deferrable, timeout=20, **given))

    assert "a:b@" not in str(caught.value)


def test_what_came_to_rest_and_cannot_be_read_fails(tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    data = {"uri": str(tmp_path), "event_time": "at"}
    sensor = DataArrivalSensor(
        task_id="wait", data=data, window=JANUARY, settle_minutes=SECONDS, poke_interval=0.2, timeout=20
    )

    with pytest.raises(AirflowFailException, match=r"no readable Parquet: 'half\.parquet'.*not changed for 1 s"):
        wait(sensor)


# --- A plug-in's source: no times, only a fingerprint -----------------------------------------------------------------


def sell(file: Path, count: int) -> None:
    """Write the shop's orders anew."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (at TIMESTAMP)")
        database.executemany("INSERT INTO orders VALUES (?)", [("2013-01-05T00:00:00",)] * count)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "off the worker"])
def test_a_source_without_times_is_watched(deferrable: bool, tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    sensor = DataArrivalSensor(
        task_id="wait",
        data={"uri": str(file), "format": "sqlite", "options": {"table": "orders"}, "event_time": "at"},
        window=JANUARY,
        settle_minutes=SECONDS,
        poke_interval=0.1,
        timeout=20,
        deferrable=deferrable,
    )
    timers = [later(0.3, lambda: sell(file, 1)), later(0.9, lambda: sell(file, 9999))]
    started = time.monotonic()

    arrival = DataArrival.from_xcom(wait(sensor))

    assert 1.8 <= time.monotonic() - started < 15, "it rested for a second after the last change"
    assert [timer.join() for timer in timers]
    assert (arrival.file_count, arrival.newest) == (None, None)
    assert "'sqlite'" in arrival.checked


@pytest.mark.usefixtures("plugin")
def test_a_task_that_forgets_watches_such_a_source_within_one_look(tmp_path: Path) -> None:
    def look(settle: float) -> Any:
        # A rescheduled task is a new object every time.
        return DataArrivalSensor(
            task_id="wait",
            data={"uri": str(tmp_path / "shop.db"), "format": "sqlite", "options": {"table": "orders"}},
            settle_minutes=settle,
            mode="reschedule",
        ).poke({})

    assert not look(SECONDS), "there is no file yet"
    sell(tmp_path / "shop.db", 1)
    change = later(0.5, lambda: sell(tmp_path / "shop.db", 9999))
    assert not look(SECONDS), "it changed meanwhile"
    change.join()
    assert look(SECONDS).xcom_value["schema"] == "data_arrival/1"


# --- The alias --------------------------------------------------------------------------------------------------------


@pytest.fixture
def name() -> str:
    """The name of a registered model that nobody else uses."""
    return f"sensed.{uuid.uuid4().hex[:8]}"


@pytest.fixture
def mlflow(mlflow_server: MLflowServer, connection: Callable[..., str]) -> str:
    """A connection to the test's MLflow server."""
    return connection(conn_type="mlflow", host=mlflow_server.uri)


def alias_sensor(name: str, mlflow: str, **settings: Any) -> ModelAliasSensor:
    return ModelAliasSensor(
        task_id="wait",
        registered_model=name,
        mlflow_conn_id=mlflow,
        **{"poke_interval": 0.2, "timeout": 30, **settings},
    )


@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "off the worker"])
def test_a_model_that_was_never_registered_is_waited_for(
    deferrable: bool, name: str, mlflow: str, mlflow_server: MLflowServer
) -> None:
    promoted = later(0.5, lambda: serve(mlflow_server.uri, name))

    found = wait(alias_sensor(name, mlflow, deferrable=deferrable))

    promoted.join()
    standing = StandingAlias.from_xcom(found)
    assert (standing.registered_model, standing.alias, standing.version, standing.entry) == (name, "champion", 1, 1)
    assert standing.model_uri == f"models:/{name}/1"


def test_a_version_or_a_newer_entry_may_be_asked_for(name: str, mlflow: str, mlflow_server: MLflowServer) -> None:
    serve(mlflow_server.uri, name)
    serve(mlflow_server.uri, name)

    def found(**asked: Any) -> tuple[int, int] | None:
        poked = alias_sensor(name, mlflow, **asked).poke({})
        return (poked.xcom_value["version"], poked.xcom_value["entry"]) if poked else None

    assert found() == (2, 2)
    assert found(version="2") == (2, 2)
    assert found(version=1) is None
    assert found(newer_than=1) == (2, 2)
    assert found(newer_than="2") is None
    assert found(newer_than="") == (2, 2)
    with client_of(mlflow_server.uri) as client:
        rollback(client, wish(name))
    assert found(newer_than=2) == (1, 3), "the same version serves again, by a newer entry"
    assert found(newer_than=2, version=2) is None
    assert found(alias="challenger") is None


def test_an_alias_that_only_a_person_can_settle_fails_with_the_command(
    name: str, mlflow: str, mlflow_server: MLflowServer
) -> None:
    register(mlflow_server.uri, name)
    with client_of(mlflow_server.uri) as client:
        client.set_registered_model_alias(name, "champion", "1")

    with pytest.raises(AirflowFailException, match=f"no promotion ledger.*airflow-mlops promote {name} --adopt"):
        wait(alias_sensor(name, mlflow))


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_server_that_does_not_answer_is_asked_until_time_is_up(
    deferrable: bool, name: str, connection: Callable[..., str]
) -> None:
    dead = connection(conn_type="mlflow", host=DEAD, extra={"max_retries": 0})

    with pytest.raises(AirflowSensorTimeout, match=r"No answer this time.*127\.0\.0\.1:9"):
        wait(alias_sensor(name, dead, deferrable=deferrable, timeout=0.1))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"mlflow_conn_id": "absent"}, "no Airflow connection 'absent'"),
        ({"version": "newest"}, "version is 'newest'; it must be a whole number"),
        ({"alias": ""}, "alias is empty"),
        ({"registered_model": "flights.promotions"}, "promotions"),
    ],
)
def test_what_cannot_be_asked_fails_at_once(asked: dict[str, Any], said: str, mlflow: str) -> None:
    settings = {"registered_model": "flights", "mlflow_conn_id": mlflow, **asked}

    with pytest.raises(AirflowFailException, match=said):
        wait(ModelAliasSensor(task_id="wait", timeout=20, **settings))
