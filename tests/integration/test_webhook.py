"""The webhook between a real table and a real server: signatures, order, retries, the breaker, dead letters."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cluster.breaker import Breaker
from cluster.circuit import BreakerSettings
from ingest.alerts.engine import AlertEngine
from ingest.alerts.store import AlertStore
from ingest.notify.outbox import LEASE_S, dead_letters, replay
from ingest.notify.settings import WebhookSettings
from ingest.notify.signature import parse_key, verify
from ingest.notify.tables import notifications
from ingest.notify.webhook import Webhook
from tests.fakes_alerts import FakeClock, a_silence, device_alert
from tests.receiver import BUSY, ENDLESS, FAILS, GARBAGE, GONE, HANGS, OK, REFUSES, SHORT, Receiver, receiver

KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()
OLD_KEY = "whsec_" + base64.b64encode(b"o" * 24).decode()


class Floor:
    """A table, a clock and a webhook to one server."""

    def __init__(self, sql: Engine, server: Receiver) -> None:
        self.sql = sql
        self.clock = FakeClock()
        self.alerts = AlertEngine(self.sql, self.clock)
        self.store = AlertStore(self.sql, self.clock)
        self.server = server
        self.seq = 0
        self.webhook: Webhook = None  # type: ignore[assignment]

    async def connect(self, **settings: Any) -> Webhook:
        """Make a webhook that knows the table as it is, and send nothing yet."""
        if self.webhook is not None:
            await self.webhook.close()
        given: dict[str, Any] = {"url": self.server.url, "secret": (KEY, OLD_KEY), "timeout_s": 2.0}
        breaker = Breaker(BreakerSettings(), now=self.clock.monotonic_s)
        self.webhook = Webhook(WebhookSettings(**(given | settings)), self.sql, self.clock, breaker)
        await self.webhook.step()
        return self.webhook

    def alert(self, device: str = "door-1") -> str:
        """A device raises an alert; return its id."""
        self.seq += 1
        (ref,) = self.alerts.raise_device_alerts([device_alert(self.seq, device=device, ts=self.clock.time_s())])
        return ref.alert_id

    def close(self, alert_id: str) -> None:
        self.seq += 1
        self.store.act([alert_id], "close", "ann", f"request-{self.seq}")

    async def deliver(self) -> None:
        """Send until nothing is due."""
        for _ in range(100):
            if not await self.webhook.step():
                return
        raise AssertionError("it never comes to rest")

    def told(self) -> list[tuple[str, str]]:
        """(type, device) of what arrived."""
        bodies = [one.json() for one in self.server.got]
        return [(body["type"], body["data"]["alert"]["device_id"]) for body in bodies]

    def states(self) -> list[tuple[str, int]]:
        with self.sql.connect() as connection:
            rows = connection.execute(select(notifications).order_by(notifications.c.id)).all()
        return [(row.state, row.attempts) for row in rows]


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture
async def floor(sql: Engine, server: Receiver) -> AsyncIterator[Floor]:
    made = Floor(sql, server)
    await made.connect()
    yield made
    await made.webhook.close()


async def test_a_message_is_signed_by_every_key(floor: Floor, server: Receiver) -> None:
    """A receiver that knows either verifies it; one that knows neither, or gets another body, does not."""
    alert_id = floor.alert()
    await floor.deliver()
    (got,) = server.got
    now = floor.clock.time_s()

    for key in (KEY, OLD_KEY):
        assert verify([parse_key(key)], got.headers, got.body, now)
    assert not verify([b"x" * 32], got.headers, got.body, now)
    assert not verify([parse_key(KEY)], got.headers, got.body + b" ", now)
    assert not verify([parse_key(KEY)], got.headers, got.body, now + 301)
    assert not verify([parse_key(KEY)], got.headers | {"webhook-id": "other"}, got.body, now)
    assert got.json()["type"] == "alert.raised"
    assert got.json()["data"]["alert"]["id"] == alert_id
    assert got.headers["content-type"] == "application/json"


async def test_changes_of_one_alert_come_in_order_and_history_is_not_told(floor: Floor) -> None:
    """What happened before there was a webhook is not told; one alert's later change waits for its earlier one."""
    first = floor.alert("door-1")
    floor.close(first)
    floor.alert("door-2")
    await floor.deliver()

    assert sorted(floor.told()) == [
        ("alert.closed", "door-1"), ("alert.raised", "door-1"), ("alert.raised", "door-2"),
    ]  # fmt: skip
    assert floor.told().index(("alert.raised", "door-1")) < floor.told().index(("alert.closed", "door-1"))
    later = await floor.connect()
    await later.step()
    assert len(floor.told()) == 3


@pytest.mark.parametrize("answer", [FAILS, GARBAGE, SHORT, HANGS], ids=["500", "garbage", "short", "hangs"])
async def test_an_outage_is_tried_again_under_the_same_id(floor: Floor, server: Receiver, answer: bytes) -> None:
    """The body and the id stay, so a receiver can leave out what it has."""
    await floor.connect(timeout_s=0.3)
    server.answer = answer
    floor.alert()
    await floor.webhook.step()
    assert floor.states() == [("pending", 1)]
    assert floor.webhook.problem

    server.answer = OK
    floor.clock.advance(2)
    await floor.deliver()
    assert floor.states() == [("delivered", 2)]
    assert len({(got.headers["webhook-id"], got.body) for got in server.got}) == 1
    assert floor.webhook.problem is None


async def test_a_redirect_is_not_followed(floor: Floor, server: Receiver) -> None:
    """Whoever answers with one would choose an address inside our network."""
    async with receiver() as inside:
        server.answer = f"HTTP/1.1 307 Over There\r\nLocation: {inside.url}\r\nContent-Length: 0\r\n\r\n".encode()
        floor.alert()
        await floor.webhook.step()

        assert inside.got == []
        assert "redirect" in str(floor.webhook.problem)
        assert floor.states() == [("pending", 1)]


async def test_of_a_long_answer_little_is_read(floor: Floor, server: Receiver) -> None:
    """An answer without end is an answer, and costs no memory."""
    server.answer = ENDLESS
    floor.alert()
    await floor.deliver()

    assert floor.states() == [("delivered", 1)]
    assert server.sent_bytes < 16 * 1024 * 1024  # what the sockets' buffers took


async def test_an_answer_that_drips_ends_with_the_time(floor: Floor, server: Receiver) -> None:
    """A byte now and then does not hold a message beyond its deadline."""
    await floor.connect(timeout_s=0.3)
    server.drips_s = 0.05
    floor.alert()
    async with asyncio.timeout(20):
        await floor.webhook.step()

    assert floor.states() == [("pending", 1)]
    assert "did not answer within" in str(floor.webhook.problem)


async def test_a_refusal_is_no_outage_and_ends_as_a_dead_letter(floor: Floor, server: Receiver) -> None:
    """It does not open the circuit, holds up no other alert, and can be replayed."""
    await floor.connect(max_attempts=8)
    server.answer = lambda got: REFUSES if b"door-1" in got.body else OK
    bad = floor.alert("door-1")
    floor.alert("door-2")
    await floor.deliver()
    assert sorted(floor.states()) == [("delivered", 1), ("pending", 1)]
    for _ in range(12):
        floor.clock.advance(700)
        await floor.deliver()

    # What was delivered an hour ago is tidied away.
    assert floor.states() == [("dead", 8)]
    (letter,) = dead_letters(floor.sql)
    assert (letter["alert_id"], letter["tenant"], letter["error"]) == (bad, "demo", "127.0.0.1 answered 422 no")
    assert dead_letters(floor.sql, tenant="other") == []

    server.answer = OK
    assert replay(floor.sql, floor.clock, [letter["id"]]) == 1
    assert replay(floor.sql, floor.clock, [letter["id"]]) == 0
    await floor.deliver()
    assert floor.states() == [("delivered", 1)]
    assert dead_letters(floor.sql) == []


async def test_gone_is_final_and_busy_is_waited_for(floor: Floor, server: Receiver) -> None:
    """410 at once, 429 after the pause that it asks for."""
    server.answer = GONE
    floor.alert("door-1")
    await floor.deliver()
    assert floor.states() == [("dead", 1)]

    server.answer = BUSY
    floor.alert("door-2")
    await floor.deliver()
    server.answer = OK
    floor.clock.advance(119)
    await floor.deliver()
    assert len(server.got) == 2
    floor.clock.advance(2)
    await floor.deliver()
    assert floor.told()[-1] == ("alert.raised", "door-2")


async def test_while_the_circuit_is_open_nothing_is_tried(floor: Floor, server: Receiver) -> None:
    """Five failures open it for 300 s; then one probe, and everything that waited goes out."""
    server.answer = FAILS
    for number in range(9):
        floor.alert(f"door-{number}")
    for _ in range(5):
        await floor.webhook.step()
        floor.clock.advance(1)
    tried = len(server.got)
    assert 5 <= tried <= 12

    floor.clock.advance(100)
    await floor.webhook.step()
    assert len(server.got) == tried
    server.answer = OK
    for _ in range(30):
        floor.clock.advance(60)
        await floor.deliver()

    delivered = {device for kind, device in floor.told()[tried:]}
    assert delivered == {f"door-{number}" for number in range(9)}
    assert {state for state, _ in floor.states()} == {"delivered"}


async def test_a_silence_stops_messages(floor: Floor) -> None:
    """What is silenced is not told; when the silence ends, what still fires is."""
    from ingest.alerts.settings import AlertSettings
    from ingest.alerts.silence import Matcher
    from ingest.alerts.silence_store import SilenceStore
    from ingest.alerts.timer import AlertTimer

    silences = SilenceStore(floor.sql, floor.clock)
    silence = a_silence(Matcher("device", ("door-1",)), lasts_s=600.0)
    silences.create(silence, "silence-request-1")
    timer = AlertTimer(floor.sql, AlertSettings(), lambda: None, floor.clock)
    floor.alert("door-1")
    floor.alert("door-2")
    await floor.deliver()
    assert floor.told() == [("alert.raised", "door-2")]

    floor.clock.advance(601)
    timer.step(floor.clock.time_s())
    await floor.deliver()
    assert floor.told()[1:] == [("alert.unsuppressed", "door-1")]


async def test_two_processes_send_each_message_once(floor: Floor, server: Receiver) -> None:
    """One holds the lease; the other takes over when it is gone."""
    breaker = Breaker(BreakerSettings(), now=floor.clock.monotonic_s)
    other = Webhook(WebhookSettings(url=server.url, secret=(KEY,)), floor.sql, floor.clock, breaker)
    for number in range(20):
        floor.alert(f"door-{number}")
    await asyncio.gather(other.step(), floor.webhook.step(), other.step())
    await floor.deliver()
    assert await other.step() == 0
    assert len(server.got) == 20

    floor.clock.advance(LEASE_S + 1)
    floor.alert("door-99")
    await other.step()
    assert await floor.webhook.step() == 0
    assert len(server.got) == 21
    await other.close()


async def test_a_death_between_answer_and_note_repeats_the_message(floor: Floor, server: Receiver) -> None:
    """At least once: the receiver knows it by its id."""
    floor.alert()
    outbox = floor.webhook._outbox

    def dies(_endings: object) -> None:
        raise OSError("the process dies here")

    outbox.settle, settle = dies, outbox.settle  # type: ignore[method-assign]
    with pytest.raises(OSError, match="dies here"):
        await floor.webhook.step()
    outbox.settle = settle  # type: ignore[method-assign]
    await floor.deliver()

    assert len(server.got) == 2
    assert len({got.headers["webhook-id"] for got in server.got}) == 1


async def test_an_event_that_is_committed_late_is_told(floor: Floor) -> None:
    """A transaction of another process may commit an older id after a newer one was read."""
    from cluster.ids import new_id
    from ingest.alerts.tables import alert_events

    alert_id = floor.alert()
    early = new_id()
    floor.alert("door-2")
    await floor.deliver()
    with floor.sql.begin() as connection:
        row = connection.execute(select(alert_events).where(alert_events.c.alert_id == alert_id)).one()
        late = dict(row._mapping) | {"id": early, "seq": 2, "action": "escalated", "reading_key": "late"}
        connection.execute(alert_events.insert(), late)
    floor.clock.advance(6)
    await floor.deliver()

    assert floor.told()[-1] == ("alert.escalated", "door-1")
    assert len(floor.told()) == 3


async def test_what_waits_is_bounded_and_nothing_is_lost(floor: Floor, server: Receiver) -> None:
    """Beyond the bound changes wait in the history of alerts."""
    await floor.connect(max_pending=10)
    server.answer = FAILS
    for number in range(25):
        floor.alert(f"door-{number}")
    for _ in range(3):
        await floor.webhook.step()
    assert len(floor.states()) == 10

    server.answer = OK
    for _ in range(40):
        floor.clock.advance(60)
        await floor.deliver()
    assert {device for _, device in floor.told()} == {f"door-{number}" for number in range(25)}


def test_a_webhook_without_a_key_is_refused(tmp_path: Path) -> None:
    """And its error names no key."""
    with pytest.raises(ValueError, match="needs secret or secret_file"):
        WebhookSettings(url="http://example.com/")
    with pytest.raises(ValueError, match=r"must be http://host"):
        WebhookSettings(url="file:///etc/passwd", secret=(KEY,))
    for bad in ("whsec_%%%", "whsec_" + base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError, match="a webhook's secret must") as raised:
            parse_key(bad)
        assert bad not in str(raised.value)
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n{OLD_KEY}\n\n")
    assert WebhookSettings(url="http://example.com/", secret_file=str(path)).secrets() == (KEY, OLD_KEY)
    assert KEY not in repr(WebhookSettings(url="http://example.com/", secret=(KEY,)))
