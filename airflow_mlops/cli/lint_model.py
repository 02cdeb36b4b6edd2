"""What lint looks at in one model under one profile, without a network and without running a team's code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_mlops.cli.lint_code import (
    METRIC,
    TRAIN,
    NotCallableSoError,
    NotThereError,
    check_class,
    check_function,
    state_of,
)
from airflow_mlops.cli.lint_contract import check_expectations
from airflow_mlops.cli.lint_findings import Finding, Locate, finding, findings_of
from airflow_mlops.core.drift import check_methods
from airflow_mlops.core.gate import build_rule
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.runtimes import make_runtime
from airflow_mlops.spec.contract import Contract, load_contract
from airflow_mlops.spec.layers import PROFILES, Layered, read_layers
from airflow_mlops.spec.load import asked, resolve_spec
from airflow_mlops.spec.model import ModelSpec, RuntimeSpec, ScheduleSpec
from airflow_mlops.spec.resolve import code_folder, contract_file
from airflow_mlops.spec.yaml_lines import load_yaml


@dataclass(frozen=True)
class Model:
    """A model that could be read: its file, its specification under one profile, and where its keys stand."""

    file: Path
    profile: str | None
    spec: ModelSpec
    layered: Layered

    def at(self, location: Sequence[Any]) -> tuple[str, int]:
        """Return file and line of a key."""
        return place_in(self.layered, location)

    def finding(self, code: str, key: str, message: str, mend: str) -> Finding:
        """Return a finding at a key."""
        return finding(code, self.at(tuple(key.split(".")) if key else ()), key, message, mend)


def place_in(layered: Layered, location: Sequence[Any]) -> tuple[str, int]:
    """Return file and line of a key as two values."""
    file, _, line = layered.place(tuple(location)).rpartition(", line ")
    return file, int(line)


def read_model(file: Path, profile: str | None, owner: str | None) -> tuple[Model | None, list[Finding]]:
    """Return the model in a file, or what is wrong with it."""
    try:
        spec, layered = resolve_spec(file, asked(profile, owner))
    except InvalidSpecError as exc:
        try:
            load_yaml(file)
        except InvalidSpecError as unreadable:
            return None, findings_of("MLOPS101", unreadable, str(file))
        return None, list(_mistakes(file, profile, exc))
    return Model(file, profile, spec, layered), []


def _mistakes(file: Path, profile: str | None, error: InvalidSpecError) -> Iterator[Finding]:
    """Yield what is wrong with a file that can be read, each with the profile that its words name."""
    layered, unknown = None, False
    try:
        layered = read_layers(file)
        layered = read_layers(file, asked(profile, None).get("profile"))
    except InvalidSpecError:
        unknown = layered is not None  # all that is wrong with the layers is the profile that was asked for
    for line in str(error).splitlines():
        text, mark, named = line.partition(" (In the profile ")
        under = named.strip("). ") if mark else profile
        at: Locate | None = None
        if layered is not None:
            chosen = layered.of(under) if under in layered.profiles else layered
            at = partial(place_in, chosen)
        for found in findings_of("MLOPS102", InvalidSpecError(text), str(file), at):
            code = "MLOPS103" if unknown or found.key.startswith(PROFILES) else found.code
            yield replace(found, code=code, profiles=(under,) if under else ())


def check_model(model: Model) -> Iterator[Finding]:
    """Yield what is wrong with a specification that is valid by itself: what it names, and what is questionable."""
    for found in (
        *_contract(model),
        *_functions(model),
        *_notifiers(model),
        *_rules(model),
        *_methods(model),
        *_runtimes(model),
        *_schedules(model),
    ):
        yield replace(found, profiles=(model.profile,) if model.profile else ())


# The contract


def _contract(model: Model) -> Iterator[Finding]:
    path = Path(contract_file(model.spec))
    if not path.is_file():
        yield model.finding(
            "MLOPS201",
            "contract.path",
            f"contract.path leads to {path}, which is no file",
            "Create it, or correct the path (it starts from the specification's folder).",
        )
        return
    contract, found = check_contract(path)
    yield from found
    reads = [column for column in model.spec.train.features or () if contract and column in contract.train_only]
    for column in reads:
        yield model.finding(
            "MLOPS204",
            "train.features",
            f"train.features has {column!r}, which the contract lists under train_only: no batch to score has it",
            "Remove it from the features; or, if every batch does have it when it is scored, from train_only.",
        )


def check_contract(path: Path) -> tuple[Contract | None, tuple[Finding, ...]]:
    """Return the contract in a file, and what is wrong with it."""
    return _contract_in(path, state_of(path))


@cache
def _contract_in(path: Path, state: tuple[int, int]) -> tuple[Contract | None, tuple[Finding, ...]]:  # noqa: ARG001  # of the key
    try:
        contract = load_contract(path)
    except InvalidSpecError as exc:
        return None, tuple(findings_of("MLOPS202", exc, str(path)))
    return contract, tuple(check_expectations(contract))


# Code


def _functions(model: Model) -> Iterator[Finding]:
    folder = code_folder(model.spec)
    if not folder.is_dir():
        yield model.finding(
            "MLOPS301",
            "train.code_path",
            f"train.code_path leads to {folder}, which is no folder",
            "Correct it (it starts from the specification's folder), or create the folder.",
        )
        return
    yield from _checked(
        model,
        "train.function",
        ("train", "function"),
        partial(check_function, model.spec.train.function, folder, TRAIN),
    )
    for number, metric in enumerate(model.spec.evaluation.metrics):
        if ":" in metric:
            yield from _checked(
                model,
                f"evaluation.metrics[{number}]",
                ("evaluation", "metrics", number),
                partial(check_function, metric, folder, METRIC),
            )


def _notifiers(model: Model) -> Iterator[Finding]:
    for number, one in enumerate(model.spec.notifications):
        location = ("notifications", number, "notifier")
        for found in _checked(
            model,
            f"notifications[{number}].notifier",
            location,
            partial(check_class, one.notifier, model.spec.folder),
        ):
            if found.code != "MLOPS301":
                yield found
                continue
            module = one.notifier.partition(":")[0]
            yield finding(
                "MLOPS305",
                model.at(location),
                found.key,
                f"the notifier's module {module!r} is neither here nor in the specification's folder",
                "See that it can be imported on the workers: from the DAG folder, the plugins folder, or a package.",
            )


def _checked(model: Model, key: str, location: tuple[Any, ...], check: Callable[[], None]) -> Iterator[Finding]:
    try:
        check()
    except InvalidSpecError as exc:
        kinds = {NotThereError: "MLOPS302", NotCallableSoError: "MLOPS303"}
        code = next((code for kind, code in kinds.items() if isinstance(exc, kind)), "MLOPS301")
        for found in findings_of(code, exc, str(model.file), key=key):
            # A file that is no Python is named with its own line; all else stands at the key.
            yield found if found.file.endswith(".py") else replace(found, **_place(model.at(location)))


def _place(place: tuple[str, int]) -> dict[str, Any]:
    return {"file": place[0], "line": place[1]}


# Names


def _rules(model: Model) -> Iterator[Finding]:
    for number, rule in enumerate(model.spec.gate.rules):
        yield from _named(
            model, "MLOPS401", f"gate.rules[{number}]", ("gate", "rules", number), partial(build_rule, rule)
        )


def _methods(model: Model) -> Iterator[Finding]:
    if model.spec.drift.engine == "statistics":
        yield from _named(model, "MLOPS402", "drift", ("drift",), partial(check_methods, model.spec.drift))


def _runtimes(model: Model) -> Iterator[Finding]:
    written: list[tuple[tuple[str, ...], RuntimeSpec]] = [(("runtime",), model.spec.runtime)]
    written += [(("step_runtimes", step), runtime) for step, runtime in model.spec.step_runtimes.items()]
    for location, runtime in written:
        yield from _named(
            model,
            "MLOPS403",
            ".".join(location),
            location,
            partial(make_runtime, runtime.name, runtime.settings),
        )


def _named(model: Model, code: str, key: str, location: tuple[Any, ...], make: Callable[[], Any]) -> Iterator[Finding]:
    at: Locate = model.at
    try:
        make()
    except InvalidSpecError as exc:
        for found in findings_of(code, exc, str(model.file), at, key):
            yield replace(found, **_place(model.at(location))) if found.key == key else found


# Schedules


def schedules_of(spec: ModelSpec) -> Iterator[tuple[str, ScheduleSpec]]:
    """Yield every schedule of a specification with its key."""
    yield "schedule", spec.schedule
    if spec.scoring is not None:
        yield "scoring.schedule", spec.scoring.schedule
    if spec.monitoring.schedule is not None:
        yield "monitoring.schedule", spec.monitoring.schedule


def _schedules(model: Model) -> Iterator[Finding]:
    for key, schedule in schedules_of(model.spec):
        if schedule.cron and (problem := _cron_problem(schedule.cron)):
            yield model.finding(
                "MLOPS104",
                f"{key}.cron",
                f"{schedule.cron!r} is no cron expression: {problem}",
                'Write five fields, minute to weekday, such as "0 0 1 * *" for the first of every month.',
            )


@cache
def _cron_problem(expression: str) -> str:
    if importlib.util.find_spec("croniter") is None:  # it comes with Airflow
        return ""
    try:
        import_module("croniter").croniter(expression)
    except ValueError as exc:
        return str(exc).rstrip(".")
    return ""
