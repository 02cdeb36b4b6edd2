"""Where a step's body runs. ``inline`` is the task's own process; other runtimes register by name."""

from __future__ import annotations

from typing import Protocol

from airflow_mlops.core.records import Record
from airflow_mlops.core.registry import Registry
from airflow_mlops.steps.base import Access, StepRequest

RUNTIMES = Registry("runtimes", {"inline": "airflow_mlops.runtimes.inline:InlineRuntime"})


class Runtime(Protocol):
    """Something that runs a step from its request to its record."""

    def run(self, request: StepRequest, access: Access) -> Record:
        """Run the step, or adopt what its key and inputs already made, and return the record."""
        ...
