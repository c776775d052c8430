"""Dead letters tried again: stored once, whoever asks and how often; what is still bad still waits."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from bad_payloads import alert, telemetry
from fakes_ingest import make_delivery
from ingest_parts import make_engine
from sqlalchemy import Engine, func, select

from cluster.clock import SystemClock
from cluster.store import read_transaction
from ingest.alerts.tables import alert_events, alerts
from ingest.dead_letter import DeadLetterStore, LetterQuery
from ingest.dead_letter_replay import Outcome, Replayer
from ingest.decoder import ClockTolerance
from ingest.payload import Reason
from ingest.pipeline import dead_letter
from ingest.telemetry_redis import TelemetryStream
from ingest.topics import TopicTree

pytestmark = pytest.mark.redis


class Desk:
    """The stores, and letters in them that a later version of the decoder could use."""

    def __init__(self, engine: Engine, redis_url: str) -> None:
        self.engine = engine
        self.stream = TelemetryStream.open(redis_url)
        self.letters = DeadLetterStore(engine, "ingest-0")
        self.replayer = Replayer(TopicTree("wf"), ClockTolerance(), engine, self.stream, SystemClock())

    def set_aside(self, kind: str, payload: bytes, reason: Reason = Reason.UNKNOWN_FIELD, times: int = 1) -> None:
        delivery = make_delivery(f"wf/acme/pump-7/{kind}", payload)
        self.letters.add([dead_letter(delivery, reason, "")] * times)

    def replay(self) -> list[tuple[Outcome, str]]:
        done = self.replayer.replay(self.letters.list(), "nora")
        return [(one.outcome, one.reason) for one in done]

    def count(self, table: str) -> int:
        with read_transaction(self.engine) as connection:
            found = {"alerts": alerts, "events": alert_events}[table]
            return int(connection.execute(select(func.count()).select_from(found)).scalar_one())


@pytest.fixture
def desk(tmp_path: Path, redis_url: str) -> Iterator[Desk]:
    desk = Desk(make_engine(tmp_path), redis_url)
    yield desk
    desk.stream.close()
    desk.engine.dispose()


def test_a_letter_that_can_be_used_by_now_is_stored_once(desk: Desk) -> None:
    """A reading and an alert; replayed again, or sent again by the device, they are known."""
    desk.set_aside("telemetry", telemetry())
    desk.set_aside("alert", alert())
    waiting = desk.letters.list()

    assert desk.replay() == [(Outcome.STORED, "")] * 2
    assert desk.letters.list() == ()
    assert [row.replayed_by for row in desk.letters.find(LetterQuery(is_replayed=True))] == ["nora"] * 2
    assert [one.outcome for one in desk.replayer.replay(waiting, "ann")] == [Outcome.KNOWN] * 2
    assert (desk.stream.total(), desk.count("alerts"), desk.count("events")) == (1, 1, 1)
    (stored,) = desk.stream.history(10)
    assert stored.reading.received_at == waiting[0].at


def test_letters_without_a_key_are_as_many_as_came(desk: Desk) -> None:
    """Equal ones share a row with a count; a replay that is repeated still stores each once."""
    payload = orjson.dumps({"values": {"temp": 1.0}})
    desk.set_aside("telemetry", payload, times=100)
    waiting = desk.letters.list()

    desk.replayer.replay(waiting, "nora")
    desk.replayer.replay(waiting, "ann")
    assert desk.stream.total() == 100

    desk.set_aside("telemetry", payload)
    assert desk.replay() == [(Outcome.STORED, "")]
    assert desk.stream.total() == 101


def test_what_is_still_bad_still_waits(desk: Desk) -> None:
    """With its count, and the reason that holds now."""
    desk.set_aside("telemetry", b"{", times=3)

    assert desk.replay() == [(Outcome.REFUSED, Reason.NOT_JSON)]
    (row,) = desk.letters.list()
    assert (row.count, row.replays, row.reason) == (3, 1, Reason.NOT_JSON)


def test_what_must_not_be_replayed_is_not(desk: Desk) -> None:
    """A foreign user's message, half a payload, presence of another day."""
    desk.set_aside("telemetry", telemetry(), Reason.FOREIGN_TENANT)
    desk.set_aside("telemetry", telemetry(seq=2).ljust(65 * 1024), Reason.OVERSIZE)
    desk.set_aside("state", b'{"online":true}')

    assert [outcome for outcome, _ in desk.replay()] == [Outcome.REFUSED] * 3
    assert desk.stream.total() == 0
    assert all(row.detail != "" for row in desk.letters.list())
