"""Which version an alias stands for, with all that scoring and monitoring need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.core.monitoring_records import ServedModel
from airflow_mlops.engines.promotions import aliases_of, command, read_ledger
from airflow_mlops.engines.registry import Champion, current_champion
from airflow_mlops.engines.versions import VersionFacts, alias_version, check_name, facts_of, get_version
from airflow_mlops.errors import LedgerError
from airflow_mlops.spec.scoring import PREVIOUS_CHAMPION

if TYPE_CHECKING:
    from mlflow import MlflowClient


def served_champion(client: MlflowClient, name: str, alias: str) -> ServedModel:
    """Return the version that the promotion ledger says ``alias`` stands for.

    :raises LedgerError: there is none yet, or ledger and registry disagree; the message says what to do.
    """
    champion = current_champion(client, check_name(name), alias)
    if champion is None:
        raise LedgerError(
            f"{name!r} has no {alias} yet: no version was ever promoted. Train one (the training DAG promotes the "
            f"first that its gate lets through), or choose a registered version: "
            f"{command('promote', name, alias, 'VERSION', '--override')}"
        )
    return _of_champion(client, champion)


def served_version(client: MlflowClient, name: str, version: int) -> ServedModel | None:
    """Return a version by its number, or None where it was deleted or never was."""
    found = get_version(client, name, version)
    return None if found is None else _of_facts(name, facts_of(found))


def served_other(client: MlflowClient, champion: ServedModel, other: str) -> tuple[ServedModel | None, str]:
    """Return the version that takes part beside the champion, or None and why there is none, in a sentence.

    A comparison is never worth stopping for, so whatever is wrong with it is the sentence.

    :param other: an alias, resolved through the ledger where that speaks of it, else as MLflow has it; or
        ``previous_champion``, the version that served before, by the ledger's order.
    """
    name = champion.name
    if other == PREVIOUS_CHAMPION:
        found, why = _previous(client, champion)
    else:
        found, why = _by_alias(client, name, other)
    if found is not None and found.version == champion.version:
        return None, f"{other} of {name!r} is version {found.version}, the {champion.alias} itself: it scores alone."
    return found, why


def _previous(client: MlflowClient, champion: ServedModel) -> tuple[ServedModel | None, str]:
    name = champion.name
    line = read_ledger(client, name, champion.alias).previous()
    if line is None:
        return None, f"No version of {name!r} was {champion.alias} before version {champion.version}: it scores alone."
    version = get_version(client, name, line.body.to_version)
    facts = None if version is None else facts_of(version)
    if facts is None or facts.model_digest != (line.body.to_digest or facts.model_digest):
        fate = "was deleted from MLflow" if facts is None else "is another model now"
        return None, (
            f"Version {line.body.to_version} of {name!r}, which was {champion.alias} before (entry {line.number}), "
            f"{fate}: version {champion.version} scores alone."
        )
    return _of_facts(name, facts), ""


def _by_alias(client: MlflowClient, name: str, alias: str) -> tuple[ServedModel | None, str]:
    if alias in aliases_of(client, name):
        try:
            champion = current_champion(client, name, alias)
        except LedgerError as exc:
            return None, f"Nobody can say which version is {alias} of {name!r}, so none takes part. {exc}"
        if champion is not None:
            return _of_champion(client, champion), ""
    number = alias_version(client, name, alias)
    version = None if number is None else get_version(client, name, number)
    if version is None:
        return None, f"No version of {name!r} has the alias {alias!r}: the champion scores alone."
    return _of_facts(name, facts_of(version), alias=alias), ""


def _of_champion(client: MlflowClient, champion: Champion) -> ServedModel:
    version = get_version(client, champion.name, champion.version)
    return ServedModel(
        name=champion.name,
        alias=champion.alias,
        version=champion.version,
        entry=champion.entry,
        model_uri=champion.model_uri,
        artifact_uri=champion.artifact_uri,
        digest=champion.model_digest,
        flavor=champion.flavor,
        features=champion.features,
        train_window=champion.train_window,
        run_id=champion.run_id,
        profile_uri=champion.profile_uri,
        evidence_uri=None if version is None else facts_of(version).evidence_uri,
    )


def _of_facts(name: str, facts: VersionFacts, *, alias: str = "") -> ServedModel:
    return ServedModel(
        name=name,
        alias=alias,
        version=facts.version,
        model_uri=facts.model_uri,
        artifact_uri=facts.artifact_uri,
        digest=facts.model_digest,
        flavor=facts.flavor,
        features=facts.features,
        train_window=facts.train_window,
        run_id=facts.run_id,
        profile_uri=facts.profile_uri,
        evidence_uri=facts.evidence_uri,
    )
