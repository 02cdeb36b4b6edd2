"""The whole training loop on a sample of rows, with an MLflow store that is thrown away."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import training_window
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.resolve import code_folder, data_settings
from airflow_mlops.testing.checks import as_table, contract_of, write_rows

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from airflow_mlops.steps.pipeline import TrainingOutcome


def run_on_sample(
    spec: ModelSpec,
    *,
    data: pandas.DataFrame | None = None,
    rows: int = 2_000,
    window: Window | None = None,
    seed: int = 0,
    promote: bool = True,
    keep: str | Path | None = None,
) -> TrainingOutcome:
    """Snapshot, validate, train, evaluate, check serving, gate, register and promote on a sample; return the outcome.

    Everything is as in production but for three things: the rows are a sample, the contract's ``min_rows`` is not
    asked of it, and MLflow is a store of this call's own, in which every model is the first. Nothing outside is
    written. Takes some ten seconds, most of them for the libraries and the serving check.

    :param data: rows to use, such as :func:`~airflow_mlops.testing.made_up` gives; None: what ``spec.data`` names.
    :param rows: at most so many of each window, drawn by ``seed``.
    :param window: the evaluation window. With ``data`` the default is everything after the training window that
        begins with the first row.
    :param promote: False stops after the gate.
    :param keep: a folder for the store (``mlflow.db``, and ``artifacts``) and the sample, to look at afterwards; it
        must be empty or not there. None: they are removed, and the outcome's URIs lead nowhere.
    :raises InvalidSpecError: a window is needed or holds no row, or the specification is wrong.
    :raises VerdictError: the data or the training function is wrong; the message says what to mend.
    """
    from airflow_mlops.engines.tracking import TrackingServer, connected
    from airflow_mlops.steps.base import Access
    from airflow_mlops.steps.pipeline import run_training

    if rows < 1:
        raise InvalidSpecError(f"rows is {rows}: at least 1 is needed.")
    with ExitStack() as stack:
        folder = _folder(keep, stack)
        anchor = window or _window(spec, data)
        sample = write_rows(_sample(spec, data, anchor, rows, seed), folder / "sample.parquet")
        contract = folder / "contract.json"
        asked = contract_of(spec).model_copy(update={"min_rows": 1})
        contract.write_text(json.dumps(asked.model_dump(mode="json")), encoding="utf-8")
        settings: dict[str, Any] = {"uri": str(sample), "format": "parquet", "options": {}, "conn_id": None}
        settings |= {"snapshot": "reference", "copy_to": str(folder / "rows")}
        tried = spec.model_copy(
            update={
                "data": spec.data.model_copy(update=settings),
                "contract": spec.contract.model_copy(update={"path": str(contract)}),
                "train": spec.train.model_copy(update={"code_path": str(code_folder(spec))}),
            }
        )
        access = Access(server=TrackingServer(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}"))
        with connected(access.server) as client:
            # Otherwise artifacts would go to the current folder.
            client.create_experiment(tried.experiment_name, artifact_location=(folder / "artifacts").as_uri())
        return run_training(
            tried, window=anchor, access=access, reason="a trial on a sample", author="tests", promote=promote
        )


def _folder(keep: str | Path | None, stack: ExitStack) -> Path:
    if keep is None:
        made = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="airflow-mlops-sample-", ignore_cleanup_errors=True)
        )
        return Path(made).resolve()
    folder = Path(keep).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidSpecError(f"keep is {folder}, which holds something already: name an empty folder, or a new one.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _window(spec: ModelSpec, data: pandas.DataFrame | None) -> Window:
    """Return the span from the end of the first possible training window (and the gap) to the last row."""
    import pandas

    if data is None:
        raise InvalidSpecError(
            "Which rows to evaluate on is not said: give window=Window(start=..., end=...), or data=, a frame."
        )
    times = pandas.to_datetime(_times(spec, data), utc=True)
    first, last = (moment.to_pydatetime().astimezone(UTC) for moment in (times.min(), times.max()))
    settings = spec.train.window
    start = settings.gap.after(settings.length.after(first))
    if start > last:
        raise InvalidSpecError(
            f"The data reaches from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}; {settings.length} to train on "
            f"and a gap of {settings.gap} leave nothing to evaluate on. Give window=Window(start=..., end=...), rows "
            f"of a longer time, or a shorter train.window.length."
        )
    return Window(start=start, end=last + timedelta(microseconds=1))


def _times(spec: ModelSpec, data: pandas.DataFrame) -> pandas.Series:
    column = str(spec.data.event_time)
    if column not in data.columns:
        raise InvalidSpecError(
            f"data has no column {column!r}, the event time of {spec.name!r}. Its columns: "
            f"{', '.join(map(str, data.columns))}."
        )
    return data[column]


def _sample(spec: ModelSpec, data: pandas.DataFrame | None, anchor: Window, rows: int, seed: int) -> pyarrow.Table:
    import pyarrow

    train = training_window(anchor, length=spec.train.window.length, gap=spec.train.window.gap)
    parts = [
        _drawn(_part(spec, data, window), rows, seed, f"the {name} window {window}")
        for name, window in (("training", train), ("evaluation", anchor))
    ]
    return pyarrow.concat_tables(parts, promote_options="permissive")


def _part(spec: ModelSpec, data: pandas.DataFrame | None, window: Window) -> pyarrow.Table:
    import pandas

    if data is not None:
        times = pandas.to_datetime(_times(spec, data), utc=True)
        return as_table(data[((times >= window.start) & (times < window.end)).to_numpy()])
    from airflow_mlops.engines.tables import read_table, take_manifest
    from airflow_mlops.spec.data import DataSpec

    source = DataSpec.model_validate(data_settings(spec))
    access = None
    if source.conn_id is not None:
        from airflow_mlops.hooks.storage import storage_access

        access = storage_access(source.conn_id)
    return read_table(take_manifest(source, window, access), access)


def _drawn(table: pyarrow.Table, rows: int, seed: int, where: str) -> pyarrow.Table:
    import numpy
    import pyarrow

    if not table.num_rows:
        raise InvalidSpecError(f"No row lies in {where}. Give another window=, or rows of that time.")
    if table.num_rows <= rows:
        return table
    places = numpy.random.default_rng(seed).choice(table.num_rows, size=rows, replace=False)
    return table.take(pyarrow.array(numpy.sort(places)))
