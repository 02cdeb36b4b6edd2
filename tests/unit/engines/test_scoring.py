"""Candidate and champion on the same rows: groups, pairs, intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.engines import bootstrap
from airflow_mlops.engines.bootstrap import group_generator, resampled
from airflow_mlops.engines.metrics import load_metrics
from airflow_mlops.engines.predictions import Outputs, Truth
from airflow_mlops.engines.scoring import MISSING, Group, groups_of, measure
from airflow_mlops.errors import InvalidSpecError

ALL = Group(None, None, np.arange(400))


def outputs(p: np.ndarray) -> Outputs:
    return Outputs(p, scores=p, probabilities=p, labels=(p >= 0.5).astype(int))


@pytest.fixture
def story() -> tuple[Truth, Outputs, Outputs]:
    """A good and a bad model of 400 rows."""
    rng = np.random.default_rng(5)
    codes = (rng.random(400) < 0.4).astype(int)
    good = 1 / (1 + np.exp(-(2 * codes - 1 + rng.normal(size=400))))
    bad = 1 / (1 + np.exp(-(0.3 * codes + rng.normal(size=400))))
    return Truth("binary", codes, codes, (0, 1)), outputs(good), outputs(bad)


def measured(story, *names, groups=(ALL,), draws=300, swap=False, seed=7, same=False):
    truth, good, bad = story
    pair = (bad, good) if swap else (good, good if same else bad)
    return measure(
        truth, *pair, metrics=load_metrics("binary", names), groups=groups, draws=draws, seed=seed, confidence=0.95
    )


@pytest.mark.parametrize("name", ["roc_auc", "log_loss"])
def test_better_is_positive_whatever_the_direction(story, name) -> None:
    (one,) = measured(story, name)

    assert one.difference > 0
    assert one.low < one.difference < one.high
    assert one.difference == pytest.approx(abs(one.candidate - one.champion))


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "f1"])
def test_swapping_the_models_swaps_the_signs_and_nothing_else(story, name) -> None:
    (one,), (other,) = measured(story, name), measured(story, name, swap=True)

    assert (one.candidate, one.champion) == (other.champion, other.candidate)
    assert one.difference == -other.difference
    assert sorted(-v for v in other.replicates.numbers) == list(one.replicates.numbers)


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "accuracy", "average_precision"])
def test_a_model_compared_with_itself_ties_in_every_draw(story, name) -> None:
    (one,) = measured(story, name, same=True)

    assert (one.difference, one.low, one.high) == (0, 0, 0)
    assert set(one.replicates.numbers) == {0.0}


def test_the_seed_makes_the_draws(story) -> None:
    assert measured(story, "roc_auc") == measured(story, "roc_auc")
    assert measured(story, "roc_auc") != measured(story, "roc_auc", seed=8)


def test_a_group_draws_the_same_whatever_else_is_measured(story) -> None:
    part = Group("carrier", "B6", np.arange(0, 400, 3))
    alone = measured(story, "roc_auc", groups=[part])
    among = measured(story, "log_loss", "roc_auc", groups=[ALL, part])

    assert alone[0] == among[3]


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch) -> None:
    whole = np.concatenate(list(resampled(50, 40, group_generator(1, "x"))))
    monkeypatch.setattr(bootstrap, "CHUNK", 350)
    pieces = list(resampled(50, 40, group_generator(1, "x")))

    assert len(pieces) == 6
    assert (np.concatenate(pieces) == whole).all()
    assert (whole.sum(axis=1) == 50).all()


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    # Accuracy of 0.80 against 0.75 on 300 rows: the truth is known, so coverage can be counted.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        codes = np.ones(300, dtype=int)
        good, bad = ((rng.random(300) < share).astype(float) for share in (0.80, 0.75))
        (one,) = measure(
            Truth("binary", codes, codes, (0, 1)),
            outputs(good),
            outputs(bad),
            metrics=load_metrics("binary", ["accuracy"]),
            groups=[Group(None, None, np.arange(300))],
            draws=400,
            seed=seed,
            confidence=0.9,
        )
        covered += one.low <= 0.05 <= one.high
    assert 80 <= covered <= 98


def test_a_regression_is_compared_by_error_and_by_fit() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(50, 5, 400)
    near, far = Outputs(values + rng.normal(size=400)), Outputs(values + 3 * rng.normal(size=400))
    names = ["rmse", "r2", "median_absolute_error"]

    found = measure(
        Truth("regression", values), near, far, metrics=load_metrics("regression", names), groups=[ALL], draws=200,
        seed=7, confidence=0.95,
    )  # fmt: skip

    assert [0 < one.low < one.difference < one.high for one in found] == [True, True, True]
    assert found[0].candidate < found[0].champion


def test_several_classes_are_compared_even_where_a_slice_lacks_one() -> None:
    rng = np.random.default_rng(2)
    codes = np.repeat([0, 1, 2], [150, 150, 100])
    sure, unsure = (np.eye(3)[codes] * weight + rng.random((400, 3)) for weight in (1.0, 0.2))
    models = [
        Outputs(np.array(list("abc"))[p.argmax(axis=1)], probabilities=p, labels=p.argmax(axis=1))
        for p in (sure / sure.sum(axis=1, keepdims=True), unsure / unsure.sum(axis=1, keepdims=True))
    ]
    truth = Truth("multiclass", np.array(list("abc"))[codes], codes, ("a", "b", "c"), (0, 1, 2))
    metrics = load_metrics("multiclass", ["roc_auc_ovr", "f1_macro", "log_loss"])

    found = measure(
        truth, *models, metrics=metrics, groups=[ALL, Group("k", "ab", np.arange(300))], draws=200, seed=7,
        confidence=0.95,
    )  # fmt: skip

    assert [one.low > 0 for one in found[:3]] == [True, True, True]
    assert (found[3].undefined, found[3].difference) == ("labels", None)
    assert [one.difference > 0 for one in found[4:]] == [True, True]


def test_without_a_champion_nothing_is_resampled(story) -> None:
    truth, good, _ = story
    (one,) = measure(
        truth, good, None, metrics=load_metrics("binary", ["roc_auc"]), groups=[ALL], draws=300, seed=7, confidence=0.95
    )

    assert one.candidate is not None
    assert (one.champion, one.difference, one.replicates) == (None, None, None)


def test_one_class_in_a_slice_is_named_as_the_labels_doing(story) -> None:
    truth = story[0]
    part = Group("carrier", "B6", np.flatnonzero(truth.codes == 0))

    auc, loss = measured(story, "roc_auc", "log_loss", groups=[part])

    assert (auc.candidate, auc.difference, auc.replicates, auc.undefined) == (None, None, None, "labels")
    assert "one class only (0)" in auc.note
    assert loss.difference is not None


def test_a_draw_that_misses_a_class_is_counted(story) -> None:
    truth = story[0]
    rows = np.r_[np.flatnonzero(truth.codes == 0)[:6], np.flatnonzero(truth.codes == 1)[:1]]

    (one,) = measured(story, "roc_auc", groups=[Group("carrier", "B6", rows)])

    # One positive among seven rows is missed in (6/7)^7 = 34 % of the draws.
    assert 60 < one.replicates.undefined < 150
    assert one.replicates.draws == 300
    assert "bootstrap draws had no value" in one.note


def test_a_nan_prediction_leaves_every_metric_undefined(story) -> None:
    truth, good, bad = story
    broken = good.scores.copy()
    broken[3] = np.nan
    found = measure(
        truth, outputs(broken), bad, metrics=load_metrics("binary", ["roc_auc", "accuracy"]), groups=[ALL], draws=100,
        seed=7, confidence=0.95,
    )  # fmt: skip

    assert [one.undefined for one in found] == ["candidate", "candidate"]
    assert found[0].note == "the candidate predicted NaN or infinity on 1 of 400 rows"
    assert found[0].champion is not None


def test_slices_come_sorted_with_missing_values_as_one_of_their_own() -> None:
    frame = pd.DataFrame({"carrier": ["B6", None, "AA", "B6", float("nan"), "UA"]})

    groups = groups_of(frame, ["carrier"], 10)

    assert [(group.column, group.value, group.rows.tolist()) for group in groups] == [
        (None, None, [0, 1, 2, 3, 4, 5]),
        ("carrier", MISSING, [1, 4]),
        ("carrier", "AA", [2]),
        ("carrier", "B6", [0, 3]),
        ("carrier", "UA", [5]),
    ]


def test_values_that_read_alike_stay_apart() -> None:
    groups = groups_of(pd.DataFrame({"k": [1, "1", MISSING, None]}, dtype=object), ["k"], 10)

    assert [(group.value, group.rows.tolist()) for group in groups[1:]] == [
        ("'(missing)'", [2]),
        ("'1'", [1]),
        (MISSING, [3]),
        ("1", [0]),
    ]


def test_categories_without_rows_are_no_slice() -> None:
    frame = pd.DataFrame({"k": pd.Categorical(["a", "b"], categories=["a", "b", "c"])})

    assert [group.value for group in groups_of(frame, ["k"], 2)[1:]] == ["a", "b"]


@pytest.mark.parametrize(
    ("column", "most", "message"),
    [
        pytest.param("id", 3, r"4 different values.*max_slices \(3\).*coarser", id="too many values"),
        pytest.param("carier", 9, "'carier', which the data does not have: id", id="not a column"),
    ],
)
def test_slice_columns_that_cannot_be_used(column: str, most: int, message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        groups_of(pd.DataFrame({"id": [1, 2, 3, None]}), [column], most)
