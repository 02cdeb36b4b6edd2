"""The samples that Evidently is shown: the same for the same seed, true to the profile, and without rare values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import csv, parquet
from scipy.stats import ks_2samp

from airflow_mlops.engines.checked_files import checked_files
from airflow_mlops.engines.evidently_report import safe_labels
from airflow_mlops.engines.evidently_sample import Sampler, on_grid, rebuilt_sample, showable, shown_categories
from airflow_mlops.engines.profile import build_profile
from airflow_mlops.engines.tables import take_manifest
from airflow_mlops.spec.data import DataSpec
from tests.support.data_steps import window

ROWS = 20_000


@pytest.fixture(scope="module")
def table() -> pyarrow.Table:
    rng = np.random.default_rng(0)
    return pyarrow.table(
        {
            "normal": rng.normal(size=ROWS),
            "hour": rng.integers(0, 24, ROWS),
            "flag": rng.choice([0, 1], ROWS, p=[0.7, 0.3]),
            "big": rng.integers(0, 100_000, ROWS),
            "carrier": rng.choice(["AA", "B6", "UA"], ROWS, p=[0.5, 0.3, 0.2]),
            "gap": pyarrow.array([None if number % 4 else float(number) for number in range(ROWS)]),
            "none": pyarrow.nulls(ROWS, pyarrow.float64()),
            "name": [f"n{number}" for number in range(ROWS)],
            "list": [[1]] * ROWS,
        }
    )


def numbers(table: pyarrow.Table, name: str) -> Any:
    return table[name].drop_null().to_numpy()


def test_a_rebuilt_sample_has_the_profiles_shares(table: pyarrow.Table) -> None:
    profile = build_profile(table)

    sample = rebuilt_sample(profile, ["normal", "hour", "flag", "big", "carrier", "gap"], rows=10_000, seed=1)

    assert sample.equals(rebuilt_sample(profile, sample.column_names, rows=10_000, seed=1))
    assert not sample.equals(rebuilt_sample(profile, sample.column_names, rows=10_000, seed=2))
    for name in ("normal", "hour", "flag", "big", "gap"):
        assert ks_2samp(numbers(sample, name), numbers(table, name)).statistic < 0.02, name
    assert set(numbers(sample, "hour")) <= set(range(24))
    assert set(numbers(sample, "flag")) == {0.0, 1.0}
    assert sample["gap"].null_count / 10_000 == pytest.approx(0.75, abs=0.02)
    assert sample["carrier"].to_pylist().count("AA") / 10_000 == pytest.approx(0.5, abs=0.02)


def test_rows_set_on_the_grid_are_what_the_profile_draws(table: pyarrow.Table) -> None:
    profile = build_profile(table.select(["normal", "big", "hour"]))
    values = numbers(table, "normal")
    rows = pyarrow.table(
        {
            "normal": np.append(values, [99.0, np.nan]),
            "big": np.append(table["big"].to_numpy().astype(float), [-5.0, 1.0]),
            "hour": np.append(table["hour"].to_numpy().astype(float), [3.0, 3.0]),
        }
    )

    shown = on_grid(rows, profile)

    step = (profile["columns"]["normal"]["high"] - profile["columns"]["normal"]["low"]) / 1024
    inside = np.abs(values) < 2
    moved = np.abs(shown["normal"].to_numpy()[: len(values)] - values)
    assert moved[inside].max() <= step / 2 + 1e-12
    # Out of the reference's range a number stays what it is.
    assert shown["normal"][-2].as_py() == 99.0
    assert shown["normal"][-1].as_py() is None
    assert shown["big"][-2].as_py() == -5.0
    assert shown["hour"].to_pylist() == rows["hour"].to_pylist()
    drawn = set(numbers(rebuilt_sample(profile, ["big"], rows=50_000, seed=0), "big"))
    assert set(numbers(shown, "big")[: len(values)]) >= drawn


def test_only_what_may_be_seen_is_shown(table: pyarrow.Table) -> None:
    profile = build_profile(table, exclude=["flag"])

    assert showable([*table.column_names, "gone"], profile, profile) == ["normal", "hour", "big", "carrier", "gap"]


def test_rare_categories_are_not_told_apart() -> None:
    before = build_profile(pyarrow.table({"code": [f"c{number}" for number in range(400)] * 3}))
    now = build_profile(pyarrow.table({"code": ["c0", "c399", "new", None]}))
    rows = pyarrow.table({"code": ["c0", "c399", "new", None]})

    assert shown_categories(rows, before, now, rebuilt=True)["code"].to_pylist() == ["c0", "(other)", "new", None]
    assert shown_categories(rows, before, now, rebuilt=False)["code"].to_pylist() == ["c0", "c399", "new", None]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_sample_is_of_the_windows_rows_and_the_same_every_time(form: str, tmp_path: Path) -> None:
    start = np.datetime64("2013-01-01T00:00:00")
    for number in range(3):
        hours = np.arange(number * 500, number * 500 + 500)
        rows = pyarrow.table(
            {
                "at": start + hours.astype("timedelta64[h]"),
                "hour": hours,
                "text": [None if hour % 2 else f"t{hour}" for hour in hours],
            }
        )
        path = tmp_path / f"{number}.{form}"
        parquet.write_table(rows, path) if form == "parquet" else csv.write_csv(rows, path)
    january = window("2013-01-01", "2013-02-01")
    manifest = take_manifest(DataSpec(uri=str(tmp_path), format=form, event_time="at"), january)

    def draw(size: int, seed: int = 0) -> pyarrow.Table:
        sampler = Sampler(["hour", "text", "at", "gone"], total=manifest.row_count, rows=size, seed=seed)
        assert len(list(sampler.watch(checked_files(manifest, tmp_path / "scratch")))) == 2
        return sampler.table()

    whole, some = draw(10_000), draw(50)

    assert whole["hour"].to_pylist() == list(range(31 * 24))
    assert whole["at"][1].as_py() - whole["at"][0].as_py() == 3600.0
    assert whole["text"][:3].to_pylist() == ["t0", None, "t2"]
    assert some.num_rows == 50
    assert some.equals(draw(50))
    assert not some.equals(draw(50, seed=1))
    assert some["hour"].to_pylist() == sorted(set(some["hour"].to_pylist()))


def test_names_that_could_end_a_script_are_shown_otherwise() -> None:
    labels = safe_labels(["a", "</script>", "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}/script>"])

    assert labels["a"] == "a"
    assert not any("<" in label for label in labels.values())
    assert len(set(labels.values())) == 3
