"""Which version a person means, and what the promotion ledgers say of it. Reads only, so no alias is moved on the way.

``history`` finishes an interrupted promotion before it answers; a trace is asked by people who only look, so it reads
the entries and leaves the alias alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.ledger import DECISIONS, Body, Judged, Ledger, describe
from airflow_mlops.engines.promotions import aliases_of, read_ledger
from airflow_mlops.engines.versions import LEDGER_ENDING, check_name, get_version, search, write_span
from airflow_mlops.errors import InvalidSpecError, UnknownNameError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

#: Versions that an error names.
MAX_NAMED = 10
#: Registered models among which a misspelt name is looked for.
MAX_MODELS = 500


def read_ledgers(client: MlflowClient, name: str) -> dict[str, Ledger]:
    """Return the ledger of every alias of ``name`` that has one, by alias.

    :raises InvalidSpecError: ``name`` cannot be a registered model's.
    """
    check_name(name)
    return {alias: read_ledger(client, name, alias) for alias in aliases_of(client, name)}


def find_version(
    client: MlflowClient,
    name: str,
    version: int | None,
    alias: str,
    ledgers: Mapping[str, Ledger],
    aliases: Mapping[str, int],
) -> ModelVersion:
    """Return the version that is asked for.

    :param version: None: the one that the ledger of ``alias`` says serves, or without a ledger the alias itself.
    :param aliases: as MLflow has them.
    :raises InvalidSpecError: there is no such version or alias; the message lists what there is.
    """
    number = version
    if number is None:
        ledger = ledgers.get(alias)
        head = ledger.head if ledger is not None and ledger.broken is None else None
        number = head.body.to_version if head is not None else aliases.get(alias)
    if number is None:
        known = ", ".join(f"{one} (version {at})" for one, at in sorted(aliases.items())) or "none"
        raise InvalidSpecError(
            f"The alias {alias!r} of {name!r} names no version. Its aliases: {known}. {_existing(client, name)} Ask "
            f"for one of them with --version or --alias."
        )
    stored = get_version(client, name, number)
    if stored is None:
        lines = ledger_lines(ledgers, number)
        told = "".join(f" Entry {line['entry']} of its ledger: {line['sentence']}" for line in lines[-3:])
        raise InvalidSpecError(
            f"There is no version {number} of {name!r}: it was deleted or never registered.{told} "
            f"{_existing(client, name)}"
        )
    return stored


def standing(ledgers: Mapping[str, Ledger], aliases: Mapping[str, int], version: int) -> list[str]:
    """Return in a sentence for each alias how the version stands to it; empty where it never stood for it.

    :param aliases: as MLflow has them.
    """
    told = []
    for alias, number in sorted(aliases.items()):
        ledger = ledgers.get(alias)
        if number == version and (ledger is None or ledger.head is None):
            told.append(f"MLflow's alias {alias!r} names it, and no ledger entry says who promoted it and why.")
        elif number == version and ledger is not None and ledger.head and ledger.head.body.to_version != version:
            says = f"version {ledger.head.body.to_version}"
            told.append(
                f"MLflow's alias {alias!r} names it, but the ledger says {says}: airflow-mlops history tells why."
            )
    for alias, ledger in sorted(ledgers.items()):
        mine = [line for line in ledger.counted if line.body.to_version == version]
        if ledger.broken is not None:
            told.append(f"The ledger of {alias!r} is broken: {ledger.broken}")
        if not mine:
            continue
        last, head = mine[-1], ledger.head
        if head is not None and head.body.to_version == version:
            told.append(f"It is {alias}, since entry {last.number}.")
            continue
        after = ledger.follower(last.number)
        ended = f"; entry {after.number} ({describe(after)}) replaced it" if after is not None else ""
        told.append(f"It was {alias} by entry {last.number}{ended}.")
    return told


def ledger_lines(ledgers: Mapping[str, Ledger], version: int) -> list[dict[str, Any]]:
    """Return the entries, of every alias, that brought the version in or put another in its place."""
    found = [
        (line, ledger)
        for ledger in ledgers.values()
        for line in ledger.lines
        if line.entry.body is not None and _concerns(line.body, version)
    ]
    return [_line(line, ledger, version) for line, ledger in sorted(found, key=lambda pair: pair[0].number)]


def _concerns(body: Body, version: int) -> bool:
    # A decision about another candidate names the champion of the day as well, and does nothing to it.
    return version == body.to_version or (version == body.from_version and body.action not in DECISIONS)


def _role(line: Judged, version: int) -> str:
    if line.status != "counted":
        return "no effect"
    if line.body.action in DECISIONS:
        return "decided"
    return "promoted" if line.body.to_version == version else "replaced"


def _line(line: Judged, ledger: Ledger, version: int) -> dict[str, Any]:
    entry, body = line.entry, line.body
    return {
        "entry": line.number,
        "alias": body.alias,
        "action": body.action,
        "status": line.status,
        "role": _role(line, version),
        "sentence": f"{describe(line)}. {line.sentence}",
        "from_version": body.from_version,
        "to_version": body.to_version,
        "author": body.author,
        "via": body.via,
        "reason": body.reason,
        "key": body.key,
        "window": write_span(body.window),
        "evidence_uri": body.evidence_uri,
        "time": entry.created_at.isoformat() if entry.created_at is not None else body.written_at.isoformat(),
        "applied": entry.applied is not None,
        "is_head": ledger.number == line.number,
        "lacks": list(body.lacks),
    }


def read_aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the version that each of MLflow's aliases names.

    :raises UnknownNameError: no registered model has the name; the nearest one is given.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownNameError.of("registered model", name, _models(client)) from None
    return {str(alias): int(version) for alias, version in found.items()}


def _models(client: MlflowClient) -> Sequence[str]:
    names = [model.name for model in client.search_registered_models(max_results=MAX_MODELS)]
    return [name for name in names if not name.endswith(LEDGER_ENDING)]


def _existing(client: MlflowClient, name: str) -> str:
    numbers = [int(version.version) for version in search(client, name)]
    if not numbers:
        return "It has no version."
    more = f"{len(numbers) - MAX_NAMED} earlier ones and " if len(numbers) > MAX_NAMED else ""
    return f"It has {'version' if len(numbers) == 1 else 'versions'} {more}{', '.join(map(str, numbers[-MAX_NAMED:]))}."
