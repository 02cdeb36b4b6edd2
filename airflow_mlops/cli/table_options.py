"""The options that say what a table is and what its columns mean, for the verbs that look at one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.inference import Role
from airflow_mlops.errors import DataReadError, InvalidSpecError
from airflow_mlops.spec.model import DataSpec

if TYPE_CHECKING:
    from airflow_mlops.engines.storage import StorageAccess

_PACKED = (".gz", ".bz2", ".zst")


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add format, connection and the columns' roles."""
    parser.add_argument("--format", choices=["parquet", "csv"], help="default: by the ending")
    parser.add_argument("--conn-id", help="Airflow connection with the store's credentials; default: your own identity")
    parser.add_argument("--event-time", metavar="COL", help="timestamp column that windows cut")
    parser.add_argument(
        "--id", dest="ids", metavar="COL", nargs="+", default=[], action="extend", help="columns that name an entity"
    )
    parser.add_argument(
        "--personal",
        metavar="COL",
        nargs="+",
        default=[],
        action="extend",
        help="columns about a person; their values are never written",
    )


def storage_of(args: argparse.Namespace) -> StorageAccess | None:
    """Return the store's credentials from the named Airflow connection; None: the caller's own identity."""
    if args.conn_id is None:
        return None
    from airflow_mlops.hooks.storage import storage_access

    return storage_access(args.conn_id)


def data_of(uri: str, args: argparse.Namespace, access: StorageAccess | None) -> DataSpec:
    """Return where the table is, its format told by ``--format``, by its ending, or by what a folder holds.

    :raises InvalidSpecError: the options contradict each other, or hold what a specification may not.
    :raises DataReadError: nothing is there.
    """
    both = sorted(set(args.ids) & set(args.personal))
    if both:
        raise InvalidSpecError(f"Column {both[0]!r} is named by --id and by --personal. Name it by one: --personal.")
    settings: dict[str, Any] = {
        "uri": uri,
        "conn_id": args.conn_id,
        "event_time": args.event_time,
        "id_columns": tuple(dict.fromkeys(args.ids)),
        "personal_columns": tuple(dict.fromkeys(args.personal)),
    }
    try:
        return DataSpec(**settings, format=args.format or _format_of(uri, access))
    except ValueError as exc:
        if isinstance(exc, InvalidSpecError):
            raise
        told = [error["msg"].removeprefix("Value error, ") for error in exc.errors()] if hasattr(exc, "errors") else []
        raise InvalidSpecError(f"This is not a place of data: {'; '.join(told) or exc}.") from exc


@contextmanager
def named_as_options() -> Iterator[None]:
    """Name what a person must mend by this verb's options, where an error names a specification's keys."""
    try:
        yield
    except DataReadError as exc:
        text = str(exc)
        for key, option in (("data.event_time", "--event-time"), ("data.format", "--format"), ("data.uri", "the path")):
            text = text.replace(key, option)
        raise DataReadError(text) from exc


def roles_of(data: DataSpec, target: str | None, columns: Sequence[str]) -> dict[str, Role]:
    """Return the role of every column that has one.

    :raises InvalidSpecError: a named column is not in the data (the nearest is given), or the target has two roles.
    """
    roles: dict[str, Role] = dict.fromkeys(data.id_columns, "id")
    roles |= dict.fromkeys(data.personal_columns, "personal")
    if data.event_time is not None:
        # A time that is an id or personal as well: what hides its values goes first.
        roles.setdefault(data.event_time, "event_time")
    if target is not None:
        if target in roles:
            raise InvalidSpecError(
                f"The target {target!r} is also named as {_OPTION[roles[target]]}. A model cannot learn what must not "
                f"be looked at: take it out there."
            )
        roles[target] = "target"
    for name, role in roles.items():
        if name not in columns:
            close = get_close_matches(name, columns, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidSpecError(
                f"{data.uri} has no column {name!r}, which {_OPTION[role]} names.{hint} Its columns: "
                f"{', '.join(columns[:30])}{' …' if len(columns) > 30 else ''}."
            )
    return roles


_OPTION: dict[Role, str] = {
    "target": "--target",
    "event_time": "--event-time",
    "id": "--id",
    "personal": "--personal",
    "plain": "nothing",
}


def _format_of(uri: str, access: StorageAccess | None) -> Literal["parquet", "csv"]:
    name = uri.rstrip("/").rpartition("/")[2].lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    if name.endswith(".csv"):
        return "csv"
    if name.endswith((".parquet", ".pq", ".parq")):
        return "parquet"
    from airflow_mlops.engines.listing import list_files
    from airflow_mlops.engines.storage import filesystem

    files, path = filesystem(uri, access)
    if files.get_file_info(path).is_file:
        raise InvalidSpecError(f"{uri} has no ending that tells its format. Say --format parquet or --format csv.")
    try:
        list_files(DataSpec(uri=uri, format="parquet"), access)
    except DataReadError:
        try:
            list_files(DataSpec(uri=uri, format="csv"), access)
        except DataReadError:
            return "parquet"  # reading says what is missing
        return "csv"
    return "parquet"
