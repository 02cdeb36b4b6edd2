"""YAML as people mean it, JSON beside it, and the line of every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.yaml_lines import load_yaml, parse_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("2013-01-31", "2013-01-31"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("-7", -7),
        ("+7", 7),
        ("0x1F", 31),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("9E", "9E"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("&x [1]", [1]),
    ],
)
def test_plain_words(written: str, value: Any) -> None:
    read = parse_yaml(f"k: {written}", "f")[0]["k"]

    assert read == value
    assert type(read) is type(value)


def test_the_line_of_a_place() -> None:
    _, line_of = parse_yaml("a: 1\n\nb:\n  - c: 1\n    d: 2\n  - c: 3\n", "f")

    assert line_of(()) == 1
    assert line_of(("b",)) == 3
    assert line_of(("b", 0, "d")) == 5
    assert line_of(("b", 1)) == 6
    assert line_of(("b", 1, "missing")) == 6, "the nearest key around it"
    assert line_of(("b", "a-branch-of-pydantic", 1, "c")) == 6
    assert line_of(("nowhere", 5)) == 1


def test_merged_parts_may_be_overridden() -> None:
    data, _ = parse_yaml("base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n", "f")

    assert data["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a: 1\nb:\n  c: 1\n  c: 2\n", r"f, line 4: the key 'c' .* \(first on line 3\)", id="double key"),
        pytest.param(
            "a: !!python/object/apply:os.getcwd []", "line 1: the tag .* is not allowed", id="a tag that acts"
        ),
        pytest.param("a: !mine {}", "is not allowed", id="an unknown tag"),
        pytest.param("a: !!binary aGk=", "is not allowed", id="bytes"),
        pytest.param("a: &x [*x]", "leads back to itself", id="a circle"),
        pytest.param("? [1]\n: 2", "a key must be plain text", id="a list as key"),
        pytest.param("a: b: c", "line 1: this is not valid YAML", id="a colon too many"),
        pytest.param("a: 1\nb: !!bool maybe", "line 2: 'maybe' cannot be read as bool", id="a tag that does not fit"),
        pytest.param("a: !!int ''", "line 1: '' cannot be read as int", id="a tag on nothing"),
        pytest.param("a: " + "1" * 5_000, "line 1: '1+' cannot be read as int", id="too many digits"),
        pytest.param("a: {<<: 5}", "line 1: `<<` takes a mapping", id="a number merged in"),
        pytest.param("a: &a {<<: *a}", "leads back to itself", id="merged into itself"),
        pytest.param("a: 1\n\tb: 2", "line 2: this is not valid YAML", id="a tab"),
        pytest.param("a: 1\n---\nb: 2", "not valid YAML", id="two documents"),
        pytest.param("a: '\x07'", "line 1: .* may not stand here", id="a control character"),
        pytest.param("a: " + "[" * 2_000, "nested too deeply", id="deep"),
        # Libyaml would end the process.
        pytest.param("a: " + "[" * 200_000, "nested too deeply", id="very deep"),
        pytest.param("a:\n  " + "- " * 200_000 + "x", "nested too deeply", id="very deep, in blocks"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidSpecError, match=said):
        parse_yaml(text, "f")


def test_aliases_that_multiply_stop_early() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))

    with pytest.raises(InvalidSpecError, match="aliases that multiply"):
        parse_yaml(bomb, "f")


def test_merges_do_not_multiply_and_the_first_that_has_a_key_counts() -> None:
    many = "&a0 {x: 1, y: 1}"
    for n in range(1, 9):
        many = f"&a{n} {{z{n}: {n}, <<: [{many}, {', '.join([f'*a{n - 1}'] * 9)}]}}"

    data, line_of = parse_yaml(f"a: {many}\nb: &b {{x: 2}}\nc:\n  y: 3\n  <<: [*b, *a0]\n", "f")

    assert data["a"] == {"x": 1, "y": 1, **{f"z{n}": n for n in range(1, 9)}}
    assert data["c"] == {"x": 2, "y": 3}
    assert [line_of(("c", key)) for key in "xy"] == [2, 4]


def test_json_is_read_by_the_rules_of_json(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('{\n\t"a": "on",\n\t"b": [1e3, "\\ud83d\\ude00"]\n}')
    data, line_of = load_yaml(path)

    assert data == {"a": "on", "b": [1000.0, "\N{GRINNING FACE}"]}
    assert line_of(("b", 1)) == 3
    for text, said in [
        ('{"a": 1,\n "a": 2}', r"line 2: the key 'a' stands here a second time \(first on line 1\)"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5_000, "too many digits"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{\n"a": }', "line 2: this is not valid JSON"),
    ]:
        path.write_text(text)
        with pytest.raises(InvalidSpecError, match=said):
            load_yaml(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="does not exist"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(InvalidSpecError, match="is not UTF-8"):
        load_yaml(tmp_path / "latin.yaml")
    with pytest.raises(InvalidSpecError, match="cannot be read"):
        load_yaml(tmp_path)
    with (tmp_path / "rows.json").open("wb") as rows:
        rows.truncate(5_000_000)
    with pytest.raises(InvalidSpecError, match=r"5,000,000 bytes; .* Move data out of the folder"):
        load_yaml(tmp_path / "rows.json")
