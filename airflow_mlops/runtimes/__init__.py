"""Where a step's body runs. ``inline`` is the task's own process; other runtimes register by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from airflow_mlops.core.records import Record
from airflow_mlops.core.registry import Registry
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps.base import Access, StepRequest

RUNTIMES = Registry(
    "runtimes",
    {
        "inline": "airflow_mlops.runtimes.inline:InlineRuntime",
        "external_python": "airflow_mlops.runtimes.external_python:ExternalPythonRuntime",
    },
)


class Runtime(Protocol):
    """Something that runs a step from its request to its record.

    Made with the settings that the specification writes beside the runtime's name, as keywords; ValueError or TypeError
    for wrong ones. One object serves one task.
    """

    def run(self, request: StepRequest, access: Access) -> Record:
        """Run the step, or adopt what its key and inputs already made, and return the record.

        :raises VerdictError: the step's own reasons, or the runtime is not set up; a retry finds the same.
        :raises OutageError: something outside did not answer.
        """
        ...

    def stop(self) -> None:
        """End whatever :meth:`run` started. Called from a signal handler when the task is killed; safe to repeat."""
        ...


def make_runtime(name: str, settings: Mapping[str, Any]) -> Runtime:
    """Return the runtime called ``name`` with its settings.

    :raises UnknownNameError: no runtime is called so.
    :raises InvalidSpecError: it does not accept its settings.
    """
    made = RUNTIMES.load(name)
    try:
        runtime: Runtime = made(**settings)
    except (TypeError, ValueError) as exc:
        raise InvalidSpecError(f"The runtime {name!r} does not accept its settings: {exc}") from exc
    return runtime
