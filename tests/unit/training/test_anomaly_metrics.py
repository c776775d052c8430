"""Figures of anomaly scores: the definitions, their bounds, and what they must not reward."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.anomaly_metrics import (
    VUS_THRESHOLDS,
    affiliation,
    alerts_at,
    bootstrap_mean,
    event_figures,
    events,
    recall_at,
    vus_pr,
)

RNG = np.random.default_rng(7)


def labelled(count: int, *spans: tuple[int, int]) -> NDArray[np.bool_]:
    labels = np.zeros(count, dtype=bool)
    for first, last in spans:
        labels[first : last + 1] = True
    return labels


def by_definition(scores: NDArray[np.float64], labels: NDArray[np.bool_], width: int) -> float:
    """The average precision of one buffer, threshold by threshold and event by event, as the paper writes it."""
    soft = labels.astype(float)
    for first, last in events(labels):
        for step in range(1, width // 2 + 1):
            for place, edge in ((last + step, last), (first - step, first)):
                if 0 <= place < len(labels) and not labels[place]:
                    soft[place] = min(1.0, soft[place] + np.sqrt(1 - abs(place - edge) / width))
    total, last_recall = 0.0, 0.0
    for place in np.linspace(0, len(scores) - 1, VUS_THRESHOLDS).astype(int):
        predicted = scores >= -np.sort(-scores)[place]
        hit = float(soft[predicted].sum())
        positive = labels.sum() + soft[predicted & ~labels].sum() / 2
        found = np.mean([predicted[first : last + 1].any() for first, last in events(soft > 0)])
        recall = min(hit / positive, 1.0) * found
        total += (recall - last_recall) * hit / predicted.sum()
        last_recall = recall
    return total


def test_volume_is_that_of_the_definition() -> None:
    """The sums over sorted scores equal the loops of the paper, ties, edges and near events included."""
    for labels in (labelled(120, (30, 41)), labelled(120, (0, 3), (60, 66), (70, 72), (118, 119))):
        scores = np.round(RNG.random(120) + 0.5 * labels, 1)
        expected = np.mean([by_definition(scores, labels, width) for width in range(13)])

        assert vus_pr(scores, labels, buffer=12) == pytest.approx(expected)


def test_volume_knows_perfect_from_random() -> None:
    """The labels themselves get 1, a random score about the share of events, whatever its scale."""
    labels = labelled(4000, (500, 700), (2000, 2150))
    score = RNG.random(4000)

    assert vus_pr(labels.astype(float), labels) == pytest.approx(1.0, abs=1e-6)
    assert vus_pr(score, labels) == pytest.approx(labels.mean(), abs=0.04)
    assert vus_pr(np.exp(9 * score), labels) == pytest.approx(vus_pr(score, labels))


def test_one_lucky_point_is_not_a_found_event() -> None:
    """Under point adjustment this score would be perfect."""
    labels = labelled(2000, (1000, 1199))
    score = np.zeros(2000)
    score[1100] = 1.0

    assert vus_pr(score, labels) < 0.2


@pytest.mark.parametrize("labels", [labelled(9), labelled(9, (0, 8))], ids=["no-event", "all-event"])
def test_volume_needs_both_kinds_of_readings(labels: NDArray[np.bool_]) -> None:
    with pytest.raises(ValueError, match="inside and outside"):
        vus_pr(np.arange(9.0), labels)


def test_affiliation_rewards_nearness() -> None:
    """Alerts on the event get 1, near ones nearly so, random ones a half, none nothing."""
    labels = labelled(3000, (1000, 1049), (2000, 2009))
    near = labelled(3000, (1055, 1060), (1990, 1992))

    exact = affiliation(labels, labels)
    close = affiliation(near, labels)
    chance = [affiliation(np.random.default_rng(seed).random(3000) < 0.005, labels).precision for seed in range(30)]

    assert (exact.precision, exact.recall, exact.f1) == (1.0, 1.0, 1.0)
    assert 0.9 < close.f1 < 1.0
    assert np.mean(chance) == pytest.approx(0.5, abs=0.05)
    assert affiliation(labelled(3000), labels).f1 == 0.0
    assert affiliation(labelled(3000, (1010, 1010)), labels).recall < 0.6


def test_operators_figures() -> None:
    """Events with an alert, alerts without an event, and how late."""
    labels = labelled(100, (10, 19), (50, 59))
    times = 60.0 * np.arange(100)

    figures = event_figures([14, 12, 30, 90], labels, times)

    assert (figures.events, figures.found, figures.false_alarms, figures.delay_s) == (2, 1, 2, 120.0)
    assert figures.recall == 0.5
    assert event_figures([], labels, times).delay_s is None


def test_alerts_begin_after_quiet() -> None:
    score = np.zeros(60)
    score[[5, 6, 9, 30]] = 1.0

    assert alerts_at(score, 0.5, quiet=10) == [5, 30]
    assert alerts_at(score, 2.0, quiet=10) == []


def test_recall_at_a_price() -> None:
    """The threshold is the most sensitive one that people can afford."""
    labels = labelled(2881, (1000, 1020), (2000, 2020))
    times = 60.0 * np.arange(2881)  # two days
    score = np.zeros(2881)
    score[[1005, 300, 400, 2010]] = [9.0, 8.0, 7.0, 6.0]

    assert recall_at(score, labels, times, false_per_day=0.0)[1].found == 1
    assert recall_at(score, labels, times, false_per_day=1.0)[1].found == 2


def test_interval_holds_the_mean() -> None:
    low, high = bootstrap_mean([0.2, 0.4, 0.6, 0.8], seed=1)

    assert 0.2 < low < 0.5 < high < 0.8
    assert bootstrap_mean([0.3] * 5) == (pytest.approx(0.3), pytest.approx(0.3))
