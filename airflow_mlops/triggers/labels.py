"""Waiting for labels. The triggerer only looks whether label files changed; a worker joins and counts them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mlops.triggers.base import Look, PollTrigger, Question


class LabelCoverageQuestion(Question):
    """Asks whether enough of a batch's predictions have a label, or the deadline has passed. It joins: for a worker.

    :param monitored: a ``MonitoredWindow`` that was scored; ``labels``: the keys of ``LabelSpec``.
    :param as_of: the moment that counts as now, ISO; None: now.
    """

    def __init__(
        self,
        *,
        monitored: Mapping[str, Any],
        labels: Mapping[str, Any],
        label: str | None = None,
        entity: Sequence[str] = (),
        mlflow_conn_id: str,
        as_of: str | None = None,
    ) -> None:
        from airflow_mlops.core.monitoring_records import MonitoredWindow
        from airflow_mlops.spec.monitoring import LabelSpec

        self.monitored = MonitoredWindow.model_validate(monitored)
        self.labels = LabelSpec.model_validate(labels)
        self.label = label
        self.entity = tuple(entity)
        self.mlflow_conn_id = mlflow_conn_id
        self.as_of = as_of
        self.seen: str | None = None
        self.due: datetime | None = None
        self._last: Look | None = None

    def look(self) -> Look:
        """Join and count; while the label files stay as they are, only their listing is read again.

        :raises InvalidSpecError: a column is missing, or ids do not fit.
        :raises DataReadError: the labels cannot be read.
        :raises DataChangedError: the predictions are gone or were replaced.
        """
        from airflow_mlops.engines.label_rows import join_key
        from airflow_mlops.engines.labels import join_labels, labels_fingerprint, predictions_file
        from airflow_mlops.engines.scored_batches import deadline_of, moment, scored_batch
        from airflow_mlops.hooks.mlflow import MLflowHook
        from airflow_mlops.hooks.storage import storage_access

        now = moment(self.as_of, "as_of")
        store = storage_access(self.labels.data.conn_id)
        seen = labels_fingerprint(self.labels.data, store)
        if self._last is not None and seen == self.seen and (self.due is None or now < self.due):
            return self._last
        with MLflowHook(self.mlflow_conn_id).client() as client:
            batch = scored_batch(client, self.monitored.scoring_run_id)
        key = join_key(self.labels, batch, self.label, self.entity)
        deadline = deadline_of(batch, self.labels)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            with predictions_file(batch, scratch, storage_access(batch.output_conn_id)) as predictions:
                joined = join_labels(batch, self.labels, key, predictions, as_of=now, scratch=scratch, access=store)
        self.seen = seen
        # A label from the future needs no new file to count one day.
        self.due = min(filter(None, (deadline, joined.due)))
        passed = now >= deadline
        have = f"{joined.labelled:,} of {joined.rows:,} predictions have a label ({joined.coverage:.1%})"
        files = "" if seen else "; no label file is there yet"
        enough = joined.labelled == joined.rows or joined.coverage >= self.labels.coverage
        found = {
            "coverage": joined.coverage,
            "labelled": joined.labelled,
            "rows": joined.rows,
            "deadline_passed": passed,
        }
        if enough or passed:
            why = "" if enough else f"; the deadline {deadline:%Y-%m-%d %H:%M} UTC has passed"
            self._last = Look(" ".join([f"{have}{files}{why}.", *joined.notes(key).values()]), found)
        else:
            wanted = f"{self.labels.coverage:.0%} are waited for until {deadline:%Y-%m-%d %H:%M} UTC"
            self._last = Look(" ".join([f"{have}{files}; {wanted}.", *joined.notes(key).values()]))
        return self._last

    def memory(self) -> dict[str, Any]:
        """Return what the files were like, and when time alone changes the answer."""
        # A moment that was given stands still, so time changes nothing.
        due = None if self.due is None or self.as_of is not None else self.due.isoformat()
        return {"seen": self.seen, "due": due}


class LabelChangeQuestion(Question):
    """Asks whether label files were added or changed, or a moment has passed, after which counting is worth while.

    :param data: the keys of ``DataSpec``.
    :param seen: what the files were like; None: nobody could count yet, so it is time to try again after one interval.
    :param due: the moment, ISO with a zone; None: none.
    """

    def __init__(self, *, data: Mapping[str, Any], seen: str | None = None, due: str | None = None) -> None:
        from airflow_mlops.spec.data import DataSpec

        self.data = DataSpec.model_validate(data)
        self.seen = seen
        self.due = None if due is None else datetime.fromisoformat(due)
        self._rested = seen is not None

    def look(self) -> Look:
        """List the label files, or ask the source for its fingerprint; no row is read.

        :raises DataReadError: the store refuses, or what is there cannot hold labels.
        :raises StorageUnavailableError: the store does not answer.
        """
        from airflow_mlops.engines.labels import labels_fingerprint
        from airflow_mlops.hooks.storage import storage_access

        # Time first: a store that is down must not put off the deadline.
        if self.due is not None and datetime.now(UTC) >= self.due:
            return Look(f"{self.due:%Y-%m-%d %H:%M} UTC has passed.", {"changed": "time"})
        if not self._rested:
            self._rested = True
            return Look("Labels could not be counted yet.")
        if labels_fingerprint(self.data, storage_access(self.data.conn_id)) != self.seen:
            return Look(f"The labels {self.data.uri} have changed.", {"changed": "files"})
        return Look(f"The labels {self.data.uri} are as they were.")


class LabelChangeTrigger(PollTrigger):
    """Wait, off the worker, until labels change. Keywords: those of :class:`LabelChangeQuestion`."""

    question_type = LabelChangeQuestion
