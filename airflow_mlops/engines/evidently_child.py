"""Ask Evidently, in an interpreter of its own, and write down its page, its JSON and its verdict on every column.

This file is run by its path, ``python evidently_child.py REQUEST.json``. It imports the standard library, pandas and
Evidently only, and never this package, so it starts fast and is killed without harm.

The request names the two samples (``reference``, ``current``: Parquet files), what their columns are (``numeric``,
``categorical``), ``methods`` and ``thresholds`` of the columns for which Evidently is not to choose, ``page`` (the
columns of the report), ``rest`` (columns whose verdict is wanted beside those), and where ``html``, ``json`` and
``answer`` go. The answer is ``{"version", "columns": {name: {"method", "threshold", "value", "drifted"}}}``, or
``{"problem"}``.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

MAX_MESSAGE = 500


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Run Evidently's drift preset on the page's columns, and its single metric on the rest."""
    warnings.simplefilter("ignore")
    import evidently
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    methods, thresholds = request["methods"], request["thresholds"]
    kinds = DataDefinition(numerical_columns=request["numeric"], categorical_columns=request["categorical"])
    reference, current = (
        Dataset.from_pandas(pd.read_parquet(request[which]), data_definition=kinds)
        for which in ("reference", "current")
    )
    found = []
    if request["page"]:
        preset = DataDriftPreset(
            columns=request["page"],
            per_column_method={name: methods[name] for name in request["page"] if name in methods} or None,
            per_column_threshold={name: thresholds[name] for name in request["page"] if name in thresholds} or None,
            include_tests=True,
        )
        page = Report([preset], include_tests=True).run(current, reference)
        page.save_html(request["html"])
        found.append(page.dict())
    if request["rest"]:
        single = [
            ValueDrift(column=name, method=methods.get(name), threshold=thresholds.get(name))
            for name in request["rest"]
        ]
        found.append(Report(single, include_tests=True).run(current, reference).dict())
    Path(request["json"]).write_text(json.dumps(_finite(found), default=str, allow_nan=False), encoding="utf-8")
    columns: dict[str, Any] = {}
    for part in found:
        columns |= _verdicts(part)
    return {"version": evidently.__version__, "columns": columns}


def _verdicts(found: dict[str, Any]) -> dict[str, Any]:
    """Return the columns' results: a test that failed is Evidently's word for drift."""
    values = {
        metric["config"]["column"]: metric["value"]
        for metric in found["metrics"]
        if str(metric["config"].get("type", "")).endswith(":ValueDrift")
    }
    columns = {}
    for test in found["tests"]:
        config = test["metric_config"]["params"]
        if str(config.get("type", "")).endswith(":ValueDrift"):
            value = values.get(config["column"])
            number = float(value) if isinstance(value, int | float) else math.nan
            columns[config["column"]] = {
                "method": str(config.get("method")),
                "threshold": config.get("threshold"),
                "value": number if math.isfinite(number) else None,
                "drifted": str(test["status"]).rpartition(".")[2] == "FAIL",
            }
    return columns


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Read the request that the command line names and write the answer."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        answer = ask(request)
    except ModuleNotFoundError as exc:
        answer = {"problem": str(exc), "missing": (exc.name or "").partition(".")[0]}
    except Exception as exc:  # noqa: BLE001  # whatever Evidently raises is a finding
        # Evidently's own words are about methods and columns; those of other libraries may quote a value.
        own = type(exc).__module__.partition(".")[0] == "evidently"
        first = str(exc).partition("\n")[0]
        answer = {"problem": f"{type(exc).__name__}{f': {first}' if own else ''}"[:MAX_MESSAGE]}
    Path(request["answer"]).write_text(json.dumps(answer, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main()
