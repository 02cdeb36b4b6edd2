"""The whole of what an evaluation found, as values: per metric and slice both models, their difference, its bootstrap.

Evidence is too large for XCom; it is the artifact ``evidence.json``, and gate rules read it. It holds no rows. A
difference is always signed so that **positive means the candidate is better**, whatever the metric's direction.
"""

from __future__ import annotations

import base64
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal

from pydantic import Field

from airflow_mlops.core.records import ChampionRef, Frozen, Record, ServingReport, Window

#: Why a value is missing: the rows' own labels (say, one class only), one model's predictions, or the metric itself.
Undefined = Literal["labels", "candidate", "champion", "metric"]


def tolerance(limit: float) -> float:
    """Return how near to ``limit`` counts as equal: replicates are kept with seven digits."""
    return 1e-6 * abs(limit)


class Replicates(Frozen):
    """The bootstrap replicates of one difference, sorted, as base64 of little-endian 32-bit floats.

    Four bytes each because a gate asks only how many lie beyond a limit; all of them, and not quantiles, because the
    limit is not known when they are drawn and Holm's first step looks far into the tail.

    :param undefined: draws in which the metric had no value (one class only, say). They are counted against whatever
        a rule wants to prove, and where counting them for it would turn the verdict, the rule is undecided.
    """

    values: str
    undefined: int = 0

    @classmethod
    def of(cls, values: Iterable[float], undefined: int = 0) -> Replicates:
        """Pack finite numbers, in any order."""
        numbers = array("f", sorted(values))
        if sys.byteorder == "big":
            numbers.byteswap()
        return cls(values=base64.b64encode(numbers.tobytes()).decode("ascii"), undefined=undefined)

    @cached_property
    def numbers(self) -> array[float]:
        """Return the replicates, smallest first."""
        numbers = array("f")
        numbers.frombytes(base64.b64decode(self.values))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    @property
    def draws(self) -> int:
        """Return how many draws were made, undefined ones included."""
        return len(self.numbers) + self.undefined

    @property
    def defined(self) -> int:
        """Return how many draws have a value."""
        return len(self.numbers)

    def reaching(self, limit: float, *, strictly: bool = False) -> int:
        """Count the replicates at or above ``limit``; ``strictly``: above it."""
        near = tolerance(limit)
        below = bisect_right(self.numbers, limit + near) if strictly else bisect_left(self.numbers, limit - near)
        return len(self.numbers) - below

    def p_of_shortfall(self, limit: float, *, strictly: bool = False, lenient: bool = False) -> float:
        """Return the one-sided p-value against "the difference reaches ``limit``". Small: it falls short.

        (1 + draws that reach it + undefined draws) / (1 + draws), so never 0.

        :param lenient: leave the undefined draws out of the numerator: the smallest p-value they could have given.
        """
        return self._p(self.reaching(limit, strictly=strictly), lenient)

    def p_of_reaching(self, limit: float, *, strictly: bool = False, lenient: bool = False) -> float:
        """Return the one-sided p-value against "the difference falls short of ``limit``". Small: it reaches it.

        (1 + draws that fall short + undefined draws) / (1 + draws), so never 0; ``lenient`` as above.
        """
        return self._p(self.defined - self.reaching(limit, strictly=strictly), lenient)

    def _p(self, against: int, lenient: bool) -> float:
        return (1 + against + (0 if lenient else self.undefined)) / (1 + self.draws)


class Measurement(Frozen):
    """One metric on one group of rows, for both models.

    :param slice: the slice's column, or None for all rows.
    :param value: the slice's value as text, or None for all rows.
    :param difference: positive where the candidate is better; None where a value is missing or there is no champion.
    :param low: lower end of the two-sided percentile interval of the difference, at the evidence's confidence.
    :param undefined: why a value is missing; ``note`` says it in words.
    """

    metric: str
    slice: str | None = None
    value: str | None = None
    rows: int
    candidate: float | None
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    replicates: Replicates | None = None
    undefined: Undefined | None = None
    note: str = ""

    @property
    def where(self) -> str:
        """Return the group in words: ``all rows`` or ``carrier B6``."""
        return "all rows" if self.slice is None else f"{self.slice} {self.value}"


class Evidence(Record, schema="evidence/1"):
    """Everything an evaluation measured. Gate rules read this and nothing else.

    :param metrics: every measured metric and whether higher is better.
    :param champion: who was compared with; None where there is no champion yet.
    :param champion_problem: why the champion could not be compared, in words; no comparison can be decided then.
    :param not_compared: why the champion was not asked though nothing is wrong with it: the candidate's window is
        older, so it cannot take the alias. The champion is then nobody's measure.
    :param measurements: all rows first, then slice by slice.
    :param draws: bootstrap draws per group; 0 without a comparable champion.
    :param serving: the candidate's serving check, added by the gate; None where none was made.
    :param confidence: two-sided level of ``low`` and ``high``; rules test one-sided at ``1 - confidence``.
    """

    task: Literal["binary", "multiclass", "regression"]
    registered_model: str
    alias: str = "champion"
    model_uri: str
    model_digest: str
    champion: ChampionRef | None
    champion_problem: str | None = None
    not_compared: str = ""
    dataset_digest: str
    window: Window | None
    rows: int
    metrics: Mapping[str, bool]
    measurements: tuple[Measurement, ...] = ()
    draws: int = Field(ge=0)
    seed: int = 0
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    notes: Mapping[str, str] = Field(default_factory=dict)
    serving: ServingReport | None = None

    @property
    def alpha(self) -> float:
        """Return the one-sided error a proof may have: ``1 - confidence``."""
        return round(1.0 - self.confidence, 12)

    @cached_property
    def _groups(self) -> dict[tuple[str, str | None], list[Measurement]]:
        groups: dict[tuple[str, str | None], list[Measurement]] = {}
        for measurement in self.measurements:
            groups.setdefault((measurement.metric, measurement.slice), []).append(measurement)
        return groups

    def overall(self, metric: str) -> Measurement | None:
        """Return ``metric`` on all rows, or None where it was not measured."""
        found = self._groups.get((metric, None))
        return found[0] if found else None

    def slices(self, metric: str, column: str) -> list[Measurement]:
        """Return ``metric`` on every value of ``column``; empty where that was not measured."""
        return self._groups.get((metric, column), [])
