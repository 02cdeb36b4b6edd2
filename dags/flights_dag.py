"""The flights model's training DAG for Airflow, made from its specification."""

from pathlib import Path

from airflow_mlops import load_spec, training_dag

training_dag(load_spec(Path(__file__).parent / "flights.yaml"))
