"""The labels that a final figure was made of, kept so that a later revision can count what changed.

They are rows, so they do not go to MLflow: they lie beside the predictions, with that store's permissions, as
``_labels/DIGEST.parquet`` (``row``, the prediction's number in its file, and ``label``). Readers of Parquet folders
pass over names that begin with an underscore. Where they cannot be kept or read, totals are compared instead.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.core.realised import Realised
from airflow_mlops.core.rules import number
from airflow_mlops.engines.labels import Joined
from airflow_mlops.engines.storage import (
    StorageAccess,
    filesystem,
    join,
    matching,
    read_blob,
    translated,
    write_bytes,
)
from airflow_mlops.errors import MLOpsError

if TYPE_CHECKING:
    import pyarrow

FOLDER = "_labels"

log = logging.getLogger(__name__)


def keep_labels(batch: ScoringReport, joined: Joined, access: StorageAccess | None) -> bool:
    """Write the labels beside the predictions; say whether that was possible. The same labels give the same file."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(joined.table, sink, compression="zstd")
    uri = _uri(batch, joined.digest)
    try:
        write_bytes(uri, sink.getvalue(), access)
    except (MLOpsError, OSError) as exc:
        log.warning("The labels could not be kept at %s, so a later revision compares totals alone: %s", uri, exc)
        return False
    return True


def what_changed(
    before: Realised, now: Realised, joined: Joined, batch: ScoringReport, access: StorageAccess | None
) -> str:
    """Return in words what is new since the revision before: labels, and each metric before and after."""
    report = before.report
    if report.labels_digest == now.report.labels_digest:
        how = "" if before.measured_digest == now.measured_digest else ", measured in another way"
        said = f"the labels are the same{how}"
    elif (kept := _kept(batch, report.labels_digest, access)) is None:
        said = f"{report.labelled_count:,} labels became {joined.labelled:,} (which ones changed is not known any more)"
    else:
        added, changed, withdrawn = _compared(kept, joined.table)
        parts = ((added, "added"), (changed, "changed"), (withdrawn, "withdrawn"))
        said = ", ".join(f"{_labels(count)} {what}" for count, what in parts if count)
    moved = [
        f"{name} {_shown(report.metrics[name])} to {_shown(value)}"
        for name, value in now.report.metrics.items()
        if name in report.metrics
    ]
    return f"Since revision {report.revision}: {'; '.join(filter(None, [said, *moved]))}."


def _compared(before: pyarrow.Table, now: pyarrow.Table) -> tuple[int, int, int]:
    import duckdb

    with duckdb.connect(config={"threads": 1}) as database:
        database.register("earlier", before)
        database.register("later", now)
        kind = "VARCHAR" if _is_text(before) or _is_text(now) else "DOUBLE"
        found = database.execute(
            f"SELECT count(*) FILTER (e.row IS NULL), count(*) FILTER (e.label::{kind} <> l.label::{kind}), "  # noqa: S608
            f"count(*) FILTER (l.row IS NULL) FROM earlier e FULL JOIN later l ON e.row = l.row"
        ).fetchone()
    assert found is not None  # noqa: S101  # an aggregate has one row
    return found[0], found[1], found[2]


def _is_text(table: pyarrow.Table) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(table["label"].type) or pyarrow.types.is_large_string(table["label"].type))


def _kept(batch: ScoringReport, digest: str, access: StorageAccess | None) -> pyarrow.Table | None:
    import pyarrow
    from pyarrow import parquet

    uri = _uri(batch, digest)
    usable = matching(access, uri)
    try:
        with translated(uri, usable):
            files, path = filesystem(uri, usable)
            return parquet.read_table(pyarrow.BufferReader(read_blob(files, path).buffer))
    except (MLOpsError, OSError, pyarrow.ArrowException) as exc:
        log.warning("The labels of the revision before cannot be read from %s: %s", uri, exc)
        return None


def _uri(batch: ScoringReport, digest: str) -> str:
    return join(batch.output_uri.rpartition("/")[0], FOLDER, f"{digest[:32]}.parquet")


def _labels(count: int) -> str:
    return f"{count:,} label{'' if count == 1 else 's'}"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else number(value)
