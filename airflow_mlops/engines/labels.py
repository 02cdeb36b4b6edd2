"""Labels that came later, joined to a published batch of predictions, and how many of them there are.

The rules, each label row falling under the first that fits:

1. **No label.** A null (or NaN) label is no label; it is left out.
2. **From the future** (``future``). The label is dated after the moment of evaluation, by its event time or by
   ``known_at``, or it was known before what it is about had happened. Counted, not used.
3. **Unknown** (``unknown``). No prediction has that entity (and that event time). Counted, not used. Where the labels
   have no event time, those of other windows' entities are among them.
4. **Of a prediction that is not alone** (``repeated_labels``). Several predictions share entity and event time, so
   nobody can say which one the label is about. Those predictions stay without a label (``repeated_rows``).
5. **Usable.** Of one prediction: several equal labels count once. Of several that differ, those with the latest
   ``known_at`` count, if they agree: a correction (``corrected``). Otherwise, and always where labels have no
   ``known_at``, the prediction is ambiguous (``ambiguous``) and stays without a label.

With ``labels.data.event_time`` the join is on entity and event time, to the microsecond in UTC, and only labels of the
batch's window are read; without it on the entity alone. DuckDB makes it in a scratch file with 512 MB of memory, so it
stays within bounds however many labels there are; what comes out is one number and one label per labelled prediction.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.core.record import Window
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.label_rows import (
    JoinKey,
    check_columns,
    check_predictions,
    kinds_of,
    label_kind,
    label_rows,
    prediction_rows,
)
from airflow_mlops.engines.manifests import Manifest, ManifestFile
from airflow_mlops.engines.sources import rows_digest
from airflow_mlops.engines.storage import StorageAccess
from airflow_mlops.engines.tables import fingerprint, take_manifest
from airflow_mlops.errors import DataChangedError, DataMissingError, DataReadError, StorageUnavailableError
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.monitoring import LabelSpec

if TYPE_CHECKING:
    import duckdb
    import pyarrow

MEMORY = "512MB"
#: Label files may be rewritten at any time; so often the join starts anew before it is left to a retry.
ATTEMPTS = 3


@dataclass(frozen=True)
class Joined:
    """The labels of one batch.

    :param rows: predictions in the batch.
    :param table: ``row`` (the prediction's number in its file, from 0) and ``label``, by row; those with a label.
    :param digest: SHA-256 of the batch's bytes and of ``table``; whole and fractional numbers of one value are alike.
    :param given: labels that were read: of the batch's window where they have an event time.
    :param null: of them without a value.
    :param ambiguous: predictions whose labels contradict each other; ``corrected``: those where the latest one counts.
    :param same: further labels that only say again what another one says.
    :param unnamed: predictions without an id, which no label can be about.
    :param due: when the first of the labels from the future will count; None: none ever will.
    """

    rows: int
    table: pyarrow.Table
    digest: str
    given: int = 0
    null: int = 0
    future: int = 0
    unknown: int = 0
    ambiguous: int = 0
    corrected: int = 0
    same: int = 0
    repeated_rows: int = 0
    repeated_labels: int = 0
    unnamed: int = 0
    due: datetime | None = None

    @property
    def labelled(self) -> int:
        """Return how many predictions have a label."""
        return int(self.table.num_rows)

    @property
    def coverage(self) -> float:
        """Return the share of the predictions that have one; 0 for an empty batch."""
        return self.labelled / self.rows if self.rows else 0.0

    def notes(self, key: JoinKey) -> dict[str, str]:
        """Return what a person should know of the labels, in sentences."""
        where = "entity and event time" if key.label_time is not None else "entity"
        said = {
            "labels.ambiguous": (
                self.ambiguous,
                f"Predictions left out because their labels contradict each other: {self.ambiguous:,}"
                + ("." if key.known_at else "; with labels.known_at the latest one would count."),
            ),
            "labels.corrected": (self.corrected, f"Labels that a later one corrected: {self.corrected:,}."),
            "labels.same": (self.same, f"Labels that only repeat another one and count once: {self.same:,}."),
            "labels.unknown": (
                self.unknown,
                f"Labels about no prediction of this batch: {self.unknown:,}"
                + ("." if key.label_time else "; they have no event time, so those of other windows are among them."),
            ),
            "labels.future": (
                self.future,
                f"Labels left out because they are dated after the moment of evaluation, or were known before what "
                f"they are about had happened: {self.future:,}.",
            ),
            "labels.null": (self.null, f"Labels without a value: {self.null:,}."),
            "predictions.repeated": (
                self.repeated_rows,
                f"Predictions that share their {where} ({', '.join(key.entity)}) with another one, so that labels "
                f"cannot be told apart: {self.repeated_rows:,}, and labels about them: {self.repeated_labels:,}. Name "
                f"more columns in labels.entity"
                + (", or labels.data.event_time." if key.label_time is None else ", or remove the repeated rows."),
            ),
            "predictions.unnamed": (
                self.unnamed,
                f"Predictions without an id, for which no label can be found: {self.unnamed:,}.",
            ),
        }
        return {name: text for name, (count, text) in said.items() if count}


@contextmanager
def predictions_file(report: ScoringReport, scratch: Path, access: StorageAccess | None) -> Iterator[Path]:
    """Yield the published batch as a file on this machine whose bytes are those that were published.

    :param access: of the store that ``output_uri`` is in.
    :raises DataChangedError: it is gone, or was replaced.
    """
    root, _, name = report.output_uri.rpartition("/")
    file = ManifestFile(
        path=name,
        size=report.byte_count,
        sha256=report.output_digest,
        row_count=report.scored_count,
        total_rows=report.scored_count,
    )
    held = Manifest(uri=report.output_uri, root=root, format="parquet", columns=(), arrow_schema="", files=(file,))
    files = checked_files(held, scratch, access)

    def advance() -> Path | None:
        try:
            found = next(files, None)
        except DataChangedError as exc:
            raise DataChangedError(
                f"The predictions {report.output_uri} are not the ones that MLflow run {report.run_id or '(unnamed)'} "
                f"published: the file is gone or was replaced. Evaluate the run that scored the window last, or score "
                f"it again."
            ) from exc
        return None if found is None else found.path

    path = advance()
    assert path is not None  # noqa: S101  # the manifest has one file
    yield path
    advance()


def labels_fingerprint(data: DataSpec, access: StorageAccess | None) -> str:
    """Return a text that differs once labels may have been added or corrected; empty while no label file is there.

    :raises DataReadError: the store refuses, or what is there cannot hold labels.
    :raises StorageUnavailableError: the store does not answer.
    """
    try:
        return fingerprint(data, access)
    except DataMissingError:
        return ""


def join_labels(
    report: ScoringReport,
    labels: LabelSpec,
    key: JoinKey,
    predictions: Path,
    *,
    as_of: datetime,
    scratch: Path,
    access: StorageAccess | None,
) -> Joined:
    """Find each prediction's label by the rules above.

    :param predictions: what :func:`predictions_file` gives.
    :param as_of: the moment of evaluation; labels dated later do not count.
    :param access: of the store that the labels are in.
    :raises InvalidSpecError: a column is missing, or the ids of the two sides can never be equal.
    :raises DataReadError: the labels cannot be read, or no prediction at all is alone with its entity.
    :raises StorageUnavailableError: the store does not answer, or label files change faster than they are read.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            try:
                return _joined(report, labels, key, predictions, as_of, Path(folder), access)
            except DataChangedError as exc:
                last = exc
    raise StorageUnavailableError(
        f"The labels {labels.data.uri} were rewritten while they were read, {ATTEMPTS} times in a row. Deliver them "
        f"under a new name and move them into place; the task may be retried."
    ) from last


def _joined(
    report: ScoringReport,
    labels: LabelSpec,
    key: JoinKey,
    predictions: Path,
    as_of: datetime,
    scratch: Path,
    access: StorageAccess | None,
) -> Joined:
    import duckdb
    from pyarrow import parquet

    schema = parquet.read_schema(predictions)
    check_predictions(schema, key, report.output_uri)
    manifest = labels_manifest(labels.data, report.window if key.label_time else None, access)
    if manifest is None or not manifest.files:
        return _without_labels(report, parquet.read_metadata(predictions).num_rows)
    settings = {"memory_limit": MEMORY, "threads": 1, "temp_directory": str(scratch / "spilled")}
    with duckdb.connect(str(scratch / "join.duckdb"), config=settings) as database:
        check_columns(manifest, key)
        kinds = kinds_of(manifest, key, schema)
        for rows in prediction_rows(predictions, key, kinds, report.output_uri):
            _append(database, "predictions", rows)
        for rows in label_rows(manifest, key, kinds, label_kind(manifest, key), scratch, access):
            _append(database, "labels", rows)
        return _settled(database, report, key, as_of)


def labels_manifest(data: DataSpec, window: Window | None, access: StorageAccess | None) -> Manifest | None:
    """Return which files hold labels of ``window``; None while no label file is there."""
    if not labels_fingerprint(data, access):
        return None
    return take_manifest(data, window, access)


def _without_labels(report: ScoringReport, rows: int) -> Joined:
    import pyarrow

    table = pyarrow.table({"row": pyarrow.array([], pyarrow.int64()), "label": pyarrow.array([], pyarrow.float64())})
    return Joined(rows=rows, table=table, digest=_digest(report, table))


def _append(database: duckdb.DuckDBPyConnection, name: str, rows: pyarrow.Table) -> None:
    database.register("incoming", rows)
    database.execute(f"CREATE TABLE IF NOT EXISTS {name} AS SELECT * FROM incoming LIMIT 0")  # noqa: S608  # our names
    database.execute(f"INSERT INTO {name} SELECT * FROM incoming")  # noqa: S608
    database.unregister("incoming")


def _settled(database: duckdb.DuckDBPyConnection, report: ScoringReport, key: JoinKey, as_of: datetime) -> Joined:
    """Apply the rules in SQL."""
    entity = [f"e{number}" for number in range(len(key.entity))]
    by = ", ".join([*entity, *(["happened"] if key.label_time else [])])
    named = " AND ".join(f"{one} IS NOT NULL" for one in entity)
    same = " AND ".join(f"l.{one} = p.{one}" for one in [*entity, *(["happened"] if key.label_time else [])])
    happened = "l.happened" if key.label_time else "p.happened" if key.prediction_time else "NULL::TIMESTAMP"
    known = "l.known" if key.known_at else "NULL::TIMESTAMP"
    time = ", max(happened) AS happened" if key.prediction_time and not key.label_time else ""
    dated = "l.happened" if key.label_time else "NULL::TIMESTAMP"
    moment = as_of.astimezone(UTC).replace(tzinfo=None)
    database.execute(
        f"CREATE TABLE alone AS SELECT {by}, min(row) AS row, count(*) AS n{time} FROM predictions "  # noqa: S608
        f"WHERE {named} GROUP BY {by}"
    )
    database.execute(
        f"""
        CREATE TABLE facts AS
        SELECT p.row, p.n, l.label, {known} AS known,
               coalesce(greatest({known}, {dated}) > $now, false) AS later,
               coalesce({known} < {happened}, false) AS early,
               greatest({known}, {dated}) AS due
        FROM labels l LEFT JOIN alone p ON {same}
        """,  # noqa: S608  # names of our own; what people wrote are values
        {"now": moment},
    )
    given, null, future, unknown, repeated_labels, due = _one(
        database,
        """
        SELECT count(*), count(*) FILTER (label IS NULL),
               count(*) FILTER (label IS NOT NULL AND (later OR early)),
               count(*) FILTER (label IS NOT NULL AND NOT (later OR early) AND row IS NULL),
               count(*) FILTER (label IS NOT NULL AND NOT (later OR early) AND n > 1),
               min(due) FILTER (label IS NOT NULL AND later AND NOT early AND n = 1)
        FROM facts
        """,
    )
    rows, unnamed, repeated_rows, alone = _one(
        database,
        f"SELECT (SELECT count(*) FROM predictions), (SELECT count(*) FROM predictions WHERE NOT ({named})), "  # noqa: S608
        f"coalesce(sum(n) FILTER (n > 1), 0), count(*) FILTER (n = 1) FROM alone",
    )
    if rows and not alone:
        raise DataReadError(
            f"Not one of the {rows:,} predictions {report.output_uri} is alone with its {', '.join(key.entity)}"
            f"{' and event time' if key.label_time else ''}: {repeated_rows:,} share them with another one, "
            f"{unnamed:,} have none. Name the columns that tell predictions apart in labels.entity"
            f"{'' if key.label_time else ', or the event time in labels.data.event_time'}."
        )
    database.execute(
        """
        CREATE TABLE groups AS
        SELECT row, min(label) AS low, max(label) AS high, count(*) AS n, max(known) AS known FROM facts
        WHERE label IS NOT NULL AND NOT (later OR early) AND n = 1 GROUP BY row
        """
    )
    database.execute(
        """
        CREATE TABLE settled AS
        SELECT g.row, CASE WHEN g.low = g.high THEN g.low WHEN l.low = l.high THEN l.low END AS label,
               g.low <> g.high AS differ, g.n
        FROM groups g LEFT JOIN (
            SELECT f.row, min(f.label) AS low, max(f.label) AS high
            FROM facts f JOIN groups g ON f.row = g.row AND f.known = g.known
            WHERE g.low <> g.high AND f.label IS NOT NULL AND NOT (f.later OR f.early) GROUP BY f.row
        ) l ON g.row = l.row
        """
    )
    ambiguous, corrected, repeats = _one(
        database,
        "SELECT count(*) FILTER (label IS NULL), count(*) FILTER (differ AND label IS NOT NULL), "
        "coalesce(sum(n - 1) FILTER (NOT differ), 0) FROM settled",
    )
    table = database.sql("SELECT row, label FROM settled WHERE label IS NOT NULL ORDER BY row").to_arrow_table()
    return Joined(
        rows=rows,
        table=table,
        digest=_digest(report, table),
        given=given,
        null=null,
        future=future,
        unknown=unknown,
        ambiguous=ambiguous,
        corrected=corrected,
        same=int(repeats),
        repeated_rows=int(repeated_rows),
        repeated_labels=repeated_labels,
        unnamed=unnamed,
        due=due.replace(tzinfo=UTC) if due is not None else None,
    )


def _one(database: duckdb.DuckDBPyConnection, statement: str) -> tuple[Any, ...]:
    found = database.execute(statement).fetchone()
    assert found is not None  # noqa: S101  # an aggregate has one row
    return tuple(found)


def _digest(report: ScoringReport, table: pyarrow.Table) -> str:
    """Name the labels, not the files they came in: a file that is only written anew changes nothing."""
    import hashlib

    import pyarrow

    plain = table["label"]
    if not pyarrow.types.is_string(plain.type) and not pyarrow.types.is_large_string(plain.type):
        plain = plain.cast(pyarrow.float64(), safe=False)
    rows = rows_digest(pyarrow.table({"row": table["row"], "label": plain}))
    return hashlib.sha256(f"{report.output_digest} {rows}".encode()).hexdigest()
