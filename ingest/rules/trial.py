"""A dry run: what rules would have done to readings of the past.

The same evaluator as in the detector, fed with recorded readings; writes nothing. Invariant:
the firings are those of a floor that had received these readings in this order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.alerts.model import iso
from ingest.episode import Change
from ingest.payload import Reading
from ingest.rules.evaluator import WHOLE_DEVICE, RuleChange, RuleEvaluator, words
from ingest.rules.model import Absence, Rule
from ingest.windows import SeriesKey

DAY_S = 86_400.0
COLUMNS = 72
"""Stretches of time that a series is drawn in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One alert that there would have been."""

    rule: Rule
    key: SeriesKey
    raised_at: float
    cleared_at: float | None
    """None: it was still firing at the end."""
    value: float | None
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTrial:
    """What one rule would have done to one series."""

    key: SeriesKey
    begins_at: float
    ends_at: float
    firings: tuple[Firing, ...]
    columns: tuple[float | None, ...]
    """Worst value of each stretch of time, as the rule sees worst; None: no reading. Empty for absence."""
    firing_columns: tuple[bool, ...]
    """Stretches in which the alert fires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrial:
    """What one rule would have done."""

    rule: Rule
    series: tuple[SeriesTrial, ...]
    """Of every series that it watches, those with the most alerts first."""

    @property
    def num_alerts(self) -> int:
        return sum(len(one.firings) for one in self.series)

    @property
    def alerts_per_day(self) -> float:
        """Of all series together, each over its own time: recordings need not be of the same days."""
        return sum(len(one.firings) * DAY_S / max(one.ends_at - one.begins_at, 1.0) for one in self.series)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The outcome of a dry run."""

    begins_at: float
    ends_at: float
    num_readings: int
    rules: tuple[RuleTrial, ...]

    @property
    def alerts_per_day(self) -> float:
        return sum(one.alerts_per_day for one in self.rules)

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "begins_at": iso(self.begins_at),
            "ends_at": iso(self.ends_at),
            "readings": self.num_readings,
            "alerts_per_day": round(self.alerts_per_day, 3),
            "rules": [
                {
                    "rule": one.rule.name,
                    "kind": one.rule.kind,
                    "severity": one.rule.severity.value,
                    "series": len(one.series),
                    "alerts": one.num_alerts,
                    "alerts_per_day": round(one.alerts_per_day, 3),
                    "firings": [_firing_json(firing) for part in one.series for firing in part.firings],
                }
                for one in self.rules
            ],
        }


def try_rules(
    rules: Sequence[Rule], readings: Sequence[Reading], site: str | None = None, ends_at: float | None = None
) -> Trial:
    """Judge recorded readings by rules.

    Args:
        rules: of the file.
        readings: in the order they arrived; at least one.
        site: where all devices of the recording stand; None: nowhere that is known.
        ends_at: time of arrival up to which there would have been more; None: each device's
            recording ends with its last reading, and nothing is absent after it.
    """
    if not readings:
        raise ValueError("there are no readings to try the rules on")
    lines = _lines(readings)
    # No series may leave on the way: a dry run that forgets would show ends that never were.
    evaluator = RuleEvaluator(rules, max_series=len(lines))
    evaluator.set_sites({} if site is None else {(key.tenant, key.device): site for key in lines}, 0.0)
    changes = evaluator.observe(readings)
    if ends_at is not None:
        changes += evaluator.advance(ends_at)
    firings = _firings(changes)
    trials = []
    for rule in rules:
        parts = [
            _series_trial(rule, key, firings.get((rule.name, key), ()), line, ends_at)
            for key, line in sorted(lines.items())
            if rule.watches(*key, site)
        ]
        parts.sort(key=lambda part: -len(part.firings))
        trials.append(RuleTrial(rule=rule, series=tuple(parts)))
    return Trial(
        begins_at=min(line[0][0] for line in lines.values()),
        ends_at=max(max(line[-1][0] for line in lines.values()), ends_at or 0.0),
        num_readings=len(readings),
        rules=tuple(trials),
    )


Line = list[tuple[float, float]]
"""(device time, value) of one series, sorted."""


def _lines(readings: Sequence[Reading]) -> dict[SeriesKey, Line]:
    lines: dict[SeriesKey, Line] = {}
    for reading in readings:
        lines.setdefault(SeriesKey(reading.tenant, reading.device, WHOLE_DEVICE), []).append((reading.ts, 0.0))
        for metric, value in reading.values.items():
            lines.setdefault(SeriesKey(reading.tenant, reading.device, metric), []).append((reading.ts, value))
    for line in lines.values():
        line.sort()
    return lines


def _firings(changes: Sequence[RuleChange]) -> dict[tuple[str, SeriesKey], list[Firing]]:
    found: dict[tuple[str, SeriesKey], list[Firing]] = {}
    for change in changes:
        listed = found.setdefault((change.rule.name, change.key), [])
        if change.change is Change.CLEAR:
            last = listed.pop()
            values = {name: getattr(last, name) for name in Firing.__slots__}
            listed.append(Firing(**(values | {"cleared_at": change.at})))
            continue
        named = words(change)
        listed.append(
            Firing(
                rule=change.rule,
                key=change.key,
                raised_at=change.at,
                cleared_at=None,
                value=change.value,
                title=change.rule.title.format(named),
                text=change.rule.text.format(named),
            )
        )
    return found


def _series_trial(
    rule: Rule, key: SeriesKey, firings: Sequence[Firing], line: Line, ends_at: float | None
) -> SeriesTrial:
    begins, ends = line[0][0], max(line[-1][0], ends_at or 0.0)
    width = max(ends - begins, 1e-9) / COLUMNS

    def column_of(at: float) -> int:
        return min(COLUMNS - 1, max(0, int((at - begins) / width)))

    firing_columns = [False] * COLUMNS
    for firing in firings:
        last = column_of(ends if firing.cleared_at is None else firing.cleared_at)
        for column in range(column_of(firing.raised_at), last + 1):
            firing_columns[column] = True
    columns: list[float | None] = []
    if not isinstance(rule.condition, Absence):
        worse = max if rule.condition.level.is_upper else min
        columns = [None] * COLUMNS
        for ts, value in line:
            column = column_of(ts)
            before = columns[column]
            columns[column] = value if before is None else worse(before, value)
    return SeriesTrial(
        key=key,
        begins_at=begins,
        ends_at=ends,
        firings=tuple(firings),
        columns=tuple(columns),
        firing_columns=tuple(firing_columns),
    )


def _firing_json(firing: Firing) -> dict[str, Any]:
    return {
        "tenant": firing.key.tenant,
        "device": firing.key.device,
        "metric": firing.key.metric or None,
        "raised_at": iso(firing.raised_at),
        "cleared_at": iso(firing.cleared_at),
        "value": firing.value,
        "title": firing.title,
        "text": firing.text,
    }
