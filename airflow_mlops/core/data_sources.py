"""The names that ``data.format`` may have. Not beside the sources, because a specification checks the name."""

from __future__ import annotations

from airflow_mlops.core.registry import Registry

data_sources = Registry(
    "data_sources",
    {
        "parquet": "airflow_mlops.engines.files:FileSource",
        "csv": "airflow_mlops.engines.files:FileSource",
    },
)
