"""``airflow-mlops history``, ``promote`` and ``rollback``: the promotion ledger for people."""

from __future__ import annotations

import argparse
import json
import uuid
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.access import add_access_options, current_user, resolve_access
from airflow_mlops.cli.output import emit
from airflow_mlops.core.ledger import DECISIONS
from airflow_mlops.errors import InvalidSpecError

#: Airflow cannot be told from outside that its question was answered; see ``ApproveModelOperator``.
_WAKING = (
    "(An Airflow task that still asks does not hear of this: its run goes on waiting, and the run's Asset event with "
    "it; with max_active_runs 1 later runs queue behind it. Press either button on the task's page in Airflow to let "
    "the run go on: it goes by this decision, whichever was pressed.)"
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.core.records import Promotion
    from airflow_mlops.engines.alias_moves import Wish
    from airflow_mlops.engines.approvals import Waiting
    from airflow_mlops.engines.registry import History, HistoryLine
    from airflow_mlops.steps.base import Access


def add_verbs(subparsers: Any) -> None:
    """Register the three verbs; each sets ``run`` to a function from arguments to exit code."""
    shown = subparsers.add_parser("history", help="who was champion when, by whom and why")
    _common(shown)
    shown.set_defaults(run=run_history)

    promoted = subparsers.add_parser(
        "promote",
        help="approve or reject a candidate that waits, record an alias (--adopt), or --override the gate",
        description="The training DAG promotes by itself. This verb is for what only a person can decide; it is "
        "recorded in the promotion ledger with author and reason.",
    )
    _common(promoted)
    promoted.add_argument(
        "version",
        type=int,
        nargs="?",
        help="the version to decide on; needed with --override, and where several wait for approval",
    )
    promoted.add_argument(
        "--candidate",
        metavar="RUN",
        help="with --override, instead of VERSION: register the model that this gate run (an MLflow run id) judged",
    )
    act = promoted.add_mutually_exclusive_group()
    act.add_argument("--approve", action="store_true", help="approve VERSION, which waits for it, and promote it")
    act.add_argument("--reject", action="store_true", help="reject VERSION, which waits for approval; nothing moves")
    act.add_argument("--adopt", action="store_true", help="record the version that the alias names now")
    act.add_argument("--override", action="store_true", help="make VERSION champion whatever the gate says")
    _audited(promoted)
    promoted.set_defaults(run=run_promote)

    rolled = subparsers.add_parser("rollback", help="restore the version that served before")
    _common(rolled)
    _audited(rolled)
    rolled.set_defaults(run=run_rollback)


def run_history(args: argparse.Namespace) -> int:
    """Print the ledger; 1 when something needs a person."""
    from airflow_mlops.engines.registry import history
    from airflow_mlops.engines.tracking import connected

    access = resolve_access(args)
    with connected(access.server, access.login) as client:
        found = history(client, args.name, args.alias)
    emit(json.dumps(found.to_json(), indent=1) if args.json else _readable(found))
    return 0 if found.problem is None else 1


def run_promote(args: argparse.Namespace) -> int:
    """Approve, reject, adopt or override; 0 when the ledger recorded it and the alias agrees.

    :raises InvalidSpecError: nothing or a wrong mixture was asked for.
    """
    from airflow_mlops.engines.alias_moves import adopt, override
    from airflow_mlops.engines.tracking import connected

    if not (args.adopt or args.override or args.approve or args.reject):
        raise InvalidSpecError(
            "Say what to do: --approve promotes a candidate that waits for approval, --reject turns it down; --adopt "
            "records the version that the alias names now; VERSION --override makes a version champion without "
            "evidence. Any other candidate is promoted by its training run."
        )
    if args.candidate is not None and not args.override:
        raise InvalidSpecError(
            "--candidate goes with --override only: a candidate that was never registered has nothing to approve, "
            "reject or adopt. To decide on a registered version write its number after the name."
        )
    if args.override and (args.version is None) == (args.candidate is None):
        raise InvalidSpecError(
            "--override needs either the version's number (airflow-mlops promote NAME VERSION --override) or a "
            "candidate that was never registered (--candidate RUN, the MLflow run id of its gate task)."
        )
    if args.adopt and args.version is not None:
        raise InvalidSpecError(
            f"--adopt takes no version: it records the one that the alias names now. To make version {args.version} "
            f"champion use --override."
        )
    access = resolve_access(args)
    with connected(access.server, access.login) as client:
        wish = _wish(args)
        if args.approve or args.reject:
            return _decide(client, args, wish)
        if args.adopt:
            record = adopt(client, wish)
        else:
            record = override(
                client, wish, _registered(client, access, args, wish) if args.version is None else args.version
            )
    return _tell(record, args)


def run_rollback(args: argparse.Namespace) -> int:
    """Roll back; 0 when the version that served before serves again."""
    from airflow_mlops.engines.alias_moves import rollback
    from airflow_mlops.engines.tracking import connected

    access = resolve_access(args)
    with connected(access.server, access.login) as client:
        record = rollback(client, _wish(args))
    return _tell(record, args)


def _decide(client: MlflowClient, args: argparse.Namespace, wish: Wish) -> int:
    """Approve or reject a candidate; 0 when an approved one is champion, or the rejection is recorded."""
    from airflow_mlops.engines.approvals import approve, reject, the_one_waiting

    number = args.version if args.version is not None else the_one_waiting(client, args.name, args.alias)
    if args.reject:
        approval = reject(client, wish, number)
        emit(json.dumps(approval.to_xcom(), indent=1) if args.json else f"rejected: {approval.sentence} {_WAKING}")
        return 0
    found, record = approve(client, wish, number)
    if args.json:
        emit(json.dumps({**record.to_xcom(), "approval": None if found is None else found.to_xcom()}, indent=1))
    else:
        said = "" if found is None else f" {found.sentence} {_WAKING}"
        emit(f"{record.outcome}: {record.sentence}{said}")
    return 0 if record.outcome == "promoted" else 1


def _registered(client: MlflowClient, access: Access, args: argparse.Namespace, wish: Wish) -> int:
    """Register the model that a gate run judged, whatever its verdict, and return the version."""
    from airflow_mlops.core.records import GateDecision, ModelVersionRef
    from airflow_mlops.engines import runs
    from airflow_mlops.steps.base import RunInfo, StepRequest, perform

    found = client.get_run(args.candidate)
    stored = runs.read_record(client, found)
    if stored is None or stored.get("schema") != GateDecision.schema_name:
        raise InvalidSpecError(
            f"MLflow run {args.candidate} holds no gate decision. Give the run that the gate task's link leads to."
        )
    experiment = client.get_experiment(found.info.experiment_id).name
    request = StepRequest(
        step="register",
        key=f"override/{args.name}/{args.candidate}/register/-1",
        run=RunInfo(key=f"override/{args.name}/{args.candidate}", name="override", experiment=experiment),
        payload={"decision": stored, "registered_model": args.name, "reason": wish.reason, "override": True},
    )
    return ModelVersionRef.from_xcom(perform(request, access).to_xcom()).version


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the registered model")
    parser.add_argument("--alias", default="champion", help="which alias (default: champion)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_access_options(parser)


def _audited(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why; kept in the ledger")
    parser.add_argument("--author", default=None, help="who; default: you")


def _wish(args: argparse.Namespace) -> Any:
    from airflow_mlops.engines.alias_moves import Wish

    author = args.author or current_user()
    return Wish(args.name, args.alias, author, args.reason, key=f"cli/{author}/{uuid.uuid4().hex}")


def _tell(record: Promotion, args: argparse.Namespace) -> int:
    emit(json.dumps(record.to_xcom(), indent=1) if args.json else f"{record.outcome}: {record.sentence}")
    return 0 if record.outcome == "promoted" else 1


def _readable(found: History) -> str:
    entries = "1 ledger entry" if len(found.lines) == 1 else f"{len(found.lines)} ledger entries"
    lines = [f"{found.name}: {found.alias} is {_version(found.champion)}, by {entries}."]
    if not found.lines and found.alias_version is None:
        lines = [f"{found.name}: nothing was ever {found.alias}. Check the name, if this is a surprise."]
    if found.problem is not None:
        lines.append(f"NEEDS ATTENTION: {found.problem}")
    elif found.alias_version != found.champion:
        lines.append(f"The alias still names {_version(found.alias_version)}; the last promotion is being applied.")
    lines.extend(_waits(one) for one in found.waiting)
    lines.extend(_entry(line) for line in found.lines)
    return "\n".join(lines)


def _waits(one: Waiting) -> str:
    since = f" since {one.since:%Y-%m-%d %H:%M:%SZ}" if one.since is not None else ""
    until = f", asked until {one.until:%Y-%m-%d %H:%M:%SZ}" if one.until is not None else ""
    tried = "; the task that asked got no answer in time" if one.timed_out else ""
    return f"WAITS FOR APPROVAL: version {one.version}{since}{until}{tried}."


def _entry(line: HistoryLine) -> str:
    when = line.time.strftime("%Y-%m-%d %H:%M:%SZ") if line.time is not None else "time unknown"
    if line.to_version is None:
        return f"{line.entry:>4}  {when}  {line.status:<10}  {line.sentence}"
    decision = line.action in DECISIONS
    fate = line.status if line.status != "counted" or line.applied or decision else "counted, not applied yet"
    window = f", window {line.window}" if line.window is not None else ""
    told = "" if line.status == "counted" else f"\n      {line.sentence}"
    lacks = f"\n      not known of it: {', '.join(line.lacks)}" if line.lacks else ""
    moved = _version(line.to_version) if decision else f"{_version(line.from_version)} -> {_version(line.to_version)}"
    by = f"{line.author} ({line.via})" if line.via else line.author
    return (
        f"{line.entry:>4}  {when}  {fate:<10}  {line.action} {moved}{window}\n      by {by}: {line.reason}{told}{lacks}"
    )


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
