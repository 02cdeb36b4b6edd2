"""A window counted from files: the same counts as from a table, piece by piece, whatever holds the rows."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from scipy import stats

from airflow_mlops.core.drift import judge_drift, measure_column
from airflow_mlops.core.drift_counts import pair_of
from airflow_mlops.core.record import Window
from airflow_mlops.engines import window_profile as module
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.profile import build_profile
from airflow_mlops.engines.tables import take_manifest
from airflow_mlops.engines.window_profile import reference_profile, window_profile
from airflow_mlops.engines.window_profile_cells import EdgeCells, EqualCells, scale_of
from airflow_mlops.engines.window_profile_sql import table_profile
from airflow_mlops.errors import DataChangedError, DataReadError, InvalidSpecError
from airflow_mlops.spec.data import DataSpec
from airflow_mlops.spec.monitoring import DriftMethodSpec, DriftSpec

ROWS = 20_000
START = datetime(2013, 3, 1, tzinfo=UTC)
MARCH = Window(start=START, end=datetime(2013, 4, 1, tzinfo=UTC))

Profile = dict[str, Any]


def rows_of(seed: int, count: int = ROWS, days: float = 31) -> pa.Table:
    """Return rows of every kind that is counted; with another seed a little different."""
    random = np.random.default_rng(seed)
    smooth = random.normal(0.1 * seed, 1, count)
    some_null = random.random(count) < 0.1
    return pa.table(
        {
            "at": pa.array([START + timedelta(days=days * n / count) for n in range(count)], pa.timestamp("us", "UTC")),
            "smooth": smooth,
            "heavy": random.pareto(1.1, count),
            "zeros": np.where(random.random(count) < 0.8, 0.0, random.exponential(3, count)),
            "price": np.round(random.gamma(2, 30, count), 2),
            "signed": random.standard_cauchy(count),
            "nulls": pa.array(smooth * 3, mask=some_null),
            "special": pa.array(np.where(some_null, math.nan, np.where(smooth > 2, math.inf, smooth))),
            "narrow": smooth.astype(np.float32),
            "hour": random.integers(0, 24, count).astype(np.int32),
            "amount": pa.array(random.integers(0, 10**6, count), mask=some_null),
            "money": pa.array([None if n % 9 == 0 else Decimal(n) / 4 for n in range(count)]),
            "day": pa.array([(START + timedelta(days=n % 40)).date() for n in range(count)]),
            "city": pa.array(random.choice(["Oslo", "Rome", "Bern", f"new {seed}"], count, p=[0.5, 0.3, 0.15, 0.05])),
            "coded": pa.array([f"c{n % 300}" if n % 7 else None for n in range(count)]).dictionary_encode(),
            "flag": pa.array([None if n % 11 == 0 else n % 3 == 0 for n in range(count)]),
            "list": pa.array([[n] if n % 5 else None for n in range(count)]),
        }
    )


@pytest.fixture(scope="module")
def reference() -> Profile:
    rows = rows_of(0)
    return build_profile(rows, available={field.name: str(field.type) for field in rows.schema})


@pytest.fixture
def profiled(tmp_path: Path) -> Callable[..., Profile]:
    """Return a function that snapshots a folder and counts it."""

    def profile(folder: Path, reference: Profile, window: Window | None = None, **other: Any) -> Profile:
        form = "csv" if any(folder.rglob("*.csv*")) else "parquet"
        data = DataSpec.model_validate({"uri": str(folder), "format": form, "event_time": "at"})
        manifest = take_manifest(data, window)
        made = window_profile(checked_files(manifest, tmp_path), reference, **other)
        json.dumps(made, allow_nan=False)
        return made

    return profile


def written(folder: Path, **tables: pa.Table) -> Path:
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path, row_group_size=3_000)
    return folder


def searched(values: np.ndarray, column: Profile) -> dict[str, int]:
    """Count a numeric column anew, value by value, as the profile's definition says it."""
    if column.get("edges"):
        cells = np.searchsorted(column["edges"], values, side="right")
    else:
        scale = scale_of(column["low"], column["high"])
        cells = np.array([min(max(math.floor((value - column["low"]) * scale + 1), 0), 1025) for value in values])
    numbers, counts = np.unique(cells, return_counts=True)
    return {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}


def test_the_same_rows_have_the_reference_s_own_counts(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    made = profiled(written(tmp_path / "d", a=rows_of(0)), reference)

    assert (made["schema"], made["row_count"], list(made["columns"])) == ("profile/2", ROWS, list(reference["columns"]))
    for name, column in reference["columns"].items():
        expected = {key: value for key, value in column.items() if key not in ("deviation", "mean", "type")}
        assert {key: made["columns"][name][key] for key in expected} == expected, name
        assert made["columns"][name].get("mean") == (
            None if column.get("mean") is None else pytest.approx(column["mean"], rel=1e-12)
        )
    assert {one.value for one in judge_drift(reference, made, DriftSpec()).columns} == {0.0, None}


def test_other_rows_are_counted_on_the_reference_s_cells(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    rows = rows_of(3)
    made = profiled(written(tmp_path / "d", a=rows), reference)

    for name in ("smooth", "heavy", "zeros", "price", "signed", "narrow", "hour", "amount"):
        column = made["columns"][name]
        values = rows[name].drop_null().to_numpy().astype(float)
        assert column["counts"] == searched(values, reference["columns"][name]), name
        assert (column["min"], column["max"]) == (values.min(), values.max())
        assert column["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert column["null_count"] == rows[name].null_count
    special = made["columns"]["special"]
    numbers = rows["special"].to_numpy()
    assert (special["nan_count"], special["infinite_count"]) == (np.isnan(numbers).sum(), np.isinf(numbers).sum())
    assert sum(special["counts"].values()) == ROWS - special["nan_count"]
    city = made["columns"]["city"]
    assert list(city["categories"])[:4] == list(reference["columns"]["city"]["categories"])
    assert city["categories"]["new 0"] == 0
    assert city["categories"]["new 3"] == rows["city"].to_pylist().count("new 3")
    assert made["columns"]["coded"]["categories"] == reference["columns"]["coded"]["categories"]


def test_several_files_of_which_one_lacks_a_column_and_another_is_coded_otherwise(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    rows = rows_of(0)
    parts = [rows.slice(0, 7_000), rows.slice(7_000, 6_000).drop_columns(["smooth"]), rows.slice(13_000)]
    coded = parts[2].set_column(
        parts[2].column_names.index("city"), "city", parts[2]["city"].combine_chunks().dictionary_encode()
    )
    made = profiled(written(tmp_path / "d", a=parts[0], b=parts[1], c=coded), reference)

    assert made["row_count"] == ROWS
    assert made["columns"]["smooth"]["null_count"] == 6_000
    assert made["columns"]["city"]["categories"] == reference["columns"]["city"]["categories"]
    assert made["columns"]["heavy"]["counts"] == reference["columns"]["heavy"]["counts"]


def test_rows_outside_of_the_window_are_cut_away(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    rows = rows_of(0, days=62)
    made = profiled(written(tmp_path / "d", a=rows), reference, MARCH)
    inside = rows.slice(0, ROWS // 2)

    assert made["row_count"] == ROWS // 2
    assert made["window"] == ["2013-03-01T00:00:00+00:00", "2013-04-01T00:00:00+00:00"]
    assert made["columns"]["price"]["counts"] == searched(inside["price"].to_numpy(), reference["columns"]["price"])


def test_a_window_without_files_has_no_row(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    later = Window(start=datetime(2020, 1, 1, tzinfo=UTC), end=datetime(2020, 2, 1, tzinfo=UTC))
    made = profiled(written(tmp_path / "d", a=rows_of(0, 100)), reference, later)
    found = judge_drift(reference, made, DriftSpec(), columns=list(reference["columns"]))

    assert (made["row_count"], made["columns"]) == (0, {})
    assert (found.verdict, found.findings[0].kind) == ("insufficient", "empty")


def test_csv_means_the_same_as_when_it_was_snapshotted(tmp_path: Path, profiled: Callable[..., Profile]) -> None:
    rows = rows_of(0, 3_000).select(["at", "smooth", "amount", "hour", "city"])
    odd = pa.table({**{name: rows[name] for name in rows.column_names}, "text": ["", "NA", "a,b", 'say "x"'] * 750})
    reference = build_profile(odd)
    (tmp_path / "d").mkdir()
    csv.write_csv(odd, tmp_path / "d" / "rows.csv")
    made = profiled(tmp_path / "d", reference)

    assert made["columns"]["text"]["null_count"] == 750, "an empty text is null; the word NA is a word"
    assert made["columns"]["text"]["categories"] == {"": 0, "NA": 750, "a,b": 750, 'say "x"': 750}
    for name in ("smooth", "amount", "hour"):
        assert made["columns"][name]["counts"] == reference["columns"][name]["counts"], name
    assert made["columns"]["city"]["categories"] == reference["columns"]["city"]["categories"]


def test_folders_that_are_columns(tmp_path: Path, profiled: Callable[..., Profile]) -> None:
    rows = rows_of(0, 600).select(["at", "smooth"])
    folder = written(tmp_path / "d", **{"site=north/a": rows.slice(0, 200), "site=south/a": rows.slice(200)})
    reference = build_profile(pa.table({"site": ["north", "east"] * 10, "smooth": rows["smooth"].slice(0, 20)}))
    made = profiled(folder, reference)

    assert made["columns"]["site"]["categories"] == {"east": 0, "north": 200, "south": 400}


def test_columns_that_are_left_out_or_not_there_or_of_another_kind(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    rows = rows_of(0, 2_000)
    rows = rows.drop_columns(["zeros"]).set_column(1, "smooth", pa.array(["1.5", None] * 1_000))
    made = profiled(
        written(tmp_path / "d", a=rows), reference, columns=["smooth", "zeros", "city", "hour"], exclude=["city"]
    )

    assert list(made["columns"]) == ["smooth", "hour"]
    assert made["excluded"] == ["city"]
    assert made["columns"]["smooth"] == {
        "kind": "categorical",
        "type": "string",
        "null_count": 1_000,
        "missing_share": 0.5,
    }
    assert "heavy" in made["available"]
    found = judge_drift(reference, made, DriftSpec(), columns=["smooth", "zeros", "city", "hour"])
    assert found.verdict == "schema_broken"
    assert {(one.kind, one.column) for one in found.findings} >= {
        ("missing_column", "zeros"),
        ("type_changed", "smooth"),
    }


def test_nothing_to_count_still_counts_rows(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile]
) -> None:
    made = profiled(written(tmp_path / "d", a=rows_of(0, 500)), reference, columns=["no such"])

    assert (made["row_count"], made["columns"]) == (500, {})


def test_values_that_a_reference_withheld_stay_withheld(tmp_path: Path, profiled: Callable[..., Profile]) -> None:
    people = pa.table({"at": rows_of(0, 3_000)["at"], "who": [f"person {n}" for n in range(3_000)]})
    reference = build_profile(people)
    made = profiled(written(tmp_path / "d", a=people), reference)
    who = {**reference["columns"]["who"], "categories": {"x": 9}, "values_withheld": False}
    new = profiled(written(tmp_path / "e", a=people), {**reference, "columns": {"who": who}})

    assert "person" not in json.dumps(made)
    assert "person" not in json.dumps(new), "a window's own values may name its rows, too"
    assert new["columns"]["who"]["other"] == 3_000


def test_a_file_that_changed_or_broke_is_named(tmp_path: Path, reference: Profile) -> None:
    folder = written(tmp_path / "d", a=rows_of(0, 500))
    manifest = take_manifest(DataSpec(uri=str(folder), format="parquet"))
    good = next(iter(checked_files(manifest, tmp_path)))
    (folder / "a.parquet").write_bytes(b"PAR1 nothing PAR1")

    with pytest.raises(DataReadError, match=r"a\.parquet"):
        window_profile([good], reference)


def test_a_reference_that_is_none_is_refused(reference: Profile) -> None:
    with pytest.raises(InvalidSpecError, match="profile/1 and profile/2 can be read"):
        window_profile([], {**reference, "schema": "profile/3"})


def test_small_pieces_count_the_same(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "d", a=rows_of(0), b=rows_of(1, days=62))
    for window in (None, MARCH):  # one column after the other, and side by side where rows are cut away
        whole = profiled(folder, reference, window)
        with monkeypatch.context() as small:
            small.setattr(module, "PIECE_VALUES", 1)
            small.setattr(module, "PIECE_ROWS", 777)
            small.setattr(module, "BUNCH_ROWS", 1)
            pieces = profiled(folder, reference, window)

        for column in (*whole["columns"].values(), *pieces["columns"].values()):
            column.pop("mean", None)
        assert pieces == whole


def test_a_file_with_other_rows_than_the_snapshot_counted(tmp_path: Path, reference: Profile) -> None:
    manifest = take_manifest(DataSpec(uri=str(written(tmp_path / "d", a=rows_of(0, 500))), format="parquet"))
    good = next(iter(checked_files(manifest, tmp_path)))
    other = good.entry.model_copy(update={"row_count": 501, "total_rows": 501})

    with pytest.raises(DataChangedError, match=r"a\.parquet has 500 rows where the snapshot counted 501"):
        window_profile([dataclasses.replace(good, entry=other)], reference)


def test_a_reference_from_files_is_that_of_the_table(tmp_path: Path, reference: Profile) -> None:
    folder = written(tmp_path / "d", a=rows_of(0))
    data = DataSpec.model_validate({"uri": str(folder), "format": "parquet", "event_time": "at"})
    manifest = take_manifest(data, MARCH)
    made = reference_profile(lambda: checked_files(manifest, tmp_path), exclude=["at"])

    assert made["excluded"] == ["at"]
    assert made["window"] == ["2013-03-01T00:00:00+00:00", "2013-04-01T00:00:00+00:00"]
    assert list(made["available"]) == list(reference["columns"])
    for name, column in made["columns"].items():
        expected = {
            key: value for key, value in reference["columns"][name].items() if key not in ("mean", "deviation", "type")
        }
        assert {key: column[key] for key in expected} == expected, name
        for key in ("mean", "deviation"):
            if column.get(key) is not None:
                assert column[key] == pytest.approx(reference["columns"][name][key], rel=1e-9)
    assert reference_profile(lambda: iter(()))["row_count"] == 0


@pytest.mark.parametrize("name", ["smooth", "heavy", "zeros", "price", "signed", "nulls", "narrow", "hour", "amount"])
def test_distances_are_those_of_the_raw_values(
    tmp_path: Path, reference: Profile, profiled: Callable[..., Profile], name: str
) -> None:
    rows = rows_of(4)
    made = profiled(written(tmp_path / "d", a=rows.select(["at", name])), reference, columns=[name])
    before, after = (side[name].drop_null().to_numpy().astype(float) for side in (rows_of(0), rows))
    exact = stats.ks_2samp(before, after).statistic

    found = measure_column(name, reference, made, DriftMethodSpec(method="kolmogorov_smirnov"))

    assert found.value == pytest.approx(exact, abs=0.001)
    assert found.error is not None
    assert exact <= found.value + found.error + 1e-12
    assert found.error <= 0.012
    pair = pair_of(reference["columns"][name], made["columns"][name]).binned(10)
    raw = [
        np.bincount(np.searchsorted(pair.edges, side, side="right"), minlength=len(pair.reference))
        for side in (before, after)
    ]
    assert [tuple(side) for side in raw] == [pair.reference, pair.current]


@pytest.mark.parametrize("extra", ["", "edge"])
def test_a_database_counts_the_same_with_one_statement(tmp_path: Path, reference: Profile, extra: str) -> None:
    rows = rows_of(2, 4_000)
    if extra:
        odd = [0.0, -0.0, 5e-324, -1e308, 1e308, math.nan, math.inf, -math.inf, *reference["columns"]["heavy"]["edges"]]
        rows = pa.table({"heavy": odd, "smooth": odd, "zeros": odd, "signed": odd, "price": odd})
    (tmp_path / "d").mkdir()
    parquet.write_table(rows, tmp_path / "d" / "a.parquet")
    manifest = take_manifest(DataSpec(uri=str(tmp_path / "d"), format="parquet"))
    files = window_profile(checked_files(manifest, tmp_path), reference)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT * FROM '{tmp_path}/d/a.parquet'")
        made = table_profile(lambda text: connection.execute(text).fetchall(), "t", dict(manifest.columns), reference)

    assert made["row_count"] == files["row_count"]
    assert list(made["columns"]) == [name for name in files["columns"] if name != "list"]
    for name, column in made["columns"].items():
        expected = {**files["columns"][name], "mean": column.get("mean")}
        assert column == {key: expected[key] for key in column}, name


def test_a_statement_cuts_the_window(reference: Profile) -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute('CREATE TABLE t AS SELECT range % 3 AS "hour" FROM range(30)')
        made = table_profile(
            lambda text: connection.execute(text).fetchall(), "t", {"hour": "int64"}, reference, where='"hour" < 2'
        )

    assert (made["row_count"], sum(made["columns"]["hour"]["counts"].values())) == (20, 20)


@pytest.mark.parametrize(
    "edges",
    [
        pytest.param([0.0], id="one"),
        pytest.param([-1e300, -1.0, -5e-324, 0.0, 5e-324, 2.5, 1e300], id="both signs and the smallest numbers"),
        pytest.param([1.0, math.nextafter(1, 2), 1.5, 2.0], id="two neighbours"),
        pytest.param(sorted(np.random.default_rng(2).normal(1.6e9, 3, 900)), id="close together, far from zero"),
        pytest.param(sorted(np.random.default_rng(2).standard_cauchy(900)), id="far apart"),
    ],
)
def test_cells_between_edges_are_found_as_by_searching(edges: list[float]) -> None:
    random = np.random.default_rng(1)
    values = np.concatenate(
        [
            edges,
            np.nextafter(edges, np.inf),
            np.nextafter(edges, -np.inf),
            [-0.0, 0.0, 1e308, -1e308, 5e-324, -5e-324],
            random.normal(edges[len(edges) // 2], 10, 5_000),
            random.standard_cauchy(5_000),
        ]
    )
    cells = EdgeCells(edges)
    cells.count(values)

    expected = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    assert cells.counts.tolist() == expected.tolist()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.1, 0.2), (3.0, 40.0), (1e300, 1.5e300), (1e-300, 3e-300)])
def test_the_high_end_itself_lies_in_the_upper_open_end(low: float, high: float) -> None:
    cells = EqualCells(low, high)
    cells.count(np.array([low, high, low - (high - low) / 1e9]))

    assert (cells.counts[0], cells.counts[1], cells.counts[-1]) == (1, 1, 1)


_MEASURED = """
import json, resource, sys
from pathlib import Path
from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.tables import take_manifest
from airflow_mlops.engines.window_profile import window_profile
from airflow_mlops.spec.data import DataSpec
manifest = take_manifest(DataSpec(uri=sys.argv[1], format="parquet"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = window_profile(checked_files(manifest, Path(sys.argv[1])), json.loads(Path(sys.argv[2]).read_text()))
print(made["row_count"], before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """Ten times the rows, in one row group: each time the same few megabytes on top."""
    random = np.random.default_rng(0)
    one = pa.table({"x": random.normal(size=200_000), "y": random.random(200_000), "t": ["a", "b"] * 100_000})
    (tmp_path / "reference.json").write_text(json.dumps(build_profile(one)))
    grown = []
    for times in (1, 10):
        folder = tmp_path / str(times)
        folder.mkdir()
        parquet.write_table(pa.concat_tables([one] * times), folder / "rows.parquet", row_group_size=10**7)
        answer = subprocess.run(
            [sys.executable, "-c", _MEASURED, str(folder), str(tmp_path / "reference.json")],
            capture_output=True,
            text=True,
            check=True,
        )
        rows, before, after = map(int, re.findall(r"\d+", answer.stdout))
        assert rows == 200_000 * times
        grown.append(after - before)

    assert grown[1] < grown[0] + 24 * 1024, f"kB on top: {grown}; the larger file has 32 MB more"
