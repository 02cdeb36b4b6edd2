"""The other side of the drift benchmark: one peer a process, with nothing of ours imported.

``evidently-default|evidently-psi REFERENCE CURRENT``, ``nannyml REFERENCE CURRENT``, ``duckdb-scan CURRENT`` or
``exact REFERENCE CURRENT``; the last line printed is JSON. NannyML's interpreter has libraries of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def evidently(reference: str, current: str, method: str | None) -> dict[str, Any]:
    """Run the drift preset on all rows; return how many columns it measured."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frames = [pd.read_parquet(path) for path in (reference, current)]
    text = [name for name in frames[0] if not pd.api.types.is_numeric_dtype(frames[0][name])]
    numeric = [name for name in frames[0] if name not in text]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=text)
    before, after = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    found = Report([DataDriftPreset(method=method)]).run(after, before).dict()
    measured = [one for one in found["metrics"] if one["metric_name"].startswith("ValueDrift")]
    return {"columns": len(measured), "values": {one["metric_name"]: float(one["value"]) for one in measured}}


def nannyml(reference: str, current: str) -> dict[str, Any]:
    """Run the Kolmogorov-Smirnov and chi-square methods on all rows as one chunk."""
    import nannyml as nml
    import pandas as pd

    before, after = (pd.read_parquet(path) for path in (reference, current))
    text = [name for name in before if not pd.api.types.is_numeric_dtype(before[name])]
    calculator = nml.UnivariateDriftCalculator(
        column_names=list(before),
        treat_as_categorical=text,
        continuous_methods=["kolmogorov_smirnov"],
        categorical_methods=["chi2"],
        chunk_number=1,
    )
    found = calculator.fit(before).calculate(after).filter(period="analysis").to_df()
    values = {
        name: float(found[(name, "chi2" if name in text else "kolmogorov_smirnov", "value")].iloc[0]) for name in before
    }
    return {"columns": len(values), "values": values}


def duckdb_scan(current: str) -> dict[str, Any]:
    """Read every value of every column and no more: a sum of numbers, a sum of lengths of text.

    ``count`` and ``max`` are answered from the file's statistics, without reading a value.
    """
    import duckdb

    with duckdb.connect() as connection:
        types = connection.execute(f"DESCRIBE SELECT * FROM '{current}'").fetchall()
        terms = [f'sum(strlen("{name}"))' if kind == "VARCHAR" else f'sum("{name}")' for name, kind, *_ in types]
        connection.execute(f"SELECT {', '.join(terms)} FROM '{current}'").fetchall()
    return {"columns": len(terms)}


def exact(reference: str, current: str) -> dict[str, Any]:
    """Compute from all raw values, column by column, with scipy: KS, PSI and JS in tenths, chi-square."""
    import numpy as np
    from pyarrow import parquet
    from scipy import stats
    from scipy.spatial import distance

    found: dict[str, dict[str, float]] = {}
    for name in parquet.read_schema(reference).names:
        sides = [parquet.read_table(path, columns=[name])[name] for path in (reference, current)]
        missing = [side.null_count for side in sides]
        plain = [side.drop_null() for side in sides]
        values: dict[str, float] = {}
        if str(sides[0].type) == "string":
            counted = [{one["values"]: one["counts"] for one in side.value_counts().to_pylist()} for side in plain]
            cells = [[side.get(word, 0) for word in {**counted[0], **counted[1]}] for side in counted]
        else:
            numbers = [side.to_numpy().astype(float) for side in plain]
            values["kolmogorov_smirnov"] = float(stats.ks_2samp(*numbers, method="asymp").statistic)
            edges = _nearest_to_deciles(numbers[0])
            places = [np.searchsorted(edges, side, side="right") for side in numbers]
            cells = [np.bincount(side, minlength=len(edges) + 1) for side in places]
        if any(missing):
            cells = [[*side, gone] for side, gone in zip(cells, missing, strict=True)]
        p, q = (np.maximum(np.array(side) / sum(side), 1e-4) for side in cells)
        values["psi"] = float(((q - p) * np.log(q / p)).sum())
        values["jensen_shannon"] = float(distance.jensenshannon(*cells, base=2))
        if "kolmogorov_smirnov" not in values:
            values["chi_square"] = float(stats.chi2_contingency(cells, correction=False).statistic)
        found[name] = values
    return {"columns": len(found), "values": found}


def _nearest_to_deciles(values: Any) -> Any:
    """Return edges, each of which has a share of the values below it as near to ``k / 10`` as any value's."""
    import numpy as np

    different, counts = np.unique(values, return_counts=True)
    below = np.cumsum(counts)[:-1] / len(values)
    if not len(below):
        return different
    return different[sorted({int(np.abs(below - k / 10).argmin()) + 1 for k in range(1, 10)})]


def main(peer: str, *files: str) -> dict[str, Any]:
    """Run one of them."""
    if peer.startswith("evidently"):
        return evidently(*files, "psi" if peer == "evidently-psi" else None)
    return {"nannyml": nannyml, "duckdb-scan": duckdb_scan, "exact": exact}[peer](*files)


if __name__ == "__main__":
    said = main(*sys.argv[1:])
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({**said, "peak": int(peak.split()[1]) / 1000}))
