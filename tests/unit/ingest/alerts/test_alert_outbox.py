"""What an engine tells of its commits, and what it dares to remember between them."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Alert, AlertEvent, Handling
from ingest.alerts.store import AlertQuery, AlertStore
from tests.fakes_alerts import FakeClock, device_alert


class Ears:
    """An outbox that only listens."""

    def __init__(self) -> None:
        self.told: list[tuple[AlertEvent, Alert]] = []
        self.error: Exception | None = None

    def write_marks(self, connection: Connection) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def tell(self, events: Sequence[tuple[AlertEvent, Alert]]) -> None:
        self.told += events


def test_each_event_is_told_with_its_alert_as_it_left_it(sql: Engine, clock: FakeClock) -> None:
    """And what is told is what the store holds."""
    ears = Ears()
    engine = AlertEngine(sql, clock, outbox=ears)
    refs = engine.raise_device_alerts([device_alert(seq) for seq in range(3)])
    refs += engine.raise_device_alerts([device_alert(3)])

    assert [event.id for event, _ in ears.told] == [ref.event_id for ref in refs]
    assert [(event.seq, alert.version, alert.count) for event, alert in ears.told] == [(n, n, n) for n in range(1, 5)]
    assert AlertStore(sql, clock).list(AlertQuery()).items[0] == ears.told[-1][1]


def test_nothing_is_told_of_a_transaction_that_failed(sql: Engine, clock: FakeClock) -> None:
    """Neither told, nor remembered as if it had been written."""
    ears = Ears()
    engine = AlertEngine(sql, clock, outbox=ears)
    engine.raise_device_alerts([device_alert(1)])
    ears.error = OperationalError("BEGIN", {}, Exception("away"))
    with pytest.raises(OperationalError):
        engine.raise_device_alerts([device_alert(2)])
    engine.raise_device_alerts([device_alert(2)])

    assert [(event.seq, alert.count) for event, alert in ears.told] == [(1, 1), (2, 2)]


def test_a_redelivery_among_new_alerts_changes_nothing(sql: Engine, clock: FakeClock) -> None:
    """Written in hope, refused by its reading key, written again with care."""
    ears = Ears()
    engine = AlertEngine(sql, clock, outbox=ears)
    engine.raise_device_alerts([device_alert(seq) for seq in range(3)])
    refs = engine.raise_device_alerts([device_alert(2), device_alert(3), device_alert(1), device_alert(3)])

    assert len(refs) == 1
    assert ears.told[-1][0].reading_key == "alert:demo/door-1:boot/3"
    assert [alert.count for _, alert in ears.told] == [1, 2, 3, 4]


def test_what_others_did_to_an_alert_is_seen(sql: Engine, clock: FakeClock) -> None:
    """The engine's memory of an alert is given up as soon as the store knows better."""
    engine, other, store = AlertEngine(sql, clock), AlertEngine(sql, clock), AlertStore(sql, clock)
    first = engine.raise_device_alerts([device_alert(1)])[0]
    other.raise_device_alerts([device_alert(2)])
    engine.raise_device_alerts([device_alert(3)])
    store.act([first.alert_id], "close", "ann", "r1")
    second = engine.raise_device_alerts([device_alert(4)])[0]

    found = {alert.id: alert for alert in store.list(AlertQuery()).items}
    assert (found[first.alert_id].count, found[first.alert_id].handling) == (3, Handling.CLOSED)
    assert (found[second.alert_id].count, found[second.alert_id].occurrence) == (1, 2)
