"""Events that are told from memory: over a real socket of the hub, confirmed later, marked with the next commit."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from cluster.clock import SystemClock
from ingest.alerts.engine import AlertEngine
from ingest.alerts.hub_line import MAX_UNDER_WAY_BYTES, HubLine
from ingest.alerts.relay import Relay
from ingest.alerts.tables import alert_events
from realtime.behind_marker import BehindMarker
from realtime.errors import HubUnavailableError
from realtime.hub_connection_socket import BlockingConnection
from realtime.hub_service import HubService
from realtime.hub_socket import HubSocket
from realtime.publication import Draft
from realtime.settings import HubSettings
from tests.fakes_alerts import FakeHub, device_alert


class SocketHub(FakeHub):
    """A hub whose socket is real; what comes another way is kept as ``FakeHub`` keeps it."""

    def __init__(self, served: HubSocket) -> None:
        super().__init__()
        self.served = served

    def open_pipe(self, timeout_s: float) -> BlockingConnection:  # type: ignore[override]
        return BlockingConnection(self.served.address, timeout_s)

    def heard(self, channel: str) -> list[str]:
        """Return the event ids on a channel of the hub, in order."""
        publications = self.served.service.history(channel, None, 1000).publications
        return [json.loads(one.data)["data"]["event_id"] for one in publications]


@pytest.fixture
async def socket_hub(tmp_path: Path) -> AsyncIterator[SocketHub]:
    service = HubService(HubSettings(), None, BehindMarker(tmp_path), "here")
    await service.start()
    served = HubSocket(service, tmp_path)
    await served.open()
    yield SocketHub(served)
    await served.close()
    await service.close()


@pytest.fixture
def started(sql: Engine, socket_hub: SocketHub) -> Iterator[Relay]:
    relay = Relay(sql, socket_hub)
    relay.start()
    yield relay
    relay.close()


def unmarked(sql: Engine) -> int:
    with sql.connect() as connection:
        query = select(func.count()).select_from(alert_events).where(alert_events.c.broadcast_at.is_(None))
        return connection.scalar(query) or 0


async def until_marked(sql: Engine) -> None:
    give_up_at_s = time.monotonic() + 20.0
    while await asyncio.to_thread(unmarked, sql):
        assert time.monotonic() < give_up_at_s, "an event was not marked"
        await asyncio.sleep(0.01)


async def test_what_is_committed_is_told_from_memory(sql: Engine, started: Relay, socket_hub: SocketHub) -> None:
    """Once the line stands no event is looked up in the table, and each is told once, in order."""
    engine = AlertEngine(sql, SystemClock(), outbox=started)
    refs = await asyncio.to_thread(engine.raise_device_alerts, [device_alert(0)])
    await until_marked(sql)  # this one went by the table, and opened the line
    by_table = socket_hub.calls
    for seq in range(1, 40, 3):
        alerts = [device_alert(seq + more) for more in range(3)]
        refs += await asyncio.to_thread(engine.raise_device_alerts, alerts)
    await until_marked(sql)

    assert socket_hub.calls == by_table
    assert socket_hub.heard("noc:all") == [ref.event_id for ref in refs[1:]] == socket_hub.heard("tenant:demo")


async def test_a_mark_rides_on_the_next_commit(sql: Engine, started: Relay) -> None:
    """A commit takes along the marks of what the hub has confirmed."""
    engine = AlertEngine(sql, SystemClock(), outbox=started)
    await asyncio.to_thread(engine.raise_device_alerts, [device_alert(0)])
    await until_marked(sql)
    await asyncio.to_thread(engine.raise_device_alerts, [device_alert(1)])
    give_up_at_s = time.monotonic() + 20.0
    while not started._confirmed and await asyncio.to_thread(unmarked, sql):
        assert time.monotonic() < give_up_at_s
        await asyncio.sleep(0)
    await asyncio.to_thread(engine.raise_device_alerts, [device_alert(2)])

    assert await asyncio.to_thread(unmarked, sql) <= 1


async def test_a_lost_line_leaves_the_events_to_the_table(
    sql: Engine, started: Relay, socket_hub: SocketHub, tmp_path: Path
) -> None:
    """The hub goes away and comes back elsewhere: all are told, and from memory again."""
    engine = AlertEngine(sql, SystemClock(), outbox=started)
    await asyncio.to_thread(engine.raise_device_alerts, [device_alert(0)])
    await until_marked(sql)
    await socket_hub.served.close()
    socket_hub.fail_next = 1
    refs = await asyncio.to_thread(engine.raise_device_alerts, [device_alert(1), device_alert(2)])
    successor = HubSocket(socket_hub.served.service, tmp_path)
    await successor.open()
    socket_hub.served = successor
    await until_marked(sql)
    refs += await asyncio.to_thread(engine.raise_device_alerts, [device_alert(3)])
    await until_marked(sql)

    told = {json.loads(draft.data)["data"]["event_id"] for draft in socket_hub.on("noc:all")}
    assert {ref.event_id for ref in refs} <= told | set(socket_hub.heard("noc:all"))
    await successor.close()


async def test_a_full_line_takes_no_more(socket_hub: SocketHub) -> None:
    """What does not fit is refused at once, and room comes with the confirmations."""
    line = HubLine(socket_hub)
    draft = Draft("noc:all", b"x" * 60_000, key="k")
    assert not line.send(["early"], [draft]), "there is no line yet"
    assert await asyncio.to_thread(line.open)
    sent = 0
    while await asyncio.to_thread(line.send, [f"e{sent}"], [draft]):
        sent += 1
    assert sent == MAX_UNDER_WAY_BYTES // 60_000
    confirmed: list[str] = []
    while len(confirmed) < sent:
        confirmed += [name for batch in await asyncio.to_thread(line.hear, 20.0) for name in batch.event_ids]

    assert confirmed == [f"e{number}" for number in range(sent)]
    assert line.has_room()
    line.close()


async def test_an_end_of_the_line_is_told(socket_hub: SocketHub) -> None:
    """Whoever hears learns it, and what was under way is nobody's any more."""
    line = HubLine(socket_hub)
    await asyncio.to_thread(line.open)
    await socket_hub.served.close()

    with pytest.raises(HubUnavailableError):
        await asyncio.to_thread(line.hear, 20.0)
    assert (line.fileno, line.oldest_s, line.has_room()) == (None, None, False)
