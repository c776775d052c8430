"""What a run says while it works: a bar that rises, a row in the queue, and never a delay."""

import threading
import time
from typing import Any, cast

from cluster.errors import ServiceUnavailableError
from cluster.run_queue_client import RunQueueClient
from realtime.broadcaster import Broadcaster
from training.runs.bar import FITTED, FITTING, TrainingBar
from training.runs.checkpoint import TrainState
from training.runs.loop import Progress
from training.runs.reporter import LiveReporter, SilentReporter


class RecordingBroadcaster:
    """Keeps what a ``Broadcaster`` was asked to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def broadcast_task_progress(
        self, user_id: Any, task_name: str, progress: float, message: str, run_id: str, data: Any
    ) -> bool:
        self.sent.append((user_id, task_name, progress, message, run_id, data))
        return True

    def flush(self, timeout_s: float) -> bool:
        return True


class SlowQueue:
    """A run queue that does not answer until it is let go, and then refuses once."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = threading.Event()
        self.rows: list[tuple[float, str]] = []

    def progress(self, run_id: str, percent: float, message: str) -> None:
        self.asked.set()
        self.may_answer.wait(5)
        self.rows.append((percent, message))
        if len(self.rows) == 1:
            raise ServiceUnavailableError("run-queue", "its actor", "restarting")


def _reporter(queue: SlowQueue, percent: float = 0.0) -> tuple[LiveReporter, RecordingBroadcaster]:
    broadcaster = RecordingBroadcaster()
    reporter = LiveReporter(
        "01RUN",
        "ada",
        "train anomaly_detector",
        cast(RunQueueClient, queue),
        cast(Broadcaster, broadcaster),
        percent=percent,
    )
    return reporter, broadcaster


def test_a_queue_that_hangs_does_not_delay_the_loop_and_gets_the_newest_value() -> None:
    """Values between are skipped, the last one is written, an error is survived."""
    queue = SlowQueue()
    reporter, broadcaster = _reporter(queue)
    reporter.progress(1.0, "a", is_milestone=True)
    assert queue.asked.wait(5)
    began = time.monotonic()
    for percent in range(2, 50):
        reporter.progress(float(percent), "between", is_milestone=True)
    took_s = time.monotonic() - began
    queue.may_answer.set()
    reporter.close(5.0)

    assert took_s < 1.0
    assert len(broadcaster.sent) == 49
    assert queue.rows == [(1.0, "a"), (49.0, "between")]


def test_the_bar_goes_to_the_user_and_the_run_and_never_down() -> None:
    queue = SlowQueue()
    queue.may_answer.set()
    reporter, broadcaster = _reporter(queue)
    reporter.progress(50.0, "far", {"epoch": 3}, is_milestone=True)
    reporter.progress(40.0, "restarted", is_milestone=True)
    reporter.close(5.0)

    assert broadcaster.sent[0] == ("ada", "train anomaly_detector", 50.0, "far", "01RUN", {"epoch": 3})
    assert [sent[2] for sent in broadcaster.sent] == [50.0, 50.0]


def test_new_workers_go_on_where_the_lost_ones_left_the_bar() -> None:
    """They load the data again, and nobody sees the bar fall for that."""
    queue = SlowQueue()
    queue.may_answer.set()
    reporter, broadcaster = _reporter(queue, percent=60.0)
    reporter.progress(2.0, "loading the data", is_milestone=True)
    reporter.progress(61.5, "epoch 6/10", is_milestone=True)
    reporter.close(5.0)

    assert [(sent[2], sent[3]) for sent in broadcaster.sent] == [(60.0, "loading the data"), (61.5, "epoch 6/10")]


def test_values_in_quick_succession_are_thinned() -> None:
    """An epoch of milliseconds does not flood the hub."""
    queue = SlowQueue()
    queue.may_answer.set()
    reporter, broadcaster = _reporter(queue)
    for percent in range(100):
        reporter.progress(float(percent), "quick")
    reporter.close(5.0)

    assert len(broadcaster.sent) <= 3


def _bar(reporter: SilentReporter, start: Progress | None = None) -> TrainingBar:
    state = TrainState(
        model=cast(Any, None),
        optimizer=cast(Any, None),
        scheduler=cast(Any, None),
        dataset_digest="",
        progress=start or Progress(),
        best={},
        best_loss=0.5,
        best_epoch=0,
    )
    return TrainingBar(reporter, epochs=5, steps=10, world_size=2, state=state)


def test_percent_rises_with_every_step_and_epoch() -> None:
    """From the begin of the fit to its end, with loss, speed and remaining time beside it."""
    reporter = SilentReporter()
    bar = _bar(reporter)
    for epoch in range(5):
        bar.tick(Progress(epoch=epoch, step=5, samples=100 * epoch + 50, loss_sum=5.0))
        bar.after_epoch(Progress(epoch=epoch + 1, samples=100 * (epoch + 1), loss=0.4), 0.3)

    percents = [percent for percent, _, _ in reporter.told]
    assert percents == sorted(set(percents))
    assert percents[0] > FITTING
    assert percents[-1] == FITTED
    _, message, data = reporter.told[-1]
    assert message == "epoch 5/5, loss 0.4000, validation loss 0.3000"
    assert {"epoch", "epochs", "loss", "val_loss", "samples_per_s", "eta_s"} <= data.keys()
    assert (data["epoch"], data["epochs"], data["loss"], data["val_loss"], data["eta_s"]) == (5, 5, 0.4, 0.3, 0.0)


def test_a_continued_training_starts_its_bar_where_it_was() -> None:
    """And counts its speed from there, not from the first attempt."""
    reporter = SilentReporter()
    bar = _bar(reporter, Progress(epoch=4, samples=10**9, loss=0.4))
    bar.tick(Progress(epoch=4, step=5, samples=10**9 + 10, loss_sum=1.0))

    percent, _, data = reporter.told[0]
    assert percent == FITTING + (FITTED - FITTING) * 0.9
    assert data["samples_per_s"] < 10**9
