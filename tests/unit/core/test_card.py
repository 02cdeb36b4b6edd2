"""The model card: one structure in two renderings, bounded, and no text of a record is ever markup."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_mlops.core.card import NOT_RECORDED, CardFacts, model_card
from airflow_mlops.core.document import Bullets, Commands, Document, Facts, Section, Table, Text, markdown
from airflow_mlops.core.evidence import Evidence, Measurement
from airflow_mlops.core.gate import Decision
from airflow_mlops.core.lineage import Blank, Origins
from airflow_mlops.core.records import ContractFinding, DatasetVersion, RuleResult, ServingReport, ValidationReport
from tests.unit.core.test_lineage import DECISION, MODEL, decision

EVIL = "<script>alert(1)</script> [x](javascript:alert(1)) | `a` *b* \n# head"
DATASET = DatasetVersion(
    digest="e" * 64, uri="/lake", format="csv", row_count=8, file_count=1, byte_count=1, column_count=3,
    manifest_uri="runs:/r0/manifest.json",
)  # fmt: skip


def evidence(slices: int = 3, **changes: Any) -> Evidence:
    measurements = [Measurement(metric="roc_auc", rows=100, candidate=0.7)]
    measurements += [
        Measurement(metric="roc_auc", slice="carrier", value=f"C{n:04d}", rows=10, candidate=0.5 + n / 10_000)
        for n in range(slices)
    ]
    values: dict[str, Any] = {
        "task": "binary",
        "registered_model": "flights",
        "model_uri": "models:/m-1",
        "model_digest": "d",
        "champion": None,
        "dataset_digest": "f" * 64,
        "window": DECISION.window,
        "rows": 100,
        "metrics": {"roc_auc": True},
        "measurements": tuple(measurements),
        "draws": 0,
    }
    return Evidence(**{**values, **changes})


def checked(**changes: Any) -> ValidationReport:
    values: dict[str, Any] = {
        "verdict": "quarantine",
        "sentence": "The contract holds for 8 of 10 rows.",
        "dataset": DATASET,
        "raw_digest": "f" * 64,
        "contract_digest": "c" * 64,
        "expectation_count": 1,
        "row_count": 10,
        "quarantined_count": 2,
    }
    return ValidationReport(**{**values, **changes})


def both(**facts: Any) -> tuple[str, str]:
    given: dict[str, Any] = {"name": "flights", "decision": DECISION, "origins": Origins(), **facts}
    card = model_card(CardFacts(**given))
    return card.to_markdown(), card.to_html()


def test_what_is_not_recorded_is_said_and_nothing_breaks() -> None:
    text, page = both()

    assert text.startswith("# Model card: flights\n")
    assert text.count(NOT_RECORDED) > 8
    assert "Not made." in text  # the serving check, which nobody asked for
    assert "No serving check is recorded" in page


def test_both_renderings_say_the_same() -> None:
    text, page = both(version=3, origins=Origins(evidence=evidence(), training_data=checked()))

    for said in ("version 3", "8 of 10 rows", "2 of 10 training rows broke the contract", "0.7000", "carrier C0000"):
        assert said in text.replace("\\", "")
        assert said in page
    assert "airflow-mlops trace flights --version 3" in text
    assert "airflow-mlops rollback flights --reason" in page


def test_no_text_of_a_record_is_markup() -> None:
    results = (RuleResult.of(True, "own", EVIL),)
    text, page = both(
        name="flights",
        description=EVIL,
        reason=EVIL,
        task_key=EVIL,
        decision=decision({"features": (EVIL,), "feature_count": 1, "target": EVIL, "git_commit": EVIL}, sentence=EVIL),
        origins=Origins(
            gate=Decision(verdict="promote", mode="enforce", sentence=EVIL, reasons=(), results=results),
            evidence=evidence(notes={"n": EVIL}, measurements=(
                Measurement(metric="roc_auc", rows=1, candidate=0.5, note=EVIL),
                Measurement(metric="roc_auc", slice="<b>", value=EVIL, rows=1, candidate=0.5),
            )),
            training_data=checked(
                sentence=EVIL,
                findings=(ContractFinding(expectation="e", column=None, on_failure="warn", sentence=EVIL),),
                finding_count=1,
            ),
            parameters={"a<b>": EVIL},
            environment={"python": EVIL, "requirements": [EVIL]},
        ),
    )  # fmt: skip

    for rendered in (text, page):
        assert "<script" not in rendered
        assert "<b>" not in rendered
    # No live link, no heading of theirs, and every table row keeps its cells.
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", text)
    assert "\n# head" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    # Two cells of a fact, or the seven of a figure.
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {3, 8}
    assert any("alert" in line for line in rows)


def test_a_thousand_slices_give_a_short_card_with_the_worst_first() -> None:
    text, page = both(origins=Origins(evidence=evidence(slices=5000)))

    assert "roc_auc: the 5 weakest of 5000 slices by its value" in text
    assert "C0000" in text
    assert "C0005" not in text
    assert len(text) < 10_000
    assert len(page) < 15_000


def test_a_lower_is_better_metric_is_weakest_where_it_is_highest() -> None:
    text, _ = both(origins=Origins(evidence=evidence(slices=50, metrics={"roc_auc": False})))

    assert "C0049" in text
    assert "C0000" not in text
    assert "(lower is better)" in text


def test_against_a_champion_the_worst_difference_comes_first() -> None:
    measured = tuple(
        Measurement(metric="roc_auc", slice="s", value=f"v{n}", rows=1, candidate=0.9, champion=0.5, difference=n / 100)
        for n in range(-8, 8)
    )
    text, _ = both(origins=Origins(evidence=evidence(measurements=measured)))

    assert "against the champion" in text
    assert text.index("s v-8") < text.index("s v-7")
    assert "s v7" not in text


def test_long_lists_are_cut_and_counted() -> None:
    model = {"features": tuple(f"f{n}" for n in range(300)), "feature_count": 300}
    results = tuple(RuleResult.of(True, "r", f"sentence {n}") for n in range(500))
    text, page = both(
        decision=decision(model),
        origins=Origins(
            parameters={f"p{n:03d}": "1" for n in range(200)},
            environment={"libraries": {f"lib{n}": "1" for n in range(200)}},
            gate=Decision(verdict="promote", mode="enforce", sentence="s", reasons=(), results=results),
        ),
    )

    assert "and 260 more" in text
    assert "and 470 more" in text
    assert "lib39==1" in page
    assert "lib40==1" not in page
    assert len(text) < 20_000


def test_a_record_that_was_cut_says_how_many_results_there_are() -> None:
    results = (RuleResult.of(True, "r", "one"),)
    text, _ = both(decision=decision(results=results, result_count=40))

    assert "- pass: one\n- and 39 more" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"decision": decision(mode="dry_run")}, "The gate ran dry", id="dry run"),
        pytest.param({"decision": decision({"git_commit": "files:01"})}, "no known commit (files:01)", id="no commit"),
        pytest.param({"decision": decision({"git_commit": "ab+dirty"})}, "differed from its commit", id="dirty"),
        pytest.param(
            {"blanks": [Blank("code commit")]}, "registered by a person all the same: code commit", id="blank"
        ),
        pytest.param(
            {"origins": Origins(evidence=evidence(draws=200))}, "200 bootstrap draws over rows that count", id="rows"
        ),
        pytest.param({"origins": Origins(training_data=checked())}, "referenced, not copied", id="reference"),
    ],
)
def test_known_limits(changes: dict[str, Any], said: str) -> None:
    text, _ = both(**changes)

    assert said in text[text.index("## Known limits") :].replace("\\", "")


def test_the_serving_check() -> None:
    report = ServingReport(
        ok=True, sentence="It answers.", model_uri="models:/m-1", digest="d", env="installed", size_bytes=1, rows=5,
        row_milliseconds=0.25, call_milliseconds=1.25, load_seconds=2.0, peak_memory_bytes=250_000_000,
        python_version="3.11.9",
    )  # fmt: skip
    text, _ = both(origins=Origins(serving=report))

    assert "It answers." in text
    assert "0.2500 ms" in text
    assert "250 MB" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("roc_auc", "roc_auc"),
        ("_x_", r"\_x\_"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("1.5", "1.5"),
        ("a|b", r"a\|b"),
        ("a & <b>", "a &amp; &lt;b&gt;"),
        ("a\n\n# b", "a # b"),
        ("a\\|b", r"a\\\|b"),
    ],
)
def test_markdown_shows_a_text_as_it_is_written(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_a_document_of_nothing_is_still_one() -> None:
    empty = Document("t", [Section("s", [Facts([]), Table(["a"], []), Bullets([]), Text(""), Commands([])])])

    assert empty.to_markdown().startswith("# t")
    assert empty.to_html().startswith("<!doctype html>")


def test_the_models_record_is_enough_to_name_it() -> None:
    assert MODEL.digest in both()[0]
