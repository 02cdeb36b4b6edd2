"""The text of an inferred contract, as far as it is about scoring."""

from __future__ import annotations

from airflow_mlops.core.contract_text import as_mapping, contract_text
from airflow_mlops.core.inference import ColumnSeen, TableSeen, infer
from airflow_mlops.spec.contract import load_contract
from airflow_mlops.spec.yaml_lines import parse_yaml


def seen(*columns: ColumnSeen) -> TableSeen:
    return TableSeen(rows=100, columns=columns, smallest=100)


def test_the_target_is_train_only_so_that_batches_pass_without_it() -> None:
    target = ColumnSeen("was late?", "whole", 100, ("int64",), role="target", low=0, high=1, distinct=2, values=(0, 1))
    distance = ColumnSeen("distance", "whole", 100, ("int64",), low=1, high=9, distinct=9)
    inferred = infer(seen(distance, target))

    contract = load_contract(parse_yaml(contract_text(inferred, "From a test."), "c.yaml")[0])
    batch, left_out = contract.for_scoring(["distance"], inputs=["distance"])

    assert contract == load_contract(as_mapping(inferred))
    assert contract.train_only == ("was late?",)
    assert left_out
    assert all("was late?" in text for text in left_out)
    assert not [item for item in batch.expectations if item.touches("was late?")]
    assert batch.expectations[0].kwargs["column_set"] == ["distance"]


def test_without_a_target_nothing_is_train_only() -> None:
    inferred = infer(seen(ColumnSeen("distance", "whole", 100, ("int64",), low=1, high=9, distinct=9)))

    assert "train_only" not in contract_text(inferred, "From a test.")
    assert load_contract(as_mapping(inferred)).train_only == ()
