"""Ranks compare with the past only, and the threshold means a rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.conformal import HIGH, LOW, RankHistory, Tail
from ingest.detection_settings import BLOCK

TAILS = ((0, HIGH), (0, LOW), (1, HIGH))


def brute_force(features: np.ndarray) -> np.ndarray:
    """Ranks by the definition, one reading at a time."""
    ranks = np.zeros((len(TAILS), features.shape[1]))
    for tail, (feature, side) in enumerate(TAILS):
        for now in range(features.shape[1]):
            value, past = features[feature, now], features[feature, :now]
            past = past[~np.isnan(past)]
            if not np.isnan(value):
                extreme = (past >= value).sum() if side == HIGH else (past <= value).sum()
                ranks[tail, now] = np.log10((len(past) + 1) / (extreme + 1))
    return ranks


def judge_in(history: RankHistory, features: np.ndarray, sizes: list[int]) -> np.ndarray:
    parts, start, turn = [], 0, 0
    while start < features.shape[1]:
        size = min(sizes[turn % len(sizes)], history.room, features.shape[1] - start)
        parts.append(history.judge(features[:, start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate(parts, axis=1)


@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_ranks_are_those_of_the_definition_in_any_batches(sizes: list[int], seed: int) -> None:
    """Ties, missing values and batch boundaries included."""
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 12, size=(2, 230)).astype(np.float32)
    features[1, rng.random(230) < 0.2] = np.nan

    ranks = judge_in(RankHistory(TAILS, capacity=10_000), features, sizes)

    np.testing.assert_allclose(ranks, brute_force(features))


def test_old_readings_leave_the_history() -> None:
    """After ``capacity`` further readings an old extreme is forgotten."""
    history = RankHistory(((0, HIGH),), capacity=BLOCK)
    values = np.concatenate([[100.0], np.zeros(3 * BLOCK - 1)]).astype(np.float32)
    judge_in(history, values[None, :], [BLOCK])

    assert history.judge(np.array([[50.0]], dtype=np.float32))[0, 0] == pytest.approx(np.log10(BLOCK + 1))


def test_a_constant_series_is_never_rare() -> None:
    """Ties count as extreme, so equal values rank 0."""
    ranks = judge_in(RankHistory(TAILS, 1000), np.full((2, 200), 3.0, dtype=np.float32), [7])

    assert ranks.max() == 0.0


def test_refill_ranks_in_hindsight_and_goes_on_from_there() -> None:
    """After a change of model the next ranks compare with the new features."""
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(2, 150)).astype(np.float32), rng.normal(size=(2, 150)).astype(np.float32)
    refilled, fresh = RankHistory(TAILS, 1000), RankHistory(TAILS, 1000)
    judge_in(refilled, old, [BLOCK])
    judge_in(fresh, new, [BLOCK])

    hindsight = refilled.refill(new, unsorted=150 % BLOCK)

    assert hindsight.shape == (len(TAILS), 150)
    assert hindsight[0].max() == pytest.approx(np.log10(150))
    probe = np.array([[1.5], [0.3]], dtype=np.float32)
    np.testing.assert_allclose(refilled.judge(probe), fresh.judge(probe))


@pytest.mark.parametrize("rate", [0.01, 0.003, 0.001])
def test_the_threshold_is_passed_at_the_rate_it_was_asked_for(rate: float) -> None:
    """On exponential scores, within a third."""
    rng = np.random.default_rng(7)
    tail = Tail.fit(rng.exponential(1.3, size=20_000), share=0.05)

    passed = (rng.exponential(1.3, size=200_000) >= tail.threshold(rate)).mean()

    assert passed == pytest.approx(rate, rel=1 / 3)
    assert tail.rate(tail.threshold(rate)) == pytest.approx(rate)


def test_equal_scores_make_a_finite_threshold() -> None:
    """A history without any variation still has one."""
    tail = Tail.fit(np.zeros(100), share=0.05)

    assert 0.0 < tail.threshold(0.003) < 1.0
