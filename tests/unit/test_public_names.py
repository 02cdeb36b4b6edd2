from __future__ import annotations

import ast
from pathlib import Path

import airflow_mlops


def test_every_public_name_loads() -> None:
    for name in airflow_mlops.__all__:
        assert getattr(airflow_mlops, name).__module__.startswith("airflow_mlops."), name


def test_the_list_is_sorted_and_complete() -> None:
    source = Path(airflow_mlops.__file__).read_text()
    typed = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_mlops.")
        for alias in node.names
    }

    assert airflow_mlops.__all__ == sorted(airflow_mlops.__all__)
    assert set(airflow_mlops.__all__) == typed == set(airflow_mlops._MODULE_OF)
