"""What of a drift verdict fits into XCom, and its page."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow
import pytest

from airflow_mlops.core.drift_page import bars_of, drift_page
from airflow_mlops.core.monitoring_records import ColumnDrift, DriftReport, SchemaFinding, ServedModel
from airflow_mlops.engines.profile import build_profile
from airflow_mlops.spec.monitoring import DriftSpec
from airflow_mlops.steps.drift_evidence import fitted
from tests.support.candidates import month


def drift(name: str, value: float | None, **other: Any) -> ColumnDrift:
    fields: dict[str, Any] = {"kind": "numeric", "method": "psi", "threshold": 0.25, "sentence": f"{name} it is."}
    return ColumnDrift(column=name, value=value, drifted=(value or 0) >= 0.25, **{**fields, **other})


def report(**other: Any) -> DriftReport:
    fields: dict[str, Any] = {
        "verdict": "drift", "sentence": "It drifted.", "window": month(7), "reference": "a profile", "row_count": 9,
        "compared_count": 1, "drifted_count": 1, "share": 1.0, "dataset_digest": "d" * 64,
    }  # fmt: skip
    return DriftReport(**{**fields, **other})


@pytest.mark.parametrize("letter", ["x", "ü", "\N{OPEN BOOK}"])
def test_a_report_fits_whatever_its_columns_are_called(letter: str) -> None:
    many = tuple(drift(letter * 900 + str(number), 1.0) for number in range(500))
    findings = tuple(
        SchemaFinding(kind="extra_column", column=letter * 900, sentence=letter * 2000) for _ in range(300)
    )
    model = ServedModel(
        name="flights",
        version=1,
        model_uri="models:/m",
        artifact_uri="a",
        features=tuple(f"{letter}{n}" for n in range(500)),
    )

    found = fitted(
        report(columns=many, findings=findings, notes=("n" * 9000,) * 40, model=model, sentence=letter * 9000)
    )

    assert len(json.dumps(found.to_xcom())) <= 16_000
    assert found.columns
    assert found.findings
    assert found.columns[0].column.endswith("…")
    assert found.drifted_count == 1


def test_a_small_report_stays_whole() -> None:
    small = report(columns=(drift("a", 1.0), drift("b", None)), notes=("a note",))

    assert fitted(small) == small


@pytest.fixture(scope="module")
def profiles() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    table = pyarrow.table(
        {
            "x": rng.normal(size=2000),
            "when": pyarrow.array(rng.integers(1_000_000, 2_000_000, 2000), pyarrow.timestamp("s")),
            "carrier": rng.choice([f"c{number}<b>" for number in range(20)], 2000),
            "hour": rng.integers(0, 24, 2000),
            "gap": pyarrow.array([None, 1.0] * 1000),
            "none": pyarrow.nulls(2000, pyarrow.float64()),
        }
    )
    return build_profile(table), build_profile(table.slice(0, 1000))


def test_bars_hold_every_row_once(profiles: tuple[dict[str, Any], dict[str, Any]]) -> None:
    before = profiles[0]
    for name, bars in (("x", 34), ("when", 34), ("carrier", 13), ("gap", 2), ("hour", 24)):
        column = before["columns"][name]
        found = bars_of(column, column, 2000, 2000)
        assert len(found) == bars, name
        assert sum(left for _, left, _ in found) == pytest.approx(1.0)
        assert all(left == right for _, left, right in found)
    hours = before["columns"]["hour"]
    assert [label for label, _, _ in bars_of(hours, hours, 2000, 2000)] == [str(number) for number in range(24)]
    assert bars_of(before["columns"]["none"], before["columns"]["none"], 2000, 2000) == []
    assert bars_of(before["columns"]["x"], before["columns"]["x"], 2000, 0) == []
    # Counted on another grid, the two cannot be drawn together.
    assert bars_of(before["columns"]["x"], profiles[1]["columns"]["x"], 2000, 1000) == []


def test_the_page_is_harmless_and_says_what_is_left_out(profiles: tuple[dict[str, Any], dict[str, Any]]) -> None:
    columns = [drift("<script>alert(1)</script>", 2.0), drift("carrier", 0.00001, error=0.0), drift("none", None)]
    columns += [drift(f"c{number}", 0.0) for number in range(400)]
    findings = [SchemaFinding(kind="extra_column", column="<i>", sentence="It is <new>.")]
    prediction = drift("prediction", 1.0, sentence="It moved.")
    predicted = build_profile(pyarrow.table({"prediction": [0.1, 0.5]}))

    page = drift_page(
        report(columns=tuple(columns[:1]), prediction=prediction, notes=("<note>",)),
        columns,
        findings,
        reference=profiles[0],
        current=profiles[0],
        predictions=(predicted, predicted),
        evidently="http://mlflow/#/x&y",
    )

    assert "<script" not in page
    assert "<note>" not in page
    assert "103 more are in drift.json" in page
    assert page.count("<svg") == 2
    assert page.index("prediction (psi 1.0000)") < page.index("carrier (psi 1e-05)")
    assert "exact" in page
    assert 'href="http://mlflow/#/x&amp;y"' in page
    assert len(page) < 400_000


def test_evidently_chooses_where_no_method_is_named() -> None:
    asked = DriftSpec.model_validate({"engine": "evidently", "categorical": {"method": "psi"}, "prediction": None})

    assert (asked.numeric.method, asked.categorical.method, asked.prediction) == ("auto", "psi", None)
    assert DriftSpec.model_validate(asked.model_dump(mode="json")) == asked
    assert DriftSpec().numeric.method == "psi"
