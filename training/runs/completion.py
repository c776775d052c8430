"""The end of a successful training: from weights in memory to a model that is live.

Register, try, promote, tell -- in this order, in the worker of rank 0, so that the model
is live seconds before Ray Train has cleaned its worker group up. Invariant: nobody hears
of a version that the detectors could not load, because it was loaded here first.
"""

import logging
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from sqlalchemy import Engine

from ingest.errors import StaleRevisionError
from ingest.scorer import check_scorer
from realtime.broadcaster import Broadcaster
from realtime.messages import MessageType
from training.data.snapshots import Dataset
from training.evaluation.forecasts import ACCURACY_KIND, Evaluation
from training.models.anomaly import MODEL_TYPE, load_scorer
from training.models.forecaster import ResidualForecaster
from training.models.weights import dump_weights
from training.registry.manifest import Manifest
from training.registry.promotion import champion, promote
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.settings import TrainSettings

logger = logging.getLogger(__name__)

PROMOTE_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One forecast of the held-out part, to show what the model does."""

    series: str
    forecast: float
    actual: float


def register(
    model: ResidualForecaster,
    evaluation: Evaluation,
    *,
    storage: Storage,
    dataset: Dataset,
    settings: TrainSettings,
    run_id: str,
    user_id: str,
) -> tuple[Manifest, str]:
    """Write the model as a new version and load it as a detector will.

    Returns:
        Its manifest, and the URL of its folder.

    Raises:
        ModelFileError, ScorerError: what was written cannot be used; nothing was promoted.
    """
    registry = ModelRegistry(storage)
    manifest = registry.add(
        model_type=MODEL_TYPE,
        weights=dump_weights(model.state_dict()),
        created_at_s=time.time(),
        config=model.config.to_json(),
        dataset={
            "name": dataset.name,
            "digest": dataset.digest,
            "series": len(dataset.series),
            "readings": dataset.num_readings,
        },
        metrics=evaluation.to_json(),
        settings=asdict(settings),
        seed=settings.seed,
        run_id=run_id,
        user_id=user_id,
        libraries=_libraries(),
    )
    uri = registry.uri(manifest)
    check_scorer(load_scorer(uri, manifest.version))
    return manifest, uri


def go_live(engine: Engine, manifest: Manifest, uri: str) -> int:
    """Make the version champion; the detectors see it at their next poll.

    Returns:
        The champion's new revision.

    Raises:
        StaleRevisionError: others kept promoting; the version is registered, not live.
    """
    reason = f"trained by run {manifest.run_id or '(none)'} on {manifest.dataset['name']}"
    for attempt in range(1, PROMOTE_ATTEMPTS + 1):
        current = champion(engine)
        try:
            return promote(
                engine,
                manifest,
                uri,
                reason=reason,
                at=time.time(),
                expected_revision=current.revision if current else 0,
            ).revision
        except StaleRevisionError:
            # Whoever promoted last wins: the newest model is at least as good as the one it raced with.
            if attempt == PROMOTE_ATTEMPTS:
                raise
            logger.info("run %s: the champion moved meanwhile, trying again", manifest.run_id)
    raise AssertionError("unreachable: the last attempt returns or raises")


def announce(broadcaster: Broadcaster, manifest: Manifest, sample: Sample, revision: int) -> None:
    """Tell the user and the NOC that the model is there; never raises."""
    shared: dict[str, Any] = {
        "model_id": manifest.model_id,
        "model_type": manifest.model_type,
        "version": manifest.version,
        "run_id": manifest.run_id,
        "dataset_id": manifest.dataset["name"],
    }
    metrics = {"accuracy": manifest.metrics["accuracy"], "accuracy_kind": ACCURACY_KIND, "metrics": manifest.metrics}
    broadcaster.broadcast_to_noc_dashboard(MessageType.ML_TRAINING_COMPLETE, shared | metrics)
    broadcaster.broadcast_to_noc_dashboard(
        MessageType.MODEL_UPDATE, shared | {"alias": "champion", "revision": revision, "metrics": manifest.metrics}
    )
    if manifest.user_id:
        broadcaster.broadcast_to_user(
            manifest.user_id, MessageType.ML_PREDICTION, shared | {"prediction": sample.forecast} | asdict(sample)
        )
        broadcaster.broadcast_to_user(
            manifest.user_id,
            MessageType.TASK_COMPLETE,
            shared | {"task_name": "train_model", "result": {"model_id": manifest.model_id} | metrics},
        )


def _libraries() -> dict[str, str]:
    import ray  # here, because a plain evaluation needs no Ray

    return {"torch": str(torch.__version__), "ray": ray.__version__, "python": platform.python_version()}
