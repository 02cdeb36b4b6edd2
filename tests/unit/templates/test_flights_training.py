"""The flights team's training function: raw rows in, a model that lives without this package out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from airflow_mlops.templates.flights_training import train

PARAMETERS = {"max_iter": 20, "learning_rate": 0.1, "min_samples_leaf": 20}


def flights(rows: int = 12_000) -> pd.DataFrame:
    """Return rows like the lake's; more than 10,000, where scikit-learn's early stopping would begin to sample."""
    chance = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "carrier": chance.choice(["B6", "UA", "EV"], rows),
            "dest": chance.choice(["BOS", "IAH", "SFO", "MIA"], rows),
            "scheduled_minute": chance.integers(0, 1440, rows),
            "seats": chance.choice([55.0, 149.0, np.nan], rows),
            "temp": chance.normal(50, 15, rows),
        }
    )
    frame.loc[::50, "carrier"] = None
    return frame


def late(frame: pd.DataFrame) -> pd.Series:
    chance = np.random.default_rng(4)
    risk = frame["scheduled_minute"] / 1440 + frame["carrier"].eq("EV") * 0.5
    return (risk + chance.normal(0, 0.3, len(frame)) > 0.9).astype("int64")


@pytest.fixture(scope="module")
def model() -> Pipeline:
    data = flights()
    return train(data, late(data), weights=None, parameters=PARAMETERS, seed=7)


def chances(model: Pipeline, frame: pd.DataFrame) -> np.ndarray:
    return model.predict_proba(frame)[:, 1]


def test_it_learns(model: Pipeline) -> None:
    from sklearn.metrics import roc_auc_score

    data = flights()
    assert roc_auc_score(late(data), chances(model, data)) > 0.8


def test_an_unseen_category_counts_as_a_missing_one(model: Pipeline) -> None:
    rows = flights()[:200]

    unseen = chances(model, rows.assign(carrier="ZZ", dest="XXX"))
    missing = chances(model, rows.assign(carrier=None, dest=None))

    assert np.array_equal(unseen, missing)
    assert not np.array_equal(missing, chances(model, rows.assign(carrier="EV", dest="BOS")))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: rows[rows.columns[::-1]], id="columns in another order"),
        pytest.param(lambda rows: rows.assign(late=1, flight=7), id="columns that training did not have"),
        pytest.param(lambda rows: rows.astype({"carrier": object, "dest": "category"}), id="other types of text"),
    ],
)
def test_the_same_rows_in_another_dress_score_the_same(model: Pipeline, change) -> None:
    rows = flights()[:200]

    assert np.array_equal(chances(model, change(rows)), chances(model, rows))


def test_a_weather_column_without_any_value_still_scores(model: Pipeline) -> None:
    assert np.isfinite(chances(model, flights()[:200].assign(temp=np.nan))).all()


def test_the_model_does_not_hang_on_the_seed(model: Pipeline) -> None:
    data = flights()
    other = train(data, late(data), weights=None, parameters=PARAMETERS, seed=8)

    assert np.array_equal(chances(other, data), chances(model, data))


def test_weights_are_used(model: Pipeline) -> None:
    data = flights()
    weights = pd.Series(np.where(data["carrier"].eq("EV"), 5.0, 0.5))

    weighted = train(data, late(data), weights=weights, parameters=PARAMETERS, seed=7)

    assert not np.array_equal(chances(weighted, data), chances(model, data))


def test_the_saved_model_loads_where_the_training_file_does_not_exist(model: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(cloudpickle.dumps(model))
    rows = flights()[:50]
    rows.to_parquet(tmp_path / "rows.parquet")
    code = (
        "import sys; sys.modules['airflow_mlops'] = None\n"  # any import of the package now fails
        "import cloudpickle, numpy, pandas\n"
        "model = cloudpickle.load(open('model.pkl', 'rb'))\n"
        "numpy.save('chances.npy', model.predict_proba(pandas.read_parquet('rows.parquet'))[:, 1])\n"
    )

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

    assert np.array_equal(np.load(tmp_path / "chances.npy"), chances(model, rows))


def test_an_unknown_parameter_is_refused_by_name() -> None:
    data = flights(100)

    with pytest.raises(ValueError, match=r"\['depth'\].*use \['learning_rate', 'max_iter', 'min_samples_leaf'\]"):
        train(data, late(data), weights=None, parameters={"depth": 3}, seed=7)


def test_a_target_with_one_class_is_refused() -> None:
    data = flights(100)

    with pytest.raises(ValueError, match="All 100 rows have the same target"):
        train(data, pd.Series([0] * 100), weights=None, parameters={}, seed=7)
