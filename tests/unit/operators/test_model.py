"""What the model operators hand to their steps."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops import EvaluateModelOperator, TrainModelOperator

VALIDATION = {"dataset": {"digest": "d"}, "run_id": "v1", "verdict": "pass"}


def payload(operator: Any) -> Any:
    return operator.payload({})


@pytest.mark.parametrize(("validation", "run_id"), [(VALIDATION, "v1"), ({"dataset": {"digest": "d"}}, "")])
def test_the_run_that_checked_the_rows_goes_with_them(validation: dict[str, Any], run_id: str) -> None:
    train = TrainModelOperator(
        task_id="train", validation=validation, train={}, code_path="/c", data={}, task="binary", model_name="m"
    )
    evaluate = EvaluateModelOperator(
        task_id="evaluate", model={}, validation=validation, evaluation={}, registered_model="m"
    )

    for operator in (train, evaluate):
        assert payload(operator)["dataset"] == {"digest": "d"}
        assert payload(operator)["validation_run_id"] == run_id
