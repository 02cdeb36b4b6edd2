"""The paired bootstrap over rows: both models see the same resampled rows, draw by draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from airflow_mlops.engines.predictions import Array

#: Counts held at a time (draws x rows): 12 MB, small enough that a draw's rows stay in the processor's cache.
CHUNK = 1_500_000


def group_generator(seed: int, group: str) -> np.random.Generator:
    """Return the random generator of one group of rows.

    It depends on the seed and the group's name alone, so another slice, metric or slice column changes no other
    group's draws.
    """
    words = np.frombuffer(hashlib.sha256(group.encode()).digest(), dtype="<u4")
    return np.random.default_rng([seed, *words.tolist()])


def resampled(rows: int, draws: int, generator: np.random.Generator) -> Iterator[Array]:
    """Yield how often each row was drawn, a chunk of draws at a time.

    A draw takes ``rows`` rows with replacement. The draws do not depend on the size of the chunks.

    :return: arrays of floats, shape ``(some draws, rows)``, each row summing to ``rows``.
    """
    at_once = max(1, CHUNK // max(rows, 1))
    for start in range(0, draws, at_once):
        some = min(at_once, draws - start)
        chosen = generator.integers(0, rows, size=(some, rows))
        chosen += np.arange(some)[:, None] * rows
        yield np.bincount(chosen.ravel(), minlength=some * rows).reshape(some, rows).astype(float)
