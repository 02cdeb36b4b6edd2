"""A step that does what a test asks for, in whatever process the runtime under test runs it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from airflow_mlops.core.records import Record
from airflow_mlops.errors import DataReadError, StorageUnavailableError
from airflow_mlops.steps.base import Step, Work

log = logging.getLogger("probe_step")
Act = Literal["note", "print", "verdict", "outage", "unforeseen", "module", "wait", "exit"]


class ProbePayload(BaseModel):
    """What to do.

    :param pids: for ``wait``: the file that the numbers of this process and of a child of it are written to.
    :param go: for ``wait``: the file whose presence ends the waiting.
    :param hold: for ``wait``: wait in compiled code that holds Python's global lock and never ends.
    :param data: a place that names a store's connection, as the payloads of real steps do.
    """

    act: Act = "note"
    text: str = ""
    pids: Path | None = None
    go: Path | None = None
    hold: bool = False
    data: dict[str, str] | None = None


class Probe(Record, schema="probe/1"):
    """What the step saw."""

    text: str
    run_id: str
    process: int
    storage: str | None = None
    has_airflow: bool


class ProbeStep(Step[ProbePayload, Probe]):
    """Do what is asked; :data:`Act` names the possibilities."""

    name = "probe"
    payload_type = ProbePayload
    record_type = Probe

    def run(self, payload: ProbePayload, work: Work) -> Probe:
        """Do it and return what was seen."""
        storage = work.access.storage((payload.data or {}).get("conn_id"))
        if payload.act != "note":
            getattr(self, f"_{payload.act}")(payload)
        return Probe(
            text=payload.text,
            run_id=work.run_id,
            process=os.getpid(),
            storage=storage.endpoint_url if storage else None,
            has_airflow="airflow" in sys.modules,
        )

    def _print(self, payload: ProbePayload) -> None:
        print('{"schema": "probe/1", "text": "not the record"}')
        print("half a line,", end="")
        log.warning("a record in between")
        print(" and its other half")
        os.write(1, b"past Python: \xff\xfe\n")
        os.write(2, b"x" * 1_000_000 + b"\n")
        warnings.warn("a library complains", stacklevel=1)

    def _verdict(self, payload: ProbePayload) -> None:
        raise DataReadError(payload.text)

    def _outage(self, payload: ProbePayload) -> None:
        raise StorageUnavailableError(payload.text)

    def _unforeseen(self, payload: ProbePayload) -> None:
        raise ZeroDivisionError(payload.text)

    def _module(self, payload: ProbePayload) -> None:
        import a_library_that_nobody_has  # noqa: F401

    def _exit(self, payload: ProbePayload) -> None:
        print(payload.text)
        os._exit(3)

    def _wait(self, payload: ProbePayload) -> None:
        assert payload.pids is not None
        assert payload.go is not None
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        partial = payload.pids.with_suffix(".partial")
        partial.write_text(json.dumps([os.getpid(), child.pid]))
        partial.rename(payload.pids)
        log.info("waiting for %s", payload.go.name)
        if payload.hold:
            re.match(r"(a+)+$", "a" * 60 + "b")
        while not payload.go.exists():
            time.sleep(0.05)
        child.kill()
        child.wait()
