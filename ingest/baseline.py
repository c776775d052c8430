"""The model of a series that nobody has trained one for: ridge regression on its own past.

Closed form, numpy only, a fraction of a millisecond to fit; it is also the linear skip that
the trained model starts from, and the honest baseline every report prints.
Invariant: a fitted ``ARBaseline`` never changes; a refit is a new object.

Shapes: B windows, W = context + 1 values, P = context lags.
"""

import numpy as np
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
        gram_WW = _gram(values.astype(np.float64), context + 1)
        num_windows = len(values) - context
        lags_PP = gram_WW[:-1, :-1] + ridge * num_windows * np.eye(context)
        return cls(np.linalg.solve(lags_PP, gram_WW[:-1, -1]).astype(np.float32))

    def residuals(self, windows_BW: Windows) -> Residuals:
        """Return |value - prediction| in units of the series' scale, shape (B,)."""
        # einsum and not @: BLAS sums in another order for another B, and the same window must give the same residual.
        residuals_B: Residuals = np.abs(
            windows_BW[:, -1] - np.einsum("bp,p->b", windows_BW[:, :-1], self._coefficients_P)
        )
        return residuals_B


def _gram(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the sum over all windows of their outer products, shape (width, width).

    Neighbouring windows share all values but two, so each row follows from the one above. The
    matrix product would be ten times the work, and BLAS would wake a thread per core for it.
    """
    count = len(values) - width + 1
    gram_WW = np.empty((width, width))
    gram_WW[0] = [np.dot(values[:count], values[lag : lag + count]) for lag in range(width)]
    for row in range(1, width):
        left = values[row - 1] * values[row - 1 : width - 1]
        joined = values[count - 1 + row] * values[count - 1 + row : count - 1 + width]
        gram_WW[row, row:] = gram_WW[row - 1, row - 1 : -1] - left + joined
        gram_WW[row, :row] = gram_WW[:row, row]
    return gram_WW
