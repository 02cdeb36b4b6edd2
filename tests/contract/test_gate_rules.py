"""What every gate rule owes, the plug-in's as the built-in ones."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from airflow_mlops.core.evidence import Evidence, Measurement, Replicates
from airflow_mlops.core.gate import build_rule, check_rules, decide, gate_rules
from airflow_mlops.core.records import ChampionRef, RuleResult, ServingReport
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.spec.model import RuleSpec
from tests.unit.test_light_parsing import HEAVY

pytestmark = pytest.mark.usefixtures("plugin")

#: Settings with which a rule can be built, all of them needed unless stated. A new rule adds its line here.
RULES: dict[str, dict[str, Any]] = {
    "at_least": {"metric": "roc_auc", "value": 0.6},
    "at_most": {"metric": "log_loss", "value": 0.6},
    "better_than_champion": {"metric": "roc_auc"},
    "no_worse_than_champion": {"metric": "roc_auc", "margin": 0.01, "evidence": "harm"},
    "slices_no_worse": {"metric": "roc_auc", "slice": "carrier", "margin": 0.01, "evidence": "safety"},
    "latency_at_most": {"milliseconds": 50},
    "model_size_at_most": {"megabytes": 10},
    "enough_rows": {"metric": "roc_auc", "rows": 100},
}


@pytest.fixture(params=RULES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def spec(name: str, **settings: Any) -> RuleSpec:
    return RuleSpec(rule=name, **{**RULES[name], **settings})


def evidence(*measurements: Measurement, champion: ChampionRef | None = None, **other: Any) -> Evidence:
    fields: dict[str, Any] = {
        "task": "binary",
        "registered_model": "flights",
        "model_uri": "models:/m-1",
        "model_digest": "a",
        "champion": champion,
        "dataset_digest": "d" * 64,
        "window": {"start": "2013-05-01", "end": "2013-06-01"},
        "rows": 5000,
        "metrics": {"roc_auc": True, "log_loss": False},
        "measurements": measurements,
        "draws": 1000 if champion else 0,
    }
    return Evidence(**{**fields, **other})


def measured(metric: str, candidate: float | None, champion: float | None = None, **other: Any) -> Measurement:
    difference = None if candidate is None or champion is None else candidate - champion
    replicates = None if difference is None else Replicates.of([difference] * 1000)
    return Measurement(
        metric=metric,
        rows=5000,
        candidate=candidate,
        champion=champion,
        difference=difference,
        replicates=replicates,
        **other,
    )


CHAMPION = ChampionRef(version=3, entry=5)
UNDEFINED = [measured(metric, None, undefined="labels", note="one class only") for metric in ("roc_auc", "log_loss")]
BOTH = [
    measured("roc_auc", 0.75, 0.7),
    measured("log_loss", 0.4, 0.5),
    measured("roc_auc", 0.75, 0.7, slice="carrier", value="B6"),
]
SERVED = ServingReport(
    ok=True,
    sentence="The model answered.",
    model_uri="models:/m-1",
    digest="a",
    env="installed",
    rows=5,
    repeats=20,
    load_seconds=1.0,
    call_milliseconds=5.0,
    row_milliseconds=1.0,
    size_bytes=1000,
)
SITUATIONS = {
    "nothing was measured": evidence(metrics={}),
    "nothing has a value": evidence(*UNDEFINED),
    "no champion": evidence(measured("roc_auc", 0.75), measured("log_loss", 0.4)),
    "a champion, and nothing has a value": evidence(*UNDEFINED, champion=CHAMPION),
    "a champion that could not be compared": evidence(
        measured("roc_auc", 0.75), champion=CHAMPION, champion_problem="it does not load"
    ),
    "a model that was not served": evidence(*BOTH, champion=CHAMPION),
    "everything, and all of it good": evidence(*BOTH, champion=CHAMPION, serving=SERVED),
}


def results_of(rule: Any, found: Evidence) -> list[RuleResult]:
    answer = rule.check(found)
    return [answer] if isinstance(answer, RuleResult) else list(answer)


def test_every_registered_rule_is_tested_here() -> None:
    assert sorted(RULES) == gate_rules.names()


def test_a_rule_is_built_from_what_json_can_say(name: str) -> None:
    settings = json.loads(json.dumps(RULES[name]))

    assert build_rule(RuleSpec(rule=name, **settings))


def test_a_misspelt_rule_is_told_with_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"gate\.rules\[1\].*Did you mean '{name}'.*airflow_mlops\.gate_rules"):
        check_rules([spec("at_least"), RuleSpec(rule=f"{name}x")])


def test_an_unknown_setting_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(InvalidSpecError, match=f"'{name}' has no setting 'no_such'.*{next(iter(RULES[name]))}"):
        build_rule(spec(name, no_such=1))


def test_a_missing_setting_is_told(name: str) -> None:
    missing = next(iter(RULES[name]))
    settings = {key: value for key, value in RULES[name].items() if key != missing}

    with pytest.raises(InvalidSpecError, match=f"'{name}'.*{missing}"):
        build_rule(RuleSpec(rule=name, **settings))


def test_a_setting_of_the_wrong_type_is_told(name: str) -> None:
    for setting, value in RULES[name].items():
        if not isinstance(value, str):
            with pytest.raises(InvalidSpecError, match=f"'{name}'.*{setting}"):
                build_rule(spec(name, **{setting: "much"}))


@pytest.mark.parametrize("found", SITUATIONS.values(), ids=SITUATIONS)
def test_a_rule_answers_with_results_whatever_is_missing(name: str, found: Evidence) -> None:
    results = results_of(build_rule(spec(name)), found)

    assert results
    for result in results:
        assert isinstance(result, RuleResult)
        assert result.rule == name
        assert result.status in ("pass", "fail", "undecided")
        assert len(result.sentence) > 20
        json.dumps(result.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize("situation", ["nothing was measured", "nothing has a value"])
def test_missing_evidence_never_passes(name: str, situation: str) -> None:
    """Without a single value there is nothing a rule could let a candidate through by."""
    found = SITUATIONS[situation]

    assert {result.status for result in results_of(build_rule(spec(name)), found)} == {"undecided"}
    assert decide(found, [build_rule(spec(name))]).verdict == "hold"


def test_a_good_candidate_passes(name: str) -> None:
    found = SITUATIONS["everything, and all of it good"]

    assert {result.status for result in results_of(build_rule(spec(name)), found)} == {"pass"}
    assert decide(found, [build_rule(spec(name))]).verdict == "promote"


def test_a_rule_answers_the_same_twice_and_leaves_the_evidence_alone(name: str) -> None:
    found = evidence(*BOTH, champion=CHAMPION)
    before = found.model_dump(mode="json")
    rule = build_rule(spec(name))

    assert results_of(rule, found) == results_of(rule, found)
    assert found.model_dump(mode="json") == before


def test_building_every_rule_loads_no_heavy_library() -> None:
    """Rules are built while a DAG file is parsed."""
    code = (
        "import json, sys\n"
        "from airflow_mlops.core.gate import build_rule\n"
        "from airflow_mlops.spec.model import RuleSpec\n"
        "for name, settings in json.loads(sys.argv[1]).items():\n"
        "    build_rule(RuleSpec(rule=name, **settings))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(RULES)], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.split())

    assert {"acme_mlops.gate_rules", "airflow_mlops.core.rules"} <= loaded
    assert not [module for module in loaded if module.split(".")[0] in HEAVY]
