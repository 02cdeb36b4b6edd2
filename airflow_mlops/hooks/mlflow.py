"""From an Airflow connection of type ``mlflow`` to a client of its server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_mlops.compat import AirflowNotFoundException, BaseHook
from airflow_mlops.engines.login import Login
from airflow_mlops.engines.tracking import TrackingServer, connected, server_version
from airflow_mlops.errors import InvalidSpecError, MLOpsError, UnknownNameError
from airflow_mlops.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.compat import Connection


class MLflowHook(BaseHook):
    """Clients for an MLflow tracking server and registry, from one Airflow connection.

    ====================  ============================================================================================
    Field                 Meaning
    ====================  ============================================================================================
    Host                  tracking URI ``http(s)://host[:port][/path]``; or a host name, with Port and Scheme beside it
    User, Password        HTTP basic authentication; a password without a user is a bearer token; neither: anonymous
    ``registry_uri``      the model registry, where it is another server
    ``verify_tls``        true by default
    ``ca_path``           PEM bundle, on the workers, to check the server's certificate against
    ``timeout_seconds``   of one attempt; 10 by default
    ``max_retries``       2 by default
    ``ui_url``            where people open MLflow, if that is not the tracking URI
    ====================  ============================================================================================

    The lower-case ones are keys of Extra. The token goes into the Password field because Airflow masks that one.

    :param mlflow_conn_id: the connection's id.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    def server(self) -> TrackingServer:
        """Return the connection's settings, without its login.

        :raises InvalidSpecError: the connection does not exist or a field of it is not valid; the message names it.
        """
        return self._server(self._connection())

    def login(self) -> Login | None:
        """Return the connection's login, or None when it has none.

        :raises InvalidSpecError: the connection does not exist, or has a user without a password.
        """
        return self._login(self._connection())

    @contextmanager
    def client(self) -> Iterator[MlflowClient]:
        """Yield a client; inside the block, and in this context only, its requests carry the connection's login.

        Raises as :func:`airflow_mlops.engines.tracking.connected` does.
        """
        conn = self._connection()
        with connected(self._server(conn), self._login(conn)) as client:
            yield client

    def get_conn(self) -> Any:
        """Refuse: a client outside :meth:`client` would have no login.

        :raises InvalidSpecError: always.
        """
        raise InvalidSpecError("Use `with MLflowHook(...).client() as client:`; the login lasts as long as the block.")

    def test_connection(self) -> tuple[bool, str]:
        """Ask the server for its version and for one experiment and one registered model, as the connection's login."""
        try:
            conn = self._connection()
            server, login = self._server(conn), self._login(conn)
            with connected(server, login) as client:
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
                version = server_version(server)
        except MLOpsError as exc:
            return False, str(exc)
        who = login.name if login is not None else "an anonymous user"
        return True, f"MLflow {version} at {server.tracking_uri} answers {who}."

    def _connection(self) -> Connection:
        try:
            return self.get_connection(self.mlflow_conn_id)
        except AirflowNotFoundException as exc:
            raise InvalidSpecError(
                f"There is no Airflow connection {self.mlflow_conn_id!r}. Add it under Admin > Connections, type "
                f"MLflow, or run: airflow connections add {self.mlflow_conn_id} --conn-type mlflow "
                f"--conn-host http://HOST:5000"
            ) from exc

    def _server(self, conn: Connection) -> TrackingServer:
        with self._named():
            return TrackingServer(tracking_uri=_tracking_uri(conn), **_settings(conn.extra_dejson))

    def _login(self, conn: Connection) -> Login | None:
        user, password = conn.login or None, conn.password or None
        with self._named():
            if user is None:
                return Login(token=password) if password is not None else None
            if password is None:
                raise InvalidSpecError(
                    f"it has the user {user!r} and no password: fill in Password, or empty User for a bearer token."
                )
            return Login(username=user, password=password)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in the error which connection is meant."""
        try:
            yield
        except InvalidSpecError as exc:
            raise type(exc)(f"The Airflow connection {self.mlflow_conn_id!r} cannot be used: {exc}") from None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields for Airflow before 3.2; later ones read them from the provider info."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import BooleanField, IntegerField, StringField
        from wtforms.validators import NumberRange, Optional

        widgets: dict[str, Any] = {}
        for name, described in CONNECTION_FIELDS.items():
            schema, label = described["schema"], lazy_gettext(described["label"])
            default, description = schema.get("default"), described["description"]
            if "boolean" in schema["type"]:
                widgets[name] = BooleanField(label, default=default, description=description)
            elif "integer" in schema["type"]:
                limits = [Optional(), NumberRange(min=schema["minimum"], max=schema["maximum"])]
                widgets[name] = IntegerField(
                    label, validators=limits, default=default, widget=BS3TextFieldWidget(), description=description
                )
            else:
                widgets[name] = StringField(label, widget=BS3TextFieldWidget(), description=description)
        return widgets

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels for Airflow before 3.2; later ones read them from the provider info."""
        return {
            "hidden_fields": FIELD_BEHAVIOUR["hidden-fields"],
            "relabeling": FIELD_BEHAVIOUR["relabeling"],
            "placeholders": FIELD_BEHAVIOUR["placeholders"],
        }


def _tracking_uri(conn: Connection) -> str:
    """Join Host, Port and Scheme; a Host that is a whole URI may leave the others empty."""
    host, scheme = (conn.host or "").strip(), (conn.schema or "").strip().rstrip(":/").lower()
    if not host:
        raise InvalidSpecError(
            "its Host is empty; it must be the tracking URI, such as http://mlflow.example.com:5000."
        )
    if host.startswith(("file:", "sqlite:")):
        return host  # the settings accept the one and explain the other
    if "://" not in host:
        if scheme not in ("http", "https"):
            given = f"its Scheme is {scheme!r}" if scheme else "it names no scheme"
            raise InvalidSpecError(f"{given}: begin Host with http:// or https://, or put one of the two into Scheme.")
        host = f"{scheme}://{host}"
    elif scheme and scheme != urlsplit(host).scheme:
        raise InvalidSpecError(f"Host begins with {urlsplit(host).scheme}:// and Scheme is {scheme!r}: empty Scheme.")
    if conn.port is None:
        return host
    parts = urlsplit(host)
    if "@" in parts.netloc:
        return host  # refused, without the secret in the message, by the settings' own check
    try:
        known = parts.port
    except ValueError:
        return host  # likewise
    if known not in (None, conn.port):
        raise InvalidSpecError(f"Host names the port {known} and Port is {conn.port}: empty Port.")
    netloc = parts.netloc if known is not None else f"{parts.netloc}:{conn.port}"
    return parts._replace(netloc=netloc).geturl()


def _settings(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Read each known key of Extra; a connection given as a URI has text where the form has numbers and flags."""
    readers = {"boolean": _flag, "integer": _number, "string": _text}
    settings: dict[str, Any] = {}
    for name, value in extra.items():
        if name in ("token", "password", "login", "user", "username"):
            raise InvalidSpecError(
                f"Extra holds {name!r}, which belongs into the form's User and Password fields: a token goes into "
                f"Password, with User empty."
            )
        if name not in CONNECTION_FIELDS:
            raise UnknownNameError.of("extra of an MLflow connection", name, CONNECTION_FIELDS)
        if value is None or value == "":
            continue
        settings[name] = readers[CONNECTION_FIELDS[name]["schema"]["type"][0]](name, value)
    return settings


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise InvalidSpecError(f"{name} is {value!r} in Extra; it must be true or false.")


def _number(name: str, value: object) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    raise InvalidSpecError(f"{name} is {value!r} in Extra; it must be a number.")


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    raise InvalidSpecError(f"{name} is {value!r} in Extra; it must be text.")
