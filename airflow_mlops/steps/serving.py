"""Serving check: the logged model, a fresh interpreter, and its input example."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, field_validator

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import ServingReport, TrainedModel, VersionDifference, finite
from airflow_mlops.core.serving_page import serving_page
from airflow_mlops.engines.environment import installed
from airflow_mlops.engines.models import fetch_model, size_of
from airflow_mlops.engines.serving import Served, check_serving, problem, sentence
from airflow_mlops.spec.model import ServingSpec
from airflow_mlops.steps.base import Access, Step, Work

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

REPORT_FILE = "serving.json"
PAGE_FILE = "serving.html"
#: Differing versions in the record; the page has them all.
MAX_DIFFERENCES = 50
#: Characters of a text in the record; the page has the whole.
MAX_TEXT = 2_000
MAX_NAME = 100


class ServingPayload(BaseModel):
    """A logged model and how to try it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: TrainedModel
    serving: ServingSpec = ServingSpec()

    @field_validator("serving")
    @classmethod
    def _wanted(cls, value: ServingSpec) -> ServingSpec:
        if not value.check:
            raise ValueError("check is false, so there is nothing to do: leave this task out, or set check to true")
        return value


class ServingStep(Step[ServingPayload, ServingReport]):
    """Try the logged model as a server would meet it, and say whether it can be served and how fast."""

    name = "serving"
    payload_type = ServingPayload
    record_type = ServingReport

    def inputs(self, payload: ServingPayload, client: MlflowClient, access: Access) -> Mapping[str, Any]:
        """Cover the model, how it is tried, and the interpreter: its Python and every installed library."""
        build = payload.serving.env == "build"
        return {
            "model": [payload.model.model_uri, payload.model.digest],
            "serving": payload.serving.model_dump(mode="json"),
            "python": f"{platform.python_implementation()} {platform.python_version()} {sys.platform}",
            "libraries": None if build else digest_of(installed()),
        }

    def recheck(self, record: ServingReport, payload: ServingPayload, client: MlflowClient, access: Access) -> bool:
        """Adopt a good answer only: time and memory depend on the machine, so whoever clears the task asks again."""
        return record.ok

    def run(self, payload: ServingPayload, work: Work) -> ServingReport:
        """Fetch the model, check its digest, and try it.

        :raises ModelRefusedError: the model is not there, or not the one that was logged; nothing of it was loaded.
        """
        model, spec = payload.model, payload.serving
        folder = fetch_model(work.client, work.access.server, model.model_uri, model.digest, work.folder / "model")
        scratch = work.folder / "serving"
        scratch.mkdir()
        served = check_serving(folder, scratch, spec)
        report = ServingReport(
            ok=served.ok,
            sentence=_cut(sentence(served, spec)),
            problem=_cut(problem(served)),
            model_uri=model.model_uri,
            digest=model.digest,
            env=spec.env,
            python_version=served.python_version,
            rows=served.rows,
            repeats=served.repeats,
            load_seconds=served.load_seconds,
            call_milliseconds=finite(served.call_milliseconds),
            row_milliseconds=finite(served.row_milliseconds),
            peak_memory_bytes=served.peak_memory_bytes,
            size_bytes=size_of(folder),
            differences=tuple(_short(one) for one in served.differences[:MAX_DIFFERENCES]),
            difference_count=len(served.differences),
            report_uri=f"runs:/{work.run_id}/{PAGE_FILE}",
            run_id=work.run_id,
        )
        _store(report, served, work)
        return report


def _store(report: ServingReport, served: Served, work: Work) -> None:
    """Write the whole finding as JSON and as a page, and the numbers to the step's run."""
    from mlflow.entities import Metric, RunTag

    whole = {
        **report.model_dump(mode="json"),
        "problem": problem(served),
        "differences": [one.model_dump(mode="json") for one in served.differences],
        "first_call_milliseconds": None if served.first_call_seconds is None else served.first_call_seconds * 1000,
        "traceback": served.traceback,
        "output": served.output,
    }
    work.log_json(whole, REPORT_FILE)
    work.log_text(serving_page(report, served.differences, output=served.output, traceback=served.traceback), PAGE_FILE)
    figures = {
        "load_seconds": report.load_seconds,
        "call_milliseconds": report.call_milliseconds,
        "row_milliseconds": report.row_milliseconds,
        "peak_memory_bytes": report.peak_memory_bytes,
        "model_size_bytes": report.size_bytes,
    }
    now = int(time.time() * 1000)
    work.client.log_batch(
        work.run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in figures.items() if value is not None],
        tags=[
            RunTag("airflow_mlops.model_digest", report.digest),
            RunTag("mlflow.note.content", report.problem or report.sentence),
        ],
    )


def _short(one: VersionDifference) -> VersionDifference:
    return VersionDifference(**{name: value and value[:MAX_NAME] for name, value in one.model_dump().items()})


def _cut(text: str | None) -> Any:
    return text if text is None or len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
