"""The two official SDKs as a test sees them, and a wire between client and server that can be cut."""

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from centrifuge import (
    Client,
    ClientEventHandler,
    ConnectedContext,
    ConnectingContext,
    DisconnectedContext,
    PublicationContext,
    ServerPublicationContext,
    ServerSubscribedContext,
    SubscribedContext,
    SubscriptionEventHandler,
    UnsubscribedContext,
)

SDK = Path(__file__).parent.parent / "sdk"
NODE = Path(sys.executable).parent / "node"

Event = dict[str, Any]


class Listener:
    """What one client has heard so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def hear(self, event: str, **more: Any) -> None:
        self.events.append({"event": event, **more})
        self._news.set()

    def count(self, event: str) -> int:
        return sum(heard["event"] == event for heard in self.events)

    def offsets(self, channel: str) -> list[int]:
        return [
            heard["offset"] for heard in self.events if heard["event"] == "publication" and heard["channel"] == channel
        ]

    def recoveries(self, channel: str) -> list[bool]:
        """Whether each resubscription to ``channel`` brought everything that was missed."""
        return [
            heard["recovered"]
            for heard in self.events
            if heard.get("channel") == channel and heard.get("wasRecovering")
        ]

    async def until(self, condition: Callable[["Listener"], bool], timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def javascript(url: str, token: str, *channels: str) -> AsyncIterator[Listener]:
    """Run npm ``centrifuge`` in node."""
    listener = Listener()
    process = await asyncio.create_subprocess_exec(
        str(NODE), "listen.mjs", url, token, *channels,
        cwd=SDK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    async def read(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            listener.hear(**json.loads(line))

    reader = asyncio.create_task(read(process.stdout), name="sdk-output")
    try:
        yield listener
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 10)
        await reader


class _ClientEvents(ClientEventHandler):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    async def on_connecting(self, ctx: ConnectingContext) -> None:
        self._listener.hear("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx: ConnectedContext) -> None:
        self._listener.hear("connected")

    async def on_disconnected(self, ctx: DisconnectedContext) -> None:
        self._listener.hear("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_subscribed(self, ctx: ServerSubscribedContext) -> None:
        self._listener.hear(
            "subscribed", channel=ctx.channel, wasRecovering=ctx.was_recovering, recovered=ctx.recovered
        )

    async def on_publication(self, ctx: ServerPublicationContext) -> None:
        self._listener.hear("publication", channel=ctx.channel, offset=ctx.pub.offset, data=ctx.pub.data)


class _ChannelEvents(SubscriptionEventHandler):
    def __init__(self, listener: Listener, channel: str) -> None:
        self._listener = listener
        self._channel = channel

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        self._listener.hear(
            "sub-subscribed", channel=self._channel, wasRecovering=ctx.was_recovering, recovered=ctx.recovered
        )

    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        self._listener.hear("sub-unsubscribed", channel=self._channel, code=ctx.code, reason=ctx.reason)

    async def on_publication(self, ctx: PublicationContext) -> None:
        self._listener.hear("publication", channel=self._channel, offset=ctx.pub.offset, data=ctx.pub.data)


@asynccontextmanager
async def python(url: str, token: str, *channels: str) -> AsyncIterator[Listener]:
    """Run PyPI ``centrifuge-python`` in this process."""
    listener = Listener()
    client = Client(url, events=_ClientEvents(listener), token=token, min_reconnect_delay=0.02, max_reconnect_delay=0.5)
    for channel in channels:
        subscription = client.new_subscription(
            channel,
            events=_ChannelEvents(listener, channel),
            min_resubscribe_delay=0.02,
            max_resubscribe_delay=0.5,
        )
        await subscription.subscribe()
    await client.connect()
    try:
        yield listener
    finally:
        await client.disconnect()
        del client
        await asyncio.sleep(0.05)
        # centrifuge-python 0.7.0 leaves the sockets of cut connections to the garbage collector; here nobody minds.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


class Wire:
    """A TCP relay in front of the gateway whose connections can be torn without a goodbye."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Wire"]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        try:
            yield self
        finally:
            self.cut()
            server.close()
            await server.wait_closed()

    def cut(self) -> None:
        """Tear every connection: the peers see a reset."""
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {writer, upstream}
        self._writers |= ends
        copies = [
            asyncio.create_task(_copy(reader, upstream), name="wire-up"),
            asyncio.create_task(_copy(upstream_reader, writer), name="wire-down"),
        ]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.wait(copies)
        self._writers -= ends


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
