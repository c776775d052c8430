"""Ranking of whole faults: what was planted is strangest, causally and in hindsight, on whatever scale."""

import numpy as np
import pytest

from training.data.snapshots import Series
from training.evaluation.anomaly_metrics import vus_pr
from training.evaluation.finding import strangest
from training.evaluation.multiscale import BLOCK, WARM_UP, MultiscaleScorer, hindsight

COUNT = 3000
SPANS = [pytest.param(slice(2200, 2212), id="short"), pytest.param(slice(2200, 2400), id="long")]


def series(values: np.ndarray, key: str = "demo/pump/flow") -> Series:
    return Series(key, 60.0 * np.arange(len(values), dtype=np.float64), values)


def wave(planted: slice | None = None, seed: int = 0) -> np.ndarray:
    """A noisy wave, which stands still for a while."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(COUNT) / 8.0) + 0.05 * rng.standard_normal(COUNT)
    if planted is not None:
        values[planted] = 0.5 + 0.05 * rng.standard_normal(planted.stop - planted.start)
    return values


@pytest.mark.parametrize("planted", SPANS)
def test_a_causal_score_rises_with_the_fault_and_stays(planted: slice) -> None:
    scores = MultiscaleScorer().scores(series(wave(planted)), 0)
    labels = np.zeros(COUNT, dtype=bool)
    labels[planted] = True

    assert np.isnan(scores[:WARM_UP]).all()
    assert np.isfinite(scores[WARM_UP:]).all()
    assert planted.start <= int(np.nanargmax(scores)) < planted.stop + 200
    assert vus_pr(scores[WARM_UP:], labels[WARM_UP:]) > 0.5


def test_a_later_reading_changes_no_earlier_score() -> None:
    """Neither within a block nor across."""
    whole = wave()
    other = whole.copy()
    cut = WARM_UP + 5 * BLOCK + 10
    other[cut:] += 7.0
    before = MultiscaleScorer().scores(series(whole), 0)[:cut]

    np.testing.assert_allclose(MultiscaleScorer().scores(series(other), 0)[:cut], before, rtol=1e-9)
    np.testing.assert_allclose(MultiscaleScorer().scores(series(whole[:cut]), 0), before, rtol=1e-9)


@pytest.mark.parametrize("planted", [*SPANS, pytest.param(slice(60, 160), id="before-anything-is-known")])
def test_in_hindsight_the_fault_is_strangest(planted: slice) -> None:
    scores = hindsight(wave(planted))
    labels = np.zeros(COUNT, dtype=bool)
    labels[planted] = True

    assert planted.start - 100 <= int(np.argmax(scores)) < planted.stop + 100
    assert vus_pr(scores, labels) > 0.3


def test_units_do_not_matter() -> None:
    values = wave(slice(2200, 2400))

    np.testing.assert_allclose(hindsight(values * 1e6 + 1e9), hindsight(values), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 89, 90, 500])
def test_any_length_is_judged(count: int) -> None:
    """A series too short for every scale gets no find; a constant one neither."""
    values = wave()[:count]

    assert hindsight(values).shape == (count,)
    assert np.isfinite(hindsight(values)).all()
    assert MultiscaleScorer().scores(series(values), 0).shape == (count,)
    assert strangest([series(np.full(count, 7.0))], 3) == []


def test_the_strangest_stretches_of_all_series_come_first_and_apart() -> None:
    """Two faults in one series and one in another are among the first four; nothing is found twice."""
    two = wave(slice(1000, 1100))
    two[2200:2300] = -0.5
    found = strangest([series(two, "demo/a/flow"), series(wave(slice(500, 600), 1), "demo/b/flow")], 4)

    assert {one.series for one in found} == {"demo/a/flow", "demo/b/flow"}
    assert [one.strangeness for one in found] == sorted((one.strangeness for one in found), reverse=True)
    for one in found:
        assert one.from_ts <= one.peak_ts <= one.to_ts
    planted = {"demo/a/flow": [(1000, 1100), (2200, 2300)], "demo/b/flow": [(500, 600)]}
    hit = {
        (one.series, first)
        for one in found
        for first, last in planted[one.series]
        if one.from_ts <= 60.0 * last and one.to_ts >= 60.0 * first
    }
    assert len(hit) == 3
