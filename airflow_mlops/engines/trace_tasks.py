"""The tasks that made a version, each with its key, its MLflow run and its page in Airflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.lineage import Origins
from airflow_mlops.core.records import ValidationReport
from airflow_mlops.engines import versions
from airflow_mlops.engines.lineage import Pointers, RunReader, run_of
from airflow_mlops.engines.runs import KEY, PARENT, STEP
from airflow_mlops.engines.trace_data import raw_manifest_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

_KNOWN = ("run_id", "status", "task_url", "dag_id", "dag_run_id", "dag_run_url", "other_run")


def tasks_of(
    reader: RunReader, pointers: Pointers, origins: Origins, tags: Mapping[str, str], manifests: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the tasks in the order of the loop. One whose MLflow run is gone is told by the version's tags alone.

    ``other_run`` is true for a task of another run than the one that judged the model.

    :param tags: the version's.
    :param manifests: URIs of the manifests of the training and of the evaluation rows.
    """
    gate = run_of(pointers.decision_uri) or ""
    judging = reader.run(gate)
    parent = judging.data.tags.get(PARENT) if judging is not None else None
    asked = [
        _snapshot_run(reader, origins.training_data, manifests[0]),
        pointers.training_validation_run,
        _snapshot_run(reader, origins.evaluation_data, manifests[1]),
        pointers.evaluation_validation_run,
        pointers.train_run,
        run_of(pointers.evidence_uri),
        pointers.serving_run,
        gate,
        run_of(tags.get(versions.CARD_URI)),
    ]
    runs = [run for run_id in dict.fromkeys(filter(None, asked)) if (run := reader.run(run_id)) is not None]
    lines = [_line(reader, run, parent) for run in runs if STEP in run.data.tags]
    steps = {line["step"] for line in lines}
    if "train" not in steps and (key := tags.get(versions.TRAIN_KEY)):
        lines.append({**_task("train", key), "run_id": pointers.train_run})
    if "register" not in steps and (key := tags.get(KEY)):
        lines.append({**_task("register", key), "task_url": tags.get(versions.TASK_URL)})
    return lines


def _snapshot_run(reader: RunReader, report: ValidationReport | None, uri: str) -> str | None:
    """Return the run of the raw rows' manifest: the manifest of accepted rows lies in the validation's own run."""
    derived = report is not None and report.raw_digest != report.dataset.digest
    return run_of(raw_manifest_uri(reader, report) if report is not None and derived else uri)


def _line(reader: RunReader, run: Run, judging: str | None) -> dict[str, Any]:
    tags = run.data.tags
    parent = reader.run(tags.get(PARENT, ""))
    about = parent.data.tags if parent is not None else {}
    return {
        **_task(tags[STEP], tags.get(KEY, "")),
        "run_id": run.info.run_id,
        "status": run.info.status,
        "task_url": tags.get("airflow_mlops.task_url"),
        "dag_id": about.get("airflow_mlops.dag_id"),
        "dag_run_id": about.get("airflow_mlops.airflow_run_id"),
        "dag_run_url": about.get("airflow_mlops.airflow_url"),
        "other_run": judging is not None and tags.get(PARENT) != judging,
    }


def _task(step: str, key: str) -> dict[str, Any]:
    return {"step": step, "key": key, **dict.fromkeys(_KNOWN)}
