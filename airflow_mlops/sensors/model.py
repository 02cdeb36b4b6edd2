"""The sensor that waits for a model version to serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.sensors.base import WaitingSensor, whole_number

if TYPE_CHECKING:
    from airflow_mlops.triggers.model import ModelAliasTrigger


class ModelAliasSensor(WaitingSensor):
    """Wait until an alias stands for a version, as the promotion ledger says, and return a ``StandingAlias``.

    The ledger answers, not the bare alias: an alias that somebody moved by hand, or a model with an alias and no
    ledger, fails the task at once with the command that mends it. A model that was never registered is waited for.

    :param registered_model: name of the registered model.
    :param alias: the alias to read.
    :param version: wait for this version. None: any.
    :param newer_than: wait for a ledger entry after this one, whatever its version: a rollback counts too. None: any
        entry. With ``version`` both must hold.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("registered_model", "alias", "version", "newer_than", "mlflow_conn_id")

    def __init__(
        self,
        *,
        registered_model: str,
        alias: str = "champion",
        version: int | str | None = None,
        newer_than: int | str | None = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.registered_model = registered_model
        self.alias = alias
        self.version = version
        self.newer_than = newer_than
        self.mlflow_conn_id = mlflow_conn_id

    def trigger_type(self) -> type[ModelAliasTrigger]:
        """Return the trigger that asks the same ledger."""
        from airflow_mlops.triggers.model import ModelAliasTrigger

        return ModelAliasTrigger

    def question(self) -> dict[str, Any]:
        """Return which alias of which model must stand for what."""
        for name in ("registered_model", "alias"):
            if not getattr(self, name):
                raise InvalidSpecError(f"{name} is empty; it must name {'an alias' if name == 'alias' else 'a model'}.")
        return {
            "registered_model": self.registered_model,
            "alias": self.alias,
            "version": whole_number(self.version, "version"),
            "newer_than": whole_number(self.newer_than, "newer_than"),
            "mlflow_conn_id": self.mlflow_conn_id,
        }
