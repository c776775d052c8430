"""The hub's socket outlives whatever comes in on it, and a client finds its way around it."""

import asyncio
import contextlib
import gc
import os
import secrets
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fakes_realtime import HubHandle

from realtime import wire
from realtime.behind_marker import BehindMarker
from realtime.errors import HubRefusedError
from realtime.hub_client import HubClient
from realtime.hub_connection_socket import AsyncConnection, BlockingConnection
from realtime.hub_frames import SocketAddress, write_request
from realtime.hub_service import HubService
from realtime.hub_socket import MAX_UNDER_WAY, HubSocket
from realtime.publication import Draft
from realtime.settings import HubSettings


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[HubSocket]:
    service = HubService(HubSettings(), None, BehindMarker(tmp_path), "here")
    await service.start()
    served = HubSocket(service, tmp_path, max_connections=20, greeting_s=0.3)
    await served.open()
    yield served
    await served.close()
    await service.close()


@pytest.fixture
def hub(served: HubSocket) -> HubClient:
    return HubClient(HubHandle(served.service, served.address))


async def ended(peer: socket.socket) -> bool:
    """Return whether the other side has closed the connection."""
    peer.settimeout(5)
    try:
        return await asyncio.to_thread(peer.recv, 1) == b""
    except ConnectionResetError:
        return True


@contextlib.contextmanager
def raw(served: HubSocket) -> Any:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(served.address.path)
        yield peer


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(write_request(1, "hello", (b"guess",)), "no_secret", id="wrong-secret"),
        pytest.param(write_request(1, "hello", ()), "no_secret", id="no-secret"),
        pytest.param(write_request(1, "positions", (("noc:all",),)), "no_secret", id="no-greeting"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "bad_frame", id="http"),
        pytest.param((1 << 31).to_bytes(4, "big"), "bad_frame", id="huge-length"),
        pytest.param(b"\x00\x00\x00\x01\xc1", "bad_frame", id="not-messagepack"),
        pytest.param(b"\x00\x00\x00\x02\x91\x01", "bad_frame", id="no-request"),
        pytest.param(b"\x00\x00", "silent", id="half-a-length"),
        pytest.param(write_request(1, "hello", (b"guess",))[:-1], "silent", id="half-a-frame"),
        pytest.param(b"", "silent", id="nothing"),
    ],
)
async def test_a_stranger_is_shown_out(served: HubSocket, hub: HubClient, sent: bytes, reason: str) -> None:
    """And nobody else notices."""
    with raw(served) as peer:
        peer.sendall(sent)

        assert await ended(peer)
    assert served.closed == {reason: 1}
    assert (await hub.poll(None)).gap is False
    assert hub.calls == {"socket": 1}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(secrets.token_bytes(50_000), id="noise"),
        pytest.param((1 << 22).to_bytes(4, "big"), id="huge-length"),
        pytest.param(b"\x00\x00\x04\x00" + b"\x91" * 1024, id="deep"),
    ],
)
async def test_bad_bytes_end_only_their_connection(served: HubSocket, hub: HubClient, sent: bytes) -> None:
    """Of a peer that knows the secret, too."""
    await hub.poll(None)
    with raw(served) as peer:
        peer.sendall(write_request(0, "hello", (served.address.secret,)))
        await asyncio.to_thread(peer.recv, 100)
        peer.sendall(sent)

        assert await ended(peer)
    await hub.poll(None)
    assert (served.closed, hub.calls) == ({"bad_frame": 1}, {"socket": 2})


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        pytest.param("drop_everything", (), id="unknown"),
        pytest.param("publish", (), id="no-arguments"),
        pytest.param("publish", (7, []), id="batch-no-text"),
        pytest.param("publish", ("b", [("noc:all", "text", "normal", None, None)]), id="payload-no-bytes"),
        pytest.param("publish", ("b", [("noc:all", b"1", "normal", {}, None)]), id="key-no-text"),
        pytest.param("publish", ("b", [("noc:all", b"1", "urgent", None, None)]), id="no-such-priority"),
        pytest.param("publish", ("b", [("noc:all", b"", "normal", None, None)]), id="no-payload"),
        pytest.param("poll", ("x", 1.0), id="cursor-no-pair"),
        pytest.param("poll", (None, "soon"), id="time-no-number"),
        pytest.param("poll", (None, float("nan")), id="time-not-a-number"),
        pytest.param("publish", ("b" * 1000, [("noc:all", b"1", "normal", None, None)]), id="batch-of-a-long-name"),
        pytest.param("history", ("noc:all", None, None), id="no-limit"),
        pytest.param("positions", (7,), id="no-channels"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    served: HubSocket, operation: str, arguments: tuple[Any, ...]
) -> None:
    """The connection goes on; a client would hear the reason from the actor."""
    connection = await AsyncConnection.open(served.address, 5)
    with pytest.raises(HubRefusedError):
        await connection.ask(operation, arguments)
    assert await connection.ask("positions", (["noc:all"],))
    connection.close()


async def test_a_peer_that_never_reads_costs_bounded_memory(served: HubSocket, hub: HubClient) -> None:
    """What it asks for is no longer read once enough answers wait for it."""
    await hub.publish([Draft("noc:all", b"x" * 60_000) for _ in range(10)])
    with raw(served) as peer:
        peer.sendall(write_request(0, "hello", (served.address.secret,)))
        await asyncio.to_thread(peer.recv, 100)
        peer.settimeout(0.5)
        request = write_request(1, "history", ("noc:all", None, 10)) * 100_000
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(peer.sendall, request)
        (flooding,) = [one for one in served.peers if one._frames]

        assert flooding._transport.get_write_buffer_size() < 4_000_000
        assert (await hub.history("noc:all", None, 10)).publications
        assert hub.calls == {"socket": 2}


async def begin_polls(served: HubSocket, count: int) -> tuple[AsyncConnection, list[asyncio.Task[Any]]]:
    connection = await AsyncConnection.open(served.address, 5)
    cursor, *_ = await connection.ask("poll", (None, 1.0))
    polls = [asyncio.create_task(connection.ask("poll", (cursor, 20.0))) for _ in range(count)]
    await pollers_become(served, min(count, MAX_UNDER_WAY))
    return connection, polls


async def pollers_become(served: HubSocket, count: int) -> None:
    async with asyncio.timeout(5):
        while served.service.stats().pollers != count:  # noqa: ASYNC110 -- nothing tells
            await asyncio.sleep(0.01)


async def test_polls_of_one_connection_are_bounded(served: HubSocket) -> None:
    """Further ones wait unread until others are answered; then all are."""
    connection, polls = await begin_polls(served, MAX_UNDER_WAY + 20)
    await asyncio.sleep(0.05)
    assert served.service.stats().pollers == MAX_UNDER_WAY
    await served.service.publish([Draft("noc:all", b"1")])
    replies = await asyncio.wait_for(asyncio.gather(*polls), 5)

    assert [len(publications) for _, publications, *_ in replies] == [1] * len(polls)
    connection.close()


async def test_a_reader_that_vanishes_leaves_nothing_behind(served: HubSocket) -> None:
    """Its polls end with its connection, on both sides."""
    connection, polls = await begin_polls(served, 5)
    connection.close()
    ends = await asyncio.gather(*polls, return_exceptions=True)
    await pollers_become(served, 0)

    assert [type(end) for end in ends] == [ConnectionResetError] * 5
    assert served.peers == set()


async def test_a_forgotten_client_gives_its_connection_back(served: HubSocket) -> None:
    """Each task that was handed a client makes one, and none of them closes it."""
    for _ in range(5):
        hub = HubClient(HubHandle(served.service, served.address))
        await hub.poll(None)
        del hub
        gc.collect()
    async with asyncio.timeout(5):
        while served.peers:  # noqa: ASYNC110 -- nothing tells
            await asyncio.sleep(0.01)


def test_a_client_outlives_its_event_loops(tmp_path: Path) -> None:
    """A program that runs one loop after another keeps one connection."""

    async def with_hub(work: Callable[[HubSocket], Awaitable[None]]) -> None:
        service = HubService(HubSettings(), None, BehindMarker(tmp_path), "here")
        await service.start()
        served = HubSocket(service, tmp_path)
        await served.open()
        await work(served)
        await served.close()
        await service.close()

    async def use_from_loops(served: HubSocket) -> None:
        hub = HubClient(HubHandle(served.service, served.address))
        hub._pool._route.reached(served.address)
        for _ in range(3):
            await asyncio.to_thread(lambda: asyncio.run(hub.positions(["noc:all"])))

        assert (hub.calls, len(hub._pool._links)) == ({"socket": 3}, 1)

    asyncio.run(with_hub(use_from_loops))


async def test_one_connection_too_many_takes_the_actor(served: HubSocket) -> None:
    """The others keep theirs."""
    connections = [await AsyncConnection.open(served.address, 5) for _ in range(20)]
    hub = HubClient(HubHandle(served.service, served.address))
    await hub.poll(None)

    assert (hub.calls, served.closed) == ({"actor": 1}, {"too_many": 1})
    assert await connections[0].ask("positions", (["noc:all"],))
    for connection in connections:
        connection.close()


OTHER_USER = """
    import os, sys
    from realtime.hub_connection_socket import BlockingConnection
    from realtime.hub_frames import SocketAddress

    os.setuid(65534)
    try:
        BlockingConnection(SocketAddress(sys.argv[1], b"secret"), 1.0)
    except PermissionError:
        print("not permitted")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
async def test_another_user_may_not_enter_the_folder(served: HubSocket) -> None:
    """The connection fails as the client expects it."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(OTHER_USER), served.address.path, stdout=subprocess.PIPE
    )

    assert (await program.communicate())[0] == b"not permitted\n"


@pytest.mark.parametrize("place", ["absent/hub.sock", "file/hub.sock", "file"])
async def test_a_place_without_a_socket_means_the_actor(served: HubSocket, tmp_path: Path, place: str) -> None:
    """Another node, or nobody there; the client's count says so."""
    (tmp_path / "file").touch()
    hub = HubClient(HubHandle(served.service, SocketAddress(str(tmp_path / place), served.address.secret)))
    await hub.publish([Draft("noc:all", b"1")])
    await hub.publish([Draft("noc:all", b"2")])

    assert hub.calls == {"actor": 2}


async def test_a_restarted_hub_is_found_at_its_new_address(tmp_path: Path) -> None:
    """Its path and secret are new; the stale path of the dead one is gone."""
    service = HubService(HubSettings(), None, BehindMarker(tmp_path), "here")
    await service.start()
    first = HubSocket(service, tmp_path)
    await first.open()
    handle = HubHandle(service, first.address)
    hub = HubClient(handle)
    await hub.poll(None)
    for peer in list(first.peers):
        peer.end("closed")
    second = HubSocket(service, tmp_path)
    await second.open()
    handle.address = second.address
    await asyncio.sleep(0.05)
    for number in range(3):
        await hub.publish([Draft("noc:all", b"%d" % number)])

    assert first.address.path != second.address.path
    assert first.address.secret != second.address.secret
    assert [not Path(one.address.path).exists() for one in (first, second)] == [True, False]  # noqa: ASYNC240
    assert (hub.calls, second.calls_total) == ({"socket": 4}, 3)
    await second.close()
    await first.close()
    await service.close()


async def test_a_forked_child_does_not_use_its_parents_connection(served: HubSocket) -> None:
    """Two processes on one connection would read each other's answers."""
    connection = await asyncio.to_thread(BlockingConnection, served.address, 5)
    connection._pid += 1

    assert not connection.is_open
    connection.close()


async def test_a_request_larger_than_the_sockets_buffer_is_sent_in_pieces(served: HubSocket) -> None:
    """A thread's connection waits for room, and for the answer."""
    connection = await asyncio.to_thread(BlockingConnection, served.address, 5)
    drafts = wire.write_drafts([Draft("noc:all", b"1" * 60_000) for _ in range(16)])

    positions = await asyncio.to_thread(connection.ask, "publish", ("large", drafts), 5)

    assert [offset for _, offset in positions] == list(range(1, 17))
    connection.close()


async def test_a_peer_that_reads_nothing_costs_a_thread_its_time_out_only(tmp_path: Path) -> None:
    """However long it would have gone on saying nothing."""
    path = str(tmp_path / "mute.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.bind(path)
        mute.listen()
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(BlockingConnection, SocketAddress(path, b"secret"), 0.05)
