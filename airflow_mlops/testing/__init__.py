"""For a team's own tests: valid DAGs, a training on a sample, and data that drifted or broke on purpose.

Plain functions: no test framework is needed, and nothing heavy is imported before one is called.

What they say comes from the engines of production: contracts are checked by Great Expectations, drift is measured from
the same counts, the training is the whole loop on an MLflow store that is thrown away.
"""

from __future__ import annotations

from airflow_mlops.spec.fleet import model_files
from airflow_mlops.testing.checks import drift_between, violations
from airflow_mlops.testing.dags import assert_dags_valid
from airflow_mlops.testing.damage import KINDS, broken, drifted, kinds_of_damage
from airflow_mlops.testing.rows import made_up, write_sample
from airflow_mlops.testing.sample_run import run_on_sample

__all__ = [
    "KINDS",
    "assert_dags_valid",
    "broken",
    "drift_between",
    "drifted",
    "kinds_of_damage",
    "made_up",
    "model_files",
    "run_on_sample",
    "violations",
    "write_sample",
]
