"""Telling people what happened, through any Airflow notifier."""
