"""The two official SDKs as a test sees them, and a wire between client and server that can be cut."""

import asyncio
import functools
import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from centrifuge import (
    CentrifugeError,
    Client,
    ClientEventHandler,
    ConnectedContext,
    ConnectingContext,
    DisconnectedContext,
    JoinContext,
    LeaveContext,
    PublicationContext,
    ReplyError,
    ServerJoinContext,
    ServerLeaveContext,
    ServerPublicationContext,
    ServerSubscribedContext,
    SubscribedContext,
    SubscriptionEventHandler,
    UnsubscribedContext,
)

SDK = Path(__file__).parent.parent / "sdk"
NODE = Path(sys.executable).parent / "node"

Event = dict[str, Any]


class RefusedError(Exception):
    """A command was answered with an error; its argument is the code, below 100 an SDK's own."""


class Listener:
    """What one client has heard so far, and what may be asked of it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ask_once: Callable[..., Awaitable[Any]] | None = None
        """(method, *args) -> the answer; raises RefusedError."""
        self._news = asyncio.Event()

    async def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the client; again when its socket was renewed meanwhile.

        Raises:
            RefusedError: the gateway answered with an error.
        """
        assert self.ask_once is not None, "not started"
        for _ in range(5):
            try:
                return await self.ask_once(method, *args)
            except RefusedError as error:
                if error.args[0] >= 100:
                    raise
            await asyncio.sleep(0.1)
        raise AssertionError(f"{method} was never answered")

    def heard(self, event: str, channel: str) -> list[Any]:
        """The users of all joins, leaves or publications of a channel."""
        return [one.get("user") for one in self.events if one["event"] == event and one.get("channel") == channel]

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
async def javascript(
    url: str, token: str, *channels: str, channel_tokens: Sequence[str] = ()
) -> AsyncIterator[Listener]:
    """Run npm ``centrifuge`` in node; its subscriptions use ``channel_tokens`` one after another, the last for ever."""
    listener = Listener()
    process = await asyncio.create_subprocess_exec(
        str(NODE), "listen.mjs", url, token, *channels,
        cwd=SDK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20,
        env={**os.environ, "CHANNEL_TOKENS": json.dumps(list(channel_tokens))},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    async def read(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            listener.hear(**json.loads(line))

    async def ask(method: str, *args: Any) -> Any:
        assert process.stdin is not None
        call_id = os.urandom(4).hex()
        process.stdin.write(json.dumps({"id": call_id, "method": method, "args": args}).encode() + b"\n")
        await listener.until(lambda heard: any(event.get("id") == call_id for event in heard.events))
        (answer,) = [event for event in listener.events if event.get("id") == call_id]
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer["result"]

    listener.ask_once = ask
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
        user = ctx.pub.info and ctx.pub.info.user
        self._listener.hear("publication", channel=ctx.channel, offset=ctx.pub.offset, data=ctx.pub.data, user=user)

    async def on_join(self, ctx: ServerJoinContext) -> None:
        self._listener.hear("join", channel=ctx.channel, user=ctx.info.user)

    async def on_leave(self, ctx: ServerLeaveContext) -> None:
        self._listener.hear("leave", channel=ctx.channel, user=ctx.info.user)


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
        user = ctx.pub.info and ctx.pub.info.user
        self._listener.hear("publication", channel=self._channel, offset=ctx.pub.offset, data=ctx.pub.data, user=user)

    async def on_join(self, ctx: JoinContext) -> None:
        self._listener.hear("join", channel=self._channel, user=ctx.info.user)

    async def on_leave(self, ctx: LeaveContext) -> None:
        self._listener.hear("leave", channel=self._channel, user=ctx.info.user)


async def _ask_python(client: Client, method: str, *args: Any) -> Any:
    try:
        match method:
            case "publish":
                await client.publish(*args)
                return {}
            case "presence":
                return [info.user for info in (await client.presence(*args)).clients.values()]
            case "presence_stats":
                stats = await client.presence_stats(*args)
                return [stats.num_clients, stats.num_users]
            case _:
                return (await client.rpc(*args)).data
    except ReplyError as error:
        raise RefusedError(error.code) from error
    except CentrifugeError as error:
        raise RefusedError(0) from error


@asynccontextmanager
async def python(url: str, token: str, *channels: str, channel_tokens: Sequence[str] = ()) -> AsyncIterator[Listener]:
    """Run PyPI ``centrifuge-python`` in this process; see ``javascript``."""
    listener = Listener()
    tokens = list(channel_tokens)

    async def next_token(_channel: str) -> str:
        return tokens.pop(0) if len(tokens) > 1 else tokens[0]

    client = Client(url, events=_ClientEvents(listener), token=token, min_reconnect_delay=0.02, max_reconnect_delay=0.5)
    for channel in channels:
        subscription = client.new_subscription(
            channel,
            events=_ChannelEvents(listener, channel),
            get_token=next_token if tokens else None,
            join_leave=True,
            min_resubscribe_delay=0.02,
            max_resubscribe_delay=0.5,
        )
        await subscription.subscribe()
    listener.ask_once = functools.partial(_ask_python, client)
    await client.connect()
    try:
        yield listener
    finally:
        await client.disconnect()
        listener.ask_once = None
        del client
        await asyncio.sleep(0.05)
        # centrifuge-python 0.7.0 leaves the sockets of cut connections to the garbage collector; here nobody minds.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
