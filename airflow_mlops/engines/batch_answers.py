"""What a loaded model answers, as columns whose names and types are settled once per batch.

Labels and probabilities follow the rules of :mod:`airflow_mlops.engines.predictions`. What an answer *means* must not
depend on which rows happen to stand in a chunk, so :class:`Terms` are settled by the model's input example, else by the
first rows it answers, and hold for every chunk. For a model that says nothing of its classes the type decides: a binary
model that predicts one float per row gives probabilities, any other single value is a label.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mlops.core.metrics import Task
from airflow_mlops.engines.direct_prediction import DirectPrediction, same_answer, unwrapped
from airflow_mlops.engines.predictions import Array, Outputs, Raw, Truth, ask, read_outputs
from airflow_mlops.engines.schemas import conform, plain_type, to_frame, with_floats
from airflow_mlops.errors import ModelRefusedError

if TYPE_CHECKING:
    import pandas
    import pyarrow

log = logging.getLogger(__name__)

#: Rows of equal answers after which an unwrapped model is trusted; the input example's few are not enough.
MIN_PROOF_ROWS = 500
#: Arrow's names of what MLflow calls numbers, by its own.
_NUMBERS = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
PREDICTION = "prediction"
PROBABILITY = "probability"


@dataclass(frozen=True)
class Terms:
    """What a model's answers mean.

    :param classes: the labels in sorted order, in a binary task the positive one second; empty in a regression, and
        where labels are passed on as they come (``free``).
    :param labels_only: the model predicts labels, no numbers.
    :param probable: the answers hold probabilities.
    :param kind: Arrow type of the ``prediction`` column.
    """

    task: Task
    kind: pyarrow.DataType
    classes: tuple[Any, ...] = ()
    labels_only: bool = False
    free: bool = False
    probable: bool = False

    @property
    def schema(self) -> pyarrow.Schema:
        """Return the columns of an answer."""
        import pyarrow

        names = [] if not self.probable else probability_names(self)
        return pyarrow.schema([(PREDICTION, self.kind), *((name, pyarrow.float64()) for name in names)])

    def joined(self, other: Terms) -> Terms:
        """Return the terms that hold both models' answers, where two share the columns.

        :raises ModelRefusedError: they speak of different things.
        """
        classes = _ordered({*self.classes, *other.classes})
        if self.probable != other.probable or self.free != other.free or (self.task == "binary" and len(classes) > 2):
            raise ModelRefusedError(
                f"The two versions cannot share the rows of one batch: one predicts {_said(self)}, the other "
                f"{_said(other)}. Compare them with scoring.shadow instead of scoring.split."
            )
        kind = self.kind if self.free or self.task == "regression" else _kind_of(classes)
        return replace(self, classes=classes, kind=kind)


def probability_names(terms: Terms) -> list[str]:
    """Return the names of the probability columns: one of the positive class, or one for each of several classes."""
    if terms.task == "binary":
        return [PROBABILITY]
    return [f"{PROBABILITY}_{label}" for label in terms.classes]


class Predictor:
    """One model that answers chunk by chunk.

    :param folder: where the model was fetched to and checked.
    :param model: what :func:`airflow_mlops.engines.models.load_predictor` made of it.
    :param who: what messages call it.
    """

    def __init__(self, model: Any, folder: Path, features: Sequence[str], task: Task, who: str) -> None:
        self.model = model
        self.features = tuple(features)
        self.task: Task = task
        self.who = who
        self._declared = declared_types(folder)
        self.classes = _known_classes(model, folder)
        self.terms: Terms | None = None
        self._floats = frozenset(name for name, kind in self._declared.items() if kind in ("double", "float"))
        self._ways = unwrapped(model, self.features)
        self._proven_rows = 0
        self._try_example(folder)

    @property
    def unwrapped(self) -> bool:
        """Say whether the model was found to answer alike without its wrapping."""
        return bool(self._ways) and self._proven_rows >= MIN_PROOF_ROWS

    def answer(self, rows: pyarrow.Table) -> pyarrow.Table:
        """Return the columns of :attr:`Terms.schema` for every row, in order.

        :raises Exception: whatever the model raises about a value it refuses.
        """
        raw = self._named(self._raw(self._as_declared(rows.select(list(self.features)))))
        if self.terms is None:
            self.terms = settle(raw, self.task)
        return columns_of(raw, self.terms, self.who)

    def settled(self) -> Terms:
        """Return the terms; where no row was answered, what the model says of itself decides."""
        if self.terms is None:
            self.terms = _unasked(self.model, self.task, self.classes)
        return self.terms

    def _raw(self, rows: pyarrow.Table) -> Raw:
        if self.unwrapped:
            try:
                return self._ways[0].ask(rows, self.task, self._floats)
            except Exception as exc:  # noqa: BLE001  # the plain model has the last word on what is wrong
                log.debug("The unwrapped model does not answer: %s", exc)
        plain = ask(self.model, self._frame(rows), self.task)
        if self._ways and not self.unwrapped:
            self._prove(rows, plain)
        return plain

    def _as_declared(self, rows: pyarrow.Table) -> pyarrow.Table:
        """Return text as numbers and columns of no type as text, where the signature says so.

        One stray word makes text of a CSV file's whole column, and a column without any value has no type; an encoder
        would take every value of theirs for one it never saw.

        :raises pyarrow.ArrowInvalid: a text is no number.
        """
        import pyarrow
        from pyarrow import compute

        for place, column in enumerate(rows.column_names):
            kind, found = self._declared.get(column), plain_type(rows.schema.field(column).type)
            if kind == "string" and pyarrow.types.is_null(found):
                rows = rows.set_column(place, column, rows[column].cast(pyarrow.string()))
            elif kind is not None and kind in _NUMBERS and pyarrow.types.is_string(found):
                text = compute.utf8_trim_whitespace(rows[column].cast(pyarrow.string()))
                rows = rows.set_column(place, column, text.cast(_NUMBERS[kind]))
        return rows

    def _named(self, raw: Raw) -> Raw:
        return raw if raw.classes is not None or self.task == "regression" else replace(raw, classes=self.classes)

    def _prove(self, rows: pyarrow.Table, plain: Raw) -> None:
        """Count these rows for the quickest way to ask that gives the same bits on them; drop those that do not."""
        while self._ways and not self._agrees(self._ways[0], rows, plain):
            self._ways.pop(0)
            self._proven_rows = 0
        if not self._ways:
            log.info("%s is used as it is: unwrapped it does not give the same answers.", self.who)
            return
        self._proven_rows += rows.num_rows
        if self.unwrapped:
            log.info("%s is unwrapped: it gave equal answers for %s rows.", self.who, f"{self._proven_rows:,}")

    def _agrees(self, way: DirectPrediction, rows: pyarrow.Table, plain: Raw) -> bool:
        try:
            return same_answer(way.ask(rows, self.task, self._floats), plain)
        except Exception as exc:  # noqa: BLE001  # whatever it is, the plain model answers
            log.debug("The unwrapped model does not answer: %s", exc)
            return False

    def _frame(self, rows: pyarrow.Table) -> pandas.DataFrame:
        return with_floats(to_frame(rows), self._floats)

    def _try_example(self, folder: Path) -> None:
        """Settle the terms by the model's input example, so that they are the same for every window.

        The example is made of Arrow rows like any batch: what the file system and JSON made of its types is not.
        """
        try:
            example = _input_example(folder, self.features)
            if example is None:
                return
            raw = ask(self.model, self._frame(example), self.task)
            self.terms = settle(self._named(raw), self.task)
        except Exception as exc:  # noqa: BLE001  # made-up rows may be refused; real ones are asked anyway
            log.debug("%s does not answer its input example: %s", self.who, exc)
            return
        if self._ways:
            self._prove(example, raw)


def settle(raw: Raw, task: Task) -> Terms:
    """Say what a model's answers mean, from one of them.

    :raises ModelRefusedError: the answer cannot be understood for the task.
    """
    import pyarrow

    if task == "regression":
        return Terms(task, pyarrow.float64())
    known = raw.classes
    single = raw.answer == "predicted" and (raw.values.ndim == 1 or raw.values.shape[1] == 1)
    if task == "binary":
        named = _binary_classes(known)
        # Floats are labels only where the labels themselves are other floats than 0 and 1.
        labels = single and (raw.values.dtype.kind != "f" or not set(named or (0, 1)) <= {0, 1})
        if labels and named is None and not set(_plain(raw.values.ravel())) <= {0, 1}:
            return Terms(task, _kind_of(_plain(raw.values.ravel())), labels_only=True, free=True)
        named = named or (0, 1)
        return Terms(task, _kind_of(named), named, labels_only=labels, probable=not labels and raw.answer != "decision")
    if single or raw.values.ndim == 1:
        if known is None:
            return Terms(task, _kind_of(_plain(raw.values.ravel())), labels_only=True, free=True)
        named = _ordered(set(known))
        return Terms(task, _kind_of(named), named, labels_only=True)
    named = _ordered(set(known)) if known is not None else tuple(range(raw.values.shape[1]))
    return Terms(task, _kind_of(named), named, probable=raw.answer != "decision")


def columns_of(raw: Raw, terms: Terms, who: str) -> pyarrow.Table:
    """Return an answer as columns of ``terms``.

    :raises ModelRefusedError: the answer is not of the kind that was settled.
    """
    import pyarrow

    if terms.task == "regression":
        values = read_outputs(raw, Truth(terms.task, np.empty(0))).own
        return pyarrow.table({PREDICTION: pyarrow.array(values, pyarrow.float64())})
    if terms.free:
        return pyarrow.table({PREDICTION: pyarrow.array(_plain(raw.values.ravel()), terms.kind)})
    if terms.labels_only:
        return pyarrow.table({PREDICTION: _labels_as_they_are(raw, terms, who)})
    outputs = read_outputs(_as_numbers(raw), _truth(terms))
    assert outputs.labels is not None  # noqa: S101  # every classifier's answer that is not labels has them
    columns = {PREDICTION: pyarrow.array(list(terms.classes), terms.kind).take(pyarrow.array(outputs.labels))}
    columns |= _probabilities(outputs, terms)
    return pyarrow.table(columns)


def usable(answers: pyarrow.Table) -> Array:
    """Return which rows have a finite prediction and finite probabilities, shape ``(n,)``."""
    import pyarrow
    from pyarrow import compute

    good = np.ones(answers.num_rows, dtype=bool)
    for values in answers.columns:
        if pyarrow.types.is_floating(values.type):
            good &= compute.fill_null(compute.is_finite(values), False).to_numpy()
        elif values.null_count:
            good &= compute.is_valid(values).to_numpy()
    return good


def _probabilities(outputs: Outputs, terms: Terms) -> dict[str, Any]:
    import pyarrow

    if not terms.probable or outputs.probabilities is None:
        return {}
    table = outputs.probabilities if outputs.probabilities.ndim == 2 else outputs.probabilities[:, None]
    names = probability_names(terms)
    # A class that a model knows nothing of has no chance with it.
    return {name: pyarrow.array(np.ascontiguousarray(table[:, number])) for number, name in enumerate(names)}


def _labels_as_they_are(raw: Raw, terms: Terms, who: str) -> Any:
    import pyarrow

    labels = _plain(raw.values.ravel())
    if unknown := set(labels) - set(terms.classes):
        raise ModelRefusedError(f"{who} predicts {len(unknown)} labels that it did not name before.")
    place = {label: number for number, label in enumerate(terms.classes)}
    return pyarrow.array([terms.classes[place[label]] for label in labels], terms.kind)


def _as_numbers(raw: Raw) -> Raw:
    """Return an answer of plain ``predict`` as probabilities, so that one that is all 0 and 1 is not taken for labels.

    One number per row comes as a column of a matrix from some models.
    """
    if raw.answer != "predicted":
        return raw
    values = raw.values[:, 0] if raw.values.ndim == 2 and raw.values.shape[1] == 1 else raw.values
    return Raw("probabilities", values.astype(float), raw.classes)


def _truth(terms: Terms) -> Truth:
    labels = np.array(list(terms.classes), dtype=None if _kind_is_plain(terms.classes) else object)
    return Truth(terms.task, labels, np.arange(len(labels)), terms.classes)


def _unasked(model: Any, task: Task, classes: tuple[Any, ...] | None) -> Terms:
    import pyarrow

    if task == "regression":
        return Terms(task, pyarrow.float64())
    probable = hasattr(model, "predict_proba")
    if classes is None:
        return Terms(task, pyarrow.int64(), (0, 1) if task == "binary" else (), free=task != "binary")
    named = (_binary_classes(classes) or (0, 1)) if task == "binary" else _ordered(set(classes))
    return Terms(task, _kind_of(named), named, labels_only=not probable, probable=probable)


def _binary_classes(known: Sequence[Any] | None) -> tuple[Any, ...] | None:
    if known is None:
        return None
    classes = _ordered(set(known))
    if len(classes) > 2:
        raise ModelRefusedError(f"The model knows {len(classes)} labels, and the task is binary: set evaluation.task.")
    if len(classes) == 1:
        if classes[0] not in (0, 1):
            raise ModelRefusedError("The model knows one label only, so nobody can say which one is the positive one.")
        return (0, 1)
    return classes


def _known_classes(model: Any, folder: Path) -> tuple[Any, ...] | None:
    """Return the labels that the model names, or that its making noted for it."""
    from mlflow.models import Model

    named = getattr(model, "classes_", None)
    if named is None:
        named = (Model.load(str(folder)).metadata or {}).get("classes")
    return None if named is None else tuple(_plain(named))


def declared_types(folder: Path) -> dict[str, str]:
    """Return the type that the model's signature gives each named column, in MLflow's words; without one, none."""
    from mlflow.models import Model

    schema = Model.load(str(folder)).get_input_schema()
    if schema is None or not schema.has_input_names() or schema.is_tensor_spec():
        return {}
    return {str(one.name): str(getattr(one.type, "name", "")) for one in schema.inputs if one.name}


def unlike_text(declared: Mapping[str, str], columns: Sequence[str], schema: pyarrow.Schema) -> list[str]:
    """Return those of ``columns`` that are text to the model and something else, with values, in ``schema``."""
    import pyarrow

    types = pyarrow.types
    found = {name: plain_type(schema.field(name).type) for name in columns if declared.get(name) == "string"}
    return [name for name, kind in found.items() if not (types.is_string(kind) or types.is_null(kind))]


def _input_example(folder: Path, features: Sequence[str]) -> pyarrow.Table | None:
    """Return the example's feature columns with the types that a batch would have; None where there is none."""
    import pandas
    import pyarrow
    from mlflow.models import Model

    example = Model.load(str(folder)).load_input_example(str(folder))
    if not isinstance(example, pandas.DataFrame) or not set(features) <= set(example.columns) or example.empty:
        return None
    rows = pyarrow.Table.from_pandas(example[list(features)], preserve_index=False)
    return conform(rows, pyarrow.schema([(field.name, plain_type(field.type)) for field in rows.schema]), "example")


def _kind_of(labels: Sequence[Any]) -> pyarrow.DataType:
    import pyarrow

    for python, kind in ((bool, pyarrow.bool_()), (int, pyarrow.int64()), (float, pyarrow.float64())):
        if labels and all(type(label) is python for label in labels):
            return kind
    if labels and all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels):
        return pyarrow.float64()
    if labels and not all(isinstance(label, str) for label in labels):
        raise ModelRefusedError("The model's labels are neither numbers nor text nor booleans; they cannot be written.")
    return pyarrow.string() if labels else pyarrow.int64()


def _kind_is_plain(labels: Sequence[Any]) -> bool:
    return all(isinstance(label, bool | int | float) for label in labels)


def _plain(values: Any) -> list[Any]:
    return list(values.tolist()) if hasattr(values, "tolist") else list(values)


def _ordered(labels: set[Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(labels))
    except TypeError:
        return tuple(sorted(labels, key=lambda label: (type(label).__name__, str(label))))


def _said(terms: Terms) -> str:
    shown = ", ".join(repr(label) for label in terms.classes[:5]) or "values"
    return f"{shown}{' with probabilities' if terms.probable else ''}"
