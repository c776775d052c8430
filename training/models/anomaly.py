"""The anomaly detector as the floor's detectors see it: a Scorer over a trained forecaster.

``load_scorer`` is the entry point ``watchfloor.scorers:anomaly_detector``; it reads a
registered version and never code or pickles of its author. Invariant: a scorer is
read-only after it was built; scoring keeps no state between calls.

Shapes: B windows, W = context + 1 values, in units of their series' own scale.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import ModelFileError
from training.models.forecaster import ForecasterConfig, ResidualForecaster
from training.models.weights import load_weights
from training.registry.versions import read_version

MODEL_TYPE = "anomaly_detector"

CHUNK = 256
"""Windows scored at once: fastest on one core, and the activations stay in its cache."""


class AnomalyScorer:
    """Judges the last value of a window by how far it is from the model's forecast."""

    name = MODEL_TYPE

    def __init__(self, model: ResidualForecaster, version: str) -> None:
        self._model = model.eval().requires_grad_(False)
        self.version = version
        self.context = model.config.context

    def residuals(self, windows_BW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distance of each window's last value from its forecast, shape (B,)."""
        # A copy: the detector's windows may be a read-only view, which torch does not take.
        windows = torch.from_numpy(np.array(windows_BW, dtype=np.float32))
        with torch.inference_mode():
            parts = [self._model.residuals(part) for part in torch.split(windows, CHUNK)]
        return np.asarray(torch.cat(parts).numpy())


def load_scorer(uri: str, version: str) -> AnomalyScorer:
    """Return the registered version at ``uri``, ready to score.

    Raises:
        ModelFileError: the files are missing, truncated, changed, or of another model.
    """
    # The detector shares its cores with ingest; torch would otherwise start a thread per core.
    torch.set_num_threads(1)
    return AnomalyScorer(load_model(uri, version), version)


def load_model(uri: str, version: str) -> ResidualForecaster:
    """Return the network of the registered version at ``uri``.

    Raises:
        ModelFileError: the files are missing, truncated, changed, or of another model.
    """
    manifest, weights = read_version(uri, model_type=MODEL_TYPE, version=version)
    try:
        model = ResidualForecaster(ForecasterConfig(**manifest.config))
        load_weights(model, weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(uri, str(error)) from error
    return model
