"""The Airflow DAG of flights_scheduled.yaml."""

from pathlib import Path

from airflow_mlops import load_spec, training_dag

training_dag(load_spec(Path(__file__).parent / "flights_scheduled.yaml"))
