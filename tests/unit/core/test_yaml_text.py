from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from airflow_mlops.core.yaml_text import comment, entry, flow, scalar
from airflow_mlops.spec.yaml_lines import parse_yaml

WORDS = [
    *(
        "yes",
        "NO",
        "on",
        "Off",
        "null",
        "Null",
        "~",
        "true",
        "y",
        "N",
        "1e5",
        "0x1F",
        "012",
        "1_000",
        "12:30",
        "=",
        "<<",
    ),
    *(
        "<<",
        "@home",
        "`x`",
        "%x",
        "!tag",
        "&a",
        "*a",
        "- x",
        "? x",
        "a: b",
        "a #b",
        "[x]",
        "{x}",
        "x,y",
        "'",
        '"',
        "\\",
        "",
    ),
    *(" lead", "trail ", "two\nlines", "tab\t", "\x00", "\x85", "\u2028", "\ufeff", "\U0001f600", "naïve café", "漢字"),
    *(".inf", ".nan", "2013-01-01", "9E", "AA", "a b", "a-b", "x" * 5000, "...", "---", "# no comment"),
]


@pytest.mark.parametrize("text", WORDS, ids=ascii)
def test_text_stays_text_in_our_reader_and_in_an_old_one(text: str) -> None:
    written = entry("kwargs", {"column": text, "value_set": [text, 1, 1.5, True, None]}, 2)

    expected = {"kwargs": {"column": text, "value_set": [text, 1, 1.5, True, None]}}
    assert parse_yaml(written, "test")[0] == expected
    assert yaml.safe_load(written) == expected


@pytest.mark.parametrize("number", [0, -7, 2**70, 0.1, 5e-324, -1.7976931348623157e308, 1e16, 12.0], ids=repr)
def test_numbers_read_back_exactly(number: float) -> None:
    assert parse_yaml(f"x: {scalar(number)}", "test")[0] == {"x": number}


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=repr)
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        flow({"x": [value]})


def test_long_lists_are_broken_into_lines_and_read_back() -> None:
    value: dict[str, Any] = {"column": "dest", "value_set": [f"value {n}" for n in range(300)]}

    written = entry("kwargs", value, 4)

    assert max(map(len, written.splitlines())) <= 120
    assert parse_yaml(written, "test")[0] == {"kwargs": value}


@pytest.mark.parametrize("text", ["one\ntwo: 3", "a\u2028b", "a\x85b: c", "word " * 100], ids=ascii)
def test_nothing_breaks_out_of_a_comment(text: str) -> None:
    written = comment(text, indent=2)

    assert all(line.startswith("  #") for line in written.splitlines())
    assert parse_yaml(f"{written}\nx: 1", "test")[0] == json.loads('{"x": 1}')
