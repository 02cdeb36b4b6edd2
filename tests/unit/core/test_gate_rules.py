"""Each rule on its edges: floors, ties, directions, missing values, slices, too few draws."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.evidence import Evidence, Measurement, Replicates
from airflow_mlops.core.gate import build_rule, check_rules, decide
from airflow_mlops.core.records import ChampionRef, RuleResult
from airflow_mlops.core.rules import AtLeast, AtMost, BetterThanChampion, NoWorseThanChampion, SlicesNoWorse
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.spec.model import RuleSpec

CHAMPION = ChampionRef(version=3, entry=5)


def spread(centre: float, width: float = 0.004, draws: int = 1000) -> Replicates:
    """Return draws spread evenly over ``centre`` plus and minus ``width``."""
    return Replicates.of([centre + width * (2 * (i + 0.5) / draws - 1) for i in range(draws)])


def one(
    difference: float | None = 0.0,
    *,
    metric: str = "roc_auc",
    value: str | None = None,
    rows: int = 5000,
    replicates: Replicates | None = None,
    **other: Any,
) -> Measurement:
    base = 0.7
    fields: dict[str, Any] = {
        "metric": metric,
        "slice": "carrier" if value else None,
        "value": value,
        "rows": rows,
        "candidate": None if difference is None else base + difference,
        "champion": base,
        "difference": difference,
        "replicates": replicates or (None if difference is None else spread(difference)),
    }
    return Measurement(**{**fields, **other})


def evidence(*measurements: Measurement, **other: Any) -> Evidence:
    fields: dict[str, Any] = {
        "task": "binary",
        "registered_model": "flights",
        "model_uri": "models:/m-1",
        "model_digest": "a",
        "champion": CHAMPION,
        "dataset_digest": "d",
        "window": None,
        "rows": 28119,
        "metrics": {"roc_auc": True, "log_loss": False},
        "measurements": measurements or (one(),),
        "draws": 1000,
    }
    return Evidence(**{**fields, **other})


def answer(rule: Any, found: Evidence) -> RuleResult:
    result = rule.check(found)
    assert isinstance(result, RuleResult)
    return result


# --- floors and ceilings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "value", "status"),
    [
        pytest.param(AtLeast(metric="roc_auc", value=0.8), 0.79, "fail", id="below the floor"),
        pytest.param(AtLeast(metric="roc_auc", value=0.8), 0.80, "pass", id="on the floor"),
        pytest.param(AtLeast(metric="roc_auc", value=0.8), 0.1 + 0.7, "pass", id="on the floor but for rounding"),
        pytest.param(AtLeast(metric="roc_auc", value=0.8), None, "undecided", id="an undefined metric never passes"),
        pytest.param(AtMost(metric="roc_auc", value=0.5), 0.51, "fail", id="above the ceiling"),
        pytest.param(AtMost(metric="roc_auc", value=0.5), 0.5, "pass", id="on the ceiling"),
        pytest.param(AtMost(metric="roc_auc", value=0.5), None, "undecided", id="undefined under a ceiling"),
    ],
)
def test_absolute_rules(rule: Any, value: float | None, status: str) -> None:
    result = answer(rule, evidence(one(candidate=value, note="one class only"), champion=None))

    assert result.status == status
    assert "5,000 rows" in result.sentence
    assert result.limit == rule.value


@pytest.mark.parametrize(
    "rule",
    [
        AtLeast(metric="f1", value=0.8),
        AtMost(metric="f1", value=0.8),
        BetterThanChampion(metric="f1"),
        NoWorseThanChampion(metric="f1", margin=0.0, evidence="harm"),
        SlicesNoWorse(metric="f1", slice="carrier", margin=0.0, evidence="harm"),
    ],
    ids=lambda rule: rule.rule_name,
)
def test_a_metric_that_was_not_measured_decides_nothing(rule: Any) -> None:
    found = rule.check(evidence())
    result = found[0] if isinstance(found, list) else found

    assert result.status == "undecided"
    assert "f1 was not measured" in result.sentence


# --- against the champion -------------------------------------------------------------------------------------------

NO_WORSE = {"metric": "roc_auc", "margin": 0.01}


@pytest.mark.parametrize(
    ("rule", "difference", "status"),
    [
        pytest.param(BetterThanChampion(metric="roc_auc"), 0.001, "pass", id="any gain"),
        pytest.param(BetterThanChampion(metric="roc_auc"), 0.0, "fail", id="a tie is not better"),
        pytest.param(BetterThanChampion(metric="roc_auc"), -0.001, "fail", id="worse"),
        pytest.param(BetterThanChampion(metric="roc_auc", by=0.02), 0.02, "pass", id="by exactly as much"),
        pytest.param(BetterThanChampion(metric="roc_auc", by=0.02), 0.019, "fail", id="by too little"),
        pytest.param(BetterThanChampion(metric="roc_auc", evidence="safety"), 0.003, "fail", id="gain, not proven"),
        pytest.param(BetterThanChampion(metric="roc_auc", evidence="safety"), 0.005, "pass", id="gain, proven"),
        pytest.param(BetterThanChampion(metric="roc_auc", evidence="harm"), -0.003, "pass", id="loss, not proven"),
        pytest.param(BetterThanChampion(metric="roc_auc", evidence="harm"), -0.005, "fail", id="loss, proven"),
        pytest.param(NoWorseThanChampion(**NO_WORSE, evidence="point"), -0.01, "pass", id="on the margin"),
        pytest.param(NoWorseThanChampion(**NO_WORSE, evidence="point"), -0.0101, "fail", id="past the margin"),
        pytest.param(NoWorseThanChampion(**NO_WORSE, evidence="harm"), -0.013, "pass", id="past, not proven"),
        pytest.param(NoWorseThanChampion(**NO_WORSE, evidence="harm"), -0.015, "fail", id="past, proven"),
        pytest.param(NoWorseThanChampion(**NO_WORSE, evidence="safety"), -0.007, "fail", id="within, not proven"),
        pytest.param(NoWorseThanChampion(**NO_WORSE, evidence="safety"), -0.005, "pass", id="within, proven"),
    ],
)
def test_comparisons(rule: Any, difference: float, status: str) -> None:
    result = answer(rule, evidence(one(difference)))

    assert result.status == status
    assert "champion 0.7000" in result.sentence
    assert (result.candidate, result.champion, result.rows) == (0.7 + difference, 0.7, 5000)


@pytest.mark.parametrize("proof", ["point", "harm", "safety"])
def test_the_same_model_again_is_no_worse_and_not_better(proof: Any) -> None:
    tie = evidence(one(0.0, replicates=Replicates.of([0.0] * 1000)))

    assert answer(NoWorseThanChampion(metric="roc_auc", margin=0.0, evidence=proof), tie).status == "pass"
    assert answer(BetterThanChampion(metric="roc_auc", evidence=proof), tie).status == "fail"


def test_lower_is_better_reads_as_better() -> None:
    loss = one(0.02, metric="log_loss", candidate=0.40, champion=0.42)

    result = answer(BetterThanChampion(metric="log_loss"), evidence(loss))

    assert result.status == "pass"
    assert "candidate 0.4000, champion 0.4200 (lower is better), better by 0.0200" in result.sentence


def test_the_sentence_has_both_values_interval_rows_limit_and_p() -> None:
    found = evidence(one(-0.0325, low=-0.0516, high=-0.0141, rows=4529))

    sentence = answer(NoWorseThanChampion(**NO_WORSE, evidence="harm"), found).sentence

    assert sentence == (
        "roc_auc on all rows: candidate 0.6675, champion 0.7000, worse by 0.0325 "
        "(95% interval -0.0516 to -0.0141), 4,529 rows. Proven to be worse by more than 0.0100 "
        "(one-sided p 0.0010; limit 0.0500, evidence: harm)."
    )


def test_a_p_value_near_the_limit_says_that_another_seed_may_turn_it() -> None:
    near = Replicates.of([-0.02] * 953 + [0.0] * 47)
    far = Replicates.of([-0.02] * 995 + [0.0] * 5)
    rule = NoWorseThanChampion(**NO_WORSE, evidence="harm")

    assert "bootstrap's own noise at 1,000 draws" in answer(rule, evidence(one(-0.02, replicates=near))).sentence
    assert "own noise" not in answer(rule, evidence(one(-0.02, replicates=far))).sentence


@pytest.mark.parametrize("proof", ["harm", "safety"])
def test_draws_that_could_prove_nothing_decide_nothing(proof: Any) -> None:
    few = evidence(one(0.0, replicates=spread(0.0, draws=100)), draws=100, confidence=0.999)

    result = answer(NoWorseThanChampion(**NO_WORSE, evidence=proof), few)

    assert result.status == "undecided"
    assert "bootstrap_draws to 999 or more" in result.sentence


def partly(difference: float, defined: int, undefined: int) -> Replicates:
    return Replicates.of([difference] * defined, undefined=undefined)


@pytest.mark.parametrize(
    ("proof", "difference", "defined", "undefined", "status"),
    [
        pytest.param("harm", -0.4, 0, 1000, "undecided", id="harm: no draw has a value"),
        pytest.param("harm", -0.4, 100, 900, "undecided", id="harm: few have one, all of them worse"),
        pytest.param("harm", -0.4, 940, 60, "undecided", id="harm: just too many without one"),
        pytest.param("harm", -0.4, 960, 40, "fail", id="harm: proven, however they had gone"),
        pytest.param("harm", 0.0, 940, 60, "pass", id="harm: not proven, however they had gone"),
        pytest.param("harm", 0.0, 18, 0, "undecided", id="harm: too few draws"),
        pytest.param("harm", 0.0, 18, 982, "undecided", id="harm: too few draws with a value"),
        pytest.param("harm", 0.0, 2, 18, "undecided", id="harm: too few, and none of the missing ones would prove it"),
        pytest.param("safety", 0.0, 940, 60, "undecided", id="safety: just too many without one"),
        pytest.param("safety", 0.0, 960, 40, "pass", id="safety: proven, however they had gone"),
        pytest.param("safety", -0.4, 940, 60, "fail", id="safety: not proven, however they had gone"),
    ],
)
def test_draws_without_a_value_count_neither_way(
    proof: Any, difference: float, defined: int, undefined: int, status: str
) -> None:
    drawn = partly(difference, defined, undefined)
    overall = evidence(one(difference, replicates=drawn))
    by_carrier = evidence(one(), one(difference, value="B6", replicates=drawn))

    result = answer(NoWorseThanChampion(**NO_WORSE, evidence=proof), overall)
    of_slice = slices(evidence=proof).check(by_carrier)[0]

    assert (result.status, of_slice.status) == (status, status)
    if status == "undecided" and undefined:
        assert f"no value in {undefined:,} of {drawn.draws:,} bootstrap draws" in result.sentence
        assert f"no value in {undefined:,} of {drawn.draws:,} bootstrap draws" in of_slice.sentence


def test_the_gate_holds_where_the_bootstrap_has_no_value() -> None:
    rule = NoWorseThanChampion(**NO_WORSE, evidence="harm")
    worse = one(-0.4, candidate=0.5, champion=0.9, replicates=partly(-0.4, 940, 60))

    assert decide(evidence(worse), [rule]).verdict == "hold"


def test_draws_of_one_slice_without_a_value_can_leave_another_open() -> None:
    p_is_3_percent = Replicates.of([-0.02] * 970 + [0.0] * 30)
    found = evidence(
        one(),
        one(-0.02, value="B6", replicates=p_is_3_percent),
        one(-0.02, value="DL", replicates=partly(-0.02, 955, 45)),
    )
    results = by_slice(slices().check(found))

    # 0.030 doubles to 0.060 unless DL's p is the smaller one, which only its missing draws could tell.
    assert {results[f"carrier {name}"].status for name in ("B6", "DL")} == {"undecided"}
    assert "draws of other slices that have no value" in results["carrier B6"].sentence


@pytest.mark.parametrize(
    "rule",
    [
        BetterThanChampion(metric="roc_auc"),
        NoWorseThanChampion(metric="roc_auc", margin=0.01, evidence="harm"),
        SlicesNoWorse(metric="roc_auc", slice="carrier", margin=0.01, evidence="harm"),
    ],
    ids=lambda rule: rule.rule_name,
)
class TestWithoutAComparison:
    def ask(self, rule: Any, found: Evidence) -> RuleResult:
        answer = rule.check(found)
        (result,) = answer if isinstance(answer, list) else [answer]
        return result

    def test_no_champion_passes_and_says_so(self, rule: Any) -> None:
        result = self.ask(rule, evidence(one(champion=None, difference=None, candidate=0.7), champion=None))

        assert result.status == "pass"
        assert "there is no champion to compare with" in result.sentence

    def test_no_champion_does_not_excuse_a_metric_without_a_value(self, rule: Any) -> None:
        result = self.ask(rule, evidence(one(None, champion=None, note="NaN on 4 rows"), champion=None))

        assert result.status == "undecided"
        assert "NaN on 4 rows" in result.sentence

    def test_a_broken_champion_decides_nothing(self, rule: Any) -> None:
        found = evidence(one(None, candidate=0.9, champion=None), champion_problem="Version 3 cannot be loaded")

        result = self.ask(rule, found)

        assert result.status == "undecided"
        assert "Version 3 cannot be loaded" in result.sentence


# --- slices ---------------------------------------------------------------------------------------------------------


def slices(**settings: Any) -> SlicesNoWorse:
    fields: dict[str, Any] = {"metric": "roc_auc", "slice": "carrier", "margin": 0.01, "evidence": "harm"}
    return SlicesNoWorse(**{**fields, "min_rows": 1000, **settings})


def may(**other: Any) -> Evidence:
    """The flights of May: better overall, B6 worse, a small carrier worse still."""
    return evidence(
        one(0.008, rows=28119),
        one(-0.030, value="B6", rows=4537, low=-0.047, high=-0.011),
        one(0.015, value="DL", rows=4200),
        one(0.035, value="UA", rows=4900),
        one(-0.200, value="HA", rows=31),
        **other,
    )


def by_slice(results: list[RuleResult]) -> dict[str | None, RuleResult]:
    return {result.slice: result for result in results}


def test_one_slice_that_is_proven_worse_fails_by_name() -> None:
    results = by_slice(slices().check(may()))

    assert {name: result.status for name, result in results.items()} == {
        "carrier B6": "fail",
        "carrier DL": "pass",
        "carrier UA": "pass",
        None: "pass",
    }
    sentence = results["carrier B6"].sentence
    assert "carrier B6: candidate 0.6700, champion 0.7000, worse by 0.0300" in sentence
    assert "4,537 rows" in sentence
    assert "0.0030 after Holm over 3 slices" in sentence


def test_a_small_slice_is_named_and_not_tested() -> None:
    coverage = by_slice(slices().check(may()))[None]

    assert coverage.sentence == (
        "roc_auc by carrier: 3 of 4 slices of carrier were tested; not tested, under 1,000 rows: HA (31)."
    )


def test_when_every_slice_is_too_small_nothing_was_tested() -> None:
    (result,) = slices(min_rows=10_000).check(may())

    assert result.status == "undecided"
    assert "the rule has tested nothing" in result.sentence


@pytest.mark.parametrize(
    ("others", "status"),
    [
        pytest.param(0, "fail", id="alone, p 0.03 is proof"),
        pytest.param(3, "pass", id="among four slices it is not"),
    ],
)
def test_holm_corrects_for_the_number_of_slices(others: int, status: str) -> None:
    p_is_3_percent = Replicates.of([-0.02] * 970 + [0.0] * 30)
    worse = one(-0.02, value="B6", replicates=p_is_3_percent)
    fine = [one(0.02, value=f"X{number}") for number in range(others)]

    assert by_slice(slices().check(evidence(one(), worse, *fine)))["carrier B6"].status == status


def test_safety_holds_a_slice_that_is_not_proven_safe() -> None:
    results = by_slice(slices(evidence="safety").check(evidence(one(), one(-0.007, value="B6"), one(0.0, value="DL"))))

    assert results["carrier B6"].status == "fail"
    assert results["carrier DL"].status == "pass"


def test_too_few_draws_for_the_number_of_slices_is_undecided_with_the_mend() -> None:
    many = [one(0.02, value=f"X{number}", replicates=spread(0.02, draws=100)) for number in range(6)]

    (result,) = slices().check(evidence(one(), *many, draws=100))

    assert result.status == "undecided"
    assert "need at least 119 bootstrap draws" in result.sentence
    assert "100 were made" in result.sentence


SINGLE = {
    "replicates": None,
    "undefined": "labels",
    "note": "roc_auc has no value because the rows hold one class only",
}


def test_a_large_slice_of_one_class_is_undecided() -> None:
    results = by_slice(slices().check(evidence(one(), one(0.0, value="DL"), one(None, value="B6", **SINGLE))))

    assert results["carrier B6"].status == "undecided"
    assert "one class only" in results["carrier B6"].sentence


def test_it_can_be_skipped_by_name() -> None:
    results = by_slice(
        slices(undefined="skip").check(evidence(one(), one(0.0, value="DL"), one(None, value="B6", **SINGLE)))
    )

    assert "carrier B6" not in results
    assert "no value for their labels: B6 (5,000)" in results[None].sentence


@pytest.mark.parametrize("whose", ["candidate", "champion", "metric"])
def test_but_never_where_a_model_is_the_reason(whose: str) -> None:
    broken = one(None, value="B6", replicates=None, undefined=whose, note=f"the {whose} predicted NaN")
    results = by_slice(slices(undefined="skip").check(evidence(one(), one(0.0, value="DL"), broken)))

    assert results["carrier B6"].status == "undecided"


def test_a_column_that_was_not_sliced_is_undecided() -> None:
    (result,) = slices(slice="origin").check(may())

    assert result.status == "undecided"
    assert "list it in evaluation.slices" in result.sentence


# --- how rules are written ------------------------------------------------------------------------------------------


def written(rule: str, **settings: Any) -> RuleSpec:
    return RuleSpec.model_validate({"rule": rule, **settings})


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        (written("at_least", metric="roc_auc", value=1), AtLeast(metric="roc_auc", value=1.0)),
        (written("at_most", metric="log_loss", value=0.5), AtMost(metric="log_loss", value=0.5)),
        (written("better_than_champion", metric="roc_auc"), BetterThanChampion(metric="roc_auc", by=0)),
        (
            written("no_worse_than_champion", metric="roc_auc", margin=0.01, evidence="safety"),
            NoWorseThanChampion(metric="roc_auc", margin=0.01, evidence="safety"),
        ),
        (
            written("slices_no_worse", metric="roc_auc", slice="carrier", margin=0.01, evidence="harm", min_rows=4000),
            SlicesNoWorse(metric="roc_auc", slice="carrier", margin=0.01, evidence="harm", min_rows=4000),
        ),
    ],
    ids=lambda value: value.rule if isinstance(value, RuleSpec) else "",
)  # fmt: skip
def test_a_rule_is_built_from_what_is_written(spec: RuleSpec, rule: Any) -> None:
    assert build_rule(spec) == rule


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        pytest.param(written("at_lest", metric="a"), UnknownNameError, "Did you mean 'at_least'", id="rule misspelled"),
        pytest.param(
            written("at_least", metric="a", floor=1),
            InvalidSpecError,
            "'at_least' has no setting 'floor'",
            id="unknown",
        ),
        pytest.param(
            written("no_worse_than_champion", metric="a", margn=0.1, evidence="harm"),
            InvalidSpecError,
            "Did you mean 'margin'",
            id="setting misspelled",
        ),
        pytest.param(
            written("no_worse_than_champion", metric="a", margin=0.1),
            InvalidSpecError,
            "setting 'evidence' is missing",
            id="a comparison must state its evidence",
        ),
        pytest.param(
            written("at_least", metric="a", value="0.7"), InvalidSpecError, "setting 'value'.*got '0.7'", id="text"
        ),
        pytest.param(
            written("at_least", metric="a", value=True),
            InvalidSpecError,
            "setting 'value'",
            id="a boolean is no number",
        ),
        pytest.param(
            written("no_worse_than_champion", metric="a", margin=-0.1, evidence="harm"),
            InvalidSpecError,
            "setting 'margin'",
            id="a negative margin",
        ),
        pytest.param(
            written("slices_no_worse", metric="a", slice="b", margin=0.1, evidence="point"),
            InvalidSpecError,
            "setting 'evidence'",
            id="slices need proof",
        ),
    ],
)
def test_a_mistake_names_rule_and_setting(spec: RuleSpec, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_rule(spec)


def test_a_mistake_among_several_rules_names_its_place() -> None:
    specs = [written("at_least", metric="a", value=0.5), written("at_least", metric="a")]

    with pytest.raises(InvalidSpecError, match=r"^gate\.rules\[1\]: Gate rule 'at_least': setting 'value' is missing"):
        check_rules(specs)
