"""The Airflow DAGs of flights_on_drift.yaml: what monitoring finds starts the training."""

from pathlib import Path

from airflow_mlops import load_spec, monitoring_dag, scoring_dag, training_dag

spec = load_spec(Path(__file__).parent / "flights_on_drift.yaml")
for make in (training_dag, scoring_dag, monitoring_dag):
    make(spec)
