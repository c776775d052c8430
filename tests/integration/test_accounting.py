"""Published = delivered + in flight + coalesced + dropped, from the caller to the last client."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from realtime.behind_marker import BehindMarker
from realtime.books import Book, added
from realtime.broadcaster import Broadcaster
from realtime.hub_service import HubService
from realtime.interest import Asker, Wish
from realtime.journal_memory import MemoryJournal
from realtime.presence import Report
from realtime.publication import Draft, StreamPosition
from realtime.replies import Cursor, HistoryReply, PollReply
from realtime.settings import BroadcastSettings, HubSettings
from serve_apps.auth import Authenticator, Role, issue_token
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.gateway_settings import KIB, GatewaySettings
from tests.fakes_gateway import FakeTransport

SECRET = b"s" * 32
MESSAGES = 400
BARS = 20


class ServiceHub:
    """``HubClient``'s calls on a hub in this process."""

    def __init__(self, service: HubService) -> None:
        self._service = service

    async def poll(
        self,
        cursor: Cursor | None,
        timeout_s: float = 25.0,
        hear: Callable[[PollReply], None] | None = None,
        wish: Wish | None = None,
    ) -> PollReply:
        reply = await self._service.poll(cursor, timeout_s, wish)
        if hear is not None:
            hear(reply)
        return reply

    async def history(
        self, channel: str, since: StreamPosition | None, limit: int = 300, asker: Asker | None = None
    ) -> HistoryReply:
        return self._service.history(channel, since, limit, asker)

    async def positions(self, channels: Sequence[str], asker: Asker | None = None) -> dict[str, StreamPosition]:
        return self._service.positions(channels, asker)

    async def report(self, report: Report) -> bool:
        return self._service.report(report)


class LoopTransport:
    """The broadcaster's thread hands its batches to the hub's loop."""

    name = "hub"
    never_blocks_when_idle = False

    def __init__(self, service: HubService) -> None:
        self._service, self._loop = service, asyncio.get_running_loop()

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
        asyncio.run_coroutine_threadsafe(self._service.publish(drafts, batch), self._loop).result(timeout_s)
        return 1

    def close(self) -> None:
        """Nothing to release."""


class Client:
    """A client that reads all, and answers its pings unless it is told not to."""

    def __init__(self, connection: Connection, transport: FakeTransport) -> None:
        self.connection, self.transport = connection, transport
        self.is_reading = True
        self._answered = 0

    async def answer_pings(self) -> None:
        pings = sum(line == {} for line in self.transport.lines)
        for _ in range(pings - self._answered if self.is_reading else 0):
            await self.connection.on_text("{}")
            self._answered += 1


async def opened(register: Connections, *, since: dict[str, Any] | None = None) -> Client:
    transport = FakeTransport()
    connection = register.open(transport)
    token = issue_token(SECRET, sub="ann", tenant=None, roles=[Role.OPERATOR], ttl_s=600)
    await connection.on_text(json.dumps({"id": 1, "connect": {"token": token, "subs": since or {}}}))
    await transport.until(lambda made: bool(made.frames))
    return Client(connection, transport)


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


async def test_the_books_of_a_run_with_losses_add_up(tmp_path: Path) -> None:
    """One publisher, one hub, two replicas; a slow client, a killed one, one that recovers, a flood of bars."""
    service = HubService(HubSettings(), MemoryJournal(), BehindMarker(tmp_path), "here")
    await service.start()
    transport = LoopTransport(service)
    broadcaster = Broadcaster(BroadcastSettings(buffer_size=64, block_s=0.0), lambda: transport)
    limits = GatewaySettings(credit_bytes=16 * KIB, credit_ping_bytes=2 * KIB, credit_timeout_s=1.0, ring_age_s=2.0)
    auth = Authenticator(SECRET, http_port=1, consume=_first_use)
    replicas = [Connections(ServiceHub(service), auth, limits) for _ in range(2)]  # type: ignore[arg-type]
    clients = [await opened(replica) for replica in replicas for _ in range(3)]
    slow, killed, leaver = clients[0], clients[1], clients[3]
    slow.is_reading = False

    def publish() -> None:
        for number in range(MESSAGES):
            text = {"n": number, "text": "x" * 100}
            broadcaster.broadcast_to_noc_dashboard("alert", text, priority=("critical", "high", "normal")[number % 3])
            for bar in range(BARS):
                broadcaster.broadcast_task_progress("ann", f"bar {bar}", number * 100 / MESSAGES)
            broadcaster.publish("no such channel", "x", {})

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    while not publishing.done():
        await asyncio.sleep(0.01)
        for client in clients:
            await client.answer_pings()
        check([replica.book() for replica in replicas])
        if killed.connection.session.is_open and killed.transport.publications("noc:all"):
            replicas[0].close(killed.connection)
    await publishing
    assert await asyncio.to_thread(broadcaster.flush, 20)
    heard = leaver.transport.publications("noc:all")
    replicas[1].close(leaver.connection)
    position = {"recover": True, "offset": heard[0]["offset"], "epoch": service.positions(["noc:all"])["noc:all"].epoch}
    clients.append(await opened(replicas[1], since={"noc:all": position}))
    await slow.transport.until(lambda made: made.close_code is not None)
    for _ in range(100):
        await asyncio.sleep(0.01)
        for client in clients:
            await client.answer_pings()

    publisher, books = broadcaster.book(), service.books()
    check([publisher, *books.values(), *(replica.book() for replica in replicas)])
    assert publisher.num_open() == 0
    assert publisher.num_settled("dropped", "invalid") == MESSAGES
    assert publisher.num_settled("coalesced") > 0
    of_publisher = sum(count for (kind, _), count in books["hub"].taken.items() if kind != "gateway")
    assert publisher.num_settled("delivered") == of_publisher
    assert books["hub"].num_settled("duplicate") == 0
    gateways = added(replica.book() for replica in replicas)
    assert slow.transport.close_code is CloseCode.SLOW
    assert gateways.num_settled("dropped", "slow") + gateways.num_settled("dropped", "unacknowledged") > 0
    assert gateways.num_settled("delivered") > 0
    for client in clients:
        for replica in replicas:
            replica.close(client.connection)
    assert added(replica.book() for replica in replicas).num_open() == 0
    check([replica.book() for replica in replicas])
    broadcaster.close()
    for replica in replicas:
        await replica.stop()
    await service.close()


def check(books: Sequence[Book]) -> None:
    assert [book.imbalance() for book in books] == [{}] * len(books)
