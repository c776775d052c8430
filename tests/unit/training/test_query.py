"""Query strategies: what each one prefers, and what all of them promise."""

import numpy as np
import pytest

from training.labelling.query import (
    MAX_CLUSTERS,
    STRATEGIES,
    Pool,
    cluster_margin,
    default,
    entropy,
    kmeans,
    margin,
    margin_sampling,
    nearest,
    standardised,
    typiclust,
)


def pool_of(count: int = 200, classes: int = 3, labelled: int = 0, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        proba_NC=rng.dirichlet(np.ones(classes), count),
        embedding_NE=rng.normal(size=(count, 4)),
        labelled_LE=rng.normal(size=(labelled, 4)),
    )


def blobs(sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return points around centres that lie far apart."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(20.0 * number, 1.0, (size, 2)) for number, size in enumerate(sizes)])


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("k", [1, 7, 40])
def test_choices_differ_and_can_be_repeated(name: str, k: int) -> None:
    """``k`` different places, the same ones for the same seed."""
    pool = pool_of(count=40, labelled=5)
    chosen = STRATEGIES[name](pool, k, np.random.default_rng(3))

    assert len(set(chosen.tolist())) == k
    assert set(chosen.tolist()) <= set(range(40))
    assert chosen.tolist() == STRATEGIES[name](pool, k, np.random.default_rng(3)).tolist()


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("k", [0, 41])
def test_more_than_the_pool_is_refused(name: str, k: int) -> None:
    with pytest.raises(ValueError, match="k must be 1-40"):
        STRATEGIES[name](pool_of(count=40), k, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("least_confidence", 1, id="flattest-top"),
        pytest.param("entropy", 1, id="flattest"),
        pytest.param("margin", 2, id="closest-two"),
    ],
)
def test_uncertainty_by_its_definition(name: str, expected: int) -> None:
    """The three measures part ways with three classes."""
    pool = Pool(
        proba_NC=np.array([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3], [0.49, 0.48, 0.03]]),
        embedding_NE=np.zeros((3, 2)),
        labelled_LE=np.zeros((0, 2)),
    )

    assert STRATEGIES[name](pool, 1, np.random.default_rng(0)).tolist() == [expected]


def test_typiclust_begins_in_the_middle_of_large_unlabelled_clusters() -> None:
    """One of each cluster, none where a label is, and no outlier."""
    points = np.concatenate([blobs((60, 40, 30)), [[1000.0, 1000.0]]])
    labelled = np.array([[0.0, 0.0]])
    pool = Pool(proba_NC=np.full((131, 2), 0.5), embedding_NE=points, labelled_LE=labelled)

    chosen = typiclust(pool, 3, np.random.default_rng(0))

    assert {60 <= place < 100 for place in chosen[:1]} == {True}
    assert 100 <= chosen[1] < 130
    assert np.abs(points[chosen[0]] - 20.0).max() < 1.0


def test_cluster_margin_takes_no_near_duplicates() -> None:
    """The most uncertain ones all lie in one heap; the choice goes beyond it, where margin alone does not."""
    points = blobs((50, 50, 50))
    proba = np.tile([0.9, 0.1], (150, 1))
    proba[:12] = [0.51, 0.49]
    proba[50:53] = proba[100:103] = [0.55, 0.45]
    pool = Pool(proba_NC=proba, embedding_NE=points, labelled_LE=np.zeros((0, 2)))

    chosen = cluster_margin(pool, 6, np.random.default_rng(0))

    assert len({place // 50 for place in chosen.tolist()}) > 1
    assert {place // 50 for place in margin_sampling(pool, 6, np.random.default_rng(0)).tolist()} == {0}


def test_the_default_asks_about_typical_ones_first_and_uncertain_ones_then() -> None:
    """Until there is about a label a class."""
    for labelled, then in ((0, typiclust), (2, typiclust), (30, cluster_margin)):
        pool = pool_of(labelled=labelled)
        expected = then(pool, 5, np.random.default_rng(1))
        assert default(pool, 5, np.random.default_rng(1)).tolist() == expected.tolist()


def test_standardised_columns() -> None:
    """Units do not count; a constant column is nothing."""
    rows = standardised(np.array([[1.0, 7.0], [3.0, 7.0]]))

    assert rows.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_margin_and_entropy() -> None:
    assert margin(np.array([[0.5, 0.3, 0.2]])) == pytest.approx([0.2])
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0]])) == pytest.approx([np.log(2), 0.0])
    with pytest.raises(ValueError, match="two classes"):
        margin(np.ones((3, 1)))


def test_kmeans_finds_heaps_and_bears_equal_points() -> None:
    """Each heap is one cluster; a pool of one point's copies ends."""
    found = kmeans(blobs((30, 20, 10)), 3, np.random.default_rng(0))
    assert [len(set(part.tolist())) for part in np.split(found, [30, 50])] == [1, 1, 1]
    assert len(set(found.tolist())) == 3
    assert len(kmeans(np.ones((50, 3)), 10, np.random.default_rng(0))) == 50


def test_nearest_in_pieces_is_nearest() -> None:
    rng = np.random.default_rng(1)
    points, centres = rng.normal(size=(300, 5)), rng.normal(size=(MAX_CLUSTERS // 50, 5))
    which, squared = nearest(points, centres)
    all_of_them = ((points[:, None] - centres) ** 2).sum(axis=2)

    assert which.tolist() == all_of_them.argmin(axis=1).tolist()
    assert squared == pytest.approx(all_of_them.min(axis=1))
