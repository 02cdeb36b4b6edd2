"""Names, windows and feature lists as a model version's tags carry them."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.core.records import Window
from airflow_mlops.engines import versions
from airflow_mlops.engines.promotions import command, ledger_name
from airflow_mlops.engines.versions import check_name, facts_of, read_span, write_features, write_span
from airflow_mlops.errors import InvalidSpecError

MAY = Window(start=datetime(2013, 5, 1), end=datetime(2013, 6, 1))


@pytest.mark.parametrize("name", ["flights", "late-arrivals.v2", "main.ml.flights", "Flüge 2013"])
def test_usable_names(name: str) -> None:
    assert check_name(name) == name
    assert ledger_name(name) == f"{name}.promotions"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param(" flights", id="a blank in front"),
        pytest.param("a/b", id="MLflow refuses slashes"),
        pytest.param("a:b", id="and colons"),
        pytest.param("it's", id="would end the quotes of a filter"),
        pytest.param("a@b", id="reads as an alias in a model's URI"),
        pytest.param("a?b", id="starts a URI's query"),
        pytest.param("flights.promotions", id="is a ledger"),
    ],
)
def test_unusable_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidSpecError, match="cannot be a registered model's name"):
        check_name(name)


def test_a_window_survives_its_tag() -> None:
    assert write_span(MAY) == "2013-05-01T00:00:00+00:00/2013-06-01T00:00:00+00:00"
    assert read_span(write_span(MAY)) == MAY


@pytest.mark.parametrize("text", [None, "", "May 2013", "a/b", "2013-06-01/2013-05-01"])
def test_a_window_that_cannot_be_read_is_missing_not_guessed(text: str | None) -> None:
    assert read_span(text) is None


@pytest.mark.parametrize(
    ("features", "count", "written"),
    [
        pytest.param(("a", "b"), 2, '["a", "b"]', id="all of them"),
        pytest.param((), 5000, None, id="the record had no room for them"),
        pytest.param(("a",), 2, None, id="a part is not the list"),
        pytest.param(("x" * 100_000,), 1, None, id="longer than a tag"),
    ],
)
def test_write_features(features: tuple[str, ...], count: int, written: str | None) -> None:
    assert write_features(features, count) == written


def a_version(**tags: str) -> Any:
    return SimpleNamespace(name="flights", version="3", source="s3://b/m", run_id="", model_id=None, tags=tags)


def test_what_a_version_of_other_making_lacks_is_named() -> None:
    facts = facts_of(a_version())

    assert facts.model_uri == "models:/flights/3"
    assert facts.artifact_uri == "s3://b/m"
    assert facts.lacks == (
        "model digest",
        "flavor",
        "feature list",
        "training window",
        "data window",
        "dataset digest",
        "reference profile",
    )


def test_a_feature_list_somebody_spoilt_is_missing() -> None:
    assert facts_of(a_version(**{versions.FEATURES: "a, b"})).features is None
    assert facts_of(a_version(**{versions.FEATURES: "{}"})).features is None


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        pytest.param("champion", "airflow-mlops promote 'my model' --adopt --reason 'WHY'", id="the default alias"),
        pytest.param("eu", "airflow-mlops promote 'my model' --adopt --alias eu --reason 'WHY'", id="another alias"),
    ],
)
def test_commands_are_quoted_for_a_shell(alias: str, expected: str) -> None:
    assert command("promote", "my model", alias, "--adopt") == expected
