"""Which label each prediction gets, and what becomes of every other one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import ScoringReport
from airflow_mlops.engines import labels as labels_engine
from airflow_mlops.engines.label_rows import join_key
from airflow_mlops.engines.labels import Joined, join_labels, labels_fingerprint, predictions_file
from airflow_mlops.engines.tables import take_manifest
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError, StorageUnavailableError
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.monitoring import LabelSpec
from tests.support.performance import at, batch, write

NOW = datetime(2013, 4, 10, tzinfo=UTC)


def predictions(folder: Path, ids: Any = (0, 1, 2, 3), hours: Any = None, **columns: Any) -> ScoringReport:
    """Write a batch; row n is of entity n at hour n."""
    hours = list(ids) if hours is None else hours
    rows = {"id": list(ids), "event_time": [at(hour) for hour in hours], "prediction": [0] * len(ids), **columns}
    return batch(write(folder / "predictions" / "p.parquet", rows))


@pytest.fixture
def join(tmp_path: Path) -> Callable[..., Joined]:
    """Join the label files of ``tmp_path/labels`` with a batch."""

    def join(report: ScoringReport | None = None, *, as_of: datetime = NOW, **spec: Any) -> Joined:
        report = report or predictions(tmp_path)
        data = {"uri": str(tmp_path / "labels"), "event_time": "event_time", **spec.pop("data", {})}
        labels = LabelSpec.model_validate({"data": data, "label": "late", **spec})
        key = join_key(labels, report)
        with predictions_file(report, tmp_path, None) as path:
            return join_labels(report, labels, key, path, as_of=as_of, scratch=tmp_path / "scratch", access=None)

    return join


def deliver(folder: Path, *rows: tuple[Any, ...], name: str = "a", **other: Any) -> None:
    """Write labels of (id, hour, label) or (id, hour, label, known at hour)."""
    ids, hours, values, *known = zip(*rows, strict=True)
    columns = {"id": list(ids), "event_time": [at(hour) for hour in hours], "late": list(values), **other}
    if known:
        columns["known_at"] = [None if hour is None else at(hour) for hour in known[0]]
    write(folder / "labels" / f"{name}.parquet", columns)


def found(joined: Joined) -> dict[int, Any]:
    return dict(zip(*(joined.table[name].to_pylist() for name in ("row", "label")), strict=True))


def test_a_label_goes_to_its_entity_at_its_event_time_alone(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1), (1, 1, 0), (2, 7, 1))
    deliver(tmp_path, (3, 3, 1), name="b")

    joined = join()

    assert found(joined) == {0: 1, 1: 0, 3: 1}
    assert (joined.rows, joined.labelled, joined.coverage, joined.unknown) == (4, 3, 0.75, 1)


def test_equal_labels_count_once_and_contradicting_ones_not_at_all(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1), (0, 0, 1), (0, 0, 1), (1, 1, 0), (1, 1, 1))

    joined = join()

    assert found(joined) == {0: 1}
    assert (joined.same, joined.ambiguous, joined.corrected) == (2, 1, 0)


@pytest.mark.parametrize(
    ("rows", "label", "corrected", "ambiguous"),
    [
        pytest.param([(0, 0, 0, 5), (0, 0, 1, 9), (0, 0, 0, 7)], 1, 1, 0, id="the latest one wins"),
        pytest.param([(0, 0, 0, 5), (0, 0, 1, None)], 0, 1, 0, id="an unknown time is the earliest"),
        pytest.param([(0, 0, 0, 5), (0, 0, 1, 5)], None, 0, 1, id="two of one time contradict each other"),
        pytest.param([(0, 0, 0, None), (0, 0, 1, None)], None, 0, 1, id="no time at all"),
        pytest.param([(0, 0, 0, 5), (0, 0, 1, 9), (0, 0, 1, 9)], 1, 1, 0, id="the latest two agree"),
        pytest.param([(0, 0, 0, 5), (0, 0, None, 9)], 0, 0, 0, id="a later nothing takes nothing back"),
        pytest.param([(0, 0, 0, 5), (0, 0, 1, 9999)], 0, 0, 0, id="one from the future does not correct"),
    ],
)
def test_known_at_settles_a_correction(
    join: Any, tmp_path: Path, rows: list[Any], label: Any, corrected: int, ambiguous: int
) -> None:
    deliver(tmp_path, *rows)

    joined = join(known_at="known_at")

    assert found(joined) == ({} if label is None else {0: label})
    assert (joined.corrected, joined.ambiguous) == (corrected, ambiguous)


def test_labels_from_the_future_are_counted_and_come_of_age(join: Any, tmp_path: Path) -> None:
    hours = 24 * 50
    deliver(tmp_path, (0, 0, 1, hours), (1, 1, 0, 0.5), (2, 2, 1, 2), (3, 3, 1, hours + 1))

    joined = join(known_at="known_at")

    # 1 was known half an hour before it happened, and no time will mend that.
    assert (found(joined), joined.future) == ({2: 1}, 3)
    assert joined.due == at(hours).replace(tzinfo=UTC)
    assert join(known_at="known_at", as_of=joined.due).table.num_rows == 2


def test_an_event_after_the_moment_of_evaluation_is_from_the_future(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1), (3, 3, 1))

    joined = join(as_of=datetime(2013, 3, 1, 2, tzinfo=UTC))

    assert (found(joined), joined.future) == ({0: 1}, 1)


def test_labels_without_a_time_are_still_held_against_the_predictions_time(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1, 4), (1, 1, 0, 0.5), (9, 9, 1, 10))

    joined = join(known_at="known_at", data={"event_time": None})

    assert (found(joined), joined.future, joined.unknown) == ({0: 1}, 1, 1)


def test_nulls_and_nans_are_no_labels(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1.5), (1, 1, None), (2, 2, float("nan")))

    joined = join()

    assert (found(joined), joined.null) == ({0: 1.5}, 2)


def test_predictions_that_share_a_key_get_no_label_and_the_others_do(join: Any, tmp_path: Path) -> None:
    report = predictions(tmp_path, ids=[0, 1, 1, None], hours=[0, 1, 1, 3])
    deliver(tmp_path, (0, 0, 1), (1, 1, 1))

    joined = join(report)

    assert found(joined) == {0: 1}
    assert (joined.rows, joined.repeated_rows, joined.repeated_labels, joined.unnamed) == (4, 2, 1, 1)
    notes = " ".join(
        joined.notes(join_key(LabelSpec.model_validate({"data": {"uri": "x"}, "label": "l"}), report)).values()
    )
    assert (
        "share their entity (id) with another one, so that labels cannot be told apart: 2, and labels about them: 1"
        in notes
    )
    assert "Predictions without an id, for which no label can be found: 1." in notes


def test_an_entity_that_names_no_prediction_alone_is_refused(join: Any, tmp_path: Path) -> None:
    report = predictions(tmp_path, ids=[1, 1, 1], hours=[1, 2, 3])
    deliver(tmp_path, (1, 1, 1))

    with pytest.raises(DataReadError, match=r"Not one of the 3 predictions .* is alone with its id.*event_time"):
        join(report, data={"event_time": None})


@pytest.mark.parametrize(
    ("ids", "hint"),
    [
        pytest.param(["0", "1"], "whole numbers \\(int64\\) in the predictions and text", id="text"),
        pytest.param([True, False], "bools", id="bool"),
    ],
)
def test_ids_of_another_type_are_refused_and_never_an_empty_join(
    join: Any, tmp_path: Path, ids: list[Any], hint: str
) -> None:
    write(tmp_path / "labels" / "a.parquet", {"id": ids, "event_time": [at(0), at(1)], "late": [0, 1]})

    with pytest.raises(InvalidSpecError, match=hint) as caught:
        join()

    assert "Write the labels with whole numbers in 'id'" in str(caught.value)


def test_whole_floats_serve_as_ids_and_others_are_refused(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0.0, 0, 1), (None, 1, 1), (2.0, 2, 0))
    assert found(join()) == {0: 1, 2: 0}

    deliver(tmp_path, (0.5, 0, 1))
    with pytest.raises(InvalidSpecError, match="no whole number"):
        join()


def test_times_meet_whatever_their_unit_and_zone(join: Any, tmp_path: Path) -> None:
    import pyarrow

    moments = pyarrow.array([at(0), at(1)]).cast(pyarrow.timestamp("ns")).cast(pyarrow.timestamp("ns", "UTC"))
    write(tmp_path / "labels" / "a.parquet", {"id": [0, 1], "event_time": moments, "late": ["no", "yes"]})

    assert found(join()) == {0: "no", 1: "yes"}


def test_csv_labels_with_zones_and_words_for_times(join: Any, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.csv").write_text(
        "id,event_time,late,known_at\n0,2013-03-01T00:00:00Z,1,2013-03-02T00:00:00+01:00\n"
        "1,2013-03-01T02:00:00+01:00,0,\n1,2013-03-01 01:00:00,1,2013-03-03\n"
    )

    joined = join(known_at="known_at", data={"format": "csv"})

    assert (found(joined), joined.corrected) == ({0: 1, 1: 1}, 1)


def test_labels_of_other_windows_are_not_unknown(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1), (50, 24 * 40, 1))

    assert join().unknown == 0


def test_composite_entities_and_labels_in_partitions(join: Any, tmp_path: Path) -> None:
    report = predictions(tmp_path, origin=["JFK", "EWR", "JFK", "LGA"]).model_copy(
        update={"id_columns": ("id", "origin")}
    )
    columns = {"id": [0, 1], "event_time": [at(0), at(1)], "late": [1, 1]}
    write(tmp_path / "labels" / "origin=JFK" / "a.parquet", columns)

    assert found(join(report)) == {0: 1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"label": "lat"}, "labels.label names 'lat'.*Did you mean 'late'", id="label"),
        pytest.param({"entity": ["tail"]}, "Labels are joined by 'tail', which the predictions", id="entity"),
        pytest.param({"known_at": "seen"}, "labels.known_at names 'seen'", id="known_at"),
    ],
)
def test_a_missing_column_is_named(join: Any, tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    deliver(tmp_path, (0, 0, 1))

    with pytest.raises(InvalidSpecError, match=message):
        join(**spec)


def test_a_time_to_join_by_needs_one_on_both_sides(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1))

    with pytest.raises(InvalidSpecError, match="have no event time to join it with"):
        join(predictions(tmp_path).model_copy(update={"event_time": None}))


def test_no_file_is_no_label_and_a_wrong_kind_of_store_is_an_error(join: Any, tmp_path: Path) -> None:
    joined = join()

    assert (joined.rows, joined.labelled, joined.coverage) == (4, 0, 0.0)
    (tmp_path / "labels").mkdir()
    assert join().labelled == 0
    assert labels_fingerprint(DataSpec(uri=str(tmp_path / "labels" / "*.parquet")), None) == ""
    (tmp_path / "labels" / "_delta_log").mkdir()
    (tmp_path / "labels" / "_delta_log" / "0.json").write_text("{}")
    with pytest.raises(DataReadError, match="Delta Lake"):
        join()


def test_the_digest_is_of_the_labels_and_not_of_their_files(join: Any, tmp_path: Path) -> None:
    deliver(tmp_path, (0, 0, 1), (1, 1, 0))
    first = join().digest

    deliver(tmp_path, (1, 1, 0.0), (0, 0, 1.0), name="b")
    (tmp_path / "labels" / "a.parquet").unlink()
    assert join().digest == first

    deliver(tmp_path, (1, 1, 1), (0, 0, 1), name="b")
    assert join().digest != first


def test_predictions_that_were_replaced_are_noticed(join: Any, tmp_path: Path) -> None:
    report = predictions(tmp_path)
    predictions(tmp_path, ids=[5, 6])

    with pytest.raises(DataChangedError, match=r"run-of-the-batch.*gone or was replaced"):
        join(report)


@pytest.mark.parametrize("often", [1, 5])
def test_labels_that_are_rewritten_meanwhile_are_read_anew(
    join: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: int
) -> None:
    deliver(tmp_path, (0, 0, 1))
    left = [often]

    def listed_before_it_is_rewritten(data: Any, window: Any, access: Any) -> Any:
        manifest = take_manifest(data, window, access)
        if left[0] > 0:
            left[0] -= 1
            deliver(tmp_path, (0, 0, 0), *[(one, one, 1) for one in range(1, 2 + left[0])])
        return manifest

    monkeypatch.setattr(labels_engine, "take_manifest", listed_before_it_is_rewritten)

    if often == 1:
        assert found(join()) == {0: 0, 1: 1}
    else:
        with pytest.raises(StorageUnavailableError, match="rewritten while they were read, 3 times"):
            join()


def test_many_labels_stay_within_bounded_memory(tmp_path: Path) -> None:
    """A million labels, most about nothing here, in a process that may not grow by more than 600 MB."""
    import subprocess
    import sys

    code = f"""
import resource, sys
sys.path.insert(0, {str(Path.cwd())!r})
from datetime import datetime, UTC
from pathlib import Path
import numpy as np, pyarrow
from airflow_mlops.engines.label_rows import join_key
from airflow_mlops.engines.labels import join_labels, predictions_file
from airflow_mlops.spec.monitoring import LabelSpec
from tests.support.performance import batch, write
folder = Path({str(tmp_path)!r})
n = 200_000
times = lambda rows: pyarrow.array(rows * 1_000_000 + 1362096000_000_000, pyarrow.timestamp("us"))
rows = np.arange(n)
report = batch(write(folder / "p.parquet", {{"id": rows, "event_time": times(rows), "prediction": rows % 2}}))
for part in range(4):
    rows = np.arange(part * 250_000, (part + 1) * 250_000)
    write(folder / "labels" / f"{{part}}.parquet", {{"id": rows, "event_time": times(rows), "late": rows % 3 == 0}})
del rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
where = {{"uri": str(folder / "labels"), "event_time": "event_time"}}
labels = LabelSpec.model_validate({{"data": where, "label": "late"}})
with predictions_file(report, folder, None) as path:
    joined = join_labels(report, labels, join_key(labels, report), path, as_of=datetime(2014, 1, 1, tzinfo=UTC),
                         scratch=folder, access=None)
print(joined.labelled, joined.unknown, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stderr[-2000:]
    # An older DuckDB draws a progress bar first.
    labelled, unknown, grown = map(int, done.stdout.split()[-3:])
    assert (labelled, unknown) == (200_000, 800_000)
    assert grown < 600
