"""What a team's training function receives, and what it may return beside the bare model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainingResult:
    """A trained model with numbers and files that belong to its training.

    A function that has nothing to add returns the model alone.

    :param model: the fitted model, in the flavour that the specification names.
    :param metrics: numbers about the training itself, such as its loss; logged to the MLflow run. A value that is not
        finite is left out and named in the run's tags. The gate never reads them: it measures on other rows.
    :param artifacts: files or folders to keep, by the name they get below ``training/`` in the run's artifacts.
    """

    model: Any
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)


class TrainingFunction(Protocol):
    """The function that ``train.function`` names; ``docs/adr/0003-training-function.md`` says more."""

    def __call__(
        self,
        data: pd.DataFrame,
        target: pd.Series,
        *,
        weights: pd.Series | None,
        parameters: Mapping[str, Any],
        seed: int,
    ) -> Any:
        """Return a fitted model or a :class:`TrainingResult`.

        :param data: exactly the feature columns as stored, one row per example, index 0 to n-1. Types are plain numpy
            ones: whole numbers with a missing value are float64, text is object, timestamps are UTC without a zone.
            Feature work belongs inside the model. It may be changed in place.
        :param target: what to predict, for the same rows; nothing is missing.
        :param weights: finite and not negative, for the same rows; None where the specification names no column.
        :param parameters: a copy of ``train.parameters``.
        :param seed: ``train.seed``. Python's ``random`` and numpy's global generator are seeded with it already.
        :return: a model that gives one prediction per row, through ``predict`` (``predict_proba`` of a classifier).
        """
