"""The bars of a column's picture."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from airflow_mlops.core.drift_page import bars_of
from airflow_mlops.engines.profile import build_profile


@pytest.mark.parametrize("ends", [(-1.7e308, 1.7e308), (-1e300, 1e300), (0.5, 9.5)])
def test_numbers_of_any_size_are_drawn(ends: tuple[float, float]) -> None:
    found = build_profile(pa.table({"x": pa.array([ends[0], sum(ends) / 2, ends[1]] * 100)}))
    bars = bars_of(found["columns"]["x"], found["columns"]["x"], 300, 300)

    assert [math.isclose(sum(bar[side] for bar in bars), 1.0) for side in (1, 2)] == [True, True]
    starts = [float(label) for label, _, _ in bars if label not in ("below", "above")]
    assert starts == sorted(starts)
    assert all(map(math.isfinite, starts))
