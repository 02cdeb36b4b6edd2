"""One third-party tool per module. No Airflow, and no heavy import before a function needs it."""
