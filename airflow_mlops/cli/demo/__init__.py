"""The demo: real flights through a real Airflow with a real MLflow server."""
