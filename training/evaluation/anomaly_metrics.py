"""How good anomaly scores are, held against labelled events: figures that cannot be gamed by one lucky point.

Pure numpy: scores and labels in, figures out; chooses no threshold for a detector and is
never point-adjusted (a random score reaches the state of the art that way, Kim et al.,
AAAI 2022). Invariant: every figure depends on the order of the scores only, never on
their scale.

Shapes: N readings, E events, A alerts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
Span = tuple[int, int]
"""First and last reading of an event, both inside."""

VUS_BUFFER = 100
"""Largest buffer around an event, in readings, where nothing is known about the series."""
VUS_THRESHOLDS = 250


def events(labels_N: Labels) -> list[Span]:
    """Return the runs of labelled readings."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], labels_N, [False]]).astype(np.int8)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def vus_pr(scores_N: Floats, labels_N: Labels, buffer: int = VUS_BUFFER) -> float:
    """Return the volume under the precision-recall surface: over thresholds, and over buffers around the events.

    Each event gets a buffer on both sides whose label falls off as a square root, because
    where an anomaly begins and ends is a matter of taste; recall counts found events too.

    Args:
        scores_N: larger is stranger; ties are taken together.
        labels_N: True inside events, at least one True and one False.
        buffer: largest buffer width in readings, half of it on each side; every width from 0 is averaged.

    Raises:
        ValueError: there is no event, or nothing but events.

    References:
        Paparrizos et al., Volume Under the Surface (PVLDB 15, 2022), definitions 5-8.
    """
    spans = events(labels_N)
    count = len(labels_N)
    if not spans or labels_N.all():
        raise ValueError("there must be readings inside and outside of events")
    order = np.argsort(-scores_N, kind="stable")
    falling = scores_N[order]
    places = np.linspace(0, count - 1, VUS_THRESHOLDS).astype(int)
    # All readings with at least the score at the place: ties are predicted together.
    predicted_T = np.searchsorted(-falling, -falling[places], side="right")
    rank_N = np.empty(count, dtype=np.intp)
    rank_N[order] = np.arange(count)
    total = 0.0
    for width in range(buffer + 1):
        soft_N = _softened(count, spans, width)
        total += _average_precision(soft_N, labels_N, order, rank_N, predicted_T)
    return total / (buffer + 1)


def _softened(count: int, spans: list[Span], width: int) -> Floats:
    """Return labels that fall off around each event."""
    soft_N = np.zeros(count)
    half = width // 2
    for first, last in spans:
        soft_N[first : last + 1] += 1.0
        after = np.arange(last + 1, min(last + half + 1, count))
        before = np.arange(max(first - half, 0), first)
        soft_N[after] += np.sqrt(1.0 - (after - last) / width) if width else 0.0
        soft_N[before] += np.sqrt(1.0 - (first - before) / width) if width else 0.0
    return np.minimum(soft_N, 1.0)


def _average_precision(
    soft_N: Floats,
    labels_N: Labels,
    order_N: NDArray[np.intp],
    rank_N: NDArray[np.intp],
    predicted_T: NDArray[np.intp],
) -> float:
    hit_T = np.cumsum(soft_N[order_N])[predicted_T - 1]
    buffered_T = np.cumsum(np.where(labels_N, 0.0, soft_N)[order_N])[predicted_T - 1]
    positive_T = labels_N.sum() + buffered_T / 2.0
    best_rank_E = np.array([rank_N[first : last + 1].min() for first, last in events(soft_N > 0)])
    found_T = (best_rank_E[None, :] < predicted_T[:, None]).mean(axis=1)
    recall_T = np.minimum(hit_T / positive_T, 1.0) * found_T
    precision_T = hit_T / predicted_T
    return float(np.dot(np.diff(np.concatenate([[0.0], recall_T])), precision_T))


@dataclass(frozen=True, slots=True)
class Affiliation:
    """Precision and recall by distance: how much nearer than chance alerts and events lie to each other."""

    precision: float
    """Mean, over the events with an alert in their zone, of how near the alerts are; 0.5 is chance."""
    recall: float
    """Mean, over all events, of how near their readings are to an alert; 0 for an event without one."""

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def affiliation(alerts_N: Labels, labels_N: Labels) -> Affiliation:
    """Return affiliation precision and recall of alerted readings.

    Args:
        alerts_N: True where a reading was alerted.
        labels_N: True inside events, at least one.

    Raises:
        ValueError: there is no event.

    References:
        Huet, Navarro, Rossi, Local Evaluation of Time Series Anomaly Detection Algorithms (KDD 2022).
    """
    spans = events(labels_N)
    if not spans:
        raise ValueError("there must be an event")
    precisions: list[float] = []
    recalls: list[float] = []
    for (first, last), (zone_first, zone_last) in zip(spans, _zones(spans, len(labels_N)), strict=True):
        place_Z = np.arange(zone_first, zone_last + 1)
        alerted = place_Z[alerts_N[place_Z]]
        if len(alerted) == 0:
            recalls.append(0.0)
            continue
        to_event_Z = np.maximum(np.maximum(first - place_Z, place_Z - last), 0)
        # Survival of the distance of a reading drawn at random from the zone: near is rare, so near is good.
        precisions.append(float(_survival(to_event_Z, to_event_Z[alerted - zone_first]).mean()))
        near = []
        for place in range(first, last + 1):
            own = np.abs(place_Z - place)
            near.append(float(_survival(own, own[alerted - zone_first].min()[None]).item()))
        recalls.append(float(np.mean(near)))
    return Affiliation(float(np.mean(precisions)) if precisions else 0.0, float(np.mean(recalls)))


def _survival(distance_Z: NDArray[np.intp], found_A: NDArray[np.intp]) -> Floats:
    """Return the share of the zone at least as far away, a tie counted half."""
    ordered = np.sort(distance_Z)
    farther = len(ordered) - np.searchsorted(ordered, found_A, side="right")
    equal = np.searchsorted(ordered, found_A, side="right") - np.searchsorted(ordered, found_A, side="left")
    shares: Floats = np.where(found_A == 0, 1.0, (farther + equal / 2.0) / len(ordered))
    return shares


def _zones(spans: list[Span], count: int) -> list[Span]:
    """Return for each event the readings that are nearer to it than to any other."""
    middles = [(last + first) // 2 for (_, last), (first, _) in pairwise(spans)]
    starts = [0, *(middle + 1 for middle in middles)]
    return list(zip(starts, [*middles, count - 1], strict=True))


@dataclass(frozen=True, slots=True)
class EventFigures:
    """What an operator sees of a detector: events found, false alarms, how late."""

    events: int
    found: int
    false_alarms: int
    """Alerts outside of every event."""
    delay_s: float | None
    """Median time from the beginning of a found event to its first alert; None: none was found."""

    @property
    def recall(self) -> float:
        """Share of the events with an alert inside."""
        return self.found / self.events if self.events else 0.0


def event_figures(alerts_A: Sequence[int], labels_N: Labels, ts_N: Floats) -> EventFigures:
    """Hold alerts, by the place of their reading, against the events."""
    alerts = np.asarray(alerts_A, dtype=np.intp)
    delays = event_delays(alerts_A, labels_N, ts_N)
    known = [delay for delay in delays if delay is not None]
    outside = int((~labels_N[alerts]).sum()) if len(alerts) else 0
    return EventFigures(len(delays), len(known), outside, float(np.median(known)) if known else None)


def event_delays(alerts_A: Sequence[int], labels_N: Labels, ts_N: Floats) -> list[float | None]:
    """Return for each event the time from its beginning to its first alert, in seconds; None: there is none inside."""
    alerts = np.sort(np.asarray(alerts_A, dtype=np.intp))
    delays: list[float | None] = []
    for first, last in events(labels_N):
        place = int(np.searchsorted(alerts, first))
        is_found = place < len(alerts) and alerts[place] <= last
        delays.append(float(ts_N[alerts[place]] - ts_N[first]) if is_found else None)
    return delays


def alerts_at(scores_N: Floats, threshold: float, quiet: int) -> list[int]:
    """Return where alerts begin: readings above ``threshold`` with ``quiet`` readings below it before them."""
    above = np.flatnonzero(scores_N >= threshold)
    if len(above) == 0:
        return []
    begins = np.concatenate([[True], np.diff(above) > quiet])
    return [int(place) for place in above[begins]]


def recall_at(
    scores_N: Floats, labels_N: Labels, ts_N: Floats, false_per_day: float, quiet: int = 50
) -> tuple[float, EventFigures]:
    """Return the lowest threshold that keeps to a number of false alarms a day, and what it finds.

    The threshold is chosen on the same readings: a figure for comparing scores at equal cost
    to people, not a forecast of what a threshold of yesterday does tomorrow.
    """
    allowed = false_per_day * max(float(ts_N[-1] - ts_N[0]), 1.0) / 86_400.0
    best: tuple[float, EventFigures] = (float("inf"), event_figures((), labels_N, ts_N))
    falling = np.sort(scores_N)[::-1]
    ranks = np.unique(np.geomspace(1, max(1, len(falling) // 5), 300).astype(int)) - 1
    for threshold in np.unique(falling[ranks])[::-1]:
        figures = event_figures(alerts_at(scores_N, float(threshold), quiet), labels_N, ts_N)
        if figures.false_alarms <= allowed and figures.found >= best[1].found:
            best = (float(threshold), figures)
    return best


def precision_recall(scores_N: Floats, labels_N: Labels, points: int = 60) -> list[tuple[float, float]]:
    """Return (recall, precision) of single readings over falling thresholds, equal scores together, nothing adjusted.

    Raises:
        ValueError: no reading is labelled.
    """
    if not labels_N.any():
        raise ValueError("there must be a labelled reading")
    order = np.argsort(-scores_N, kind="stable")
    falling, hit_N = scores_N[order], np.cumsum(labels_N[order])
    last_N = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    chosen = last_N[np.unique(np.geomspace(1, len(last_N), points).astype(int)) - 1]
    return [(float(hit_N[place] / hit_N[-1]), float(hit_N[place] / (place + 1))) for place in chosen]


def reliability(p_N: Floats, labels_N: Labels, levels: Sequence[float]) -> list[tuple[float, float]]:
    """Return for each level the share of unlabelled readings whose p-value is at most that: equal, if it is calibrated.

    Args:
        p_N: of each reading, the chance of one at least as strange while nothing is wrong.
        labels_N: True inside events, which are left out.
        levels: shares between 0 and 1.

    Raises:
        ValueError: every reading is labelled.
    """
    normal = p_N[~labels_N]
    if not len(normal):
        raise ValueError("there must be a reading outside of the events")
    return [(float(level), float((normal <= level).mean())) for level in levels]


def bootstrap_mean(
    values: Sequence[float], seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean when the values are drawn anew with replacement."""
    return bootstrap_ratio(values, np.ones(len(values)), seed, draws, level)


def bootstrap_ratio(
    counted: Sequence[float], of: Sequence[float] | Floats, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of ``sum(counted) / sum(of)`` when the pairs are drawn anew with replacement.

    Args:
        counted: such as found events, one a series.
        of: such as all events, none negative and at least one positive; draws without any are left out.
        seed: of the draws.
        draws: how many.
        level: share of the draws inside the interval.
    """
    picked = np.random.default_rng(seed).integers(0, len(counted), (draws, len(counted)))
    total = np.asarray(of, dtype=np.float64)[picked].sum(axis=1)
    ratios = np.asarray(counted, dtype=np.float64)[picked].sum(axis=1)[total > 0] / total[total > 0]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(found: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share of few (Wilson, 1927): honest also for none and for all of them."""
    share, spread = found / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(share * (1 - share) / of + spread / (4 * of)))
    return max(0.0, middle - half), min(1.0, middle + half)


def count_interval(count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a count of rare things (Poisson, Byar's approximation; Rothman and Boice, 1979)."""
    low = count * (1 - 1 / (9 * count) - z / (3 * count**0.5)) ** 3 if count else 0.0
    more = count + 1
    return max(0.0, low), more * (1 - 1 / (9 * more) + z / (3 * more**0.5)) ** 3
