"""What the chosen labels would have cost at random, read off the audits."""

import numpy as np

from training.labelling.savings import measure_savings

CLASSES = ("normal", "worn")


def audits(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(2, size=count)
    return target[:, None] * 1.5 + rng.normal(0, 1, (count, 2)), target


def test_a_model_as_good_as_many_random_labels_saved_them() -> None:
    """An accuracy that the curve never reaches costs more than its end; one that it begins with costs little."""
    features, target = audits(200)

    good = measure_savings(features, target, CLASSES, (0.999, 0.97, 1.0), chosen=20)
    poor = measure_savings(features, target, CLASSES, (0.5, 0.4, 0.6), chosen=60)

    assert (good.at_random, good.is_more, good.saved) == ((150, 150, 150), True, 130)
    assert (poor.at_random, poor.is_more, poor.saved) == ((25, 25, 25), False, -35)


def test_the_bounds_surround_the_estimate() -> None:
    features, target = audits(200)

    found = measure_savings(features, target, CLASSES, (0.84, 0.5, 0.99), chosen=20).at_random

    assert found is not None
    assert found[1] <= found[0] <= found[2]


def test_few_audits_say_nothing() -> None:
    features, target = audits(39)

    assert measure_savings(features, target, CLASSES, (0.9, 0.8, 1.0), chosen=20).saved is None
