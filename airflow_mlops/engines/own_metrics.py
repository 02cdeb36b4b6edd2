"""Metrics of the team's own: ``module:function`` called with ``(y_true, y_pred)``.

==============  =================================  ===================================================================
task            ``y_true``, shape ``(n,)``         ``y_pred``, shape ``(n,)``
==============  =================================  ===================================================================
``binary``      0 and 1; 1 is the positive class   the positive class's probability, else decision value, else label
``multiclass``  labels as they stand in the data   predicted labels, of the same kind
``regression``  the target as floats               predicted values
==============  =================================  ===================================================================

The function returns one number; higher is better unless ``evaluation.lower_is_better`` lists it. It must not keep
state between calls: the bootstrap calls it twice per draw and group of rows, so a slow one makes evaluation slow. An
error or a NaN means that the metric has no value on these rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from airflow_mlops.engines.predictions import Array, Outputs, Truth, UndefinedMetric
from airflow_mlops.engines.samplers import Sampler

#: What a team's function must look like.
EXPECTED = "def metric(y_true, y_pred): return a number"

log = logging.getLogger(__name__)


def own_truth(truth: Truth) -> Array:
    """Return what a callable gets as ``y_true``: 0 and 1 in a binary task, else the target as read."""
    if truth.task == "binary" and truth.codes is not None:
        return truth.codes
    return truth.values


def own_value(function: Callable[[Array, Array], float], truth: Truth, outputs: Outputs) -> float:
    """Call the function on the rows.

    :raises UndefinedMetric: it raised, or returned no finite number.
    """
    try:
        value = float(function(own_truth(truth), outputs.own))
    except Exception as exc:  # a team's function may raise anything; the metric then has no value and the gate holds
        log.warning("A metric of your own raised an error on %d rows.", len(truth), exc_info=True)
        raise UndefinedMetric(f"it raised {type(exc).__name__}: {exc}") from exc
    if not np.isfinite(value):
        raise UndefinedMetric(f"it returned {value}")
    return value


def own_sampler(function: Callable[[Array, Array], float], truth: Truth, outputs: Outputs) -> Sampler:
    """Return a sampler that calls the function once per draw, on the drawn rows."""
    y_true, y_pred = own_truth(truth), outputs.own
    rows = np.arange(len(truth))

    def sample(counts: Array) -> Array:
        values = np.full(len(counts), np.nan)
        for draw, count in enumerate(counts):
            chosen: Array = np.repeat(rows, count.astype(np.int64))
            try:
                values[draw] = function(y_true[chosen], y_pred[chosen])
            except Exception:  # counted as an undefined draw, which weighs against whatever a rule wants to prove
                log.debug("A metric of your own raised an error in a bootstrap draw.", exc_info=True)
        return values

    return sample
