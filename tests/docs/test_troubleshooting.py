"""The messages on the troubleshooting page are those of the package."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import ROOT, texts_of_the_package

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return texts_of_the_package()


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message: str, texts: list[str]) -> None:
    assert any(message in text for text in texts)


def test_a_message_nobody_wrote_would_be_noticed(texts: list[str]) -> None:
    assert not any("There is no Airflow connection … anywhere" in text for text in texts)


def test_every_entry_quotes_a_message_and_none_twice() -> None:
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == len(QUOTED) == len(set(QUOTED))
