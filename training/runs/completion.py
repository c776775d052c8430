"""The end of a successful training: from weights in memory to a model that is live, or on trial.

Register, load, offer, tell -- in this order, in the worker of rank 0, so that the model
is at work seconds before Ray Train has cleaned its worker group up. Invariant: nobody hears
of a version that the detectors could not load, because it was loaded here first; and a run registers
and offers one version, however often the worker of rank 0 is lost on the way.
"""

import logging
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from sqlalchemy import Engine

from cluster.store import read_transaction
from ingest.errors import StaleRevisionError
from ingest.live_models import CHALLENGER, CHAMPION, read_live_model
from ingest.model_trial import TrialState, list_trials
from ingest.scorer import check_scorer
from realtime.broadcaster import Broadcaster
from realtime.messages import MessageType
from training.data.snapshots import Dataset
from training.evaluation.forecasts import ACCURACY_KIND, Evaluation
from training.models.anomaly import MODEL_TYPE, load_scorer
from training.models.forecaster import ResidualForecaster
from training.models.weights import dump_weights
from training.registry.gates import PromotionSettings, refuse_figures
from training.registry.keeper import model_decisions, model_update
from training.registry.manifest import Manifest
from training.registry.promotion import challenge, promote, refuse
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.settings import TrainSettings

logger = logging.getLogger(__name__)

OFFER_ATTEMPTS = 5


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
    weights = dump_weights(model.state_dict())
    known = registry.of_run(MODEL_TYPE, run_id, weights) if run_id else None
    manifest = known or registry.add(
        model_type=MODEL_TYPE,
        weights=weights,
        created_at_s=time.time(),
        config=model.config.to_json(),
        dataset=dataset.to_json(),
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


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of a version when it was offered to the detectors."""

    state: TrialState
    """Promoted, on trial (``running``), or refused."""
    reason: str
    revision: int = 0
    """The champion's new revision when it was promoted."""

    @property
    def words(self) -> str:
        """The end of a sentence that begins with the version's name."""
        return {
            TrialState.PROMOTED: "is live",
            TrialState.RUNNING: "is tried beside the one in use",
        }.get(self.state, f"is refused: {self.reason}")


def offer(engine: Engine, manifest: Manifest, uri: str, settings: PromotionSettings) -> Offer:
    """Hand a version to the detectors: as champion when there is none, else on trial beside it.

    One that was offered already is not offered again; what became of it is returned.

    Raises:
        StaleRevisionError: others kept promoting; the version is registered, not live.
    """
    if (before := _offered(engine, manifest)) is not None:
        return before
    reason = f"trained by run {manifest.run_id or '(none)'} on {manifest.dataset['name']}"
    refusal = refuse_figures(manifest.metrics, settings)
    if refusal is not None:
        refuse(engine, manifest, uri, reason=refusal, at=time.time())
        model_decisions.labels(TrialState.REFUSED.value).inc()
        return Offer(TrialState.REFUSED, refusal)
    for _ in range(OFFER_ATTEMPTS):
        try:
            if challenge(engine, manifest, uri, reason=reason, at=time.time()) is not None:
                return Offer(TrialState.RUNNING, reason)
            live = promote(engine, manifest, uri, reason=reason, at=time.time(), expected_revision=0)
        except StaleRevisionError:
            logger.info("run %s: another version moved meanwhile, trying again", manifest.run_id)
            continue
        model_decisions.labels(TrialState.PROMOTED.value).inc()
        return Offer(TrialState.PROMOTED, reason, live.revision)
    raise StaleRevisionError(CHAMPION, 0)


def _offered(engine: Engine, manifest: Manifest) -> Offer | None:
    with read_transaction(engine) as connection:
        live = read_live_model(connection, CHAMPION)
        trials = list_trials(connection, 1, manifest.version)
    if live is not None and live.version == manifest.version:
        return Offer(TrialState.PROMOTED, "it is live already", live.revision)
    return Offer(trials[0].state, trials[0].reason) if trials else None


def announce(broadcaster: Broadcaster, manifest: Manifest, sample: Sample, offered: Offer) -> None:
    """Tell the user and the NOC that the model is there, and what became of it; never raises."""
    shared: dict[str, Any] = {
        "model_id": manifest.model_id,
        "model_type": manifest.model_type,
        "version": manifest.version,
        "run_id": manifest.run_id,
        "dataset_id": manifest.dataset["name"],
    }
    metrics = {"accuracy": manifest.metrics["accuracy"], "accuracy_kind": ACCURACY_KIND, "metrics": manifest.metrics}
    broadcaster.broadcast_to_noc_dashboard(MessageType.ML_TRAINING_COMPLETE, shared | metrics)
    alias = CHAMPION if offered.state is TrialState.PROMOTED else CHALLENGER
    told = model_update(
        manifest, alias=alias, revision=offered.revision, decision=offered.state.value, reason=offered.reason
    )
    broadcaster.broadcast_to_noc_dashboard(MessageType.MODEL_UPDATE, told)
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
