"""The detector at work: reads the stream, judges, commits, and only then acknowledges.

Holds the state of one shard; the actor drives ``step``. A batch stays in hand until its
alerts are committed and its acknowledgement arrived, so an outage of either store repeats
a commit that changes nothing and never skips a reading. Invariants: the first batch after
a start is judged by windows rebuilt from everything before it; which series are firing is
what the alert table says; a model that cannot be loaded leaves the one in use. The rules of a
file judge the same readings (``rules/``).
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from prometheus_client import Counter, Gauge
from sqlalchemy import Engine

from cluster import names
from cluster.clock import Clock
from cluster.metrics import REGISTRY
from cluster.store import read_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.settings import AlertSettings
from ingest.detection_settings import DetectorSettings
from ingest.detector import Decision, Detector
from ingest.errors import ScorerError
from ingest.live_models import LiveModel, read_live_model
from ingest.payload import Reading
from ingest.rules.rule_watch import RulesStatus, RuleWatch
from ingest.rules.settings import RulesSettings
from ingest.scorer import Scorer, load_scorer
from ingest.telemetry_redis import StoredReading, TelemetryStream

logger = logging.getLogger(__name__)

CONSUMER = names.DETECTOR
"""Fixed, so that a restarted detector receives what its predecessor had not acknowledged."""
POLL_S = 1.0
"""How often the live model and the lag are looked at, in seconds."""
BLOCK_MS = 200
"""Longest wait for readings; also how late a turn may notice its end."""
FIRST_MODEL_TIMEOUT_S = 60.0
"""Longest wait for the promoted model at a start; then the baseline begins."""
REBUILD_CHUNK = 5000
"""Readings judged at once while windows are rebuilt."""

readings_judged = Counter("watchfloor_detector_readings", "Readings judged.", registry=REGISTRY)
decisions_made = Counter(
    "watchfloor_detector_decisions", "Alerts begun, grown and cleared.", ["change"], registry=REGISTRY
)
lag_readings = Gauge("watchfloor_detector_lag_readings", "Readings stored and not judged yet.", registry=REGISTRY)
series_kept = Gauge("watchfloor_detector_series", "Series with a window.", registry=REGISTRY)
models_refused = Counter("watchfloor_detector_models_refused", "Model versions that failed.", registry=REGISTRY)


@dataclass(frozen=True, slots=True)
class DetectorStatus:
    """What the detector is doing."""

    model: str
    version: str
    revision: int
    """Revision of the champion alias that is in use; 0 for the baseline."""
    readings_total: int
    """Readings judged by this process; those of its rebuild are not counted."""
    events_total: int
    """Alert events written by this process."""
    series: int
    lag: int
    """Readings stored and not judged yet, at the last look."""
    refused_model: str | None
    """Why the promoted version is not in use; None while it is."""
    problem: str | None
    """What keeps readings from being judged; None while nothing does."""
    rules: RulesStatus
    """What the rules of the file are doing, on the same readings."""


class DetectorService:
    """One shard's detector between its stores."""

    def __init__(
        self,
        *,
        stream: TelemetryStream,
        engine: Engine,
        settings: DetectorSettings,
        clock: Clock,
        on_events: Callable[[], None],
        load: Callable[[LiveModel], Scorer] = load_scorer,
        alerts: AlertSettings | None = None,
        rules: RulesSettings | None = None,
    ) -> None:
        """Begin without touching a store.

        Args:
            on_events: called after alert events were committed; must not wait.
            load: how a version becomes a scorer.
            alerts: None: the defaults.
            rules: None: no rules.
        """
        self._stream = stream
        self._engine = engine
        self._alerts = AlertEngine(engine, clock, alerts)
        self._clock = clock
        self._settings = settings
        self._on_events = on_events
        self._load = load
        self._detector = Detector(settings)
        self._rules = RuleWatch(rules or RulesSettings(), engine, self._alerts, clock, self._detector.recent)
        self._is_rebuilt = False
        self._unwritten: list[Decision] = []
        self._unacknowledged: list[str] = []
        self._champion: LiveModel | None = None
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")
        self._loading: tuple[LiveModel, Future[Scorer]] | None = None
        self._refused: str | None = None
        self._next_poll_s = 0.0
        self._lag = 0
        self._is_caught_up = False
        self._readings_total = 0
        self._events_total = 0
        self.problem: str | None = None

    def step(self) -> int:
        """Do one turn: finish what is in hand, look at the live model, judge the next batch.

        Returns:
            Readings judged.

        Raises:
            StoreUnavailableError: Valkey is away.
            sqlalchemy.exc.SQLAlchemyError: the SQL store is away.
        """
        self._finish()
        self._poll()
        batch = self._stream.read_group(names.DETECTOR_GROUP, CONSUMER, self._settings.batch_readings, BLOCK_MS)
        # A batch that is not full was all there is: what has not arrived by now is absent.
        self._is_caught_up = len(batch) < self._settings.batch_readings
        if not batch:
            if not self._rules.is_rebuilt:
                # Nothing waits, so all of the stream is the past: absence is watched before anybody reports.
                self._rules.rebuild(self._past(()))
            return 0
        if not self._is_rebuilt:
            # Only now: what the stream holds before the first unacknowledged reading is the past, and fixed.
            self._rebuild(batch)
        self._unwritten = self._detector.observe([stored.reading for stored in batch])
        self._unacknowledged = [stored.id for stored in batch]
        self._rules.observe([stored.reading for stored in batch])
        self._finish()
        self._readings_total += len(batch)
        readings_judged.inc(len(batch))
        series_kept.set(self._detector.num_series)
        return len(batch)

    def status(self) -> DetectorStatus:
        """Return what is going on; for any thread."""
        is_trained = self._champion is not None and self._detector.model_version == self._champion.version
        return DetectorStatus(
            model=self._detector.model,
            version=self._detector.model_version,
            revision=self._champion.revision if self._champion is not None and is_trained else 0,
            readings_total=self._readings_total,
            events_total=self._events_total,
            series=self._detector.num_series,
            lag=self._lag,
            refused_model=self._detector.failure or self._refused,
            problem=self.problem,
            rules=self._rules.status(),
        )

    def close(self) -> None:
        """Let go of the model loader; what is not acknowledged comes again to the next detector."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _finish(self) -> None:
        """Commit and acknowledge what is in hand; each half may be repeated."""
        if self._unwritten:
            refs = self._alerts.raise_detector_alerts(self._unwritten)
            for decision in self._unwritten:
                decisions_made.labels(decision.change.value).inc()
            self._unwritten = []
            self._events_total += len(refs)
            self._on_events()
        for key in self._detector.take_lost():
            self._alerts.mark_stale(key.tenant, key.device, "too many series: no longer watched", key.metric)
            self._on_events()
        if events := self._rules.write():
            self._events_total += events
            self._on_events()
        if self._unacknowledged:
            self._stream.ack(names.DETECTOR_GROUP, self._unacknowledged)
            self._unacknowledged = []

    def _rebuild(self, batch: Sequence[StoredReading]) -> None:
        if self._loading is not None:
            # A restarted detector judges by the model its predecessor used; the readings wait in the stream.
            wait([self._loading[1]], timeout=FIRST_MODEL_TIMEOUT_S)
            self._swap_when_loaded()
        past = self._past(batch)
        for start in range(0, len(past), REBUILD_CHUNK):
            # What these readings decided was committed before they were acknowledged.
            self._detector.observe(past[start : start + REBUILD_CHUNK])
        self._detector.take_lost()
        self._detector.set_firing(self._alerts.firing_series())
        if not self._rules.is_rebuilt:
            self._rules.rebuild(past)
        self._is_rebuilt = True
        logger.info("windows of %s series rebuilt from %s readings", self._detector.num_series, len(past))

    def _past(self, batch: Sequence[StoredReading]) -> list[Reading]:
        """Return what the stream holds before a batch; all of it when there is none."""
        history = self._stream.history(self._settings.rebuild_readings)
        if not batch:
            return [stored.reading for stored in history]
        first = _order(batch[0].id)
        return [stored.reading for stored in history if _order(stored.id) < first]

    def _poll(self) -> None:
        self._rules.poll(self._is_caught_up)
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_poll_s:
            self._next_poll_s = now_s + POLL_S
            self._lag = self._stream.lag(names.DETECTOR_GROUP)
            lag_readings.set(self._lag)
            with read_transaction(self._engine) as connection:
                self._follow(read_live_model(connection))
        self._swap_when_loaded()

    def _follow(self, promoted: LiveModel | None) -> None:
        """Begin to load what was promoted, unless it is in use, being loaded or refused already."""
        known = self._loading[0] if self._loading is not None else self._champion
        if promoted is None or (known is not None and promoted.revision == known.revision):
            return
        # In a thread: the first load imports the model's library, which takes seconds that scoring has not.
        if self._loading is None:
            self._loading = (promoted, self._loader.submit(self._load, promoted))

    def _swap_when_loaded(self) -> None:
        if self._loading is None or not self._loading[1].done():
            return
        promoted, loading = self._loading
        self._loading = None
        self._champion = promoted
        try:
            scorer = loading.result()
        except ScorerError as error:
            self._refused = str(error)
            models_refused.inc()
            logger.error("%s; going on with %s@%s", error, self._detector.model, self._detector.model_version)  # noqa: TRY400
            return
        self._refused = None
        self._detector.swap(scorer)
        logger.info("judging by %s@%s (revision %s)", scorer.name, scorer.version, promoted.revision)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
