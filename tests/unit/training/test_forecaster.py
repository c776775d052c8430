"""The network: shapes, its closed form, and the promise that it starts as the autoregression."""

import numpy as np
import torch

from training.models.forecaster import (
    SCALE_FLOOR,
    ForecasterConfig,
    ResidualForecaster,
    fit_autoregression,
    standardise,
)

CONFIG = ForecasterConfig(context=16, channels=4, num_layers=2)


def _windows(count: int, seed: int = 0) -> torch.Tensor:
    """Windows of a noisy second-order autoregression, whose best linear forecast is known."""
    rng = np.random.default_rng(seed)
    values = np.zeros(count + 17)
    for t in range(2, len(values)):
        values[t] = 1.6 * values[t - 1] - 0.8 * values[t - 2] + rng.normal()
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(values, 17)[:count].astype(np.float32).copy())


def test_a_fresh_network_is_exactly_its_autoregression() -> None:
    """The head's last layer starts at zero, so epoch 0 is the closed form and nothing else."""
    context, target, _ = standardise(_windows(500))
    weights = fit_autoregression(context, target, ridge=1e-3)
    model = ResidualForecaster(CONFIG)
    model.set_autoregression(weights)

    expected = context @ weights[:-1] + weights[-1]
    assert torch.allclose(model(context), expected, atol=1e-5)


def test_the_closed_form_finds_the_process_that_made_the_data() -> None:
    """Its error is close to the noise, which no forecast can beat, and far from a constant forecast's."""
    windows = _windows(4000)
    context, target, scale = standardise(windows)
    weights = fit_autoregression(context, target, ridge=1e-3)
    error = ((context @ weights[:-1] + weights[-1] - target) * scale).abs().mean().item()

    best_possible = float(np.sqrt(2 / np.pi))  # mean absolute value of unit noise
    assert error < 1.1 * best_possible
    assert error < 0.5 * (windows[:, -1] - windows[:, :-1].mean(1)).abs().mean().item()


def test_a_fault_in_the_training_part_does_not_bend_the_closed_form() -> None:
    """One reading of a million changes the forecast of the others by little."""
    windows = _windows(2000)
    spoilt = windows.clone()
    spoilt[100, -1] = 1e6
    clean, bent = (fit_autoregression(*standardise(each)[:2], ridge=1e-3) for each in (windows, spoilt))

    assert (clean - bent).abs().max().item() < 0.05


def test_the_judged_value_does_not_reach_the_standardised_context() -> None:
    """What is judged must not influence what it is judged by."""
    windows = _windows(3)
    changed = windows.clone()
    changed[:, -1] += 1000.0

    assert torch.equal(standardise(windows)[0], standardise(changed)[0])


def test_a_silent_stretch_does_not_make_noise_loud() -> None:
    """The scale of a constant window is the floor, not zero."""
    context, target, scale = standardise(torch.full((2, 17), 3.0))

    assert torch.equal(context, torch.zeros(2, 16))
    assert torch.equal(target, torch.zeros(2))
    assert torch.allclose(scale, torch.full((2,), SCALE_FLOOR))


def test_residuals_are_in_the_units_of_the_windows() -> None:
    """Ten times larger readings have ten times larger residuals."""
    model = ResidualForecaster(CONFIG)
    windows = _windows(50)

    assert torch.allclose(model.residuals(10 * windows), 10 * model.residuals(windows), rtol=1e-3, atol=1e-3)
