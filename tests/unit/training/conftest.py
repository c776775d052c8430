"""What the training tests share: small data, small networks, a storage in a folder."""

from pathlib import Path

import numpy as np
import pytest

from training.data.snapshots import Dataset, Series
from training.registry.storage import Storage
from training.settings import TrainSettings


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


@pytest.fixture
def settings() -> TrainSettings:
    """A training of about a second."""
    return TrainSettings(context=16, channels=4, num_layers=2, epochs=3, batch_size=64, min_steps=0, min_windows=64)


@pytest.fixture
def dataset() -> Dataset:
    """Two series with a period and noise: an autoregression forecasts them well, a constant does not."""
    return make_dataset(readings=600)


def make_dataset(readings: int, name: str = "made", seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    ts = 1_700_000_000.0 + 60.0 * np.arange(readings)
    series = []
    for index, period in enumerate((12.0, 31.0)):
        values = 50.0 + 10.0 * np.sin(2 * np.pi * np.arange(readings) / period) + rng.normal(0.0, 1.0, readings)
        series.append(Series(f"demo/device-{index}/temperature", ts, values))
    return Dataset.of(name, series)
