"""How good a forecaster is on windows it has never seen, beside honest baselines.

Every figure of a model stands next to the same figure of the closed-form autoregression
and of "the value stays as it is", on the same windows. No labels are used here, so
nothing here says how well *alerts* are; that is measured by ``bench``. Invariant: all
figures are plain finite floats of the windows handed in, independent of their batches.

Units: errors are in scales of each window's own context, see ``forecaster.standardise``.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.models.forecaster import ResidualForecaster

CHUNK = 4096
TOLERANCE = 0.5
"""A forecast counts as right when it is within half a standard deviation of its window."""
ERROR_LIMIT = 10.0
"""Larger errors count as this large: one fault in the held-out part must not decide the mean."""

ACCURACY_KIND = "share of held-out readings forecast within half a standard deviation of their window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures of one model on one set of windows."""

    windows: int
    loss: float
    """Smooth L1, as in training."""
    mae: float
    """Mean absolute error."""
    ar_loss: float
    """Smooth L1 of the closed-form autoregression alone."""
    ar_mae: float
    persistence_mae: float
    """Mean absolute error of "the next value equals the last"."""
    accuracy: float
    """See ``ACCURACY_KIND``."""
    ar_accuracy: float
    skill_vs_ar: float
    """1 - mae / ar_mae: 0 is no better than the autoregression, negative is worse."""
    skill_vs_persistence: float

    def to_json(self) -> dict[str, float]:
        """Return the figures as they stand in a manifest and in messages."""
        return {name: round(float(value), 6) for name, value in asdict(self).items()}


def evaluate(
    model: ResidualForecaster, baseline: ResidualForecaster, context_BK: Tensor, target_B: Tensor
) -> Evaluation:
    """Judge ``model`` on standardised windows beside ``baseline``, the same network with its AR part only."""
    forecasts = [forecast(one, context_BK) for one in (model, baseline)]
    losses = [functional.smooth_l1_loss(one, target_B).item() for one in forecasts]
    errors = [_errors(one, target_B) for one in (*forecasts, context_BK[:, -1])]
    mae, ar_mae, persistence_mae = (one.mean().item() for one in errors)
    accuracy, ar_accuracy = ((one <= TOLERANCE).double().mean().item() for one in errors[:2])
    return Evaluation(
        windows=len(target_B),
        loss=losses[0],
        mae=mae,
        ar_loss=losses[1],
        ar_mae=ar_mae,
        persistence_mae=persistence_mae,
        accuracy=accuracy,
        ar_accuracy=ar_accuracy,
        skill_vs_ar=1.0 - mae / max(ar_mae, 1e-9),
        skill_vs_persistence=1.0 - mae / max(persistence_mae, 1e-9),
    )


def mean_loss(model: ResidualForecaster, context_BK: Tensor, target_B: Tensor) -> float:
    """Return the smooth L1 loss on standardised windows."""
    return functional.smooth_l1_loss(forecast(model, context_BK), target_B).item()


def forecast(model: ResidualForecaster, context_BK: Tensor) -> Tensor:
    """Return the forecasts of standardised contexts, in evaluation mode, shape (B,)."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        result = torch.cat([model(part) for part in torch.split(context_BK, CHUNK)])
    model.train(was_training)
    return result


def _errors(forecast_B: Tensor, target_B: Tensor) -> Tensor:
    return (forecast_B - target_B).abs().clamp_max(ERROR_LIMIT).double()
