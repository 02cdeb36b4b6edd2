"""The texts of a new model's files: specification, training function, its test, and DAG."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from airflow_mlops.core.inference import ColumnSeen
from airflow_mlops.core.metrics import Task
from airflow_mlops.core.new_model import Split
from airflow_mlops.core.yaml_text import comment, entry
from airflow_mlops.spec.model import DataSpec

_METRICS = {
    "binary": ["roc_auc", "log_loss", "accuracy"],
    "multiclass": ["balanced_accuracy", "accuracy", "f1_macro"],
    "regression": ["r2", "rmse", "mae"],
}


@dataclass(frozen=True)
class NewModel:
    """Everything that was given or guessed about a new model.

    :param labels: the target's labels, in order; empty for a regression.
    :param train_rows: rows to train on.
    :param guesses: what was guessed, in sentences.
    """

    name: str
    data: DataSpec
    target: str
    task: Task
    features: Sequence[ColumnSeen]
    labels: Sequence[Any]
    split: Split
    train_rows: int
    guesses: Sequence[str]


def file_names(name: str) -> dict[str, str]:
    """Return what each file of a model is called, by its kind."""
    return {
        "spec": f"{name}.yaml",
        "contract": f"{name}_contract.yaml",
        "training": f"{name}_training.py",
        "test": f"test_{name}_training.py",
        "dag": f"{name}_dag.py",
    }


def data_uri(uri: str, folder: Path) -> str:
    """Return a place of data as a specification in ``folder`` names it: relative where both lie close together."""
    if "://" in uri:
        return uri
    full = os.path.abspath(uri)  # noqa: PTH100  # Path.resolve() would follow links
    relative = os.path.relpath(full, os.path.abspath(folder))  # noqa: PTH100  # likewise
    return relative if Path(relative).parts.count(os.pardir) <= 2 else full


def spec_text(model: NewModel, folder: Path) -> str:
    """Return the specification's text."""
    data: dict[str, Any] = {"uri": data_uri(model.data.uri, folder), "format": model.data.format}
    if model.data.conn_id:
        data["conn_id"] = model.data.conn_id
    data["event_time"] = model.data.event_time
    for key in ("id_columns", "personal_columns"):
        if columns := getattr(model.data, key):
            data[key] = list(columns)
    names = file_names(model.name)
    train = {
        "function": f"{names['training'].removesuffix('.py')}:train",
        "flavor": "sklearn",
        "serialization": "cloudpickle",
        "target": model.target,
        "features": [column.name for column in model.features],
        "parameters": {
            "max_iter": 100,
            "learning_rate": 0.1,
            "min_samples_leaf": max(2, min(20, model.train_rows // 20)),
        },
        "seed": 7,
        "window": {"length": str(model.split.length)},
    }
    floor, about = _floor(model)
    lines = [
        comment("Written once, from the table below; it is yours to change. What was guessed:"),
        *(comment(f"- {guess}") for guess in model.guesses),
        f"name: {model.name}",
        entry("description", _description(model), 0),
        "",
        *_block("data", data),
        "",
        f"contract: {{path: {names['contract']}}}",
        "",
        *_block("train", train),
        "",
        *_block("evaluation", {"task": model.task, "metrics": _METRICS[model.task]}),
        "",
        "gate:",
        "  rules:",
        comment(about, 4),
        entry("- ", floor, 4).replace('"- ": ', "- ", 1),
        comment("Later ones hold only where it is proven that they are worse than the champion by more than this.", 4),
        f"    - {{rule: no_worse_than_champion, metric: {floor['metric']}, margin: 0.01, evidence: harm}}",
    ]
    return "\n".join(lines) + "\n"


def training_text(model: NewModel) -> str:
    """Return the training module's text."""
    regression = model.task == "regression"
    numbers = [column.name for column in model.features if column.kind != "text"]
    categories = [column.name for column in model.features if column.kind == "text"]
    return _filled(
        "training.py.tmpl",
        name=model.name,
        numbers=_python_list("NUMBERS", numbers),
        categories=_python_list("CATEGORIES", categories),
        kind="regressor" if regression else "classifier",
        estimator=f"HistGradientBoosting{'Regressor' if regression else 'Classifier'}",
        target="the number to predict" if regression else "the label",
        predicts="predict" if regression else "predict_proba",
    )


def test_text(model: NewModel) -> str:
    """Return the text of the training module's test. It shows types and labels, and no other value of the data."""
    has_text = any(column.kind == "text" for column in model.features)
    columns = {column.name: column.dtypes[0] for column in model.features}
    body = "".join(f"    {_python(name)}: {_python(dtype)},\n" for name, dtype in columns.items())
    return _filled(
        "test_numbers.py.tmpl" if model.task == "regression" else "test_labels.py.tmpl",
        name=model.name,
        columns=f"COLUMNS = {{\n{body}}}",
        labels=_python_list("LABELS", list(model.labels)),
        rows=str(max(600, 20 * len(model.labels))),
        unseen=_unseen("predict" if model.task == "regression" else "predict_proba") if has_text else "",
    )


def dag_text(model: NewModel) -> str:
    """Return the DAG file's text."""
    return _filled("dag.py.tmpl", name=model.name)


def _description(model: NewModel) -> str:
    words = {"binary": "Which of two labels", "multiclass": "Which label", "regression": "Which number"}
    return f"{words[model.task]} will {' '.join(model.target.split())} be?"[:200]


def _floor(model: NewModel) -> tuple[dict[str, Any], str]:
    """Return the rule that a first model must pass, and what it means."""
    more = "Raise it as soon as you know what is good enough."
    if model.task == "binary":
        return {"rule": "at_least", "metric": "roc_auc", "value": 0.5}, f"A coin reaches 0.5. {more}"
    if model.task == "regression":
        return {"rule": "at_least", "metric": "r2", "value": 0}, f"Always saying the mean reaches 0. {more}"
    chance = -(-1000 // len(model.labels)) / 1000
    return {
        "rule": "at_least",
        "metric": "balanced_accuracy",
        "value": chance,
    }, f"Always saying one of the {len(model.labels)} labels reaches 1/{len(model.labels)}. {more}"


def _unseen(method: str) -> str:
    return (
        "def test_a_category_that_training_never_saw_counts_as_a_missing_one(model) -> None:\n"
        "    unseen = made_up()[0][:50]\n"
        "    missing = unseen.copy()\n"
        "    for name, dtype in COLUMNS.items():\n"
        '        if dtype == "object":\n'
        '            unseen[name] = "never seen"\n'
        "            missing[name] = pd.Series([None] * 50, dtype=object)\n"
        "\n"
        f"    assert np.array_equal(model.{method}(unseen), model.{method}(missing))\n"
        "\n"
        "\n"
    )


def _block(key: str, values: dict[str, Any]) -> list[str]:
    return [f"{key}:", *(entry(name, value, 2) for name, value in values.items())]


def _python_list(name: str, values: list[Any]) -> str:
    if not values:
        return f"{name}: list[str] = []"
    return f"{name} = [\n" + "".join(f"    {_python(value)},\n" for value in values) + "]"


def _python(value: Any) -> str:
    """Return a value as Python, text in double quotes where that needs no escape."""
    text = repr(value)
    if text.startswith("'") and '"' not in text:
        return f'"{text[1:-1]}"'
    return text


def _filled(template: str, **words: str) -> str:
    folder = resources.files("airflow_mlops.templates") / "new_model"
    text = Template((folder / template).read_text(encoding="utf-8")).substitute(words)
    return re.sub(r"\n{4,}", "\n\n\n", text)
