"""Everything a new model is written from, found out about its table step by step."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.new_model_files import NewModel
from airflow_mlops.cli.table_options import roles_of
from airflow_mlops.core.inference import TableSeen, combine
from airflow_mlops.core.new_model import (
    LEAST_ROWS,
    Features,
    Split,
    check_target,
    choose_features,
    guess_event_time,
    guess_ids,
    guess_task,
    split,
)
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from airflow_mlops.core.metrics import Task
    from airflow_mlops.engines.contract_inference import FirstContract, Rows
    from airflow_mlops.engines.storage import StorageAccess
    from airflow_mlops.spec.model import DataSpec

TRAIN, EVALUATE = "the training window", "the evaluation window"


@dataclass(frozen=True)
class Study:
    """What was found.

    :param contract: proven on all rows and on both windows.
    :param set_aside: rows without a target, which the contract sets aside.
    """

    model: NewModel
    contract: FirstContract
    set_aside: int


def study(args: argparse.Namespace, data: DataSpec, access: StorageAccess | None) -> Study:
    """Look at the table, guess what was not given, and prove a contract on it.

    :param args: of the verb: ``name``, ``target`` and ``task``.
    :raises InvalidSpecError: the options do not fit the table, or nothing can be learnt from it; the mend is told.
    :raises DataReadError: the table cannot be read.
    """
    from airflow_mlops.engines.contract_inference import first_contract, look, prove, read_rows

    guesses: list[str] = []
    where = data.uri
    rows = read_rows(data, None, access)
    names = [name for name, _ in rows.manifest.columns]
    roles = roles_of(data, args.target, names)
    seen = look(rows, roles)
    if args.target in seen.unreadable:
        raise InvalidSpecError(f"The target cannot be used. {seen.unreadable[args.target]}")
    if data.event_time is None:
        data = data.model_copy(update={"event_time": guess_event_time(seen, args.target, where)})
        guesses.append(f"event time {data.event_time!r}: the only column of times")
        rows = read_rows(data, None, access)
    if not data.id_columns and (ids := guess_ids(seen, [*roles, str(data.event_time)])):
        guesses.append(f"ids {', '.join(map(repr, ids))}: nearly every row has another value")
        data = data.model_copy(update={"id_columns": tuple(ids)})
    roles = roles_of(data, args.target, names)
    seen = look(rows, roles, data.id_columns)

    task, labels, told = _task(args.task, seen, rows, args.target, where)
    guesses += told
    cut = _split(rows, str(data.event_time), where)
    guesses.append(f"training window {cut.train}, evaluation window {cut.evaluate}: about half of the rows each")
    parts: dict[str, tuple[Rows, TableSeen]] = {}
    for name, window in ((TRAIN, cut.train), (EVALUATE, cut.evaluate)):
        part = read_rows(data, window, access)
        _check_part(part, args.target, task, f"{name} {window} of {where}")
        parts[name] = (part, look(part, roles))
    features = choose_features(seen, parts[TRAIN][1])
    if not features.columns:
        raise InvalidSpecError(_no_feature(features, where))
    guesses += features.left_out

    combined = combine(seen, {name: found for name, (_, found) in parts.items()})
    count = f"{rows.table.num_rows:,}"
    source = f"A first contract, inferred from all {count} rows of {where}. It holds on them and on both windows."
    contract = first_contract(combined, source, labels=task != "regression")
    set_aside = prove(contract.contract, rows.frame, where)
    for name, (part, _) in parts.items():
        prove(contract.contract, part.frame, name)
    model = NewModel(
        name=args.name,
        data=data,
        target=args.target,
        task=task,
        features=features.columns,
        labels=labels,
        split=cut,
        train_rows=parts[TRAIN][1].rows,
        guesses=guesses,
    )
    return Study(model, contract, set_aside)


def _task(
    given: Task | None, seen: TableSeen, rows: Rows, target: str, where: str
) -> tuple[Task, list[Any], list[str]]:
    """Return the task, the target's labels in order (none for a regression), and what was guessed."""
    column = seen.column(target)
    if column is None:
        raise InvalidSpecError(f"The target {target!r} of {where} cannot be read.")
    task, told = (given, []) if given else guess_task(column)
    check_target(column, task, where)
    if task == "regression":
        return task, [], told
    labels = sorted(rows.frame[target].dropna().unique().tolist())
    if task == "binary":
        told = [*told, f"positive label {labels[1]!r}: the second one in order"]
    return task, labels, told


def _split(rows: Rows, column: str, where: str) -> Split:
    import numpy

    times = numpy.sort(rows.frame[column].to_numpy().astype("datetime64[us]"))

    def share_before(moment: datetime) -> float:
        naive = numpy.datetime64(moment.replace(tzinfo=None), "us")
        return float(numpy.searchsorted(times, naive)) / len(times)

    try:
        three = [times[place].item().replace(tzinfo=UTC) for place in (0, len(times) // 2, -1)]
    except AttributeError:  # before year 1 or after 9999 there is no datetime
        raise InvalidSpecError(
            f"The event times {column!r} of {where} reach beyond the years 1 to 9999. Mend them where the file is made."
        ) from None
    return split(three, share_before, where)


def _check_part(part: Rows, target: str, task: Task, where: str) -> None:
    """Refuse a window on which nothing could be learnt or measured."""
    values = part.frame[target].dropna()
    if len(values) < LEAST_ROWS:
        raise InvalidSpecError(
            f"Too few rows: {where} has {len(values):,} with a target, and {LEAST_ROWS} are the least that a first "
            f"model is tried on. Give a longer table."
        )
    if values.nunique() < 2:
        raise InvalidSpecError(
            f"The target {target!r} has one value only in {where}, so no {task} model can be "
            f"{'trained' if where.startswith(TRAIN) else 'measured'} there. Give a table in which both halves of the "
            f"time hold {'different values' if task == 'regression' else 'both labels'}."
        )


def _no_feature(features: Features, where: str) -> str:
    return f"No column of {where} is left to learn from. {'. '.join(features.left_out) or 'There is no other column'}."
