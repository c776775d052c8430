"""How a detector is set up, and how it is judged beside its baselines."""

import torch

from training.data.snapshots import Dataset, read_dataset
from training.evaluation.forecasts import evaluate, forecast, mean_loss
from training.runs.loop import Progress, fit
from training.runs.recipe import build_networks, last_forecast, plan_batches, prepare_parts, set_up
from training.settings import TrainSettings

CPU = torch.device("cpu")


def test_epoch_0_is_the_autoregression_and_beats_persistence(dataset: Dataset, settings: TrainSettings) -> None:
    """Before its first step the network equals its baseline, which is already far better than "no change"."""
    parts = prepare_parts(dataset, settings, CPU)
    model, baseline = build_networks(settings, parts)
    found = evaluate(model, baseline, *parts.holdout)

    assert found.mae == found.ar_mae
    assert found.skill_vs_ar == 0.0
    assert found.skill_vs_persistence > 0.2


def test_a_short_training_on_a_shipped_series_beats_the_autoregression() -> None:
    """On readings that neither of them saw. The measured figures stand in the ADR."""
    settings = TrainSettings(epochs=2, min_steps=0, max_windows=5000)
    dataset = read_dataset("recorded:nyc_taxi", "file:///nowhere", 1.0, 0.0)
    setup = set_up(dataset, settings, CPU)
    fit(
        setup.model,
        setup.state.optimizer,
        setup.batches,
        epochs=2,
        report=lambda _progress: None,
        start=Progress(),
        scheduler=setup.state.scheduler,
    )
    found = evaluate(setup.model, setup.baseline, *setup.parts.holdout)

    assert mean_loss(setup.model, *setup.parts.validation) < setup.state.best_loss
    assert found.loss < found.ar_loss
    assert found.skill_vs_ar > 0.02
    assert 0.0 <= found.accuracy <= 1.0


def test_every_window_is_in_one_batch_of_one_rank(settings: TrainSettings) -> None:
    """Whatever the number of workers, an epoch is one pass, and every rank makes as many steps."""
    windows = torch.arange(1000.0).unsqueeze(1), torch.arange(1000.0)
    for world_size in (1, 2, 3):
        ranks = [plan_batches(windows, settings, rank, world_size) for rank in range(world_size)]
        seen = [torch.cat([target for _, target in batches(5)]) for batches, _ in ranks]

        assert torch.equal(torch.cat(seen).sort().values, windows[1])
        assert len({steps for _, steps in ranks}) == 1
        assert len({len(list(batches(5))) for batches, _ in ranks}) == 1


def test_batches_are_the_same_whenever_they_are_asked_for(settings: TrainSettings) -> None:
    """And other ones in another epoch."""
    windows = torch.arange(300.0).unsqueeze(1), torch.arange(300.0)
    batches, _ = plan_batches(windows, settings, 0, 1)
    first, again, later = ([target.tolist() for _, target in batches(epoch)] for epoch in (1, 1, 2))

    assert first == again
    assert first != later


def test_a_forecast_to_show_is_in_the_units_of_the_readings(dataset: Dataset, settings: TrainSettings) -> None:
    """The newest reading and what the model expected: close, because the series is regular."""
    parts = prepare_parts(dataset, settings, CPU)
    model, _ = build_networks(settings, parts)
    series, predicted, actual = last_forecast(model, dataset, settings)

    assert series == dataset.series[0].key
    assert actual == dataset.series[0].values[-1]
    assert abs(predicted - actual) < 6.0


def test_forecasting_leaves_the_network_in_the_mode_it_was_in(dataset: Dataset, settings: TrainSettings) -> None:
    parts = prepare_parts(dataset, settings, CPU)
    model, _ = build_networks(settings, parts)
    for mode in (True, False):
        model.train(mode)
        forecast(model, parts.holdout[0])

        assert model.training is mode
