"""Every operator's arguments can come from a template or from another task, and it can be mapped."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import airflow_mlops

OPERATORS = [
    getattr(airflow_mlops, name)
    for name in airflow_mlops.__all__
    if name.endswith("Operator") and not name.startswith("_")
]
#: What a run cannot change: it decides what a task is, or is text for people.
FIXED = {"task", "seed", "manual_schedule", "summary", "notifications", "about"}


def own_arguments(operator: type) -> set[str]:
    """Return the keywords that our own classes add to Airflow's."""
    found: set[str] = set()
    for kind in operator.__mro__:
        if kind.__module__.startswith("airflow_mlops."):
            parameters = inspect.signature(vars(kind).get("__init__", object.__init__)).parameters.values()
            found |= {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    return found


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_argument_is_templated(operator: Any) -> None:
    assert own_arguments(operator) - FIXED <= set(operator.template_fields)


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_it_can_be_mapped_over_any_of_its_arguments(operator: Any) -> None:
    arguments = own_arguments(operator)
    for mapped in sorted(arguments - {"mlflow_conn_id"}):
        rest = {name: {} for name in arguments - {mapped}}

        task = operator.partial(task_id="mapped", **rest).expand(**{mapped: [{}, {}]})

        assert type(task).__name__ == "MappedOperator"


def test_there_are_operators() -> None:
    assert len(OPERATORS) >= 10
