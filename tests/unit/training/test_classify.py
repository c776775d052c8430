"""The classifier: learns heaps, knows what it does not know, and refuses what it cannot learn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.labelling.classify import ClassifierSettings, classify, embed, train_classifier
from training.models.classifier import ClassifierConfig, EnsembleClassifier, fit_temperature

CLASSES = ("normal", "worn", "broken")
SETTINGS = ClassifierSettings(members=3, hidden=16, steps=60)


def heaps(count: int, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points around three centres, in units nobody would choose."""
    rng = np.random.default_rng(seed)
    target = rng.integers(3, size=count)
    centres = np.array([[0.0, 1000.0], [3.0, 1000.0], [0.0, 4000.0]])
    return centres[target] + rng.normal(0, noise, (count, 2)) * [0.5, 500.0], target


def test_heaps_are_learned_in_any_units() -> None:
    features, target = heaps(300)
    others, expected = heaps(300, seed=1)

    model = train_classifier(features, target, CLASSES, SETTINGS)
    proba = classify(model, others)

    assert (proba.argmax(axis=1) == expected).mean() > 0.95
    assert proba.sum(axis=1) == pytest.approx(np.ones(300))
    assert embed(model, others).shape == (300, 3 * 16)


def test_same_labels_same_weights() -> None:
    """And another seed other ones."""
    features, target = heaps(60)
    first, again, other = (
        train_classifier(features, target, CLASSES, replace(SETTINGS, seed=seed)) for seed in (1, 1, 2)
    )

    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first.parameters(), other.parameters(), strict=True))


def test_certainty_is_calibrated() -> None:
    """Where heaps overlap, what is said to be sure at 80 % is right about that often."""
    features, target = heaps(800, noise=3.0)
    others, expected = heaps(3000, noise=3.0, seed=1)

    proba = classify(train_classifier(features, target, CLASSES, SETTINGS), others)

    sure = proba.max(axis=1)
    right = proba.argmax(axis=1) == expected
    assert sure.mean() == pytest.approx(right.mean(), abs=0.05)


def test_few_folds_more_labels_and_no_folds_leave_the_decisions_alone() -> None:
    """Calibration trains networks of its own; what is said to be likeliest does not depend on it."""
    features, target = heaps(200, noise=3.0)
    with_folds, without = (
        classify(train_classifier(features, target, CLASSES, replace(SETTINGS, calibration_folds=folds)), features)
        for folds in (4, 0)
    )

    assert with_folds.argmax(axis=1).tolist() == without.argmax(axis=1).tolist()
    assert not np.allclose(with_folds, without)
    with pytest.raises(ValueError, match="calibration_folds must be 0 or 2-20"):
        ClassifierSettings(calibration_folds=1)


def test_temperature_changes_no_decision() -> None:
    """It makes held-out labels likelier and leaves the likeliest class alone."""
    model = EnsembleClassifier(ClassifierConfig(features=2, classes=CLASSES, members=2, hidden=8))
    with torch.no_grad():
        model.weights[-1].mul_(300.0)  # far too sure of itself
    features = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    target = torch.randint(3, (200,), generator=torch.Generator().manual_seed(1))
    before = model.log_proba(features)
    loss = torch.nn.functional.nll_loss(before, target)

    assert fit_temperature(model, features, target) > 1.0
    after = model.log_proba(features)
    assert torch.nn.functional.nll_loss(after, target) < loss
    chosen = before.gather(1, after.argmax(dim=1, keepdim=True)).squeeze(1)
    assert torch.allclose(chosen, before.amax(dim=1))  # but among equals


def test_a_few_labels_and_a_constant_column_are_enough() -> None:
    """The first round of labelling has one label of one class."""
    model = train_classifier(np.array([[1.0, 7.0]]), np.array([0]), CLASSES, SETTINGS)

    assert np.isfinite(classify(model, np.array([[1.0, 7.0], [-5.0, 9.0]]))).all()


@pytest.mark.parametrize(
    ("features", "target", "reason"),
    [
        pytest.param(np.zeros((0, 2)), np.zeros(0, dtype=int), "at least one row", id="empty"),
        pytest.param(np.zeros((2, 2)), np.zeros(3, dtype=int), "one label per row", id="lengths"),
        pytest.param(np.array([[0.0, np.nan]]), np.zeros(1, dtype=int), "row 0, column 1", id="nan"),
        pytest.param(np.zeros((1, 2)), np.array([3]), "labels must be 0-2", id="unknown-class"),
    ],
)
def test_what_cannot_be_learned_from_is_named(features: np.ndarray, target: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        train_classifier(features, target, CLASSES, SETTINGS)


@pytest.mark.parametrize(
    "wrong", [{"features": 0}, {"classes": ("a",)}, {"classes": ("a", "a")}, {"members": 0}, {"hidden": 0}]
)
def test_a_shape_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClassifierConfig(**({"features": 2, "classes": CLASSES} | wrong))  # type: ignore[arg-type]
