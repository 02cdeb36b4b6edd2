"""What lint looks at across models: names that collide, and the connections they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_mlops.cli.lint_findings import Finding, finding
from airflow_mlops.cli.lint_model import Model, check_contract
from airflow_mlops.spec import naming
from airflow_mlops.spec.fleet import dag_ids
from airflow_mlops.spec.layers import PROFILES
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import code_folder, contract_file, scoring_settings

Place = tuple[str, int]
_NAME = "MLOPS501"


@dataclass(frozen=True)
class Taken:
    """A name that a model takes, which no other may have."""

    code: str
    key: str
    what: str
    value: str
    mend: str
    place: Place


@dataclass(frozen=True)
class Loaded:
    """Something that a task of the model will import.

    :param kind: ``train``, ``metric`` or ``flavor``; ``contract``, a file that Great Expectations is asked about.
    """

    kind: str
    name: str
    serialization: str | None
    code_path: str
    key: str
    place: Place


@dataclass(frozen=True)
class Facts:
    """What other models, and later checks, must know of a model. Plain data: it crosses between processes.

    :param anywhere: what it takes in production, where its file has no profiles and so takes any that is asked for.
    :param assumed: whether it is what loading the folder would make of such a file under another file's profile.
    """

    file: str
    profile: str | None
    name: str
    owner: str
    taken: tuple[Taken, ...]
    connections: tuple[str, ...]
    loaded: tuple[Loaded, ...]
    anywhere: tuple[Taken, ...] | None = None
    assumed: bool = False


def facts_of(model: Model) -> Facts:
    """Return the facts of a model that could be read."""
    spec = model.spec
    sources = [spec.data, spec.scoring and spec.scoring.data, spec.labels and spec.labels.data]
    ids = [spec.connection_id, spec.promotion_connection_id, spec.scoring and spec.scoring.output_conn_id]
    ids += [source.conn_id for source in sources if source]
    takes_any = model.profile is None and not any(PROFILES in layer.data for layer in model.layered.layers)
    return Facts(
        file=str(model.file),
        profile=model.profile,
        name=spec.name,
        owner=spec.owner,
        taken=tuple(_taken(model)),
        connections=tuple(sorted({str(conn_id) for conn_id in ids if conn_id})),
        loaded=tuple(_loaded(model)),
        anywhere=tuple(_taken(replace(model, spec=spec.model_copy(update={"profile": None})))) if takes_any else None,
    )


def facts_of_contract(path: Path) -> Facts:
    """Return the facts of a contract that is looked at by itself."""
    loaded = (_contract(path, (str(path), 1)),) if check_contract(path)[0] is not None else ()
    return Facts(file=str(path), profile=None, name="", owner="", taken=(), connections=(), loaded=loaded)


def collisions(facts: Iterable[Facts]) -> Iterator[Finding]:
    """Yield every model that takes a name which an earlier one has under the same profile.

    A model's own name is compared whatever the profile: without one, loading the folder takes all models.
    """
    takers: dict[tuple[str | None, str, str], list[Facts]] = {}
    told = set()
    for model in _everywhere(list(facts)):
        for one in model.taken:
            if one.code == _NAME and model.assumed:
                continue
            earlier = takers.setdefault((None if one.code == _NAME else model.profile, one.code, one.value), [])
            known = next((other for other in earlier if _collide(other, model, one.code)), None)
            earlier.append(model)
            if known is None:
                continue
            pair = (known.file, model.file, one.code)
            if known.assumed and model.assumed and pair in told:
                continue  # under a profile, too, and it needs none
            if not model.assumed:
                told.add(pair)
            message = f"{one.what} {one.value!r} is also that of {known.file}"
            yield _under(model, finding(one.code, one.place, one.key, message, one.mend))


def _everywhere(facts: Sequence[Facts]) -> Iterator[Facts]:
    """Yield all facts, and of each file without profiles what it is under every profile that another file has."""
    profiles = dict.fromkeys(one.profile for one in facts if one.profile)
    for one in facts:
        yield one
        for profile in profiles if one.anywhere is not None else ():
            try:
                naming.check_owner(one.owner, profile)
            except ValueError:
                continue  # loading refuses it there
            taken = tuple(_named(taken, profile, one.owner) for taken in one.anywhere or ())
            yield replace(one, profile=profile, taken=taken, assumed=True)


def _named(taken: Taken, profile: str, owner: str) -> Taken:
    """Return what is taken in production as it is under a profile: some names carry it, and the owner."""
    name = {"MLOPS502": naming.dag_id, "MLOPS503": naming.registered_model}.get(taken.code)
    return taken if name is None else replace(taken, value=name(taken.value, profile, owner))


def _collide(one: Facts, other: Facts, code: str) -> bool:
    if one.file == other.file:
        return False
    # Two models of one name collide in everything else, too: the name alone is told.
    return code == _NAME or one.name != other.name


def shared_outputs(facts: Iterable[Facts]) -> Iterator[Finding]:
    """Yield a model whose predictions go to one place under two profiles."""
    first: dict[tuple[Any, ...], Facts] = {}
    for model in facts:
        for one in model.taken:
            if one.code != "MLOPS504" or model.profile is None:
                continue
            known = first.setdefault((model.file, one.value), model)
            if known.profile != model.profile:
                message = f"the predictions of the profiles {known.profile} and {model.profile} both go to {one.value}"
                mend = f"Give {model.profile} its own: profiles.{model.profile}.scoring.output_uri."
                yield _under(model, finding("MLOPS907", one.place, one.key, message, mend))


def connections(facts: Iterable[Facts]) -> dict[str, list[str]]:
    """Return the ids of the Airflow connections that the models name or default to, each with the models' files."""
    found: dict[str, set[str]] = {}
    for model in facts:
        for conn_id in model.connections:
            found.setdefault(conn_id, set()).add(model.file)
    return {conn_id: sorted(files) for conn_id, files in sorted(found.items())}


def _taken(model: Model) -> Iterator[Taken]:
    spec = model.spec

    def taken(code: str, key: str, what: str, value: str, mend: str) -> Taken:
        return Taken(code, key, what, value, mend, model.at(key.split(".")))

    yield taken(_NAME, "name", "the name", spec.name, "Give one of them another name.")
    for dag_id in dag_ids(spec).values():
        yield taken("MLOPS502", "name", "the DAG id", dag_id, "Give one of the models another name.")
    yield taken(
        "MLOPS503",
        "promotion.registered_model" if spec.promotion.registered_model else "name",
        "the registered model",
        spec.registered_model,
        "Give one of them another: two gates would move one alias, and their monitoring hear each other's batches.",
    )
    if spec.scoring is not None:
        place = str(scoring_settings(spec)["output_uri"]).rstrip("/")
        mend = "Give each model a folder of its own."
        yield taken("MLOPS504", "scoring.output_uri", "the place of the predictions", place, mend)


def _loaded(model: Model) -> Iterator[Loaded]:
    spec, folder = model.spec, str(code_folder(model.spec))
    if _here(spec, "train"):
        key = "train.function"
        yield Loaded("train", spec.train.function, None, folder, key, model.at(key.split(".")))
        key = "train.flavor"
        yield Loaded("flavor", spec.train.flavor, spec.train.serialization, folder, key, model.at(key.split(".")))
    if _here(spec, "evaluate"):
        for number, metric in enumerate(spec.evaluation.metrics):
            if ":" in metric:
                place = model.at(("evaluation", "metrics", number))
                yield Loaded("metric", metric, None, folder, f"evaluation.metrics[{number}]", place)

    path = Path(contract_file(spec))
    if _here(spec, "validate") and path.is_file() and check_contract(path)[0] is not None:
        yield _contract(path, model.at(("contract", "path")))


def _contract(path: Path, place: Place) -> Loaded:
    # All contracts of a folder are looked at in one process: Great Expectations takes seconds to import.
    return Loaded("contract", str(path), None, str(path.parent), "contract.path", place)


def _here(spec: ModelSpec, step: Any) -> bool:
    """Say whether a step runs in Airflow's own interpreter: what another one has installed is not known here."""
    return spec.runtime_of(step).name == "inline"


def _under(model: Facts, found: Finding) -> Finding:
    return replace(found, profiles=(model.profile,) if model.profile else ())
