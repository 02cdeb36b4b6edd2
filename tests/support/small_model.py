"""The smallest model that goes through the whole loop: three months of rows, one feature, a logistic regression."""

from __future__ import annotations

from pathlib import Path

SPEC = """
name: {name}
data: {{uri: rows.parquet, event_time: at}}
contract: {{path: contract.yaml}}
train:
  function: team:train
  serialization: cloudpickle
  target: y
  window: {{length: 1 month}}
evaluation: {{task: binary, metrics: [roc_auc], bootstrap_draws: 200}}
serving: {{check: {serving}}}
gate:
  rules:
    - {{rule: at_least, metric: roc_auc, value: 0.6}}
    - {{rule: no_worse_than_champion, metric: roc_auc, margin: 0.05, evidence: harm}}
"""

TEAM = """
def train(data, target, *, weights, parameters, seed):
    print("a team's own print")
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(data, target)
"""

CONTRACT = "expectations: [{type: expect_column_values_to_not_be_null, kwargs: {column: y}}]\n"


def write_small_model(folder: Path, name: str, more: str = "", *, serving: bool = False) -> Path:
    """Write rows of January to March 2024, contract, training function and specification; return the last's path.

    :param more: YAML lines put after the specification.
    :param serving: check that the model can be served, which takes some seconds.
    """
    import numpy as np
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    at = pd.date_range("2024-01-01", "2024-04-01", periods=3000, inclusive="left", tz="UTC")
    x = generator.normal(size=len(at))
    y = (x + generator.normal(size=len(at)) > 0).astype(int)
    pd.DataFrame({"at": at, "x": x, "y": y}).to_parquet(folder / "rows.parquet")
    (folder / "team.py").write_text(TEAM)
    (folder / "contract.yaml").write_text(CONTRACT)
    path = folder / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, serving=str(serving).lower()) + more)
    return path
