"""Which model versions a detector should use: the champion, and the challenger of a running trial.

Polls two tables and loads in a thread, because a first load imports the model's library, which
takes seconds that scoring has not. Invariants: each revision of the champion and each trial is
handed out at most once; what cannot be loaded is refused once, and whatever is in use stays.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from prometheus_client import Counter
from sqlalchemy import Connection, Engine

from cluster.clock import Clock
from cluster.metrics import REGISTRY
from cluster.store import in_write, read_transaction
from ingest.errors import ScorerError
from ingest.live_models import CHALLENGER, LiveModel, read_live_model
from ingest.model_trial import Trial, TrialState, end_trial, running_trial
from ingest.scorer import Scorer

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""How often the tables are looked at: a promotion is everywhere within a second, loading included."""
KEPT = 3
"""Champions that stay in memory after they were replaced: going back to one needs no loading."""

models_refused = Counter("watchfloor_detector_models_refused", "Model versions that failed.", registry=REGISTRY)


class ModelWatch:
    """The models of one detector; used by its one thread."""

    def __init__(self, engine: Engine, clock: Clock, load: Callable[[LiveModel], Scorer]) -> None:
        """Begin without touching the store.

        Args:
            load: how a version becomes a scorer.
        """
        self._engine = engine
        self._clock = clock
        self._load = load
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")
        self._champion_load: tuple[LiveModel, Future[Scorer]] | None = None
        self._challenger_load: tuple[Trial, Future[Scorer]] | None = None
        self._kept: dict[tuple[str, str], Scorer] = {}
        self._handed_out: str | None = None
        self._next_poll_s = 0.0
        self.champion: LiveModel | None = None
        """The last one that was loaded or refused."""
        self.trial: Trial | None = None
        """The one that is running, as it was at the last look."""
        self.refusal: str | None = None
        """Why the champion is not in use; None while it is."""

    def poll(self, ready: tuple[Trial, Scorer] | None) -> None:
        """Look at the tables when it is time.

        Args:
            ready: the challenger at work, which needs no loading when it becomes champion.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the SQL store is away.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_poll_s:
            return
        self._next_poll_s = now_s + POLL_S
        with read_transaction(self._engine) as connection:
            promoted, self.trial = read_live_model(connection), running_trial(connection)
        self._follow(promoted, ready)
        self._prepare()

    def wait_champion(self, timeout_s: float) -> None:
        """Wait until a load that has begun is over."""
        if self._champion_load is not None:
            wait([self._champion_load[1]], timeout=timeout_s)

    def take_champion(self) -> Scorer | None:
        """Return a champion that has become ready, once."""
        if self._champion_load is None or not self._champion_load[1].done():
            return None
        promoted, loading = self._champion_load
        self._champion_load, self.champion = None, promoted
        try:
            scorer = loading.result()
        except ScorerError as error:
            self.refusal = str(error)
            models_refused.inc()
            logger.error("%s; the version in use goes on", error)  # noqa: TRY400
            return None
        self.refusal = None
        name = (promoted.scorer, promoted.version)
        self._kept.pop(name, None)
        self._kept[name] = scorer
        for oldest in list(self._kept)[: -KEPT - 1]:
            del self._kept[oldest]
        return scorer

    def take_challenger(self) -> tuple[Trial, Scorer] | None:
        """Return the challenger of the running trial when it has become ready, once."""
        if self._challenger_load is None or not self._challenger_load[1].done():
            return None
        trial, loading = self._challenger_load
        self._challenger_load, self._handed_out = None, trial.id
        try:
            return trial, loading.result()
        except ScorerError as error:
            self.refuse(trial, str(error))
            return None

    def refuse(self, trial: Trial, reason: str) -> None:
        """End a trial whose challenger cannot be used.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the SQL store is away.
        """
        logger.error("the trial of %s@%s has ended: %s", trial.scorer, trial.version, reason)
        models_refused.inc()
        at = self._clock.time_s()

        def end(connection: Connection) -> bool:
            return end_trial(connection, trial.id, TrialState.REFUSED, reason, at)

        in_write(self._engine, end)

    def close(self) -> None:
        """Let go of the loader."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _follow(self, promoted: LiveModel | None, ready: tuple[Trial, Scorer] | None) -> None:
        """Begin to load what was promoted, unless it is in use, being loaded or refused already."""
        known = self._champion_load[0] if self._champion_load is not None else self.champion
        if promoted is None or (known is not None and promoted.revision == known.revision):
            return
        if self._champion_load is not None:
            return  # one at a time; the next look sees the newest
        name = (promoted.scorer, promoted.version)
        known_scorer = self._kept.get(name)
        if ready is not None and (ready[0].scorer, ready[0].version) == name:
            known_scorer = ready[1]
        if known_scorer is not None:
            loaded: Future[Scorer] = Future()
            loaded.set_result(known_scorer)
            self._champion_load = (promoted, loaded)
        else:
            self._champion_load = (promoted, self._loader.submit(self._load, promoted))

    def _prepare(self) -> None:
        trial = self.trial
        if self._challenger_load is not None and (trial is None or self._challenger_load[0].id != trial.id):
            self._challenger_load[1].cancel()
            self._challenger_load = None
        if trial is None or trial.id == self._handed_out or self._challenger_load is not None:
            return
        model = LiveModel(CHALLENGER, trial.scorer, trial.version, trial.uri, 0, trial.started_at)
        self._challenger_load = (trial, self._loader.submit(self._load, model))
