"""The fleet of the parse benchmark: model files, the same as plain dicts for DAGs by hand, and as dag-factory's YAML.

``FOLDER/models`` has what ``load_models`` reads. ``FOLDER/hand_models.py`` has ``MODELS``, a list of dicts with all
that the DAGs of :mod:`benchmarks.parse_hand` are given: ready values, so that nothing is left to compute there.
``FOLDER/dag_factory`` has one file a training DAG, with the arguments that the tasks of ours have.
"""

from __future__ import annotations

import json
import pprint
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

MODEL = """\
# Will an order of the {region} region come back?
name: returns_{number:04d}
description: >-
  Will an order of the {region} region be sent back within thirty days? Orders of the web shop, with what is known of
  the customer when the order is paid.
owner: returns-team
tags: [shop, {region}]

data:
  uri: s3://shop-lake/orders/{region}    # one Parquet file a day
  format: parquet
  event_time: ordered_at
  id_columns: [order_id, customer_id]

contract:
  path: orders_contract.yaml

train:
  function: returns_training:train
  flavor: sklearn
  serialization: cloudpickle
  target: returned
  features:
    [category, brand, price, discount, items, weekday, hour, channel, payment, delivery_days,
     customer_age_days, orders_before, returns_before, size_changes, region_zip, weight]
  # The largest regions get more rounds.
  parameters: {{max_iter: {rounds}, learning_rate: 0.1, min_samples_leaf: 100}}
  seed: {number}
  window: {{length: 6 months, gap: 30 days}}

evaluation:
  task: binary
  metrics: [roc_auc, log_loss]
  slices: [channel]
  bootstrap_draws: 2000

gate:
  mode: enforce
  on_hold: skip
  rules:
    - {{rule: at_least, metric: roc_auc, value: 0.65}}
    - {{rule: better_than_champion, metric: roc_auc}}
    - {{rule: slices_no_worse, metric: roc_auc, slice: channel, margin: 0.01, evidence: harm, min_rows: 4000}}

promotion:
  alias: champion

schedule:
  on_retrain: true
  retries: 2
  retry_delay_seconds: 60
  task_timeout_minutes: 90
"""
WATCHED = """
scoring:
  output_uri: s3://shop-lake/predictions/returns/{region}
  keep: [channel]
  shadow: previous_champion
  schedule: {{cron: "0 5 * * *", timezone: Europe/Brussels, start_date: "2026-01-01", retries: 2}}

labels:
  data: {{uri: "s3://shop-lake/returns/{region}", event_time: ordered_at}}
  entity: [order_id]
  coverage: 0.95
  deadline: 45 days

drift:
  numeric: {{method: psi, threshold: 0.25}}
  categorical: {{method: psi, threshold: 0.25}}
  min_columns: 3
  min_rows: 5000

monitoring:
  drift: {{breaches: 2, of_last: 3, action: retrain}}
  performance: {{metric: roc_auc, max_drop: 0.05, breaches: 2, of_last: 3, action: notify}}
  cool_down: 60 days
"""
CONTRACT = """\
min_rows: 1000
expectations:
  - type: expect_column_values_to_not_be_null
    kwargs: {column: ordered_at}
    on_failure: fail
"""
REGIONS = ("antwerp", "bruges", "ghent", "hasselt", "leuven", "liege", "mons", "namur")


def write_models(folder: Path, count: int, *, watched: bool) -> None:
    """Write ``count`` model files.

    :param watched: each with scoring, labels and monitoring, that is three DAGs; else the training DAG alone.
    """
    models = folder / "models"
    models.mkdir(parents=True)
    (models / "orders_contract.yaml").write_text(CONTRACT)
    for number in range(count):
        text = MODEL + (WATCHED if watched else "")
        name = models / f"returns_{number:04d}.yaml"
        name.write_text(
            text.format(number=number, region=REGIONS[number % len(REGIONS)], rounds=100 + 50 * (number % 4))
        )


def write_hand(folder: Path) -> None:
    """Write what the DAGs by hand are given, for the model files that are there."""
    from airflow_mlops.spec.load import load_spec

    found = [_plain(load_spec(file)) for file in sorted((folder / "models").glob("returns_*.yaml"))]
    (folder / "hand_models.py").write_text("MODELS = " + pprint.pformat(found, width=120, sort_dicts=False) + "\n")


def _plain(spec: Any) -> dict[str, Any]:
    from airflow_mlops.factories import monitoring, scoring, training
    from airflow_mlops.spec.resolve import code_folder, contract_file, data_settings, label_settings, scoring_settings

    found: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "owner": spec.owner,
        "tags": list(spec.tags),
        "data": data_settings(spec),
        "contract": contract_file(spec),
        "train": spec.train.model_dump(mode="json"),
        "code_path": str(code_folder(spec)),
        "evaluation": spec.evaluation.model_dump(mode="json"),
        "serving": spec.serving.model_dump(mode="json"),
        "gate": spec.gate.model_dump(mode="json"),
        "training_doc": training.describe(spec),
    }
    if spec.scoring is not None:
        found |= {
            "scoring": scoring_settings(spec),
            "scoring_cron": spec.scoring.schedule.cron,
            "labels": label_settings(spec),
            "drift": spec.drift.model_dump(mode="json"),
            "monitoring": spec.monitoring.model_dump(mode="json", exclude={"schedule"}),
            "scoring_doc": scoring.describe(spec),
            "monitoring_doc": monitoring.describe(spec),
        }
    return found


def write_dag_factory(folder: Path) -> None:
    """Write every training DAG of ours as dag-factory's YAML, one file a DAG.

    The operators and their arguments are the same, with anchors where a mapping is given to several tasks. dag-factory
    has no word for one task's output among the arguments of another, so these are the template that the output stands
    for, and ``dependencies`` name the edges. It is spared the task groups (it cannot have tasks of one name in two of
    them) and the DAG's own documentation; run parameters, schedule and outlets are written in its plainest way.
    """
    import yaml

    from airflow_mlops.factories.training import training_dag
    from airflow_mlops.spec.load import load_spec

    target = folder / "dag_factory"
    target.mkdir()
    for file in sorted((folder / "models").glob("returns_*.yaml")):
        dag = training_dag(load_spec(file))
        shared: dict[str, Any] = {}
        settings = {
            "description": dag.description,
            "schedule": [one.name for one in dag.timetable.asset_condition.objects],
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "tags": sorted(dag.tags),
            "params": dag.params.dump(),
            "default_args": {key: _written(value, shared) for key, value in dag.default_args.items()},
            "tasks": [_task(task, shared) for task in dag.topological_sort()],
        }
        text = yaml.dump({dag.dag_id: settings}, sort_keys=False, width=120)
        (target / f"{dag.dag_id}.yaml").write_text(text)


def _task(task: Any, shared: dict[str, Any]) -> dict[str, Any]:
    given = {
        key: _written(value, shared)
        for key, value in task._BaseOperator__init_kwargs.items()  # what the operator was made with
        if key not in ("task_id", "dag", "task_group", "params", "default_args", "outlets")
        and task.dag.default_args.get(key) != value
    }
    if not task.notifications:
        given.pop("notifications", None)
    if task.outlets:
        given["outlets"] = [one.name for one in task.outlets]
    return {
        "task_id": task.task_id,
        "operator": f"{type(task).__module__}.{type(task).__name__}",
        **given,
        **({"dependencies": sorted(task.upstream_task_ids)} if task.upstream_task_ids else {}),
    }


def _written(value: Any, shared: dict[str, Any]) -> Any:
    """Return plain YAML; equal mappings are one object, which YAML writes once, with an anchor."""
    if isinstance(value, timedelta):
        return {"__type__": "datetime.timedelta", "seconds": value.total_seconds()}
    if isinstance(value, Mapping | list):
        return shared.setdefault(json.dumps(value, sort_keys=True), value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
