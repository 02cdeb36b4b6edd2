"""Champions without a model behind them: versions and ledger entries are all that a sensor reads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_mlops.engines.alias_moves import Wish, override
from airflow_mlops.engines.tracking import TrackingServer, connected
from airflow_mlops.engines.versions import ensure_registered_model

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def client_of(uri: str) -> Iterator[MlflowClient]:
    """Yield a client, for one act: while it is open, connections with other settings wait."""
    with connected(TrackingServer(tracking_uri=uri)) as client:
        yield client


def register(uri: str, name: str) -> int:
    """Register another version and return its number."""
    with client_of(uri) as client:
        ensure_registered_model(client, name, description="", tags={})
        made = client.create_model_version(name, f"s3://models/{name}/model", await_creation_for=None)
        return int(made.version)


def wish(name: str) -> Wish:
    """Return what a person wants of the champion's alias."""
    return Wish(name, "champion", "ada", "a person says so", f"cli/{uuid.uuid4().hex}")


def serve(uri: str, name: str) -> int:
    """Register another version and make it champion: one more ledger entry. Return the version."""
    version = register(uri, name)
    with client_of(uri) as client:
        promotion = override(client, wish(name), version)
    assert promotion.outcome == "promoted", promotion.sentence
    return version
