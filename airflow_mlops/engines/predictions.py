"""What a model says of the rows, asked once, in one form for every metric and slice.

A classifier is asked for ``predict_proba``; without it for ``decision_function``; else, like a regressor, for
``predict``. Labels then follow from the same answer: in a binary task the positive class where its probability is at
least 0.5 (a decision value: above 0), in a multiclass task the class with the highest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from airflow_mlops.core.metrics import Task
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: A numpy array. Its shape stands in the docstrings, where a reader needs it.
Array: TypeAlias = Any
Answer = Literal["probabilities", "decision", "predicted"]


class UndefinedMetric(Exception):
    """A metric has no value on these rows.

    :param by_labels: True where no model could have one, because of the rows' own labels.
    """

    def __init__(self, reason: str, *, by_labels: bool = False) -> None:
        super().__init__(reason)
        self.by_labels = by_labels


@dataclass(frozen=True)
class Raw:
    """A model's answer as it came, and the classes it says it knows."""

    answer: Answer
    values: Array
    classes: tuple[Any, ...] | None


@dataclass(frozen=True)
class Truth:
    """What really happened.

    :param codes: classification: index into ``classes`` per row, shape ``(n,)``; regression: None.
    :param values: the target as read, shape ``(n,)``; regression: as floats.
    :param classes: the labels in sorted order; in a binary task the second one is the positive class.
    :param occurring: numbers of the classes that occur in all rows, whatever part of them this is.
    """

    task: Task
    values: Array
    codes: Array | None = None
    classes: tuple[Any, ...] = ()
    occurring: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Array) -> Truth:
        """Return the rows with these numbers."""
        codes = None if self.codes is None else self.codes[rows]
        return Truth(self.task, self.values[rows], codes, self.classes, self.occurring)


@dataclass(frozen=True)
class Outputs:
    """One model's predictions for ``n`` rows. What the model does not give is None.

    :param own: what a metric of the team's own gets: binary: the positive class's probability (or score), shape
        ``(n,)``; multiclass: predicted labels, as they stand in the target; regression: predicted values.
    :param scores: binary: any number that ranks, shape ``(n,)``; multiclass: decision values, ``(n, classes)``.
    :param probabilities: binary: of the positive class, ``(n,)``; multiclass: ``(n, classes)``.
    :param labels: predicted class as an index into the truth's classes, ``(n,)``.
    """

    own: Array
    scores: Array | None = None
    probabilities: Array | None = None
    labels: Array | None = None

    @property
    def unusable_rows(self) -> int:
        """Count the rows whose prediction is NaN or infinite."""
        numbers = self.probabilities if self.probabilities is not None else self.scores
        if numbers is None:
            numbers = self.own
        if numbers.dtype.kind not in "fc":
            return 0
        finite = np.isfinite(numbers)
        return int((~(finite if finite.ndim == 1 else finite.all(axis=1))).sum())

    def take(self, rows: Array) -> Outputs:
        """Return the rows with these numbers."""
        return Outputs(*(None if part is None else part[rows] for part in self._parts()))

    def _parts(self) -> tuple[Array | None, ...]:
        return self.own, self.scores, self.probabilities, self.labels


def ask(model: Any, rows: DataFrame, task: Task) -> Raw:
    """Make the one prediction pass.

    :raises ModelRefusedError: the answer does not have one entry per row.
    """
    if task != "regression" and hasattr(model, "predict_proba"):
        answer: Answer = "probabilities"
        values = np.asarray(model.predict_proba(rows))
    elif task != "regression" and hasattr(model, "decision_function"):
        answer = "decision"
        values = np.asarray(model.decision_function(rows))
    else:
        answer = "predicted"
        values = np.asarray(model.predict(rows))
    if values.ndim not in (1, 2) or len(values) != len(rows):
        raise ModelRefusedError(
            f"The model gave predictions of shape {values.shape} for {len(rows)} rows; one per row is needed."
        )
    classes = getattr(model, "classes_", None)
    return Raw(answer, values, None if classes is None or task == "regression" else tuple(_plain(classes)))


def read_truth(target: Series, task: Task, *known: Sequence[Any] | None) -> Truth:
    """Encode the target, which has no missing value.

    :param known: the classes each model says it knows (None: it does not say).
    :raises InvalidSpecError: the target does not fit the task: more than two labels in a binary one, text in a
        regression, or one single label that no model puts a name to.
    """
    if task == "regression":
        try:
            values = target.to_numpy(dtype=float)
        except (TypeError, ValueError) as exc:
            raise InvalidSpecError(f"The target {target.name!r} holds no numbers, which a regression needs.") from exc
        return Truth(task, values)
    labels = _plain(target.to_numpy())
    present = set(labels)
    if task == "binary" and len(present) > 2:
        raise InvalidSpecError(
            f"The target {target.name!r} holds {len(present)} labels ({_some(present)}), evaluation.task is binary. "
            f"Set it to multiclass, or mend the data."
        )
    classes = _ordered(present.union(*(set(one) for one in known if one is not None)))
    if task == "binary" and len(classes) == 1:
        if classes[0] not in (0, 1):
            raise InvalidSpecError(
                f"The target {target.name!r} holds only {classes[0]!r} and the model does not name its classes, so "
                f"nobody knows which label is the positive one. Evaluate on rows that hold both."
            )
        classes = (0, 1)
    number_of = {label: number for number, label in enumerate(classes)}
    codes = np.fromiter((number_of[label] for label in labels), dtype=np.int64, count=len(labels))
    return Truth(task, target.to_numpy(), codes, classes, tuple(np.unique(codes).tolist()))


def read_outputs(raw: Raw, truth: Truth) -> Outputs:
    """Bring a model's answer into the truth's terms.

    :raises ModelRefusedError: the answer cannot be understood for the task.
    """
    if truth.task == "regression":
        return Outputs(own=_column(raw.values).astype(float))
    if raw.answer == "predicted" and raw.values.ndim == 1 and _all_labels(raw.values, truth.classes):
        return _from_labels(raw.values, truth)
    if truth.task == "binary":
        return _binary(raw, truth)
    return _multiclass(raw, truth)


def _binary(raw: Raw, truth: Truth) -> Outputs:
    if len(truth.classes) > 2:
        raise ModelRefusedError(
            f"The model knows the labels {_some(raw.classes or ())}, the target {_some(truth.classes)}."
        )
    positive = _positive(raw, truth).astype(float)
    if raw.answer == "decision":
        return Outputs(own=positive, scores=positive, labels=(positive > 0).astype(np.int64))
    known = positive[np.isfinite(positive)]
    if known.size and (known.min() < 0 or known.max() > 1):
        raise ModelRefusedError(
            f"The model's {'predict' if raw.answer == 'predicted' else 'predict_proba'} gave numbers from "
            f"{known.min():.4g} to {known.max():.4g}: neither labels of the target ({_some(truth.classes)}) nor "
            f"probabilities."
        )
    return Outputs(own=positive, scores=positive, probabilities=positive, labels=(positive >= 0.5).astype(np.int64))


def _positive(raw: Raw, truth: Truth) -> Array:
    if raw.values.dtype.kind not in "fiub":
        raise ModelRefusedError(
            f"The model predicts {_some(set(_plain(raw.values.ravel()[:1000])))}, which are not the target's labels "
            f"({_some(truth.classes)})."
        )
    if raw.values.ndim == 1:
        return raw.values
    columns = raw.values.shape[1]
    classes = raw.classes if raw.classes is not None and len(raw.classes) == columns else None
    if classes is not None:
        # A model that was trained on one label only has one column; it says nothing else is possible.
        wanted = truth.classes[1]
        return raw.values[:, classes.index(wanted)] if wanted in classes else np.zeros(len(raw.values))
    if columns > 2:
        raise ModelRefusedError(f"The model gave {columns} numbers per row in a binary task; one or two are needed.")
    return raw.values[:, columns - 1]


def _multiclass(raw: Raw, truth: Truth) -> Outputs:
    columns = raw.values.shape[1] if raw.values.ndim == 2 else 0
    classes = raw.classes if raw.classes is not None else truth.classes
    if columns != len(classes) or raw.values.dtype.kind not in "fiub":
        raise ModelRefusedError(
            f"The model's answer of shape {raw.values.shape} fits neither labels nor one number for each of the "
            f"{len(classes)} classes ({_some(classes)})."
        )
    places = [truth.classes.index(label) for label in classes]
    lowest = 0.0 if raw.answer != "decision" else -np.inf
    table = np.full((len(raw.values), len(truth.classes)), lowest)
    table[:, places] = raw.values
    labels = table.argmax(axis=1)
    own = np.asarray(truth.classes, dtype=truth.values.dtype)[labels]
    if raw.answer == "decision":
        return Outputs(own=own, scores=table, labels=labels)
    return Outputs(own=own, probabilities=table, labels=labels)


def _from_labels(values: Array, truth: Truth) -> Outputs:
    number_of = {label: number for number, label in enumerate(truth.classes)}
    labels = np.fromiter((number_of[label] for label in _plain(values)), dtype=np.int64, count=len(values))
    if truth.task == "binary":
        # Labels rank too, if coarsely; scikit-learn's own scorers do the same.
        return Outputs(own=labels.astype(float), scores=labels.astype(float), labels=labels)
    return Outputs(own=values, labels=labels)


def _all_labels(values: Array, classes: Sequence[Any]) -> bool:
    return set(np.unique(values).tolist()) <= set(classes) if values.dtype.kind != "O" else set(values) <= set(classes)


def _column(values: Array) -> Array:
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise ModelRefusedError(f"A regression model must predict one number per row, not shape {values.shape}.")
    return values


def _plain(values: Any) -> list[Any]:
    """Return Python's own values, so that numpy's 1, True and 1.0 are one label."""
    return list(values.tolist()) if hasattr(values, "tolist") else list(values)


def _ordered(labels: set[Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(labels))
    except TypeError:
        return tuple(sorted(labels, key=lambda label: (type(label).__name__, str(label))))


def _some(labels: Sequence[Any] | set[Any], most: int = 5) -> str:
    shown = [repr(label) for label in _ordered(set(labels))]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
