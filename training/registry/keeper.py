"""Ends trials and takes promotions back: one step a second, on the SQL store alone.

Runs beside the detector, where there is always one; several of them do what one would, because
every move is a compare-and-set. Invariants: a promotion is taken back at most once, to the
version before it; whatever is decided is written down with its figures and told.
"""

import logging
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter
from sqlalchemy import Connection, Engine, func, select

from cluster.metrics import REGISTRY
from cluster.settings import load_section
from cluster.store import in_write, read_transaction
from ingest.alerts.model import Verdict
from ingest.alerts.tables import alerts
from ingest.errors import StaleRevisionError
from ingest.live_models import CHAMPION, PREVIOUS, LiveModel, read_live_model
from ingest.model_trial import Trial, TrialState, end_trial, list_trials, running_trial
from realtime.broadcast_calls import BroadcastCalls
from realtime.messages import MessageType
from realtime.process_broadcaster import get_broadcaster
from realtime.publication import Priority
from training.errors import ModelFileError
from training.registry.gates import PromotionSettings, Verdicts, judge_trial, refuse_promotion
from training.registry.manifest import Manifest
from training.registry.promotion import promote
from training.registry.versions import read_manifest

logger = logging.getLogger(__name__)

model_decisions = Counter(
    "watchfloor_model_decisions", "What became of model versions after their training.", ["decision"], registry=REGISTRY
)


VERDICTS_EVERY_S = 5.0
"""How often the verdicts on a new champion are counted."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the tables say at one moment."""

    champion: LiveModel | None
    previous: LiveModel | None
    trial: Trial | None
    was_promoted: Trial | None
    """The champion's own trial, while the promotion may still be taken back."""


class ModelKeeper:
    """The one that promotes after a trial and rolls back after verdicts."""

    def __init__(self, engine: Engine, broadcaster: BroadcastCalls, settings: PromotionSettings) -> None:
        self._engine = engine
        self._broadcaster = broadcaster
        self._settings = settings
        self._next_count = 0.0

    def step(self, now: float) -> None:
        """Decide what is due.

        Args:
            now: seconds since the Unix epoch.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the SQL store is away; the next step does it.
        """
        with read_transaction(self._engine) as connection:
            standing = _read(connection)
        if standing.trial is not None and standing.champion is not None:
            self._end(standing.trial, standing.champion, now)
        elif standing.was_promoted is not None and not 0 <= self._next_count - now < VERDICTS_EVERY_S:
            self._next_count = now + VERDICTS_EVERY_S
            self._reconsider(standing, now)

    def _end(self, trial: Trial, champion: LiveModel, now: float) -> None:
        if champion.version == trial.version:
            # A crash came between the promotion and its entry.
            self._close(trial, TrialState.PROMOTED, trial.reason, now)
            return
        if champion.version != trial.against:
            self._close(trial, TrialState.SUPERSEDED, f"{champion.version} became champion meanwhile", now)
            return
        ruling = judge_trial(
            trial.readings, trial.champion_alerts, trial.challenger_alerts, now - trial.started_at, self._settings
        )
        if ruling is None:
            return
        if not ruling.is_won:
            self._close(trial, TrialState.REFUSED, ruling.reason, now)
            return
        try:
            manifest = read_manifest(trial.uri)
            live = promote(
                self._engine,
                manifest,
                trial.uri,
                reason=f"won its trial: {ruling.reason}",
                at=now,
                expected_revision=champion.revision,
            )
        except ModelFileError as error:
            self._close(trial, TrialState.REFUSED, str(error), now)
        except StaleRevisionError:
            logger.info("the champion moved meanwhile; the next step looks again")
        else:
            self._close(trial, TrialState.PROMOTED, ruling.reason, now, (live, manifest))

    def _reconsider(self, standing: _Standing, now: float) -> None:
        champion, previous, trial = standing.champion, standing.previous, standing.was_promoted
        assert champion is not None
        assert trial is not None
        if previous is None or now - champion.updated_at > self._settings.rollback_s:
            return
        with read_transaction(self._engine) as connection:
            ours = verdicts_on(connection, champion, since=champion.updated_at)
            before = verdicts_on(connection, previous)
        reason = refuse_promotion(ours, before, self._settings)
        if reason is None:
            return
        try:
            manifest = read_manifest(previous.uri)
            live = promote(
                self._engine,
                manifest,
                previous.uri,
                reason=f"rolled back: {reason}",
                at=now,
                expected_revision=champion.revision,
            )
        except ModelFileError as error:
            self._close(trial, TrialState.ROLLED_BACK, f"{reason}; but {error}", now, was=TrialState.PROMOTED)
        except StaleRevisionError:
            logger.info("the champion moved meanwhile; the next step looks again")
        else:
            self._close(trial, TrialState.ROLLED_BACK, reason, now, (live, manifest), was=TrialState.PROMOTED)

    def _close(
        self,
        trial: Trial,
        state: TrialState,
        reason: str,
        now: float,
        moved: tuple[LiveModel, Manifest] | None = None,
        *,
        was: TrialState = TrialState.RUNNING,
    ) -> None:
        """End the trial and tell; ``moved``: the champion that there is now, when this changed it."""

        def end(connection: Connection) -> bool:
            return end_trial(connection, trial.id, state, reason, now, was=was)

        if not in_write(self._engine, end):
            return  # somebody else was first
        model_decisions.labels(state.value).inc()
        logger.info("%s@%s %s: %s", trial.scorer, trial.version, state.value, reason)
        if moved is not None:
            live, manifest = moved
            told = model_update(manifest, alias=CHAMPION, revision=live.revision, decision=state.value, reason=reason)
            self._broadcaster.broadcast_to_noc_dashboard(MessageType.MODEL_UPDATE, told)
        if state is TrialState.ROLLED_BACK:
            text = f"{trial.scorer}@{trial.version} was taken back: {reason}"
            self._broadcaster.broadcast_to_noc_dashboard(
                MessageType.SYSTEM_ALERT, {"component": "models", "message": text}, priority=Priority.HIGH
            )


def model_update(manifest: Manifest, *, alias: str, revision: int, decision: str, reason: str) -> dict[str, Any]:
    """Return the data of a ``model_update``: which version an alias points to now, and why."""
    return {
        "model_id": manifest.model_id,
        "model_type": manifest.model_type,
        "version": manifest.version,
        "run_id": manifest.run_id,
        "dataset_id": manifest.dataset["name"],
        "alias": alias,
        "revision": revision,
        "metrics": manifest.metrics,
        "decision": decision,
        "reason": reason,
    }


def new_keeper(engine: Engine) -> ModelKeeper:
    """Return a keeper with this process's settings and broadcaster."""
    return ModelKeeper(engine, get_broadcaster(), load_section(PromotionSettings))


def verdicts_on(connection: Connection, model: LiveModel, since: float | None = None) -> Verdicts:
    """Return what people said of a version's alerts, of those begun after ``since``."""
    query = (
        select(alerts.c.verdict, func.count())
        .where(alerts.c.model_version == model.version, alerts.c.model == model.scorer, alerts.c.verdict.is_not(None))
        .group_by(alerts.c.verdict)
    )
    if since is not None:
        query = query.where(alerts.c.verdict_at >= since)
    counts = {str(verdict): int(count) for verdict, count in connection.execute(query)}
    false = counts.get(Verdict.FALSE_POSITIVE.value, 0)
    others = sum(counts.get(verdict.value, 0) for verdict in (Verdict.TRUE_POSITIVE, Verdict.EXPECTED))
    return Verdicts(false, others)


def _read(connection: Connection) -> _Standing:
    champion = read_live_model(connection, CHAMPION)
    own = list_trials(connection, 1, champion.version) if champion is not None else []
    was_promoted = own[0] if own and own[0].state is TrialState.PROMOTED else None
    return _Standing(champion, read_live_model(connection, PREVIOUS), running_trial(connection), was_promoted)
