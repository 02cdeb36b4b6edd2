"""The verdict: every line of the decision table, and rules of a team's own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from airflow_mlops.core import registry
from airflow_mlops.core.evidence import Evidence, Measurement, Replicates
from airflow_mlops.core.gate import build_rule, decide
from airflow_mlops.core.pages import decision_note, decision_page, evaluation_page
from airflow_mlops.core.records import ChampionRef, RuleResult
from airflow_mlops.core.rules import AtLeast, BetterThanChampion, NoWorseThanChampion, SlicesNoWorse
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import RuleSpec

FLOOR = AtLeast(metric="roc_auc", value=0.65)
HIGH_FLOOR = AtLeast(metric="roc_auc", value=0.95)
BETTER = BetterThanChampion(metric="roc_auc")
CARRIERS = SlicesNoWorse(metric="roc_auc", slice="carrier", margin=0.01, evidence="harm", min_rows=1000)


def measurement(candidate: float | None, champion: float | None, value: str | None = None, **other: Any) -> Measurement:
    difference = None if candidate is None or champion is None else candidate - champion
    fields: dict[str, Any] = {
        "metric": "roc_auc",
        "slice": "carrier" if value else None,
        "value": value,
        "rows": 4537 if value else 28119,
        "candidate": candidate,
        "champion": champion,
        "difference": difference,
        "replicates": None if difference is None else Replicates.of([difference] * 1000),
    }
    return Measurement(**{**fields, **other})


def evidence(*measurements: Measurement, **other: Any) -> Evidence:
    fields: dict[str, Any] = {
        "task": "binary",
        "registered_model": "flights",
        "model_uri": "models:/m-1",
        "model_digest": "a",
        "champion": ChampionRef(version=3, entry=5),
        "dataset_digest": "d" * 64,
        "window": {"start": "2013-05-01", "end": "2013-06-01"},
        "rows": 28119,
        "metrics": {"roc_auc": True},
        "measurements": measurements,
        "draws": 1000,
    }
    return Evidence(**{**fields, **other})


WINS = evidence(measurement(0.72, 0.71))
LOSES = evidence(measurement(0.71, 0.72))
ALONE = evidence(measurement(0.72, None), champion=None, draws=0)
BROKEN = evidence(measurement(0.99, None), champion_problem="Champion version 3 cannot be loaded: no lightgbm", draws=0)
NOTHING = evidence(measurement(None, 0.71, note="the candidate predicted NaN"))
OLDER = evidence(measurement(0.72, None), not_compared="Not compared with champion version 3: it is newer", draws=0)
SLICED = evidence(measurement(0.718, 0.710), measurement(0.707, 0.737, "B6"), measurement(0.75, 0.74, "UA"))


@pytest.mark.parametrize(
    ("found", "rules", "verdict"),
    [
        pytest.param(WINS, [FLOOR, BETTER], "promote", id="all pass against the champion"),
        pytest.param(LOSES, [FLOOR, BETTER], "hold", id="swapping the roles flips the verdict"),
        pytest.param(WINS, [HIGH_FLOOR, BETTER], "hold", id="better, but under the floor"),
        pytest.param(evidence(measurement(0.71, 0.71)), [FLOOR, BETTER], "hold", id="a tie"),
        pytest.param(ALONE, [FLOOR, BETTER], "first_model", id="no champion, floors hold"),
        pytest.param(ALONE, [HIGH_FLOOR, BETTER], "hold", id="no champion, under the floor"),
        pytest.param(NOTHING, [BETTER], "hold", id="a metric without a value"),
        pytest.param(
            evidence(measurement(None, None, note="NaN"), champion=None), [BETTER], "hold", id="not even a first model"
        ),
        pytest.param(BROKEN, [FLOOR, BETTER], "needs_attention", id="a broken champion is no win"),
        pytest.param(BROKEN, [FLOOR], "needs_attention", id="even where no rule compares"),
        pytest.param(
            BROKEN, [HIGH_FLOOR, AtLeast(metric="roc_auc", value=1.0)], "needs_attention", id="or a floor fails"
        ),
        pytest.param(SLICED, [BETTER, CARRIERS], "hold", id="better overall, worse slice"),
        pytest.param(OLDER, [FLOOR, BETTER], "promote", id="a window older than the champion's is judged by itself"),
        pytest.param(OLDER, [HIGH_FLOOR, BETTER], "hold", id="and held under the floor"),
    ],
)
def test_verdicts(found: Evidence, rules: Any, verdict: str) -> None:
    assert decide(found, rules).verdict == verdict


def test_an_older_window_says_that_it_was_not_compared() -> None:
    decision = decide(OLDER, [FLOOR, BETTER])

    assert decision.sentence.endswith("Not compared with champion version 3: it is newer.")
    assert "Not compared with champion version 3: it is newer." in evaluation_page(OLDER)
    assert decision.results[1].sentence.endswith("the champion's window is newer, so it is no measure.")


@pytest.mark.parametrize("when", ["first_model", "always"])
def test_nobody_is_asked_about_an_older_window_which_cannot_take_the_alias(when: Any) -> None:
    assert decide(OLDER, [FLOOR, BETTER], approval=when).verdict == "promote"


def test_the_worse_slice_is_the_reason_and_comes_first() -> None:
    decision = decide(SLICED, [BETTER, CARRIERS])

    assert decision.results[0].slice == "carrier B6"
    assert len(decision.reasons) == 1
    assert decision.reasons[0].startswith("roc_auc on carrier B6: candidate 0.7070, champion 0.7370, worse by 0.0300")
    assert decision.sentence.startswith(
        "Of 4 checks on 28,119 rows of [2013-05-01, 2013-06-01) 1 failed. roc_auc on carrier B6"
    )


def test_what_passes_gives_its_reasons_too() -> None:
    decision = decide(WINS, [FLOOR, BETTER])

    assert decision.sentence == (
        "All 2 checks on 28,119 rows of [2013-05-01, 2013-06-01) passed against champion version 3."
    )
    assert len(decision.reasons) == 2


def test_a_broken_champion_comes_with_the_audited_way_out() -> None:
    sentence = decide(BROKEN, [BETTER]).sentence

    assert "no lightgbm" in sentence
    assert "airflow-mlops promote flights VERSION --override --reason 'WHY'" in sentence


def test_the_way_out_names_an_alias_of_its_own() -> None:
    other = BROKEN.model_copy(update={"alias": "eu_champion"})

    assert "flights VERSION --override --alias eu_champion --reason" in decide(other, [BETTER]).sentence


@pytest.mark.parametrize("found", [WINS, LOSES, ALONE, BROKEN], ids=["promote", "hold", "first", "attention"])
def test_dry_run_keeps_the_verdict_and_says_so(found: Evidence) -> None:
    dry, real = decide(found, [BETTER], mode="dry_run"), decide(found, [BETTER])

    assert dry.verdict == real.verdict
    assert dry.sentence == f"Dry run, nothing will be promoted. {real.sentence}"


def test_a_gate_without_rules_is_an_error() -> None:
    with pytest.raises(ValueError, match="would pass every model"):
        decide(WINS, [])


class Own:
    """A team's rule."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def check(self, found: Evidence) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(RuntimeError("no such column"), "raised RuntimeError: no such column", id="it raises"),
        pytest.param([], "gave no result", id="an empty list"),
        pytest.param(None, "gave no result", id="nothing"),
        pytest.param([True], "gave no result", id="something else"),
    ],
)
def test_a_rule_that_does_not_answer_holds_and_the_others_still_count(answer: Any, said: str) -> None:
    decision = decide(WINS, [Own(answer), FLOOR])

    assert decision.verdict == "hold"
    assert said in decision.reasons[0]
    assert [result.status for result in decision.results] == ["undecided", "pass"]


def test_a_rule_may_answer_with_one_result_or_several() -> None:
    fine = RuleResult.of(True, "own", "It is fine.")

    assert len(decide(WINS, [Own(fine), Own([fine, fine])]).results) == 3


def test_a_rule_comes_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    own = EntryPoint("own", f"{__name__}:Own", "airflow_mlops.gate_rules")
    not_a_rule = EntryPoint("no_check", "builtins:dict", "airflow_mlops.gate_rules")
    monkeypatch.setattr(registry, "entry_points", lambda group: [own, not_a_rule])
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[Own.__module__])

    assert build_rule(RuleSpec.model_validate({"rule": "own", "answer": 1})).answer == 1
    with pytest.raises(InvalidSpecError, match=r"'own' has no setting 'anser'\. Did you mean 'answer'"):
        build_rule(RuleSpec.model_validate({"rule": "own", "anser": 1}))
    with pytest.raises(InvalidSpecError, match="has no check"):
        build_rule(RuleSpec.model_validate({"rule": "no_check"}))


def test_the_pages_show_verdict_figures_and_reasons_and_escape_what_comes_from_data() -> None:
    odd = evidence(measurement(0.72, 0.71), measurement(0.70, 0.71, "<b>B6</b>"), notes={"target": "2 rows < all"})
    decision = decide(odd, [BETTER, CARRIERS])

    page, table, note = decision_page(decision, odd), evaluation_page(odd), decision_note(decision)

    assert decision.verdict in page
    assert all(word in table for word in ("0.7200", "0.7100", "By carrier", "2 rows &lt; all"))
    assert "<b>B6</b>" not in page + table
    assert note.startswith(f"**{decision.verdict}**")
    assert "<script" not in page + table


def test_rules_are_loaded_without_a_heavy_library() -> None:
    code = (
        "import sys; from airflow_mlops.core.gate import build_rule, gate_rules\n"
        "[gate_rules.load(name) for name in gate_rules.names()]\n"
        "import airflow_mlops.core.pages, airflow_mlops.core.metrics\n"
        "print([m for m in ('numpy', 'pandas', 'sklearn', 'scipy', 'mlflow', 'airflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_no_worse_with_a_margin_lets_a_small_loss_through() -> None:
    assert decide(LOSES, [NoWorseThanChampion(metric="roc_auc", margin=0.02, evidence="safety")]).verdict == "promote"


CHAMPION_ITSELF = evidence(
    measurement(0.72, None), champion=ChampionRef(version=3, entry=5, is_candidate=True), draws=0
)


@pytest.mark.parametrize(
    ("found", "when", "verdict"),
    [
        pytest.param(WINS, "never", "promote", id="nobody is asked"),
        pytest.param(WINS, "first_model", "promote", id="only of a first model, and this is none"),
        pytest.param(WINS, "always", "needs_approval", id="better than the champion"),
        pytest.param(ALONE, "never", "first_model", id="a first model, nobody is asked"),
        pytest.param(ALONE, "first_model", "needs_approval", id="a first model"),
        pytest.param(ALONE, "always", "needs_approval", id="always means a first model too"),
        pytest.param(CHAMPION_ITSELF, "always", "promote", id="the champion itself was approved before"),
        pytest.param(LOSES, "always", "hold", id="nobody is asked about what a rule holds"),
        pytest.param(BROKEN, "always", "needs_attention", id="nor about what was not compared"),
    ],
)
def test_when_a_person_must_approve(found: Evidence, when: Any, verdict: str) -> None:
    assert (
        decide(
            found, [FLOOR, NoWorseThanChampion(metric="roc_auc", margin=0.0, evidence="harm")], approval=when
        ).verdict
        == verdict
    )


def test_needs_approval_says_what_passed_and_what_is_missing() -> None:
    first, better = decide(ALONE, [FLOOR], approval="first_model"), decide(WINS, [FLOOR, BETTER], approval="always")

    assert "no champion of flights yet, and all 1 checks on 28,119 rows" in first.sentence
    assert "All 2 checks on 28,119 rows" in better.sentence
    assert "champion version 3" in better.sentence
    assert first.sentence.endswith("A person must approve it before it becomes champion.")
    assert better.reasons == decide(WINS, [FLOOR, BETTER]).reasons


def test_a_dry_run_asks_nobody() -> None:
    assert decide(WINS, [FLOOR], mode="dry_run", approval="always").verdict == "promote"
