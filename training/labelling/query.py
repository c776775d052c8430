"""Which samples of a pool a person should label next: the query strategies, as functions.

Pure numpy; knows no model, no label and no queue. Every strategy picks different samples
of the pool it was handed, most informative first, and the same ones for the same seed.

Shapes: N pool, C classes, E embedding, L labelled samples, K clusters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

NEIGHBOURS = 20
"""Neighbours whose mean distance says how typical a sample is (TypiClust)."""
MAX_CLUSTERS = 500
"""Clusters of one choice at most; more cost time and make no better choice."""
CANDIDATES = 3
"""Uncertain samples per wanted one that cluster-margin spreads its choice over (its paper's km / kt, there 10, for
batches of thousands)."""
TYPICAL_PER_CLASS = 1
"""Labels a class before a model's margins are trusted; the first batch is always chosen as typical."""
KMEANS_ROUNDS = 25
CHUNK_ELEMENTS = 4_000_000
"""Distances computed at once; bounds memory for any pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Unlabelled samples as a model sees them."""

    proba_NC: Floats
    """Class probabilities, rows summing to 1."""
    embedding_NE: Floats
    """What the model's last hidden layer makes of each sample; distances between rows mean something."""
    labelled_LE: Floats
    """The same of the samples that have a label already; may be empty."""


def random_sampling(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick ``k`` samples that nobody chose: what every other strategy has to beat."""
    return rng.permutation(_checked(pool, k))[:k]


def least_confidence(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick the samples whose most likely class is least likely (Settles 2009, section 3.1)."""
    return _highest(1.0 - pool.proba_NC.max(axis=1), _checked(pool, k), k, rng)


def entropy_sampling(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick the samples with the flattest class distribution (Settles 2009, section 3.1)."""
    return _highest(entropy(pool.proba_NC), _checked(pool, k), k, rng)


def margin_sampling(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick the samples whose two most likely classes are closest (Settles 2009, section 3.1)."""
    return _highest(-margin(pool.proba_NC), _checked(pool, k), k, rng)


def typiclust(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick the most typical sample of each of the largest clusters that hold no label yet.

    For the first labels, when a model's uncertainty means nothing.

    References:
        Hacohen, Dekel, Weinshall, Active Learning on a Budget (ICML 2022).
    """
    count = _checked(pool, k)
    everything = np.concatenate([pool.embedding_NE, pool.labelled_LE]) if len(pool.labelled_LE) else pool.embedding_NE
    num_clusters = min(len(pool.labelled_LE) + k, MAX_CLUSTERS, len(everything))
    cluster = kmeans(everything, num_clusters, rng)
    own, labels = cluster[:count], cluster[count:]
    covered = np.bincount(labels, minlength=num_clusters)
    size = np.bincount(own, minlength=num_clusters)
    # Clusters with the fewest labels first, the largest of them first.
    order = np.lexsort((-size, covered))
    ranked = [_by_typicality(pool.embedding_NE, np.flatnonzero(own == number)) for number in order if size[number]]
    return _in_turns(ranked, k)


def cluster_margin(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick uncertain samples of different clusters, those of the smallest clusters first.

    Uncertainty alone picks near duplicates; here each round takes one sample a cluster.

    References:
        Citovsky et al., Batch Active Learning at Scale (NeurIPS 2021), algorithm 1; k-means in place of its
        agglomerative clustering.
    """
    count = _checked(pool, k)
    candidates = _highest(-margin(pool.proba_NC), count, min(CANDIDATES * k, count), rng)
    num_clusters = min(max(2 * k, 1), MAX_CLUSTERS, len(candidates))
    cluster = kmeans(pool.embedding_NE[candidates], num_clusters, rng)
    # Candidates stand in order of their margin, so each cluster's list does too.
    groups = [candidates[cluster == number] for number in range(num_clusters)]
    groups = sorted((group for group in groups if len(group)), key=len)
    return _in_turns(groups, k)


def default(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    """Pick typical samples until there are ``TYPICAL_PER_CLASS`` labels a class, then by cluster-margin.

    A model of few labels is sure of what it knows nothing about, so its margins mislead at first.

    References:
        Doucet et al., Bridging Diversity and Uncertainty in Active Learning with Self-Supervised
        Pre-Training (2024), for TypiClust first and margins then.
    """
    few = TYPICAL_PER_CLASS * pool.proba_NC.shape[1]
    return (typiclust if len(pool.labelled_LE) < few else cluster_margin)(pool, k, rng)


DEFAULT = "default"
STRATEGIES: dict[str, Callable[[Pool, int, np.random.Generator], Indices]] = {
    "random": random_sampling,
    "least_confidence": least_confidence,
    "entropy": entropy_sampling,
    "margin": margin_sampling,
    "typiclust": typiclust,
    "cluster_margin": cluster_margin,
    DEFAULT: default,
}
"""By the name that settings and results use."""


def margin(proba_NC: Floats) -> Floats:
    """Return the distance between the two most likely classes, shape (N,); 0 is a tie."""
    if proba_NC.shape[1] < 2:
        raise ValueError("there must be at least two classes")
    top_N2 = np.partition(proba_NC, -2, axis=1)[:, -2:]
    gap_N: Floats = top_N2[:, 1] - top_N2[:, 0]
    return gap_N


def entropy(proba_NC: Floats) -> Floats:
    """Return the entropy of each row in nats, shape (N,)."""
    bits_N: Floats = -(proba_NC * np.log(np.maximum(proba_NC, 1e-12))).sum(axis=1)
    return bits_N


def standardised(features_NF: Floats) -> Floats:
    """Return each column with mean 0 and spread 1, a constant one as 0: the embedding while there is no model."""
    centred: Floats = features_NF - features_NF.mean(axis=0)
    spread = centred.std(axis=0)
    return centred / np.where(spread > 1e-9 * (1.0 + np.abs(features_NF).max(axis=0)), spread, np.inf)


def kmeans(points_NE: Floats, num_clusters: int, rng: np.random.Generator) -> Indices:
    """Return each point's cluster, 0 to ``num_clusters`` - 1; none is empty unless points coincide.

    References:
        Arthur, Vassilvitskii, k-means++ (SODA 2007), for the start; Lloyd (1982).
    """
    centres = points_NE[_spread_out(points_NE, num_clusters, rng)]
    cluster = np.full(len(points_NE), -1, dtype=np.intp)
    for _ in range(KMEANS_ROUNDS):
        before = cluster
        cluster, _ = nearest(points_NE, centres)
        if (cluster == before).all():
            break
        size = np.bincount(cluster, minlength=num_clusters)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, points_NE)
        centres = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], centres)
    return cluster


def nearest(points_NE: Floats, centres_KE: Floats) -> tuple[Indices, Floats]:
    """Return for each point which centre is nearest and the squared distance to it, in pieces of bounded memory."""
    step = max(1, CHUNK_ELEMENTS // max(len(centres_KE), 1))
    length_K = np.einsum("ke,ke->k", centres_KE, centres_KE)
    which = np.empty(len(points_NE), dtype=np.intp)
    distance = np.empty(len(points_NE))
    for start in range(0, len(points_NE), step):
        part = points_NE[start : start + step]
        squared = length_K - 2.0 * part @ centres_KE.T
        chosen = squared.argmin(axis=1)
        which[start : start + step] = chosen
        own = squared[np.arange(len(part)), chosen] + np.einsum("ne,ne->n", part, part)
        distance[start : start + step] = np.maximum(own, 0.0)
    return which, distance


def _spread_out(points_NE: Floats, count: int, rng: np.random.Generator) -> Indices:
    """Choose first centres, each with a probability that grows with its distance from those before."""
    chosen = [int(rng.integers(len(points_NE)))]
    distance = nearest(points_NE, points_NE[chosen])[1]
    for _ in range(count - 1):
        total = distance.sum()
        # Points that all coincide with a centre: any will do, its cluster stays empty.
        place = rng.choice(len(points_NE), p=distance / total) if total > 0 else rng.integers(len(points_NE))
        chosen.append(int(place))
        distance = np.minimum(distance, nearest(points_NE, points_NE[chosen[-1:]])[1])
    return np.array(chosen)


def _by_typicality(embedding_NE: Floats, members: Indices) -> Indices:
    """Return the members of a cluster, the one with the nearest neighbours first."""
    points = embedding_NE[members]
    neighbours = min(NEIGHBOURS, len(members) - 1)
    if neighbours < 1:
        return members
    mean = np.empty(len(members))
    length = np.einsum("ne,ne->n", points, points)
    step = max(1, CHUNK_ELEMENTS // len(members))
    for start in range(0, len(members), step):
        squared = length[start : start + step, None] + length - 2.0 * points[start : start + step] @ points.T
        near = np.partition(np.sqrt(np.maximum(squared, 0.0)), neighbours, axis=1)[:, : neighbours + 1]
        mean[start : start + step] = near.sum(axis=1) / neighbours  # the point itself adds nothing
    return members[np.argsort(mean, kind="stable")]


def _in_turns(groups: list[Indices], k: int) -> Indices:
    """Take one of each group, then the next of each, until ``k`` are chosen."""
    longest = max(len(group) for group in groups)
    turns = (group[turn] for turn in range(longest) for group in groups if turn < len(group))
    return np.array([place for place, _ in zip(turns, range(k), strict=False)], dtype=np.intp)


def _highest(value_N: Floats, count: int, k: int, rng: np.random.Generator) -> Indices:
    """Return the places of the ``k`` largest values, ties in random order."""
    order = rng.permutation(count)
    chosen: Indices = order[np.argsort(-value_N[order], kind="stable")[:k]]
    return chosen


def _checked(pool: Pool, k: int) -> int:
    count = len(pool.proba_NC)
    if not 1 <= k <= count:
        raise ValueError(f"k must be 1-{count}, the samples of the pool; got {k}")
    return count
