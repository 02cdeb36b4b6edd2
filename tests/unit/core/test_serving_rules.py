"""Rules about serving: every number against its limit, and nothing decided where nobody has measured."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.gate import build_rule, decide
from airflow_mlops.core.records import ServingReport, VersionDifference
from airflow_mlops.core.serving_page import serving_page
from airflow_mlops.core.serving_rules import LatencyAtMost, ModelSizeAtMost, Servable
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.model import ModelSpec, RuleSpec


def report(**other: Any) -> ServingReport:
    fields: dict[str, Any] = {
        "ok": True,
        "sentence": "A fresh interpreter loads the model.",
        "model_uri": "models:/m-1",
        "digest": "a",
        "env": "installed",
        "python_version": "3.11.9",
        "rows": 3,
        "repeats": 20,
        "load_seconds": 1.5,
        "call_milliseconds": 6.0,
        "row_milliseconds": 2.0,
        "peak_memory_bytes": 300 * 1024 * 1024,
        "size_bytes": 2_500_000,
    }
    return ServingReport(**{**fields, **other})


def evidence(serving: ServingReport | None) -> Evidence:
    return Evidence(
        task="binary",
        registered_model="flights",
        model_uri="models:/m-1",
        model_digest="a",
        champion=None,
        dataset_digest="d",
        window=None,
        rows=100,
        metrics={},
        draws=0,
        serving=serving,
    )


STOPPED = report(
    ok=False,
    sentence="This model cannot be served: it was stopped.",
    problem="It was stopped in its first call. Make it faster.\nIts output ended:\nnoise",
    call_milliseconds=None,
    row_milliseconds=None,
)


@pytest.mark.parametrize(
    ("rule", "serving", "status"),
    [
        pytest.param(LatencyAtMost(milliseconds=2), report(), "pass", id="a row takes exactly the limit"),
        pytest.param(LatencyAtMost(milliseconds=1.9), report(), "fail", id="a row takes longer"),
        pytest.param(LatencyAtMost(milliseconds=5.9, per="row"), report(), "pass", id="the call may take longer"),
        pytest.param(LatencyAtMost(milliseconds=5.9, per="call"), report(), "fail", id="the call takes longer"),
        pytest.param(LatencyAtMost(milliseconds=6, per="call"), report(), "pass", id="the call takes the limit"),
        pytest.param(LatencyAtMost(milliseconds=1e9), None, "undecided", id="latency that nobody measured"),
        pytest.param(LatencyAtMost(milliseconds=1e9), STOPPED, "undecided", id="latency of a call that never ended"),
        pytest.param(ModelSizeAtMost(megabytes=2.5), report(), "pass", id="the files take exactly the limit"),
        pytest.param(
            ModelSizeAtMost(megabytes=2.5), report(size_bytes=2_500_001), "fail", id="the files take a byte more"
        ),
        pytest.param(
            ModelSizeAtMost(megabytes=1), report(size_bytes=1024 * 1024), "fail", id="a MiB is more than a MB"
        ),
        pytest.param(ModelSizeAtMost(megabytes=1e9), None, "undecided", id="size that nobody measured"),
        pytest.param(Servable(), report(), "pass", id="it can be served"),
        pytest.param(Servable(), STOPPED, "fail", id="it cannot be served"),
        pytest.param(Servable(), None, "undecided", id="nobody tried to serve it"),
    ],
)
def test_rule(rule: Any, serving: ServingReport | None, status: str) -> None:
    result = rule.check(evidence(serving))

    assert result.status == status
    assert result.sentence.endswith(".")
    assert "\n" not in result.sentence


def test_sentences_have_the_value_the_limit_and_what_was_measured() -> None:
    slow = LatencyAtMost(milliseconds=1.5).check(evidence(report()))
    large = ModelSizeAtMost(megabytes=2).check(evidence(report()))

    assert slow.sentence == (
        "Latency per row is 2.0000 ms (median of 20 calls of 3 rows); it must be at most 1.5000 ms."
    )
    assert (slow.candidate, slow.limit, slow.rows) == (2.0, 1.5, 3)
    assert "2.5000 MB (2,500,000 bytes)" in large.sentence
    assert "1 MB is 1,000,000 bytes" in large.sentence


@pytest.mark.parametrize("rule", [LatencyAtMost(milliseconds=1), ModelSizeAtMost(megabytes=1)])
def test_without_a_check_the_sentence_tells_the_mend(rule: Any) -> None:
    sentence = rule.check(evidence(None)).sentence

    assert "serving.check" in sentence
    assert "`serving`" in sentence


def test_a_model_that_cannot_be_served_is_held_with_its_reason() -> None:
    decision = decide(evidence(STOPPED), [ModelSizeAtMost(megabytes=100), Servable()])

    assert decision.verdict == "hold"
    assert "It was stopped in its first call" in decision.sentence
    assert "noise" not in decision.sentence


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param({"rule": "latency_at_most"}, "milliseconds", id="no limit"),
        pytest.param({"rule": "latency_at_most", "milliseconds": 0}, "greater than 0", id="a limit of nothing"),
        pytest.param({"rule": "latency_at_most", "milliseconds": "5"}, "valid number", id="text"),
        pytest.param({"rule": "latency_at_most", "milliseconds": 5, "per": "batch"}, "'row' or 'call'", id="per what"),
        pytest.param({"rule": "latency_at_most", "millisecond": 5}, "Did you mean 'milliseconds'", id="misspelt"),
        pytest.param({"rule": "model_size_at_most", "megabytes": -1}, "greater than 0", id="less than nothing"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSpecError, match=told):
        build_rule(RuleSpec(**settings))


@pytest.mark.parametrize("rule", [{"rule": "latency_at_most", "milliseconds": 5}, {"rule": "model_size_at_most"}])
def test_a_specification_that_asks_for_what_it_switches_off_is_refused(rule: dict[str, Any]) -> None:
    written: dict[str, Any] = {
        "name": "flights",
        "data": {"uri": "rows.parquet", "event_time": "at"},
        "contract": {"path": "contract.yaml"},
        "train": {"function": "team:train", "target": "y", "window": {"length": "1 month"}},
        "evaluation": {"task": "binary", "metrics": ["roc_auc"]},
        "gate": {"rules": [{"rule": "at_least", "metric": "roc_auc", "value": 0.5}, rule]},
    }

    ModelSpec(**written)
    with pytest.raises(ValueError, match=rf"gate\.rules\[1\] \({rule['rule']}\).*serving\.check is false"):
        ModelSpec(**written, serving={"check": False})


def test_the_page_shows_every_difference_and_reads_nothing_as_markup() -> None:
    differences = [VersionDifference(name=f"lib-{n}", recorded="1", installed=None) for n in range(80)]

    page = serving_page(
        report(ok=False, problem="It raised <b>."), differences, output="<script>", traceback="Traceback <x>"
    )

    assert all(f'<td class="">lib-{n}</td>' in page for n in range(80))
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "It raised &lt;b&gt;." in page
    assert "Traceback &lt;x&gt;" in page
