"""All rules on all series: readings and the passing of time in, begun and ended alerts out.

Thresholds and rates go by the devices' clocks, so a backlog that arrives late is judged as if
it had come in time. Absence goes by arrival: a device's clock says nothing about silence.
Knows no file, no SQL and no Ray; pure state that its owner moves on. Invariants: a reading
that is not newer than the last one of its series changes nothing, so redeliveries are
harmless; a rule that goes away ends its alerts; what is kept is bounded.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.episode import Change
from ingest.payload import Reading
from ingest.rules.model import Absence, Rule, Template, duration_text
from ingest.rules.tracker import Tracker
from ingest.windows import SeriesKey, SeriesStore

WHOLE_DEVICE = ""
"""Metric of the series that stands for a device as a whole."""
CLOCK_PATIENCE_S = 60.0
"""A device whose readings are all older than its newest for so long has set its clock back."""
ABSENCE_GRACE_S = 60.0
"""After a start nothing counts as absent for so long: those who were cut off with us come back first."""

DeviceKey = tuple[str, str]
FiringKey = tuple[str, SeriesKey]
"""(rule, series)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """An alert of a rule begins or ends."""

    change: Change
    rule: Rule
    key: SeriesKey
    site: str | None
    at: float
    """Device time for thresholds and rates, time of arrival for absence."""
    since: float
    """When it began to be true; for a clear, when the alert had begun."""
    value: float | None
    """What the rule compared; None for absence."""
    threshold: float | None
    recorded_at: str | None
    reading_key: str
    """Same reading, same rule, same change, same key: writing it twice changes nothing."""


@dataclass(slots=True)
class _Series:
    """One series and the rules that watch it."""

    key: SeriesKey
    site: str | None = None
    trackers: list[Tracker] = field(default_factory=list)
    absences: list[Tracker] = field(default_factory=list)
    last_ts: float = float("-inf")
    accepted_at: float = float("-inf")
    """When the reading of ``last_ts`` arrived."""
    seen_at: float | None = None
    """When anything arrived last; None: never."""


class RuleEvaluator:
    """The rules of one shard."""

    def __init__(self, rules: Sequence[Rule] = (), *, max_series: int = 10_000, watched_since: float = 0.0) -> None:
        """Begin with nothing seen.

        Args:
            rules: what to judge by.
            max_series: series kept; beyond it the one longest silent leaves.
            watched_since: when watching began; nothing is absent before ``ABSENCE_GRACE_S`` after it.
        """
        self._rules = tuple(rules)
        self._watched_since = watched_since
        self._sites: Mapping[DeviceKey, str] = {}
        self._series = SeriesStore(self._create, max_series)
        self._has_device_rules = any(rule.is_of_device for rule in rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    @property
    def num_firing(self) -> int:
        return sum(tracker.is_firing for series in self._series for tracker in _all_trackers(series))

    def use(self, rules: Sequence[Rule], at: float) -> list[RuleChange]:
        """Judge by other rules from now on.

        A rule of the same name keeps its alerts; it begins to measure anew where it judges
        otherwise than before.

        Returns:
            The alerts that end because their rule is gone or no longer watches their series.
        """
        self._rules = tuple(rules)
        self._has_device_rules = any(rule.is_of_device for rule in rules)
        return self._match_again(at)

    def set_sites(self, sites: Mapping[DeviceKey, str], at: float) -> list[RuleChange]:
        """Take over where devices stand; returns what ends because a device has moved."""
        if sites == self._sites:
            return []
        self._sites = dict(sites)
        return self._match_again(at)

    def saw(self, tenant: str, device: str, at: float) -> None:
        """Note that a device was heard of at ``at``, from a source that outlives the stream."""
        if self._has_device_rules:
            series = self._series.get_or_create(SeriesKey(tenant, device, WHOLE_DEVICE))
            series.seen_at = max(at, series.seen_at or at)

    def set_firing(self, firing: Mapping[FiringKey, float], at: float) -> list[RuleChange]:
        """Make the store's word ours after a restart: exactly these alerts are firing.

        Args:
            firing: per rule and series, when the alert began.
            at: now.

        Returns:
            Ends of alerts whose rule is gone.
        """
        for series in self._series:
            for known in _all_trackers(series):
                known.is_firing = False
        ended: list[RuleChange] = []
        by_name = {rule.name: rule for rule in self._rules}
        for (name, key), started_at in firing.items():
            series = self._series.get_or_create(key)
            tracker = next((one for one in _all_trackers(series) if one.rule.name == name), None)
            if tracker is None:
                ended.append(self._gone(by_name.get(name) or _removed(name), series, started_at, at))
            else:
                tracker.is_firing, tracker.started_at = True, started_at
                if series.seen_at is None:
                    series.seen_at = started_at
        return ended

    def still_firing(self, name: str, key: SeriesKey, after: float, version: int) -> RuleChange | None:
        """Say again that a rule fires for a series, from a reading after ``after``; None: it does not, or none came.

        Args:
            name: the rule's.
            key: the series.
            after: device time up to which it is known.
            version: of what the caller knows; to say it once per version.
        """
        series = self._series.get_or_create(key)
        tracker = next((one for one in series.trackers if one.is_firing and one.rule.name == name), None)
        if tracker is None or series.last_ts <= after:
            return None
        return self._change(Change.UPDATE, tracker, series, series.last_ts, f"v{version}", value=tracker.last)

    def take_lost(self) -> list[FiringKey]:
        """Return, once, the alerts whose series left the bounded store while they were firing."""
        return [
            (tracker.rule.name, series.key)
            for series in self._series.take_evicted()
            for tracker in _all_trackers(series)
            if tracker.is_firing
        ]

    def observe(self, readings: Iterable[Reading]) -> list[RuleChange]:
        """Judge readings, in the order they arrived."""
        changes: list[RuleChange] = []
        if not self._rules:
            return changes
        for reading in readings:
            if self._has_device_rules:
                key = SeriesKey(reading.tenant, reading.device, WHOLE_DEVICE)
                self._arrived(self._series.get_or_create(key), reading, changes)
            for metric, value in reading.values.items():
                series = self._series.get_or_create(SeriesKey(reading.tenant, reading.device, metric))
                if series.absences:
                    self._arrived(series, reading, changes)
                if series.trackers:
                    self._measured(series, reading, value, changes)
        return changes

    def advance(self, now: float) -> list[RuleChange]:
        """Tell what is absent at ``now``, a time of arrival up to which every reading was observed."""
        if not any(isinstance(rule.condition, Absence) for rule in self._rules):
            return []
        changes: list[RuleChange] = []
        for series in self._series:
            for tracker in series.absences:
                self._missed(series, tracker, now, changes)
        return changes

    def _create(self, key: SeriesKey) -> _Series:
        series = _Series(key, self._sites.get((key.tenant, key.device)))
        for rule in self._rules:
            if rule.watches(key.tenant, key.device, key.metric, series.site):
                _trackers_for(series, rule).append(Tracker(rule))
        return series

    def _match_again(self, at: float) -> list[RuleChange]:
        ended = []
        for series in self._series:
            before = {tracker.rule.name: tracker for tracker in _all_trackers(series)}
            fresh = self._create(series.key)
            for tracker in _all_trackers(fresh):
                known = before.pop(tracker.rule.name, None)
                if known is None:
                    continue
                tracker.is_firing, tracker.started_at = known.is_firing, known.started_at
                if known.rule.judges == tracker.rule.judges:
                    tracker.bad_since, tracker.good_since = known.bad_since, known.good_since
                    tracker.points = known.points
            series.site, series.trackers, series.absences = fresh.site, fresh.trackers, fresh.absences
            ended += [self._gone(one.rule, series, one.started_at, at) for one in before.values() if one.is_firing]
        return ended

    def _arrived(self, series: _Series, reading: Reading, changes: list[RuleChange]) -> None:
        at = reading.received_at
        for tracker in series.absences:
            # A gap may end before anybody looked at the time: then both its ends are told now.
            self._missed(series, tracker, at, changes)
            if tracker.is_firing:
                tracker.is_firing = False
                identity = f"{tracker.started_at!r}"
                changes.append(
                    self._change(Change.CLEAR, tracker, series, at, identity, recorded_at=reading.recorded_at)
                )
        series.seen_at = at if series.seen_at is None else max(at, series.seen_at)

    def _missed(self, series: _Series, tracker: Tracker, now: float, changes: list[RuleChange]) -> None:
        condition = tracker.rule.condition
        if tracker.is_firing or series.seen_at is None or not isinstance(condition, Absence):
            return
        grace_ends = self._watched_since + min(condition.after_s, ABSENCE_GRACE_S)
        deadline = max(series.seen_at + condition.after_s, grace_ends)
        if now < deadline:
            return
        tracker.is_firing, tracker.started_at = True, series.seen_at
        changes.append(self._change(Change.RAISE, tracker, series, deadline, f"{series.seen_at!r}"))

    def _measured(self, series: _Series, reading: Reading, value: float, changes: list[RuleChange]) -> None:
        if reading.ts <= series.last_ts:
            if reading.received_at - series.accepted_at < CLOCK_PATIENCE_S:
                return
            for tracker in series.trackers:
                tracker.restart_time()
        series.last_ts, series.accepted_at = reading.ts, reading.received_at
        series.seen_at = reading.received_at if series.seen_at is None else max(reading.received_at, series.seen_at)
        identity = f"{reading.boot_id}/{reading.seq}" if reading.seq is not None else f"at {reading.ts!r}"
        for tracker in series.trackers:
            measured = tracker.measured(reading.ts, value)
            change = None if measured is None else tracker.step(reading.ts, measured)
            if change is not None:
                changes.append(
                    self._change(
                        change, tracker, series, reading.ts, identity, value=measured, recorded_at=reading.recorded_at
                    )
                )

    def _gone(self, rule: Rule, series: _Series, started_at: float, at: float) -> RuleChange:
        tracker = Tracker(rule, started_at=started_at)
        return self._change(Change.CLEAR, tracker, series, at, f"rule gone, since {started_at!r}")

    @staticmethod
    def _change(
        change: Change,
        tracker: Tracker,
        series: _Series,
        at: float,
        identity: str,
        *,
        value: float | None = None,
        recorded_at: str | None = None,
    ) -> RuleChange:
        rule = tracker.rule
        level = None if isinstance(rule.condition, Absence) else rule.condition.level
        return RuleChange(
            change=change,
            rule=rule,
            key=series.key,
            site=series.site,
            at=at,
            since=tracker.started_at,
            value=value,
            threshold=None if level is None else level.raise_at,
            recorded_at=recorded_at,
            reading_key=_reading_key(change, rule.name, series.key, identity),
        )


def _trackers_for(series: _Series, rule: Rule) -> list[Tracker]:
    return series.absences if isinstance(rule.condition, Absence) else series.trackers


def _all_trackers(series: _Series) -> Iterator[Tracker]:
    yield from series.trackers
    yield from series.absences


def _removed(name: str) -> Rule:
    """Return a stand-in for a rule that only the alert table remembers."""
    nothing = Template(parts=())
    return Rule(name=name, condition=Absence(after_s=1.0), metric=(), title=nothing, text=nothing)


def _reading_key(change: Change, rule: str, key: SeriesKey, identity: str) -> str:
    # Hashed: the names alone may be longer than the column of reading keys.
    text = "|".join((change.value, rule, *key, identity))
    return f"rule:{change.value}:{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def words(change: RuleChange) -> dict[str, str | float | None]:
    """Return what a rule's templates may name."""
    rule, condition = change.rule, change.rule.condition
    return {
        "rule": rule.name,
        "tenant": change.key.tenant,
        "site": change.site,
        "device": change.key.device,
        "metric": change.key.metric or None,
        "value": change.value,
        "threshold": change.threshold,
        "clear": None if isinstance(condition, Absence) else condition.level.clear_at,
        "duration": duration_text(condition.after_s if isinstance(condition, Absence) else rule.for_s),
        "severity": rule.severity.value,
    }
