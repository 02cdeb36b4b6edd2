"""``airflow-mlops lint``: everything about model files that can be known without a network and without a run."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_mlops.cli import model_dags
from airflow_mlops.cli.lint_findings import CODES, Finding, merged
from airflow_mlops.cli.output import emit
from airflow_mlops.errors import InvalidSpecError, UnknownNameError

#: From so many files on, the work is shared among processes: starting one costs as much as some dozens of files.
_SHARED = 60
_MOST_PROCESSES = 8
#: What is found in the source of a team's code.
_SOURCE = ("MLOPS301", "MLOPS302", "MLOPS303")
#: What is found in a contract's expectations.
_CONTRACT = ("MLOPS202", "MLOPS203")


@dataclass(frozen=True)
class Options:
    """What is looked at.

    :param profiles: the profiles to look at; empty: what ``load_spec`` takes without being told.
    :param every_profile: look at each profile that a file or its base defines.
    :param dags: make the DAGs and serialise them, where Airflow is installed.
    """

    profiles: tuple[str, ...] = ()
    every_profile: bool = False
    owner: str | None = None
    dags: bool = True


@dataclass
class Report:
    """What was found in how many files."""

    files: int
    findings: list[Finding] = field(default_factory=list)
    connections: dict[str, list[str]] = field(default_factory=dict)


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "lint",
        help="check model files: for CI, without a network and without running a team's code",
        description="Checks files, or every model in folders: the specification under each profile, its contract, the "
        "training function and metrics by their source, gate rules, drift methods, runtimes, notifiers, cron "
        "expressions, names that two models share, and whether Airflow can make and serialise the DAGs. Exit code 1 "
        "where there is an error.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="model files, contracts, or folders")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="P",
        help="look at this profile; may be given again; default: AIRFLOW_MLOPS_PROFILE, else what the file says",
    )
    which.add_argument("--all-profiles", action="store_true", help="look at every profile that the files define")
    parser.add_argument("--owner", help="whose they are, part of names outside prod; default: AIRFLOW_MLOPS_OWNER")
    parser.add_argument(
        "--import",
        dest="imports",
        action="store_true",
        help="also import the training functions and metrics, which runs their modules, and MLflow's flavours, and let "
        "Great Expectations look at the contracts itself",
    )
    parser.add_argument("--no-dags", action="store_true", help="do not make the DAGs; then Airflow is not imported")
    parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings, too")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="CODE", help="leave findings of this code out; may be repeated"
    )
    parser.add_argument(
        "--format", choices=["text", "json", "github"], default="text", help="github: annotations of a workflow's run"
    )
    parser.add_argument("--json", action="store_const", dest="format", const="json", help="the same as --format json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 where one is an error, or with ``--strict`` where there is one at all.

    :raises InvalidSpecError: a path is not there, there is nothing to look at, or a code is unknown.
    """
    ignored = [code.upper() for code in args.ignore]
    for code in ignored:
        if code not in CODES:
            raise UnknownNameError.of("finding", code, CODES)
    options = Options(tuple(args.profile), args.all_profiles, args.owner, dags=not args.no_dags)
    report = lint(args.paths, options, imports=args.imports)
    if options.dags and not model_dags.has_airflow():
        print("Airflow is not installed here, so no DAG was made.", file=sys.stderr)
    report.findings = [one for one in report.findings if one.code not in ignored]
    emit({"text": _text, "json": _json, "github": _github}[args.format](report))
    counted = report.findings if args.strict else [one for one in report.findings if one.level == "error"]
    return 1 if counted else 0


def lint(paths: Sequence[Path], options: Options = Options(), *, imports: bool = False) -> Report:
    """Look at files and folders.

    :param imports: import the team's code, each code folder in a process of its own.
    :raises InvalidSpecError: a path is not there, or there is nothing to look at.
    """
    from airflow_mlops.cli.lint_fleet import collisions, connections, shared_outputs

    files = _files(paths)
    results = [_look((file, options)) for file in files] if len(files) < _SHARED else _in_processes(files, options)
    findings = [one for found, _ in results for one in found]
    facts = [one for _, known in results for one in known]
    findings += [*collisions(facts), *shared_outputs(facts)]
    if imports:
        from airflow_mlops.cli.lint_import import import_all

        told = {(one.file, _expectation(one)) for one in findings if one.code in _CONTRACT}
        asked = import_all(facts)
        findings += [one for one in asked if one.code not in _CONTRACT or (one.file, _expectation(one)) not in told]
    shown = merged(replace(one, file=_shown(one.file)) for one in findings)
    used = {name: [_shown(file) for file in named] for name, named in connections(facts).items()}
    return Report(len(files), sorted(shown), used)


def _expectation(found: Finding) -> str:
    """Return which of a contract's expectations it is about; several may stand on one line."""
    return found.key.partition(".")[0]


def _files(paths: Sequence[Path]) -> list[Path]:
    from airflow_mlops.spec.fleet import model_files

    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(model_files(path))
        elif path.exists() or path.is_symlink():
            found[path] = None
        else:
            raise InvalidSpecError(f"{path} does not exist. Check the path; relative ones start at {Path.cwd()}.")
    if not found:
        raise InvalidSpecError(
            f"There is no model in {', '.join(map(str, paths))}: no .yaml, .yml or .json file whose name begins with "
            f"neither `_` nor `.` and that is no contract. Name another folder."
        )
    # Path.resolve() fails on a link to itself.
    once = {os.path.realpath(file): file for file in reversed(found)}
    return sorted(once.values())


def _in_processes(files: Sequence[Path], options: Options) -> list[Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, _MOST_PROCESSES)
    if count == 1:
        return [_look((file, options)) for file in files]
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_look, [(file, options) for file in files], chunksize=8))


def _look(asked: tuple[Path, Options]) -> tuple[list[Finding], list[Any]]:
    """Look at one file: its findings, and its facts under each profile."""
    from airflow_mlops.cli.lint_advice import advise
    from airflow_mlops.cli.lint_dags import check_dags
    from airflow_mlops.cli.lint_fleet import facts_of, facts_of_contract
    from airflow_mlops.cli.lint_model import check_contract, check_model, read_model
    from airflow_mlops.spec.fleet import is_contract
    from airflow_mlops.spec.layers import read_layers

    file, options = asked
    if is_contract(file):
        return list(check_contract(file)[1]), [facts_of_contract(file)]
    profiles: Sequence[str | None] = options.profiles
    if file.name.startswith("_") or (options.every_profile and not profiles):
        try:
            layered = read_layers(file)
        except InvalidSpecError:
            return read_model(file, None, options.owner)[1], []
        if file.name.startswith("_"):
            return [], []  # a base, named on purpose: what it lacks its models give
        profiles = layered.profiles
    found: list[Finding] = []
    facts: list[Any] = []
    for profile in profiles or (None,):
        model, wrong = read_model(file, profile, options.owner)
        found += wrong
        if model is None:
            continue
        wrong = list(check_model(model))
        found += [*wrong, *advise(model)]
        # What is wrong in its source already needs no import to be told again.
        told = {one.key for one in wrong if one.code in _SOURCE}
        known = facts_of(model)
        facts.append(replace(known, loaded=tuple(one for one in known.loaded if one.key not in told)))
        if options.dags and model_dags.has_airflow() and not any(one.level == "error" for one in wrong):
            found += check_dags(model)
    # What is wrong under every profile is wrong with the specification.
    looked = set(profiles)
    alone = [replace(one, profiles=()) if set(one.profiles) == looked else one for one in merged(found)]
    return alone, facts


def _shown(file: str) -> str:
    """Return a path as short as it goes: from the current folder where the file is below it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


# Output


def _text(report: Report) -> str:
    lines = []
    for one in report.findings:
        under = f" [{', '.join(one.profiles)}]" if one.profiles else ""
        key = f"{one.key}: " if one.key and not one.message.startswith(one.key) else ""
        lines.append(f"{one.file}:{one.line}: {one.level} {one.code}{under}: {key}{one.message}.")
        lines += [f"    {one.mend}"] if one.mend else []
    return "\n".join([*lines, *_closing(report)])


def _closing(report: Report) -> Iterator[str]:
    counts = Counter(one.level for one in report.findings)
    said = ", ".join(f"{number} {level}{'s' * (number > 1)}" for level, number in sorted(counts.items()))
    what = "1 file" if report.files == 1 else f"{report.files:,} files"
    yield f"{what}: {said or 'nothing found'}."
    if report.connections:
        named = [f"{name} ({_several(files)})" for name, files in report.connections.items()]
        yield f"Airflow connections they need: {', '.join(named)}."


def _several(files: Sequence[str]) -> str:
    return Path(files[0]).name if len(files) == 1 else f"{len(files):,} models"


def _json(report: Report) -> str:
    told = {
        "files": report.files,
        "findings": [one.to_json() for one in report.findings],
        "connections": report.connections,
    }
    return json.dumps(told, indent=1)


def _github(report: Report) -> str:
    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def value(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    lines = [
        f"::{one.level} file={value(one.file)},line={one.line},title={value(f'{one.code} {one.key}'.strip())}::"
        + data(f"{one.message}. {one.mend}".strip())
        for one in report.findings
    ]
    return "\n".join([*lines, *_closing(report)])
