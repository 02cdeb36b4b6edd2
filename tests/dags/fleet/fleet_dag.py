"""The Airflow DAGs of every model in models/."""

from pathlib import Path

from airflow_mlops import load_models

load_models(Path(__file__).parent / "models")
