"""Settings that tests of a whole Airflow share."""

from __future__ import annotations

from tests.support.postgres import Postgres

#: Their files never change, and to read them again takes time from the tasks.
READ_ONCE = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600"}


def on_postgres(postgres: Postgres, database: str) -> dict[str, str]:
    """Return the settings that keep Airflow's database on Postgres: on SQLite it refuses a backfill under way."""
    return {**READ_ONCE, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.create(database)}
