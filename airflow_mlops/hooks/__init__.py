"""Airflow connections turned into clients. Import a hook from its own module."""
