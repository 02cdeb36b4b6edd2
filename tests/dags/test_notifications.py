"""A provider's own notifier in a real run: Amazon SNS by moto, and a queue that hears what the topic says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.compat import DAG
from tests.support.data_steps import write_parquet
from tests.support.object_stores import S3_KEY, S3_SECRET

SNS = "airflow.providers.amazon.aws.notifications.sns:SnsNotifier"
CONTRACT = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "y"}}]}
WINDOWS = [{"start": f"2024-0{month}-01", "end": f"2024-0{month + 1}-01"} for month in (1, 2)]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
    """A topic's name, and what was said to it so far."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    where = {
        "endpoint_url": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "region_name": "us-east-1",
    }
    secret = {"aws_access_key_id": S3_KEY, "aws_secret_access_key": S3_SECRET}
    sns, sqs = (boto3.client(service, **where, **secret) for service in ("sns", "sqs"))
    name = sns.create_topic(Name="on-call")["TopicArn"]
    queue = sqs.create_queue(QueueName="telephone")["QueueUrl"]
    number = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=name, Protocol="sqs", Endpoint=number)
    connection = {"conn_type": "aws", "login": S3_KEY, "password": S3_SECRET, "extra": where}
    monkeypatch.setenv("AIRFLOW_CONN_ON_CALL", json.dumps(connection))

    def heard() -> list[Any]:
        found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in found]

    yield name, heard
    server.stop()


def test_a_provider_s_notifier_tells_of_the_one_window_whose_contract_failed(
    tmp_path: Path, topic: Any, run_dag: Callable[..., Any], mlflow_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow:8080")
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL", "http://airflow:8080")  # Airflow 2.11's place for it
    times = [datetime(2024, month, 5, tzinfo=UTC) for month in (1, 2, 2)]
    write_parquet(tmp_path / "rows.parquet", {"at": times, "y": [1, None, 0]})
    target, heard = topic
    settings = {
        "target_arn": target,
        "subject": "{{ mlops.title }}",
        "message": "{{ mlops.message }}",
        "aws_conn_id": "on_call",
    }
    data = {"uri": str(tmp_path), "event_time": "at"}
    with DAG("notify_people", schedule=None) as dag:
        snapshot = SnapshotDataOperator.partial(task_id="snapshot", data=data).expand(window=WINDOWS)
        ValidateDataOperator.partial(
            task_id="validate",
            contract=CONTRACT,
            data=data,
            about="flights",
            notifications=[
                {"events": ["drift"], "notifier": "never.imported:Notifier"},
                {"events": ["contract_failed"], "notifier": "no.such.package:Notifier"},
                {"events": ["hold", "contract_failed"], "notifier": SNS, "settings": settings},
            ],
        ).expand(dataset=snapshot.output)

    ran = run_dag(dag)

    assert ran.state == "failed"
    assert [report["verdict"] for report in ran.mapped("validate")] == ["pass", "fail"]
    (said,) = heard()
    assert said["Subject"] == "Contract failed for flights, window [2024-02-01, 2024-03-01)"
    message = said["Message"]
    assert message.startswith(said["Subject"])
    assert "Column 'y' is null in 1 of 2 rows" in message
    assert f"DAG run: notify_people {ran.run_id}, task validate[1] http://airflow:8080/dags/notify_people" in message
    assert f"MLflow: {mlflow_connection}/#/runs/" in message
    assert f"Report: {mlflow_connection}/#/experiments/" in message
    assert "Task: http" in message
