"""Records of what a sensor waited for and found."""

from __future__ import annotations

from datetime import datetime

from airflow_mlops.core.record import Record, Window


class StandingAlias(Record, schema="standing_alias/1"):
    """The version an alias stands for, as the promotion ledger says.

    :param entry: number of the ledger entry that says so; the next wait's ``newer_than``.
    :param window: the data window the version was promoted with, where it has one.
    """

    registered_model: str
    alias: str
    version: int
    entry: int
    model_uri: str
    window: Window | None = None


class DataArrival(Record, schema="data_arrival/1"):
    """Data that arrived and stopped changing.

    :param window: the window that was waited for; None: any data.
    :param file_count: files that may hold rows of it; None for a source that is no files. ``byte_count`` likewise.
    :param newest: the last change the store tells of; None where it tells none.
    :param fingerprint: differs once one of the files, or the source, has changed.
    :param checked: what was looked at and what was not, in a sentence.
    """

    uri: str
    window: Window | None = None
    file_count: int | None = None
    byte_count: int | None = None
    newest: datetime | None = None
    fingerprint: str
    checked: str
