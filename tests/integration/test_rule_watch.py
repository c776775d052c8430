"""The rules between their file and a real alert table: reports, reloads, restarts, silence."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Alert, Condition, SourceKind
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.directory import DeviceDirectory, DeviceEntry
from ingest.payload import Reading
from ingest.rules.rule_watch import RuleWatch
from ingest.rules.settings import RulesSettings
from tests.fakes_alerts import START_S, FakeClock

RULES = """\
rules:
  - name: too-hot
    metric: temperature
    threshold: {above: 80, clear_below: 75}
    severity: high
    title: "{device} is hot"
    text: "{value:.1f} degrees"
    labels: {team: cooling}
"""
SILENT = "  - name: silent\n    absence: {after: 5m}\n"


class Floor:
    """A table, a file and the rules beside a detector; ``restart`` begins anew as a new process would."""

    def __init__(self, sql: Engine, folder: Path) -> None:
        self.sql = sql
        self.clock = FakeClock()
        self.alerts = AlertEngine(self.sql, self.clock)
        self.path = folder / "rules.yaml"
        self.past: list[Reading] = []
        self.path.write_text(RULES)

    def restart(self) -> "Floor":
        self.watch = RuleWatch(RulesSettings(file=str(self.path)), self.sql, self.alerts, self.clock)
        self.watch.poll(is_caught_up=True)
        self.watch.rebuild(self.past)
        self.watch.write()
        return self

    def read(self, value: float, device: str = "pump-1") -> None:
        """One reading arrives, is judged and committed."""
        self.clock.advance(1)
        at = self.clock.time_s()
        self.past.append(Reading("demo", device, "boot", len(self.past), at, {"temperature": value}, None, at))
        self.watch.observe(self.past[-1:])
        self.watch.write()

    def later(self, seconds: float) -> None:
        """Time passes and is looked at."""
        self.clock.advance(seconds)
        self.watch.poll(is_caught_up=True)
        self.watch.write()

    def rewrite(self, text: str) -> None:
        self.path.write_text(text)
        self.later(2)

    def all(self) -> list[Alert]:
        return list(AlertStore(self.sql, self.clock).list(AlertQuery()).items)


@pytest.fixture
def floor(sql: Engine, tmp_path: Path) -> Floor:
    return Floor(sql, tmp_path).restart()


def test_an_alert_of_a_rule_says_what_the_file_says(floor: Floor) -> None:
    """Source, words, labels and value; and it clears by itself."""
    floor.read(90)
    (alert,) = floor.all()

    assert (alert.source_kind, alert.rule, alert.severity.value) == (SourceKind.RULE, "too-hot", "high")
    assert (alert.title, alert.text, alert.value, alert.threshold) == ("pump-1 is hot", "90.0 degrees", 90, 80)
    assert alert.labels == {"team": "cooling"}
    floor.read(70)
    assert [one.condition for one in floor.all()] == [Condition.CLEARED]


def test_what_is_in_hand_is_written_again_after_an_outage(floor: Floor) -> None:
    """Writing twice has its effect once."""
    floor.clock.advance(1)
    row = Reading("demo", "pump-1", "boot", 0, floor.clock.time_s(), {"temperature": 90.0}, None, 0.0)
    floor.watch.observe([row])
    in_hand = list(floor.watch._unwritten)
    floor.watch.write()
    floor.watch._unwritten = in_hand

    assert floor.watch.write() == 0
    assert [one.count for one in floor.all()] == [1]


def test_a_restart_neither_repeats_nor_forgets(floor: Floor) -> None:
    """The past is replayed in silence; the table says what is firing."""
    floor.read(90)
    before = floor.all()
    floor.restart()

    assert floor.all() == before
    assert floor.watch.status().firing == 0  # counted at the next look
    floor.read(78)
    assert floor.all() == before
    floor.read(70)
    assert [one.condition for one in floor.all()] == [Condition.CLEARED]


def test_a_file_that_becomes_bad_leaves_the_rules_in_force(floor: Floor) -> None:
    """The status says why; the next good one is taken without a restart."""
    floor.rewrite(RULES.replace("above: 80", "above: hot"))

    status = floor.watch.status()
    assert "line 4: rules[0].threshold.above must be a number" in str(status.problem)
    assert status.loaded == 1
    floor.read(90)
    assert len(floor.all()) == 1
    floor.rewrite(RULES.replace("above: 80", "above: 95"))
    assert floor.watch.status().problem is None
    floor.read(94)
    assert [one.condition for one in floor.all()] == [Condition.FIRING]  # between clear_below and above


def test_a_bad_file_at_a_start_touches_no_alert(floor: Floor) -> None:
    """Nobody knows then whether a rule is gone."""
    floor.read(90)
    floor.path.write_text("rules: nonsense\n")
    floor.restart()
    floor.later(60)
    assert [one.condition for one in floor.all()] == [Condition.FIRING]

    floor.rewrite("rules: []\n")
    assert [one.condition for one in floor.all()] == [Condition.CLEARED]


def test_a_rule_taken_out_of_the_file_ends_its_alerts(floor: Floor) -> None:
    """At once, and also when the file changed while nobody ran."""
    floor.read(90)
    floor.rewrite(RULES.replace("too-hot", "much-too-hot"))
    assert [one.condition for one in floor.all()] == [Condition.CLEARED]

    floor.read(91)
    floor.path.write_text("rules: []\n")
    floor.restart()
    assert {one.condition for one in floor.all()} == {Condition.CLEARED}


def test_a_silent_device_is_told_once_and_clears_when_it_speaks(floor: Floor) -> None:
    """By the floor's clock, while nothing waits in the stream."""
    floor.rewrite(RULES + SILENT)
    floor.read(50)
    floor.later(299)
    assert floor.all() == []
    for _ in range(5):
        floor.later(30)

    (alert,) = floor.all()
    assert (alert.rule, alert.metric, alert.text) == ("silent", None, "nothing arrived for 5m")
    floor.read(50)
    assert [one.condition for one in floor.all()] == [Condition.CLEARED]


def test_silence_goes_on_over_a_restart_and_the_end_of_the_stream(floor: Floor) -> None:
    """A device whose readings have left the stream is known from the directory."""
    floor.rewrite(RULES + SILENT)
    DeviceDirectory(floor.sql).saw({("demo", "old-1"): START_S})
    floor.restart()
    floor.later(301)

    assert [(one.device_id, one.condition) for one in floor.all()] == [("old-1", Condition.FIRING)]
    floor.restart()
    floor.later(301)
    assert [one.count for one in floor.all()] == [1]


def test_an_alert_that_went_stale_fires_again_when_its_series_reports(floor: Floor) -> None:
    """Once, with the words of the rule; nobody else would say that it is still so."""
    floor.read(90)
    floor.alerts.mark_stale("demo", "pump-1", "offline")
    floor.later(10)
    assert [one.condition for one in floor.all()] == [Condition.STALE]

    floor.read(92)
    floor.later(10)
    (alert,) = floor.all()
    assert (alert.condition, alert.text, alert.count) == (Condition.FIRING, "92.0 degrees", 2)
    floor.later(10)
    assert floor.all() == [alert]


def test_sites_come_from_the_directory(floor: Floor) -> None:
    """A rule of a hall watches the devices that stand in it."""
    floor.rewrite(RULES + "    site: hall-1\n")
    floor.read(90)
    assert floor.all() == []
    DeviceDirectory(floor.sql).register([DeviceEntry("demo", "pump-1", site="hall-1")])
    floor.later(31)
    floor.read(90)

    assert [one.site for one in floor.all()] == ["hall-1"]


def test_series_that_leave_the_bounded_store_go_stale(sql: Engine, tmp_path: Path) -> None:
    """Nobody watches them any more, which is said."""
    floor = Floor(sql, tmp_path)
    floor.watch = RuleWatch(RulesSettings(file=str(floor.path), max_series=1), floor.sql, floor.alerts, floor.clock)
    floor.watch.poll(is_caught_up=True)
    floor.watch.rebuild(())
    floor.read(90, "pump-1")
    floor.read(50, "pump-2")

    assert [one.condition for one in floor.all()] == [Condition.STALE]
