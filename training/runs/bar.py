"""The bar of a training: where the loop is, as percent, text and figures.

Decides what is said; when it goes out is the reporter's affair. Invariant: percent rises
with every step, so each epoch ends at a larger value than the one before.
"""

import time

from training.runs.checkpoint import TrainState
from training.runs.loop import Progress
from training.runs.reporter import Reporter

LOADING, SOLVING, FITTING, FITTED, EVALUATED, REGISTERED, DONE = 2.0, 4.0, 6.0, 92.0, 95.0, 98.0, 100.0
"""Percent of the run at which each stage begins."""


class TrainingBar:
    """Turns the loop's progress into what people read."""

    def __init__(self, reporter: Reporter, epochs: int, steps: int, world_size: int, state: TrainState) -> None:
        self._reporter = reporter
        self._epochs = epochs
        self._steps = steps
        self._world_size = world_size
        self._began = state.progress
        self._began_s = time.monotonic()
        self._validation_loss = state.best_loss
        self._loss = state.progress.loss

    def tick(self, progress: Progress) -> None:
        """Say where the loop is inside an epoch."""
        self._loss = progress.loss_sum / max(1, progress.step)
        self._tell(progress, min(self._epochs, progress.epoch + 1))

    def after_epoch(self, progress: Progress, validation_loss: float) -> None:
        """Say how an epoch ended."""
        self._loss, self._validation_loss = progress.loss, validation_loss
        self._tell(progress, progress.epoch)

    def _tell(self, progress: Progress, epoch: int) -> None:
        done = self._fraction(progress)
        spent_s = max(1e-6, time.monotonic() - self._began_s)
        gained = done - self._fraction(self._began)
        data = {
            "epoch": epoch,
            "epochs": self._epochs,
            "loss": self._loss,
            "val_loss": self._validation_loss,
            "samples_per_s": round((progress.samples - self._began.samples) * self._world_size / spent_s),
            "eta_s": round(spent_s * (1.0 - done) / gained, 1) if gained > 0 else None,
        }
        loss = "" if self._loss is None else f", loss {self._loss:.4f}"
        message = f"epoch {epoch}/{self._epochs}{loss}, validation loss {self._validation_loss:.4f}"
        self._reporter.progress(FITTING + (FITTED - FITTING) * done, message, data)

    def _fraction(self, progress: Progress) -> float:
        return (progress.epoch + progress.step / self._steps) / self._epochs
