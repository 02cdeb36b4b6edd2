"""What stands on the pages is run: Python and YAML always, shell blocks where they are marked `run`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import ROOT, Block, Desk, blocks, check_command, commands_of, pages, printed

#: Blocks that need what a test does not have; each says what.
MOST_UNTRIED = 6


PAGES = [page for page in pages() if "```" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_works(page: Path, desk: Desk) -> None:
    for block in blocks(page):
        desk.try_block(block)


def test_few_blocks_go_untried_and_each_says_why() -> None:
    untried = [block for page in pages() for block in blocks(page) if "no-run" in block.words]

    assert len(untried) <= MOST_UNTRIED, [block.place for block in untried]
    assert [block.place for block in untried if len(block.words["no-run"]) < 15] == []


def block_of(tmp_path: Path, text: str) -> list[Block]:
    page = ROOT / "docs" / "page-of-a-test.md"
    source = tmp_path / page.name
    source.write_text(text, encoding="utf-8")
    return [Block(page, one.line, one.language, one.text, one.words) for one in blocks(source)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("```python\n1 / 0\n```", "ZeroDivisionError", id="python that fails"),
        pytest.param("```yaml\ntrain: {lenght: 3}\n```", "lenght is not a key", id="a key that does not exist"),
        pytest.param("```yaml\nservices: {}\n```", "neither contract", id="yaml of somebody else"),
        pytest.param("```yaml\n- {type: expect_nothing}\n```", "no expectation", id="an expectation nobody knows"),
        pytest.param("```yaml\n- {rule: at_last, metric: roc_auc}\n```", "at_least", id="a rule nobody knows"),
        pytest.param("```console run\n$ false\n```", "exit code 1", id="a command that fails"),
        pytest.param("```console run exit=1\n$ true\n```", "exit code 0", id="a command that should fail"),
        pytest.param("```console run\n$ echo one\ntwo\n```", "did not print 'two'", id="output that is not printed"),
        pytest.param("```console\n$ airflow-mlops fly\n```", "does not take", id="a verb that does not exist"),
        pytest.param("```console\n$ make tea\n```", "no target", id="a target that does not exist"),
        pytest.param("```ruby\nputs 1\n```", "nobody knows how", id="a language nobody tries"),
    ],
)
def test_a_wrong_block_is_noticed(text: str, told: str, tmp_path: Path, desk: Desk) -> None:
    (block,) = block_of(tmp_path, text)

    with pytest.raises(AssertionError, match=told):
        desk.try_block(block)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("```python\nx = 1\n", "not closed", id="a fence left open"),
        pytest.param("```python skip\nx = 1\n```", "no word of a fence", id="a word nobody knows"),
        pytest.param("```python no-run\nx = 1\n```", "no word of a fence", id="no reason given"),
    ],
)
def test_a_wrong_fence_is_noticed(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        block_of(tmp_path, text)


def test_blocks_keep_place_and_words(tmp_path: Path) -> None:
    text = 'one\n\n    ```python title="a b.py"\n    x = 1\n      y\n    ```\n'

    (block,) = block_of(tmp_path, text)

    assert (block.line, block.language, block.title, block.text) == (3, "python", "a b.py", "x = 1\n  y")


def test_commands_go_over_several_lines_and_have_output() -> None:
    text = "$ one --a \\\n    --b\nout\n\n$ two\n"

    assert list(commands_of(text)) == [("one --a --b", ["out"]), ("two", [])]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("promoted: …", True),
        ("… version 2 …", True),
        ("promoted", False),
        ("promoted:  champion is version 2 now", True),
    ],
)
def test_output_is_compared_line_by_line(line: str, found: bool) -> None:
    assert printed(line, "other\npromoted: champion is version 2   now\n") is found


def test_a_placeholder_for_a_version_is_taken_as_a_number() -> None:
    check_command('MLFLOW_X=1 airflow-mlops promote flights VERSION --override --reason "it must"', "a test")
