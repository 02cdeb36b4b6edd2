"""A plug-in for airflow-mlops."""
