"""The baselines that judge sub-sequences: they find what was planted, know no future, and no units."""

import numpy as np
import pytest

from training.data.snapshots import Series
from training.evaluation.anomaly_metrics import vus_pr
from training.evaluation.baselines import BLOCK, WARM_UP, NearestScorer, PcaScorer
from training.evaluation.scoring import SeriesScorer

COUNT = 3000
PLANTED = slice(2200, 2260)
SCORERS = [
    pytest.param(PcaScorer(), id="pca"),
    pytest.param(NearestScorer(), id="nearest"),
    pytest.param(NearestScorer(is_shape=True), id="nearest-by-shape"),
]


def series(values: np.ndarray) -> Series:
    return Series("demo/pump/flow", np.arange(len(values), dtype=np.float64), values)


def wave(seed: int = 0) -> np.ndarray:
    """A noisy wave, which stands still for sixty readings."""
    rng = np.random.default_rng(seed)
    place = np.arange(COUNT)
    values = np.sin(place / 8.0) + 0.05 * rng.standard_normal(COUNT)
    values[PLANTED] = 0.05 * rng.standard_normal(60)
    return values


@pytest.mark.parametrize("scorer", SCORERS)
def test_what_was_planted_is_strangest(scorer: SeriesScorer) -> None:
    """All readings before the first past are nobody's; of the others the planted ones stand out."""
    scores = scorer.scores(series(wave()), 2000)
    labels = np.zeros(COUNT, dtype=bool)
    labels[PLANTED] = True

    assert np.isnan(scores[:WARM_UP]).all()
    assert np.isfinite(scores[WARM_UP:]).all()
    assert PLANTED.start <= int(np.nanargmax(scores)) < PLANTED.stop + 50  # windows reach back
    assert vus_pr(scores[WARM_UP:], labels[WARM_UP:]) > 0.6


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_later_reading_changes_no_earlier_score(scorer: SeriesScorer) -> None:
    """Neither within a block nor across."""
    whole = wave()
    other = whole.copy()
    cut = WARM_UP + 5 * BLOCK + 100
    other[cut:] += 7.0

    before = scorer.scores(series(whole), 2000)[:cut]
    np.testing.assert_allclose(scorer.scores(series(other), 2000)[:cut], before, rtol=1e-9)
    np.testing.assert_allclose(scorer.scores(series(whole[:cut]), 2000), before, rtol=1e-9)


@pytest.mark.parametrize("scorer", SCORERS)
def test_units_do_not_matter(scorer: SeriesScorer) -> None:
    """Kelvin or millivolts: the same scores."""
    plain = scorer.scores(series(wave()), 2000)

    np.testing.assert_allclose(scorer.scores(series(1e3 * wave() + 273.15), 2000), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_constant_series_is_not_strange_until_it_moves(scorer: SeriesScorer) -> None:
    """No division by nothing, and a short series has no scores."""
    values = np.full(COUNT, 5.0)
    values[2500] = 6.0
    scores = scorer.scores(series(values), 2000)

    assert not np.nan_to_num(scores[:2500]).any()
    assert scores[2500] > 0
    assert np.isnan(scorer.scores(series(values[:100]), 50)).all()
