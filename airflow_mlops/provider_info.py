"""What Airflow reads about this provider: its name, its hook and the form of its connection.

Airflow loads this module in every component at start, so it imports nothing beyond the standard library.
From Airflow 3.2 on the connection form comes from ``conn-fields`` here, without importing the hook; earlier versions
ask :class:`airflow_mlops.hooks.mlflow.MLflowHook`, which builds the same form from :data:`CONNECTION_FIELDS`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

PACKAGE = "airflow-mlops"
HOOK_CLASS = "airflow_mlops.hooks.mlflow.MLflowHook"

#: The extras of an ``mlflow`` connection: name -> label, JSON schema and help of its form field.
CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "registry_uri": {
        "label": "Registry URI",
        "schema": {"type": ["string", "null"]},
        "description": "Model registry, where it is another server than the tracking URI in Host.",
    },
    "verify_tls": {
        "label": "Verify TLS",
        "schema": {"type": ["boolean", "null"], "default": True},
        "description": "Check the server's certificate. Switch off for trials only.",
    },
    "ca_path": {
        "label": "CA bundle",
        "schema": {"type": ["string", "null"]},
        "description": "Path, on the workers, of a PEM file with the authority that signed the server's certificate.",
    },
    "timeout_seconds": {
        "label": "Timeout (seconds)",
        "schema": {"type": ["integer", "null"], "default": 10, "minimum": 1, "maximum": 3600},
        "description": "How long one request may wait for the server.",
    },
    "max_retries": {
        "label": "Retries",
        "schema": {"type": ["integer", "null"], "default": 2, "minimum": 0, "maximum": 10},
        "description": "How often one request is repeated when the server does not answer or answers 5xx.",
    },
    "ui_url": {
        "label": "Web address",
        "schema": {"type": ["string", "null"]},
        "description": "Where people open MLflow in the browser, if that is not the tracking URI.",
    },
}

#: How the standard fields of the form are named and which are left out.
FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["extra"],
    "relabeling": {
        "host": "Tracking URI",
        "schema": "Scheme",
        "login": "User",
        "password": "Password or token",
    },
    "placeholders": {
        "host": "https://mlflow.example.com (or a host name, with port and scheme below)",
        "schema": "http or https, when the tracking URI names none",
        "login": "empty for a bearer token",
        "password": "the user's password; with no user, a bearer token",
    },
}

LINKS = ("EvidentlyLink", "MLflowRunLink", "ModelVersionLink", "ReportLink", "ReusedFromLink")
OPERATORS = (
    "approval",
    "data",
    "drift",
    "model",
    "performance",
    "plan",
    "plan_monitoring",
    "plan_scoring",
    "policy",
    "registry",
    "scoring",
    "serving",
)
SENSORS = ("data", "labels", "model")
TRIGGERS = ("data", "labels", "model")


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description; it validates against Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": PACKAGE,
        "name": "MLOps",
        "description": (
            "One model specification becomes production machine learning: validate, train, gate, register and promote "
            "models with Airflow, MLflow, Great Expectations and Evidently."
        ),
        "versions": [version(PACKAGE)],
        "integrations": [
            {
                "integration-name": "MLflow",
                "external-doc-url": "https://mlflow.org/docs/latest/",
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": "MLflow",
                "python-modules": [f"airflow_mlops.operators.{name}" for name in OPERATORS],
            }
        ],
        "sensors": [
            {
                "integration-name": "MLflow",
                "python-modules": [f"airflow_mlops.sensors.{name}" for name in SENSORS],
            }
        ],
        "triggers": [
            {
                "integration-name": "MLflow",
                "python-modules": [f"airflow_mlops.triggers.{name}" for name in TRIGGERS],
            }
        ],
        "extra-links": [f"airflow_mlops.links.{name}" for name in LINKS],
        "hooks": [{"integration-name": "MLflow", "python-modules": ["airflow_mlops.hooks.mlflow"]}],
        "connection-types": [
            {
                "connection-type": "mlflow",
                "hook-class-name": HOOK_CLASS,
                "hook-name": "MLflow",
                "conn-fields": CONNECTION_FIELDS,
                "ui-field-behaviour": FIELD_BEHAVIOUR,
            }
        ],
    }
