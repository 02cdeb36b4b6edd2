"""Bootstrap replicates of a metric by weighted sums or one sort, instead of calling the metric for every draw.

A sampler is made once for some rows; it then takes how often each draw took each row, shape ``(draws, rows)``, and
gives the metric of every draw, NaN where it has no value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from airflow_mlops.engines.predictions import Array

#: Counts per draw and row, shape (draws, rows), to one value per draw; NaN where the metric has none.
Sampler = Callable[[Array], Array]
#: Sums per draw, shape (draws, k + 1) with the number of rows last, to one value per draw.
Finish = Callable[[Array], Array]


def sums(terms: Array, finish: Finish) -> Sampler:
    """Return the sampler of a metric that is a function of sums over rows.

    :param terms: per row, shape ``(n, k)``.
    """
    table = np.column_stack([terms, np.ones(len(terms))]).astype(float)
    return lambda counts: finish(counts @ table)


def ratio(upper: Array, lower: Array) -> Array:
    """Divide, giving NaN for a division by 0."""
    return np.divide(upper, lower, out=np.full(np.shape(upper), np.nan), where=lower != 0)


def mean(sums: Array) -> Array:
    """Finish a mean over rows; one term."""
    return sums[:, 0] / sums[:, -1]


def root_mean(sums: Array) -> Array:
    """Finish a root mean square; one term, the square."""
    return np.sqrt(mean(sums))


def precision(sums: Array) -> Array:
    """Finish precision from the four cells of a confusion; NaN where nothing is predicted positive."""
    tp, fp, _, _, _ = sums.T
    return ratio(tp, tp + fp)


def recall(sums: Array) -> Array:
    """Finish recall from the four cells; NaN where nothing is positive."""
    tp, _, _, fn, _ = sums.T
    return ratio(tp, tp + fn)


def f1(sums: Array) -> Array:
    """Finish F1 from the four cells; NaN where nothing is, or is predicted, positive."""
    tp, fp, _, fn, _ = sums.T
    return ratio(2 * tp, 2 * tp + fp + fn)


def balanced(sums: Array) -> Array:
    """Finish balanced accuracy from the four cells; NaN where one class is absent."""
    tp, fp, tn, fn, _ = sums.T
    return (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2


def matthews(sums: Array) -> Array:
    """Finish Matthews' correlation from the four cells; NaN for one class, 0 for one prediction."""
    tp, fp, tn, fn, _ = sums.T
    one_class = (tp + fn == 0) | (tn + fp == 0)
    lower = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    value = np.divide(tp * tn - fp * fn, lower, out=np.zeros(len(sums)), where=lower > 0)
    return np.where(one_class, np.nan, value)


def macro(score: Callable[[Array, Array, Array], Array]) -> Finish:
    """Average a score over the classes that occur in truth or prediction, as scikit-learn does; 0 where it is 0/0.

    :param score: (hits, rows of the class, rows said to be of it), each ``(draws, classes)``, to a score per class.
    """

    def finish(sums: Array) -> Array:
        hit, real, said = np.split(sums[:, :-1], 3, axis=1)
        occurs = (real + said) > 0
        values = np.nan_to_num(score(hit, real, said), nan=0.0)
        return ratio((values * occurs).sum(axis=1), occurs.sum(axis=1).astype(float))

    return finish


def balanced_classes(sums: Array) -> Array:
    """Finish balanced accuracy over several classes: mean recall of those that occur; NaN where only one does."""
    hit, real, _ = np.split(sums[:, :-1], 3, axis=1)
    occurs = real > 0
    recalls = np.nan_to_num(ratio(hit, real), nan=0.0)
    return np.where(occurs.sum(axis=1) > 1, recalls.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1), np.nan)


def r2(sums: Array) -> Array:
    """Finish R squared; terms: squared error, centred target, its square. NaN where the target does not vary."""
    squares, total, total_squares, rows = sums.T
    spread = total_squares - total**2 / rows
    return 1 - ratio(squares, np.where(spread > 1e-12 * total_squares, spread, 0.0))


def auc_sampler(positive: Array, scores: Array) -> Sampler:
    """Return a sampler of the area under the ROC curve, ties counted half.

    AUC is the share of (positive, negative) pairs that are ordered rightly. With C the running weight of the negatives
    by rising score, a positive whose score lies above the first ``a`` negatives and level with those up to ``b`` adds
    its own weight times (C[a] + C[b]) / 2.

    :param positive: shape ``(n,)``, bool.
    :param scores: shape ``(n,)``, finite.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    positives = np.flatnonzero(positive)
    # By rising score, so that both lookups below walk through memory in order.
    positives = positives[np.argsort(scores[positives], kind="stable")]
    above = np.searchsorted(scores[negatives], scores[positives], side="left")
    level = np.searchsorted(scores[negatives], scores[positives], side="right")
    tied = bool((above != level).any())

    def sample(counts: Array) -> Array:
        running = np.zeros((len(counts), len(negatives) + 1))
        np.cumsum(np.take(counts, negatives, axis=1), axis=1, out=running[:, 1:])
        ours = np.take(counts, positives, axis=1)
        below = np.take(running, above, axis=1)
        if tied:
            below += np.take(running, level, axis=1)
            below /= 2
        return ratio(np.einsum("ij,ij->i", ours, below), ours.sum(axis=1) * running[:, -1])

    return sample


def average_precision_sampler(positive: Array, scores: Array) -> Sampler:
    """Return a sampler of average precision: precision at each distinct score, weighted by the recall it adds."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    yes = positive[order].astype(float)

    def sample(counts: Array) -> Array:
        weights = np.take(counts, order, axis=1)
        found = np.take(np.cumsum(weights * yes, axis=1), ends, axis=1)
        seen = np.take(np.cumsum(weights, axis=1), ends, axis=1)
        added = np.diff(found, axis=1, prepend=0)
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        return ratio((added * precision).sum(axis=1), found[:, -1])

    return sample


def median_sampler(sizes: Array) -> Sampler:
    """Return a sampler of the median; the two middle rows are averaged where their number is even."""
    order = np.argsort(sizes, kind="stable")
    ranked = sizes[order]

    def sample(counts: Array) -> Array:
        running = np.cumsum(np.take(counts, order, axis=1), axis=1)
        rows = running[:, -1:]
        low = (running > (rows - 1) // 2).argmax(axis=1)
        high = (running > rows // 2).argmax(axis=1)
        return (ranked[low] + ranked[high]) / 2

    return sample
