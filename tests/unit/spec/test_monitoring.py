"""What a specification may say of scoring, labels, drift and policy, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.resolve import label_settings, scored_data, scoring_settings

FLIGHTS = Path(__file__).parents[3] / "airflow_mlops" / "templates" / "flights.yaml"
PLAIN = {"scoring": None, "labels": None, "monitoring": {}, "drift": {}}


def spec(**changes: Any) -> ModelSpec:
    flights = load_spec(FLIGHTS)
    return ModelSpec.model_validate({**flights.model_dump(), "folder": flights.folder, **PLAIN, **changes})


LABELS = {"data": {"uri": "labels", "event_time": "event_time"}}


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"monitoring": {"performance": {"metric": "roc_auc", "max_drop": 0.1}}}, "needs labels"),
        ({"labels": LABELS, "monitoring": {"performance": {"metric": "mae", "max_drop": 0.1}}}, "does not list"),
        ({"monitoring": {"drift": {"breaches": 3, "of_last": 2}}}, "3 of the last 2 windows, which cannot happen"),
        ({"scoring": {"output_uri": "s3://user:secret@bucket/x"}}, "put them into an Airflow connection"),
        ({"scoring": {"output_uri": "out", "shadow": "challenger", "split": {"share": 0.1}}}, "either shadow"),
        (
            {"scoring": {"output_uri": "out", "split": {"share": 0.1}}, "data": {"uri": "d", "event_time": "t"}},
            "split.by or data.id_columns",
        ),
        ({"labels": LABELS, "data": {"uri": "d", "event_time": "t"}}, "labels.entity or data.id_columns"),
        ({"labels": {**LABELS, "deadline": "soon"}}, "is not a length"),
        ({"drift": {"min_share": 0}}, "greater than 0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(changes: dict[str, Any], mend: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        spec(**changes)

    assert mend in str(caught.value)
    assert "secret" not in str(caught.value)


def test_labels_take_column_and_entity_from_the_model() -> None:
    settings = label_settings(spec(labels=LABELS))

    assert (settings["label"], settings["entity"]) == ("late", ["flight", "tailnum"])
    assert Path(settings["data"]["uri"]).is_absolute()


def test_entity_columns_of_the_scored_rows_serve_labels_and_split() -> None:
    rows = {"uri": "feed", "event_time": "t", "id_columns": ["ticket"]}
    model = spec(
        data={"uri": "d", "event_time": "t"},
        scoring={"output_uri": "out", "data": rows, "split": {"share": 0.1}},
        labels=LABELS,
    )

    assert scored_data(model).uri == "feed"
    assert label_settings(model)["entity"] == ["ticket"]


def test_where_predictions_go_starts_from_the_specifications_folder_unless_it_is_an_address() -> None:
    local = scoring_settings(spec(scoring={"output_uri": "../out"}))
    remote = scoring_settings(spec(scoring={"output_uri": "s3://bucket/out"}))

    assert local["output_uri"] == str(FLIGHTS.parents[1] / "out")
    assert remote["output_uri"] == "s3://bucket/out"
    assert "schedule" not in local
    assert "data" not in local


def test_a_model_without_scoring_or_labels_says_what_is_missing() -> None:
    with pytest.raises(InvalidSpecError, match=r"scoring\.output_uri"):
        scoring_settings(spec())
    with pytest.raises(InvalidSpecError, match=r"labels\.data"):
        label_settings(spec())
