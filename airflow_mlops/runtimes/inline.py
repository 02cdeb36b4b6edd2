"""The step runs in the process that asks for it."""

from __future__ import annotations

from airflow_mlops.core.records import Record
from airflow_mlops.steps.base import Access, StepRequest, perform


class InlineRuntime:
    """Run steps in this process. Needs the step's libraries in this interpreter."""

    def run(self, request: StepRequest, access: Access) -> Record:
        """Run the step here."""
        return perform(request, access)

    def stop(self) -> None:
        """Do nothing: what ends the task ends the step."""
