"""The rules at work beside the detector: the file, the sites, the alert table.

The detector's service calls it with the readings that it judges itself; what begins or ends
stays in hand until the alert engine has committed it, before the readings are acknowledged.
Synchronous, one owner. Invariants: without usable rules nothing is judged and no alert is
touched; after a restart exactly what the alert table says is firing.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Gauge
from sqlalchemy import Engine, select

from cluster.clock import Clock
from cluster.metrics import REGISTRY
from cluster.store import read_transaction
from ingest.alerts.engine import AlertEngine, fingerprint
from ingest.alerts.lifecycle import Sighting
from ingest.alerts.model import Condition, Evidence, SourceKind
from ingest.alerts.report import AlertReport
from ingest.alerts.tables import alerts
from ingest.directory import devices
from ingest.episode import Change
from ingest.payload import Reading
from ingest.rules.evaluator import WHOLE_DEVICE, FiringKey, RuleChange, RuleEvaluator, words
from ingest.rules.model import ANY
from ingest.rules.parse import MAX_TEXT_CHARS, MAX_TITLE_CHARS
from ingest.rules.rules_file import RulesFile
from ingest.rules.settings import RulesSettings
from ingest.windows import SeriesKey

logger = logging.getLogger(__name__)

ACTOR = "rules"
SITES_S = 30.0
"""How often the directory is asked where devices stand."""
STALE_S = 5.0
"""How often alerts that went stale are compared with series that report again."""

rules_loaded = Gauge("watchfloor_rules_loaded", "Rules in force.", registry=REGISTRY)
rules_file_ok = Gauge(
    "watchfloor_rules_file_ok", "1 while the file of rules is in force as it stands, 0 while it is not.",
    registry=REGISTRY,
)  # fmt: skip
rules_firing = Gauge("watchfloor_rules_firing", "Alerts of rules that are firing.", registry=REGISTRY)
rule_changes = Counter(
    "watchfloor_rule_changes", "Alerts of rules begun and ended.", ["kind", "change"], registry=REGISTRY
)

EvidenceOf = Callable[[SeriesKey, float], Evidence | None]


@dataclass(frozen=True, slots=True)
class RulesStatus:
    """What the rules are doing."""

    file: str
    """Empty: there are no rules."""
    loaded: int
    firing: int
    problem: str | None
    """Why the file as it stands is not in force; None while it is."""


class RuleWatch:
    """The rules of one shard between their file and the alert table."""

    def __init__(
        self,
        settings: RulesSettings,
        engine: Engine,
        alerts_engine: AlertEngine,
        clock: Clock,
        evidence_of: EvidenceOf = lambda _key, _until: None,
    ) -> None:
        """Begin without touching the store.

        Args:
            evidence_of: the readings of a series up to a device time, to be kept with an alert.
        """
        self._engine = engine
        self._alerts = alerts_engine
        self._clock = clock
        self._settings = settings
        self._evidence_of = evidence_of
        self._file = RulesFile(Path(settings.file).resolve()) if settings.file else None
        self._evaluator = RuleEvaluator(max_series=settings.max_series, watched_since=clock.time_s())
        # Without a file there are no rules, which is known; with a bad one nothing is known.
        self._is_usable = self._file is None
        self._unwritten: list[RuleChange] = []
        self._next_poll_s = self._next_sites_s = self._next_stale_s = 0.0
        self._num_firing = 0
        self.is_rebuilt = False

    def status(self) -> RulesStatus:
        """Return what is going on; for any thread."""
        return RulesStatus(
            file="" if self._file is None else str(self._file.path),
            loaded=len(self._evaluator.rules),
            firing=self._num_firing,
            problem=None if self._file is None else self._file.problem,
        )

    def poll(self, is_caught_up: bool) -> None:
        """Look at the file, the sites and the time, as often as each is due.

        Args:
            is_caught_up: nothing waits in the stream, so that what has not arrived by now is absent.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the store is away.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_poll_s:
            return
        self._next_poll_s = now_s + self._settings.poll_s
        now = self._clock.time_s()
        found = self._file.poll() if self._file is not None else None
        if found is not None:
            self._unwritten += self._evaluator.use(found, now)
            if self.is_rebuilt and not self._is_usable:
                self._take_over(now)
            self._is_usable = True
            self._next_sites_s = 0.0
            logger.info("%s rules in force", len(found))
        if self._evaluator.rules and now_s >= self._next_sites_s:
            self._next_sites_s = now_s + SITES_S
            self._unwritten += self._evaluator.set_sites(self._sites(), now)
        if self.is_rebuilt and is_caught_up:
            self._unwritten += self._evaluator.advance(now)
        if self.is_rebuilt and self._evaluator.rules and now_s >= self._next_stale_s:
            self._next_stale_s = now_s + STALE_S
            self._reopen_stale()
        rules_loaded.set(len(self._evaluator.rules))
        rules_file_ok.set(self._file is None or self._file.problem is None)
        # Counted here and not where it is asked: another thread may ask.
        self._num_firing = self._evaluator.num_firing
        rules_firing.set(self._num_firing)

    def rebuild(self, past: Sequence[Reading]) -> None:
        """Bring the rules to where a predecessor stopped: everything before the next reading, and the alert table."""
        now = self._clock.time_s()
        if self._evaluator.rules:
            self._evaluator.set_sites(self._sites(), now)
            self._seed_devices()
            # What these readings decided was committed before they were acknowledged.
            self._evaluator.observe(past)
            self._evaluator.take_lost()
        self._unwritten.clear()
        if self._is_usable:
            self._take_over(now)
        self.is_rebuilt = True

    def observe(self, readings: Sequence[Reading]) -> None:
        """Judge readings; what they begin and end is written by ``write``."""
        self._unwritten += self._evaluator.observe(readings)

    def write(self) -> int:
        """Commit what is in hand; may be repeated. Returns the events written."""
        written = 0
        if self._unwritten:
            refs = self._alerts.report([self._report(change) for change in self._unwritten])
            for change in self._unwritten:
                rule_changes.labels(change.rule.kind, change.change.value).inc()
            self._unwritten = []
            written += len(refs)
        for _, key in self._evaluator.take_lost():
            reason = "too many series: no rule watches it any more"
            written += len(self._alerts.mark_stale(key.tenant, key.device, reason, key.metric or None))
        return written

    def _take_over(self, now: float) -> None:
        self._unwritten += self._evaluator.set_firing(self._firing(), now)

    def _firing(self) -> dict[FiringKey, float]:
        query = select(alerts.c.tenant, alerts.c.device_id, alerts.c.metric, alerts.c.rule, alerts.c.starts_at).where(
            alerts.c.source_kind == SourceKind.RULE.value, alerts.c.condition != Condition.CLEARED.value
        )
        with read_transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(alerts.c.id)).all()
        return {
            (row.rule, SeriesKey(row.tenant, row.device_id, row.metric or WHOLE_DEVICE)): row.starts_at for row in rows
        }

    def _reopen_stale(self) -> None:
        """Say again what is still true of series that were silent and report once more."""
        query = select(
            alerts.c.tenant, alerts.c.device_id, alerts.c.metric, alerts.c.rule, alerts.c.last_seen_at, alerts.c.version
        ).where(alerts.c.source_kind == SourceKind.RULE.value, alerts.c.condition == Condition.STALE.value)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        found = [
            self._evaluator.still_firing(
                row.rule,
                SeriesKey(row.tenant, row.device_id, row.metric or WHOLE_DEVICE),
                row.last_seen_at,
                row.version,
            )
            for row in rows
        ]
        self._alerts.report([rule_report(change) for change in found if change is not None])

    def _sites(self) -> dict[tuple[str, str], str]:
        if all(rule.site == ANY for rule in self._evaluator.rules):
            return {}
        query = select(devices.c.tenant, devices.c.device, devices.c.site).where(devices.c.site.is_not(None))
        with read_transaction(self._engine) as connection:
            return {(row.tenant, row.device): row.site for row in connection.execute(query)}

    def _seed_devices(self) -> None:
        """Let absence rules know of devices whose last reading has left the stream."""
        if not any(rule.is_of_device for rule in self._evaluator.rules):
            return
        query = select(devices.c.tenant, devices.c.device, devices.c.last_seen_at)
        query = query.where(devices.c.last_seen_at.is_not(None)).order_by(devices.c.last_seen_at)
        with read_transaction(self._engine) as connection:
            for row in connection.execute(query):
                self._evaluator.saw(row.tenant, row.device, row.last_seen_at)

    def _report(self, change: RuleChange) -> AlertReport:
        return rule_report(change, None if change.change is Change.CLEAR else self._evidence(change))

    def _evidence(self, change: RuleChange) -> Evidence | None:
        return self._evidence_of(change.key, change.at) if change.key.metric else None


def rule_fingerprint(name: str, key: SeriesKey) -> str:
    """Return the name of the problem that a rule finds in a series."""
    return fingerprint(key.tenant, SourceKind.RULE, name, key.device, key.metric or None)


def rule_report(change: RuleChange, evidence: Evidence | None = None) -> AlertReport:
    """Return what the alert engine is told of a change."""
    rule, values = change.rule, words(change)
    return AlertReport(
        tenant=change.key.tenant,
        device_id=change.key.device,
        fingerprint=rule_fingerprint(rule.name, change.key),
        sighting=Sighting(
            at=change.at,
            actor=ACTOR,
            severity=rule.severity,
            text=rule.text.format(values)[:MAX_TEXT_CHARS],
            value=change.value,
            threshold=change.threshold,
            recorded_at=change.recorded_at,
        ),
        kind=SourceKind.RULE,
        rule=rule.name,
        title=rule.title.format(values)[:MAX_TITLE_CHARS],
        change=change.change,
        metric=change.key.metric or None,
        labels=rule.labels,
        evidence=evidence,
        reading_key=change.reading_key,
    )
