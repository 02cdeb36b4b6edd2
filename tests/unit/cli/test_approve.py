"""Wrong combinations of ``airflow-mlops promote``'s words, before any server is asked."""

from __future__ import annotations

import pytest

from airflow_mlops.cli import build_parser, main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["4", "--reason", "x"], "--approve", id="nothing to do"),
        pytest.param(["--approve", "--candidate", "abc", "--reason", "x"], "goes with --override", id="a gate run"),
        pytest.param(["--reject", "--candidate", "abc", "--reason", "x"], "goes with --override", id="reject a run"),
        pytest.param(["4", "--approve", "--reason", "x"], "MLFLOW_TRACKING_URI", id="no server"),
    ],
)
def test_wrong_words_are_told_with_their_mend(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert main(["promote", "flights", *words]) == 2

    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--approve", "--reject", "--reason", "x"], id="yes and no"),
        pytest.param(["--approve", "--override", "--reason", "x"], id="approve and override"),
        pytest.param(["4", "--approve"], id="no reason"),
        pytest.param(["four", "--approve", "--reason", "x"], id="a version is a number"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["promote", "flights", *words])

    assert stopped.value.code == 2
    assert "usage: airflow-mlops promote" in capsys.readouterr().err
