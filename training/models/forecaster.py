"""The anomaly detector's network: a linear forecast of the next reading plus a small correction.

A window is freed of its own mean and scale, an autoregression (AR) solved in closed form
forecasts the next value, and a dilated convolutional head learns what is left. No data
loading, no optimiser, no files. Invariant: a freshly built forecaster equals its AR part
exactly, because the head's last layer starts at zero -- training starts strong.

Shapes: B windows, K context length, W = K + 1 (the last column is the reading judged).
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST_KERNEL, FIRST_STRIDE = 4, 2
"""The first convolution looks at overlapping fours and halves the length: half the cost, no measurable loss."""
KERNEL = 3
SCALE_FLOOR = 0.05
"""Least scale of a window, in units of its series' own scale: a silent stretch must not make noise loud."""
TARGET_LIMIT = 10.0
"""Targets further out than this many scales count as this far in the closed form: one fault must not bend it."""
HUBER_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecasterConfig:
    """Shape of a ``ResidualForecaster``; stored in the manifest beside its weights."""

    context: int
    """Readings that a forecast looks back on (K)."""
    channels: int
    """Width of the head."""
    num_layers: int
    """Convolutions of the head; it looks back on 2**(num_layers + 1) readings."""

    def to_json(self) -> dict[str, int]:
        """Return the fields as they stand in a manifest."""
        return asdict(self)


class ResidualForecaster(nn.Module):
    """Forecasts the next value of standardised windows of one series each."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.ar = nn.Linear(config.context, 1)
        layers: list[nn.Module] = [nn.Conv1d(1, config.channels, FIRST_KERNEL, stride=FIRST_STRIDE), nn.GELU()]
        for layer in range(1, config.num_layers):
            layers += [nn.Conv1d(config.channels, config.channels, KERNEL, dilation=2 ** (layer - 1)), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(2 * config.channels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, context_BK: Tensor) -> Tensor:
        """Return the forecast of each standardised context, shape (B,)."""
        # Padded in front to an even length, so that the stride never skips the newest reading.
        features = self.convolutions(functional.pad(context_BK, (self.config.context % 2, 0)).unsqueeze(1))
        # The newest position keeps the exact recent shape, the mean keeps the whole window's.
        summary = torch.cat((features[..., -1], features.mean(-1)), dim=1)
        forecast: Tensor = self.ar(context_BK) + self.head(summary)
        return forecast.squeeze(1)

    def residuals(self, windows_BW: Tensor) -> Tensor:
        """Return how far each window's last value is from its forecast, in the windows' units, shape (B,)."""
        context_BK, target_B, scale_B = standardise(windows_BW)
        return (self.forward(context_BK) - target_B).abs() * scale_B

    def set_autoregression(self, weights: Tensor) -> None:
        """Take the result of ``fit_autoregression`` as the linear part."""
        with torch.no_grad():
            self.ar.weight.copy_(weights[:-1].unsqueeze(0))
            self.ar.bias.copy_(weights[-1:])


def standardise(windows_BW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Free windows of the mean and scale of their own context; the judged value is not looked at.

    Returns:
        Contexts (B, K), targets (B,) and the scales (B,) that they were divided by.
    """
    context = windows_BW[:, :-1]
    mean = context.mean(1, keepdim=True)
    scale = context.std(1, keepdim=True, unbiased=False).clamp_min(SCALE_FLOOR)
    return (context - mean) / scale, (windows_BW[:, -1] - mean[:, 0]) / scale[:, 0], scale[:, 0]


def fit_autoregression(context_BK: Tensor, target_B: Tensor, ridge: float) -> Tensor:
    """Solve the linear forecast that is best in Huber's sense, shape (K + 1,), the bias last.

    Ridge regression solved a few times with Huber weights: residuals above one scale count
    linearly, so that the faults inside the training part do not decide the forecast.

    Args:
        context_BK: standardised contexts.
        target_B: standardised next values.
        ridge: added to the diagonal, in units of a standardised reading's variance.
    """
    inputs = torch.cat((context_BK, torch.ones_like(context_BK[:, :1])), dim=1).double()
    target = target_B.double().clamp(-TARGET_LIMIT, TARGET_LIMIT)
    penalty = torch.full((inputs.shape[1],), ridge, dtype=torch.float64, device=inputs.device)
    penalty[-1] = 1e-9  # the bias is not regularised, only kept solvable
    weight = torch.ones_like(target)
    solution = torch.zeros(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    for _ in range(HUBER_ROUNDS):
        weighted = inputs * weight.unsqueeze(1)
        gram = weighted.T @ inputs / len(inputs) + torch.diag(penalty)
        solution = torch.linalg.solve(gram, weighted.T @ target / len(inputs))
        weight = 1.0 / (target - inputs @ solution).abs().clamp_min(1.0)
    return solution.float()
