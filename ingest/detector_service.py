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
from dataclasses import dataclass

from prometheus_client import Counter, Gauge
from sqlalchemy import Connection, Engine

from cluster import names
from cluster.clock import Clock
from cluster.metrics import REGISTRY
from cluster.store import in_write
from ingest.alerts.engine import AlertEngine
from ingest.alerts.settings import AlertSettings
from ingest.detection_settings import DetectorSettings
from ingest.detector import Decision, Detector
from ingest.live_models import LiveModel
from ingest.model_trial import count_trial
from ingest.model_watch import ModelWatch
from ingest.payload import Reading
from ingest.rules.rule_watch import RulesStatus, RuleWatch
from ingest.rules.settings import RulesSettings
from ingest.scorer import Scorer, load_scorer
from ingest.shadow import Shadow
from ingest.telemetry_redis import StoredReading, TelemetryStream
from ingest.verdict_levels import VerdictWatch

logger = logging.getLogger(__name__)

CONSUMER = names.DETECTOR
"""Fixed, so that a restarted detector receives what its predecessor had not acknowledged."""
POLL_S = 1.0
"""How often the lag is looked at and the score of a trial is written, in seconds."""
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
series_judged = Gauge(
    "watchfloor_detector_series_judged", "Series whose threshold people's verdicts may raise.", registry=REGISTRY
)


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
    challenger: str | None
    """Version that judges beside the one in use, silently; None: no trial is running here."""


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
        self._detector = Detector(settings)
        self._rules = RuleWatch(rules or RulesSettings(), engine, self._alerts, clock, self._detector.recent)
        self._is_rebuilt = False
        self._unwritten: list[Decision] = []
        self._unacknowledged: list[str] = []
        self._models = ModelWatch(engine, clock, load)
        self._verdicts = VerdictWatch(engine, clock, settings.verdict_days)
        self._shadow: Shadow | None = None
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
        block_ms = 1 if self._detector.is_behind else BLOCK_MS  # there is something to do meanwhile
        batch = self._stream.read_group(names.DETECTOR_GROUP, CONSUMER, self._settings.batch_readings, block_ms)
        # A batch that is not full was all there is: what has not arrived by now is absent.
        self._is_caught_up = len(batch) < self._settings.batch_readings
        if self._is_caught_up:
            self._detector.catch_up()
        if not batch:
            if not self._rules.is_rebuilt:
                # Nothing waits, so all of the stream is the past: absence is watched before anybody reports.
                self._rules.rebuild(self._past(()))
            return 0
        if not self._is_rebuilt:
            # Only now: what the stream holds before the first unacknowledged reading is the past, and fixed.
            self._rebuild(batch)
        readings = [stored.reading for stored in batch]
        self._unwritten = self._detector.observe(readings)
        self._unacknowledged = [stored.id for stored in batch]
        if self._shadow is not None:
            self._shadow.observe(readings, self._unwritten)
        self._rules.observe(readings)
        self._finish()
        self._readings_total += len(batch)
        readings_judged.inc(len(batch))
        series_kept.set(self._detector.num_series)
        return len(batch)

    def status(self) -> DetectorStatus:
        """Return what is going on; for any thread."""
        champion, shadow = self._models.champion, self._shadow
        is_trained = champion is not None and self._detector.model_version == champion.version
        return DetectorStatus(
            model=self._detector.model,
            version=self._detector.model_version,
            revision=champion.revision if champion is not None and is_trained else 0,
            readings_total=self._readings_total,
            events_total=self._events_total,
            series=self._detector.num_series,
            lag=self._lag,
            refused_model=self._detector.failure or self._models.refusal,
            problem=self.problem,
            rules=self._rules.status(),
            challenger=shadow.trial.version if shadow is not None else None,
        )

    @property
    def series_behind(self) -> int:
        """Series that a version before the one in use still scores; for the thread that steps."""
        return self._detector.num_behind

    def close(self) -> None:
        """Let go of the model loader; what is not acknowledged comes again to the next detector."""
        self._models.close()

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
        # A restarted detector judges by the model its predecessor used; the readings wait in the stream.
        self._models.wait_champion(FIRST_MODEL_TIMEOUT_S)
        self._swap()
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
        self._models.poll((self._shadow.trial, self._shadow.scorer) if self._shadow is not None else None)
        self._swap()
        self._try_challenger()
        self._heed_verdicts()
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_poll_s:
            self._next_poll_s = now_s + POLL_S
            self._lag = self._stream.lag(names.DETECTOR_GROUP)
            lag_readings.set(self._lag)
            self._report_trial()

    def _heed_verdicts(self) -> None:
        levels = self._verdicts.poll()
        if levels is None:
            return
        self._detector.set_levels(levels)
        if self._shadow is not None:
            self._shadow.set_levels(levels)
        series_judged.set(len(levels))

    def _swap(self) -> None:
        scorer = self._models.take_champion()
        if scorer is not None:
            if self._shadow is not None and self._shadow.scorer is scorer:
                self._shadow.hand_over(self._detector)
                self._shadow = None
            else:
                self._detector.swap(scorer)
            logger.info("judging by %s@%s", scorer.name, scorer.version)

    def _try_challenger(self) -> None:
        trial = self._models.trial
        if self._shadow is not None and (trial is None or trial.id != self._shadow.trial.id):
            self._shadow = None
        # Not before the windows are rebuilt: the challenger begins with the champion's past.
        if not self._is_rebuilt or (ready := self._models.take_challenger()) is None:
            return
        self._shadow = Shadow(*ready, self._detector)
        logger.info("%s judges beside %s, silently", self._shadow.scorer.version, self._detector.model_version)

    def _report_trial(self) -> None:
        shadow = self._shadow
        if shadow is None:
            return
        if shadow.failure is not None:
            self._models.refuse(shadow.trial, shadow.failure)
            self._shadow = None
            return

        def write(connection: Connection) -> None:
            count_trial(
                connection,
                shadow.trial.id,
                readings=shadow.readings,
                champion_alerts=shadow.champion_alerts,
                challenger_alerts=shadow.challenger_alerts,
            )

        in_write(self._engine, write)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
