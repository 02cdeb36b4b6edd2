"""Contracts through a real MLflow server and real Great Expectations: verdicts, quarantine, reports, no rows leaked."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops.core.records import MAX_RECORD_BYTES, DatasetVersion, ValidationReport
from airflow_mlops.errors import DataChangedError, InvalidSpecError, ModelRefusedError, UnknownNameError
from airflow_mlops.steps.base import perform
from airflow_mlops.steps.datasets import load_frame, load_manifest
from tests.support.data_steps import DataSteps, day, window, write_parquet

if TYPE_CHECKING:
    from tests.support.mlflow_server import MLflowServer

JANUARY = window("2013-01-01", "2013-02-01")
IN_RANGE = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "x", "min_value": 0, "max_value": 10},
}
NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "name"}}
#: A value that only rows hold, so that it can be looked for wherever it must not be.
SECRET_NAME = "Ada-from-row-3"
# Long enough that no path, time or run id holds it by chance.
SECRET_NUMBER = 918273645


@pytest.fixture
def steps(mlflow_server: MLflowServer) -> DataSteps:
    return DataSteps(mlflow_server.uri, f"validate-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, Any]:
    write_parquet(
        tmp_path / "lake" / "a.parquet",
        {"at": [day(n) for n in (1, 2, 3, 4)], "x": [1, 2, 99, 4], "name": ["a", None, SECRET_NAME, "d"]},
    )
    return {"uri": str(tmp_path / "lake"), "event_time": "at"}


def contract(*expectations: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"expectations": list(expectations), **settings}


def on(failure: str, expectation: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    return {**expectation, "on_failure": failure, "kwargs": {**expectation["kwargs"], **kwargs}}


@pytest.mark.parametrize(
    ("written", "verdict", "said"),
    [
        pytest.param(contract(on("fail", IN_RANGE, max_value=99)), "pass", [], id="holds"),
        pytest.param(
            contract(on("warn", IN_RANGE)),
            "warn",
            ["Column 'x' is not between 0 and 10 in 1 of 4 rows (25 %); none may be."],
            id="warns and goes on",
        ),
        pytest.param(
            contract(on("fail", NOT_NULL, mostly=0.9)),
            "fail",
            ["Column 'name' is null in 1 of 4 rows (25 %); at most 10 % may be."],
            id="nulls over the limit",
        ),
        pytest.param(contract(on("fail", NOT_NULL, mostly=0.75)), "pass", [], id="nulls on the limit pass"),
        pytest.param(
            contract(on("warn", IN_RANGE, column="y")),
            "fail",
            ["Column 'y' is missing from the data."],
            id="a missing column fails even a warning",
        ),
        pytest.param(
            contract({"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "x", "type_": "float64"}}),
            "fail",
            ["Column 'x' has type int64; it must be float64."],
            id="a changed type",
        ),
        pytest.param(
            contract(on("fail", IN_RANGE, column="name")),
            "fail",
            ["expect_column_values_to_be_between could not be evaluated on column 'name'"],
            id="a type the expectation cannot judge",
        ),
        pytest.param(
            contract(on("warn", IN_RANGE, max_value=99), min_rows=5),
            "fail",
            ["The data has 4 rows; the contract asks for at least 5."],
            id="too few rows",
        ),
    ],
)
def test_verdicts(
    written: dict[str, Any], verdict: str, said: list[str], steps: DataSteps, lake: dict[str, Any]
) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    report = steps.validate(dataset, written)

    assert report.verdict == verdict
    assert report.is_failure is (verdict == "fail")
    assert len(report.findings) == report.finding_count == len(said)
    for finding, sentence in zip(report.findings, said, strict=True):
        assert finding.sentence.startswith(sentence)
    assert report.dataset == dataset
    assert report.quarantine_uri is None


def test_an_empty_window_fails_in_words(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, window("2014-01-01", "2014-02-01"))
    report = steps.validate(dataset, contract(on("warn", NOT_NULL)))

    assert report.verdict == "fail"
    assert re.search(r"window \[2014-01-01, 2014-02-01\) .* holds no row", report.findings[0].sentence)


def test_quarantine_derives_a_dataset_and_sets_rows_aside_with_reasons(
    steps: DataSteps, lake: dict[str, Any], tmp_path: Path
) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    report = steps.validate(
        dataset,
        contract(
            on("quarantine", IN_RANGE),
            on("quarantine", NOT_NULL),
            # On the rows that go on: with the 99 the mean would be 26.5.
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "x", "max_value": 3}},
        ),
        lake,
    )

    assert (report.verdict, report.row_count, report.quarantined_count) == ("quarantine", 4, 2)
    assert [finding.unexpected_count for finding in report.findings] == [1, 1]
    derived = report.dataset
    assert (derived.row_count, derived.snapshot, derived.parent_digest) == (2, "derived", dataset.digest)
    assert report.raw_digest == dataset.digest != derived.digest
    assert derived.window == dataset.window
    with steps.work() as work:
        frame = load_frame(derived, work)
        aside = work.read_file(str(report.quarantine_uri))
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(aside).to_pydict()
    assert frame["x"].tolist() == [1, 4]
    assert rows["x"] == [2, 99]
    assert rows["_reason"] == ["expect_column_values_to_not_be_null(name)", "expect_column_values_to_be_between(x)"]


def test_quarantine_writes_to_the_folder_that_is_named(steps: DataSteps, lake: dict[str, Any], tmp_path: Path) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    data = {**lake, "copy_to": str(tmp_path / "kept")}
    report = steps.validate(dataset, contract(on("quarantine", IN_RANGE)), data)

    assert str(report.quarantine_uri).startswith(str(tmp_path / "kept" / "quarantine"))
    assert Path(str(report.quarantine_uri)).is_file()
    with steps.work() as work:
        manifest = load_manifest(report.dataset, work)
        assert manifest.root == str(tmp_path / "kept" / "accepted")
        assert load_frame(report.dataset, work, ["x"])["x"].tolist() == [1, 2, 4]


def test_the_accepted_version_depends_on_the_rows_alone(steps: DataSteps, lake: dict[str, Any], tmp_path: Path) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    first = steps.validate(dataset, contract(on("quarantine", IN_RANGE)), task="one")
    other = steps.validate(
        dataset, contract(on("quarantine", IN_RANGE), min_rows=2), {**lake, "copy_to": str(tmp_path / "to")}, task="two"
    )
    stricter = steps.validate(dataset, contract(on("quarantine", IN_RANGE, max_value=3)), task="three")

    assert first.dataset.digest == other.dataset.digest
    assert stricter.dataset.digest != first.dataset.digest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param(
            {"min_rows": 4}, "The data has 3 rows after 1 were set aside", id="minimum rows count what is left"
        ),
        pytest.param(
            {"max_quarantined_share": 0.2}, r"1 of 4 rows \(25 %\) would be set aside", id="too large a share"
        ),
    ],
)
def test_quarantine_has_limits(settings: dict[str, Any], said: str, steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    report = steps.validate(dataset, contract(on("quarantine", IN_RANGE), **settings))

    assert report.verdict == "fail"
    assert re.search(said, report.findings[0].sentence)
    assert report.dataset == dataset, "nothing goes on, so nothing is derived"


def test_every_row_in_quarantine_fails(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    report = steps.validate(dataset, contract(on("quarantine", IN_RANGE, min_value=200, max_value=300), NOT_NULL))

    assert report.verdict == "fail"
    assert "The data has 0 rows after 4 were set aside" in report.findings[0].sentence


def test_the_report_and_the_result_hold_no_row(steps: DataSteps, tmp_path: Path) -> None:
    days = [day(n) for n in (1, 2, 3, 4)]
    rows = {"at": days, "x": [1, 2, SECRET_NUMBER, 4], "name": ["a", None, SECRET_NAME, "d"]}
    write_parquet(tmp_path / "lake" / "a.parquet", rows)
    lake = {"uri": str(tmp_path / "lake"), "event_time": "at"}
    dataset = steps.snapshot(lake, JANUARY)
    in_set = {
        "type": "expect_column_values_to_be_in_set",
        "kwargs": {"column": "name", "value_set": ["a", "d"]},
        "notes": "<b>only known names</b>",
    }
    distinct = {
        "type": "expect_column_distinct_values_to_be_in_set",
        "kwargs": {"column": "name", "value_set": ["a", "d"]},
    }
    mean = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "name", "min_value": 1}}
    report = steps.validate(dataset, contract(in_set, distinct, mean, on("warn", IN_RANGE)))

    with steps.work() as work:
        page = work.read_file(str(report.report_uri)).read_text()
        result = work.read_file(f"runs:/{report.run_id}/contract_result.json").read_text()
    for text in (page, result, report.model_dump_json()):
        assert SECRET_NAME not in text
        assert str(SECRET_NUMBER) not in text
    assert "<script" not in page
    assert "&lt;b&gt;only known names&lt;/b&gt;" in page
    assert [item["status"] for item in json.loads(result)["outcomes"]] == ["fail", "fail", "error", "fail"]


def test_many_long_findings_still_fit_into_the_record(steps: DataSteps, tmp_path: Path) -> None:
    columns = {f"column_{n:03d}_{'x' * 250}": [None, 1] for n in range(60)}
    write_parquet(tmp_path / "wide.parquet", columns)
    dataset = steps.snapshot({"uri": str(tmp_path / "wide.parquet")})
    report = steps.validate(
        dataset,
        contract(*({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": name}} for name in columns)),
    )

    assert report.finding_count == 60
    assert 0 < len(report.findings) <= 20
    assert len(json.dumps(report.to_xcom())) <= MAX_RECORD_BYTES


def test_a_retry_adopts_and_an_edited_contract_checks_anew(
    steps: DataSteps, lake: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text("expectations:\n- type: expect_column_values_to_not_be_null\n  kwargs: {column: name}\n")
    dataset = steps.snapshot(lake, JANUARY)
    first = steps.validate(dataset, str(path))
    again = steps.validate(dataset, str(path))
    path.write_text(path.read_text().replace("name}", "name, mostly: 0.5}"))
    mended = steps.validate(dataset, str(path))

    assert (first.verdict, mended.verdict) == ("fail", "pass")
    assert again == first
    assert mended.run_id != first.run_id


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        pytest.param(
            "expectations:\n- type: expect_column_value_to_be_between\n",
            UnknownNameError,
            r"contract\.yaml, line 2 .*Did you mean 'expect_column_values_to_be_between'",
            id="misspelt expectation",
        ),
        pytest.param(
            "expectations:\n- type: expect_column_to_exist\n  kwargs: {column: x}\n"
            "- type: expect_column_mean_to_be_between\n  kwargs: {column: x, min_value: 1}\n  on_failure: quarantine\n",
            InvalidSpecError,
            r"line 4 .*needs an expectation that judges single rows.*Use fail or warn",
            id="quarantine of what judges no row",
        ),
        pytest.param(
            "expectations:\n- type: expect_column_values_to_be_between\n  kwargs: {colum: x, min_value: 1}\n",
            InvalidSpecError,
            "line 2 .*column is missing; colum is no argument of it",
            id="misspelt argument",
        ),
        pytest.param("min_rows: 3\n", InvalidSpecError, "line 1: expectations is missing; add it", id="nothing asked"),
    ],
)
def test_a_wrong_contract_is_named_by_file_and_line(
    text: str, error: type[Exception], said: str, steps: DataSteps, lake: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "contract.yaml").write_text(text)
    dataset = steps.snapshot(lake, JANUARY)

    with pytest.raises(error, match=said):
        steps.validate(dataset, str(tmp_path / "contract.yaml"))


def test_a_file_that_changed_since_the_snapshot_stops_the_check(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    write_parquet(Path(lake["uri"]) / "a.parquet", {"at": [day(1)], "x": [1], "name": ["z"]})

    with pytest.raises(DataChangedError, match=r"a\.parquet"):
        steps.validate(dataset, contract(NOT_NULL))


def test_a_report_whose_data_is_deleted_is_not_adopted(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    first = steps.validate(dataset, contract(on("warn", NOT_NULL)))
    with steps.work() as work:
        work.client.delete_run(dataset.manifest_uri.removeprefix("runs:/").partition("/")[0])
    again = steps.snapshot(lake, JANUARY)
    renewed = steps.validate(again, contract(on("warn", NOT_NULL)))

    assert again.digest == dataset.digest
    assert first.dataset.manifest_uri == dataset.manifest_uri
    assert renewed.dataset.manifest_uri == again.manifest_uri != dataset.manifest_uri


@pytest.mark.parametrize("failure", ["warn", "quarantine"])
def test_a_row_condition_may_be_about_a_column_that_no_argument_names(
    failure: str, steps: DataSteps, lake: dict[str, Any]
) -> None:
    only_named = on(failure, IN_RANGE, row_condition="name.notnull()", max_value=3)

    report = steps.validate(steps.snapshot(lake, JANUARY), contract(only_named))

    assert report.verdict == failure
    assert report.findings[0].sentence.startswith("Column 'x' is not between 0 and 3 in 2 of 3 rows")
    if failure == "quarantine":
        with steps.work() as work:
            assert load_frame(report.dataset, work, ["x"])["x"].tolist() == [1, 2]


TARGET_THERE = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "late"}, "on_failure": "quarantine"}
COLUMNS = {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["at", "x", "name", "late"]}}


def score(steps: DataSteps, dataset: DatasetVersion, written: Any, **settings: Any) -> ValidationReport:
    """Run the validate task of a scoring run."""
    payload = {"dataset": dataset.to_xcom(), "contract": written, "purpose": "scoring", **settings}
    record = perform(steps.request("validate", payload), steps.access)
    assert isinstance(record, ValidationReport)
    return ValidationReport.from_xcom(record.to_xcom())


def test_a_batch_to_score_needs_no_train_only_column(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    written = contract(
        on("warn", IN_RANGE),
        TARGET_THERE,
        COLUMNS,
        on("fail", IN_RANGE, row_condition="late == 1"),
        train_only=["late"],
    )

    training = steps.validate(dataset, written)
    report = score(steps, dataset, written, inputs=["x", "name"])

    assert (training.verdict, training.purpose, training.left_out_count) == ("fail", "training", 0)
    assert (report.verdict, report.purpose, report.expectation_count) == ("warn", "scoring", 2)
    assert report.left_out == (
        "expect_column_values_to_not_be_null(late)",
        "expect_column_values_to_be_between(late)",
    )
    assert report.sentence.endswith(
        "2 expectations about train-only columns were left out, because this is a batch to score."
    )
    assert report.contract_digest == training.contract_digest
    assert report.run_id != training.run_id
    with steps.work() as work:
        page = work.read_file(str(report.report_uri)).read_text()
        result = work.read_json(f"runs:/{report.run_id}/contract_result.json")
    assert "<dt>Left out</dt><dd>expect_column_values_to_not_be_null(late), " in page
    assert (result["purpose"], result["left_out"]) == ("scoring", list(report.left_out))
    assert result["contract"]["train_only"] == ["late"]


def test_a_batch_of_which_nothing_else_is_expected_must_have_its_rows(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)
    enough = score(steps, dataset, contract(TARGET_THERE, train_only=["late"], min_rows=4))
    few = score(steps, dataset, contract(TARGET_THERE, min_rows=5), target="late")

    assert (enough.verdict, enough.expectation_count) == ("pass", 0)
    assert enough.sentence.startswith("The contract holds on 4 rows of window")
    assert few.verdict == "fail"
    assert few.findings[0].sentence == "The data has 4 rows; the contract asks for at least 5."


def test_a_model_that_reads_a_train_only_column_may_not_score(steps: DataSteps, lake: dict[str, Any]) -> None:
    dataset = steps.snapshot(lake, JANUARY)

    with pytest.raises(ModelRefusedError, match="The model reads 'name', which only training has"):
        score(steps, dataset, contract(IN_RANGE, train_only=["name"]), inputs=["x", "name"])


def test_many_left_out_expectations_still_fit_into_the_record(steps: DataSteps, lake: dict[str, Any]) -> None:
    names = [f"column_{number:03d}_{'x' * 250}" for number in range(60)]
    expected = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": name}} for name in names]
    report = score(steps, steps.snapshot(lake, JANUARY), contract(*expected, train_only=names))

    assert (len(report.left_out), report.left_out_count) == (10, 60)
    assert len(json.dumps(report.to_xcom())) <= MAX_RECORD_BYTES
