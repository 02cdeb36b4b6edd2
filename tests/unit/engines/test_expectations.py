"""Great Expectations as we use it: outcomes instead of exceptions, sentences instead of rows, and nothing sent out."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_mlops.engines.expectations import Outcome, check_contract_names, evaluate
from airflow_mlops.engines.sentences import Observed, percent, sentence_for
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.spec.contract import load_contract

FRAME = pd.DataFrame(
    {
        "x": [1.0, 2.0, None, 40.0],
        "n": [1, 2, 2, 3],
        "s": pd.Series(["a", "b", None, "Ada Lovelace"], dtype=object),
        "t": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03", "2013-01-04"]),
    }
)


def check(kind: str, frame: pd.DataFrame = FRAME, on_failure: str = "fail", **kwargs: Any) -> Outcome:
    contract = load_contract({"expectations": [{"type": kind, "kwargs": kwargs, "on_failure": on_failure}]})
    return evaluate(frame, contract, [0])[0]


@pytest.mark.parametrize(
    ("kind", "kwargs", "status", "sentence"),
    [
        (
            "expect_column_values_to_be_between",
            {"column": "x", "min_value": 0, "max_value": 10, "mostly": 0.9},
            "fail",
            "Column 'x' is not between 0 and 10 in 1 of 3 rows with a value (33.33 %); at most 10 % may be.",
        ),
        (
            "expect_column_values_to_be_between",
            {"column": "x", "min_value": 0, "strict_max": True, "max_value": 41},
            "pass",
            "Column 'x' is not at least 0 and less than 41 in 0 of 3 rows with a value (0 %); none may be.",
        ),
        (
            "expect_column_values_to_not_be_null",
            {"column": "s"},
            "fail",
            "Column 's' is null in 1 of 4 rows (25 %); none may be.",
        ),
        (
            "expect_column_values_to_be_in_set",
            {"column": "s", "value_set": ["a", "b"]},
            "fail",
            "Column 's' is none of 'a', 'b' in 1 of 3 rows with a value (33.33 %); none may be.",
        ),
        (
            "expect_column_values_to_be_unique",
            {"column": "n"},
            "fail",
            "Column 'n' stands more than once in 2 of 4 rows (50 %); none may be.",
        ),
        (
            "expect_compound_columns_to_be_unique",
            {"column_list": ["n", "t"]},
            "pass",
            "Columns 'n', 't' stand together more than once in 0 of 4 rows (0 %); none may be.",
        ),
        (
            "expect_column_mean_to_be_between",
            {"column": "n", "min_value": 3},
            "fail",
            "The mean of column 'n' is 2; it must be at least 3.",
        ),
        (
            "expect_column_values_to_be_of_type",
            {"column": "n", "type_": "float64"},
            "fail",
            "Column 'n' has type int64; it must be float64.",
        ),
        (
            "expect_table_row_count_to_be_between",
            {"min_value": 5},
            "fail",
            "The table has 4 rows; there must be at least 5.",
        ),
        (
            "expect_column_to_exist",
            {"column": "gone"},
            "fail",
            "Column 'gone' is missing from the data.",
        ),
        (
            "expect_column_mean_to_be_between",
            {"column": "xx", "min_value": 3},
            "error",
            "Column 'xx' is missing from the data. The nearest name is 'x'.",
        ),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "y"},
            "error",
            "Column 'y' is missing from the data. It has: x, n, s, t.",
        ),
    ],
)
def test_outcomes_in_words(kind: str, kwargs: dict[str, Any], status: str, sentence: str) -> None:
    outcome = check(kind, **kwargs)

    assert (outcome.status, outcome.sentence) == (status, sentence)
    assert outcome.positions == ()


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        pytest.param("expect_column_mean_to_be_between", {"column": "s", "min_value": 1}, id="mean of text"),
        pytest.param("expect_column_values_to_be_between", {"column": "s", "min_value": 1}, id="text against numbers"),
        pytest.param("expect_column_values_to_match_regex", {"column": "s", "regex": "["}, id="a broken pattern"),
        pytest.param("unexpected_rows_expectation", {"unexpected_rows_query": "select * from {batch}"}, id="needs SQL"),
    ],
)
def test_what_raises_inside_is_an_outcome(kind: str, kwargs: dict[str, Any]) -> None:
    outcome = check(kind, **kwargs)

    assert outcome.status == "error"
    assert "could not be evaluated" in outcome.sentence
    assert "Traceback" not in outcome.sentence
    assert "Ada" not in outcome.sentence


def test_quarantine_gets_the_positions_of_its_rows() -> None:
    frame = FRAME.iloc[[3, 0, 3, 1]].reset_index(drop=True)

    assert check("expect_column_values_to_be_between", frame, "quarantine", column="x", max_value=10).positions == (
        0,
        2,
    )


def test_many_rows_in_quarantine_are_all_named() -> None:
    frame = pd.DataFrame({"x": range(5_000)})
    outcome = check("expect_column_values_to_be_between", frame, "quarantine", column="x", max_value=9)

    assert outcome.positions == tuple(range(10, 5_000))


def test_a_quarantine_without_rows_to_set_aside_could_not_be_done() -> None:
    outcome = check("expect_column_values_to_be_of_type", on_failure="quarantine", column="n", type_="float64")

    assert outcome.status == "error"
    assert "names no single rows" in outcome.sentence


@pytest.mark.parametrize(
    ("bound", "status"),
    [("2013-01-01", "pass"), ("2013-01-01T01:00:00+02:00", "pass"), ("2013-01-02T00:00:00Z", "fail")],
)
def test_bounds_of_times_are_iso_text_in_utc(bound: str, status: str) -> None:
    assert check("expect_column_values_to_be_between", column="t", min_value=bound).status == status
    assert check("expect_column_min_to_be_between", column="t", min_value=bound).status == status


@pytest.mark.parametrize(
    ("written", "error", "said"),
    [
        ({"type": "expect_nothing_of_the_kind"}, UnknownNameError, r"expectations\[0\].*has no expectation"),
        (
            {"type": "expect_column_values_to_not_be_nul"},
            UnknownNameError,
            "Did you mean 'expect_column_values_to_not_be_null'",
        ),
        (
            {
                "type": "expect_column_mean_to_be_between",
                "kwargs": {"column": "x", "min_value": 1},
                "on_failure": "quarantine",
            },
            InvalidSpecError,
            "judges single rows",
        ),
        (
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x"}},
            InvalidSpecError,
            "cannot both be None",
        ),
        (
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "x", "mostly": 2}},
            InvalidSpecError,
            "mostly",
        ),
        ({"type": "expect_column_values_to_not_be_null"}, InvalidSpecError, "column is missing"),
    ],
)
def test_what_great_expectations_does_not_know(written: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check_contract_names(load_contract({"expectations": [written]}))


def test_it_is_quiet_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        check("expect_column_values_to_not_be_null", column="s")

    assert list(tmp_path.iterdir()) == []
    assert [record for record in caplog.records if record.name.startswith("great_expectations")] == []
    assert capfd.readouterr().err == "", "no progress bar"


def test_nothing_is_sent_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: Any) -> None:
        raise AssertionError(f"a connection to {args[-1]} was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert check("expect_column_values_to_not_be_null", column="n").status == "pass"


def test_two_threads_do_not_mix_their_frames() -> None:
    found: dict[int, str] = {}

    def run(number: int) -> None:
        frame = pd.DataFrame({"x": [number] * 10})
        found[number] = check("expect_column_mean_to_be_between", frame, column="x", max_value=-1).sentence

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {n: f"The mean of column 'x' is {n}; it must be at most -1." for n in range(4)}


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.25, "25 %"),
        (1e-7, "under 0.01 %"),
        (1 - 1e-7, "over 99.99 %"),
        (0.0331, "3.31 %"),
    ],
)
def test_a_share_never_rounds_something_to_nothing(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_sentence_is_bounded_and_quotes_no_row() -> None:
    long = sentence_for(
        Observed(
            type="expect_column_distinct_values_to_be_in_set",
            kwargs={"column": "c" * 400, "value_set": list(range(1_000))},
            success=False,
            value=["Ada", "Grace"],
        )
    )

    assert len(long) <= 300
    assert "Ada" not in long
