"""The flights model's Airflow DAGs, made from its specification: training, scoring and monitoring."""

from pathlib import Path

from airflow_mlops import load_spec, monitoring_dag, scoring_dag, training_dag

spec = load_spec(Path(__file__).parent / "flights.yaml")
training_dag(spec)
scoring_dag(spec)
monitoring_dag(spec)
