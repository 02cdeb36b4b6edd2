"""What a model's predictions looked like when it was evaluated: the reference for drift of later predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.engines.profile import build_profile

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.engines.predictions import Outputs, Truth

PREDICTION_PROFILE_FILE = "prediction_profile.json"
#: The one column of the profile.
PREDICTION = "prediction"
Predicted = Literal["probability", "label", "value"]


def prediction_profile(outputs: Outputs, truth: Truth) -> dict[str, Any]:
    """Return the profile of one model's predictions, as :func:`airflow_mlops.engines.profile.build_profile` does.

    Its one column is ``prediction``; the key ``predicted`` beside the columns says what that is: ``probability`` of the
    positive class in a binary task (``label``, where the model gives none), ``label`` in a multiclass one, as text, and
    ``value`` in a regression.
    """
    import numpy as np
    import pyarrow

    predicted: Predicted = "label"
    if truth.task == "regression":
        predicted, values = "value", pyarrow.array(outputs.own, pyarrow.float64())
    elif truth.task == "binary" and outputs.probabilities is not None:
        predicted, values = "probability", pyarrow.array(outputs.probabilities, pyarrow.float64())
    else:
        if outputs.labels is None:
            raise AssertionError("a classifier's outputs have labels or probabilities")
        values = _texts(truth.classes).take(pyarrow.array(np.asarray(outputs.labels)))
    return {**build_profile(pyarrow.table({PREDICTION: values})), "predicted": predicted}


def _texts(classes: tuple[Any, ...]) -> pyarrow.StringArray:
    import pyarrow

    try:
        return as_text(pyarrow.array(classes))
    except (pyarrow.ArrowException, TypeError):  # labels of several types
        return pyarrow.array([str(label) for label in classes])


def as_text(labels: Any) -> pyarrow.StringArray:
    """Return labels as the text by which they are counted: 1 is ``1``, true is ``true``.

    :param labels: an Arrow array of any type.
    """
    import pyarrow

    if pyarrow.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    return labels.cast(pyarrow.string())
