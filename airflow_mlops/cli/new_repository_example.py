"""The table of the model that a new repository begins with where no table is given."""

from __future__ import annotations

from pathlib import Path

NAME, TARGET, EVENT_TIME, ID = "parcels", "late", "handed_in", "parcel_id"
#: Where the rows would be; the reader puts a place of their own there.
PLACES = {"prod": "s3://your-bucket/parcels/", "staging": "s3://your-staging-bucket/parcels/"}
_ROWS = 2_000


def write_example(path: Path) -> None:
    """Write a year of parcels, some of which come late: far ones, heavy ones, and those of one carrier."""
    import numpy
    import pandas

    chance = numpy.random.default_rng(0)
    carrier = chance.choice(["north", "east", "bike"], _ROWS, p=[0.5, 0.3, 0.2])
    distance = chance.gamma(2, 150, _ROWS).round(1)
    weight = chance.gamma(2, 2, _ROWS).round(2)
    express = chance.random(_ROWS) < 0.25
    stops = chance.integers(0, 6, _ROWS)
    odds = distance / 200 + weight / 8 + 0.8 * (carrier == "bike") + 0.2 * stops - 1.5 * express - 2.5
    pandas.DataFrame(
        {
            EVENT_TIME: pandas.date_range("2024-01-01", "2024-12-31", periods=_ROWS, unit="us"),
            ID: [f"p{number:05d}" for number in range(_ROWS)],
            "carrier": carrier,
            "distance_km": distance,
            "weight_kg": weight,
            "stops": stops,
            "express": express,
            TARGET: (chance.random(_ROWS) < 1 / (1 + numpy.exp(-odds))).astype("int64"),
        }
    ).to_parquet(path, index=False)
