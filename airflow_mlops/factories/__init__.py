"""From a specification to DAGs."""
