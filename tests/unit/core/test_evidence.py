"""Evidence as values: a JSON round trip that loses nothing, and p-values that count what they say."""

from __future__ import annotations

import json
import random

import pytest

from airflow_mlops.core.evidence import Evidence, Measurement, Replicates
from airflow_mlops.core.holm import draws_needed, holm


def test_replicates_survive_json_and_are_sorted() -> None:
    packed = Replicates.of([0.3, -0.1, 0.0], undefined=2)

    again = Replicates.model_validate_json(packed.model_dump_json())

    assert again == packed
    assert list(again.numbers) == pytest.approx([-0.1, 0.0, 0.3], abs=1e-7)
    assert again.draws == 5


def test_replicates_read_the_same_on_every_machine() -> None:
    # 1.0 as a little-endian 32-bit float is 00 00 80 3f.
    assert Replicates.of([1.0]).values == "AACAPw=="


@pytest.mark.parametrize(
    ("limit", "strictly", "reaching"),
    [
        pytest.param(0.0, False, 3, id="at or above: a tie reaches 0"),
        pytest.param(0.0, True, 2, id="above: a tie does not"),
        pytest.param(-0.01, False, 4, id="a replicate on the limit reaches it, 32-bit or not"),
        pytest.param(-0.01, True, 3, id="but is not above it"),
        pytest.param(9.0, False, 0, id="beyond all"),
        pytest.param(-9.0, False, 5, id="below all"),
    ],
)
def test_how_many_replicates_reach_a_limit(limit: float, strictly: bool, reaching: int) -> None:
    assert Replicates.of([-0.02, -0.01, 0.0, 0.01, 0.02]).reaching(limit, strictly=strictly) == reaching


def test_p_values_are_never_zero_and_add_one() -> None:
    packed = Replicates.of([-0.02] * 99)

    assert packed.p_of_shortfall(-0.01) == pytest.approx(1 / 100)
    assert packed.p_of_reaching(-0.01) == pytest.approx(100 / 100)


def test_a_draw_without_a_value_counts_against_every_proof() -> None:
    packed = Replicates.of([-0.02] * 60, undefined=39)

    assert packed.p_of_shortfall(-0.01) == pytest.approx(40 / 100)
    assert packed.p_of_reaching(-0.03) == pytest.approx(40 / 100)
    assert (packed.draws, packed.defined) == (99, 60)


def test_leniently_it_counts_for_the_proof() -> None:
    packed = Replicates.of([-0.02] * 60, undefined=39)

    assert packed.p_of_shortfall(-0.01, lenient=True) == pytest.approx(1 / 100)
    assert packed.p_of_reaching(-0.03, lenient=True) == pytest.approx(1 / 100)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([0.03], [0.03], id="one test is not corrected"),
        pytest.param([0.01, 0.04, 0.03], [0.03, 0.06, 0.06], id="in the order they came; never below an earlier one"),
        pytest.param([0.5, 0.9], [1.0, 1.0], id="never above 1"),
        pytest.param([0.007, 0.573, 0.974, 1.0], [0.028, 1.0, 1.0, 1.0], id="the flights of May"),
    ],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted)


def test_holm_keeps_the_chance_of_one_wrong_rejection() -> None:
    rng = random.Random(1)
    wrong = sum(min(holm([rng.random() for _ in range(8)])) <= 0.05 for _ in range(4000))

    assert wrong / 4000 == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("tests", "alpha", "draws"),
    [(1, 0.05, 19), (4, 0.05, 79), (200, 0.05, 3999), (1, round(1 - 0.95, 12), 19), (3, 0.01, 299)],
)
def test_the_draws_that_holm_needs(tests: int, alpha: float, draws: int) -> None:
    assert draws_needed(tests, alpha) == draws
    assert tests / (draws + 1) <= alpha + 1e-12
    assert tests / draws > alpha


def evidence() -> Evidence:
    def one(metric: str, value: str | None) -> Measurement:
        return Measurement(
            metric=metric, slice="carrier" if value else None, value=value, rows=10, candidate=0.7, champion=0.6,
            difference=0.1, low=0.05, high=0.15, replicates=Replicates.of([0.1, 0.2]),
        )  # fmt: skip

    return Evidence(
        task="binary", registered_model="flights", model_uri="models:/m-1", model_digest="a", champion=None,
        dataset_digest="d", window=None, rows=10, metrics={"roc_auc": True, "log_loss": False},
        measurements=(one("roc_auc", None), one("log_loss", None), one("roc_auc", "B6"), one("roc_auc", "UA")),
        draws=2, notes={"target": "1 row was left out"},
    )  # fmt: skip


def test_evidence_survives_json() -> None:
    stored = json.loads(json.dumps(evidence().model_dump(mode="json"), allow_nan=False))

    assert Evidence.from_xcom(stored) == evidence()


def test_evidence_finds_what_a_rule_asks_for() -> None:
    found = evidence()

    assert found.overall("roc_auc").value is None
    assert found.overall("rmse") is None
    assert [one.value for one in found.slices("roc_auc", "carrier")] == ["B6", "UA"]
    assert found.slices("log_loss", "carrier") == []


@pytest.mark.parametrize(("confidence", "alpha"), [(0.95, 0.05), (0.9, 0.1), (0.99, 0.01)])
def test_the_one_sided_error(confidence: float, alpha: float) -> None:
    assert evidence().model_copy(update={"confidence": confidence}).alpha == alpha
