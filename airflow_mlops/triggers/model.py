"""Waiting for the version an alias stands for."""

from __future__ import annotations

from airflow_mlops.core.sightings import StandingAlias
from airflow_mlops.triggers.base import Look, PollTrigger, Question


class ModelAliasQuestion(Question):
    """Asks whether the alias stands for a version, for this one, or by a newer ledger entry than that one.

    :param version: the version it must be; None: any.
    :param newer_than: the ledger entry that must have been followed by another; None: any entry.
    """

    def __init__(
        self, *, registered_model: str, alias: str, version: int | None, newer_than: int | None, mlflow_conn_id: str
    ) -> None:
        self.registered_model = registered_model
        self.alias = alias
        self.version = version
        self.newer_than = newer_than
        self.mlflow_conn_id = mlflow_conn_id

    def look(self) -> Look:
        """Ask the promotion ledger.

        :raises LedgerError: ledger and registry disagree in a way that only a person can settle.
        :raises InvalidSpecError: the connection cannot be used, or the model's name cannot have a ledger.
        :raises TrackingRefusedError: the server does not accept the login.
        :raises TrackingUnavailableError: it does not answer.
        """
        from airflow_mlops.engines.registry import current_champion
        from airflow_mlops.hooks.mlflow import MLflowHook

        with MLflowHook(self.mlflow_conn_id).client() as client:
            champion = current_champion(client, self.registered_model, self.alias)
        named = f"The alias {self.alias!r} of {self.registered_model!r}"
        if champion is None:
            return Look(f"{named} stands for no version yet: nothing was ever promoted.")
        stands = f"{named} stands for version {champion.version} since ledger entry {champion.entry}"
        if self.newer_than is not None and champion.entry <= self.newer_than:
            return Look(f"{stands}; waiting for an entry after {self.newer_than}.")
        if self.version is not None and champion.version != self.version:
            return Look(f"{stands}; waiting for version {self.version}.")
        record = StandingAlias(
            registered_model=self.registered_model,
            alias=self.alias,
            version=champion.version,
            entry=champion.entry,
            model_uri=champion.model_uri,
            window=champion.window,
        )
        return Look(f"{stands}.", record.to_xcom())


class ModelAliasTrigger(PollTrigger):
    """Wait, off the worker, until an alias stands for a version. Keywords: those of :class:`ModelAliasQuestion`."""

    question_type = ModelAliasQuestion
