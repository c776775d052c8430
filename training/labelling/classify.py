"""Trains the classifier on labelled rows and says what it thinks of others.

Torch on one device, no Ray and no files: the loop is the same in a task, in a test and in
an active-learning round. Invariant: the same samples, labels and seed give the same
weights, bit for bit, on one thread.

Shapes: L labelled samples, N others, F features, C classes, E embedding.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.models.classifier import ClassifierConfig, EnsembleClassifier, set_temperature

Floats = NDArray[np.float64]
Classes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSettings:
    """How the classifier is trained."""

    members: int = 5
    """Networks of the ensemble."""
    hidden: int = 64
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
    calibration_folds: int = 4
    """Parts of the labels, each held out from networks of its own to choose the temperature; 0: it stays 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if self.calibration_folds == 1 or not 0 <= self.calibration_folds <= 20:
            raise ValueError(f"calibration_folds must be 0 or 2-20, got {self.calibration_folds}")


MIN_CALIBRATION = 20
"""Labels that a temperature is chosen by at least; of fewer it would be a guess."""
JUDGES = 2
"""Networks a held-out part; trained as one batched ensemble, like the members."""


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
    features = torch.from_numpy(features_LF.astype(np.float32))
    target = torch.from_numpy(target_L.astype(np.int64))
    model.standardise_by(features)
    _descend(model, features, target, settings, torch.ones(settings.members, len(target)))
    if settings.calibration_folds and len(target) >= MIN_CALIBRATION:
        set_temperature(model, *_held_out(config, features, target, settings))
    return model.eval()


def _held_out(
    config: ClassifierConfig, features: torch.Tensor, target: torch.Tensor, settings: ClassifierSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each sample what networks say that were not trained on it, shape (2, L, C), and its class."""
    folds = settings.calibration_folds
    order = np.random.default_rng(settings.seed).permutation(len(target))
    fold_L = torch.from_numpy(np.argsort(order) % folds)
    judges = EnsembleClassifier(replace(config, members=JUDGES * folds), settings.seed + 1)
    judges.standardise_by(features)
    belongs_M = torch.arange(JUDGES * folds) % folds
    _descend(judges, features, target, settings, (belongs_M[:, None] != fold_L).float())
    with torch.inference_mode():
        logits = judges(features).unflatten(0, (JUDGES, folds))
    return logits[:, fold_L, torch.arange(len(target))], target


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
    model: EnsembleClassifier,
    features: torch.Tensor,
    target: torch.Tensor,
    settings: ClassifierSettings,
    weight_ML: torch.Tensor,
) -> None:
    """Train; ``weight_ML`` says which samples each member sees."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    count = len(target)
    members = len(weight_ML)
    for _ in range(settings.steps):
        batch, expected, weight = features, target, weight_ML
        if count > settings.batch_size:
            chosen = torch.randint(count, (settings.batch_size,), generator=generator)
            batch, expected, weight = features[chosen], target[chosen], weight_ML[:, chosen]
        each = functional.cross_entropy(
            model(batch).flatten(0, 1),
            expected.repeat(members),
            label_smoothing=settings.label_smoothing,
            reduction="none",
        )
        loss = (each.view(members, -1) * weight).sum() / weight.sum()
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
