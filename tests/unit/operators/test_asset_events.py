"""What an Asset's event says reaches its readers as it was given, whether Airflow takes objects or not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.compat import AssetAlias
from airflow_mlops.operators import asset_events
from airflow_mlops.operators.asset_events import emit, read_extra
from tests.support.airflow_versions import OutletEvents

VALUES = [
    "{not json",
    "[1]",
    "[",
    '{"a": 1}',
    '"quoted"',
    "null",
    "7",
    "",
    "plain",
    {},
    [],
    [1, "[2]", None],
    {"a": {"b": [1, {"c": '{"d": 2}'}]}, "z": None},
    7,
    1.5,
    True,
    None,
]


@pytest.fixture(params=[True, False], ids=["takes objects", "takes no objects"])
def takes_objects(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(asset_events, "_TAKES_OBJECTS", request.param)
    return bool(request.param)


def stored(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the extra as Airflow has it after an event was emitted."""
    added: list[Any] = []
    outlet = SimpleNamespace(add=lambda asset, extra: added.append(extra))
    context: Any = {"outlet_events": OutletEvents(lambda: outlet)}
    emit(context, AssetAlias("m_champion"), extra)
    (found,) = added
    return dict(json.loads(json.dumps(found)))


def read(extra: Any) -> dict[str, Any]:
    return read_extra(SimpleNamespace(extra=extra))


@pytest.mark.parametrize("key", ["reason", "window"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_value_comes_back_as_it_was_given(takes_objects: bool, value: Any, key: str) -> None:
    given = {key: value, "entry": 7}
    extra = stored(given)

    if not takes_objects:
        frozenset(extra.items())  # as Airflow before 3.2 does when it publishes an event
    assert read(extra) == given


def test_all_values_at_once_come_back_as_they_were_given(takes_objects: bool) -> None:
    given = {f"key {number}": value for number, value in enumerate(VALUES)}
    extra = stored(given)

    assert read(extra) == given
    assert stored(read(extra)) == extra


def test_an_extra_that_needs_no_mark_carries_none(takes_objects: bool) -> None:
    given = {"entry": 7, "reason": "[1] rows came", "window": None}

    assert stored(given) == given


def test_what_an_earlier_release_stored_is_still_read() -> None:
    """It wrote windows as JSON text where Airflow takes no objects, and marked nothing."""
    window = {"start": "2013-03-01T00:00:00Z", "end": "2013-04-01T00:00:00Z"}

    told = read({"window": json.dumps(window, sort_keys=True), "reason": "[1]", "entry": 7})

    assert told == {"window": window, "reason": "[1]", "entry": 7}
    assert read({"window": window}) == {"window": window}
    assert read({"window": "{not json"}) == {"window": "{not json"}
    assert read(None) == {}


@pytest.mark.parametrize("mark", ["{not json", '["gone"]', '{"window": 1}', "7", 7, ["window"], None])
def test_a_mark_that_another_producer_wrote_breaks_nothing(mark: Any) -> None:
    assert read({asset_events.ENCODED: mark, "reason": "[1]"})["reason"] == "[1]"
