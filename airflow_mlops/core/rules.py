"""The built-in gate rules, as values.

A rule reads the :class:`~airflow_mlops.core.evidence.Evidence` and answers with results, each ``pass``, ``fail`` or
``undecided`` and a sentence with both values, interval, rows and limit. A rule never raises for missing evidence: it
is undecided, and the gate holds.

**What a comparison takes as proof** is its ``evidence`` setting. All three ask whether the difference (positive: the
candidate is better) reaches a limit: ``-margin`` for "no worse than", ``by`` for "better by at least".

``harm``
    Hold only if the bootstrap proves that the difference falls short of the limit. What is not proven passes: for a
    model that is retrained often and slices that are noisy.
``safety``
    Promote only if the bootstrap proves that the difference reaches the limit. What is not proven holds: for a model
    whose mistakes are expensive. Few rows hold, too.
``point``
    The measured difference decides; the interval is only shown.

"Proves" means a one-sided p-value of at most ``1 - confidence`` (``evaluation.confidence``, 0.95 by default), from the
paired bootstrap over rows; over slices the p-values are Holm-adjusted first. The interval in a sentence is two-sided
at the same confidence, so it is the wider statement: the p-value decides. Rows are taken as independent; where they
come in clusters (flights of one day share their weather), the bootstrap is more certain than it should be.

A draw in which the metric has no value (one class only) counts neither way. Where it matters which way it had gone, or
where fewer draws have a value than a proof takes, the rule is undecided, under ``harm`` as under ``safety``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.evidence import Evidence, Measurement
from airflow_mlops.core.holm import draws_needed, holm
from airflow_mlops.core.records import RuleResult

Proof = Literal["point", "harm", "safety"]
NO_CHAMPION = "there is no champion to compare with"


class _Rule(BaseModel):
    """Base of the built-in rules: immutable, unknown settings refused, no text where a number belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rule_name: ClassVar[str]
    metric: str = Field(min_length=1)


class AtLeast(_Rule):
    """The candidate's metric on all rows is at least ``value``; exactly ``value`` passes. Needs no champion."""

    rule_name = "at_least"
    value: float

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided where the metric was not measured or has no value."""
        return _absolute(self, evidence, self.value, "at least")


class AtMost(_Rule):
    """The candidate's metric on all rows is at most ``value``; exactly ``value`` passes. Needs no champion."""

    rule_name = "at_most"
    value: float

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided where the metric was not measured or has no value."""
        return _absolute(self, evidence, self.value, "at most")


class BetterThanChampion(_Rule):
    """The candidate is better than the champion on all rows, by at least ``by``.

    With ``by: 0`` any gain is enough but a tie is not: an equal model has no reason to replace the champion. Better
    follows the metric's direction, so for log_loss it is lower. ``evidence`` is explained at the top of this module.
    Without a champion it passes, provided the candidate's own metric has a value.
    """

    rule_name = "better_than_champion"
    by: float = Field(default=0.0, ge=0)
    evidence: Proof = "point"

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided where a value is missing or the champion could not be measured."""
        return _comparison(self, evidence, limit=self.by, strictly=self.by == 0, proof=self.evidence)


class NoWorseThanChampion(_Rule):
    """The candidate is not worse than the champion on all rows by more than ``margin``. A tie passes.

    ``evidence`` must be stated; it is explained at the top of this module. Without a champion the rule passes,
    provided the candidate's own metric has a value.
    """

    rule_name = "no_worse_than_champion"
    margin: float = Field(ge=0)
    evidence: Proof

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided where a value is missing or the champion could not be measured."""
        return _comparison(self, evidence, limit=-self.margin, strictly=False, proof=self.evidence)


class SlicesNoWorse(_Rule):
    """On no value of the column ``slice`` is the candidate worse than the champion by more than ``margin``.

    Every slice of at least ``min_rows`` rows is tested, one result each; the p-values of one rule's slices are
    Holm-adjusted together. Smaller slices are named with their rows, not tested. Where no slice is large enough the
    rule is undecided, because it has tested nothing; so it is where the draws are too few to reach Holm's first
    threshold, because then nothing could be proven.

    A slice that is large enough but on which the metric has no value (AUC where only one class occurs) is undecided,
    and the gate holds: passing it would promote a model nobody measured there. The ways out are a metric that is
    defined on one class (log_loss, brier, accuracy), a larger ``min_rows``, or ``undefined: skip``, which names such
    slices and leaves them untested. ``skip`` covers what the labels cause, never a model whose predictions are broken.

    With ``safety`` Holm is stricter than "all slices are safe" alone would need; it makes each slice's own claim hold.
    """

    rule_name = "slices_no_worse"
    slice: str = Field(min_length=1)
    margin: float = Field(ge=0)
    evidence: Literal["harm", "safety"]
    min_rows: int = Field(default=100, ge=1)
    undefined: Literal["hold", "skip"] = "hold"

    def check(self, evidence: Evidence) -> list[RuleResult]:
        """Return one result per tested slice and one that says what was not tested."""
        overall = evidence.overall(self.metric)
        if overall is None:
            return [_unmeasured(self, evidence)]
        missing = _not_comparable(self, evidence, overall)
        if missing is not None:
            return [missing]
        found = evidence.slices(self.metric, self.slice)
        if not found:
            return [self._undecided(f"{self.metric} was not measured by {self.slice}; list it in evaluation.slices")]
        large = [one for one in found if one.rows >= self.min_rows]
        small = [one for one in found if one.rows < self.min_rows]
        skipped = [one for one in large if self.undefined == "skip" and one.undefined == "labels"]
        tested = [one for one in large if one not in skipped]
        with_replicates = [one for one in tested if one.replicates is not None]
        limits = self._few_draws(with_replicates, evidence)
        if limits is not None:
            return [limits]
        return [*self._test(tested, with_replicates, evidence), self._coverage(tested, small, skipped)]

    def _test(self, tested: list[Measurement], proven: list[Measurement], evidence: Evidence) -> list[RuleResult]:
        values = [_p_value(one, -self.margin, strictly=False, proof=self.evidence) for one in proven]
        lenient = [_p_value(one, -self.margin, strictly=False, proof=self.evidence, lenient=True) for one in proven]
        adjusted = {
            (one.slice, one.value): found
            for one, *found in zip(proven, values, holm(values), holm(lenient), strict=True)
        }
        results = []
        for one in tested:
            found = adjusted.get((one.slice, one.value))
            if found is None:
                results.append(
                    _result(self, one, None, f"{_values(one)}: {one.note or 'no difference could be computed'}")
                )
                continue
            results.append(
                _proof_result(
                    self,
                    one,
                    evidence,
                    -self.margin,
                    proof=self.evidence,
                    p=found[0],
                    holm_p=found[1],
                    lenient_p=found[2],
                    tests=len(proven),
                )
            )
        return results

    def _few_draws(self, proven: list[Measurement], evidence: Evidence) -> RuleResult | None:
        needed = draws_needed(len(proven), evidence.alpha) if proven else 0
        if not proven or min(one.replicates.draws for one in proven if one.replicates) >= needed:
            return None
        return self._undecided(
            f"{len(proven)} slices of {self.slice} need at least {needed:,} bootstrap draws before Holm's correction "
            f"can prove anything at {evidence.confidence:.0%}; {evidence.draws:,} were made. "
            f"Set evaluation.bootstrap_draws to {needed:,} or more (ten times that is steadier)"
        )

    def _coverage(self, tested: list[Measurement], small: list[Measurement], skipped: list[Measurement]) -> RuleResult:
        said = [f"{len(tested)} of {len(tested) + len(small) + len(skipped)} slices of {self.slice} were tested"]
        if small:
            said.append(f"not tested, under {self.min_rows:,} rows: {_named(small)}")
        if skipped:
            said.append(f"not tested, {self.metric} has no value for their labels: {_named(skipped)}")
        if not tested:
            return self._undecided(
                f"{'; '.join(said)}. So the rule has tested nothing: lower min_rows, or evaluate on more rows"
            )
        return RuleResult.of(
            True, self.rule_name, f"{self.metric} by {self.slice}: {'; '.join(said)}.", metric=self.metric
        )

    def _undecided(self, sentence: str) -> RuleResult:
        return RuleResult.undecided(
            self.rule_name, f"{self.metric} by {self.slice}: {sentence}.", metric=self.metric, slice=self.slice
        )


def number(value: float) -> str:
    """Return a metric's value as people read it: four decimals, or six significant digits where it is large."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.6g}"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{number(abs(value))}"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else number(value)


def _values(one: Measurement) -> str:
    return (
        f"{one.metric} on {one.where}: candidate {_shown(one.candidate)}, champion {_shown(one.champion)}, "
        f"{one.rows:,} rows"
    )


def _named(measurements: Sequence[Measurement], most: int = 20) -> str:
    ordered = sorted(measurements, key=lambda one: -one.rows)
    names = [f"{one.value} ({one.rows:,})" for one in ordered[:most]]
    return ", ".join(names) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _result(rule: Any, one: Measurement, passed: bool | None, sentence: str, limit: float | None = None) -> RuleResult:
    numbers = {
        "metric": one.metric,
        "slice": None if one.slice is None else one.where,
        "candidate": one.candidate,
        "champion": one.champion,
        "low": one.low,
        "high": one.high,
        "limit": limit,
        "rows": one.rows,
    }
    if passed is None:
        return RuleResult.undecided(rule.rule_name, f"{sentence}.", **numbers)
    return RuleResult.of(passed, rule.rule_name, f"{sentence}.", **numbers)


def _unmeasured(rule: Any, evidence: Evidence) -> RuleResult:
    return RuleResult.undecided(
        rule.rule_name,
        f"{rule.metric} was not measured; list it in evaluation.metrics (measured: {', '.join(evidence.metrics)}).",
        metric=rule.metric,
    )


def _absolute(rule: AtLeast | AtMost, evidence: Evidence, limit: float, words: str) -> RuleResult:
    one = evidence.overall(rule.metric)
    if one is None:
        return _unmeasured(rule, evidence)
    must = f"it must be {words} {number(limit)}"
    if one.candidate is None:
        return _result(rule, one, None, f"{one.metric} has no value on {one.rows:,} rows, {must}: {one.note}", limit)
    # A floor written as 0.8 and a metric of 0.7999999999999999 are the same number to the person who wrote it.
    near = 1e-12 * max(1.0, abs(limit))
    passed = one.candidate >= limit - near if words == "at least" else one.candidate <= limit + near
    return _result(rule, one, passed, f"{one.metric} is {number(one.candidate)} on {one.rows:,} rows; {must}", limit)


def _not_comparable(rule: Any, evidence: Evidence, one: Measurement) -> RuleResult | None:
    """Return the result of a comparison that cannot be made: there is no champion, or it is broken."""
    if evidence.champion_problem is not None:
        said = f"{_values(one)}: the champion could not be compared. {evidence.champion_problem.rstrip('.')}"
        return _result(rule, one, None, said)
    if evidence.champion is None:
        if one.candidate is None:
            return _result(rule, one, None, f"{one.metric} has no value on {one.rows:,} rows: {one.note}")
        why = "the champion's window is newer, so it is no measure" if evidence.not_compared else NO_CHAMPION
        said = f"{one.metric} is {number(one.candidate)} on {one.rows:,} rows; {why}"
        return _result(rule, one, True, said)
    return None


def _comparison(rule: Any, evidence: Evidence, *, limit: float, strictly: bool, proof: Proof) -> RuleResult:
    one = evidence.overall(rule.metric)
    if one is None:
        return _unmeasured(rule, evidence)
    missing = _not_comparable(rule, evidence, one)
    if missing is not None:
        return missing
    if one.difference is None or (proof != "point" and one.replicates is None):
        return _result(rule, one, None, f"{_values(one)}: {one.note or 'no difference could be computed'}", limit)
    if proof == "point":
        near = 1e-12 * max(1.0, abs(limit), abs(one.candidate or 0))
        passed = one.difference > limit + near if strictly else one.difference >= limit - near
        wanted = _reaching(limit, strictly)
        return _result(rule, one, passed, f"{_compared(one, evidence)}. It must be {wanted}, as measured", limit)
    needed = draws_needed(1, evidence.alpha)
    if one.replicates is not None and one.replicates.draws < needed:
        return _result(
            rule,
            one,
            None,
            f"{_compared(one, evidence)}. {one.replicates.draws:,} bootstrap draws cannot prove anything at "
            f"{evidence.confidence:.0%}: set evaluation.bootstrap_draws to {needed:,} or more",
            limit,
        )
    p = _p_value(one, limit, strictly=strictly, proof=proof)
    lenient_p = _p_value(one, limit, strictly=strictly, proof=proof, lenient=True)
    return _proof_result(rule, one, evidence, limit, strictly=strictly, proof=proof, p=p, lenient_p=lenient_p)


def _p_value(one: Measurement, limit: float, *, strictly: bool, proof: Proof, lenient: bool = False) -> float:
    if one.replicates is None:
        raise ValueError(f"{_values(one)}: there are no bootstrap replicates to test")
    if proof == "harm":
        return one.replicates.p_of_shortfall(limit, strictly=strictly, lenient=lenient)
    return one.replicates.p_of_reaching(limit, strictly=strictly, lenient=lenient)


def _proof_result(
    rule: Any,
    one: Measurement,
    evidence: Evidence,
    limit: float,
    *,
    proof: Proof,
    p: float,
    lenient_p: float,
    strictly: bool = False,
    holm_p: float | None = None,
    tests: int = 1,
) -> RuleResult:
    decisive = p if holm_p is None else holm_p
    proven = decisive <= evidence.alpha + 1e-12
    defined = one.replicates.defined if one.replicates else 0
    if defined < draws_needed(tests, evidence.alpha) or proven != (lenient_p <= evidence.alpha + 1e-12):
        return _result(rule, one, None, f"{_compared(one, evidence)}. {_without_value(rule, one)}", limit)
    passed = not proven if proof == "harm" else proven
    claim = _short_of(limit, strictly) if proof == "harm" else _reaching(limit, strictly)
    holm_words = "" if holm_p is None or tests == 1 else f", {holm_p:.4f} after Holm over {tests} slices"
    said = (
        f"{_compared(one, evidence)}. {'Proven' if proven else 'Not proven'} to be {claim} "
        f"(one-sided p {p:.4f}{holm_words}; limit {number(evidence.alpha)}, evidence: {proof})"
    )
    draws = one.replicates.draws if one.replicates else 0
    # Another seed would move p by about its own standard error: say so where that could turn the verdict.
    if draws and 0 < abs(decisive - evidence.alpha) < 2 * (decisive / p) * (p * (1 - p) / draws) ** 0.5:
        said += f". This is within the bootstrap's own noise at {draws:,} draws: more bootstrap_draws would settle it"
    return _result(rule, one, passed, said, limit)


def _without_value(rule: Any, one: Measurement) -> str:
    draws, undefined = (one.replicates.draws, one.replicates.undefined) if one.replicates else (0, 0)
    if not undefined:
        return "It could go either way with draws of other slices that have no value"
    mend = "a larger min_rows" if isinstance(rule, SlicesNoWorse) else "more evaluation rows"
    return (
        f"{one.metric} had no value in {undefined:,} of {draws:,} bootstrap draws, too many to decide: use a metric "
        f"that one class does not undo (log_loss, brier, accuracy), or {mend}"
    )


def _reaching(limit: float, strictly: bool) -> str:
    if limit > 0:
        return f"better by {number(limit)} or more"
    if strictly:
        return "better"
    return "no worse" if limit == 0 else f"at most {number(-limit)} worse"


def _short_of(limit: float, strictly: bool) -> str:
    if limit > 0:
        return f"less than {number(limit)} better"
    if strictly:
        return "no better"
    return "worse" if limit == 0 else f"worse by more than {number(-limit)}"


def _compared(one: Measurement, evidence: Evidence) -> str:
    lower = "" if evidence.metrics.get(one.metric, True) else " (lower is better)"
    difference = one.difference or 0.0
    way = "equal" if difference == 0 else "better" if difference > 0 else "worse"
    by = "" if difference == 0 else f" by {number(abs(difference))}"
    interval = (
        ""
        if one.low is None or one.high is None
        else f" ({evidence.confidence:.0%} interval {_signed(one.low)} to {_signed(one.high)})"
    )
    return (
        f"{one.metric} on {one.where}: candidate {_shown(one.candidate)}, champion {_shown(one.champion)}{lower}, "
        f"{way}{by}{interval}, {one.rows:,} rows"
    )
