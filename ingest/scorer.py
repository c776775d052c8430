"""What the detector asks of a model, and how a model version becomes such an object.

Only types installed on the cluster can be loaded: a version names an entry point, never a
module path of its own, and nothing is unpickled here. Invariant: ``load_scorer`` returns
an object that has already scored one window, so a model that cannot run is refused before
any detector depends on it.

Shapes: B windows, W = context + 1 values of one series, oldest first.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ingest.errors import ScorerError
from ingest.live_models import LiveModel

ENTRY_POINT_GROUP = "watchfloor.scorers"

Windows = NDArray[np.float32]
Residuals = NDArray[np.float32]
Loader = Callable[[str, str], "Scorer"]
"""``loader(uri, version)``: what a scorer's entry point resolves to."""


class Scorer(Protocol):
    """Judges the last value of a window by the values before it.

    Guarantee: ``residuals`` is a pure function of its argument (no state is kept between
    calls), so the same window gets the same residual in any batch and any process.
    """

    name: str
    """What is shown as the model, such as ``anomaly_detector``."""
    version: str
    """Immutable version of the weights; every score names exactly one."""
    context: int
    """Values before the judged one, at least 1."""

    def residuals(self, windows_BW: Windows) -> Residuals:
        """Return how far the last value of each window lies from what the model expected.

        Args:
            windows_BW: shape (B, context + 1), finite, each series divided by the scale and
                freed of the centre of its own history (see ``windows.Normaliser``).

        Returns:
            Shape (B,), finite and not negative; larger is stranger.
        """
        ...


def load_scorer(model: LiveModel) -> Scorer:
    """Load one model version and try it on a window of zeros.

    Raises:
        ScorerError: no such entry point, the files cannot be used, or the trial failed.
    """
    found = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == model.scorer]
    if not found:
        raise ScorerError(model.scorer, model.version, f"no entry point of that name in {ENTRY_POINT_GROUP}")
    try:
        loader = cast(Loader, found[0].load())
        scorer = loader(model.uri, model.version)
        check_scorer(scorer)
    except ScorerError:
        raise
    except Exception as error:
        # A model is someone else's code and files: whatever is wrong with it, detection goes
        # on with the version that it has, so every failure becomes the one error callers know.
        raise ScorerError(model.scorer, model.version, f"{type(error).__name__}: {error}") from error
    return scorer


def check_scorer(scorer: Scorer) -> None:
    """Raise ScorerError unless ``scorer`` answers a window of zeros as the Protocol says."""
    if scorer.context < 1:
        raise ScorerError(scorer.name, scorer.version, f"context must be at least 1, got {scorer.context}")
    answer = np.asarray(scorer.residuals(np.zeros((2, scorer.context + 1), dtype=np.float32)))
    if answer.shape != (2,) or not np.isfinite(answer).all() or (answer < 0).any():
        raise ScorerError(scorer.name, scorer.version, f"trial gave {answer!r}, expected 2 finite values >= 0")
