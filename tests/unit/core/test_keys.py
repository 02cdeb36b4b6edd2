from __future__ import annotations

import pytest

from airflow_mlops.core.keys import TaskKey, digest_of, key_id
from airflow_mlops.core.records import Window


def test_a_task_key_names_run_and_task() -> None:
    key = TaskKey(dag_id="d", run_id="manual__2013-03-01T00:00:00+00:00", task_id="g.train", map_index=3)

    assert str(key) == "d/manual__2013-03-01T00:00:00+00:00/g.train/3"
    assert key.run_key == "d/manual__2013-03-01T00:00:00+00:00"


def test_a_key_id_needs_no_quoting() -> None:
    assert key_id("d/it's `odd`/t/-1").isalnum()
    assert key_id("a") != key_id("b")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, True, id="key order"),
        pytest.param((1, 2), [1, 2], True, id="tuples are lists"),
        pytest.param({"a": 1}, {"a": 1.5}, False, id="another number"),
        pytest.param([1, 2], [2, 1], False, id="list order"),
        pytest.param("ä", "a", False, id="umlaut"),
    ],
)
def test_digests(one: object, other: object, equal: bool) -> None:
    assert (digest_of(one) == digest_of(other)) is equal


def test_models_have_a_digest() -> None:
    march = Window(start="2013-03-01", end="2013-04-01")

    assert digest_of(march) == digest_of(march.model_dump(mode="json"))


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_what_has_no_digest(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        digest_of({"x": value})
