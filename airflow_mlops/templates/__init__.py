"""Templates that the demo and ``init`` copy: specifications, contracts, training functions, DAG files."""
