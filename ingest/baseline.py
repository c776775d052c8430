"""The model of a series that nobody has trained one for: ridge regression on its own past.

Closed form, numpy only, a fraction of a millisecond to fit; it is also the linear skip that
the trained model starts from, and the honest baseline every report prints.
Invariant: a fitted ``ARBaseline`` never changes; a refit is a new object.

Shapes: B windows, W = context + 1 values, P = context lags.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ingest.scorer import Residuals, Windows

NAME = "ar-baseline"
VERSION = "1"


class ARBaseline:
    """Predicts a value linearly from the ``context`` values before it (a ``Scorer``)."""

    name = NAME
    version = VERSION

    def __init__(self, coefficients_P: NDArray[np.float32]) -> None:
        self._coefficients_P = coefficients_P
        self.context = len(coefficients_P)

    @classmethod
    def fit(cls, values: NDArray[np.float32], *, context: int, ridge: float) -> "ARBaseline":
        """Fit to one series.

        Args:
            values: normalised history, oldest first, more than ``context`` of them.
            context: lags.
            ridge: penalty per window on the squared coefficients; keeps a constant or a
                purely periodic history solvable.

        References:
            Strong Linear Baselines Strike Back, arXiv 2602.00672.
        """
        windows_BW = sliding_window_view(values.astype(np.float64), context + 1)
        lags_BP, target_B = windows_BW[:, :-1], windows_BW[:, -1]
        gram_PP = lags_BP.T @ lags_BP + ridge * len(target_B) * np.eye(context)
        return cls(np.linalg.solve(gram_PP, lags_BP.T @ target_B).astype(np.float32))

    def residuals(self, windows_BW: Windows) -> Residuals:
        """Return |value - prediction| in units of the series' scale, shape (B,)."""
        # einsum and not @: BLAS sums in another order for another B, and the same window must give the same residual.
        residuals_B: Residuals = np.abs(
            windows_BW[:, -1] - np.einsum("bp,p->b", windows_BW[:, :-1], self._coefficients_P)
        )
        return residuals_B
