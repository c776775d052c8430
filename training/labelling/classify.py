"""Trains the classifier on labelled rows and says what it thinks of others.

Torch on one device, no Ray and no files: the loop is the same in a task, in a test and in
an active-learning round. Invariant: the same samples, labels and seed give the same
weights, bit for bit, on one thread.

Shapes: L labelled samples, N others, F features, C classes, E embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.models.classifier import ClassifierConfig, EnsembleClassifier, fit_temperature

Floats = NDArray[np.float64]
Classes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSettings:
    """How the classifier is trained."""

    members: int = 5
    """Networks of the ensemble."""
    hidden: int = 128
    """Width of their two hidden layers."""
    steps: int = 100
    """Optimiser steps; sets of people's labels are learned long before."""
    batch_size: int = 256
    """Samples of a step; fewer labels than that are all taken each time."""
    lr: float = 3e-3
    """Learning rate."""
    weight_decay: float = 0.01
    """Pull of the weights towards zero."""
    label_smoothing: float = 0.02
    """Share of each label given to all classes, against certainty without grounds."""
    calibration_fraction: float = 0.2
    """Share of the labels kept back to choose the temperature; below 20 of them none are."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if not 0 <= self.calibration_fraction < 1:
            raise ValueError(f"calibration_fraction must be 0 to below 1, got {self.calibration_fraction}")


MIN_CALIBRATION = 20
"""Labels that a temperature is chosen by at least; of fewer it would be a guess."""


def train_classifier(
    features_LF: Floats, target_L: Classes, classes: tuple[str, ...], settings: ClassifierSettings | None = None
) -> EnsembleClassifier:
    """Return an ensemble trained on labelled samples.

    Args:
        features_LF: finite numbers, in any units; at least one row.
        target_L: each row's place in ``classes``; a class may be missing.
        classes: names of the classes.
        settings: how.

    Raises:
        ValueError: shapes do not fit, a feature is not finite, or a class is unknown.
    """
    settings = settings or ClassifierSettings()
    _check(features_LF, target_L, classes)
    config = ClassifierConfig(
        features=features_LF.shape[1], classes=classes, members=settings.members, hidden=settings.hidden
    )
    model = EnsembleClassifier(config, settings.seed)
    order = np.random.default_rng(settings.seed).permutation(len(target_L))
    held = int(settings.calibration_fraction * len(order))
    held = held if held >= MIN_CALIBRATION else 0
    features = torch.from_numpy(features_LF[order].astype(np.float32))
    target = torch.from_numpy(target_L[order].astype(np.int64))
    model.standardise_by(features[held:])
    _descend(model, features[held:], target[held:], settings)
    if held:
        fit_temperature(model, features[:held], target[:held])
    return model.eval()


def classify(model: EnsembleClassifier, features_NF: Floats) -> Floats:
    """Return calibrated class probabilities, shape (N, C), rows summing to 1."""
    with torch.inference_mode():
        log_proba: Floats = model.log_proba(torch.from_numpy(features_NF.astype(np.float32))).double().numpy()
    proba = np.exp(log_proba)
    return np.asarray(proba / proba.sum(axis=1, keepdims=True))


def embed(model: EnsembleClassifier, features_NF: Floats) -> Floats:
    """Return what the last hidden layers make of each sample, shape (N, E)."""
    with torch.inference_mode():
        return np.asarray(model.embed(torch.from_numpy(features_NF.astype(np.float32))).double().numpy())


def _descend(
    model: EnsembleClassifier, features: torch.Tensor, target: torch.Tensor, settings: ClassifierSettings
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    count = len(target)
    members = settings.members
    for _ in range(settings.steps):
        if count > settings.batch_size:
            chosen = torch.randint(count, (settings.batch_size,), generator=generator)
            batch, expected = features[chosen], target[chosen]
        else:
            batch, expected = features, target
        logits = model(batch)
        loss = functional.cross_entropy(
            logits.flatten(0, 1), expected.repeat(members), label_smoothing=settings.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _check(features_LF: Floats, target_L: Classes, classes: tuple[str, ...]) -> None:
    if features_LF.ndim != 2 or len(features_LF) != len(target_L) or len(target_L) == 0:
        raise ValueError(
            f"one label per row and at least one row, got features {features_LF.shape} and {len(target_L)} labels"
        )
    if not np.isfinite(features_LF).all():
        row, column = np.argwhere(~np.isfinite(features_LF))[0]
        raise ValueError(f"row {row}, column {column} is not a finite number")
    if target_L.min() < 0 or target_L.max() >= len(classes):
        raise ValueError(f"labels must be 0-{len(classes) - 1}, got {target_L.min()} to {target_L.max()}")
