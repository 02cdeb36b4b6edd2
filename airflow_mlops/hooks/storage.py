"""From an Airflow connection of type ``aws`` or ``google_cloud_platform`` to what the file systems need."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_mlops.compat import AirflowNotFoundException, BaseHook
from airflow_mlops.engines.storage import CONNECT_SECONDS, REQUEST_SECONDS, StorageAccess
from airflow_mlops.errors import DataReadError, InvalidSpecError, MLOpsError, StorageUnavailableError

if TYPE_CHECKING:
    from airflow_mlops.compat import Connection

_TYPES = "aws (for s3://) or google_cloud_platform (for gs://)"


def storage_access(conn_id: str | None) -> StorageAccess | None:
    """Return the credentials and settings of the store that an Airflow connection is about.

    ``aws``: access key and secret (User and Password, or Extra), or whatever else the amazon provider knows (roles,
    profiles, the worker's own identity) where it is installed; from Extra also ``region_name``, ``endpoint_url`` (or
    ``service_config.s3.endpoint_url``), ``aws_session_token``, and ``config_kwargs.signature_version: unsigned`` for
    public buckets. ``google_cloud_platform``: whatever the google provider knows; from Extra also ``is_anonymous``,
    ``project`` and ``endpoint_url``. Credentials that expire are asked for anew with every call and not renewed later.

    :param conn_id: None: the worker's own credentials, for which None is returned.
    :raises InvalidSpecError: no such connection, one of another type, or a field of it that is not valid.
    :raises DataReadError: the credentials are refused.
    :raises StorageUnavailableError: the service that hands out credentials does not answer.
    """
    if conn_id is None:
        return None
    try:
        conn = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as exc:
        raise InvalidSpecError(
            f"There is no Airflow connection {conn_id!r}, which data.conn_id names. Add it under Admin > Connections, "
            f"of type {_TYPES}, or remove data.conn_id to use the worker's own credentials."
        ) from exc
    kind = conn.conn_type
    if kind == "aws":
        return _aws(conn, conn_id)
    if kind == "google_cloud_platform":
        return _google(conn, conn_id)
    raise InvalidSpecError(
        f"The Airflow connection {conn_id!r} has type {kind!r}; data.conn_id needs one of type {_TYPES}."
    )


def _aws(conn: Connection, conn_id: str) -> StorageAccess:
    extra = _extra(conn, conn_id)
    service = _mapping(extra, "service_config", conn_id)
    s3 = _mapping(service, "s3", conn_id)
    config = _mapping(extra, "config_kwargs", conn_id)
    settings: dict[str, Any] = {
        "conn_id": conn_id,
        "region": extra.get("region_name"),
        "endpoint_url": s3.get("endpoint_url", extra.get("endpoint_url")),
    }
    if config.get("signature_version") == "unsigned":
        return StorageAccess(kind="s3", anonymous=True, **settings)
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError:
        return _aws_by_hand(conn, extra, settings)
    try:
        session = AwsBaseHook(aws_conn_id=conn_id, client_type="s3").get_session()
        found = session.get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except Exception as exc:
        raise _refused(exc, conn_id, "AWS") from exc
    return StorageAccess(
        kind="s3",
        access_key=frozen.access_key if frozen else None,
        secret_key=frozen.secret_key if frozen else None,
        session_token=frozen.token if frozen else None,
        **{**settings, "region": settings["region"] or session.region_name},
    )


def _aws_by_hand(conn: Connection, extra: dict[str, Any], settings: dict[str, Any]) -> StorageAccess:
    """Read keys without the amazon provider, which is not everywhere; what only it can do is refused."""
    for key in ("role_arn", "assume_role_method", "profile_name"):
        if extra.get(key):
            raise InvalidSpecError(
                f"The Airflow connection {settings['conn_id']!r} uses {key}, which needs the amazon provider. "
                f"Run: pip install 'airflow-mlops[amazon]', or use an access key."
            )
    return StorageAccess(
        kind="s3",
        access_key=conn.login or extra.get("aws_access_key_id"),
        secret_key=conn.password or extra.get("aws_secret_access_key"),
        session_token=extra.get("aws_session_token"),
        **settings,
    )


def _google(conn: Connection, conn_id: str) -> StorageAccess:
    extra = _extra(conn, conn_id)
    settings: dict[str, Any] = {
        "conn_id": conn_id,
        "project": _google_field(extra, "project"),
        "endpoint_url": _google_field(extra, "endpoint_url"),
    }
    if _google_field(extra, "is_anonymous"):
        return StorageAccess(kind="gs", anonymous=True, **settings)
    try:
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
        from google.auth.transport.requests import Request
    except ImportError as exc:
        raise InvalidSpecError(
            f"The Airflow connection {conn_id!r} needs the google provider. Run: pip install 'airflow-mlops[google]'."
        ) from exc
    try:
        credentials, project = GoogleBaseHook(gcp_conn_id=conn_id).get_credentials_and_project_id()
        if not credentials.valid:
            # The library waits two minutes by default, more than a task should for a token.
            credentials.refresh(functools.partial(Request(), timeout=CONNECT_SECONDS + REQUEST_SECONDS))
    except Exception as exc:
        raise _refused(exc, conn_id, "Google Cloud") from exc
    return StorageAccess(kind="gs", token=credentials.token, **{**settings, "project": settings["project"] or project})


def _google_field(extra: dict[str, Any], name: str) -> Any:
    """Return a field of Extra under its own name or under the long one of older forms."""
    value = extra.get(name)
    return extra.get(f"extra__google_cloud_platform__{name}") if value is None else value


def _refused(exc: Exception, conn_id: str, cloud: str) -> MLOpsError:
    """Return our error for a login that did not work out. The cause may quote a key, so only its kind is told."""
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    waits = {"ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError", "TransportError", "Timeout"}
    if kinds & (waits | {"ConnectionError", "ConnectionClosedError"}):
        return StorageUnavailableError(
            f"{cloud} did not hand out credentials for the Airflow connection {conn_id!r} ({type(exc).__name__}). "
            f"Check that its token service is reachable from this worker; the task may be retried."
        )
    return DataReadError(
        f"The Airflow connection {conn_id!r} gives no valid {cloud} credentials ({type(exc).__name__}). Check its key, "
        f"role or key file under Admin > Connections."
    )


def _extra(conn: Connection, conn_id: str) -> dict[str, Any]:
    extra = conn.extra_dejson
    if not isinstance(extra, dict):
        raise InvalidSpecError(f"Extra of the Airflow connection {conn_id!r} must be a JSON object.")
    return extra


def _mapping(extra: dict[str, Any], name: str, conn_id: str) -> dict[str, Any]:
    value = extra.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidSpecError(f"Extra of the Airflow connection {conn_id!r}: {name} must be an object.")
    return value
