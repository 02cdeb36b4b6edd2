"""``airflow-mlops trace``: from a version or an alias back to everything it was made of."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.access import add_access_options, resolve_access
from airflow_mlops.cli.output import emit
from airflow_mlops.engines.versions import read_span
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from airflow_mlops.engines.trace import Trace

#: Entries of one list that the text shows; ``--json`` has them all.
MOST = 20
DEFAULT_FILES = 10
NOT_RECORDED = "not recorded"


def add_verb(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "trace",
        help="where a version comes from: data, contract, code, parameters, runs, gate, ledger",
        description="Leads from a registered version, or from an alias, back to the files it was trained and judged "
        "on, the contract's result, the code, parameters and environment, the tasks that made it, the gate's sentences "
        "and the ledger's entries. Exit code 1 when something is not known; each such fact is named.",
    )
    parser.add_argument("name", help="the registered model")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, default=None, help="the version's number")
    which.add_argument("--alias", default="champion", help="the version an alias stands for (default: champion)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--files", type=int, default=DEFAULT_FILES, metavar="N", help=f"files to show (default: {DEFAULT_FILES})"
    )
    add_access_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the trace; 0 when nothing is blank, else 1.

    :raises InvalidSpecError: ``--files`` is negative, or what is asked for does not exist.
    """
    from airflow_mlops.engines.trace import trace
    from airflow_mlops.engines.tracking import connected

    if args.files < 0:
        raise InvalidSpecError(f"--files is {args.files}; it must be 0 or more. --json prints every file.")
    access = resolve_access(args)
    with connected(access.server, access.login) as client:
        found = trace(client, args.name, version=args.version, alias=args.alias)
    emit(json.dumps(found.to_json(), indent=1) if args.json else readable(found, files=args.files))
    return 1 if found.blanks else 0


def readable(trace: Trace, *, files: int = DEFAULT_FILES) -> str:
    """Return the trace as text: a section for each part, long lists cut with how many more there are."""
    found = trace.found
    lines = [f"{found['name']} version {found['version']}"]
    lines += [f"  {text}" for text in found["standing"] or ["It was never promoted."]]
    for mark in ("superseded_by", "duplicate_of"):
        if found[mark]:
            lines.append(f"  {mark.replace('_', ' ').capitalize()} version {found[mark]}.")
    if trace.blanks:
        lines += ["", f"NOT KNOWN: {len(trace.blanks)}", *(f"  - {blank}" for blank in trace.blanks)]
    for title, body in (
        ("Model", _model(found["model"])),
        ("Training data", _data(found["training_data"], files)),
        ("Evaluation data", _data(found["evaluation_data"], files)),
        ("Code", _code(found["code"])),
        ("Parameters", _parameters(found["parameters"])),
        ("Environment", _environment(found["environment"])),
        ("Evaluation", _evaluation(found["evaluation"])),
        ("Gate", _gate(found["gate"])),
        ("Serving check", _serving(found["serving"])),
        ("Approval", _approval(found["approval"])),
        ("Ledger", _ledger(found["ledger"])),
        ("Tasks", _tasks(found["tasks"])),
        ("Model card", iter([_where(found["card"]["uri"], stored=found["card"]["stored"])])),
    ):
        lines += ["", title, *(f"  {line}" for line in body)]
    return "\n".join(lines)


def _fact(name: str, value: Any) -> str:
    return f"{name:<13} {NOT_RECORDED if value in (None, '', [], {}) else value}"


def _window(text: str | None) -> str:
    window = read_span(text)
    return "" if window is None else str(window)


def _where(uri: str, *, stored: bool) -> str:
    return NOT_RECORDED if not uri else uri if stored else f"{uri} (gone)"


def _listed(items: Sequence[str], most: int = MOST, total: int | None = None, where: str = "--json") -> Iterator[str]:
    yield from (f"- {item}" for item in items[:most])
    if (more := max(len(items), total or 0) - len(items[:most])) > 0:
        yield f"  and {more:,} more ({where} has them)"


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    yield _fact("uri", model["uri"])
    yield _fact("files", _where(model["artifact_uri"], stored=model["stored"]))
    yield _fact("digest", model["digest"])
    kind = ", ".join(str(part) for part in (model["flavor"], model["serialization"]) if part)
    yield _fact("format", kind)
    yield _fact("size", None if model["size_bytes"] is None else f"{model['size_bytes']:,} bytes")
    yield _fact("target", model["target"])
    features = model["features"]
    shown = ", ".join(features[:MOST]) + (f" and {len(features) - MOST} more" if len(features) > MOST else "")
    yield _fact("features", f"{model['feature_count']}: {shown}" if shown else model["feature_count"])


def _data(data: Mapping[str, Any], files: int) -> Iterator[str]:
    yield _fact("uri", data["uri"])
    yield _fact("digest", data["digest"])
    yield _fact("window", _window(data["window"]))
    yield from _files(data, files)
    if (raw := data["raw"]) is not None:
        yield _fact("made from", f"rows of dataset {raw['digest']}, of which some were set aside")
        yield from _files(raw, files)
    contract = data["contract"]
    if contract is None:
        yield _fact("contract", None)
        return
    yield _fact("contract", f"{contract['verdict']}: {contract['sentence']}")
    yield from (f"{'':<13} {line}" for line in _listed(contract["findings"], total=contract["finding_count"]))
    yield _fact("", f"contract digest {contract['digest']}")
    yield _fact("", f"report {contract['report_uri'] or NOT_RECORDED}")
    if contract["quarantined"]:
        yield _fact("", f"{contract['quarantined']:,} rows set aside in {contract['quarantine_uri']}")


def _files(data: Mapping[str, Any], most: int) -> Iterator[str]:
    yield _fact("manifest", data["manifest_uri"])
    if data["row_count"] is None:
        return
    files = data["files"]
    what = "1 file" if len(files) == 1 else f"{len(files):,} files"
    yield _fact("files", f"{what}, {data['row_count']:,} rows, {data['snapshot']}")
    for file in files[:most]:
        yield f"{'':<13} {file['sha256']}  {file['rows']:>9,} rows  {file['path']}"
    if len(files) > most:
        yield f"{'':<13} and {len(files) - most:,} more (--files N, --json)"


def _code(code: Mapping[str, Any]) -> Iterator[str]:
    note = "" if code["is_commit"] or not code["commit"] else " (no commit: the files themselves are in the source)"
    yield _fact("commit", f"{code['commit']}{note}" if code["commit"] else None)
    yield _fact("digest", code["digest"])
    yield _fact("function", code["function"])
    yield _fact("source", _where(code["source_uri"], stored=code["source_stored"]))


def _parameters(found: Mapping[str, Any]) -> Iterator[str]:
    yield _fact("seed", None if found["seed"] is None else str(found["seed"]))
    yield from _listed([f"{name} = {value}" for name, value in found["values"].items() if name != "seed"])
    yield _fact("digest", found["digest"])


def _environment(found: Mapping[str, Any]) -> Iterator[str]:
    yield _fact("digest", found["digest"])
    yield _fact("python", found["python"] and f"{found['python']}, {found['platform']}")
    libraries = found["requirements"] or [f"{name}=={version}" for name, version in found["libraries"].items()]
    total = len(found["libraries"])
    yield _fact("libraries", f"{len(libraries)} of its own, {total} with what these need" if libraries else None)
    yield from _listed(libraries, total=total)


def _evaluation(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield NOT_RECORDED
        return
    yield _fact("rows", f"{found['rows']:,} of {_window(found['window']) or 'data without a window'}")
    yield _fact("dataset", found["dataset_digest"])
    version = found["champion_version"]
    yield _fact("champion", "none yet" if version is None else f"version {version}")
    for name, value in list(found["metrics"].items())[:MOST]:
        against = found["champion_metrics"].get(name)
        compared = f", champion {_figure(against)}" if version is not None else ""
        yield f"- {name}: candidate {_figure(value)}{compared}"
    if (more := len(found["metrics"]) - MOST) > 0:
        yield f"  and {more} more (--json has them)"
    if found["champion_problem"]:
        yield _fact("problem", found["champion_problem"])
    yield from _listed([f"{name}: {note}" for name, note in found["notes"].items()])
    yield _fact("evidence", found["evidence_uri"])


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"


def _gate(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield NOT_RECORDED
        return
    yield _fact("verdict", f"{found['verdict']} ({found['mode']})" if found["mode"] else found["verdict"])
    if "sentence" not in found:
        return
    yield _fact("", found["sentence"])
    # Every sentence: they are why it was let through.
    yield from (f"- {one['status']}: {one['sentence']}" for one in found["results"])
    yield _fact("decision", found["decision_uri"])


def _serving(found: Mapping[str, Any] | None) -> Iterator[str]:
    yield "none was made, or none is recorded" if found is None else found["sentence"]


def _approval(found: Any) -> Iterator[str]:
    if found is None:
        yield "none is recorded"
    elif isinstance(found, Mapping):
        yield from (_fact(str(name), value) for name, value in found.items() if name != "schema" and value)
    else:
        yield str(found)


def _ledger(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not lines:
        yield "no entry names this version"
    for line in lines:
        moved = f"version {line['from_version'] or 'none'} -> version {line['to_version']}"
        if line["role"] == "decided":
            moved = f"version {line['to_version']}"
        yield f"{line['entry']:>4}  {line['time']}  {line['status']}, {line['action']}, {line['alias']}: {moved}"
        via = f" ({line['via']})" if line["via"] else ""
        yield f"      by {line['author']}{via}: {line['reason']}"
        if line["status"] != "counted":
            yield f"      {line['sentence']}"
        if line["lacks"]:
            yield f"      not known of it then: {', '.join(line['lacks'])}"


def _tasks(tasks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not tasks:
        yield NOT_RECORDED
    for task in tasks:
        other = "  (of another run than the gate)" if task["other_run"] else ""
        yield f"{task['step']:<10} {task['key'] or NOT_RECORDED}{other}"
        yield f"{'':<10} MLflow run {task['run_id'] or NOT_RECORDED}"
        if task["task_url"]:
            yield f"{'':<10} {task['task_url']}"
    pages = dict.fromkeys(
        f"DAG run {task['dag_id']} {task['dag_run_id']}  {task['dag_run_url'] or ''}".rstrip()
        for task in tasks
        if task["dag_id"]
    )
    yield from pages
