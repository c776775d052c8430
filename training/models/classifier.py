"""A small deep ensemble that classifies rows of a table or windows of telemetry.

All members are trained and asked at once, as batched matrix products, because the sets
that people label are small and starting a network costs more than running it. No data
loading, no files. Invariants: members differ by their first weights and by the samples
they see only; the probabilities returned are calibrated by one temperature, which never
changes which class is the likeliest.

Shapes: B samples, F features, M members, H hidden width, C classes, E = M * H.

References:
    Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles (NeurIPS 2017); Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
"""

from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

MODEL_TYPE = "classifier"

HUGE = 1e30
"""Spread of a column without one: what is divided by it is nothing. Not infinity, which no weights file may hold."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """Shape of an ``EnsembleClassifier``; stored in the manifest beside its weights."""

    features: int
    """Columns of a table, or readings of a window times its channels."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the probabilities; at least two."""
    members: int = 5
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features must be at least 1, got {self.features}")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes must be at least two different names, got {self.classes}")
        if not 1 <= self.members <= 20:
            raise ValueError(f"members must be 1-20, got {self.members}")
        if not 1 <= self.hidden <= 4096:
            raise ValueError(f"hidden must be 1-4096, got {self.hidden}")

    def to_json(self) -> dict[str, object]:
        """Return the fields as they stand in a manifest."""
        return asdict(self) | {"classes": list(self.classes)}


class EnsembleClassifier(nn.Module):
    """``members`` networks of two hidden layers over the same standardised features."""

    def __init__(self, config: ClassifierConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        sizes = (config.features, config.hidden, config.hidden, len(config.classes))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for number, (inputs, outputs) in enumerate(pairwise(sizes)):
            # He's scale for the hidden layers; the last one starts small, so that nothing is believed yet.
            scale = 0.1 if number == len(sizes) - 2 else 1.0
            drawn = torch.randn(config.members, inputs, outputs, generator=generator)
            self.weights.append(nn.Parameter(drawn * (scale * (2.0 / inputs) ** 0.5)))
            self.biases.append(nn.Parameter(torch.zeros(config.members, 1, outputs)))
        self.register_buffer("centre", torch.zeros(config.features))
        self.register_buffer("spread", torch.ones(config.features))
        self.register_buffer("temperature", torch.ones(()))
        self.centre: Tensor
        self.spread: Tensor
        self.temperature: Tensor

    def standardise_by(self, features_BF: Tensor) -> None:
        """Take centre and spread of the inputs from the samples trained on; a constant column becomes zero."""
        self.centre.copy_(features_BF.mean(dim=0))
        spread = features_BF.std(dim=0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-9 * (1.0 + self.centre.abs()), spread, HUGE))

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return each member's logits, shape (M, B, C)."""
        return torch.baddbmm(self.biases[-1], self._hidden(features_BF), self.weights[-1])

    def embed(self, features_BF: Tensor) -> Tensor:
        """Return the last hidden layers of all members side by side, shape (B, E)."""
        return self._hidden(features_BF).permute(1, 0, 2).flatten(1)

    def log_proba(self, features_BF: Tensor) -> Tensor:
        """Return the log of the calibrated mean of the members' probabilities, shape (B, C)."""
        return self.calibrated(self.forward(features_BF))

    def calibrated(self, logits_MBC: Tensor) -> Tensor:
        """Return what ``log_proba`` makes of given logits."""
        mean = functional.log_softmax(logits_MBC, dim=-1).logsumexp(dim=0)
        return functional.log_softmax(mean / self.temperature, dim=-1)

    def _hidden(self, features_BF: Tensor) -> Tensor:
        hidden = ((features_BF - self.centre) / self.spread).expand(self.config.members, -1, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = functional.relu(torch.baddbmm(bias, hidden, weight))
        return hidden


def fit_temperature(model: EnsembleClassifier, features_BF: Tensor, target_B: Tensor) -> float:
    """Choose the temperature by samples that ``model`` was not trained on, set it and return it."""
    with torch.inference_mode():
        return set_temperature(model, model(features_BF), target_B)


def set_temperature(model: EnsembleClassifier, logits_MBC: Tensor, target_B: Tensor) -> float:
    """Choose the temperature that makes held-out labels likeliest, set it and return it.

    Args:
        model: whose temperature is set.
        logits_MBC: what networks of its kind say of samples that they were not trained on.
        target_B: their classes.
    """
    with torch.inference_mode():
        mean = functional.log_softmax(logits_MBC, dim=-1).logsumexp(dim=0)
        candidates = torch.logspace(-1.3, 1.3, 200).clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)
        losses = torch.stack([functional.cross_entropy(mean / candidate, target_B) for candidate in candidates])
        best = candidates[int(losses.argmin())]
        model.temperature.copy_(best)
    return float(best)
