"""What one task does, from request to record. No Airflow: the same step runs in a task, a shell and a notebook."""
