"""Presence in a real SQL store: wills, silence, and what becomes of the alerts of who is gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_payloads import alert
from ingest_parts import make_engine
from sqlalchemy import select

from cluster.clock import SystemClock
from cluster.store import read_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.tables import alert_events, alerts
from ingest.decoder import ClockTolerance, Decoder
from ingest.directory import DeviceDirectory
from ingest.payload import StateChange
from ingest.presence import SAID_GOODBYE, Presence
from ingest.topics import Topic, TopicClass

PUMP = ("acme", "pump-7")
NOW = 1_790_000_000.0


class Desk:
    """The stores around presence."""

    def __init__(self, folder: Path) -> None:
        self.engine = make_engine(folder)
        self.directory = DeviceDirectory(self.engine)
        self.alerts = AlertEngine(self.engine, SystemClock())
        self.presence = Presence(self.engine, self.alerts)

    def online(self) -> bool | None:
        row = self.directory.get(*PUMP)
        return row.online if row is not None else None

    def say(self, online: bool, *, is_retained: bool = False) -> int:
        return self.presence.announce([StateChange(*PUMP, online, NOW, is_retained)])

    def fire(self, seq: int) -> None:
        topic = Topic(TopicClass.ALERT, *PUMP)
        self.alerts.raise_device_alerts([Decoder(ClockTolerance()).alert(topic, alert(seq=seq), NOW)])

    def conditions(self) -> list[str]:
        with read_transaction(self.engine) as connection:
            return list(connection.scalars(select(alerts.c.condition)))

    def reasons(self) -> list[str | None]:
        with read_transaction(self.engine) as connection:
            query = select(alert_events.c.reason).where(alert_events.c.action == "went_stale")
            return list(connection.scalars(query))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.engine.dispose()


def test_a_last_will_leaves_alerts_stale_and_never_resolved(desk: Desk) -> None:
    """Whether the leak is still there nobody knows now; said again, it changes nothing."""
    desk.say(online=True)
    desk.fire(1)

    assert desk.say(online=False) == 1
    assert (desk.online(), desk.conditions()) == (False, ["stale"])
    assert desk.say(online=False, is_retained=True) == 0
    assert desk.reasons() == [SAID_GOODBYE]


def test_who_is_not_heard_of_is_offline_and_back_at_the_first_word(desk: Desk) -> None:
    """Though no last will came; a device that never announced itself is no exception."""
    desk.directory.saw({PUMP: NOW - 1000})
    desk.fire(1)

    assert desk.presence.fell_silent(NOW - 900, NOW, "silence") == ([PUMP], 1)
    assert (desk.online(), desk.conditions(), desk.reasons()) == (False, ["stale"], ["silence"])
    assert desk.presence.fell_silent(NOW - 900, NOW, "silence") == ([], 0)

    desk.directory.saw({PUMP: NOW})
    assert desk.presence.heard([PUMP, ("acme", "other")]) == [PUMP]
    assert desk.online() is True
    assert desk.presence.heard([PUMP]) == []


def test_a_device_that_talks_is_not_silent(desk: Desk) -> None:
    """The deadline is counted from its last word."""
    desk.directory.saw({PUMP: NOW - 100})
    desk.say(online=True)

    assert desk.presence.fell_silent(NOW - 900, NOW, "silence") == ([], 0)
    assert desk.online() is True


def test_the_brokers_copy_of_a_birth_does_not_wake_a_silent_device(desk: Desk) -> None:
    """The broker repeats it at every subscription; a birth that was just sent does."""
    desk.directory.saw({PUMP: NOW - 1000})
    desk.say(online=True)
    desk.presence.fell_silent(NOW - 900, NOW, "silence")

    desk.say(online=True, is_retained=True)
    assert desk.online() is False
    desk.say(online=True)
    assert desk.online() is True


def test_a_goodbye_is_not_taken_back_by_a_late_reading(desk: Desk) -> None:
    """It may have been on its way while the broker spoke the will; a birth follows a real return."""
    desk.say(online=False)

    assert desk.presence.heard([PUMP]) == []
    assert desk.online() is False
    desk.say(online=True)
    assert desk.online() is True
