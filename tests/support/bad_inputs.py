"""Wrong inputs that people make, one by one, on a copy of the flights model: what each is and how it is tried.

A case changes one thing and says which part of the error names the place and which names the mend. ``attempt`` carries
it out the way a user would: the DAG file is parsed and, when that goes well, the loop is run for a window.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What a case may change: texts in the specification, the contract or the training file, or rows of the data.
Frame = Any


@dataclass(frozen=True, kw_only=True)
class BadInput:
    """One wrong input.

    :param spec: pairs of what stands in flights.yaml and what stands there instead; likewise the other files.
    :param rows: changes the frame of one week of flights before it is written.
    :param connection: fields of the Airflow connection; None: the good one.
    :param place: pattern that the error must have, naming where.
    :param mend: pattern that the error must have, naming what to do or what is allowed.
    """

    group: str
    what: str
    place: str
    mend: str
    spec: tuple[tuple[str, str], ...] = ()
    contract: tuple[tuple[str, str], ...] = ()
    training: tuple[tuple[str, str], ...] = ()
    rows: Callable[[Frame], Frame | None] | None = None
    connection: dict[str, Any] | None = None
    window: tuple[str, str] = ("2013-01-08", "2013-01-15")
    files: dict[str, str] = field(default_factory=dict)


def _spec(what: str, old: str, new: str, place: str, mend: str, **more: Any) -> BadInput:
    return BadInput(group="specification", what=what, spec=((old, new),), place=place, mend=mend, **more)


def _contract(what: str, old: str, new: str, place: str, mend: str) -> BadInput:
    return BadInput(group="contract", what=what, contract=((old, new),), place=place, mend=mend)


def _training(what: str, old: str, new: str, place: str, mend: str) -> BadInput:
    return BadInput(group="training function", what=what, training=((old, new),), place=place, mend=mend)


def _rows(what: str, change: Callable[[Frame], Frame | None], place: str, mend: str, **more: Any) -> BadInput:
    return BadInput(group="data", what=what, rows=change, place=place, mend=mend, **more)


def _connection(what: str, fields: dict[str, Any], place: str, mend: str) -> BadInput:
    return BadInput(group="connection", what=what, connection=fields, place=place, mend=mend)


RETURN = "return pipeline.fit(data, target, classifier__sample_weight=weights)"
RULE = "{rule: at_least, metric: roc_auc, value: 0.55}"
NOT_NULL = "kwargs: {column: event_time}"

CASES: tuple[BadInput, ...] = (
    # Specification
    _spec(
        "a key misspelled",
        "target: late",
        "targt: late",
        r"flights\.yaml, line \d+: train\.targt",
        "Did you mean 'target'",
    ),
    _spec(
        "a required key left out",
        "  target: late\n",
        "",
        r"flights\.yaml, line \d+: train\.target",
        "is missing; add it",
    ),
    _spec(
        "a tab instead of blanks", "  target: late", "\ttarget: late", r"flights\.yaml, line \d+", "Check indentation"
    ),
    _spec("the same key twice", "  seed: 7", "  seed: 7\n  seed: 8", r"flights\.yaml, line \d+.*seed", "Remove one"),
    _spec(
        "a number where a name belongs", "name: flights\n", "name: 2013\n", r"flights\.yaml, line \d+: name", "string"
    ),
    _spec(
        "a name with capitals and blanks",
        "name: flights\n",
        "name: My Flights\n",
        r"line \d+: name",
        r"pattern|\[a-z\]",
    ),
    _spec("no event time", "  event_time: event_time", "  event_time: null", r"data\.event_time", "is missing"),
    _spec(
        "an unknown gate rule",
        RULE,
        "{rule: atleast, metric: roc_auc, value: 0.5}",
        r"gate\.rules\[0\]",
        "Did you mean 'at_least'",
    ),
    _spec(
        "a gate rule's setting misspelled",
        RULE,
        "{rule: at_least, metric: roc_auc, valu: 0.5}",
        r"gate\.rules\[0\].*'valu'",
        "'value'",
    ),
    _spec(
        "a rule on a metric that is not measured",
        RULE,
        "{rule: at_least, metric: f1, value: 0.5}",
        r"gate\.rules\[0\].*'f1'",
        "roc_auc",
    ),
    _spec("an unknown metric", "metrics: [roc_auc]", "metrics: [roc_acu]", r"evaluation.*roc_acu", "roc_auc"),
    _spec(
        "a training window in fortnights",
        "window: {length: 7 days}",
        "window: {length: 1 fortnight}",
        r"train\.window\.length",
        "days|months",
    ),
    _spec(
        "a password in the data's URI",
        "uri: rows.parquet",
        "uri: s3://key:secret@bucket/flights",
        r"data\.uri",
        "conn_id",
    ),
    _spec(
        "a contract that does not exist",
        "path: flights_contract.yaml",
        "path: contracts/flights.yaml",
        r"contract\.path",
        "Create it, or correct the path",
    ),
    _spec(
        "a function that does not exist",
        "flights_training:train",
        "flights_training:fit",
        r"flights_training.*fit",
        "train",
    ),
    _spec(
        "a module that does not exist",
        "flights_training:train",
        "flight_training:train",
        "flight_training",
        "code_path|import",
    ),
    _spec("an unknown flavour", "flavor: sklearn", "flavor: scikit", "scikit", "sklearn"),
    _spec(
        "a serialization the flavour does not have",
        "serialization: cloudpickle",
        "serialization: parquet",
        "parquet",
        "cloudpickle",
    ),
    _spec(
        "an unknown runtime",
        "name: flights\n",
        "name: flights\nruntime: external_pyton\n",
        "runtime: .*external_pyton",
        "Did you mean 'external_python'",
    ),
    _spec(
        "another interpreter that is not there",
        "name: flights\n",
        "name: flights\nruntime: {name: external_python, python: /opt/nowhere/bin/python}\n",
        "/opt/nowhere/bin/python",
        "interpreter|install|python",
    ),
    _spec(
        "a target that is also a feature",
        "    [carrier, origin",
        "    [late, carrier, origin",
        "target column 'late'",
        "remove it there",
    ),
    _spec(
        "a feature that the data lacks",
        "    [carrier, origin",
        "    [wind_chill, carrier, origin",
        "wind_chill",
        "features|columns",
    ),
    _spec(
        "both a calendar and Assets as schedule",
        "retries: 2",
        'cron: "0 0 1 * *"\n  start_date: "2013-01-01"\n  on_assets: [x]',
        "schedule",
        "either cron or on_assets",
    ),
    _spec(
        "a window that ends before it starts",
        "retries: 2",
        "retries: 2",
        "--window|window",
        "start before end",
        window=("2013-01-15", "2013-01-08"),
    ),
    # Contract
    _contract(
        "an expectation that does not exist",
        "expect_compound_columns_to_be_unique",
        "expect_compound_column_to_be_unique",
        r"flights_contract\.yaml, line \d+",
        "Did you mean",
    ),
    _contract(
        "an argument that the expectation does not take",
        "kwargs: {column: event_time}",
        "kwargs: {colum: event_time}",
        r"flights_contract\.yaml, line \d+",
        "column",
    ),
    _contract(
        "an unknown reaction",
        "on_failure: quarantine",
        "on_failure: ignore",
        r"flights_contract\.yaml, line \d+",
        "quarantine",
    ),
    _contract(
        "quarantine for a whole-table expectation",
        "kwargs: {column: late, min_value: 0.05, max_value: 0.6}\n    on_failure: fail",
        "kwargs: {column: late, min_value: 0.05, max_value: 0.6}\n    on_failure: quarantine",
        r"flights_contract\.yaml, line \d+",
        "row",
    ),
    _contract("no expectations", "expectations:", "expectation:", r"flights_contract\.yaml", "expectations"),
    _contract("broken YAML", "min_rows: 200", "min_rows: [200", r"flights_contract\.yaml, line \d+", "]|YAML|expected"),
    _contract(
        "a column that the data lacks",
        "kwargs: {column: event_time}",
        "kwargs: {column: departed_at}",
        "departed_at",
        "column|data",
    ),
    # Training function
    _training(
        "it takes other arguments",
        "    *,\n    weights: pd.Series | None,\n",
        "    weight: pd.Series | None,\n    *,\n",
        "flights_training:train",
        "weights",
    ),
    _training("it returns nothing", RETURN, "pipeline.fit(data, target)", "flights_training:train", "return"),
    _training(
        "it returns the class, not a fitted model",
        RETURN,
        "return Pipeline",
        "flights_training:train",
        "return what fit",
    ),
    _training(
        "it raises",
        RETURN,
        'raise KeyError("carrier_name")',
        r"flights_training\.py:\d+.*carrier_name",
        "Mend that line",
    ),
    _training(
        "it has a syntax error", RETURN, "return pipeline.fit(data, target", r"flights_training\.py:\d+", "never closed"
    ),
    _training(
        "it imports what is not installed",
        "    import numpy as np\n",
        "    import numpy as np\n    import catboosst\n",
        "catboosst",
        "Install what provides",
    ),
    _training(
        "it returns fewer predictions than rows",
        RETURN,
        "pipeline.fit(data, target)\n    pipeline.predict_proba = lambda rows: [[0.5, 0.5]]\n    return pipeline",
        "predict",
        "rows|store|stored",
    ),
    # Data
    _rows("no file", lambda frame: None, r"rows\.parquet", "does not exist|Check"),
    _rows(
        "a file that is no Parquet",
        lambda frame: b"month,day,carrier\n1,2,AA\n",
        r"rows\.parquet",
        "csv|Parquet|parquet",
    ),
    _rows("an empty window", lambda frame: frame[frame["event_time"] < "2013-01-07"], r"2013-01-08", "row"),
    _rows(
        "the event time is text",
        lambda frame: frame.assign(event_time=frame["event_time"].astype(str)),
        "event_time",
        "timestamp|time",
    ),
    _rows(
        "the event-time column is missing",
        lambda frame: frame.rename(columns={"event_time": "departed"}),
        "event_time",
        "departed|columns",
    ),
    _rows("the target is missing", lambda frame: frame.drop(columns="late"), "late", "missing from the data"),
    _rows("a single class", lambda frame: frame.assign(late=0), "late", "0.05|class|mean"),
    _rows("every row twice", lambda frame: frame.loc[frame.index.repeat(2)], "event_time|carrier", "none may be"),
    _rows("an unknown carrier", lambda frame: frame.assign(carrier="ZZ"), "carrier", "none of|in_set"),
    _rows(
        "half of the target unknown",
        lambda frame: frame.assign(late=frame["late"].where(frame.index % 2 == 0)),
        "late",
        "null",
    ),
    # Connection
    _connection("an empty Host", {"conn_type": "mlflow"}, "'mlflow_default'", "Host is empty; it must be"),
    _connection(
        "a Host without a scheme", {"conn_type": "mlflow", "host": "mlflow.example.com"}, "'mlflow_default'", "http://"
    ),
    _connection(
        "a port that is named twice",
        {"conn_type": "mlflow", "host": "http://h:5000", "port": 5001},
        "'mlflow_default'",
        "empty Port",
    ),
    _connection(
        "a password inside Host",
        {"conn_type": "mlflow", "host": "http://ann:secret@h:5000"},
        "'mlflow_default'",
        "User|Login|login|Password",
    ),
    _connection(
        "a token in Extra",
        {"conn_type": "mlflow", "host": "http://h:5000", "extra": json.dumps({"token": "x"})},
        "'mlflow_default'",
        "Password",
    ),
    _connection(
        "an unknown key in Extra",
        {"conn_type": "mlflow", "host": "http://h:5000", "extra": json.dumps({"timeout": 5})},
        "'mlflow_default'",
        "timeout_seconds",
    ),
    _connection(
        "a user without a password",
        {"conn_type": "mlflow", "host": "http://h:5000", "login": "ann"},
        "'mlflow_default'",
        "fill in Password",
    ),
    _connection(
        "a server that is not there",
        {
            "conn_type": "mlflow",
            "host": "http://127.0.0.1:9",
            "extra": json.dumps({"max_retries": 0, "timeout_seconds": 2}),
        },
        r"127\.0\.0\.1:9",
        "running|check|Check",
    ),
    _connection("a server that is no MLflow", {"conn_type": "mlflow", "host": "NOT_MLFLOW"}, r"http://", "MLflow"),
)


def write_model(folder: Path, frame: Frame, case: BadInput | None = None) -> Path:
    """Write the flights model over one fortnight into ``folder``, with what ``case`` changes; return its specification.

    :param frame: flights of 1 to 14 January 2013.
    """
    import shutil

    templates = Path(__file__).parents[2] / "airflow_mlops" / "templates"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("flights.yaml", "flights_contract.yaml", "flights_training.py"):
        shutil.copy(templates / name, folder / name)
    small = (
        ("uri: ../lake/flights          # a folder with one Parquet file a month", "uri: rows.parquet"),
        ("window: {length: 6 months, gap: 0 days}", "window: {length: 7 days}"),
        ("metrics: [roc_auc, log_loss]", "metrics: [roc_auc]"),
        ("max_iter: 100", "max_iter: 10"),
        ("bootstrap_draws: 10000", "bootstrap_draws: 200"),
        ("{rule: at_least, metric: roc_auc, value: 0.65}", RULE),
    )
    _edit(folder / "flights.yaml", small)
    with (folder / "flights.yaml").open("a") as written:
        written.write("serving: {check: false}  # it comes after what is tried here\n")
    _edit(folder / "flights.yaml", case.spec if case else ())
    _edit(folder / "flights_contract.yaml", (("min_rows: 20000", "min_rows: 200"),))
    _edit(folder / "flights_contract.yaml", case.contract if case else ())
    _edit(folder / "flights_training.py", case.training if case else ())
    made = frame if case is None or case.rows is None else case.rows(frame)
    if isinstance(made, bytes):
        (folder / "rows.parquet").write_bytes(made)
    elif made is not None:
        made.to_parquet(folder / "rows.parquet", index=False)
    return folder / "flights.yaml"


def _edit(path: Path, pairs: tuple[tuple[str, str], ...]) -> None:
    text = path.read_text()
    for old, new in pairs:
        if old not in text:
            raise ValueError(f"{path.name} does not hold {old!r}: the case would try nothing")
        text = text.replace(old, new, 1)
    path.write_text(text)
