"""A task that trains, tells a user how far it is, and tells the NOC when it is done.

    eval "$(watchfloor env)"
    python examples/train_with_progress.py ada

The user ``ada`` sees a bar move on the page; every operator hears of the result. For a
training that is to go live, with a lane, checkpoints and a registry, see
``python -m training train``.
"""

import sys

import torch

from cluster.task import task
from realtime import get_broadcaster
from training.data.snapshots import read_dataset
from training.evaluation.forecasts import evaluate
from training.runs.driver import connect_ray
from training.runs.loop import Progress, fit
from training.runs.recipe import set_up
from training.settings import TrainSettings

NAME = "Anomaly Detection Training"
EPOCHS = 10


@task(lane="ai_processing")
def train_anomaly_detector(series: str, user_id: int | str) -> dict[str, object]:
    """Train on a recorded series; a failed broadcast would not stop it."""
    broadcaster = get_broadcaster()
    broadcaster.broadcast_task_progress(user_id, NAME, 0.0)
    settings = TrainSettings(epochs=EPOCHS, max_windows=5000)
    setup = set_up(read_dataset(f"recorded:{series}", "", 0.0, 0.0), settings, torch.device("cpu"))

    def tell(progress: Progress) -> None:
        done = 100.0 * progress.epoch / EPOCHS
        broadcaster.broadcast_task_progress(user_id, NAME, done, message=f"Epoch {progress.epoch}/{EPOCHS} complete")

    fit(setup.model, setup.state.optimizer, setup.batches, epochs=EPOCHS, report=tell, start=Progress())
    accuracy = evaluate(setup.model, setup.baseline, *setup.parts.holdout).accuracy
    result = {"model_id": f"example/{series}", "accuracy": accuracy}
    broadcaster.broadcast_to_noc_dashboard("ml_training_complete", result, priority="normal")
    return result


if __name__ == "__main__":
    connect_ray()
    print(train_anomaly_detector.submit("nyc_taxi", sys.argv[1] if len(sys.argv) > 1 else "ada").result(timeout_s=120))
